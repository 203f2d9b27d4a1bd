//! The staged writes of one command.

use std::{collections::BTreeSet, panic, sync::Arc};

use bytes::Bytes;
use magpie_protocol::{Body, Entry, TimelineId, UserId, codec, frame::sync::EntryBytes};
use smallvec::SmallVec;

use super::{
    base::StateError,
    key::{AnyRecord, Key, Record},
    store::Store,
};
use crate::{
    machine::{EntityId, RightsChange},
    system::FIRST_LEVEL,
    watch::{Hint, Origin},
};

/// What unwinds out of `apply` when the state below it is damaged: no entity is to blame.
pub(crate) struct StateFault;

/// A change of a record where it stands.
type Amendment = Box<dyn FnOnce(&mut Store)>;
/// A record that is written, or removed.
type Staged = (Key, Option<Arc<dyn AnyRecord>>);

/// One command's view of the state. Reads see its own writes; nothing is written before it is committed.
pub struct Tx<'a> {
    store: &'a mut Store,
    time_ms: u64,
    level: u32,
    // Most commands write one record and append one entry: those cost no allocation.
    staged: SmallVec<[Staged; 1]>,
    amendments: SmallVec<[Amendment; 1]>,
    appends: SmallVec<[Hint; 1]>,
    replaced: Vec<(TimelineId, u64, Bytes)>,
    erased: Vec<TimelineId>,
    sends: Vec<(EntityId, Vec<u8>)>,
    notes: Vec<(TimelineId, u64)>,
    origin: Option<Origin>,
}

impl<'a> Tx<'a> {
    /// A transaction at this time of the shard, in milliseconds since 1970, and at the first feature level.
    pub fn new(store: &'a mut Store, time_ms: u64) -> Self {
        let (staged, amendments, appends) = (SmallVec::new(), SmallVec::new(), SmallVec::new());
        let (replaced, erased, sends, notes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (level, origin) = (FIRST_LEVEL, None);
        Self { store, time_ms, level, staged, amendments, appends, replaced, erased, sends, notes, origin }
    }

    /// The same at this feature level.
    #[must_use]
    pub fn at_level(self, level: u32) -> Self {
        Self { level, ..self }
    }

    /// The shard's feature level, which is part of its state: what `apply` does otherwise than older builds did, it
    /// does from a level on, so that replicas of different builds stay equal.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The shard's time, in milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The record under this key.
    pub fn get<R: Record>(&mut self, key: &Key) -> Option<Arc<R>> {
        if let Some((_, record)) = self.staged.iter().rev().find(|(staged, _)| staged == key) {
            return record.clone().and_then(|r| r.into_any().downcast::<R>().ok());
        }
        let found = self.store.get(key);
        self.or_fault(found)
    }

    fn or_fault<T>(&mut self, result: Result<T, StateError>) -> T {
        match result {
            Ok(value) => value,
            Err(error) => {
                self.store.report(error);
                panic::resume_unwind(Box::new(StateFault))
            }
        }
    }

    /// Writes a record.
    pub fn put<R: Record>(&mut self, key: Key, record: R) {
        self.stage(key, Some(Arc::new(record)));
    }

    /// Writes a record, which was read as `record`, as `change` leaves it: where it stands, without a copy, unless
    /// somebody still holds it as it was. That is done when the command's writes become part of the state: until then
    /// the command reads the record as it was. `change` must not panic: what a command brings about is discarded whole
    /// only before that.
    pub fn amend<R: Record + Clone>(&mut self, key: Key, record: Arc<R>, change: impl FnOnce(&mut R) + 'static) {
        self.amendments.push(Box::new(move |store| store.amend(key, record, change)));
    }

    /// Removes a record.
    pub fn delete(&mut self, key: Key) {
        self.stage(key, None);
    }

    fn stage(&mut self, key: Key, record: Option<Arc<dyn AnyRecord>>) {
        match self.staged.iter_mut().find(|(staged, _)| *staged == key) {
            Some(slot) => slot.1 = record,
            None => self.staged.push((key, record)),
        }
    }

    /// The number of the timeline's newest entry, with those that this command appended.
    pub fn head(&mut self, timeline: TimelineId) -> u64 {
        if let Some(hint) = self.appends.iter().rev().find(|hint| hint.timeline == timeline) {
            return hint.number;
        }
        if self.erased.contains(&timeline) {
            return 0;
        }
        let head = self.store.head(timeline);
        self.or_fault(head)
    }

    /// Appends an entry and returns its number. `rights_before` is the number of the timeline's last change of
    /// rights, 0 where rights never change; `change` is how this entry changes them.
    pub fn append(
        &mut self,
        timeline: TimelineId,
        sender: UserId,
        body: Body,
        rights_before: u64,
        change: Option<RightsChange>,
    ) -> u64 {
        let number = self.head(timeline) + 1;
        let entry = Entry { number, time_ms: self.time_ms, sender, body };
        let entry = entry.with_bytes(|bytes| self.store.gather(bytes));
        let origin = self.origin;
        let entry = EntryBytes(entry);
        self.appends.push(Hint { timeline, number, rights_before, change, origin, entry });
        number
    }

    /// The entry with this number, with what this command made of it; `None` when there is none.
    pub fn entry(&mut self, timeline: TimelineId, number: u64) -> Option<Entry> {
        if let Some((_, _, bytes)) = self.replaced.iter().rev().find(|(t, n, _)| (*t, *n) == (timeline, number)) {
            return Entry::from_bytes(bytes).ok();
        }
        if let Some(hint) = self.appends.iter().find(|hint| (hint.timeline, hint.number) == (timeline, number)) {
            return Entry::from_bytes(&hint.entry.0).ok();
        }
        if self.erased.contains(&timeline) {
            return None;
        }
        let found = self.store.entries(timeline, number, number, usize::MAX);
        let found = self.or_fault(found);
        Entry::from_bytes(found.entries.first().filter(|_| number > 0)?).ok()
    }

    /// Puts another body in the place of that of an entry that is there, whose number, time and sender stay. Devices
    /// that have the entry learn it from an entry that is appended beside this.
    pub fn replace(&mut self, timeline: TimelineId, number: u64, body: Body) {
        let Some(entry) = self.entry(timeline, number) else { return };
        let bytes = Bytes::from(Entry { body, ..entry }.to_bytes());
        self.replaced.push((timeline, number, bytes));
    }

    /// Removes all entries of a timeline, which nobody reads any more, and those that this command appended with them.
    pub fn erase(&mut self, timeline: TimelineId) {
        self.appends.retain(|hint| hint.timeline != timeline);
        self.replaced.retain(|(replaced, ..)| *replaced != timeline);
        self.erased.push(timeline);
    }

    /// The first keys of records that begin with `prefix` and come after `after`, at most so many: of what may be many,
    /// and is looked for seldom.
    pub fn keys(&mut self, prefix: &Key, after: Option<&Key>, max: usize) -> Vec<Key> {
        let found = self.store.keys(prefix, after, max + self.staged.len());
        let mut keys: BTreeSet<Key> = self.or_fault(found).into_iter().collect();
        for (key, record) in self.staged.iter().filter(|(key, _)| key.is_in(prefix, after)) {
            match record {
                Some(_) => _ = keys.insert(*key),
                None => _ = keys.remove(key),
            }
        }
        keys.into_iter().take(max).collect()
    }

    /// The session that what is appended from here on comes from. Its answer must say all of the entry that the
    /// session does not know: the number and the time.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = Some(origin);
    }

    /// Sends a command to another entity, through the outbox: exactly once, in order with what this shard sends
    /// to that one.
    pub fn send<C: bincode::Encode>(&mut self, to: EntityId, command: &C) {
        self.sends.push((to, codec::encode(command)));
    }

    /// Tells who follows the shard's feed that something happened to the timeline's entity that is no entry of it.
    pub fn note(&mut self, timeline: TimelineId, what: u32) {
        self.notes.push((timeline, crate::shard::feed::note(what)));
    }

    /// What was noted and is not in the feed yet.
    pub(crate) fn take_notes(&mut self) -> Vec<(TimelineId, u64)> {
        std::mem::take(&mut self.notes)
    }

    /// What was sent and is not in the outbox yet.
    pub(crate) fn take_sends(&mut self) -> Vec<(EntityId, Vec<u8>)> {
        std::mem::take(&mut self.sends)
    }

    /// Makes the writes part of the state.
    pub(crate) fn commit(self) -> SmallVec<[Hint; 1]> {
        for (key, record) in self.staged {
            self.store.put(key, record);
        }
        self.amendments.into_iter().for_each(|amend| amend(self.store));
        self.erased.into_iter().for_each(|timeline| self.store.erase(timeline));
        for hint in &self.appends {
            self.store.append(hint.timeline, hint.number, &hint.entry.0);
        }
        for (timeline, number, entry) in self.replaced {
            self.store.replace(timeline, number, entry);
        }
        self.appends
    }
}
