//! Magpie's durable half: shards that are replicated, deterministic state machines, and what carries them.
//!
//! In reading order: [`machine`] is what a subsystem implements, [`state`] the records and timelines that it
//! works on, [`shard`] runs it behind a consensus log, [`router`] finds the shard of an entity. Below them
//! [`consensus`], [`log`], [`snapshot`] and [`disk`]; beside them [`watch`], the hints that follow an apply,
//! [`transport`], how nodes talk to each other, and [`priority`], which requests of others come first. [`backup`] is a
//! copy of all of it in a folder.
//!
//! What does not belong here: sessions, accounts, chats, HTTP, QUIC to clients; a clock or a random source inside
//! anything that `apply` reaches.

pub mod backup;
pub mod consensus;
pub mod disk;
#[cfg(test)]
mod golden;
pub mod log;
pub mod machine;
pub mod map;
pub mod metrics;
pub mod priority;
mod remote;
pub mod router;
pub mod shard;
pub mod snapshot;
pub mod state;
pub mod storage;
pub mod system;
pub mod transport;
pub mod watch;
pub mod work;

use std::{fmt, sync::Arc};

pub use machine::{EntityId, Machine, RightsChange};
pub use map::ShardMap;
pub use router::{AskError, Reply, Router};
pub use shard::{Shard, ShardLimits};
pub use state::{Key, Record, Store, Tx};
pub use storage::{Outside, Storage, StorageConfig, StorageError};
pub use system::{DiskId, System, founding::Part};
pub use watch::{Hint, HintSink, Origin, Signal};

/// Milliseconds since 1970, from outside. A simulation brings its own.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What kind of end a node comes to by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// What it stores, or what carries that, failed.
    Failed,
    /// The cluster does what this build cannot do: a newer build goes on from here.
    TooOld,
    /// The cluster does not take it, and says why.
    TurnedAway,
}

/// What is called with why a node ends.
type End = Arc<dyn Fn(Ending, &str) + Send + Sync>;

/// What happens when the node can no longer keep its promises: it says why and ends.
#[derive(Clone)]
pub struct Fatal(End);

impl Fatal {
    /// Calls this with the reason. It is expected to end the process, or in a test the node.
    pub fn new(end: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self::by_kind(move |_, reason| end(reason))
    }

    /// The same, where the kind of end matters.
    pub fn by_kind(end: impl Fn(Ending, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(end))
    }

    /// Reports a failure.
    pub fn report(&self, reason: &str) {
        (self.0)(Ending::Failed, reason);
    }

    /// Reports that this build is too old.
    pub fn too_old(&self, reason: &str) {
        (self.0)(Ending::TooOld, reason);
    }

    /// Reports that the cluster does not take this node.
    pub fn turned_away(&self, reason: &str) {
        (self.0)(Ending::TurnedAway, reason);
    }
}

impl fmt::Debug for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fatal")
    }
}
