//! Which shard owns which slot.

use magpie_protocol::{ShardId, Slot, ids::SLOTS};

/// The owner of each slot, with a version that grows with every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMap {
    version: u64,
    owners: Vec<ShardId>,
}

impl ShardMap {
    /// The slots dealt out evenly over this many shards.
    pub fn even(shards: u16) -> Self {
        let shards = shards.clamp(1, SLOTS);
        Self { version: 1, owners: (0..SLOTS).map(|slot| ShardId::new(slot % shards)).collect() }
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The shard that owns this slot.
    pub fn shard_of(&self, slot: Slot) -> ShardId {
        self.owners[usize::from(slot.get() % SLOTS)]
    }
}
