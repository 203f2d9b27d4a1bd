//! One shard: a deterministic state machine behind a consensus log.
//!
//! Commands gather in the open batch; [`driver`] hands one batch at a time to consensus; [`apply`] runs it and
//! answers; [`outbox`] carries what shards say to each other; [`checkpoint`] writes what changed below memory.
//! [`hosting`] is how a node comes to hold a replica, lets go of it, and hands its lead to another; [`reading`] how a
//! read is answered that must not be of yesterday; [`audit`] whether the replicas are equal; [`cut`] the state that a
//! backup holds; [`level`] what all replicas can do; [`feed`] what others follow of it.

pub mod apply;
pub mod audit;
pub mod batch;
pub mod checkpoint;
pub mod cut;
pub mod driver;
pub mod feed;
pub mod hosting;
pub mod level;
pub mod outbox;
pub mod reading;
mod snapshots;
pub mod watching;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use magpie_protocol::{NodeId, ShardId};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    AskError, Clock, Fatal, HintSink, ShardMap, StorageError,
    consensus::{Consensus, Followed, Heard, Leadership, Pace, SnapshotFile},
    disk::Disk,
    log::ShardLog,
    machine::{EntityId, Machine},
    router::Reply,
    state::Store,
    system::{Change, Refusal, System, SystemView},
    transport::Transport,
    watch::{Sinks, WatchTable},
    work::Background,
};
use batch::{BatchBuilder, Waits};

/// A shard's bounds.
#[derive(Debug, Clone, Copy)]
pub struct ShardLimits {
    /// A batch closes at this many bytes.
    pub batch_bytes: usize,
    /// A batch closes at this many commands.
    pub batch_commands: usize,
    /// Commands that may wait in open batches; more are refused as overload.
    pub waiting_commands: usize,
    /// A checkpoint begins when this many bytes changed since the last.
    pub checkpoint_bytes: usize,
    /// A checkpoint begins this long after the first change, in milliseconds.
    pub checkpoint_ms: u64,
    /// No new snapshot before the log has grown by this many bytes since the last.
    pub snapshot_bytes_min: u64,
    /// A shard that is too quiet for that makes one this long after the last, if anything was applied, in milliseconds:
    /// what was recalled leaves the log and older snapshots with it.
    pub snapshot_age_ms: u64,
    /// Memory for records and timelines in use, in bytes.
    pub cache_bytes: usize,
}

impl Default for ShardLimits {
    fn default() -> Self {
        Self {
            batch_bytes: 64 * 1024,
            batch_commands: 512,
            waiting_commands: 16 * 1024,
            checkpoint_bytes: 8 * 1024 * 1024,
            checkpoint_ms: 10_000,
            snapshot_bytes_min: 32 * 1024 * 1024,
            snapshot_age_ms: 3 * 24 * 3_600 * 1_000,
            cache_bytes: 32 * 1024 * 1024,
        }
    }
}

/// What waits for an item of a batch.
pub(crate) enum Waiter<M: Machine> {
    Reply(Reply<M::Reply>),
    /// For what came through another shard's outbox: the last number that is applied.
    Delivered(Reply<cut::Through>),
    System(Reply<Result<System, Refusal>>),
    /// Whether a follower of the feed got what it asked for.
    Fed(Reply<bool>),
}

impl<M: Machine> Waiter<M> {
    fn fail(self, error: AskError) {
        match self {
            Self::Reply(reply) => reply(Err(error)),
            Self::Delivered(reply) => reply(Err(error)),
            Self::System(reply) => reply(Err(error)),
            Self::Fed(reply) => reply(Err(error)),
        }
    }
}

/// What `apply` and reads share, under one lock that is never held across a wait.
pub(crate) struct Core<M: Machine> {
    pub(crate) store: Store,
    pub(crate) machine: M,
    pub(crate) time_ms: u64,
    /// Up to which feature level `apply` behaves.
    pub(crate) level: u32,
    /// Who waits for batches that this node proposed, by batch id.
    pub(crate) waiting: HashMap<u64, VecDeque<Waiter<M>>>,
    pub(crate) quarantined: HashSet<EntityId>,
    pub(crate) watches: WatchTable,
    pub(crate) failed: Option<String>,
    /// The state is being replaced by another replica's.
    pub(crate) installing: bool,
    /// The last cut that the shard has made; 0 before the first.
    pub(crate) cut: u64,
}

/// A batch that is not yet handed on.
pub(crate) struct OpenBatch<M: Machine> {
    pub(crate) builder: BatchBuilder,
    pub(crate) waiters: VecDeque<Waiter<M>>,
    /// Nothing may be added.
    pub(crate) closed: bool,
}

pub(crate) struct Inner<M: Machine> {
    pub(crate) id: ShardId,
    pub(crate) me: NodeId,
    pub(crate) map: ShardMap,
    pub(crate) limits: ShardLimits,
    pub(crate) core: Mutex<Core<M>>,
    pub(crate) open: Mutex<VecDeque<OpenBatch<M>>>,
    pub(crate) waiting_commands: AtomicU64,
    /// The core's, for those who need no more of it.
    pub(crate) level: AtomicU32,
    pub(crate) waits: Waits,
    pub(crate) ready: Notify,
    pub(crate) outbox_ready: Notify,
    /// Where the feed ends, as far as this replica has applied it.
    pub(crate) feed_end: watch::Sender<u64>,
    /// Set under the lock of `open`: nothing is added any more.
    pub(crate) stopping: AtomicBool,
    /// This node's replica of the group; none where it holds none.
    pub(crate) group: RwLock<Option<Arc<dyn Consensus>>>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) heard: Heard,
    /// What its leader said last, while another leads.
    pub(crate) followed: Followed,
    /// Batches wait: the lead goes to another replica.
    pub(crate) paused: AtomicBool,
    pub(crate) reading: reading::Waiting,
    pub(crate) audits: audit::Audits,
    pub(crate) cuts: cut::Cuts,
    pub(crate) node: NodeParts,
    pub(crate) sinks: Sinks,
    pub(crate) log: Arc<ShardLog>,
    pub(crate) system: SystemView,
    pub(crate) snapshot: Mutex<Option<SnapshotFile>>,
    pub(crate) snapshot_len: AtomicU64,
    runtime: Handle,
}

/// What the shards of a node share.
#[derive(Clone)]
pub struct NodeParts {
    pub clock: Clock,
    pub fatal: Fatal,
    pub background: Background,
    pub disk: Arc<dyn Disk>,
    pub snapshot_dir: PathBuf,
    /// The way to the other nodes; none for a node that is alone.
    pub transport: Option<Arc<dyn Transport>>,
    /// What this build can do.
    pub level: u32,
    /// How long a leader serves after it last heard of a majority.
    pub serve_within: Duration,
    /// The clock is so far from those of the others that this node neither leads nor proposes.
    pub astray: Arc<AtomicBool>,
    /// How fast replicas that were away are brought up to date.
    pub pace: Pace,
}

/// What a shard is made of.
pub struct ShardParts<M: Machine> {
    pub id: ShardId,
    /// This node.
    pub me: NodeId,
    pub map: ShardMap,
    pub limits: ShardLimits,
    pub machine: M,
    pub store: Store,
    pub log: Arc<ShardLog>,
    pub system: SystemView,
    pub snapshot: Option<SnapshotFile>,
    pub node: NodeParts,
    /// The event loop that it runs in.
    pub runtime: Handle,
}

/// The handle to a shard. Clones share it.
pub struct Shard<M: Machine>(pub(crate) Arc<Inner<M>>);

impl<M: Machine> Clone for Shard<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Machine> Shard<M> {
    /// A shard that is not running yet.
    pub fn new(parts: ShardParts<M>) -> Result<Self, StorageError> {
        let mut store = parts.store;
        let apply::Beside { time_ms, quarantined, system, cut, level } = apply::load(&mut store)?;
        if level > parts.node.level {
            return Err(StorageError::TooOld(apply::too_high(&parts.id, level, parts.node.level)));
        }
        system.into_iter().for_each(|system| parts.system.offer(system));
        let core = Core {
            store,
            machine: parts.machine,
            time_ms,
            level,
            waiting: HashMap::new(),
            quarantined,
            watches: WatchTable::default(),
            failed: None,
            installing: false,
            cut,
        };
        Ok(Self(Arc::new(Inner {
            id: parts.id,
            me: parts.me,
            map: parts.map,
            limits: parts.limits,
            core: Mutex::new(core),
            open: Mutex::default(),
            waiting_commands: AtomicU64::new(0),
            level: AtomicU32::new(level),
            waits: Waits::default(),
            ready: Notify::new(),
            outbox_ready: Notify::new(),
            feed_end: watch::channel(0).0,
            stopping: AtomicBool::new(false),
            group: RwLock::default(),
            leadership: watch::channel(Leadership::default()).0,
            heard: Heard::default(),
            followed: Followed::default(),
            paused: AtomicBool::new(false),
            reading: reading::Waiting::default(),
            audits: audit::Audits::default(),
            cuts: cut::Cuts::default(),
            node: parts.node,
            sinks: Sinks::default(),
            log: parts.log,
            system: parts.system,
            snapshot: Mutex::new(parts.snapshot),
            snapshot_len: AtomicU64::new(0),
            runtime: parts.runtime,
        })))
    }

    /// Does something in the shard's own event loop: what waits there, between two steps of a shard, sees no half of one.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.runtime.spawn(work)
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.0.id
    }

    /// Where the hints for this node's own sessions go. Set once, before the first watch.
    pub fn set_sink(&self, sink: Arc<dyn HintSink>) {
        if !self.0.sinks.set_local(self.0.me, sink) {
            tracing::error!(shard = %self.0.id, "a second hint sink was refused");
        }
    }

    /// Where the hints for this node's own sessions go.
    pub(crate) fn sink(&self) -> Option<Arc<dyn HintSink>> {
        self.0.sinks.local().cloned()
    }

    /// Who leads the shard, as far as this replica knows.
    pub fn leadership(&self) -> Leadership {
        let now = *self.0.leadership.borrow();
        Leadership { leads: now.leads && self.0.may_serve(), ..now }
    }

    /// Every change of who leads. Whether it may still serve, [`Shard::leadership`] says.
    pub fn follow_leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.subscribe()
    }

    /// The term in which this replica serves commands and reads, if it does.
    fn lead(&self) -> Result<u64, AskError> {
        let Leadership { leader, leads, term } = self.leadership();
        // One that leads and is not ready yet sends nobody to itself.
        if leads { Ok(term) } else { Err(AskError::NotLeader { leader: leader.filter(|node| *node != self.0.me) }) }
    }

    /// Adds a command to the open batch. `reply` is called once: with the reply when the command is durable and
    /// applied, or with why that is not known. It must not block nor call back into this shard.
    pub fn submit(&self, entity: EntityId, command: &M::Command, reply: Reply<M::Reply>) {
        let needs = M::level_of(command);
        if let Err(error) = self.admit().and_then(|()| self.reaches(needs)) {
            return reply(Err(error));
        }
        self.enqueue(|builder| builder.ask(entity, command), Waiter::Reply(reply));
    }

    /// Adds what another shard's outbox, which has made this cut, holds for this one, in order, its first message
    /// having this number.
    pub(crate) fn deliver(
        &self,
        (from, cut): (ShardId, u64),
        first: u64,
        messages: Vec<(EntityId, Vec<u8>)>,
        reply: Reply<cut::Through>,
    ) {
        if let Err(error) = self.admit() {
            return reply(Err(error));
        }
        let last = messages.len().saturating_sub(1);
        let mut reply = Some(reply);
        for (i, (entity, command)) in messages.into_iter().enumerate() {
            let waiter = if i == last { reply.take() } else { None };
            let waiter = Waiter::Delivered(waiter.unwrap_or_else(|| Box::new(|_| ())));
            self.enqueue(|builder| builder.inbound(from, cut, first + i as u64, entity, &command), waiter);
        }
    }

    /// Tells this shard that another, which has made this cut, has applied its messages up to this number.
    pub(crate) fn acked(&self, to: ShardId, through: cut::Through, reply: Reply<cut::Through>) {
        if let Err(error) = self.admit() {
            return reply(Err(error));
        }
        self.enqueue(|builder| builder.acked(to, through.cut, through.number), Waiter::Delivered(reply));
    }

    /// Changes what the cluster knows of itself; of shard 0 alone.
    pub(crate) fn change_system(&self, change: &Change, reply: Reply<Result<System, Refusal>>) {
        if let Err(error) = self.admit() {
            return reply(Err(error));
        }
        self.enqueue(|builder| builder.system(change), Waiter::System(reply));
    }

    fn admit(&self) -> Result<(), AskError> {
        self.lead()?;
        if self.0.stopping.load(Ordering::Relaxed) {
            return Err(AskError::Stopping);
        }
        if !self.0.log.has_space() {
            return Err(AskError::StorageFull);
        }
        if self.0.waiting_commands.load(Ordering::Relaxed) >= self.0.limits.waiting_commands as u64 {
            return Err(AskError::Overloaded { retry_after_ms: 200 });
        }
        Ok(())
    }

    fn enqueue(&self, add: impl FnOnce(&mut BatchBuilder), waiter: Waiter<M>) {
        self.enqueue_in(false, add, waiter);
    }

    /// Adds an item to the open batch, or alone to one of its own.
    fn enqueue_in(&self, alone: bool, add: impl FnOnce(&mut BatchBuilder), waiter: Waiter<M>) {
        let mut open = lock(&self.0.open);
        if self.0.stopping.load(Ordering::Relaxed) {
            drop(open);
            return waiter.fail(AskError::Stopping);
        }
        let limits = &self.0.limits;
        let full = |b: &BatchBuilder| b.len() >= limits.batch_bytes || b.commands() >= limits.batch_commands;
        let first = open.is_empty();
        if open.back().is_none_or(|b| alone || b.closed || full(&b.builder)) {
            let (builder, waiters) = (BatchBuilder::default(), VecDeque::new());
            open.push_back(OpenBatch { builder, waiters, closed: alone });
        }
        if let Some(batch) = open.back_mut() {
            add(&mut batch.builder);
            batch.waiters.push_back(waiter);
        }
        // Before another thread can take it.
        self.0.waiting_commands.fetch_add(1, Ordering::Relaxed);
        drop(open);
        // The driver takes all that there is before it waits.
        if first {
            self.0.ready.notify_one();
        }
    }

    /// Says to each node that watches how many hints it was sent; every second, by the leader.
    pub fn beat(&self) {
        let leads = self.leadership().leads;
        let mut core = lock(&self.0.core);
        if !leads {
            // Whoever watches hears nothing and asks the new leader.
            return core.watches.clear();
        }
        let sent = core.watches.sent();
        drop(core);
        for (node, count) in sent {
            self.0.sinks.of(node).on_beat(self.0.id, count);
        }
    }

    /// Whether the shard serves; if not, why.
    pub fn health(&self) -> Result<(), String> {
        let core = lock(&self.0.core);
        if let Some(why) = &core.failed {
            return Err(why.clone());
        }
        drop(core);
        if !self.0.log.has_space() {
            return Err("the disk is full: free space is below the log's reserve".into());
        }
        if self.is_hosted() && self.leadership().leader.is_none() {
            return Err("no leader is known: fewer than half of its replicas answer".into());
        }
        Ok(())
    }

    /// The index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        lock(&self.0.core).store.applied().index()
    }

    /// Whether the log's disk has room for commands.
    pub fn has_space(&self) -> bool {
        self.0.log.has_space()
    }

    /// Free bytes on the log's disk.
    pub fn free_bytes(&self) -> u64 {
        self.0.log.free_bytes()
    }

    /// Entities that no command reaches any more.
    pub fn quarantined(&self) -> usize {
        lock(&self.0.core).quarantined.len()
    }
}

impl<M: Machine> Inner<M> {
    /// Whether a replica that leads may say so: it has heard of a majority lately, and its clock is right.
    fn may_serve(&self) -> bool {
        self.node.transport.is_none()
            || (self.heard.within(self.node.serve_within) && !self.node.astray.load(Ordering::Relaxed))
    }

    fn check(&self, core: &Core<M>) -> Result<(), AskError> {
        match &core.failed {
            Some(_) => Err(AskError::Unavailable),
            None if core.installing => Err(AskError::Unavailable),
            None => Ok(()),
        }
    }

    /// The state below memory is damaged: it is rebuilt at the next start, and until then nothing is served.
    pub(crate) fn state_failed(&self, fault: &str) -> AskError {
        let mut core = lock(&self.core);
        if core.failed.is_none() {
            core.failed = Some(fault.to_owned());
            core.store.base().distrust();
            drop(core);
            self.node.fatal.report(&format!("{}: {fault}", self.id));
        }
        AskError::Unavailable
    }
}
