//! The level of a node's log over HTTP, and the hooks of all nodes.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use serde::{Deserialize, Serialize};

use super::{
    Served,
    access::{Turned, note_change},
    done,
};
use crate::hooks::{ReceiverStatus, everywhere, query::Act};

/// The least severe level that is shown: error, warn, info, debug or trace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogLevel {
    pub level: String,
}

/// Those who are told of what happens, each as the nodes that lead shards see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookList {
    pub hooks: Vec<ReceiverStatus>,
    /// Shards of which nobody said anything.
    pub silent: Vec<String>,
}

pub(super) async fn log_level() -> HttpResponse {
    HttpResponse::Ok().json(LogLevel { level: crate::log::level() })
}

pub(super) async fn set_log_level(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<LogLevel>,
) -> Result<HttpResponse, Turned> {
    note_change(&served, &request, "log-level", &body.level)?;
    crate::log::set_level(&body.level).map_err(Turned::Bad)?;
    Ok(done())
}

pub(super) async fn hooks(served: Data<Served>) -> HttpResponse {
    let (hooks, silent) = everywhere::status(served.observer.router()).await;
    HttpResponse::Ok().json(HookList { hooks, silent: silent.iter().map(ToString::to_string).collect() })
}

async fn act(served: &Served, name: &str, act: Act) -> Result<HttpResponse, Turned> {
    match everywhere::act(served.observer.router(), name, act).await? {
        true => Ok(done()),
        false => Err(Turned::NotFound(format!("no hook {name:?} is configured; there may be push and webhook"))),
    }
}

pub(super) async fn retry_hook(
    served: Data<Served>,
    request: HttpRequest,
    name: Path<String>,
) -> Result<HttpResponse, Turned> {
    note_change(&served, &request, "retry-hook", &*name)?;
    act(&served, &name, Act::Retry).await
}

pub(super) async fn drop_hook(
    served: Data<Served>,
    request: HttpRequest,
    name: Path<String>,
) -> Result<HttpResponse, Turned> {
    note_change(&served, &request, "drop-hook", &*name)?;
    act(&served, &name, Act::Drop).await
}
