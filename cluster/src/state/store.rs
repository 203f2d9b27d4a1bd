//! The state of one shard as reads and transactions see it: memory over the base.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    mem,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use magpie_protocol::{TimelineId, codec};

use super::{
    base::{Applied, StateBase, StateError, Write, unseal},
    entries::Row,
    key::{AnyRecord, Key, Record},
    layers::{Generations, Layer, StoredRun, Weigh},
};

/// What a place in a cache takes beyond its value, in bytes.
const PLACE_BYTES: usize = 96;
/// Newest entries of a timeline that stay in memory, at least, and how many more at most: older ones go together.
const TAIL_ENTRIES: usize = 16;
const TAIL_SPARE: usize = 8;
/// Entries on their way to those who follow them share pieces of memory of this size.
const GATHERED_BYTES: usize = 16 * 1024;

struct Tail {
    head: u64,
    entries: Row,
}

impl Tail {
    fn new(head: u64) -> Self {
        Self { head, entries: Row::default() }
    }
}

impl Weigh for Tail {
    fn weight(&self) -> usize {
        PLACE_BYTES + self.entries.weight()
    }
}

impl Weigh for Option<Arc<dyn AnyRecord>> {
    fn weight(&self) -> usize {
        PLACE_BYTES + self.as_ref().map_or(0, |record| record.weight())
    }
}

/// Entries of a timeline, and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineView {
    pub head: u64,
    pub entries: Vec<Bytes>,
}

/// A layer on its way to the base.
#[derive(Clone)]
pub struct Frozen {
    layer: Arc<Layer>,
    applied: Applied,
}

impl Frozen {
    /// The last entry in it.
    pub fn index(&self) -> u64 {
        self.applied.index()
    }

    /// The layer as writes, and how far it is. Made off the hot path.
    ///
    /// # Errors
    /// When the base cannot be read where entries of it were replaced.
    pub fn writes(&self, base: &dyn StateBase) -> Result<(Vec<Write>, Applied), StateError> {
        Ok((self.layer.writes(base)?, self.applied.clone()))
    }
}

/// See the module's documentation.
pub struct Store {
    base: Arc<dyn StateBase>,
    records: Generations<Key, Option<Arc<dyn AnyRecord>>>,
    tails: Generations<TimelineId, Tail>,
    dirty: Layer,
    frozen: Option<Frozen>,
    applied: Applied,
    /// No checkpoint begins: the base is being read as it was behind this entry.
    held: Option<u64>,
    fault: Option<StateError>,
    gathered: BytesMut,
}

impl Store {
    /// The state over `base`, with about this much memory for what is in use, in bytes.
    pub fn new(base: Arc<dyn StateBase>, cache_bytes: usize) -> Self {
        let applied = base.applied();
        Self {
            base,
            // Each holds up to twice this.
            records: Generations::new(cache_bytes / 8 * 3),
            tails: Generations::new(cache_bytes / 8),
            dirty: Layer::default(),
            frozen: None,
            applied,
            held: None,
            fault: None,
            gathered: BytesMut::with_capacity(GATHERED_BYTES),
        }
    }

    /// These bytes in memory that they share with others: for what is let go of soon.
    pub(super) fn gather(&mut self, bytes: &[u8]) -> Bytes {
        self.gathered.extend_from_slice(bytes);
        self.gathered.split().freeze()
    }

    /// What records and timelines in use take of memory, in bytes, about.
    pub fn cached_bytes(&self) -> usize {
        self.records.bytes() + self.tails.bytes()
    }

    /// How far the state is.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Moves the applied position on.
    pub fn set_applied(&mut self, applied: Applied) {
        self.applied = applied;
    }

    /// Damage that a read met. Nothing more may be applied or served.
    pub fn fault(&self) -> Option<&StateError> {
        self.fault.as_ref()
    }

    /// A read met damage.
    pub fn report(&mut self, fault: StateError) {
        self.fault = Some(fault);
    }

    /// The record under this key.
    pub fn get<R: Record>(&mut self, key: &Key) -> Result<Option<Arc<R>>, StateError> {
        let Self { records, dirty, frozen, base, .. } = self;
        let record = records.get_or_make(*key, || {
            if let Some(changed) = dirty.records.get(key).or_else(|| frozen.as_ref()?.layer.records.get(key)) {
                return Ok(changed.clone());
            }
            let Some(stored) = base.get(key.as_bytes())? else { return Ok(None) };
            let record: R = codec::decode_stored(unseal(key.as_bytes(), &stored)?)
                .map_err(|e| StateError::Damaged { place: format!("record {key:?}"), what: e.to_string() })?;
            Ok(Some(Arc::new(record) as Arc<dyn AnyRecord>))
        })?;
        Ok(typed(record.clone()))
    }

    pub(super) fn put(&mut self, key: Key, record: Option<Arc<dyn AnyRecord>>) {
        self.records.insert(key, record.clone());
        self.dirty.put(key, record);
    }

    /// Changes a record that was read as `record`; in place, when nobody but this store holds it.
    pub(super) fn amend<R: Record + Clone>(&mut self, key: Key, mut record: Arc<R>, change: impl FnOnce(&mut R)) {
        let Self { records, dirty, .. } = self;
        let Ok(cached) = records.get_or_make(key, || Ok::<_, Infallible>(None));
        let changed = dirty.place(key);
        // What they hold is this record, if anything.
        (*cached, *changed) = (None, None);
        change(Arc::make_mut(&mut record));
        *cached = Some(record.clone());
        *changed = Some(record);
    }

    fn tail(&mut self, timeline: TimelineId) -> Result<&mut Tail, StateError> {
        let Self { tails, dirty, frozen, base, .. } = self;
        tails.get_or_make(timeline, || {
            let changed = dirty.head(timeline).or_else(|| frozen.as_ref()?.layer.head(timeline));
            let head = changed.map_or_else(|| base_head(&**base, timeline), Ok)?;
            Ok(Tail::new(head))
        })
    }

    /// Changes what is in use of a timeline.
    fn change_tail(&mut self, timeline: TimelineId, change: impl FnOnce(&mut Tail)) {
        if let Ok(tail) = self.tail(timeline) {
            let before = tail.entries.weight();
            change(tail);
            let grown = tail.entries.weight() as isize - before as isize;
            self.tails.grown(grown);
        }
    }

    /// The number of the timeline's newest entry; 0 when there is none.
    pub fn head(&mut self, timeline: TimelineId) -> Result<u64, StateError> {
        Ok(self.tail(timeline)?.head)
    }

    pub(super) fn append(&mut self, timeline: TimelineId, number: u64, entry: &[u8]) {
        self.change_tail(timeline, |tail| {
            tail.head = number;
            tail.entries.push(entry);
            if tail.entries.len() > TAIL_ENTRIES + TAIL_SPARE {
                tail.entries.forget(TAIL_SPARE + 1);
            }
        });
        self.dirty.append(timeline, number, entry);
    }

    /// Entries `from..=to`, as many as are there and fit in `bytes_max`; at least one if there is one.
    pub fn entries(
        &mut self,
        timeline: TimelineId,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<TimelineView, StateError> {
        let tail = self.tail(timeline)?;
        let head = tail.head;
        let to = to.min(head);
        let tail_first = head + 1 - tail.entries.len() as u64;
        let mut entries: Vec<Bytes> = Vec::new();
        let mut bytes = 0;
        let mut fits = |entry: &[u8], have: usize| {
            bytes += entry.len() + 8;
            have == 0 || bytes <= bytes_max
        };
        let mut number = from.max(1);
        if number >= tail_first {
            let wanted = number..=to;
            for entry in wanted.map_while(|number| tail.entries.get((number - tail_first) as usize)) {
                if !fits(entry, entries.len()) {
                    break;
                }
                entries.push(Bytes::copy_from_slice(entry));
            }
            return Ok(TimelineView { head, entries });
        }
        'outer: while number <= to {
            if let Some(entry) = self.changed(timeline, number) {
                if !fits(entry, entries.len()) {
                    break;
                }
                entries.push(Bytes::copy_from_slice(entry));
                number += 1;
                continue;
            }
            let stored = StoredRun::holding(&*self.base, timeline, number)?;
            let skip = (number - stored.first) as usize;
            for entry in stored.entries.into_iter().skip(skip).take((to + 1 - number) as usize) {
                let entry = self.changed(timeline, number).map_or(entry, Bytes::copy_from_slice);
                if !fits(&entry, entries.len()) {
                    break 'outer;
                }
                entries.push(entry);
                number += 1;
            }
        }
        Ok(TimelineView { head, entries })
    }

    /// The entry as the layers above the base have it, if they do.
    fn changed(&self, timeline: TimelineId, number: u64) -> Option<&[u8]> {
        let layers = [Some(&self.dirty), self.frozen.as_ref().map(|frozen| &*frozen.layer)];
        layers.into_iter().flatten().find_map(|layer| {
            let replaced = || if layer.replaced.is_empty() { None } else { layer.replaced.get(&(timeline, number)) };
            layer.appended(timeline, number).or_else(|| replaced().map(|entry| &entry[..]))
        })
    }

    /// Puts another entry in the place of one that is there.
    pub(super) fn replace(&mut self, timeline: TimelineId, number: u64, entry: Bytes) {
        self.change_tail(timeline, |tail| {
            let back = tail.head.checked_sub(number);
            let at = back.and_then(|back| tail.entries.len().checked_sub(back as usize + 1));
            at.into_iter().for_each(|at| tail.entries.replace(at, &entry));
        });
        self.dirty.replace(timeline, number, entry);
    }

    /// Removes all entries of a timeline.
    pub(super) fn erase(&mut self, timeline: TimelineId) {
        self.tails.insert(timeline, Tail::new(0));
        self.dirty.erase(timeline);
    }

    /// The first keys of records that begin with `prefix` and come after `after`, at most so many. Looks through all that
    /// changed since the last checkpoint: for what happens seldom.
    pub(super) fn keys(&self, prefix: &Key, after: Option<&Key>, max: usize) -> Result<Vec<Key>, StateError> {
        let wanted = |key: &Key| key.is_in(prefix, after);
        let frozen = self.frozen.as_ref().map(|frozen| &*frozen.layer);
        let mut changed = BTreeMap::new();
        for layer in frozen.into_iter().chain([&self.dirty]) {
            let under = layer.records.iter().filter(|(key, _)| wanted(key));
            changed.extend(under.map(|(key, record)| (*key, record.is_some())));
        }
        let mut found: BTreeSet<Key> = changed.iter().filter(|(_, there)| **there).map(|(key, _)| *key).collect();
        let mut stored = 0;
        self.base.scan_from(after.unwrap_or(prefix).as_bytes(), &mut |bytes, _| {
            let under = bytes.starts_with(prefix.as_bytes()) && stored < max;
            let Some(key) = Key::stored(bytes).filter(|_| under) else { return Ok(false) };
            if wanted(&key) && !changed.contains_key(&key) {
                stored += 1;
                found.insert(key);
            }
            Ok(true)
        })?;
        Ok(found.into_iter().take(max).collect())
    }

    /// Bytes that changed since the last checkpoint, about.
    pub fn dirty_bytes(&self) -> usize {
        self.dirty.bytes
    }

    /// Begins a checkpoint after which no other begins before [`Store::release`]: the base can be read piece by piece.
    pub fn freeze_and_hold(&mut self) -> Option<Frozen> {
        let frozen = self.freeze();
        if let Some(frozen) = &frozen {
            self.held = Some(frozen.applied.index());
        }
        frozen
    }

    /// Whether the base is kept as it was behind this entry.
    pub fn is_held(&self, index: u64) -> bool {
        self.held == Some(index)
    }

    /// Checkpoints begin again. Whoever reads the base sees that with [`Store::is_held`].
    pub fn release(&mut self) {
        self.held = None;
    }

    /// Begins a checkpoint: what changed so far becomes a fixed layer. `None` while one is under way, while the base is
    /// held, or when nothing changed.
    pub fn freeze(&mut self) -> Option<Frozen> {
        if self.frozen.is_some()
            || self.held.is_some()
            || (self.dirty.is_empty() && self.base.applied() == self.applied)
        {
            return None;
        }
        let frozen = Frozen { layer: Arc::new(mem::take(&mut self.dirty)), applied: self.applied.clone() };
        self.frozen = Some(frozen.clone());
        Some(frozen)
    }

    /// Whether a checkpoint is under way.
    pub fn is_writing(&self) -> bool {
        self.frozen.is_some()
    }

    /// Whether this is the checkpoint that is under way.
    pub fn is_freezing(&self, frozen: &Frozen) -> bool {
        self.frozen.as_ref().is_some_and(|mine| Arc::ptr_eq(&mine.layer, &frozen.layer))
    }

    /// The frozen layer is in the base.
    pub fn thawed(&mut self) {
        self.frozen = None;
    }

    /// Lets go of the state below memory, whoever still holds this store. Nothing can be read any more.
    pub fn let_go(&mut self) {
        self.base = Arc::new(super::memory::MemoryBase::default());
    }

    /// The state below memory.
    pub fn base(&self) -> &Arc<dyn StateBase> {
        &self.base
    }
}

fn base_head(base: &dyn StateBase, timeline: TimelineId) -> Result<u64, StateError> {
    let last = base.last(&Key::timeline(timeline))?;
    Ok(last.and_then(|key| Some(u64::from_be_bytes(*key.last_chunk::<8>()?))).unwrap_or(0))
}

fn typed<R: Record>(record: Option<Arc<dyn AnyRecord>>) -> Option<Arc<R>> {
    record.and_then(|r| r.into_any().downcast::<R>().ok())
}
