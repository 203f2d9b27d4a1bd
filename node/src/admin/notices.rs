//! What operators say to everybody, over HTTP.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use magpie_protocol::limits;
use serde::{Deserialize, Serialize};

use super::{
    Served,
    access::{Turned, ask_service, note_change, odd, read},
    users::Notice,
};
use crate::{
    machine,
    service::{
        self,
        state::{keys_entity, keys_slot},
    },
};

/// A notice that is on its way to everybody, or has come there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NoticeInfo {
    /// In hexadecimal.
    pub id: String,
    pub begun_ms: u64,
    /// When all had it, in milliseconds since 1970.
    pub done_ms: Option<u64>,
    /// In so many inboxes it is, as far as is known: all of a part of the people at a time.
    pub told: u64,
}

/// The last ones, without their words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NoticeList {
    pub notices: Vec<NoticeInfo>,
}

/// A notice that was begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NoticeBegun {
    pub id: String,
}

fn written(id: u128) -> String {
    format!("{id:032x}")
}

/// What a notice says must be something, and no book.
pub(super) fn check(text: &str) -> Result<(), Turned> {
    let (len, max) = (text.len(), limits::ANNOUNCEMENT_LEN_MAX);
    if (1..=max).contains(&len) {
        Ok(())
    } else {
        Err(Turned::Bad(format!("text has {len} bytes; 1 to {max} are allowed")))
    }
}

pub(super) async fn list(served: Data<Served>) -> Result<HttpResponse, Turned> {
    let query = machine::Query::Service(service::Query::Announcements);
    let machine::View::Service(service::View::Announcements(all)) = read(&served, keys_slot(), query).await? else {
        return Err(odd());
    };
    let info = |known: service::announcements::Announcement| NoticeInfo {
        id: written(known.id),
        begun_ms: known.begun_ms,
        done_ms: Some(known.done_ms).filter(|at| *at > 0),
        told: known.told,
    };
    Ok(HttpResponse::Ok().json(NoticeList { notices: all.into_iter().map(info).collect() }))
}

pub(super) async fn create(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<Notice>,
) -> Result<HttpResponse, Turned> {
    check(&body.text)?;
    let id = super::messages::nonce(body.id.as_deref())?;
    note_change(&served, &request, "notice-all", &written(id))?;
    ask_service(&served, keys_entity(), service::Command::Announce { id, text: body.text.clone() }).await?;
    Ok(HttpResponse::Accepted().json(NoticeBegun { id: written(id) }))
}
