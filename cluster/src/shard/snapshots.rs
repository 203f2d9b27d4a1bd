//! Snapshots of a shard, written and taken on the storage thread.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Inner,
    apply::{Beside, fail_all, load, too_high},
    lock,
};
use crate::{
    consensus::{BoxFuture, SnapshotFile},
    machine::Machine,
    snapshot::SnapshotError,
    state::Store,
};

impl<M: Machine> Inner<M> {
    /// Work on the storage thread.
    pub(super) fn in_background<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, SnapshotError> + Send + 'static,
    ) -> BoxFuture<Result<T, SnapshotError>> {
        let (done, worked) = tokio::sync::oneshot::channel();
        let background = self.node.background.clone();
        background.run(move || drop(done.send(work(&self))));
        Box::pin(async move {
            worked.await.unwrap_or_else(|_| Err(std::io::Error::other("the storage thread has stopped").into()))
        })
    }

    /// On the storage thread, where no checkpoint runs meanwhile.
    pub(super) fn write_snapshot_now(&self) -> Result<SnapshotFile, SnapshotError> {
        // With all that is applied, but for what a checkpoint that waits behind this has.
        let frozen = if self.cuts.wait() {
            None
        } else {
            // An audit gives way: the snapshot is to have all.
            let mut core = lock(&self.core);
            core.store.release();
            core.store.freeze()
        };
        frozen.iter().for_each(|frozen| self.write_checkpoint(frozen));
        let base = lock(&self.core).store.base().clone();
        let (path, applied, len) = crate::snapshot::write(&self.node.disk, &self.node.snapshot_dir, self.id, &*base)?;
        self.snapshot_len.store(len, Ordering::Relaxed);
        tracing::info!(shard = %self.id, index = applied.index(), bytes = len, "wrote a snapshot");
        let file = SnapshotFile { path: path.clone(), applied };
        *lock(&self.snapshot) = Some(file.clone());
        crate::snapshot::keep_only(&self.node.disk, &self.node.snapshot_dir, self.id, &path)?;
        Ok(file)
    }

    /// On the storage thread too. What is in memory and on its way to the base is forgotten.
    pub(super) fn install_now(&self, file: SnapshotFile) -> Result<(), SnapshotError> {
        let mut guard = lock(&self.core);
        guard.installing = true;
        let base = guard.store.base().clone();
        let waiting = std::mem::take(&mut guard.waiting);
        drop(guard);
        waiting.into_values().for_each(fail_all);
        let index = file.applied.index();
        crate::snapshot::load(&self.node.disk, &file.path, &*base)?;
        let mut store = Store::new(base, self.limits.cache_bytes);
        let Beside { time_ms, quarantined, system, cut, level } = load(&mut store)?;
        if level > self.node.level {
            let why = self.too_old(too_high(&self.id, level, self.node.level));
            return Err(std::io::Error::other(why).into());
        }
        self.level.store(level, Ordering::Relaxed);
        let mut guard = lock(&self.core);
        let core = &mut *guard;
        (core.store, core.time_ms, core.quarantined, core.installing) = (store, time_ms, quarantined, false);
        (core.cut, core.level) = (cut, level);
        drop(guard);
        system.into_iter().for_each(|system| self.system.offer(system));
        crate::snapshot::keep_only(&self.node.disk, &self.node.snapshot_dir, self.id, &file.path)?;
        *lock(&self.snapshot) = Some(file);
        tracing::info!(shard = %self.id, index, "took the state from another replica's snapshot");
        Ok(())
    }
}
