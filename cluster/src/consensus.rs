//! The consensus of one shard, behind one trait, so that the engine below can be exchanged.

pub mod openraft;
mod openraft_log;
mod openraft_machine;

pub(crate) use openraft_log::BATCH_TAG;

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc};

use bytes::Bytes;

use crate::{log::Position, snapshot::SnapshotError, state::Applied};

/// A future that can be kept behind a trait.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why a batch was not applied, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    #[error("this node does not lead the shard")]
    NotLeader,
    #[error("the shard's consensus has stopped: {0}")]
    Stopped(String),
}

/// One shard's consensus group, seen from one node.
pub trait Consensus: Send + Sync + 'static {
    /// Proposes a batch; returns when it is committed and applied here. Anything but `Ok` leaves the outcome
    /// unknown, except `NotLeader`, which says that nothing was proposed.
    fn propose(&self, batch: Bytes) -> BoxFuture<Result<(), ProposeError>>;
    /// Returns when a read from applied state is linearizable: the index that it covers.
    fn read_index(&self) -> BoxFuture<Result<u64, ProposeError>>;
    /// Makes a snapshot and cuts the log behind it.
    fn snapshot(&self) -> BoxFuture<Result<(), ProposeError>>;
    /// Stops the group's core.
    fn stop(&self) -> BoxFuture<()>;
    /// Returns when the group's core has died of something other than [`Consensus::stop`], and why.
    fn died(&self) -> BoxFuture<String>;
}

/// A durable snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    pub path: PathBuf,
    pub applied: Applied,
}

/// What consensus applies to: the shard.
pub trait Applier: Send + Sync + 'static {
    /// How far the state is.
    fn applied(&self) -> Applied;
    /// Applies one entry: a batch, or a change of members, or nothing but its position.
    fn apply(&self, position: Position, batch: Option<&Bytes>, membership: Option<Bytes>) -> Result<(), String>;
    /// Writes a snapshot of applied state, off the hot path.
    fn write_snapshot(self: Arc<Self>) -> BoxFuture<Result<SnapshotFile, SnapshotError>>;
    /// The newest durable snapshot.
    fn snapshot(&self) -> Option<SnapshotFile>;
}
