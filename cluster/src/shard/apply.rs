//! Running batches: the one place where durable state changes.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use bincode::{Decode, Encode};
use bytes::Bytes;
use magpie_protocol::{NodeId, TimelineId, codec, codec::CodecError};

use super::{
    Core, Inner, Waiter,
    batch::{BatchReader, Item},
    cut::{self, Through},
    feed, lock, outbox,
};
use crate::{
    consensus::{Applier, BoxFuture, Incoming, SnapshotFile},
    log::Position,
    machine::{EntityId, Machine},
    snapshot::SnapshotError,
    state::{
        Applied, Key, Record, StateError, Store, Tx,
        key::{SHARD_SLOT, table},
        tx::StateFault,
    },
    system::{self, Change, FIRST_LEVEL, Refusal, System},
    watch::{self, Hint},
};

/// The shard's time, in milliseconds since 1970.
#[derive(Clone, Encode, Decode)]
struct ShardTime(u64);
impl Record for ShardTime {}

/// Entities that a command made `apply` panic on.
#[derive(Clone, Default, Encode, Decode)]
struct Quarantine(Vec<EntityId>);
impl Record for Quarantine {}

/// The shard's feature level; the first where there is none.
#[derive(Clone, Encode, Decode)]
struct ShardLevel(u32);
impl Record for ShardLevel {}

fn level_key() -> Key {
    Key::new(SHARD_SLOT, table::LEVEL)
}

fn time_key() -> Key {
    Key::new(SHARD_SLOT, table::SHARD)
}

fn quarantine_key() -> Key {
    Key::new(SHARD_SLOT, table::QUARANTINE)
}

/// What a shard keeps beside the records of its entities.
pub(super) struct Beside {
    pub(super) time_ms: u64,
    pub(super) quarantined: HashSet<EntityId>,
    pub(super) system: Option<System>,
    pub(super) cut: u64,
    pub(super) level: u32,
}

/// Why a replica goes no further.
enum Stop {
    /// What it holds is damaged, or cannot be read.
    Damaged(String),
    /// A newer build knows how to go on.
    TooOld(String),
}

impl From<StateError> for Stop {
    fn from(error: StateError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// What a build says that meets what it does not know.
fn unknown(what: &str) -> Stop {
    Stop::TooOld(format!("{what} that this build does not know: upgrade this node"))
}

/// What a build says that meets a level that it does not reach.
pub(crate) fn too_high(of: &dyn std::fmt::Display, level: u32, can: u32) -> String {
    format!("{of} is at feature level {level}, and this build can do level {can}: upgrade this node")
}

pub(super) fn load(store: &mut Store) -> Result<Beside, StateError> {
    let time_ms = store.get::<ShardTime>(&time_key())?.map_or(0, |t| t.0);
    let quarantined = store.get::<Quarantine>(&quarantine_key())?;
    let quarantined = quarantined.map(|q| q.0.iter().copied().collect()).unwrap_or_default();
    let system = store.get::<System>(&system::key())?.map(|system| (*system).clone());
    let cut = cut::made(store)?;
    let level = store.get::<ShardLevel>(&level_key())?.map_or(FIRST_LEVEL, |level| level.0);
    Ok(Beside { time_ms, quarantined, system, cut, level })
}

/// Answers that wait until the lock is free.
struct Outcome<M: Machine> {
    /// With how many of the hints go before each.
    replies: Vec<(usize, Waiter<M>, Answer<M>)>,
    /// For this node's own sessions.
    hints: Vec<Hint>,
    /// For other nodes.
    elsewhere: BTreeMap<NodeId, Vec<Hint>>,
    sent: bool,
    /// What the cluster knows of itself, if that changed.
    system: Option<System>,
    /// The state is to be added up as it is behind this entry.
    audit: bool,
    /// The shard made this cut.
    cut: Option<u64>,
    /// What was appended, where somebody follows; and where the feed ends then.
    fed: Option<Vec<(TimelineId, u64)>>,
    feed_end: u64,
    commands: u64,
}

impl<M: Machine> Default for Outcome<M> {
    fn default() -> Self {
        let (replies, hints, elsewhere) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self {
            replies,
            hints,
            elsewhere,
            sent: false,
            system: None,
            audit: false,
            cut: None,
            fed: None,
            feed_end: 0,
            commands: 0,
        }
    }
}

enum Answer<M: Machine> {
    Reply(M::Reply),
    Through(Through),
    Fed(bool),
    System(Result<System, Refusal>),
}

impl<M: Machine> Core<M> {
    fn run_batch(&mut self, inner: &Inner<M>, bytes: &[u8], outcome: &mut Outcome<M>) -> Result<(), Stop> {
        let mut reader = BatchReader::new(bytes).ok_or_else(|| unknown("a batch of a version"))?;
        let mut waiters = self.waiting.remove(&reader.id).unwrap_or_default();
        outcome.replies.reserve(waiters.len());
        if reader.time_ms > self.time_ms {
            self.time_ms = reader.time_ms;
            let mut tx = Tx::new(&mut self.store, self.time_ms);
            tx.put(time_key(), ShardTime(self.time_ms));
            tx.commit();
        }
        outcome.fed = feed::is_on(&mut self.store)?.then(Vec::new);
        let result = loop {
            let item = match reader.next_item() {
                Ok(Some(item)) => item,
                Ok(None) => break Ok(()),
                Err(_) => break Err(unknown("an item of a batch")),
            };
            outcome.commands += 1;
            if let Err(error) = self.run_item(inner, item, waiters.pop_front(), outcome) {
                break Err(error);
            }
        };
        fail_all(waiters);
        if let Some(fed) = outcome.fed.take().filter(|fed| !fed.is_empty()) {
            outcome.feed_end = feed::add(&mut self.store, self.time_ms, &fed)?;
        }
        result
    }

    fn run_item(
        &mut self,
        inner: &Inner<M>,
        item: Item<'_>,
        waiter: Option<Waiter<M>>,
        outcome: &mut Outcome<M>,
    ) -> Result<(), Stop> {
        let answer = match item {
            Item::Ask { entity, command } => Answer::Reply(self.run(inner, entity, command, outcome)?),
            Item::Inbound { from, cut, number, entity, command } => {
                let last = outbox::received(&mut self.store, from)?;
                // What a shard says behind a cut comes behind that cut here too.
                if number == last + 1 && cut <= self.cut {
                    // A refusal is an answer too: the stream goes on.
                    self.run(inner, entity, command, outcome)?;
                    outbox::set_received(&mut self.store, self.time_ms, from, number);
                    self.through(number)
                } else {
                    self.through(last)
                }
            }
            Item::Acked { to, cut, upto } => {
                if cut <= self.cut {
                    outbox::trim(&mut self.store, self.time_ms, to, upto)?;
                }
                self.through(upto)
            }
            Item::System { change } => {
                let changed = self.change_system(change)?;
                outcome.system = changed.clone().ok().or(outcome.system.take());
                Answer::System(changed)
            }
            Item::Feed { change } => {
                let change =
                    codec::decode_stored(change).map_err(|e| unknown(&format!("a change of the feed ({e})")))?;
                Answer::Fed(feed::change(&mut self.store, self.time_ms, change)?)
            }
            Item::Audit => {
                outcome.audit = true;
                self.through(0)
            }
            Item::Cut { cut } => {
                if cut > self.cut {
                    self.cut = cut;
                    cut::note(&mut self.store, self.time_ms, cut);
                    outcome.cut = Some(cut);
                }
                self.through(0)
            }
            Item::Level { level } => {
                self.raise_level(inner, level)?;
                self.through(u64::from(self.level))
            }
        };
        if let Some(waiter) = waiter {
            outcome.replies.push((outcome.hints.len(), waiter, answer));
        }
        Ok(())
    }

    fn through(&self, number: u64) -> Answer<M> {
        Answer::Through(Through { number, cut: self.cut })
    }

    fn raise_level(&mut self, inner: &Inner<M>, level: u32) -> Result<(), Stop> {
        if level > inner.node.level {
            return Err(Stop::TooOld(too_high(&inner.id, level, inner.node.level)));
        }
        if level > self.level {
            self.level = level;
            inner.level.store(level, Ordering::Relaxed);
            let mut tx = Tx::new(&mut self.store, self.time_ms);
            tx.put(level_key(), ShardLevel(level));
            tx.commit();
            tracing::info!(shard = %inner.id, level, "the shard is at another feature level");
        }
        Ok(())
    }

    fn change_system(&mut self, change: &[u8]) -> Result<Result<System, Refusal>, Stop> {
        let change: Change =
            codec::decode_stored(change).map_err(|e| unknown(&format!("a change of the cluster ({e})")))?;
        let known = self.store.get::<System>(&system::key())?;
        let changed = match (known, change) {
            (Some(known), change) => known.changed(change),
            (None, Change::Found(system)) => Ok(system),
            (None, _) => Err(Refusal::NotFounded),
        };
        if let Ok(system) = &changed {
            let mut tx = Tx::new(&mut self.store, self.time_ms);
            tx.put(system::key(), system.clone());
            tx.commit();
        }
        Ok(changed)
    }

    /// One command on one entity. An error stops the shard; a panic of the machine only quarantines the entity.
    fn run(
        &mut self,
        inner: &Inner<M>,
        entity: EntityId,
        command: &[u8],
        outcome: &mut Outcome<M>,
    ) -> Result<M::Reply, Stop> {
        if self.quarantined.contains(&entity) {
            return Ok(self.machine.internal());
        }
        let command: M::Command =
            codec::decode_stored(command).map_err(|e: CodecError| unknown(&format!("a command ({e})")))?;
        let needs = M::level_of(&command);
        if needs > inner.node.level {
            return Err(unknown(&format!("a command of feature level {needs}")));
        }
        let mut tx = Tx::new(&mut self.store, self.time_ms).at_level(self.level);
        let machine = &self.machine;
        match catch_unwind(AssertUnwindSafe(|| machine.apply(&mut tx, entity, command))) {
            Ok(reply) => {
                outcome.sent |= outbox::stage(&mut tx, &inner.map);
                let notes = tx.take_notes();
                if let Some(fed) = &mut outcome.fed {
                    fed.extend(notes);
                }
                for hint in tx.commit() {
                    if let Some(fed) = &mut outcome.fed {
                        fed.push((hint.timeline, hint.number));
                    }
                    let Some(watchers) = self.watches.watchers(&hint.timeline) else { continue };
                    for node in watchers.iter().filter(|node| **node != inner.me) {
                        outcome.elsewhere.entry(*node).or_default().push(hint.clone());
                    }
                    if watchers.contains(&inner.me) {
                        outcome.hints.push(hint);
                    }
                }
                Ok(reply)
            }
            Err(payload) if payload.is::<StateFault>() => {
                Err(Stop::Damaged(self.store.fault().map_or_else(String::new, ToString::to_string)))
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

pub(super) fn fail_all<M: Machine>(waiters: VecDeque<Waiter<M>>) {
    waiters.into_iter().for_each(|w| w.fail(crate::AskError::Unknown));
}

impl<M: Machine> Applier for Inner<M> {
    fn applied(&self) -> Applied {
        lock(&self.core).store.applied().clone()
    }

    fn apply(&self, position: Position, batch: Option<&Bytes>, membership: Option<Bytes>) -> Result<(), String> {
        let mut outcome = Outcome::default();
        let mut guard = lock(&self.core);
        let core = &mut *guard;
        if let Some(why) = &core.failed {
            return Err(why.clone());
        }
        if let Some(batch) = batch
            && let Err(stop) = core.run_batch(self, batch, &mut outcome)
        {
            drop(guard);
            return Err(self.stop_for(stop));
        }
        let mut applied = core.store.applied().clone();
        applied.position = Some(position);
        if let Some(membership) = membership {
            applied.membership = membership;
        }
        core.store.set_applied(applied);
        if outcome.audit {
            self.audits.begin(core.store.freeze_and_hold());
        }
        if let Some(cut) = outcome.cut {
            // Whatever else were in the batch would be in the cut.
            self.cuts.begin(cut, || {
                // An audit gives way, as to a snapshot.
                core.store.release();
                if outcome.commands == 1 { core.store.freeze() } else { None }
            });
        }
        let before = core.watches.count(self.me, outcome.hints.len()) - outcome.hints.len() as u64;
        let elsewhere = std::mem::take(&mut outcome.elsewhere).into_iter();
        let elsewhere: Vec<_> =
            elsewhere.map(|(node, hints)| (node, core.watches.count(node, hints.len()), hints)).collect();
        drop(guard);
        if let Some(system) = outcome.system.take() {
            self.system.offer(system);
        }
        for (node, count, hints) in elsewhere {
            self.sinks.of(node).on_hints(self.id, count, &hints);
        }
        let (sink, mut told) = (self.sinks.local(), 0);
        let mut tell = |upto: usize| {
            if upto > told {
                // What one session said in a row in one timeline goes in one go: it gets none of it, only its answers.
                let upto = upto.max(told + watch::run_len(&outcome.hints[told..]));
                if let Some(sink) = sink {
                    sink.on_hints(self.id, before + upto as u64, &outcome.hints[told..upto]);
                }
                told = upto;
            }
        };
        for (hints, waiter, answer) in outcome.replies {
            tell(hints);
            match (waiter, answer) {
                (Waiter::Reply(reply), Answer::Reply(value)) => reply(Ok(value)),
                (Waiter::Delivered(reply), Answer::Through(through)) => reply(Ok(through)),
                (Waiter::Fed(reply), Answer::Fed(done)) => reply(Ok(done)),
                (Waiter::System(reply), Answer::System(changed)) => reply(Ok(changed)),
                (waiter, _) => waiter.fail(crate::AskError::Unknown),
            }
        }
        tell(outcome.hints.len());
        if outcome.feed_end > 0 {
            self.feed_end.send_replace(outcome.feed_end);
        }
        if outcome.sent {
            self.outbox_ready.notify_one();
        }
        if batch.is_some() {
            crate::count!(crate::metrics::BATCHES_APPLIED, 1);
            crate::count!(crate::metrics::COMMANDS_APPLIED, outcome.commands);
        }
        Ok(())
    }

    fn write_snapshot(self: Arc<Self>) -> BoxFuture<Result<SnapshotFile, SnapshotError>> {
        self.in_background(Self::write_snapshot_now)
    }

    fn receive(
        self: Arc<Self>,
        index: u64,
        len: u64,
        part: Option<(u64, Vec<u8>)>,
    ) -> BoxFuture<Result<Incoming, SnapshotError>> {
        self.in_background(move |this| {
            crate::snapshot::receive(&this.node.disk, &this.node.snapshot_dir, this.id, (index, len), part)
        })
    }

    fn install(self: Arc<Self>, file: SnapshotFile) -> BoxFuture<Result<(), SnapshotError>> {
        self.in_background(move |this| {
            let installed = this.install_now(file);
            // What a build is too old for is not damaged.
            if let Err(error) = &installed
                && lock(&this.core).failed.is_none()
            {
                this.state_failed(&error.to_string());
            }
            installed
        })
    }

    fn snapshot(&self) -> Option<SnapshotFile> {
        lock(&self.snapshot).clone()
    }
}

impl<M: Machine> Inner<M> {
    fn stop_for(&self, stop: Stop) -> String {
        match stop {
            Stop::Damaged(fault) => {
                self.state_failed(&fault);
                fault
            }
            Stop::TooOld(why) => self.too_old(why),
        }
    }

    /// This replica goes no further, and nothing of what it has is wrong.
    pub(super) fn too_old(&self, why: String) -> String {
        let mut core = lock(&self.core);
        if core.failed.is_none() {
            core.failed = Some(why.clone());
            drop(core);
            self.node.fatal.too_old(&format!("{}: {why}", self.id));
        }
        why
    }
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let key = |name: &str, key: Key| {
        let expected = key.as_bytes().to_vec();
        Golden::new(name, key.as_bytes(), move |bytes| (bytes == expected).then(|| bytes.to_vec()))
    };
    vec![
        key("shard.key.time", time_key()),
        key("shard.key.quarantine", quarantine_key()),
        key("shard.key.system", system::key()),
        key("shard.key.level", level_key()),
        Golden::coded("shard.time", &ShardTime(1_700_000_000_000)),
        Golden::coded("shard.quarantine", &Quarantine(vec![EntityId::new(2, 7)])),
        Golden::coded("shard.level", &ShardLevel(2)),
    ]
}
