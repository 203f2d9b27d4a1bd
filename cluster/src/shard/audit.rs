//! Whether the replicas of a shard are equal.
//!
//! Now and then the leader puts a mark into the log. Every replica adds up its state as it is behind that entry, off
//! the hot path; nodes tell each other the sums with their facts, and a replica that differs from most others stops.

use std::{collections::BTreeMap, sync::Mutex};

use bincode::{Decode, Encode};
use tokio::sync::{Notify, oneshot};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Inner, Shard, Waiter, lock};
use crate::{
    machine::Machine,
    state::{Frozen, StateBase, StateError, base, key::table},
};

/// What a replica's state comes to behind an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Audited {
    pub index: u64,
    pub sum: u64,
}

/// Audits of one shard.
#[derive(Default)]
pub(crate) struct Audits {
    begun: Mutex<Option<Frozen>>,
    ready: Notify,
    last: Mutex<Option<Audited>>,
}

impl Audits {
    /// The state behind a mark. None while a checkpoint is under way: this replica sits this one out.
    pub(super) fn begin(&self, frozen: Option<Frozen>) {
        if frozen.is_some() {
            *lock(&self.begun) = frozen;
            self.ready.notify_one();
        }
    }
}

/// The sum of all records and entries, the same however they are cut into stored records.
fn add_up(base: &dyn StateBase) -> Result<u64, StateError> {
    let mut sum = 0u64;
    base.scan(&mut |key, stored| {
        let payload = base::unseal(key, stored)?;
        let timeline = key.get(2) == Some(&table::TIMELINE);
        let Some((front, last)) = key.split_last_chunk::<8>().filter(|_| timeline) else {
            sum = sum.wrapping_add(xxh3_64_with_seed(payload, xxh3_64(key)));
            return Ok(());
        };
        let entries = base::decode_entries(&base::hex(key), payload.to_vec())?;
        let first = u64::from_be_bytes(*last) + 1 - entries.len() as u64;
        for (number, entry) in (first..).zip(entries) {
            sum = sum.wrapping_add(xxh3_64_with_seed(&entry, xxh3_64(front).wrapping_add(number)));
        }
        Ok(())
    })?;
    Ok(sum)
}

impl<M: Machine> Shard<M> {
    /// Asks every replica what its state comes to.
    pub fn audit(&self) {
        if self.lead().is_ok() && !self.0.cuts.wait() {
            self.enqueue(|builder| builder.audit(), Waiter::Delivered(Box::new(|_| ())));
        }
    }

    /// What this replica's state came to at the last mark.
    pub fn audited(&self) -> Option<Audited> {
        *lock(&self.0.audits.last)
    }

    /// Adds up as long as the shard runs.
    pub(crate) async fn keep_audits(self) {
        loop {
            self.0.audits.ready.notified().await;
            let Some(frozen) = lock(&self.0.audits.begun).take() else { continue };
            let (done, added) = oneshot::channel();
            let inner = self.0.clone();
            self.0.node.background.run(move || _ = done.send(inner.audit_now(&frozen)));
            if let Ok(Some(audited)) = added.await {
                tracing::debug!(shard = %self.0.id, index = audited.index, sum = audited.sum, "audited");
                *lock(&self.0.audits.last) = Some(audited);
            }
        }
    }

    /// Compares with what other replicas came to behind the same entry: who differs from most stops.
    pub(crate) fn compare(&self, others: &[Audited]) {
        let Some(mine) = self.audited() else { return };
        let mut sums: BTreeMap<u64, usize> = BTreeMap::from([(mine.sum, 1)]);
        for other in others.iter().filter(|other| other.index == mine.index) {
            *sums.entry(other.sum).or_default() += 1;
        }
        let (all, most) = (sums.values().sum::<usize>(), sums.values().copied().max().unwrap_or(0));
        if sums.len() < 2 {
            return;
        }
        let what = format!("behind entry {} the replicas differ: {sums:?}, and this one has {}", mine.index, mine.sum);
        if sums.get(&mine.sum).is_some_and(|count| *count <= all / 2) && most > all / 2 {
            self.0.state_failed(&format!("{what}: it is the one that is wrong, and is rebuilt at the next start"));
        } else {
            tracing::error!(shard = %self.0.id, "{what}");
        }
    }
}

impl<M: Machine> Inner<M> {
    /// On the storage thread, where no checkpoint runs meanwhile.
    fn audit_now(&self, frozen: &Frozen) -> Option<Audited> {
        if !lock(&self.core).store.is_freezing(frozen) {
            return None;
        }
        self.write_checkpoint(frozen);
        let base = lock(&self.core).store.base().clone();
        let index = base.applied().index();
        match add_up(&*base) {
            Ok(sum) => Some(Audited { index, sum }),
            Err(error) => {
                self.state_failed(&error.to_string());
                None
            }
        }
    }
}
