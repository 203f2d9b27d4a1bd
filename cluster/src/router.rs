//! Finding the shard of an entity, and the node that leads it, and asking there.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bincode::{Decode, Encode};
use magpie_protocol::{NodeId, ShardId, Slot, TimelineId};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    HintSink, Shard, ShardMap,
    consensus::Leadership,
    machine::{EntityId, Machine},
    remote::{Done, Remote, Request, RequestOf, Response, ResponseOf},
};

/// Called once with an answer. It must not block nor call back into the shard that calls it.
pub type Reply<T> = Box<dyn FnOnce(Result<T, AskError>) + Send>;

/// Why there is no reply. Only the first four say that nothing happened.
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
}

/// Stands before the shards that this node leads: may hold volatile things of an entity and passes commands on.
pub trait Front<M: Machine>: Send + Sync + 'static {
    /// Passes the command to the shard, or refuses it.
    fn submit(&self, shard: &Shard<M>, entity: EntityId, command: M::Command, reply: Reply<M::Reply>);
}

/// How long a request waits for a shard to have a leader, after one was lost.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);
/// How long it waits before it looks again, if no change is told.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

struct Inner<M: Machine> {
    me: NodeId,
    map: ShardMap,
    shards: Vec<Shard<M>>,
    front: OnceLock<Arc<dyn Front<M>>>,
    /// The way to other nodes; none for a node that is alone.
    remote: Option<Remote<M>>,
}

/// The handle to all shards, wherever they are led. Clones share it.
pub struct Router<M: Machine>(Arc<Inner<M>>);

impl<M: Machine> Clone for Router<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Machine> Router<M> {
    pub(crate) fn new(me: NodeId, map: ShardMap, shards: Vec<Shard<M>>, remote: Option<Remote<M>>) -> Self {
        Self(Arc::new(Inner { me, map, shards, front: OnceLock::new(), remote }))
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.0.me
    }

    /// The other nodes that a connection stands to.
    pub fn connected(&self) -> Vec<NodeId> {
        self.0.remote.as_ref().map(Remote::connected).unwrap_or_default()
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
        if shard.leadership().leads || self.0.remote.is_none() {
            return self.submit_here(shard, entity, command, reply);
        }
        let (router, shard) = (self.clone(), shard.id());
        let asked = async move {
            let replied = router.at_leader(Request::Submit(shard, entity, command)).await;
            reply(replied.and_then(Response::reply));
        };
        tokio::spawn(asked);
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

    /// Whether this node leads the shard that owns this slot.
    pub fn is_here(&self, slot: Slot) -> bool {
        self.0.remote.is_none() || self.shard_of(slot).leadership().leads
    }

    /// Reads where [`Router::is_here`] says so.
    pub fn query_here(&self, slot: Slot, query: M::Query) -> Result<M::View, AskError> {
        self.shard_of(slot).query(query)
    }

    /// Reads from the leader of the shard that owns this slot.
    pub async fn query(&self, slot: Slot, query: M::Query) -> Result<M::View, AskError> {
        self.at_leader(Request::Query(self.0.map.shard_of(slot), query)).await?.view()
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

    /// Ends this node's watch of these timelines.
    pub fn unwatch(&self, shard: ShardId, timelines: Vec<TimelineId>) {
        let Some(shard) = self.shard(shard) else { return };
        let Leadership { leads, leader, .. } = shard.leadership();
        match (&self.0.remote, leader) {
            (Some(remote), Some(leader)) if !leads => remote.unwatch(leader, shard.id(), timelines),
            _ => shard.unwatch(self.0.me, &timelines),
        }
    }

    /// Hands the messages of one shard's outbox to another; the last number that is applied there comes back.
    pub(crate) async fn deliver(
        &self,
        to: ShardId,
        from: ShardId,
        first: u64,
        messages: Vec<(EntityId, Vec<u8>)>,
    ) -> Result<u64, AskError> {
        self.at_leader(Request::Deliver { to, from, first, messages }).await?.applied()
    }

    /// Does for a node, this one or another, what it asks of a shard that this one leads.
    pub(crate) fn serve(&self, from: NodeId, request: RequestOf<M>, done: Done<M>) {
        let Some(shard) = self.shard(request.shard()).cloned() else { return done(Err(AskError::Unavailable)) };
        match request {
            Request::Submit(_, entity, command) => {
                self.submit_here(&shard, entity, command, Box::new(|result| done(result.map(Response::Reply))));
            }
            Request::Query(_, query) => done(shard.query(query).map(Response::View)),
            Request::Watch(_, timelines, query) => {
                let watched = shard.watch(from, &timelines).and_then(|()| shard.query(query));
                done(watched.map(Response::View));
            }
            Request::Rewatch(_, timelines) => done(shard.watch(from, &timelines).map(|()| Response::Done)),
            Request::Deliver { from, first, messages, .. } => {
                shard.deliver(from, first, messages, Box::new(|result| done(result.map(Response::Applied))));
            }
        }
    }

    async fn here(&self, request: RequestOf<M>) -> Result<ResponseOf<M>, AskError> {
        let (tx, rx) = oneshot::channel();
        self.serve(self.0.me, request, Box::new(move |result| drop(tx.send(result))));
        rx.await.unwrap_or(Err(AskError::Unknown))
    }

    /// Asks the leader of a shard, here or there. Where nothing happened, because it leads no longer or was not
    /// reached, whoever leads next is asked; where the outcome is not known, the caller is told.
    async fn at_leader(&self, request: RequestOf<M>) -> Result<ResponseOf<M>, AskError> {
        let deadline = Instant::now() + LEADERLESS_MAX;
        let shard = self.shard(request.shard()).ok_or(AskError::Unavailable)?;
        let mut changes = shard.follow_leadership().ok_or(AskError::Unavailable)?;
        let mut told = None;
        loop {
            let Leadership { leader, leads, .. } = *changes.borrow_and_update();
            let result = match (&self.0.remote, told.take().or(leader)) {
                _ if leads => self.here(request.clone()).await,
                (Some(remote), Some(leader)) if leader != self.0.me => tokio::select! {
                    result = remote.call(leader, &request) => result,
                    // It will hardly answer. What may be asked twice is asked again; of the rest the outcome is unknown.
                    _ = changes.wait_for(|now| now.leader.is_some_and(|next| next != leader)) => match request {
                        Request::Submit(..) => Err(AskError::Unknown),
                        _ => Err(AskError::NotLeader { leader: None }),
                    },
                },
                _ => Err(AskError::NotLeader { leader: None }),
            };
            match result {
                Err(AskError::NotLeader { leader }) => told = leader.filter(|node| *node != self.0.me),
                result => return result,
            }
            if Instant::now() >= deadline {
                return Err(AskError::Unavailable);
            }
            // Whoever was named is asked at once.
            if told.is_none() {
                let changed = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
                // This replica's consensus has ended, and nothing changes any more.
                if matches!(changed, Ok(Err(_))) {
                    return Err(AskError::Unavailable);
                }
            } else {
                tokio::task::yield_now().await;
            }
        }
    }
}
