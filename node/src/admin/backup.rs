//! Backups over HTTP: begin one, fetch its parts from whichever nodes have them, end it.

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Json, Query},
};
use magpie_cluster::backup::{BackupError, Begun};
use magpie_protocol::{NodeId, ShardId, ids::ParseIdError};
use serde::{Deserialize, Serialize};

use super::{Served, audit, refusal};

/// How long a shard's part is, in the answer that holds some of it.
pub const LEN_HEADER: &str = "x-magpie-len";

/// A cut that every shard has made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupBegun {
    pub cut: u64,
    /// Which cluster, in hexadecimal.
    pub cluster: String,
    pub epoch: u64,
    pub parts: Vec<BackupPart>,
}

/// Where a shard's part is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupPart {
    pub shard: String,
    pub node: String,
}

/// Some bytes of a part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartQuery {
    pub shard: String,
    pub node: String,
    pub cut: u64,
    pub offset: u64,
    /// At most; a node sends up to half a megabyte at a time.
    pub len: u64,
}

/// Why a request is turned away.
#[derive(Debug, thiserror::Error)]
pub(super) enum Turned {
    #[error("a bearer token is required: admin.token")]
    Unauthorized,
    #[error("{0}")]
    Bad(#[from] ParseIdError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("the audit trail cannot be written: {0}")]
    Audit(#[from] std::io::Error),
}

impl actix_web::ResponseError for Turned {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Backup(BackupError::Gone(_) | BackupError::Overtaken(_)) => StatusCode::GONE,
            Self::Backup(BackupError::TooOld(_)) => StatusCode::CONFLICT,
            Self::Backup(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Audit(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        super::plain(self.status_code(), &self.to_string())
    }
}

fn admit(served: &Served, request: &HttpRequest) -> Result<(), Turned> {
    if refusal(served, request).is_some() { Err(Turned::Unauthorized) } else { Ok(()) }
}

pub(super) async fn begin(served: Data<Served>, request: HttpRequest) -> Result<HttpResponse, Turned> {
    admit(&served, &request)?;
    audit::note(served.observer.data_dir(), request.peer_addr(), "backup", &())?;
    let Begun { cut, cluster, epoch, parts } = served.observer.router().begin_backup().await?;
    let parts = parts.iter().map(|(shard, node)| BackupPart { shard: shard.to_string(), node: node.to_string() });
    Ok(HttpResponse::Ok().json(BackupBegun { cut, cluster: format!("{cluster:016x}"), epoch, parts: parts.collect() }))
}

pub(super) async fn part(
    served: Data<Served>,
    request: HttpRequest,
    query: Query<PartQuery>,
) -> Result<HttpResponse, Turned> {
    admit(&served, &request)?;
    let (shard, node): (ShardId, NodeId) = (query.shard.parse()?, query.node.parse()?);
    let part = served.observer.router().backup_part((shard, node), query.cut, query.offset, query.len).await?;
    Ok(match part.len {
        None => HttpResponse::Accepted().finish(),
        Some(len) => HttpResponse::Ok()
            .insert_header((LEN_HEADER, len.to_string()))
            .content_type("application/octet-stream")
            .body(part.bytes),
    })
}

pub(super) async fn end(
    served: Data<Served>,
    request: HttpRequest,
    body: Json<BackupBegun>,
) -> Result<HttpResponse, Turned> {
    admit(&served, &request)?;
    let parts = body.parts.iter().map(|part| Ok((part.shard.parse()?, part.node.parse()?)));
    let parts = parts.collect::<Result<Vec<(ShardId, NodeId)>, ParseIdError>>()?;
    served.observer.router().end_backup(&Begun { cut: body.cut, cluster: 0, epoch: body.epoch, parts }).await;
    Ok(HttpResponse::Ok().json(serde_json::json!({})))
}
