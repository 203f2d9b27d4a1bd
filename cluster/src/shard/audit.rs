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

/// Bytes of stored records that are added up at a time: the storage thread has other shards to care for.
const SLICE_BYTES: usize = 1 << 20;
/// An audit is given up when so many times what begins a checkpoint has changed meanwhile.
const CHANGED_FACTOR: usize = 4;

/// A sum that is made piece by piece.
#[derive(Default)]
struct Sum {
    so_far: u64,
    /// Where the next piece begins; none behind the last.
    next: Option<Vec<u8>>,
}

/// What one record adds, the same however entries are cut into stored records.
fn weigh(key: &[u8], stored: &[u8]) -> Result<u64, StateError> {
    let payload = base::unseal(key, stored)?;
    let timeline = key.get(2) == Some(&table::TIMELINE);
    let Some((front, last)) = key.split_last_chunk::<8>().filter(|_| timeline) else {
        return Ok(xxh3_64_with_seed(payload, xxh3_64(key)));
    };
    let entries = base::decode_entries(&base::hex(key), payload.to_vec())?;
    let first = u64::from_be_bytes(*last) + 1 - entries.len() as u64;
    let weights =
        (first..).zip(entries).map(|(number, entry)| xxh3_64_with_seed(&entry, xxh3_64(front).wrapping_add(number)));
    Ok(weights.fold(0, u64::wrapping_add))
}

/// Adds the next piece.
fn add_slice(base: &dyn StateBase, sum: &mut Sum) -> Result<(), StateError> {
    let (mut bytes, from) = (0, sum.next.take().unwrap_or_default());
    base.scan_from(&from, &mut |key, stored| {
        if bytes >= SLICE_BYTES {
            sum.next = Some(key.to_vec());
            return Ok(false);
        }
        bytes += key.len() + stored.len();
        sum.so_far = sum.so_far.wrapping_add(weigh(key, stored)?);
        Ok(true)
    })
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
            let index = frozen.index();
            let inner = self.0.clone();
            self.in_slices(move |_| inner.begin_audit(&frozen), Sum::default()).await;
            if let Some(sum) = self.add_up(index).await {
                tracing::debug!(shard = %self.0.id, index, sum, "audited");
                *lock(&self.0.audits.last) = Some(Audited { index, sum });
            }
            let mut core = lock(&self.0.core);
            if core.store.is_held(index) {
                core.store.release();
            }
        }
    }

    /// Adds up all that is behind this entry, a piece at a time; none when something came between.
    async fn add_up(&self, index: u64) -> Option<u64> {
        let mut sum = Sum::default();
        loop {
            let inner = self.0.clone();
            sum = self.in_slices(move |sum| inner.add_slice(index, sum), sum).await??;
            if sum.next.is_none() {
                return Some(sum.so_far);
            }
            tokio::task::yield_now().await;
        }
    }

    /// One piece of work on the storage thread.
    async fn in_slices<T: Send + 'static>(&self, work: impl FnOnce(Sum) -> T + Send + 'static, sum: Sum) -> Option<T> {
        let (done, added) = oneshot::channel();
        self.0.node.background.run(move || _ = done.send(work(sum)));
        added.await.ok()
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
    fn begin_audit(&self, frozen: &Frozen) {
        if lock(&self.core).store.is_freezing(frozen) {
            self.write_checkpoint(frozen);
        }
    }

    /// On the storage thread too. None when the base is another by now, or too much waits to be written into it.
    fn add_slice(&self, index: u64, mut sum: Sum) -> Option<Sum> {
        let core = lock(&self.core);
        let store = &core.store;
        let waits = store.dirty_bytes() > CHANGED_FACTOR * self.limits.checkpoint_bytes;
        if waits || !store.is_held(index) || store.base().applied().index() != index {
            return None;
        }
        let base = store.base().clone();
        drop(core);
        match add_slice(&*base, &mut sum) {
            Ok(()) => Some(sum),
            Err(error) => {
                self.state_failed(&error.to_string());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use magpie_protocol::Slot;

    use super::*;
    use crate::state::{Applied, Key, memory::MemoryBase};

    #[test]
    fn pieces_come_to_the_whole_and_are_short() {
        let base = MemoryBase::default();
        let record = |n: u16| (Key::new(Slot::new(n), 20).u64(u64::from(n)), Some(vec![n as u8; 40_000]));
        base.commit((0..100).map(record).collect(), &Applied::default()).unwrap();
        let mut whole = 0u64;
        base.scan(&mut |key, stored| {
            whole = whole.wrapping_add(weigh(key, stored)?);
            Ok(())
        })
        .unwrap();
        let (mut sum, mut pieces) = (Sum::default(), 0);
        loop {
            add_slice(&base, &mut sum).unwrap();
            pieces += 1;
            if sum.next.is_none() {
                break;
            }
        }
        assert_eq!((sum.so_far, pieces), (whole, 4));
    }
}
