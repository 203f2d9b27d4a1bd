//! Checkpoints and snapshots: when, and in which order.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{Inner, Shard, lock};
use crate::{
    machine::Machine,
    state::{Frozen, StateError},
};

/// A quiet shard makes a snapshot when it holds back this many times what a busy one writes between two.
const HELD_BACK_FACTOR: u64 = 4;
/// How long after a start the first snapshot is made that only age asks for, in milliseconds.
const AFTER_START_MS: u64 = 3_600 * 1_000;
/// How often a shard looks whether a checkpoint is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl<M: Machine> Shard<M> {
    /// Checkpoints and snapshots the shard as long as it runs.
    pub(crate) async fn keep_checkpoints(self) {
        let mut last_ms = (self.0.node.clock)();
        let age_ms = self.0.limits.snapshot_age_ms;
        // How old the last one is when a node starts is not known: an hour later there is a new one.
        let mut snapshot_ms = last_ms.saturating_sub(age_ms.saturating_sub(AFTER_START_MS));
        while !self.0.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = (self.0.node.clock)();
            let full = lock(&self.0.core).store.dirty_bytes() >= self.0.limits.checkpoint_bytes;
            if !full && now.saturating_sub(last_ms) < self.0.limits.checkpoint_ms {
                continue;
            }
            last_ms = now;
            if !self.0.log.has_space() {
                continue;
            }
            self.checkpoint().await;
            let old = now.saturating_sub(snapshot_ms) >= age_ms && self.applied_index() > self.snapshot_index();
            if self.snapshot_if_due(old).await {
                snapshot_ms = now;
            }
        }
    }

    /// Writes what changed since the last checkpoint; returns when it is in the state store.
    pub(crate) async fn checkpoint(&self) {
        if self.0.cuts.wait() {
            return;
        }
        let frozen = lock(&self.0.core).store.freeze();
        let Some(frozen) = frozen else { return };
        let (done, written) = tokio::sync::oneshot::channel();
        let inner = self.0.clone();
        self.0.node.background.run(move || {
            inner.write_checkpoint(&frozen);
            _ = done.send(());
        });
        if written.await.is_err() {
            tracing::warn!(shard = %self.0.id, "the storage thread stopped before a checkpoint");
        }
    }

    /// The same, at once and on this thread: at the end.
    pub(crate) fn checkpoint_now(&self) {
        let mut core = lock(&self.0.core);
        core.store.release();
        let frozen = core.store.freeze();
        drop(core);
        if let Some(frozen) = frozen {
            self.0.write_checkpoint(&frozen);
        }
    }

    /// Checkpoints, makes a snapshot and cuts the log behind it; returns when the snapshot is durable.
    pub async fn snapshot_now(&self) -> Result<(), crate::AskError> {
        let shard = self.clone();
        _ = self.spawn(async move { shard.checkpoint().await }).await;
        let before = self.snapshot_index();
        let consensus = self.group().ok_or(crate::AskError::Unavailable)?;
        consensus.snapshot().await.map_err(|_| crate::AskError::Unavailable)?;
        for _ in 0..2_000 {
            if self.snapshot_index() > before || self.applied_index() == before {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(crate::AskError::Unavailable)
    }

    fn snapshot_index(&self) -> u64 {
        lock(&self.0.snapshot).as_ref().map_or(0, |file| file.applied.index())
    }

    /// A new snapshot is due when the log behind the last has outgrown it, so that writing is amplified by a small
    /// constant; and when the few entries of a quiet shard hold back much of the log that all share.
    /// True when one was begun.
    async fn snapshot_if_due(&self, old: bool) -> bool {
        let enough = self.0.limits.snapshot_bytes_min.max(self.0.snapshot_len.load(Ordering::Relaxed));
        let held_back = self.0.log.bytes_held_back();
        if self.0.log.bytes_since_purge() < enough && held_back < HELD_BACK_FACTOR * enough && !old {
            return false;
        }
        let Some(consensus) = self.group() else { return false };
        let begun = consensus.snapshot().await;
        if let Err(error) = &begun {
            tracing::warn!(shard = %self.0.id, %error, "no snapshot was made");
        }
        begun.is_ok()
    }
}

impl<M: Machine> Inner<M> {
    pub(super) fn write_checkpoint(&self, frozen: &Frozen) {
        let began = Instant::now();
        let core = lock(&self.core);
        if !core.store.is_freezing(frozen) {
            // Another replica's snapshot came between.
            return;
        }
        let base = core.store.base().clone();
        drop(core);
        let written = frozen.writes(&*base).and_then(|(writes, applied)| {
            let records = writes.len() as u64;
            base.commit(writes, &applied).map(|()| (records, applied))
        });
        match written {
            Ok((records, applied)) => {
                let mut core = lock(&self.core);
                core.store.thawed();
                let cached = core.store.cached_bytes();
                drop(core);
                metrics::gauge!(crate::metrics::CACHE_BYTES, "shard" => self.id.to_string()).set(cached as f64);
                metrics::counter!(crate::metrics::CHECKPOINT_RECORDS).increment(records);
                metrics::histogram!(crate::metrics::CHECKPOINT_SECONDS).record(began.elapsed().as_secs_f64());
                tracing::debug!(shard = %self.id, records, index = applied.index(), elapsed = ?began.elapsed(), "checkpoint");
            }
            Err(error @ (StateError::Io(_) | StateError::Damaged { .. })) => {
                // Truth is in the log: a state store that cannot be written is rebuilt.
                self.state_failed(&error.to_string());
            }
        }
    }
}
