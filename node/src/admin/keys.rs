//! Keys of servers over HTTP: made, listed, revoked. Only the operator may.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{
    Served,
    access::{self, SCOPES, Turned, ask_service, hash_of, note_change},
    done,
};
use crate::{
    account,
    service::{
        self,
        state::{Key, keys_entity},
    },
};

/// Longest name of a key, in bytes.
const NAME_LEN_MAX: usize = 64;

/// A key that is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewKey {
    pub name: String,
    pub scopes: Vec<String>,
    /// With the scope `send`: the handle of the account that it sends as. It is made if it is not there.
    #[serde(default)]
    pub handle: Option<String>,
}

/// A key that was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MadeKey {
    pub id: String,
    /// What is to be shown. It is told this once.
    pub key: String,
    pub user: Option<String>,
}

/// A key, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyInfo {
    pub id: String,
    pub name: String,
    pub scopes: Vec<String>,
    pub user: Option<String>,
    pub created_ms: u64,
}

/// All keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyList {
    pub keys: Vec<KeyInfo>,
}

pub(super) async fn list(served: Data<Served>) -> Result<HttpResponse, Turned> {
    let info = |key: Key| KeyInfo {
        id: format!("{:016x}", key.id),
        name: key.name,
        scopes: key.scopes,
        user: key.user.map(|user| user.to_string()),
        created_ms: key.created_ms,
    };
    let keys = access::keys(&served).await?.into_iter().map(info).collect();
    Ok(HttpResponse::Ok().json(KeyList { keys }))
}

pub(super) async fn create(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<NewKey>,
) -> Result<HttpResponse, Turned> {
    note_change(&served, &request, "create-key", &*body)?;
    if body.name.is_empty() || body.name.len() > NAME_LEN_MAX {
        return Err(Turned::Bad(format!("name has {} bytes; 1 to {NAME_LEN_MAX} are allowed", body.name.len())));
    }
    if let Some(scope) = body.scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err(Turned::Bad(format!("there is no scope {scope:?}; there are {}", SCOPES.join(", "))));
    }
    let mut scopes = body.scopes.clone();
    scopes.sort();
    scopes.dedup();
    let sends = scopes.iter().any(|scope| scope == "send");
    let user = match (&body.handle, sends) {
        (Some(handle), true) => Some(account::api::make_without_password(served.observer.router(), handle).await?),
        (None, false) => None,
        (None, true) => return Err(Turned::Bad("the scope send needs the handle of an account to send as".to_owned())),
        (Some(_), false) => return Err(Turned::Bad("a handle is for keys with the scope send".to_owned())),
    };
    let (id, secret): (u64, u128) = (rand::rng().random(), rand::rng().random());
    let token = format!("mk_{id:016x}_{secret:032x}");
    let created_ms = served.observer.now_ms();
    let key = Key { id, name: body.name.clone(), hash: hash_of(&token), scopes, user, created_ms };
    ask_service(&served, keys_entity(), service::Command::AddKey(key)).await?;
    let user = user.map(|user| user.to_string());
    Ok(HttpResponse::Created().json(MadeKey { id: format!("{id:016x}"), key: token, user }))
}

pub(super) async fn revoke(
    served: Data<Served>,
    request: HttpRequest,
    id: Path<String>,
) -> Result<HttpResponse, Turned> {
    note_change(&served, &request, "revoke-key", &*id)?;
    let parsed = u64::from_str_radix(&id, 16).ok().filter(|parsed| format!("{parsed:016x}") == *id);
    let id =
        parsed.ok_or_else(|| Turned::Bad(format!("{:?} is not the id of a key: sixteen hexadecimal digits", *id)))?;
    ask_service(&served, keys_entity(), service::Command::RevokeKey { id }).await?;
    Ok(done())
}
