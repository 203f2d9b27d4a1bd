//! Hints: what the leader of a shard tells the nodes that watch one of its timelines.
//!
//! A hint may be lost. The leader counts its hints for each watching node and says the count every second, so a
//! node that missed one knows, and watches again from the heads.

use std::collections::HashMap;

use bytes::Bytes;
use magpie_protocol::{DeviceId, ShardId, TimelineId};

use crate::machine::RightsChange;

/// An entry was appended to a timeline.
#[derive(Clone, Debug)]
pub struct Hint {
    pub timeline: TimelineId,
    pub number: u64,
    /// The number of the timeline's last change of rights before this entry: only who was granted at or after it
    /// may be given the entry.
    pub rights_before: u64,
    /// How this entry itself changes rights.
    pub change: Option<RightsChange>,
    /// The session that appended it, whose answer stands for the entry: see [`HintSink::on_hints`].
    pub origin: Option<Origin>,
    /// The entry as it is stored.
    pub entry: Bytes,
}

/// A session, as a command names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub device: DeviceId,
    pub epoch: u64,
}

/// Where a node takes hints. Calls must not block and must not call back into the shard.
pub trait HintSink: Send + Sync + 'static {
    /// Hints of an applied batch, in order; `count` is how many this shard has sent here with these. The answer to
    /// a command is given right after its hints and before those of the next.
    fn on_hints(&self, shard: ShardId, count: u64, hints: &[Hint]);
    /// How many hints this shard has sent here.
    fn on_beat(&self, shard: ShardId, count: u64);
}

/// The leader's table: which timelines are watched. With one node there is one watcher; with more, the value
/// becomes the set of nodes.
#[derive(Debug, Default)]
pub struct WatchTable {
    watched: HashMap<TimelineId, (), foldhash::fast::RandomState>,
    sent: u64,
}

impl WatchTable {
    /// The node wants hints of this timeline.
    pub fn watch(&mut self, timeline: TimelineId) {
        self.watched.insert(timeline, ());
    }

    /// The node no longer wants them.
    pub fn unwatch(&mut self, timeline: TimelineId) {
        self.watched.remove(&timeline);
    }

    /// Whether anybody watches.
    pub fn is_watched(&self, timeline: &TimelineId) -> bool {
        self.watched.contains_key(timeline)
    }

    /// Counts hints that are about to be sent; returns the count with them.
    pub fn count(&mut self, hints: usize) -> u64 {
        self.sent += hints as u64;
        self.sent
    }

    /// How many hints were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}
