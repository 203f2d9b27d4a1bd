//! The node's own table of watches: which of its sessions follow which timeline, and since when they may.
//!
//! A hint is handed on, encoded once, only to sessions whose right was granted at or after the timeline's last
//! change of rights. Where that is not known, the session asks again and its device pulls.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use magpie_cluster::{Hint, HintSink, Origin};
use magpie_protocol::{
    Answer, Body, Entry, Frame, ShardId, TimelineId, UserId,
    frame::sync::{EntryBytes, Pushed},
};

use crate::{
    machine::MagpieRouter,
    registry::Registry,
    session::{Message, SessionHandle},
};

/// A session's place in the list of a timeline.
pub struct Watcher {
    session: SessionHandle,
    /// The right to follow was seen as of this number; `u64::MAX` before it was.
    granted: AtomicU64,
}

const NOT_GRANTED: u64 = u64::MAX;

impl Watcher {
    fn may_have(&self, hint: &Hint) -> bool {
        let granted = self.granted.load(Ordering::Relaxed);
        granted != NOT_GRANTED && granted >= hint.rights_before
    }
}

/// What one session watches.
#[derive(Default)]
pub struct Watching(HashMap<TimelineId, Arc<Watcher>, foldhash::fast::RandomState>);

type Watchers = Arc<Vec<Arc<Watcher>>>;

/// See the module's documentation.
pub struct Watches {
    table: Registry<TimelineId, Watchers>,
    /// Hints seen of each shard, and when it last gave a sign.
    seen: Mutex<BTreeMap<ShardId, Seen>>,
    router: OnceLock<MagpieRouter>,
    clock: magpie_cluster::Clock,
    /// For tests: hints are lost on their way here.
    pub drop_hints: Arc<AtomicBool>,
}

struct Seen {
    count: u64,
    at_ms: u64,
}

/// Silence of a shard after which its watches are registered again, in milliseconds.
const SILENCE_MS: u64 = 3_000;

impl Watches {
    /// An empty table.
    pub fn new(clock: magpie_cluster::Clock, drop_hints: Arc<AtomicBool>) -> Self {
        let (table, seen, router) = (Registry::default(), Mutex::default(), OnceLock::new());
        Self { table, seen, router, clock, drop_hints }
    }

    /// The way to the shards, once they run.
    pub fn set_router(&self, router: MagpieRouter) {
        _ = self.router.set(router);
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<ShardId, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the session on the timeline's list. It is handed nothing before [`Watches::grant`].
    pub fn enter(&self, watching: &mut Watching, timeline: TimelineId, session: &SessionHandle) {
        if watching.0.contains_key(&timeline) {
            return;
        }
        let watcher = Arc::new(Watcher { session: session.clone(), granted: AtomicU64::new(NOT_GRANTED) });
        watching.0.insert(timeline, watcher.clone());
        // Copied only while a hint is being handed on by it.
        self.table.alter(timeline, |list| {
            Arc::make_mut(list).push(watcher);
            true
        });
    }

    /// The session may follow the timeline, as its shard said when this was its last change of rights.
    pub fn grant(&self, watching: &Watching, timeline: TimelineId, rights: u64) {
        if let Some(watcher) = watching.0.get(&timeline) {
            watcher.granted.store(rights, Ordering::Relaxed);
        }
    }

    /// Takes the session off the timeline's list.
    pub fn leave_one(&self, watching: &mut Watching, timeline: TimelineId, router: &MagpieRouter) {
        let Some(watcher) = watching.0.remove(&timeline) else { return };
        let mut empty = false;
        self.table.alter(timeline, |list| {
            let list = Arc::make_mut(list);
            if let Some(at) = list.iter().position(|other| Arc::ptr_eq(other, &watcher)) {
                list.swap_remove(at);
            }
            empty = list.is_empty();
            !empty
        });
        if empty && let Some(shard) = router.shard(router.shard_id_of(timeline)) {
            shard.unwatch(&[timeline]);
        }
    }

    /// Takes the session off every list.
    pub fn leave(&self, watching: &mut Watching, router: &MagpieRouter) {
        for timeline in watching.0.keys().copied().collect::<Vec<_>>() {
            self.leave_one(watching, timeline, router);
        }
    }

    /// How many timelines are watched.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn hand_on(&self, hint: &Hint) {
        let Some(watchers) = self.table.get(&hint.timeline) else { return };
        let frame = std::cell::LazyCell::new(|| {
            let entry = EntryBytes(hint.entry.clone());
            Frame::push(Answer::Pushed(Pushed { timeline: hint.timeline, entry })).to_bytes()
        });
        crate::metrics::count!(crate::metrics::HINTS, watchers.len() as u64);
        for watcher in watchers.iter() {
            if !watcher.may_have(hint) {
                // Its right may have ended with a hint that was lost: it asks again.
                watcher.granted.store(NOT_GRANTED, Ordering::Relaxed);
                watcher.session.tell(Message::Behind(vec![hint.timeline]));
                continue;
            }
            let me = watcher.session.identity;
            // Its answer says the same, and comes before any later entry.
            if hint.origin != Some(Origin { device: me.device, epoch: me.epoch }) {
                watcher.session.out().push_hint(hint.timeline, &frame);
            }
            let Some(change) = hint.change else { continue };
            let ends = change.user == watcher.session.identity.user && !change.granted;
            watcher.granted.store(if ends { NOT_GRANTED } else { hint.number }, Ordering::Relaxed);
            if ends {
                watcher.session.tell(Message::Behind(vec![hint.timeline]));
            }
        }
        if let TimelineId::Inbox(user) = hint.timeline {
            tell_of_inbox(user, &hint.entry, &watchers);
        }
    }

    /// Registers the watches of a shard again and lets every session concerned ask where it stands.
    fn repair(&self, shard: ShardId) {
        let Some(router) = self.router.get() else { return };
        metrics::counter!(crate::metrics::HINT_REPAIRS).increment(1);
        let mut sessions: HashMap<usize, (SessionHandle, BTreeSet<TimelineId>)> = HashMap::new();
        let mut timelines = Vec::new();
        self.table.retain(|timeline, watchers| {
            if router.shard_id_of(*timeline) == shard {
                timelines.push(*timeline);
                for watcher in watchers.iter() {
                    let key = Arc::as_ptr(watcher.session.out()) as usize;
                    let entry = sessions.entry(key).or_insert_with(|| (watcher.session.clone(), BTreeSet::new()));
                    entry.1.insert(*timeline);
                }
            }
            true
        });
        if let Some(shard) = router.shard(shard) {
            shard.rewatch(&timelines);
        }
        for (session, timelines) in sessions.into_values() {
            session.tell(Message::Behind(timelines.into_iter().collect()));
        }
    }

    /// Registers again the watches of shards that have been silent. Called every second.
    pub fn look_for_silence(&self) {
        let now = (self.clock)();
        let mut silent = Vec::new();
        for (shard, seen) in self.seen().iter_mut() {
            if now.saturating_sub(seen.at_ms) > SILENCE_MS {
                seen.at_ms = now;
                silent.push(*shard);
            }
        }
        silent.into_iter().for_each(|shard| self.repair(shard));
    }
}

/// What an inbox entry means to the sessions of its person on this node.
fn tell_of_inbox(user: UserId, entry: &[u8], watchers: &Watchers) {
    let Ok(entry) = Entry::from_bytes(entry) else { return };
    for watcher in watchers.iter().filter(|w| w.session.identity.user == user) {
        match &entry.body {
            Body::ConversationAdded(added) => watcher.session.tell(Message::Follow(added.conversation)),
            Body::ConversationEnded(ended) => watcher.session.tell(Message::Unfollow(ended.conversation)),
            Body::DeviceSignedOut(gone) => watcher.session.tell(Message::SignedOut(gone.device)),
            _ => {}
        }
    }
}

impl HintSink for Watches {
    fn on_hints(&self, shard: ShardId, count: u64, hints: &[Hint]) {
        if self.drop_hints.load(Ordering::Relaxed) {
            return;
        }
        let now = (self.clock)();
        let mut seen = self.seen();
        let known = seen.entry(shard).or_insert(Seen { count: 0, at_ms: now });
        // Missing ones are noticed here or at the next beat; these are good either way.
        if known.count + hints.len() as u64 == count {
            known.count = count;
        }
        known.at_ms = now;
        drop(seen);
        for hint in hints {
            self.hand_on(hint);
        }
    }

    fn on_beat(&self, shard: ShardId, count: u64) {
        let now = (self.clock)();
        let mut seen = self.seen();
        let known = seen.entry(shard).or_insert(Seen { count: 0, at_ms: now });
        known.at_ms = now;
        let gap = known.count != count;
        known.count = count;
        drop(seen);
        if gap {
            self.repair(shard);
        }
    }
}
