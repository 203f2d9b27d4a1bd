//! The node's own table of watches: which of its sessions follow which timeline, and since when they may.
//!
//! A hint is handed on, encoded once, only to sessions whose right was granted at or after the timeline's last
//! change of rights. Where that is not known, the session asks again and its device pulls.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    mem::take,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use magpie_cluster::{Hint, HintSink, Origin, Signal};
use magpie_protocol::{
    Answer, Body, DeviceId, Entry, Frame, ShardId, TimelineId, UserId,
    frame::{conversation::Signalled, sync::Pushed},
};

use crate::{
    chat,
    machine::{MagpieRouter, Query},
    registry::Registry,
    session::{Identity, Message, SessionHandle},
};

/// A session's place in the list of a timeline.
struct Watcher {
    session: SessionHandle,
    /// The right to follow was seen as of this number; `NOT_GRANTED` before it was.
    granted: u64,
}

const NOT_GRANTED: u64 = u64::MAX;
/// So many devices get a hint each encoded for itself, if it is no longer than this: that costs less than a piece of
/// memory that they share.
const FEW: usize = 3;
const FEW_LEN_MAX: usize = 1024;
/// What a hint's frame takes beside its entry, in bytes, about.
const HINT_OVERHEAD: usize = 32;

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watcher {
    fn may_have(&self, hint: &Hint) -> bool {
        self.granted != NOT_GRANTED && self.granted >= hint.rights_before
    }
}

/// Who follows which timeline. No list is empty.
type Table = Registry<TimelineId, Vec<Watcher>>;

/// What one session watches.
#[derive(Default)]
pub struct Watching(HashSet<TimelineId, foldhash::fast::RandomState>);

/// See the module's documentation.
pub struct Watches {
    table: Arc<Table>,
    /// Hints seen of each shard, and when it last gave a sign.
    seen: Arc<Mutex<BTreeMap<ShardId, Seen>>>,
    /// Timelines of which hints come, and that nobody follows here: what was said of that was lost.
    strays: Mutex<BTreeSet<TimelineId>>,
    router: OnceLock<MagpieRouter>,
    clock: magpie_cluster::Clock,
    /// For tests: hints are lost on their way here.
    pub drop_hints: Arc<AtomicBool>,
}

struct Seen {
    count: u64,
    at_ms: u64,
    /// Its watches are not known to be registered.
    torn: bool,
    /// Under way: its sessions ask where they stand when one is done, so no count says that they missed something.
    repairs: u32,
}

impl Seen {
    fn first(at_ms: u64) -> Self {
        Self { count: 0, at_ms, torn: false, repairs: 0 }
    }
}

/// Silence of a shard after which its watches are registered again, in milliseconds.
const SILENCE_MS: u64 = 3_000;

impl Watches {
    /// An empty table.
    pub fn new(clock: magpie_cluster::Clock, drop_hints: Arc<AtomicBool>) -> Self {
        let (table, seen, router) = (Arc::default(), Arc::default(), OnceLock::new());
        Self { table, seen, strays: Mutex::default(), router, clock, drop_hints }
    }

    /// The way to the shards, once they run.
    pub fn set_router(&self, router: MagpieRouter) {
        _ = self.router.set(router);
    }

    /// Puts the session on the timeline's list. It is handed nothing before [`Watches::grant`].
    pub fn enter(&self, watching: &mut Watching, timeline: TimelineId, session: &SessionHandle) {
        if watching.0.insert(timeline) {
            self.table.alter(timeline, Vec::new, |list| {
                list.push(Watcher { session: session.clone(), granted: NOT_GRANTED });
                true
            });
        }
    }

    /// The session may follow the timeline, as its shard said when this was its last change of rights.
    pub fn grant(&self, timeline: TimelineId, session: &SessionHandle, rights: u64) {
        self.table.change(&timeline, |list| {
            list.iter_mut().filter(|w| w.session == *session).for_each(|w| w.granted = rights);
        });
    }

    /// Whether this session of a person may follow the timeline, as far as is known here.
    pub fn is_granted(&self, timeline: TimelineId, me: Identity) -> bool {
        let granted = |w: &Watcher| w.granted != NOT_GRANTED && w.session.identity() == me;
        self.table.look(&timeline, |list| list.iter().any(granted)).unwrap_or(false)
    }

    /// Takes the session off the timeline's list. True when nobody is left on it.
    fn strike(&self, timeline: TimelineId, session: &SessionHandle) -> bool {
        let mut empty = false;
        self.table.alter(timeline, Vec::new, |list| {
            if let Some(at) = list.iter().position(|w| w.session == *session) {
                list.swap_remove(at);
                empty = list.is_empty();
            }
            !list.is_empty()
        });
        empty
    }

    /// Takes the session off the timeline's list.
    pub fn leave_one(&self, watching: &mut Watching, timeline: TimelineId, session: &SessionHandle) {
        if watching.0.remove(&timeline) && self.strike(timeline, session) {
            self.unwatch([timeline]);
        }
    }

    /// Takes the session off every list.
    pub fn leave(&self, watching: &mut Watching, session: &SessionHandle) {
        self.unwatch(watching.0.drain().filter(|timeline| self.strike(*timeline, session)));
    }

    /// Tells the shards of these timelines that no session here follows them.
    fn unwatch(&self, timelines: impl IntoIterator<Item = TimelineId>) {
        let Some(router) = self.router.get() else { return };
        let mut by_shard: BTreeMap<ShardId, Vec<TimelineId>> = BTreeMap::new();
        for timeline in timelines {
            by_shard.entry(router.shard_id_of(timeline)).or_default().push(timeline);
        }
        for (shard, timelines) in by_shard {
            router.unwatch(shard, timelines.clone());
            // A session that came to one of them meanwhile may have said so before this.
            let again: Vec<_> = timelines.into_iter().filter(|it| self.table.look(it, |_| ()).is_some()).collect();
            if !again.is_empty() {
                self.watch_again(shard, again);
            }
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

    /// Hints of one timeline, in order.
    fn hand_on(&self, timeline: TimelineId, hints: &[Hint]) {
        let handed_on = self.table.change(&timeline, |watchers| {
            crate::metrics::count!(crate::metrics::HINTS, (watchers.len() * hints.len()) as u64);
            for hint in hints {
                hand_to(watchers, hint);
                if let TimelineId::Inbox(user) = timeline {
                    tell_of_inbox(user, &hint.entry.0, watchers);
                }
            }
        });
        if handed_on.is_none() {
            lock(&self.strays).insert(timeline);
        }
    }

    /// Registers watches of some timelines of a shard again, and lets the sessions that follow them ask where they stand.
    fn watch_again(&self, shard: ShardId, timelines: Vec<TimelineId>) {
        let Some(router) = self.router.get() else { return };
        let (router, table, seen, now) = (router.clone(), self.table.clone(), self.seen.clone(), (self.clock)());
        tokio::spawn(async move {
            // Watch first, then look.
            let nothing = chat::Query::Heads { reader: UserId::from_bits(0), conversations: Vec::new() };
            match router.watch(shard, timelines.clone(), Query::Chat(nothing)).await {
                Ok(_) => ask_where_they_stand(&table, |timeline| timelines.contains(timeline)),
                Err(error) => {
                    tracing::debug!(%shard, %error, "watches are not registered again yet");
                    lock(&seen).entry(shard).or_insert(Seen::first(now)).torn = true;
                }
            }
        });
    }

    /// Registers the watches of a shard again and lets every session concerned ask where it stands.
    fn repair(&self, shard: ShardId) {
        let Some(router) = self.router.get() else { return };
        metrics::counter!(crate::metrics::HINT_REPAIRS).increment(1);
        let mut timelines = Vec::new();
        self.table.each(|timeline, _| timelines.extend((router.shard_id_of(*timeline) == shard).then_some(*timeline)));
        timelines.sort_unstable();
        let (router, table, seen, now) = (router.clone(), self.table.clone(), self.seen.clone(), (self.clock)());
        lock(&seen).entry(shard).or_insert(Seen::first(now)).repairs += 1;
        tokio::spawn(async move {
            // Watch first, then look.
            let watched = router.rewatch(shard, timelines).await;
            if let Some(seen) = lock(&seen).get_mut(&shard) {
                seen.repairs -= 1;
                seen.torn |= watched.is_err();
            }
            match watched {
                Ok(()) => ask_where_they_stand(&table, |timeline| router.shard_id_of(*timeline) == shard),
                Err(error) => tracing::debug!(%shard, %error, "watches are not registered again yet"),
            }
        });
    }

    /// Registers again the watches of shards that have been silent, or where that failed; ends those that nobody
    /// here needs. Called every second.
    pub fn look_after(&self) {
        let now = (self.clock)();
        let mut torn = Vec::new();
        for (shard, seen) in lock(&self.seen).iter_mut() {
            if take(&mut seen.torn) || now.saturating_sub(seen.at_ms) > SILENCE_MS {
                seen.at_ms = now;
                torn.push(*shard);
            }
        }
        torn.into_iter().for_each(|shard| self.repair(shard));
        let strays = take(&mut *lock(&self.strays));
        self.unwatch(strays.into_iter().filter(|timeline| self.table.look(timeline, |_| ()).is_none()));
    }
}

/// Lets every session that follows one of these timelines ask.
fn ask_where_they_stand(table: &Table, of: impl Fn(&TimelineId) -> bool) {
    // In order, and not in that of the table, which no simulation could repeat.
    let mut sessions: BTreeMap<(DeviceId, u64), (SessionHandle, BTreeSet<TimelineId>)> = BTreeMap::new();
    table.each(|timeline, watchers| {
        for watcher in watchers.iter().filter(|_| of(timeline)) {
            let me = watcher.session.identity();
            let behind = || (watcher.session.clone(), BTreeSet::new());
            sessions.entry((me.device, me.epoch)).or_insert_with(behind).1.insert(*timeline);
        }
    });
    for (session, timelines) in sessions.into_values() {
        session.missed(timelines);
    }
}

/// Hands a hint to those who may have it. None of this waits or comes back to the table.
fn hand_to(watchers: &mut [Watcher], hint: &Hint) {
    let frame = Frame::push(Answer::Pushed(Pushed { timeline: hint.timeline, entry: hint.entry.clone() }));
    let few = watchers.len() <= FEW && hint.entry.0.len() <= FEW_LEN_MAX;
    let shared = std::cell::LazyCell::new(|| frame.to_bytes());
    for watcher in watchers {
        let (session, me) = (&watcher.session, watcher.session.identity());
        if !watcher.may_have(hint) {
            // Its right may have ended with a hint that was lost: it asks again.
            watcher.granted = NOT_GRANTED;
            session.missed([hint.timeline]);
            continue;
        }
        // Its answer says the same, and comes before any later entry.
        if hint.origin != Some(Origin { device: me.device, epoch: me.epoch }) {
            match few {
                true => session.out().push_hint_of_few(hint.timeline, &frame, hint.entry.0.len() + HINT_OVERHEAD),
                false => session.out().push_hint(hint.timeline, &shared),
            }
        }
        let Some(change) = hint.change else { continue };
        let ends = change.user == me.user && !change.granted;
        watcher.granted = if ends { NOT_GRANTED } else { hint.number };
        if ends {
            session.missed([hint.timeline]);
        }
    }
}

/// What an inbox entry means to the sessions of its person on this node.
fn tell_of_inbox(user: UserId, entry: &[u8], watchers: &[Watcher]) {
    let Ok(entry) = Entry::from_bytes(entry) else { return };
    for watcher in watchers.iter().filter(|w| w.session.identity().user == user) {
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
        let mut seen = lock(&self.seen);
        let known = seen.entry(shard).or_insert(Seen::first(now));
        // Missing ones are noticed here or at the next beat; these are good either way.
        if known.count + hints.len() as u64 == count {
            known.count = count;
        }
        known.at_ms = now;
        drop(seen);
        for run in hints.chunk_by(|one, next| one.timeline == next.timeline) {
            self.hand_on(run[0].timeline, run);
        }
    }

    fn on_new_leader(&self, shard: ShardId) {
        self.repair(shard);
    }

    fn on_signal(&self, signal: Signal) {
        let TimelineId::Conversation(conversation) = signal.timeline else { return };
        let (user, kind) = (signal.user, signal.kind);
        let frame = Frame::push(Answer::Signalled(Signalled { conversation, user, kind })).to_bytes();
        self.table.look(&signal.timeline, |list| {
            let hears = |w: &&Watcher| w.granted != NOT_GRANTED && w.session.identity().user != user;
            list.iter().filter(hears).for_each(|w| w.session.out().push_passing(&frame));
        });
    }

    fn on_beat(&self, shard: ShardId, count: u64) {
        let now = (self.clock)();
        let mut seen = lock(&self.seen);
        let known = seen.entry(shard).or_insert(Seen::first(now));
        known.at_ms = now;
        let gap = known.count != count && known.repairs == 0;
        known.count = count;
        drop(seen);
        if gap {
            self.repair(shard);
        }
    }
}
