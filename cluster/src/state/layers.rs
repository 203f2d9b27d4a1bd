//! The two shapes of memory above the base: what changed since a checkpoint, and a cache of what is in use.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    hash::Hash,
    sync::Arc,
};

use bytes::Bytes;
use magpie_protocol::TimelineId;

use super::{
    base::{StateBase, StateError, Write, decode_entries, encode_entries, unseal},
    entries::{Heap, Place},
    key::{AnyRecord, Key},
};

/// Maps whose order is the same in every process.
pub type FixedMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// Most entries, and bytes of entries, that one stored record holds.
const RECORD_ENTRIES_MAX: usize = 256;
const RECORD_BYTES_MAX: usize = 32 * 1024;

/// What an entry takes in a layer beyond its bytes, about, and what its timeline does, or a place of its own.
const ENTRY_BYTES: usize = 16;
const RUN_BYTES: usize = 128;

/// Entries appended to one timeline, from `first` on.
pub struct Run {
    pub first: u64,
    entries: Vec<Place>,
}

impl Run {
    /// The number of the newest entry.
    pub fn head(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    fn place_of(&mut self, number: u64) -> Option<&mut Place> {
        self.entries.get_mut(number.checked_sub(self.first)? as usize)
    }
}

/// What changed since a checkpoint.
#[derive(Default)]
pub struct Layer {
    pub records: FixedMap<Key, Option<Arc<dyn AnyRecord>>>,
    pub runs: FixedMap<TimelineId, Run>,
    heap: Heap,
    /// Entries of earlier layers that were replaced.
    pub replaced: BTreeMap<(TimelineId, u64), Bytes>,
    /// Timelines of which nothing of earlier layers is left.
    pub erased: BTreeSet<TimelineId>,
    pub bytes: usize,
}

impl Layer {
    /// Adds an entry; the first of its timeline in this layer says its number.
    pub fn append(&mut self, timeline: TimelineId, number: u64, entry: &[u8]) {
        self.bytes += entry.len() + ENTRY_BYTES;
        let run = self.runs.entry(timeline).or_insert_with(|| {
            self.bytes += RUN_BYTES;
            Run { first: number, entries: Vec::new() }
        });
        debug_assert_eq!(run.first + run.entries.len() as u64, number, "a gap in a timeline");
        run.entries.push(self.heap.add(entry));
    }

    /// The entry with this number, if it was appended in this layer.
    pub fn appended(&self, timeline: TimelineId, number: u64) -> Option<&[u8]> {
        let run = self.runs.get(&timeline)?;
        run.entries.get(number.checked_sub(run.first)? as usize).map(|place| self.heap.get(*place))
    }

    /// Puts another entry in the place of one that is there, in this layer or below it.
    pub fn replace(&mut self, timeline: TimelineId, number: u64, entry: Bytes) {
        self.bytes += entry.len() + ENTRY_BYTES;
        match self.runs.get_mut(&timeline).and_then(|run| run.place_of(number)) {
            Some(place) => *place = self.heap.add(&entry),
            None => {
                self.bytes += RUN_BYTES;
                self.replaced.insert((timeline, number), entry);
            }
        }
    }

    /// Removes all entries of a timeline, here and in earlier layers.
    pub fn erase(&mut self, timeline: TimelineId) {
        self.runs.remove(&timeline);
        self.replaced.retain(|(replaced, _), _| *replaced != timeline);
        self.bytes += 64;
        self.erased.insert(timeline);
    }

    /// The number of the timeline's newest entry, if this layer says it.
    pub fn head(&self, timeline: TimelineId) -> Option<u64> {
        let appended = self.runs.get(&timeline).map(Run::head);
        appended.or_else(|| self.erased.contains(&timeline).then_some(0))
    }

    /// Changes or removes a record.
    pub fn put(&mut self, key: Key, record: Option<Arc<dyn AnyRecord>>) {
        if self.records.insert(key, record).is_none() {
            self.bytes += 512;
        }
    }

    /// Where this layer holds a record, for it to be changed there.
    pub fn place(&mut self, key: Key) -> &mut Option<Arc<dyn AnyRecord>> {
        self.records.entry(key).or_insert_with(|| {
            self.bytes += 512;
            None
        })
    }

    /// Whether anything changed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.runs.is_empty() && self.replaced.is_empty() && self.erased.is_empty()
    }

    /// The layer as writes to the base, entries of one timeline folded into few records.
    pub fn writes(&self, base: &dyn StateBase) -> Result<Vec<Write>, StateError> {
        let mut writes = Vec::with_capacity(self.records.len() + self.runs.len());
        for (key, record) in &self.records {
            writes.push((*key, record.as_ref().map(|r| r.encode())));
        }
        // Before what was appended to them since.
        writes.extend(self.erased.iter().map(|timeline| (Key::entries(*timeline, 0), None)));
        for (&timeline, run) in &self.runs {
            let (mut start, mut bytes) = (0, 0);
            for (i, entry) in run.entries.iter().enumerate() {
                bytes += entry.len();
                if i + 1 == run.entries.len() || i + 1 - start >= RECORD_ENTRIES_MAX || bytes >= RECORD_BYTES_MAX {
                    let last = run.first + i as u64;
                    let entries = run.entries[start..=i].iter().map(|place| self.heap.get(*place));
                    writes.push((Key::entries(timeline, last), Some(encode_entries(entries))));
                    (start, bytes) = (i + 1, 0);
                }
            }
        }
        self.rewrite(base, &mut writes)?;
        Ok(writes)
    }

    /// The base's records that hold replaced entries, written anew.
    fn rewrite(&self, base: &dyn StateBase, writes: &mut Vec<Write>) -> Result<(), StateError> {
        let mut rest = self.replaced.iter().peekable();
        while let Some(&(&(timeline, number), _)) = rest.peek() {
            let found = StoredRun::holding(base, timeline, number)?;
            let (mut entries, last) = (found.entries, found.last);
            while let Some((&(_, number), entry)) = rest.next_if(|((t, n), _)| *t == timeline && *n <= last) {
                entries[(number - found.first) as usize] = entry.clone();
            }
            writes.push((Key::entries(timeline, last), Some(encode_entries(entries.iter()))));
        }
        Ok(())
    }
}

/// One record of the base with entries of a timeline.
pub struct StoredRun {
    pub first: u64,
    pub last: u64,
    /// Those with the numbers from `first` to `last`.
    pub entries: Vec<Bytes>,
}

impl StoredRun {
    /// The record that holds the entry with this number.
    pub fn holding(base: &dyn StateBase, timeline: TimelineId, number: u64) -> Result<Self, StateError> {
        let damaged = |what: &str| StateError::Damaged { place: format!("{timeline}#{number}"), what: what.to_owned() };
        let from = Key::entries(timeline, number);
        let found = base.next(&Key::timeline(timeline), from.as_bytes())?;
        let (key, stored) = found.ok_or_else(|| damaged("the entry is missing"))?;
        let last = key.last_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
        let entries = decode_entries(&timeline, unseal(&key, &stored)?.to_vec())?;
        let first = (last + 1).checked_sub(entries.len() as u64).ok_or_else(|| damaged("more entries than numbers"))?;
        if entries.is_empty() || number < first {
            return Err(damaged("the entry is missing"));
        }
        Ok(Self { first, last, entries })
    }
}

/// A cache in two generations: what was used since the last turn, and what was used before. When the young one
/// is full the old one is dropped. No bookkeeping on a hit but a move from old to young.
pub struct Generations<K, V> {
    young: FixedMap<K, V>,
    old: FixedMap<K, V>,
    weight: usize,
    /// What the old one weighed when it was young.
    old_weight: usize,
    weight_max: usize,
}

/// What a cached value takes of memory, in bytes, about.
pub trait Weigh {
    fn weight(&self) -> usize;
}

impl<K: Hash + Eq + Copy, V: Weigh> Generations<K, V> {
    /// A cache of at most about twice `weight_max`.
    pub fn new(weight_max: usize) -> Self {
        Self { young: FixedMap::default(), old: FixedMap::default(), weight: 0, old_weight: 0, weight_max }
    }

    /// What is cached under this key.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        self.get_or_make(*key, || Err(())).ok()
    }

    /// What is cached under this key; else what this makes, which is cached from then on.
    pub fn get_or_make<E>(&mut self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<&mut V, E> {
        self.turn();
        match self.young.entry(key) {
            Entry::Occupied(cached) => Ok(cached.into_mut()),
            Entry::Vacant(place) => {
                let value = self.old.remove(&key).map_or_else(make, Ok)?;
                self.weight += value.weight();
                Ok(place.insert(value))
            }
        }
    }

    /// Caches a value.
    pub fn insert(&mut self, key: K, value: V) {
        self.turn();
        match self.young.entry(key) {
            Entry::Occupied(mut cached) => _ = cached.insert(value),
            Entry::Vacant(place) => {
                self.weight += value.weight();
                place.insert(value);
            }
        }
    }

    /// Once the young generation is full it is the old one.
    fn turn(&mut self) {
        if self.weight > self.weight_max {
            self.old = std::mem::take(&mut self.young);
            self.old_weight = std::mem::take(&mut self.weight);
        }
    }

    /// A value that [`Generations::get`] gave has grown, or become smaller.
    pub fn grown(&mut self, bytes: isize) {
        self.weight = self.weight.saturating_add_signed(bytes);
    }

    /// What all of it takes, in bytes, at the most: what moved from old to young counts in both.
    pub fn bytes(&self) -> usize {
        self.weight + self.old_weight
    }

    /// How many values are cached.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
