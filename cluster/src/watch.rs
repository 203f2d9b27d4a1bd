//! Hints: what the leader of a shard tells the nodes that watch one of its timelines.
//!
//! A hint may be lost. The leader counts its hints for each watching node and says the count every second, so a
//! node that missed one knows, and watches again from the heads. A table that was emptied counts on from where no
//! other has been, so a node whose watches it forgot knows as well.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bincode::{Decode, Encode};
use magpie_protocol::{DeviceId, NodeId, ShardId, TimelineId, UserId, frame::sync::EntryBytes};
use tokio::time::Instant;

use crate::machine::RightsChange;

/// An entry was appended to a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
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
    pub entry: EntryBytes,
}

/// A session, as a command names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Origin {
    pub device: DeviceId,
    pub epoch: u64,
}

/// Something passing that a person does in a timeline, such as typing. It is kept nowhere and may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Signal {
    pub timeline: TimelineId,
    pub user: UserId,
    pub kind: u16,
}

/// Where a node takes hints. Calls must not block and must not call back into the shard.
pub trait HintSink: Send + Sync + 'static {
    /// Hints of an applied batch, in order; `count` is how many this shard has sent here with these. The answer to
    /// a command is given after its hints, and before those of later commands: where it has hints itself, and they come from
    /// another session or are of another timeline.
    fn on_hints(&self, shard: ShardId, count: u64, hints: &[Hint]);
    /// How many hints this shard has sent here.
    fn on_beat(&self, shard: ShardId, count: u64);
    /// Another replica leads, or the same one anew: it knows of no watch, or only of old ones.
    fn on_new_leader(&self, shard: ShardId) {
        let _ = shard;
    }
    /// Something passing happened in a timeline that this node watches.
    fn on_signal(&self, signal: Signal) {
        let _ = signal;
    }
}

/// How many of these, from the first on, are of one timeline and come from one session: that session is handed none of
/// them, so that its answers may come behind all of them.
pub(crate) fn run_len(hints: &[Hint]) -> usize {
    let Some(first) = hints.first().filter(|hint| hint.origin.is_some()) else { return hints.len().min(1) };
    hints.iter().take_while(|hint| hint.timeline == first.timeline && hint.origin == first.origin).count()
}

/// A node notices within three seconds that another leads, and registers its watches there.
const SETTLED_AFTER: Duration = Duration::from_secs(4);

/// The leader's table: which nodes watch which timelines, and how many hints each was sent.
#[derive(Debug, Default)]
pub struct WatchTable {
    /// No list is empty.
    watched: HashMap<TimelineId, Arc<[NodeId]>, foldhash::fast::RandomState>,
    /// Lists of one, shared: most timelines are watched by one node or by few.
    alone: BTreeMap<NodeId, Arc<[NodeId]>>,
    sent: BTreeMap<NodeId, u64>,
    /// Where counts begin: above every count of this table before it was emptied, and of leaders of earlier terms.
    first: u64,
    /// In which this replica led when it was filled.
    term: u64,
    /// When the first look at it was, since it was empty.
    began: Option<Instant>,
}

/// More hints than a leader sends in its term.
const HINTS_PER_TERM: u32 = 40;

impl WatchTable {
    /// This replica leads in this term: what was watched when it led in another is forgotten.
    pub fn lead(&mut self, term: u64) {
        if self.term < term {
            self.clear();
            self.term = term;
            self.first = self.first.max(term << HINTS_PER_TERM);
        }
    }

    /// The node wants hints of this timeline.
    pub fn watch(&mut self, node: NodeId, timeline: TimelineId) {
        let alone = self.alone.entry(node).or_insert_with(|| Arc::from([node]));
        let watchers = self.watched.entry(timeline).or_insert_with(|| alone.clone());
        if !watchers.contains(&node) {
            *watchers = watchers.iter().copied().chain([node]).collect();
        }
        self.sent.entry(node).or_insert(self.first);
    }

    /// The node no longer wants them.
    pub fn unwatch(&mut self, node: NodeId, timeline: TimelineId) {
        let Some(watchers) = self.watched.get_mut(&timeline) else { return };
        let rest: Vec<NodeId> = watchers.iter().copied().filter(|other| *other != node).collect();
        match rest.as_slice() {
            [] => drop(self.watched.remove(&timeline)),
            [one] => *watchers = self.alone.entry(*one).or_insert_with(|| Arc::from([*one])).clone(),
            _ => *watchers = rest.into(),
        }
    }

    /// The nodes that watch a timeline, if any does.
    pub fn watchers(&self, timeline: &TimelineId) -> Option<&Arc<[NodeId]>> {
        self.watched.get(timeline)
    }

    /// Whether all nodes have had the time to say what they watch.
    pub fn is_settled(&mut self) -> bool {
        self.began.get_or_insert_with(Instant::now).elapsed() >= SETTLED_AFTER
    }

    /// Counts hints that are about to be sent to a node; returns the count with them.
    pub fn count(&mut self, node: NodeId, hints: usize) -> u64 {
        let sent = self.sent.entry(node).or_insert(self.first);
        *sent += hints as u64;
        *sent
    }

    /// How many hints each watching node was sent.
    pub fn sent(&self) -> Vec<(NodeId, u64)> {
        self.sent.iter().map(|(node, sent)| (*node, *sent)).collect()
    }

    /// Forgets what is watched: this replica does not serve.
    pub fn clear(&mut self) {
        let first = self.sent.values().max().map_or(self.first, |sent| sent + 1);
        *self = Self { first, term: self.term, ..Self::default() };
    }
}

/// The way to the sessions of another node.
type Way = Box<dyn Fn(NodeId) -> Arc<dyn HintSink> + Send + Sync>;

/// Where the hints of a shard go: to this node's own sessions, and to other nodes.
#[derive(Default)]
pub struct Sinks {
    local: OnceLock<Arc<dyn HintSink>>,
    elsewhere: OnceLock<Way>,
    me: OnceLock<NodeId>,
}

impl Sinks {
    /// This node's own. Set once, before the first watch. False for a second.
    pub fn set_local(&self, me: NodeId, sink: Arc<dyn HintSink>) -> bool {
        _ = self.me.set(me);
        self.local.set(sink).is_ok()
    }

    /// The way to other nodes. Set once; none for a node that is alone.
    pub fn set_elsewhere(&self, way: impl Fn(NodeId) -> Arc<dyn HintSink> + Send + Sync + 'static) {
        _ = self.elsewhere.set(Box::new(way));
    }

    /// This node's own.
    pub fn local(&self) -> Option<&Arc<dyn HintSink>> {
        self.local.get()
    }

    /// That of a node, this one or another.
    pub fn of(&self, node: NodeId) -> Arc<dyn HintSink> {
        let local = || if self.me.get() == Some(&node) { self.local.get().cloned() } else { None };
        let elsewhere = || self.elsewhere.get().map(|way| way(node));
        local().or_else(elsewhere).unwrap_or_else(|| Arc::new(Nowhere))
    }
}

/// Hints may be lost.
struct Nowhere;

impl HintSink for Nowhere {
    fn on_hints(&self, _: ShardId, _: u64, _: &[Hint]) {}
    fn on_beat(&self, _: ShardId, _: u64) {}
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_told_in_one_go_is_of_one_timeline_and_one_session() {
        let hint = |timeline: u64, device: Option<u64>| Hint {
            timeline: TimelineId::Inbox(UserId::from_bits(timeline)),
            number: 1,
            rights_before: 0,
            change: None,
            origin: device.map(|device| Origin { device: DeviceId::from_bits(device), epoch: 1 }),
            entry: EntryBytes(Bytes::new()),
        };
        let run = |hints: &[(u64, Option<u64>)]| {
            run_len(&hints.iter().map(|(timeline, device)| hint(*timeline, *device)).collect::<Vec<_>>())
        };
        assert_eq!(run(&[]), 0);
        assert_eq!(run(&[(1, Some(5)), (1, Some(5)), (1, Some(5))]), 3);
        assert_eq!(run(&[(1, Some(5)), (1, Some(6))]), 1, "of another session, which is to have its own answer first");
        assert_eq!(run(&[(1, Some(5)), (2, Some(5))]), 1);
        assert_eq!(run(&[(1, None), (1, None)]), 1, "nobody knows who asked for these");
    }

    /// A node whose watches were forgotten is told a count that it has not seen, also when as many hints have gone as
    /// before: whether the replica served no more for a moment, or led again in another term, or another did.
    #[test]
    fn no_count_comes_twice_from_tables_that_differ() {
        let (node, timeline) = (NodeId::new(1, 1), TimelineId::Inbox(UserId::from_bits(1)));
        let (mut seen, mut table) = (std::collections::BTreeSet::new(), WatchTable::default());
        let mut some = |table: &mut WatchTable, term| {
            table.lead(term);
            table.watch(node, timeline);
            assert!(seen.insert(table.sent()[0].1), "term {term}: {:?}", table.sent());
            assert!((0..20).all(|_| seen.insert(table.count(node, 1))), "term {term}");
        };
        some(&mut table, 3);
        table.clear();
        assert!(table.watchers(&timeline).is_none());
        some(&mut table, 3);
        some(&mut table, 5);
        table.clear();
        some(&mut table, 5);
        // Another replica, which led between.
        some(&mut WatchTable::default(), 4);
    }
}
