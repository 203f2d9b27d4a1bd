//! The consensus of one shard, behind one trait, so that the engine below can be exchanged.

pub mod openraft;
mod openraft_log;
mod openraft_machine;
mod openraft_network;
mod openraft_wire;
mod pace;

pub(crate) use openraft_log::{BATCH_TAG, members_at, promise_of};
pub(crate) use openraft_wire::absent;
pub use pace::Pace;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bincode::{Decode, Encode};
use bytes::Bytes;
use magpie_protocol::NodeId;
use tokio::time::Instant;

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
}

/// When a leader last heard of a majority. Clones share it.
#[derive(Debug, Clone)]
pub struct Heard {
    began: Instant,
    at_ms: Arc<AtomicU64>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { began: Instant::now(), at_ms: Arc::default() }
    }
}

impl Heard {
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// It was so long before this moment.
    pub fn note(&self, ago: Duration, before: Instant) {
        let at = before.saturating_duration_since(self.began).saturating_sub(ago);
        self.at_ms.store(at.as_millis() as u64, Ordering::Relaxed);
    }

    /// The leader is its own majority.
    pub fn note_alone(&self) {
        self.at_ms.store(u64::MAX, Ordering::Relaxed);
    }

    /// Whether it was within this. The clock goes on while the process is stopped.
    pub fn within(&self, time: Duration) -> bool {
        u128::from(self.now_ms().saturating_sub(self.at_ms.load(Ordering::Relaxed))) < time.as_millis()
    }
}

/// What a replica was told by the leader that it follows. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Followed(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    /// When the leader last spoke, and the time before.
    last: Option<(Instant, Instant)>,
    /// What it had committed when it last spoke.
    committed: u64,
    /// All that was committed then is applied here.
    level: Option<Instant>,
}

impl Told {
    /// What the leader says may be on its way for a while, but left it after the time before was answered.
    fn settle(&mut self, applied: u64) {
        if let Some((before, _)) = self.last
            && self.committed <= applied
        {
            self.level = Some(before);
        }
    }
}

impl Followed {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leader had committed so much, and led at this moment.
    pub fn note(&self, at: Instant, committed: u64, applied: u64) {
        let mut told = self.lock();
        told.settle(applied);
        told.last = Some((told.last.map_or(at, |(_, last)| last), at));
        told.committed = committed;
    }

    /// How far behind the leader a state may be in which so much is applied; `None` when nothing is known.
    pub fn lag(&self, applied: u64) -> Option<Duration> {
        let mut told = self.lock();
        told.settle(applied);
        told.level.map(|level| level.elapsed())
    }
}

/// A group's replicas, as one of them knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Those whose word counts; while they change, those before and those after.
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// How far the log of each is, as the leader knows.
    pub matched: BTreeMap<NodeId, u64>,
    /// How far the log here is.
    pub last: u64,
}

/// How far a change of replicas is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Reshaping {
    /// New replicas take what they lack: so many entries still.
    Learning {
        behind: u64,
    },
    Done,
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
    /// Begins a new group of these replicas; nothing where one has begun.
    fn found(&self, voters: BTreeSet<NodeId>) -> BoxFuture<Result<(), ProposeError>>;
    /// The replicas.
    fn members(&self) -> Members;
    /// Goes one step towards these replicas: new ones learn, and vote when they have caught up; then the others are
    /// let go. To be called again until it is done.
    fn reshape(&self, to: BTreeSet<NodeId>) -> BoxFuture<Result<Reshaping, ProposeError>>;
    /// Stands for election now.
    fn stand(&self) -> BoxFuture<Result<(), ProposeError>>;
    /// Whether it may stand for election by itself.
    fn set_electable(&self, electable: bool);
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
#[derive(Debug, Clone, Default)]
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

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    openraft_wire::goldens().into_iter().chain(openraft_log::goldens()).collect()
}
