//! Who may do what over HTTP: the operator's token may do everything, a key what its scopes say.

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse, ResponseError,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::StatusCode,
    middleware::Next,
    web::Data,
};
use magpie_cluster::{AskError, EntityId};
use magpie_protocol::{ErrorCode, Slot, UserId, WireError};
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::{Served, audit};
use crate::{
    machine::{self, Outcome},
    service::{self, state::Key},
};

/// What a key may be good for.
pub(super) const SCOPES: &[&str] =
    &["send", "users:read", "users:write", "conversations:read", "conversations:write", "hooks:read"];

/// What a request must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// The operator's token, where there is one.
    Token,
    /// The same; a key is told that it may not.
    Operator,
    /// That, or a key with this scope.
    Scope(&'static str),
}

/// Who asks.
#[derive(Clone)]
pub(super) struct Who {
    /// `operator`, or the key's name.
    pub(super) name: String,
    /// The account that a key sends as.
    pub(super) user: Option<UserId>,
}

/// Why a request is turned away.
#[derive(Debug, thiserror::Error)]
pub(super) enum Turned {
    #[error("a bearer token is required: admin.token, or a key")]
    Unauthorized,
    #[error("this key has not the scope {0}")]
    Forbidden(&'static str),
    #[error("{0}")]
    Bad(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Refused(WireError),
    #[error(transparent)]
    NotNow(#[from] AskError),
    #[error("the audit trail cannot be written: {0}")]
    Audit(#[from] std::io::Error),
}

impl From<WireError> for Turned {
    fn from(error: WireError) -> Self {
        match error.code {
            ErrorCode::NotFound => Self::NotFound(error.to_string()),
            ErrorCode::Invalid | ErrorCode::TooLarge => Self::Bad(error.to_string()),
            _ => Self::Refused(error),
        }
    }
}

impl ResponseError for Turned {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Refused(_) => StatusCode::CONFLICT,
            Self::NotNow(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Audit(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).json(serde_json::json!({ "error": self.to_string() }))
    }
}

/// What hashes to what a key keeps.
pub(super) fn hash_of(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// The keys that there are.
pub(super) async fn keys(served: &Served) -> Result<Vec<Key>, Turned> {
    let query = machine::Query::Service(service::Query::Keys);
    match served.observer.router().query(service::state::keys_slot(), query).await? {
        machine::View::Service(service::View::Keys(keys)) => Ok(keys),
        _ => Err(Turned::NotNow(AskError::Unavailable)),
    }
}

/// Who asks, if they may do what needs this scope; `None` for what only the operator may.
async fn admit(served: &Served, request: &HttpRequest, scope: Option<&'static str>) -> Result<Who, Turned> {
    if super::refusal(served, request).is_none() && !super::shows_key(request) {
        return Ok(Who { name: "operator".to_owned(), user: None });
    }
    let token = super::bearer(request);
    if !token.starts_with("mk_") {
        return Err(Turned::Unauthorized);
    }
    let hash = hash_of(token);
    let key = keys(served).await?.into_iter().find(|key| super::same(&key.hash, &hash));
    let key = key.ok_or(Turned::Unauthorized)?;
    match scope {
        Some(scope) if key.scopes.iter().any(|has| has == scope) => Ok(Who { name: key.name, user: key.user }),
        scope => Err(Turned::Forbidden(scope.unwrap_or("of an operator"))),
    }
}

/// Lets nobody further who may not, before anything else of a request is looked at.
pub(super) async fn guard(
    served: Data<Served>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let turned =
        |request: ServiceRequest, response: HttpResponse| Ok(request.into_response(response).map_into_right_body());
    let scope = match needs(request.method().as_str(), request.match_pattern().as_deref()) {
        Needs::Nothing => return next.call(request).await.map(ServiceResponse::map_into_left_body),
        Needs::Token => match super::refusal(&served, request.request()) {
            Some(refusal) => return turned(request, refusal),
            None => return next.call(request).await.map(ServiceResponse::map_into_left_body),
        },
        Needs::Operator => None,
        Needs::Scope(scope) => Some(scope),
    };
    match admit(&served, request.request(), scope).await {
        Ok(who) => {
            request.extensions_mut().insert(who);
            next.call(request).await.map(ServiceResponse::map_into_left_body)
        }
        Err(error) => turned(request, error.error_response()),
    }
}

/// What a route needs; one that there is not needs nothing to be told so.
fn needs(method: &str, path: Option<&str>) -> Needs {
    let same = |(m, p, _): &&(&str, &str, Needs)| m.eq_ignore_ascii_case(method) && Some(*p) == path;
    super::ROUTES.iter().find(same).map_or(Needs::Nothing, |(_, _, needs)| *needs)
}

/// Writes down a change before it is done, with who asks for it.
pub(super) fn note_change(
    served: &Served,
    request: &HttpRequest,
    action: &str,
    what: &impl Serialize,
) -> Result<Who, Turned> {
    let who = request.extensions().get::<Who>().cloned().ok_or(Turned::Unauthorized)?;
    let what = serde_json::json!({ "by": who.name, "what": what });
    audit::note(served.observer.data_dir(), request.peer_addr(), action, &what)?;
    Ok(who)
}

/// Has a command carried out.
pub(super) async fn ask(served: &Served, entity: EntityId, command: machine::Command) -> Result<Outcome, Turned> {
    Ok(served.observer.router().ask(entity, command).await??)
}

/// The same of a service's.
pub(super) async fn ask_service(
    served: &Served,
    entity: EntityId,
    command: service::Command,
) -> Result<Outcome, Turned> {
    ask(served, entity, machine::Command::Service(command)).await
}

/// Reads.
pub(super) async fn read(served: &Served, slot: Slot, query: machine::Query) -> Result<machine::View, Turned> {
    Ok(served.observer.router().query(slot, query).await?)
}

/// An answer of another kind than was asked for.
pub(super) fn odd() -> Turned {
    Turned::NotNow(AskError::Unavailable)
}

/// An id that was written down.
pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Turned>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| Turned::Bad(error.to_string()))
}
