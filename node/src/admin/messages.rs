//! Messages of the servers of an app: what a service account says, once for each id.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use magpie_cluster::EntityId;
use magpie_protocol::{ConversationId, UserId, frame::conversation::Content, limits};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{
    Served,
    access::{Turned, ask_service, note_change, odd, read},
};
use crate::{
    account,
    machine::{self, Outcome},
    service,
};

/// Longest idempotency key, in bytes.
const KEY_LEN_MAX: usize = 128;

/// What is to be said, and where: in a conversation of the service account, or to a person.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    #[serde(default)]
    pub conversation: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    pub text: String,
}

/// Where it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Posted {
    pub conversation: String,
    pub number: u64,
    pub time_ms: u64,
}

/// The id behind what a caller chose; one that nobody has where they chose none.
pub(super) fn nonce(chosen: Option<&str>) -> Result<u128, Turned> {
    match chosen {
        None => Ok(rand::random()),
        Some(text) if text.is_empty() || text.len() > KEY_LEN_MAX => {
            Err(Turned::Bad(format!("the id has {} bytes; 1 to {KEY_LEN_MAX} are allowed", text.len())))
        }
        Some(text) => {
            let hash = digest(&SHA256, text.as_bytes());
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&hash.as_ref()[..16]);
            Ok(u128::from_be_bytes(bytes))
        }
    }
}

async fn exists(served: &Served, user: UserId) -> Result<(), Turned> {
    let query = machine::Query::Account(account::Query::Who(user));
    match read(served, user.slot(), query).await? {
        machine::View::Account(account::View::Found(Some(_))) => Ok(()),
        machine::View::Account(account::View::Found(None)) => {
            Err(Turned::NotFound("there is no such person".to_owned()))
        }
        _ => Err(odd()),
    }
}

pub(super) async fn send(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<NewMessage>,
) -> Result<HttpResponse, Turned> {
    // Not what is said: the trail is not a second place for messages.
    let to = serde_json::json!({ "conversation": body.conversation, "user": body.user });
    let who = note_change(&served, &request, "send", &to)?;
    let me = who
        .user
        .ok_or_else(|| Turned::Bad("an operator's token sends nothing: use a key with the scope send".to_owned()))?;
    let header = request.headers().get("idempotency-key");
    let header = header.map(|value| value.to_str().map_err(|_| Turned::Bad("idempotency-key is no text".to_owned())));
    let chosen = header.transpose()?.ok_or_else(|| {
        Turned::Bad("the header idempotency-key is missing: the same one is the same message".to_owned())
    })?;
    let id = nonce(Some(chosen))?;
    if body.text.is_empty() || body.text.len() > limits::TEXT_LEN_MAX {
        return Err(Turned::Bad(format!(
            "text has {} bytes; 1 to {} are allowed",
            body.text.len(),
            limits::TEXT_LEN_MAX
        )));
    }
    let (conversation, open) = match (&body.conversation, &body.user) {
        (Some(conversation), None) => (super::access::parse::<ConversationId>(conversation)?, None),
        (None, Some(user)) => {
            let user: UserId = super::access::parse(user)?;
            exists(&served, user).await?;
            if user == me {
                return Err(Turned::Bad("that is the service account itself".to_owned()));
            }
            (ConversationId::direct(me, user), Some(user))
        }
        _ => return Err(Turned::Bad("either conversation or user says where".to_owned())),
    };
    let content = Content::Text(body.text.clone());
    let message = service::command::Send { user: me, id, open, content };
    match ask_service(&served, EntityId::conversation(conversation), service::Command::Send(message)).await? {
        Outcome::Posted { number, time_ms } => {
            Ok(HttpResponse::Created().json(Posted { conversation: conversation.to_string(), number, time_ms }))
        }
        _ => Err(odd()),
    }
}
