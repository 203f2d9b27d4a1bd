//! Invitations over HTTP: given out, listed, revoked.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use magpie_protocol::limits::INVITATION_LEN_MAX;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{
    Served,
    access::{self, Turned, ask_service, note_change},
    done,
};
use crate::{
    machine,
    service::{
        self,
        invitations::{Invitation, USES_MAX},
        state::{keys_entity, keys_slot},
    },
};

/// Longest note, in bytes.
const NOTE_LEN_MAX: usize = 200;
/// Longest life, in days.
const DAYS_MAX: u64 = 3_650;
/// Letters of a code: none that are mistaken for one another.
const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
/// Letters of a code that is drawn: 59 bits, and every try is counted.
const DRAWN: usize = 12;

/// An invitation that is wanted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NewInvitation {
    /// Drawn at random if there is none.
    #[serde(default)]
    pub code: Option<String>,
    /// For so many accounts; 1 if nothing is said.
    #[serde(default)]
    pub uses: Option<u32>,
    /// For so many days; without an end if nothing is said.
    #[serde(default)]
    pub days: Option<u64>,
    #[serde(default)]
    pub note: String,
}

/// An invitation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvitationInfo {
    pub code: String,
    pub note: String,
    pub uses: u32,
    /// Accounts that came with it.
    pub used: u32,
    pub expires_ms: Option<u64>,
    pub created_ms: u64,
}

/// All of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvitationList {
    pub invitations: Vec<InvitationInfo>,
}

fn info(invitation: Invitation, used: u32) -> InvitationInfo {
    let Invitation { code, note, uses, expires_ms, created_ms } = invitation;
    InvitationInfo { code, note, uses, used, expires_ms: Some(expires_ms).filter(|ms| *ms > 0), created_ms }
}

pub(super) async fn list(served: Data<Served>) -> Result<HttpResponse, Turned> {
    let query = machine::Query::Service(service::Query::Invitations);
    let machine::View::Service(service::View::Invitations(all)) = access::read(&served, keys_slot(), query).await?
    else {
        return Err(Turned::NotNow(magpie_cluster::AskError::Unavailable));
    };
    let invitations = all.into_iter().map(|(invitation, used)| info(invitation, used)).collect();
    Ok(HttpResponse::Ok().json(InvitationList { invitations }))
}

fn drawn() -> String {
    let mut rng = rand::rng();
    (0..DRAWN).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

pub(super) async fn create(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<NewInvitation>,
) -> Result<HttpResponse, Turned> {
    note_change(&served, &request, "create-invitation", &*body)?;
    let body = body.into_inner();
    let code = body.code.unwrap_or_else(drawn);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if code.is_empty() || code.len() > INVITATION_LEN_MAX || !code.chars().all(plain) {
        let detail = format!("code {code:?}: 1 to {INVITATION_LEN_MAX} letters, digits, - and _ are allowed");
        return Err(Turned::Bad(detail));
    }
    let uses = body.uses.unwrap_or(1);
    if !(1..=USES_MAX).contains(&uses) {
        return Err(Turned::Bad(format!("uses is {uses}; 1 to {USES_MAX} are allowed")));
    }
    if let Some(days) = body.days.filter(|days| !(1..=DAYS_MAX).contains(days)) {
        return Err(Turned::Bad(format!("days is {days}; 1 to {DAYS_MAX} are allowed")));
    }
    if body.note.len() > NOTE_LEN_MAX {
        return Err(Turned::Bad(format!("note has {} bytes; {NOTE_LEN_MAX} are allowed", body.note.len())));
    }
    let created_ms = served.observer.now_ms();
    let expires_ms = body.days.map_or(0, |days| created_ms + days * 24 * 3_600 * 1_000);
    let invitation = Invitation { code, note: body.note, uses, expires_ms, created_ms };
    ask_service(&served, keys_entity(), service::Command::AddInvitation(invitation.clone())).await?;
    Ok(HttpResponse::Created().json(info(invitation, 0)))
}

pub(super) async fn revoke(
    served: Data<Served>,
    request: HttpRequest,
    code: Path<String>,
) -> Result<HttpResponse, Turned> {
    note_change(&served, &request, "revoke-invitation", &*code)?;
    ask_service(&served, keys_entity(), service::Command::RevokeInvitation { code: code.into_inner() }).await?;
    Ok(done())
}
