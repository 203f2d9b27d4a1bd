//! The consensus of one shard, behind one trait, so that the engine below can be exchanged.

pub mod openraft;
mod openraft_log;
mod openraft_machine;
mod openraft_network;
mod openraft_wire;

pub(crate) use openraft_log::BATCH_TAG;

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc};

use bytes::Bytes;
use magpie_protocol::NodeId;
use tokio::sync::watch;

use crate::{log::Position, snapshot::SnapshotError, state::Applied};

/// A future that can be kept behind a trait.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why a batch was not applied, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    #[error("this node does not lead the shard")]
    NotLeader,
    #[error("this node stopped leading the shard meanwhile")]
    LostLead,
    #[error("the shard's consensus has stopped: {0}")]
    Stopped(String),
}

/// Who leads a group, as far as this replica knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<NodeId>,
    pub term: u64,
    /// This replica leads, and has applied everything that was acknowledged before.
    pub leads: bool,
    /// The group's core has ended.
    pub ended: bool,
}

/// What there is of a snapshot that another replica sends.
pub enum Incoming {
    /// Bytes from its front.
    Upto(u64),
    /// All of it, checked and durable.
    Whole(SnapshotFile),
}

/// One shard's consensus group, seen from one node.
pub trait Consensus: Send + Sync + 'static {
    /// Proposes a batch; returns when it is committed and applied here. Anything but `Ok` leaves the outcome unknown:
    /// what one leader forgot may still be in the log of the next but one.
    fn propose(&self, batch: Bytes) -> BoxFuture<Result<(), ProposeError>>;
    /// Returns when a read from applied state is linearizable: the index that it covers.
    fn read_index(&self) -> BoxFuture<Result<u64, ProposeError>>;
    /// Who leads, and every change of it.
    fn leadership(&self) -> watch::Receiver<Leadership>;
    /// The answer to another replica's request; none to one that makes no sense here.
    fn answer(&self, request: Bytes) -> BoxFuture<Option<Bytes>>;
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
    /// Takes a part of a snapshot that another replica sends, of this index and length: an offset and bytes, or
    /// nothing to begin with.
    fn receive(
        self: Arc<Self>,
        index: u64,
        len: u64,
        part: Option<(u64, Vec<u8>)>,
    ) -> BoxFuture<Result<Incoming, SnapshotError>>;
    /// Replaces the state by a received snapshot. Nothing is applied meanwhile.
    fn install(self: Arc<Self>, file: SnapshotFile) -> BoxFuture<Result<(), SnapshotError>>;
}
