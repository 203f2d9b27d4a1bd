//! Running batches: the one place where durable state changes.

use std::{
    collections::{HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use bincode::{Decode, Encode};
use bytes::Bytes;
use magpie_protocol::{codec, codec::CodecError};

use super::{
    Core, Inner, Waiter,
    batch::{BatchReader, Item},
    lock, outbox,
};
use crate::{
    consensus::{Applier, BoxFuture, SnapshotFile},
    log::Position,
    machine::{EntityId, Machine},
    snapshot::SnapshotError,
    state::{
        Applied, Key, Record, StateError, Store, Tx,
        key::{SHARD_SLOT, table},
        tx::StateFault,
    },
    watch::Hint,
};

/// The shard's time, in milliseconds since 1970.
#[derive(Clone, Encode, Decode)]
struct ShardTime(u64);
impl Record for ShardTime {}

/// Entities that a command made `apply` panic on.
#[derive(Clone, Default, Encode, Decode)]
struct Quarantine(Vec<EntityId>);
impl Record for Quarantine {}

fn time_key() -> Key {
    Key::new(SHARD_SLOT, table::SHARD)
}

fn quarantine_key() -> Key {
    Key::new(SHARD_SLOT, table::QUARANTINE)
}

/// What a shard keeps beside the records of its entities.
pub(super) fn load(store: &mut Store) -> Result<(u64, HashSet<EntityId>), StateError> {
    let time = store.get::<ShardTime>(&time_key())?.map_or(0, |t| t.0);
    let quarantined = store.get::<Quarantine>(&quarantine_key())?;
    Ok((time, quarantined.map(|q| q.0.iter().copied().collect()).unwrap_or_default()))
}

/// Answers that wait until the lock is free.
struct Outcome<M: Machine> {
    /// With how many of the hints go before each.
    replies: Vec<(usize, Waiter<M>, Answer<M>)>,
    hints: Vec<Hint>,
    sent: bool,
    commands: u64,
}

enum Answer<M: Machine> {
    Reply(M::Reply),
    Number(u64),
}

impl<M: Machine> Core<M> {
    fn run_batch(&mut self, inner: &Inner<M>, bytes: &[u8], outcome: &mut Outcome<M>) -> Result<(), String> {
        let unknown = || "an entry holds what this build does not know: upgrade this node".to_owned();
        let mut reader = BatchReader::new(bytes).ok_or_else(unknown)?;
        let mut waiters = self.waiting.remove(&reader.id).unwrap_or_default();
        if reader.time_ms > self.time_ms {
            self.time_ms = reader.time_ms;
            let mut tx = Tx::new(&mut self.store, self.time_ms);
            tx.put(time_key(), ShardTime(self.time_ms));
            tx.commit();
        }
        let result = loop {
            let item = match reader.next_item() {
                Ok(Some(item)) => item,
                Ok(None) => break Ok(()),
                Err(_) => break Err(unknown()),
            };
            outcome.commands += 1;
            if let Err(error) = self.run_item(inner, item, waiters.pop_front(), outcome) {
                break Err(error);
            }
        };
        fail_all(waiters);
        result
    }

    fn run_item(
        &mut self,
        inner: &Inner<M>,
        item: Item<'_>,
        waiter: Option<Waiter<M>>,
        outcome: &mut Outcome<M>,
    ) -> Result<(), String> {
        let answer = match item {
            Item::Ask { entity, command } => Answer::Reply(self.run(inner, entity, command, outcome)?),
            Item::Inbound { from, number, entity, command } => {
                let last = outbox::received(&mut self.store, from).map_err(|e| e.to_string())?;
                if number == last + 1 {
                    // A refusal is an answer too: the stream goes on.
                    self.run(inner, entity, command, outcome)?;
                    outbox::set_received(&mut self.store, self.time_ms, from, number);
                    Answer::Number(number)
                } else {
                    Answer::Number(last)
                }
            }
            Item::Acked { to, upto } => {
                outbox::trim(&mut self.store, self.time_ms, to, upto).map_err(|e| e.to_string())?;
                Answer::Number(upto)
            }
        };
        if let Some(waiter) = waiter {
            outcome.replies.push((outcome.hints.len(), waiter, answer));
        }
        Ok(())
    }

    /// One command on one entity. An error stops the shard; a panic of the machine only quarantines the entity.
    fn run(
        &mut self,
        inner: &Inner<M>,
        entity: EntityId,
        command: &[u8],
        outcome: &mut Outcome<M>,
    ) -> Result<M::Reply, String> {
        if self.quarantined.contains(&entity) {
            return Ok(self.machine.internal());
        }
        let command: M::Command = codec::decode_stored(command)
            .map_err(|e: CodecError| format!("a command that this build does not know ({e}): upgrade this node"))?;
        let mut tx = Tx::new(&mut self.store, self.time_ms);
        let machine = &self.machine;
        match catch_unwind(AssertUnwindSafe(|| machine.apply(&mut tx, entity, command))) {
            Ok(reply) => {
                outcome.sent |= outbox::stage(&mut tx, &inner.map);
                let hints = tx.commit();
                outcome.hints.extend(hints.into_iter().filter(|hint| self.watches.is_watched(&hint.timeline)));
                Ok(reply)
            }
            Err(payload) if payload.is::<StateFault>() => {
                Err(self.store.fault().map_or_else(String::new, ToString::to_string))
            }
            Err(_) => {
                drop(tx);
                tracing::error!(shard = %inner.id, entity = ?entity, "a command made apply panic: the entity is quarantined");
                metrics::counter!(crate::metrics::ENTITIES_QUARANTINED).increment(1);
                self.quarantined.insert(entity);
                let mut all: Vec<EntityId> = self.quarantined.iter().copied().collect();
                all.sort_by_key(|e| (e.kind(), e.bits()));
                let mut tx = Tx::new(&mut self.store, self.time_ms);
                tx.put(quarantine_key(), Quarantine(all));
                tx.commit();
                Ok(self.machine.internal())
            }
        }
    }
}

fn fail_all<M: Machine>(waiters: VecDeque<Waiter<M>>) {
    waiters.into_iter().for_each(|w| w.fail(crate::AskError::Unknown));
}

impl<M: Machine> Applier for Inner<M> {
    fn applied(&self) -> Applied {
        lock(&self.core).store.applied().clone()
    }

    fn apply(&self, position: Position, batch: Option<&Bytes>, membership: Option<Bytes>) -> Result<(), String> {
        let mut outcome = Outcome { replies: Vec::new(), hints: Vec::new(), sent: false, commands: 0 };
        let mut guard = lock(&self.core);
        let core = &mut *guard;
        if let Some(why) = &core.failed {
            return Err(why.clone());
        }
        if let Some(batch) = batch
            && let Err(fault) = core.run_batch(self, batch, &mut outcome)
        {
            drop(guard);
            self.state_failed(&fault);
            return Err(fault);
        }
        let mut applied = core.store.applied().clone();
        applied.position = Some(position);
        if let Some(membership) = membership {
            applied.membership = membership;
        }
        core.store.set_applied(applied);
        let before = core.watches.sent();
        core.watches.count(outcome.hints.len());
        drop(guard);
        let (sink, mut told) = (self.sink.get(), 0);
        let mut tell = |upto: usize| {
            if upto > told
                && let Some(sink) = sink
            {
                sink.on_hints(self.id, before + upto as u64, &outcome.hints[told..upto]);
            }
            told = upto;
        };
        for (hints, waiter, answer) in outcome.replies {
            tell(hints);
            match (waiter, answer) {
                (Waiter::Reply(reply), Answer::Reply(value)) => reply(Ok(value)),
                (Waiter::Delivered(reply), Answer::Number(number)) => reply(Ok(number)),
                (waiter, _) => waiter.fail(crate::AskError::Unknown),
            }
        }
        tell(outcome.hints.len());
        if outcome.sent {
            self.outbox_ready.notify_one();
        }
        if batch.is_some() {
            metrics::counter!(crate::metrics::BATCHES_APPLIED).increment(1);
            metrics::counter!(crate::metrics::COMMANDS_APPLIED).increment(outcome.commands);
        }
        Ok(())
    }

    fn write_snapshot(self: Arc<Self>) -> BoxFuture<Result<SnapshotFile, SnapshotError>> {
        let (done, written) = tokio::sync::oneshot::channel();
        let background = self.background.clone();
        background.run(move || drop(done.send(self.write_snapshot_now())));
        Box::pin(async move {
            written.await.unwrap_or_else(|_| Err(std::io::Error::other("the storage thread has stopped").into()))
        })
    }

    fn snapshot(&self) -> Option<SnapshotFile> {
        lock(&self.snapshot).clone()
    }
}

impl<M: Machine> Inner<M> {
    /// On the storage thread, where no checkpoint runs meanwhile.
    fn write_snapshot_now(&self) -> Result<SnapshotFile, SnapshotError> {
        let base = lock(&self.core).store.base().clone();
        let (path, applied, len) = crate::snapshot::write(&self.disk, &self.snapshot_dir, self.id, &*base)?;
        self.snapshot_len.store(len, Ordering::Relaxed);
        tracing::info!(shard = %self.id, index = applied.index(), bytes = len, "wrote a snapshot");
        let file = SnapshotFile { path: path.clone(), applied };
        *lock(&self.snapshot) = Some(file.clone());
        for (_, old) in crate::snapshot::list(&self.disk, &self.snapshot_dir, self.id)? {
            if old != path {
                self.disk.remove(&old)?;
            }
        }
        Ok(file)
    }
}
