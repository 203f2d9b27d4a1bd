//! One node over HTTP: the level of its log, and its hooks.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path},
};
use serde::{Deserialize, Serialize};

use super::{
    Served,
    access::{Turned, admit, admit_change},
    done,
};
use crate::hooks::ReceiverStatus;

/// The least severe level that is shown: error, warn, info, debug or trace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogLevel {
    pub level: String,
}

/// Those who are told of what happens, as far as this node tells them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookList {
    pub hooks: Vec<ReceiverStatus>,
}

pub(super) async fn log_level(served: Data<Served>, request: HttpRequest) -> Result<HttpResponse, Turned> {
    admit(&served, &request, None).await?;
    Ok(HttpResponse::Ok().json(LogLevel { level: crate::log::level() }))
}

pub(super) async fn set_log_level(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<LogLevel>,
) -> Result<HttpResponse, Turned> {
    admit_change(&served, &request, None, "log-level", &body.level).await?;
    crate::log::set_level(&body.level).map_err(Turned::Bad)?;
    Ok(done())
}

pub(super) async fn hooks(served: Data<Served>, request: HttpRequest) -> Result<HttpResponse, Turned> {
    admit(&served, &request, Some("hooks:read")).await?;
    Ok(HttpResponse::Ok().json(HookList { hooks: served.observer.hooks() }))
}

fn no_hook(name: &str) -> Turned {
    Turned::NotFound(format!("no hook {name:?} is configured; there may be push and webhook"))
}

pub(super) async fn retry_hook(
    served: Data<Served>,
    request: HttpRequest,
    name: Path<String>,
) -> Result<HttpResponse, Turned> {
    admit_change(&served, &request, None, "retry-hook", &*name).await?;
    if served.observer.retry_hooks(&name) { Ok(done()) } else { Err(no_hook(&name)) }
}

pub(super) async fn drop_hook(
    served: Data<Served>,
    request: HttpRequest,
    name: Path<String>,
) -> Result<HttpResponse, Turned> {
    admit_change(&served, &request, None, "drop-hook", &*name).await?;
    if served.observer.drop_hooks(&name) { Ok(done()) } else { Err(no_hook(&name)) }
}
