//! How fast replicas that are far behind are brought up to date.
//!
//! What they lack costs the leader's node to read and send, and theirs to write and apply; whoever writes meanwhile must
//! not wait for it. So one shard of a node sends at a time, on the lane of snapshots, and at a rate that falls while
//! people's batches take longer than they use to, and rises while they do not. However busy the node, the rate stays
//! above twice that at which new entries come: who is behind gets nearer.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use magpie_protocol::ShardId;
use tokio::time::Instant;

use crate::log::ShardLog;

/// A replica that lacks no more entries than this is not held back, and may become a voter.
pub(super) const BEHIND_MAX: u64 = 256;
/// Bytes of entries that go at a time to a replica that is further behind.
const PIECE_BYTES: usize = 128 * 1024;
/// A group whose next entry waits for this long needs every replica that it can get.
const STUCK: Duration = Duration::from_secs(1);
/// For so long such a replica may hear nothing: it stands for election soon after.
const SILENCE: Duration = Duration::from_millis(50);

/// Bytes a second to begin with, and at least.
const FIRST: f64 = 8e6;
const LEAST: f64 = 1e6;
/// How much more than comes anew is sent at least.
const GAIN: f64 = 2.0;
/// How often the rate is looked at, and by what it then changes.
const WINDOW: Duration = Duration::from_millis(200);
const UP: f64 = 1.1;
const DOWN: f64 = 0.7;
/// A batch takes too long when it takes so much longer than usual; what is shorter than this is never too long.
const LONGER: f64 = 1.5;
const SHORT: Duration = Duration::from_millis(2);
/// A turn that is not used for this long is over.
const TURN: Duration = Duration::from_millis(150);
/// Nothing was sent for this long: what batches take is what they use to take.
const QUIET: Duration = Duration::from_secs(1);
/// What is usual is the average of the last batches, the newest counting most: older ones are forgotten by halves.
const ROUNDS: u64 = 4_096;

/// The brake of a node. Clones share it.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rounds: AtomicU64,
    round_micros: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Bytes a second, and the most of it.
    rate: f64,
    most: f64,
    /// Bytes that may go at once; less than none after a piece that was longer than that.
    may: f64,
    filled: Instant,
    turn: Option<(ShardId, Instant)>,
    sent: Option<Instant>,
    /// What a batch takes when nothing is sent, in microseconds.
    usual: Option<f64>,
    window: Instant,
    /// Bytes that the node's log had taken when the window began.
    written: u64,
}

impl Pace {
    /// A brake that never lets more go than so many bytes a second.
    pub fn new(most: u64) -> Self {
        let (now, most) = (Instant::now(), (most as f64).max(1.0));
        let inner = Inner {
            rate: FIRST.min(most),
            most,
            may: 0.0,
            filled: now,
            turn: None,
            sent: None,
            usual: None,
            window: now,
            written: 0,
        };
        Self(Arc::new(Shared { rounds: AtomicU64::new(0), round_micros: AtomicU64::new(0), inner: Mutex::new(inner) }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch of people's commands was under way for so long.
    pub fn note_round(&self, took: Duration) {
        let micros = self.0.round_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        if self.0.rounds.fetch_add(1, Ordering::Relaxed) >= ROUNDS {
            self.0.rounds.store(ROUNDS / 2, Ordering::Relaxed);
            self.0.round_micros.store(micros / 2, Ordering::Relaxed);
        }
    }

    /// How long until the shard may send its next piece; none while another one has its turn. `written` is what the
    /// node's log has taken so far, in bytes.
    pub(super) fn wait(&self, shard: ShardId, written: u64) -> Option<Duration> {
        let now = Instant::now();
        let mut inner = self.lock();
        self.look(&mut inner, now, written);
        if inner.turn.is_some_and(|(other, used)| other != shard && now - used < TURN) {
            return None;
        }
        inner.turn = Some((shard, now));
        Some(inner.debt(now))
    }

    /// Whether a piece of so many bytes of the shard's may go now; it is then counted as sent.
    pub(super) fn take(&self, shard: ShardId, bytes: usize) -> bool {
        let now = Instant::now();
        let mut inner = self.lock();
        let mine = inner.turn.is_some_and(|(turn, _)| turn == shard);
        if !mine || inner.debt(now) > Duration::ZERO {
            return false;
        }
        inner.turn = Some((shard, now));
        inner.spend(bytes, now);
        true
    }

    /// Returns when a part of a snapshot may go, which is then counted as sent.
    pub(super) async fn part(&self, bytes: usize, written: u64) {
        loop {
            let debt = {
                let now = Instant::now();
                let mut inner = self.lock();
                self.look(&mut inner, now, written);
                let debt = inner.debt(now);
                if debt.is_zero() {
                    return inner.spend(bytes, now);
                }
                debt
            };
            tokio::time::sleep(debt).await;
        }
    }

    /// Ends the window if it is over.
    fn look(&self, inner: &mut Inner, now: Instant, written: u64) {
        let window = now - inner.window;
        if window < WINDOW {
            return;
        }
        let (rounds, micros) =
            (self.0.rounds.swap(0, Ordering::Relaxed), self.0.round_micros.swap(0, Ordering::Relaxed));
        let took = (rounds > 0).then(|| micros as f64 / rounds as f64);
        let anew = written.saturating_sub(inner.written) as f64 / window.as_secs_f64();
        let fresh = inner.sent.is_none_or(|sent| now - sent > QUIET);
        // Who sends a snapshot may have asked a while ago.
        (inner.window, inner.written) = (now, written.max(inner.written));
        if fresh {
            // The window goes back to when something was last sent: what came anew meanwhile says nothing.
            inner.usual = took.or(inner.usual);
            inner.rate = FIRST.min(inner.most);
            return;
        }
        let usual = inner.usual.unwrap_or_default().max(SHORT.as_micros() as f64);
        let slower = took.is_some_and(|took| took > LONGER * usual);
        let least = (GAIN * anew).max(LEAST).min(inner.most);
        inner.rate = (inner.rate * if slower { DOWN } else { UP }).clamp(least, inner.most);
    }
}

impl Inner {
    /// How long until something may go.
    fn debt(&mut self, now: Instant) -> Duration {
        let since = (now - self.filled).as_secs_f64();
        self.filled = now;
        // What was not used is no right to more later.
        self.may = (self.may + since * self.rate).min(0.0);
        Duration::from_secs_f64(-self.may / self.rate)
    }

    fn spend(&mut self, bytes: usize, now: Instant) {
        self.may -= bytes as f64;
        self.sent = Some(now);
    }
}

/// The brake on one group. Clones share it.
#[derive(Clone)]
pub(super) struct Brake {
    log: Arc<ShardLog>,
    pace: Pace,
    standing: Arc<Mutex<Standing>>,
}

/// How a group stands, as its leader sees it.
#[derive(Debug, Default)]
struct Standing {
    /// A majority is near the end of the log.
    near: bool,
    applied: u64,
    /// Since when the entry after that waits; one that was near may be gone.
    waits: Option<Instant>,
}

impl Brake {
    pub(super) fn new(log: Arc<ShardLog>, pace: Pace) -> Self {
        Self { log, pace, standing: Arc::default() }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group stands so: whether a majority is near the end of the log, which is here, and how much is applied.
    pub(super) fn note(&self, near: bool, last: u64, applied: u64) {
        let mut standing = self.standing();
        if applied != standing.applied || applied >= last {
            standing.waits = None;
        }
        if applied < last {
            standing.waits.get_or_insert_with(Instant::now);
        }
        (standing.near, standing.applied) = (near, applied);
    }

    /// Whether a replica that lacks the entries from here on is held back: far behind, and the group goes on without
    /// it.
    pub(super) fn holds(&self, from: u64) -> bool {
        let last = self.log.last().map_or(0, |last| last.index);
        let goes_on = |standing: &Standing| standing.near && standing.waits.is_none_or(|since| since.elapsed() < STUCK);
        from + BEHIND_MAX < last && goes_on(&self.standing())
    }

    /// How many bytes are to be read for such a replica, a while later. Its leader must not be silent for long: where
    /// nothing may go yet, next to nothing is read, and [`Brake::take`] says no.
    pub(super) async fn piece(&self) -> usize {
        let wait = self.pace.wait(self.log.shard(), self.log.written_bytes());
        tokio::time::sleep(wait.unwrap_or(SILENCE).min(SILENCE)).await;
        if wait.is_some_and(|wait| wait <= SILENCE) { PIECE_BYTES } else { 1 }
    }

    /// Whether these bytes of entries may go to such a replica now.
    pub(super) fn take(&self, bytes: usize) -> bool {
        self.pace.take(self.log.shard(), bytes)
    }

    /// Returns when a part of a snapshot may go.
    pub(super) async fn part(&self, bytes: usize) {
        self.pace.part(bytes, self.log.written_bytes()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId::new(1);
    const OTHER: ShardId = ShardId::new(2);

    /// Sends pieces for so long while batches take this long and the log grows at this rate; bytes a second that went.
    async fn rate(pace: &Pace, seconds: u64, round: Duration, anew: u64) -> f64 {
        let (began, before, mut bytes) = (Instant::now(), pace.lock().written, 0);
        while began.elapsed() < Duration::from_secs(seconds) {
            pace.note_round(round);
            let written = before + (began.elapsed().as_secs_f64() * anew as f64) as u64;
            let wait = pace.wait(SHARD, written).unwrap_or_default();
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
            bytes += if pace.take(SHARD, 100_000) { 100_000 } else { 0 };
        }
        f64::from(bytes) / seconds as f64
    }

    async fn quiet(pace: &Pace, round: Duration) {
        for _ in 0..20 {
            pace.note_round(round);
            tokio::time::sleep(WINDOW).await;
            pace.look(&mut pace.lock(), Instant::now(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_rises_while_nobody_waits_longer_and_never_over_its_limit() {
        let pace = Pace::new(20_000_000);
        quiet(&pace, Duration::from_millis(5)).await;
        let first = rate(&pace, 1, Duration::from_millis(5), 0).await;
        assert!((FIRST * 0.8..FIRST * 1.8).contains(&first), "{first}");
        rate(&pace, 5, Duration::from_millis(5), 0).await;
        let later = rate(&pace, 5, Duration::from_millis(5), 0).await;
        assert!((15e6..20.1e6).contains(&later), "{later}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_falls_while_batches_take_longer_but_not_below_what_comes_anew() {
        let pace = Pace::new(64_000_000);
        quiet(&pace, Duration::from_millis(5)).await;
        rate(&pace, 4, Duration::from_millis(9), 0).await;
        let slow = rate(&pace, 4, Duration::from_millis(9), 0).await;
        assert!((LEAST * 0.8..LEAST * 1.2).contains(&slow), "{slow}");
        rate(&pace, 4, Duration::from_millis(9), 5_000_000).await;
        let gaining = rate(&pace, 4, Duration::from_millis(9), 5_000_000).await;
        assert!((9e6..11e6).contains(&gaining), "{gaining}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_shard_has_its_turn_until_it_no_longer_uses_it() {
        let pace = Pace::new(64_000_000);
        assert!(pace.wait(SHARD, 0).is_some());
        assert!(pace.wait(OTHER, 0).is_none() && !pace.take(OTHER, 1));
        assert!(pace.take(SHARD, 100_000));
        assert!(!pace.take(SHARD, 1), "what went is paid for first");
        tokio::time::sleep(TURN).await;
        assert!(pace.wait(OTHER, 0).is_some() && pace.take(OTHER, 1));
        assert!(pace.wait(SHARD, 0).is_none());
    }
}
