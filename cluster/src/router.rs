//! Finding the shard of an entity, and the node that leads it, and asking there.

mod cuts;
mod leader;
mod serve;

pub(crate) use cuts::CUT_PART_MAX;

use std::{
    sync::{Arc, Mutex, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use bincode::{Decode, Encode};
use magpie_protocol::{NodeId, RetryBudget, ShardId, Slot, TimelineId};
use tokio::sync::oneshot;

use crate::{
    HintSink, Shard, ShardMap, Signal,
    machine::{EntityId, Machine},
    priority::{self, Admission},
    remote::{Remote, Request, RequestOf, Response, ResponseOf},
    shard::cut::Through,
    system::{
        Change, DiskId, Refusal, SYSTEM_SHARD, System, SystemView,
        pulse::{Facts, Pulse},
        steward::Wishes,
    },
};

/// Called once with an answer. It must not block nor call back into the shard that calls it.
pub type Reply<T> = Box<dyn FnOnce(Result<T, AskError>) + Send>;

/// Why there is no reply. Only the first four and the last say that nothing happened. Tags are append-only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[non_exhaustive]
pub enum AskError {
    #[error("too busy; come back in {retry_after_ms} ms")]
    Overloaded { retry_after_ms: u32 },
    #[error("the disk is full; nothing was changed")]
    StorageFull,
    #[error("the node is stopping; nothing was changed")]
    Stopping,
    #[error("another node leads the shard")]
    NotLeader { leader: Option<NodeId> },
    #[error("not available right now")]
    Unavailable,
    #[error("the outcome is not known: ask again with the same id")]
    Unknown,
    #[error("not every node can do that yet: it needs feature level {needs}; nothing was changed")]
    NotYet { needs: u32 },
}

/// Stands before the shards that this node leads: may hold volatile things of an entity and passes commands on.
pub trait Front<M: Machine>: Send + Sync + 'static {
    /// Passes the command to the shard, or refuses it.
    fn submit(&self, shard: &Shard<M>, entity: EntityId, command: M::Command, reply: Reply<M::Reply>);
    /// The answer to a read of what is volatile; `None` for a read of state.
    fn view(&self, query: &M::Query) -> Option<M::View> {
        let _ = query;
        None
    }

    /// Whether the answer to this read takes longer than a look, such as a search: [`Front::answer`] gives it then.
    fn takes(&self, query: &M::Query) -> bool {
        let _ = query;
        false
    }

    /// Answers a read that it takes, without making the caller wait. `NotLeader` where another node leads the shard.
    fn answer(&self, shard: &Shard<M>, query: M::Query, reply: Reply<M::View>) {
        reply(shard.query(query));
    }
}

struct Inner<M: Machine> {
    me: NodeId,
    map: ShardMap,
    shards: Vec<Shard<M>>,
    front: OnceLock<Arc<dyn Front<M>>>,
    /// The way to other nodes; none for a node that is alone.
    remote: Option<Remote<M>>,
    system: SystemView,
    disk: DiskId,
    pulse: Pulse,
    wishes: Wishes,
    /// Who led each shard when it was last asked, for when this node's replica, if it has one, does not know; 0 where
    /// nobody knows.
    leaders: Vec<AtomicU64>,
    /// What other nodes ask is let in by; everything where there is none.
    admission: OnceLock<Arc<dyn Admission>>,
    /// How often what other nodes did not take may be asked again.
    retries: Mutex<RetryBudget>,
}

/// Requests that may be asked of other nodes again at once, and for ever a second, beside a tenth of those that were
/// served: enough for some to look for a new leader, on behalf of all.
const RETRIES_MAX: u32 = 200;
const RETRIES_PER_SECOND: f64 = 50.0;

/// What a router is made of.
pub(crate) struct RouterParts<M: Machine> {
    pub(crate) me: NodeId,
    pub(crate) map: ShardMap,
    pub(crate) shards: Vec<Shard<M>>,
    pub(crate) remote: Option<Remote<M>>,
    pub(crate) system: SystemView,
    pub(crate) disk: DiskId,
    pub(crate) pulse: Pulse,
}

/// The handle to all shards, wherever they are led. Clones share it.
pub struct Router<M: Machine>(Arc<Inner<M>>);

impl<M: Machine> Clone for Router<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Machine> Router<M> {
    pub(crate) fn new(parts: RouterParts<M>) -> Self {
        let RouterParts { me, map, shards, remote, system, disk, pulse } = parts;
        let leaders = shards.iter().map(|_| AtomicU64::new(0)).collect();
        let (front, admission, wishes) = (OnceLock::new(), OnceLock::new(), Wishes::default());
        let retries = Mutex::new(RetryBudget::new(RETRIES_MAX, RETRIES_PER_SECOND));
        let inner = Inner { me, map, shards, front, remote, system, disk, pulse, wishes, leaders, admission, retries };
        Self(Arc::new(inner))
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.0.me
    }

    /// The other nodes that a connection stands to.
    pub fn connected(&self) -> Vec<NodeId> {
        self.0.remote.as_ref().map(Remote::connected).unwrap_or_default()
    }

    /// What the cluster knows of itself.
    pub fn system(&self) -> &SystemView {
        &self.0.system
    }

    /// What is known of the other nodes.
    pub fn pulse(&self) -> &Pulse {
        &self.0.pulse
    }

    /// What this node says of itself.
    pub fn facts(&self) -> Facts {
        self.0.pulse.mine(&self.0.shards)
    }

    /// Who says what is let in that other nodes ask. Set once.
    pub fn set_admission(&self, admission: Arc<dyn Admission>) {
        if self.0.admission.set(admission).is_err() {
            tracing::error!("a second admission was refused");
        }
    }

    /// The last priority that this node lets in.
    pub(crate) fn level(&self) -> u16 {
        self.0.admission.get().map_or(u16::MAX, |admission| admission.level())
    }

    /// Lets a request of another node in, or refuses it.
    pub(crate) fn admit(&self, priority: Option<u16>) -> Result<(), AskError> {
        let (Some(priority), Some(admission)) = (priority, self.0.admission.get()) else { return Ok(()) };
        if admission.admit(priority) { Ok(()) } else { Err(self.refusal(priority, admission.level())) }
    }

    /// Where this is the last priority that is let in.
    fn refusal(&self, priority: u16, level: u16) -> AskError {
        let after = self.0.admission.get().map_or(0, |admission| admission.retry_after_ms(priority, level));
        AskError::Overloaded { retry_after_ms: after }
    }

    /// How long commands had to wait for batches before theirs, beyond the round that each takes, on average since this
    /// was last asked, in the shard where that was longest.
    pub fn take_wait(&self) -> Duration {
        self.0.shards.iter().map(|shard| shard.0.waits.take()).max().unwrap_or_default()
    }

    pub(crate) fn disk(&self) -> DiskId {
        self.0.disk
    }

    /// Whether there is no way to other nodes.
    pub fn is_alone(&self) -> bool {
        self.0.remote.is_none()
    }

    /// What stands before the shards that this node leads. Set once.
    pub fn set_front(&self, front: Arc<dyn Front<M>>) {
        if self.0.front.set(front).is_err() {
            tracing::error!("a second front was refused");
        }
    }

    /// Where hints of all shards go, for this node's own sessions. Set once.
    pub fn set_sink(&self, sink: &Arc<dyn HintSink>) {
        self.0.shards.iter().for_each(|shard| shard.set_sink(sink.clone()));
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.0.shards.len() as u16
    }

    /// Every shard, whether this node holds a replica or not.
    pub(crate) fn all_shards(&self) -> &[Shard<M>] {
        &self.0.shards
    }

    /// This node's replica of a shard.
    pub fn shard(&self, id: ShardId) -> Option<&Shard<M>> {
        self.0.shards.get(usize::from(id.get()))
    }

    /// This node's replica of the shard that owns this slot.
    pub fn shard_of(&self, slot: Slot) -> &Shard<M> {
        &self.0.shards[usize::from(self.0.map.shard_of(slot).get())]
    }

    /// The shard that owns this timeline.
    pub fn shard_id_of(&self, timeline: TimelineId) -> ShardId {
        self.0.map.shard_of(timeline.slot())
    }

    /// Asks an entity; `reply` is called when the command is durable and applied, or with why that is not known.
    pub fn submit(&self, entity: EntityId, command: M::Command, reply: Reply<M::Reply>) {
        let shard = self.shard_of(entity.slot());
        if self.0.remote.is_none() || shard.leadership().leads {
            return self.submit_here(shard, entity, command, reply);
        }
        let (router, shard) = (self.clone(), shard.id());
        let asked = async move {
            let replied = router.at_leader(Request::Submit(shard, entity, command)).await;
            reply(replied.and_then(Response::reply));
        };
        priority::spawn(asked);
    }

    /// Asks an entity of a shard that this node leads.
    pub(crate) fn submit_here(&self, shard: &Shard<M>, entity: EntityId, command: M::Command, reply: Reply<M::Reply>) {
        match self.0.front.get() {
            Some(front) => front.submit(shard, entity, command, reply),
            None => shard.submit(entity, &command, reply),
        }
    }

    /// The same, as a future.
    pub async fn ask(&self, entity: EntityId, command: M::Command) -> Result<M::Reply, AskError> {
        let (tx, rx) = oneshot::channel();
        self.submit(entity, command, Box::new(move |result| drop(tx.send(result))));
        rx.await.unwrap_or(Err(AskError::Unknown))
    }

    /// Whether this node can answer such a read at once.
    pub fn answers_here(&self, slot: Slot, query: &M::Query) -> bool {
        let shard = self.shard_of(slot);
        self.front_for(query).is_none()
            && (self.0.remote.is_none() || (shard.leadership().leads && !shard.wants_fresh(query)))
    }

    /// The front, where it takes longer for such a read than a look at the state.
    fn front_for(&self, query: &M::Query) -> Option<&Arc<dyn Front<M>>> {
        self.0.front.get().filter(|front| front.takes(query))
    }

    /// Reads where [`Router::answers_here`] says so.
    pub fn query_here(&self, slot: Slot, query: M::Query) -> Result<M::View, AskError> {
        self.view_here(self.shard_of(slot), query)
    }

    /// What the front says of what is volatile, or the shard of its state.
    fn view_here(&self, shard: &Shard<M>, query: M::Query) -> Result<M::View, AskError> {
        let volatile = self.0.front.get().and_then(|front| front.view(&query));
        volatile.map_or_else(|| shard.query(query), Ok)
    }

    /// Reads from the leader of the shard that owns this slot.
    pub async fn query(&self, slot: Slot, query: M::Query) -> Result<M::View, AskError> {
        self.at_leader(Request::Query(self.0.map.shard_of(slot), query)).await?.view()
    }

    /// The same, from this node's replica where that is behind the leader by no more than this. The answer says by how
    /// much it may be: it has everything that was acknowledged so long ago. It is for what others may see a little later:
    /// never for what decides who may do what.
    pub async fn query_behind(
        &self,
        slot: Slot,
        query: M::Query,
        by: Duration,
    ) -> Result<(M::View, Duration), AskError> {
        let shard = self.shard_of(slot);
        if let Some(seen) = shard.query_behind(query.clone(), by) {
            metrics::counter!(crate::metrics::READS_BEHIND).increment(1);
            return seen;
        }
        Ok((self.query(slot, query).await?, Duration::ZERO))
    }

    /// Registers this node's watch of timelines of one shard and then reads, so that no entry falls between.
    pub async fn watch(
        &self,
        shard: ShardId,
        timelines: Vec<TimelineId>,
        query: M::Query,
    ) -> Result<M::View, AskError> {
        self.at_leader(Request::Watch(shard, timelines, query)).await?.view()
    }

    /// Registers watches again, after a gap in the hints.
    pub async fn rewatch(&self, shard: ShardId, timelines: Vec<TimelineId>) -> Result<(), AskError> {
        self.at_leader(Request::Rewatch(shard, timelines)).await?.done()
    }

    /// Those of these timelines of one shard that no node watches. `Unavailable` where its leader is so new that it does
    /// not know.
    pub async fn unwatched(&self, shard: ShardId, timelines: Vec<TimelineId>) -> Result<Vec<TimelineId>, AskError> {
        self.at_leader(Request::Unwatched(shard, timelines)).await?.timelines()
    }

    /// Ends this node's watch of these timelines.
    pub fn unwatch(&self, shard: ShardId, timelines: Vec<TimelineId>) {
        let Some(shard) = self.shard(shard) else { return };
        match (&self.0.remote, self.leader_of(shard)) {
            (Some(remote), Some(leader)) if leader != self.0.me => remote.unwatch(leader, shard.id(), timelines),
            _ => shard.unwatch(self.0.me, &timelines),
        }
    }

    /// Tells those who watch a timeline of something passing.
    pub async fn signal(&self, signal: Signal) -> Result<(), AskError> {
        self.at_leader(Request::Signal(self.shard_id_of(signal.timeline), signal)).await?.done()
    }

    /// Those of these timelines, all of one shard, that some node watches for its sessions.
    pub async fn watched(&self, shard: ShardId, timelines: Vec<TimelineId>) -> Result<Vec<TimelineId>, AskError> {
        self.at_leader(Request::Watched(shard, timelines)).await?.timelines()
    }

    /// Hands the messages of one shard's outbox, which has made this cut, to another; the last number that is applied
    /// there comes back.
    pub(crate) async fn deliver(
        &self,
        to: ShardId,
        (from, cut): (ShardId, u64),
        first: u64,
        messages: Vec<(EntityId, Vec<u8>)>,
    ) -> Result<Through, AskError> {
        let request = match cut {
            0 => Request::Deliver { to, from, first, messages },
            _ => Request::DeliverCut { to, from, cut, first, messages },
        };
        self.at_leader(request).await?.through()
    }

    /// Changes what the cluster knows of itself.
    pub async fn change(&self, change: Change) -> Result<Result<(), Refusal>, AskError> {
        self.at_leader(Request::Change(SYSTEM_SHARD, change)).await?.changed()
    }

    /// What operators wish of this node while it leads shard 0.
    pub(crate) fn wishes(&self) -> &Wishes {
        &self.0.wishes
    }

    /// Lets another replica lead a shard.
    pub async fn hand_over(&self, shard: ShardId, to: NodeId) -> Result<(), AskError> {
        self.at_leader(Request::HandOver(shard, to)).await?.done()
    }

    /// Asks a node, this one or another, what is not for the leader of a shard.
    pub(crate) async fn ask_node(&self, node: NodeId, request: RequestOf<M>) -> Result<ResponseOf<M>, AskError> {
        match &self.0.remote {
            Some(remote) if node != self.0.me => remote.call(node, &request).await,
            _ => self.here(request).await,
        }
    }

    /// Tells a node what the cluster knows of itself.
    pub(crate) fn tell_system(&self, node: NodeId, system: &System) {
        if let Some(remote) = &self.0.remote {
            remote.tell_system(node, system);
        }
    }

    async fn here(&self, request: RequestOf<M>) -> Result<ResponseOf<M>, AskError> {
        let (tx, rx) = oneshot::channel();
        self.serve(self.0.me, request, Box::new(move |result| drop(tx.send(result))));
        rx.await.unwrap_or(Err(AskError::Unknown))
    }
}
