//! Conversations over HTTP: what they are, and the end of a group.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use magpie_cluster::EntityId;
use magpie_protocol::ConversationId;
use serde::{Deserialize, Serialize};

use super::{
    Served,
    access::{Turned, ask_service, note_change, odd, parse, read},
    done,
};
use crate::{machine, service};

/// A conversation, for operators: who is in it, and never what is said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConversationInfo {
    pub conversation: String,
    /// `direct` or `group`.
    pub kind: String,
    pub title: String,
    pub owner: String,
    pub members: Vec<String>,
    /// The number of its newest entry.
    pub head: u64,
    pub dissolved: bool,
}

pub(super) async fn show(served: Data<Served>, id: Path<String>) -> Result<HttpResponse, Turned> {
    let id: ConversationId = parse(&id)?;
    let query = machine::Query::Service(service::Query::Conversation(id));
    let machine::View::Service(service::View::Conversation(found)) = read(&served, id.slot(), query).await? else {
        return Err(odd());
    };
    let found = found.ok_or_else(|| Turned::NotFound("there is no such conversation".to_owned()))?;
    Ok(HttpResponse::Ok().json(ConversationInfo {
        conversation: id.to_string(),
        kind: if found.direct { "direct" } else { "group" }.to_owned(),
        title: found.title,
        owner: found.owner.to_string(),
        members: found.members.iter().map(ToString::to_string).collect(),
        head: found.head,
        dissolved: found.dissolved,
    }))
}

pub(super) async fn dissolve(
    served: Data<Served>,
    request: HttpRequest,
    id: Path<String>,
) -> Result<HttpResponse, Turned> {
    note_change(&served, &request, "dissolve", &*id)?;
    let id: ConversationId = parse(&id)?;
    ask_service(&served, EntityId::conversation(id), service::Command::Dissolve).await?;
    Ok(done())
}
