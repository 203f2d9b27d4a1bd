//! Handing batches to consensus, one at a time: while one is on its way the next one fills.

use std::{collections::VecDeque, sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::{OpenBatch, Shard, Waiter, lock};
use crate::{AskError, consensus::ProposeError, machine::Machine};

/// A round of consensus is taken to last as long as about so many before it did.
const ROUNDS: u32 = 8;

/// How long a stop waits for what was accepted.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How far a clock may jump between two looks before it is taken to be wrong. A shard's time never goes back.
const JUMP_MAX_MS: u64 = 1_000;

/// How long a node that is alone goes by the time before a jump: one that is set back again has spoilt nothing.
const DOUBT: Duration = Duration::from_secs(10);

/// A clock beside another that cannot be set.
struct Steady {
    wall_ms: u64,
    at: Instant,
    /// Since when it is off.
    doubted: Option<Instant>,
}

impl Steady {
    fn new(wall_ms: u64) -> Self {
        Self { wall_ms, at: Instant::now(), doubted: None }
    }

    /// What time it is, and whether the clock has jumped. In company the others say which time is right: it is taken as
    /// it is. Alone the old time goes on for a while.
    fn look(&mut self, wall_ms: u64, alone: bool) -> (u64, bool) {
        let now = Instant::now();
        let expected = self.wall_ms + (now - self.at).as_millis() as u64;
        let jumped = wall_ms.abs_diff(expected) > JUMP_MAX_MS;
        if jumped && alone && now - *self.doubted.get_or_insert(now) < DOUBT {
            return (expected, true);
        }
        *self = Self { wall_ms, at: now, doubted: None };
        (wall_ms, jumped)
    }
}

/// What is to be handed on.
enum Next<M: Machine> {
    /// This one; so many are behind it.
    Batch(OpenBatch<M>, u32),
    /// Nothing now.
    None,
    /// Nothing any more.
    Never,
}

impl<M: Machine> Shard<M> {
    /// Hands on batches as long as the shard runs.
    pub(crate) async fn drive(self) {
        let (mut leadership, mut round) = (self.follow_leadership(), Duration::ZERO);
        let (mut steady, alone) = (Steady::new((self.0.node.clock)()), self.0.node.transport.is_none());
        // Ids only tell this process's batches apart from those of other nodes, and of processes before it.
        let mut id = xxh3_64(&[self.0.me.bits().to_le_bytes(), (self.0.node.clock)().to_le_bytes()].concat());
        loop {
            let (next, behind) = match self.next_batch() {
                Next::Batch(batch, behind) => (batch, behind),
                Next::None => {
                    self.0.ready.notified().await;
                    continue;
                }
                Next::Never => return,
            };
            let OpenBatch { builder, waiters, .. } = next;
            self.0.waiting_commands.fetch_sub(waiters.len() as u64, Ordering::Relaxed);
            let (now_ms, jumped) = steady.look((self.0.node.clock)(), alone);
            if jumped && !alone {
                // Until the others' clocks say that this one is right all the same.
                self.0.node.astray.store(true, Ordering::Relaxed);
            }
            let (lead, group) = (self.lead(), self.group());
            let (Ok(_), Some(group)) = (&lead, group) else {
                let error = lead.err().unwrap_or(AskError::NotLeader { leader: None });
                waiters.into_iter().for_each(|waiter| waiter.fail(error.clone()));
                continue;
            };
            let handed_on = Instant::now();
            // What comes now joins the last of those behind it, and waits for the others.
            self.0.waits.note(round * behind.saturating_sub(1));
            id = id.wrapping_add(1);
            lock(&self.0.core).waiting.insert(id, waiters);
            let proposed = group.propose(builder.finish(id, now_ms));
            // Whoever stops leading may never learn what became of it.
            let done = tokio::select! {
                biased;
                done = proposed => done,
                _ = leadership.wait_for(|now| !now.leads) => Err(ProposeError::LostLead),
            };
            if let Err(error) = done {
                self.abandon(id, &error);
            }
            let took = handed_on.elapsed();
            self.0.node.pace.note_round(took);
            // On average: a single sync that takes long is no load.
            round = (round * (ROUNDS - 1) + took) / ROUNDS;
        }
    }

    fn next_batch(&self) -> Next<M> {
        let mut open = lock(&self.0.open);
        if open.is_empty() {
            return if self.0.stopping.load(Ordering::Relaxed) { Next::Never } else { Next::None };
        }
        let next = if self.0.paused.load(Ordering::Relaxed) { None } else { open.pop_front() };
        next.map_or(Next::None, |batch| Next::Batch(batch, open.len() as u32))
    }

    fn abandon(&self, id: u64, error: &ProposeError) {
        tracing::warn!(shard = %self.0.id, %error, "a batch was not applied");
        let waiters: VecDeque<Waiter<M>> = lock(&self.0.core).waiting.remove(&id).unwrap_or_default();
        waiters.into_iter().for_each(|waiter| waiter.fail(AskError::Unknown));
    }

    /// Tells this node's sessions, through their sink, each time that a leader begins.
    pub(crate) async fn watch_leader(self) {
        let (mut leadership, mut known) = (self.follow_leadership(), 0);
        while let Ok(now) = leadership.wait_for(|now| now.leader.is_some() && now.term > known).await.map(|now| *now) {
            known = now.term;
            tracing::info!(shard = %self.0.id, leader = ?now.leader.map(|node| node.to_string()), term = known, "a leader begins");
            if let Some(sink) = self.sink() {
                sink.on_new_leader(self.0.id);
            }
        }
    }

    /// Lets go of the state's files, and serves nothing more: handles to the shard may outlive it.
    pub(crate) fn let_go(&self) {
        let mut core = lock(&self.0.core);
        core.failed.get_or_insert_with(|| "the node has ended".to_owned());
        core.store.let_go();
    }

    /// Refuses new commands, and returns when those accepted are applied; or when that takes too long, because the
    /// other replicas do not answer: what becomes of them is then not known.
    pub(crate) async fn drain(self) {
        {
            let _open = lock(&self.0.open);
            self.0.stopping.store(true, Ordering::Relaxed);
        }
        self.0.ready.notify_one();
        self.0.outbox_ready.notify_one();
        let deadline = tokio::time::Instant::now() + DRAIN_MAX;
        while (!lock(&self.0.open).is_empty() || !lock(&self.0.core).waiting.is_empty())
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.end_group().await;
    }
}
