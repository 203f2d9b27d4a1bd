//! How the nodes are: each asks every other one once a second.
//!
//! From the answers it knows who is up, how far its own clock is from those of the others, and whether it could win an
//! election: a node that could not does not stand for one, and one whose clock is off leads nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bincode::{Decode, Encode};
use magpie_protocol::{NodeId, ShardId};
use tokio::time::Instant;

use super::placement::Seen;
use crate::{
    Clock, Machine, Router, Shard, StorageConfig,
    remote::Request,
    shard::{audit::Audited, hosting::LAG_MAX},
};

/// How often every other node is asked.
const EVERY: Duration = Duration::from_secs(1);
/// A node that has not answered for this long is taken to be down.
const DOWN_AFTER: Duration = Duration::from_millis(2_500);
/// How long a node's answer may take: entries are sent again that are not answered within a heartbeat's interval, 75 ms.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(50);
/// A busy second does not make a node distant: what it takes at the least grows by this much a second at most.
const ROUND_TRIP_GROWS: f64 = 1.25;
/// How far a clock may be from the majority's.
const CLOCK_OFF_MAX_MS: u64 = 1_000;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Facts {
    pub clock_ms: u64,
    /// What its build can do.
    pub level: u32,
    /// Its clock is off: it leads nothing.
    pub astray: bool,
    /// Its disk is full: it takes no commands, and others should lead.
    pub full: bool,
    pub sessions: u64,
    pub free_bytes: u64,
    /// The shards that it holds.
    pub shards: Vec<Held>,
}

/// What a node says of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Held {
    pub shard: ShardId,
    pub leads: bool,
    pub applied: u64,
    /// What its state came to when the replicas were last compared.
    pub audited: Option<Audited>,
}

/// What is known of another node.
#[derive(Debug, Clone)]
pub struct Beat {
    /// When it last answered.
    pub at: Instant,
    /// How far its clock is before this one's, in milliseconds, about.
    pub ahead_ms: i64,
    /// How long a question to it and the answer take, at the least of late.
    pub round_trip: Duration,
    pub facts: Facts,
    /// How far this node's clock was from one that cannot be set, when it was compared.
    set_ms: i64,
}

impl Beat {
    /// Whether the node is up, as far as is known.
    pub fn is_up(&self) -> bool {
        self.at.elapsed() < DOWN_AFTER
    }
}

/// Whether the disk has no room for commands.
fn is_full<M: Machine>(shards: &[Shard<M>]) -> bool {
    shards.first().is_some_and(|shard| !shard.has_space())
}

/// See the module's documentation. Clones share it.
#[derive(Clone)]
pub struct Pulse(Arc<Inner>);

struct Inner {
    began: Instant,
    clock: Clock,
    astray: Arc<AtomicBool>,
    beats: Mutex<BTreeMap<NodeId, Beat>>,
    sessions: OnceLock<Box<dyn Fn() -> usize + Send + Sync>>,
    /// A node that is silent for this long is given up: its replicas are made anew elsewhere.
    lost_after: Duration,
    audit_every: Duration,
    /// What this build can do.
    level: u32,
}

impl Pulse {
    pub(crate) fn new(clock: Clock, astray: Arc<AtomicBool>, config: &StorageConfig) -> Self {
        let (began, beats, sessions) = (Instant::now(), Mutex::default(), OnceLock::new());
        let StorageConfig { lost_after, audit_every, level, .. } = *config;
        Self(Arc::new(Inner { began, clock, astray, beats, sessions, lost_after, audit_every, level }))
    }

    /// What this build can do.
    pub(crate) fn level(&self) -> u32 {
        self.0.level
    }

    /// Who counts this node's sessions. Set once.
    pub fn set_sessions(&self, count: impl Fn() -> usize + Send + Sync + 'static) {
        _ = self.0.sessions.set(Box::new(count));
    }

    fn beats(&self) -> MutexGuard<'_, BTreeMap<NodeId, Beat>> {
        self.0.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the others.
    pub fn others(&self) -> BTreeMap<NodeId, Beat> {
        self.beats().clone()
    }

    /// What this node says of itself.
    pub fn mine<M: Machine>(&self, shards: &[Shard<M>]) -> Facts {
        let held = |shard: &Shard<M>| Held {
            shard: shard.id(),
            leads: shard.leadership().leads,
            applied: shard.applied_index(),
            audited: shard.audited(),
        };
        Facts {
            clock_ms: (self.0.clock)(),
            level: self.0.level,
            astray: self.0.astray.load(Ordering::Relaxed),
            full: is_full(shards),
            sessions: self.0.sessions.get().map_or(0, |count| count() as u64),
            free_bytes: shards.first().map_or(0, Shard::free_bytes),
            shards: shards.iter().filter(|shard| shard.is_hosted()).map(held).collect(),
        }
    }

    /// What placement needs to know.
    pub(crate) fn seen<M: Machine>(&self, router: &Router<M>) -> Seen {
        let mut seen = Seen { resting: router.wishes().now(), ..Seen::default() };
        let mine = (router.me(), self.mine(router.all_shards()));
        let beats = self.beats();
        let up = beats.iter().filter(|(_, beat)| beat.is_up()).map(|(node, beat)| (*node, beat.facts.clone()));
        for (node, facts) in up.chain([mine]) {
            seen.up.insert(node);
            if facts.astray || facts.full {
                seen.unfit.insert(node);
            }
            let leads = facts.shards.iter().filter(|held| held.leads);
            seen.leaders.extend(leads.map(|held| (held.shard, node)));
        }
        let up: Vec<Held> =
            beats.iter().filter(|(_, beat)| beat.is_up()).flat_map(|(_, b)| b.facts.shards.clone()).collect();
        let mine = self.mine(router.all_shards()).shards;
        let newest = |shard| up.iter().chain(&mine).filter(|h| h.shard == shard).map(|h| h.applied).max().unwrap_or(0);
        for (node, beat) in beats.iter().filter(|(_, beat)| beat.is_up()) {
            let lagging = beat.facts.shards.iter().filter(|held| held.applied + LAG_MAX < newest(held.shard));
            seen.lagging.extend(lagging.map(|held| (held.shard, *node)));
        }
        let members = router.system().now();
        for node in members.iter().flat_map(|system| system.nodes.keys()) {
            let silent = beats.get(node).map_or(self.0.began, |beat| beat.at).elapsed();
            if !seen.up.contains(node) && silent >= self.0.lost_after {
                seen.lost.insert(*node);
            }
        }
        seen
    }

    /// Asks the others, once a second.
    pub(crate) async fn run<M: Machine>(self, router: Router<M>) {
        // One shard after the other, so that they are not all read at once.
        let shards = router.all_shards();
        let due = |at: usize| self.0.audit_every.mul_f64((at + 1) as f64 / shards.len() as f64);
        let mut audits: Vec<Instant> = (0..shards.len()).map(|at| Instant::now() + due(at)).collect();
        loop {
            let peers: BTreeSet<NodeId> = router.system().now().iter().flat_map(|s| s.peers().into_keys()).collect();
            let others = peers.iter().copied().filter(|node| *node != router.me());
            let asked = others.map(|node| tokio::time::timeout(EVERY, self.ask(&router, node)));
            let asking = async { futures_util::future::join_all(asked).await };
            _ = futures_util::future::join(asking, tokio::time::sleep(EVERY)).await;
            self.beats().retain(|node, _| peers.contains(node));
            self.look_at_clocks(peers.len());
            self.look_at_elections(&router);
            if self.is_unfit(&router) {
                self.give_leads_away(&router).await;
            }
            self.compare(&router);
            for (shard, due) in shards.iter().zip(&mut audits).filter(|(_, due)| Instant::now() >= **due) {
                *due += self.0.audit_every;
                shard.audit();
            }
        }
    }

    /// Whether the replicas here are as those elsewhere.
    fn compare<M: Machine>(&self, router: &Router<M>) {
        let beats = self.others();
        for shard in router.all_shards().iter().filter(|shard| shard.audited().is_some()) {
            let held = beats.values().flat_map(|beat| &beat.facts.shards).filter(|held| held.shard == shard.id());
            let others: Vec<Audited> = held.filter_map(|held| held.audited).collect();
            shard.compare(&others);
        }
    }

    fn is_unfit<M: Machine>(&self, router: &Router<M>) -> bool {
        // Where all are full somebody must lead all the same: what is there can be read.
        let roomy = || self.beats().values().any(|beat| beat.is_up() && !beat.facts.full);
        self.0.astray.load(Ordering::Relaxed) || (is_full(router.all_shards()) && roomy())
    }

    /// A node whose clock is off or whose disk is full lets others lead. The steward cannot tell it to: it may be the
    /// steward.
    async fn give_leads_away<M: Machine>(&self, router: &Router<M>) {
        let others = self.others();
        for shard in router.all_shards().iter().filter(|shard| shard.is_elected()) {
            let Some(members) = shard.group().map(|group| group.members()) else { continue };
            let fit = |node: &NodeId| {
                others.get(node).is_some_and(|beat| beat.is_up() && !beat.facts.astray && !beat.facts.full)
            };
            // One that lags would refuse.
            let newest =
                members.voters.iter().copied().filter(fit).max_by_key(|node| members.matched.get(node).copied());
            if let Some(to) = newest
                && let Err(error) = shard.hand_over(router, to).await
            {
                tracing::warn!(shard = %shard.id(), %to, %error, "the lead is not handed over yet");
            }
        }
    }

    /// How far the clock is from one that cannot be set.
    fn set_ms(&self) -> i64 {
        (self.0.clock)() as i64 - self.0.began.elapsed().as_millis() as i64
    }

    async fn ask<M: Machine>(&self, router: &Router<M>, node: NodeId) {
        let (asked, before, set_ms) = (Instant::now(), (self.0.clock)(), self.set_ms());
        let Ok(facts) = router.ask_node(node, Request::Facts).await.and_then(|response| response.facts()) else {
            return;
        };
        let now = (self.0.clock)();
        let ahead_ms = facts.clock_ms as i64 - before.midpoint(now) as i64;
        if self.set_ms().abs_diff(set_ms) > CLOCK_OFF_MAX_MS / 2 {
            // It was set meanwhile: this says nothing of either.
            return;
        }
        let (mut beats, took) = (self.beats(), asked.elapsed());
        let known = beats.get(&node).map_or(ROUND_TRIP_MAX / 4, |beat| beat.round_trip);
        let round_trip = took.min(known.mul_f64(ROUND_TRIP_GROWS));
        if round_trip > ROUND_TRIP_MAX && known <= ROUND_TRIP_MAX {
            tracing::warn!(%node, ms = round_trip.as_millis() as u64, max_ms = ROUND_TRIP_MAX.as_millis() as u64,
                "a node is too far away for replicas: their leaders will change again and again; keep nodes nearer");
        }
        beats.insert(node, Beat { at: Instant::now(), ahead_ms, round_trip, facts, set_ms });
    }

    /// This node's clock is off when it is far from that of most: the middle of all.
    fn look_at_clocks(&self, nodes: usize) {
        // What was found out before this node's clock was set is true of the clock that it was.
        let set_ms = self.set_ms();
        let beats = self.beats();
        let up = beats.values().filter(|beat| beat.is_up());
        let mut ahead: Vec<i64> = up.map(|beat| beat.ahead_ms - (set_ms - beat.set_ms)).collect();
        drop(beats);
        ahead.push(0);
        if nodes == 0 || ahead.len() <= nodes / 2 {
            // Nobody knows what the majority's is, or who that would be.
            return;
        }
        ahead.sort_unstable();
        let middle = ahead.get(ahead.len() / 2).copied().unwrap_or(0);
        let other = ahead.get((ahead.len() - 1) / 2).copied().unwrap_or(0);
        // Of two in the middle the nearer one: a node is not astray because of a single other.
        let off = middle.unsigned_abs().min(other.unsigned_abs());
        let astray = off > CLOCK_OFF_MAX_MS;
        if self.0.astray.swap(astray, Ordering::Relaxed) != astray {
            if astray {
                tracing::error!(off_ms = off, "this node's clock is off: it leads nothing until it is set");
            } else {
                tracing::info!("this node's clock is right again");
            }
        }
    }

    /// Who reaches no majority of a shard's replicas, or should not lead, does not stand for election.
    fn look_at_elections<M: Machine>(&self, router: &Router<M>) {
        let connected: BTreeSet<NodeId> = router.connected().into_iter().collect();
        let unfit = self.is_unfit(router);
        for group in router.all_shards().iter().filter_map(Shard::group) {
            let voters = group.members().voters;
            let reached = voters.iter().filter(|node| **node == router.me() || connected.contains(node)).count();
            group.set_electable(!unfit && reached > voters.len() / 2);
        }
    }
}
