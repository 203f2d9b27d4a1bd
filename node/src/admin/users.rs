//! People over HTTP: who they are, locking their accounts, signing their devices out, telling them something.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path, Query},
};
use magpie_cluster::EntityId;
use magpie_protocol::{DeviceId, UserId, limits};
use serde::{Deserialize, Serialize};

use super::{
    Served,
    access::{Turned, ask, ask_service, note_change, odd, parse, read},
    done,
};
use crate::{account, machine, service};

/// A person, for operators.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserInfo {
    pub user: String,
    pub handle: String,
    /// Nobody may sign in since then, in milliseconds since 1970.
    pub disabled_since_ms: Option<u64>,
    /// When the account will be deleted, in milliseconds since 1970.
    pub closing_ms: Option<u64>,
    /// Conversations that they are in.
    pub conversations: Vec<String>,
    pub devices: Vec<DeviceInfo>,
}

/// A device of theirs that is signed in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceInfo {
    pub device: String,
    pub name: String,
    pub last_seen_ms: u64,
}

/// Which person.
#[derive(Debug, Deserialize)]
pub struct ByHandle {
    handle: String,
}

/// Which device; all of them where there is none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SignOut {
    #[serde(default)]
    pub device: Option<String>,
}

/// What is to be said, and an id under which it is said once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notice {
    pub text: String,
    #[serde(default)]
    pub id: Option<String>,
}

fn nobody() -> Turned {
    Turned::NotFound("there is no such person".to_owned())
}

async fn info(served: &Served, user: UserId) -> Result<UserInfo, Turned> {
    let account = |query| read(served, user.slot(), machine::Query::Account(query));
    let machine::View::Account(account::View::Found(found)) = account(account::Query::Who(user)).await? else {
        return Err(odd());
    };
    let (_, handle) = found.ok_or_else(nobody)?;
    let machine::View::Account(account::View::Devices(devices)) = account(account::Query::Devices(user)).await? else {
        return Err(odd());
    };
    let machine::View::Account(account::View::List { listed, .. }) = account(account::Query::List(user)).await? else {
        return Err(odd());
    };
    let machine::View::Account(account::View::Account(own)) = account(account::Query::Account(user)).await? else {
        return Err(odd());
    };
    let disabled = machine::Query::Service(service::Query::Disabled(user));
    let machine::View::Service(service::View::Disabled(since)) = read(served, user.slot(), disabled).await? else {
        return Err(odd());
    };
    let device =
        |d: account::Device| DeviceInfo { device: d.device.to_string(), name: d.name, last_seen_ms: d.last_seen_ms };
    Ok(UserInfo {
        user: user.to_string(),
        handle,
        disabled_since_ms: since,
        closing_ms: own.map(|own| own.closing_ms).filter(|at| *at > 0),
        conversations: listed.iter().filter(|l| l.last == 0).map(|l| l.conversation.to_string()).collect(),
        devices: devices.into_iter().map(device).collect(),
    })
}

pub(super) async fn find(served: Data<Served>, by: Query<ByHandle>) -> Result<HttpResponse, Turned> {
    if by.handle.len() > limits::HANDLE_LEN_MAX {
        return Err(nobody());
    }
    let slot = account::state::slot_of(&by.handle);
    let query = machine::Query::Account(account::Query::Find(by.handle.clone()));
    let machine::View::Account(account::View::Found(found)) = read(&served, slot, query).await? else {
        return Err(odd());
    };
    let (user, _) = found.ok_or_else(nobody)?;
    Ok(HttpResponse::Ok().json(info(&served, user).await?))
}

pub(super) async fn show(served: Data<Served>, user: Path<String>) -> Result<HttpResponse, Turned> {
    Ok(HttpResponse::Ok().json(info(&served, parse(&user)?).await?))
}

async fn set_disabled(served: &Served, request: &HttpRequest, user: &str, on: bool) -> Result<HttpResponse, Turned> {
    let action = if on { "disable" } else { "enable" };
    note_change(served, request, action, &user)?;
    let user: UserId = parse(user)?;
    ask_service(served, EntityId::user(user), service::Command::SetDisabled { on }).await?;
    Ok(done())
}

pub(super) async fn disable(
    served: Data<Served>,
    request: HttpRequest,
    user: Path<String>,
) -> Result<HttpResponse, Turned> {
    set_disabled(&served, &request, &user, true).await
}

pub(super) async fn enable(
    served: Data<Served>,
    request: HttpRequest,
    user: Path<String>,
) -> Result<HttpResponse, Turned> {
    set_disabled(&served, &request, &user, false).await
}

pub(super) async fn sign_out(
    served: Data<Served>,
    request: HttpRequest,
    user: Path<String>,
    body: Json<SignOut>,
) -> Result<HttpResponse, Turned> {
    let what = serde_json::json!({ "user": *user, "device": body.device });
    note_change(&served, &request, "sign-out", &what)?;
    let user: UserId = parse(&user)?;
    match &body.device {
        Some(device) => {
            let device: DeviceId = parse(device)?;
            let known = info(&served, user).await?.devices;
            if known.iter().all(|known| known.device != device.to_string()) {
                return Err(Turned::NotFound(format!("{user} has no device {device}")));
            }
            let command = machine::Command::Account(account::Command::SignOut { device });
            ask(&served, EntityId::user(user), command).await?;
        }
        None => {
            ask_service(&served, EntityId::user(user), service::Command::SignOutAll).await?;
        }
    }
    Ok(done())
}

pub(super) async fn notice(
    served: Data<Served>,
    request: HttpRequest,
    user: Path<String>,
    body: Json<Notice>,
) -> Result<HttpResponse, Turned> {
    note_change(&served, &request, "notice", &*user)?;
    let user: UserId = parse(&user)?;
    super::notices::check(&body.text)?;
    let id = super::messages::nonce(body.id.as_deref())?;
    let command = service::Command::Notice { id, text: body.text.clone() };
    ask_service(&served, EntityId::user(user), command).await?;
    Ok(done())
}
