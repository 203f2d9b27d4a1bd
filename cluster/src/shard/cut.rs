//! A shard's part of a backup: its state as it is behind one entry of its log, so that the cuts of all shards together
//! are a state that the cluster could have been in.
//!
//! A cut has a number. A shard makes it when a backup asks for it, or before it takes the first message or
//! acknowledgement of a shard that has made it already: each carries the sender's number, and `apply` takes none whose
//! number is higher than its own. So no cut has received what its sender's cut has not sent, and none has forgotten
//! what the receiver's cut lacks. What was under way stays in the sender's outbox, and is delivered after a restore.
//!
//! The leader makes the cut alone in its batch, while no checkpoint is under way: what is in memory becomes a fixed
//! layer, and the file is written from below it on the storage thread, as a snapshot is.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bincode::{Decode, Encode};
use magpie_protocol::{ShardId, codec};
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use super::{Inner, Shard, Waiter, lock};
use crate::{
    AskError,
    disk::{Disk, temporary_name},
    machine::Machine,
    snapshot::{self, SnapshotError},
    state::{
        Frozen, Key, Record, StateError, Store, Tx,
        key::{SHARD_SLOT, table},
    },
};

/// How often it is looked whether a checkpoint is over.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A cut that nobody has asked for in this long is forgotten.
const KEPT_FOR: Duration = Duration::from_secs(120);

/// The number of the last cut that a shard has made.
#[derive(Clone, Encode, Decode)]
struct Made(u64);
impl Record for Made {}

fn key() -> Key {
    Key::new(SHARD_SLOT, table::CUT)
}

/// The number of the cut that a record of a snapshot says, if it is that record.
pub(crate) fn made_in(record: &[u8], value: &[u8]) -> Option<u64> {
    (record == key().as_bytes()).then(|| codec::decode_stored::<Made>(value).ok()).flatten().map(|made| made.0)
}

pub(super) fn made(store: &mut Store) -> Result<u64, StateError> {
    Ok(store.get::<Made>(&key())?.map_or(0, |made| made.0))
}

pub(super) fn note(store: &mut Store, time_ms: u64, cut: u64) {
    let mut tx = Tx::new(store, time_ms);
    tx.put(key(), Made(cut));
    tx.commit();
}

/// How far a stream is, and the cut that whoever says so had made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Through {
    pub number: u64,
    pub cut: u64,
}

/// What a replica has of a cut.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Held {
    /// Nothing, or of another cut: whoever led when it was made has it.
    No,
    /// It is being written.
    NotYet,
    /// It has so many bytes, and holds the log up to this entry.
    Whole { len: u64, index: u64 },
}

/// The one cut of which this replica has, or is to have, the state.
struct Kept {
    cut: u64,
    held: Held,
    touched: Instant,
}

/// Cuts of one shard.
pub(crate) struct Cuts {
    /// One is made at a time.
    turn: Semaphore,
    /// While a cut is on its way to `apply`, no checkpoint begins.
    under_way: AtomicUsize,
    /// What this replica has proposed: it has the state when it is applied.
    proposed: Mutex<Option<u64>>,
    begun: Mutex<Option<Frozen>>,
    kept: Mutex<Option<Kept>>,
}

impl Default for Cuts {
    fn default() -> Self {
        let (turn, under_way) = (Semaphore::new(1), AtomicUsize::new(0));
        Self { turn, under_way, proposed: Mutex::default(), begun: Mutex::default(), kept: Mutex::default() }
    }
}

impl Cuts {
    /// Whether checkpoints wait.
    pub(super) fn wait(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// The state behind a cut, if this replica proposed it and no checkpoint came between.
    pub(super) fn begin(&self, cut: u64, freeze: impl FnOnce() -> Option<Frozen>) {
        let proposed = lock(&self.proposed);
        if *proposed == Some(cut) {
            *lock(&self.begun) = freeze();
        }
    }
}

/// While it lives, no checkpoint begins.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn path(dir: &Path, shard: ShardId, cut: u64) -> PathBuf {
    dir.join(format!("{shard}-{cut:016}.cut"))
}

/// Forgets the cuts of earlier runs.
pub(crate) fn forget_all(disk: &Arc<dyn Disk>, dir: &Path) -> std::io::Result<()> {
    for name in disk.list(dir)? {
        if name.ends_with(".cut") || name.ends_with(".cut.new") {
            disk.remove(&dir.join(name))?;
        }
    }
    Ok(())
}

impl<M: Machine> Shard<M> {
    /// The last cut that the shard has made, as far as this replica knows.
    pub fn last_cut(&self) -> u64 {
        lock(&self.0.core).cut
    }

    /// Makes this cut, if it is not made: of the leader. Returns when it is applied.
    pub(crate) async fn cut(&self, cut: u64) -> Result<u64, AskError> {
        if self.last_cut() >= cut { Ok(self.last_cut()) } else { self.spawn_cut(move |_| cut).await }
    }

    /// Makes the next cut.
    pub(crate) async fn next_cut(&self) -> Result<u64, AskError> {
        self.spawn_cut(|last| last + 1).await
    }

    /// On a task of its own: who waits may be dropped, and what is fixed must still be written.
    async fn spawn_cut(&self, which: impl FnOnce(u64) -> u64 + Send + 'static) -> Result<u64, AskError> {
        let shard = self.clone();
        self.spawn(async move { shard.make_cut(which).await }).await.unwrap_or(Err(AskError::Unknown))
    }

    async fn make_cut(&self, which: impl FnOnce(u64) -> u64) -> Result<u64, AskError> {
        let cuts = &self.0.cuts;
        let _turn = cuts.turn.acquire().await.map_err(|_| AskError::Stopping)?;
        let (last, _under_way) = (self.last_cut(), UnderWay::begin(&cuts.under_way));
        let cut = which(last);
        if cut <= last {
            return Ok(last);
        }
        while lock(&self.0.core).store.is_writing() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.admit()?;
        let (tx, rx) = oneshot::channel();
        *lock(&cuts.proposed) = Some(cut);
        let reply = Box::new(move |result| drop(tx.send(result)));
        self.enqueue_in(true, |builder| builder.cut(cut), Waiter::Delivered(reply));
        let made = rx.await.unwrap_or(Err(AskError::Unknown));
        *lock(&cuts.proposed) = None;
        // Whatever became of the answer: what is fixed must be written.
        if let Some(frozen) = lock(&cuts.begun).take() {
            self.keep_cut(cut, frozen);
        }
        made.map(|through| through.cut)
    }

    /// Writes the state behind a cut to a file, in the background.
    fn keep_cut(&self, cut: u64, frozen: Frozen) {
        let (held, touched) = (Held::NotYet, Instant::now());
        let before = lock(&self.0.cuts.kept).replace(Kept { cut, held, touched });
        let inner = self.0.clone();
        self.0.node.background.run(move || {
            inner.forget_file(before);
            let written = inner.write_cut(cut, &frozen);
            if let Err(error) = &written {
                tracing::warn!(shard = %inner.id, cut, %error, "the shard's part of a backup was not written");
                inner.remove_cut(cut);
            }
            let mut kept = lock(&inner.cuts.kept);
            match kept.as_mut().filter(|kept| kept.cut == cut) {
                Some(kept) => (kept.held, kept.touched) = (written.unwrap_or(Held::No), Instant::now()),
                None => {
                    // Nobody wants it any more.
                    drop(kept);
                    inner.remove_cut(cut);
                }
            }
        });
    }

    /// Up to `len` bytes that lie at `offset` of the file of a cut, and what this replica has of it.
    pub(crate) async fn cut_part(&self, cut: u64, offset: u64, len: u64) -> Result<(Held, Vec<u8>), AskError> {
        let held = {
            let mut kept = lock(&self.0.cuts.kept);
            let Some(kept) = kept.as_mut().filter(|kept| kept.cut == cut) else { return Ok((Held::No, Vec::new())) };
            kept.touched = Instant::now();
            kept.held.clone()
        };
        let Held::Whole { len: whole, .. } = held else { return Ok((held, Vec::new())) };
        let wanted = whole.saturating_sub(offset).min(len) as usize;
        if wanted == 0 {
            return Ok((held, Vec::new()));
        }
        let (disk, path) = (self.0.node.disk.clone(), path(&self.0.node.snapshot_dir, self.0.id, cut));
        // The file does not change any more, and the storage thread may be busy with the next for long.
        let read = move || disk.read_at(&path, offset, wanted);
        let read = match self.0.node.background.has_thread() {
            true => tokio::task::spawn_blocking(read).await.unwrap_or_else(|e| Err(std::io::Error::other(e))),
            false => read(),
        };
        match read {
            Ok(bytes) => Ok((held, bytes)),
            Err(error) => {
                tracing::warn!(shard = %self.0.id, cut, %error, "a part of a backup cannot be read");
                Err(AskError::Unavailable)
            }
        }
    }

    /// Forgets a cut: it was fetched, or nobody wants it.
    pub(crate) fn forget_cut(&self, cut: u64) {
        self.forget_cut_if(|kept| kept.cut == cut);
    }

    /// Forgets a cut that nobody has asked for in a while: whoever wanted it is gone.
    pub(crate) fn forget_old_cut(&self) {
        self.forget_cut_if(|kept| kept.touched.elapsed() > KEPT_FOR && kept.held != Held::NotYet);
    }

    fn forget_cut_if(&self, which: impl FnOnce(&Kept) -> bool) {
        let mut kept = lock(&self.0.cuts.kept);
        if !kept.as_ref().is_some_and(which) {
            return;
        }
        let (forgotten, inner) = (kept.take(), self.0.clone());
        drop(kept);
        self.0.node.background.run(move || inner.forget_file(forgotten));
    }
}

impl<M: Machine> Inner<M> {
    /// On the storage thread, where no checkpoint runs meanwhile.
    fn write_cut(&self, cut: u64, frozen: &Frozen) -> Result<Held, SnapshotError> {
        if !lock(&self.core).store.is_freezing(frozen) {
            // Another replica's snapshot came between.
            return Ok(Held::No);
        }
        self.write_checkpoint(frozen);
        let base = lock(&self.core).store.base().clone();
        let path = path(&self.node.snapshot_dir, self.id, cut);
        snapshot::write_as(&self.node.disk, &path, &*base)?;
        let (len, index) = (self.node.disk.len(&path)?, base.applied().index());
        tracing::info!(shard = %self.id, cut, index, bytes = len, "wrote the shard's part of a backup");
        Ok(Held::Whole { len, index })
    }

    fn forget_file(&self, kept: Option<Kept>) {
        if let Some(kept) = kept.filter(|kept| kept.held != Held::No) {
            self.remove_cut(kept.cut);
        }
    }

    fn remove_cut(&self, cut: u64) {
        let path = path(&self.node.snapshot_dir, self.id, cut);
        for path in [temporary_name(&path), path] {
            match self.node.disk.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "a part of a backup was not removed");
                }
                _ => {}
            }
        }
    }
}
