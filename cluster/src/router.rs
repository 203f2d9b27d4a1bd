//! Finding the shard of an entity and asking it.

use std::sync::{Arc, OnceLock};

use magpie_protocol::{ShardId, Slot, TimelineId};
use tokio::sync::oneshot;

use crate::{
    HintSink, Shard, ShardMap,
    machine::{EntityId, Machine},
};

/// Called once with an answer. It must not block nor call back into the shard that calls it.
pub type Reply<T> = Box<dyn FnOnce(Result<T, AskError>) + Send>;

/// Why there is no reply. Only the first three say that nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    #[error("too busy; come back in {retry_after_ms} ms")]
    Overloaded { retry_after_ms: u32 },
    #[error("the disk is full; nothing was changed")]
    StorageFull,
    #[error("the node is stopping; nothing was changed")]
    Stopping,
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

struct Inner<M: Machine> {
    map: ShardMap,
    shards: Vec<Shard<M>>,
    front: OnceLock<Arc<dyn Front<M>>>,
}

/// The handle to all shards. Clones share it. With more nodes it is the place that knows which of them leads.
pub struct Router<M: Machine>(Arc<Inner<M>>);

impl<M: Machine> Clone for Router<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Machine> Router<M> {
    pub(crate) fn new(map: ShardMap, shards: Vec<Shard<M>>) -> Self {
        Self(Arc::new(Inner { map, shards, front: OnceLock::new() }))
    }

    /// What stands before the shards. Set once.
    pub fn set_front(&self, front: Arc<dyn Front<M>>) {
        if self.0.front.set(front).is_err() {
            tracing::error!("a second front was refused");
        }
    }

    /// Where hints of all shards go. Set once.
    pub fn set_sink(&self, sink: &Arc<dyn HintSink>) {
        self.0.shards.iter().for_each(|shard| shard.set_sink(sink.clone()));
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.0.shards.len() as u16
    }

    /// This shard.
    pub fn shard(&self, id: ShardId) -> Option<&Shard<M>> {
        self.0.shards.get(usize::from(id.get()))
    }

    /// The shard that owns this slot.
    pub fn shard_of(&self, slot: Slot) -> &Shard<M> {
        &self.0.shards[usize::from(self.0.map.shard_of(slot).get())]
    }

    /// Asks an entity; `reply` is called when the command is durable and applied, or with why that is not known.
    pub fn submit(&self, entity: EntityId, command: M::Command, reply: Reply<M::Reply>) {
        let shard = self.shard_of(entity.slot());
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

    /// Reads applied state of the shard that owns this slot.
    pub fn query(&self, slot: Slot, query: M::Query) -> Result<M::View, AskError> {
        self.shard_of(slot).query(query)
    }

    /// Watches timelines of one shard and reads, from the same applied state.
    pub fn watch(&self, shard: ShardId, timelines: &[TimelineId], query: M::Query) -> Result<M::View, AskError> {
        self.shard(shard).ok_or(AskError::Unavailable)?.watch(timelines, query)
    }

    /// The shard that owns this timeline.
    pub fn shard_id_of(&self, timeline: TimelineId) -> ShardId {
        self.0.map.shard_of(timeline.slot())
    }
}
