//! One shard's view of the log: its entries by index, the newest of them kept in memory.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use magpie_protocol::ShardId;

use super::{
    format::{self, Position, Record, RecordKind},
    segments::{Location, LogError, Recovered, segment_path},
    writer::{Done, Job, LogWriter, Note},
};
use crate::disk::Disk;

/// Payload bytes of written entries that one shard keeps in memory for replicas that are nearly up to date.
const TAIL_BYTES_MAX: usize = 1024 * 1024;

/// An entry as the log keeps it.
#[derive(Clone, Debug)]
pub struct LogEntry {
    pub position: Position,
    pub payload: Bytes,
}

struct Slot {
    position: Position,
    location: Option<Location>,
    payload: Option<Bytes>,
}

#[derive(Default)]
struct Inner {
    slots: VecDeque<Slot>,
    purged: Option<Position>,
    vote: Option<Bytes>,
    cached_bytes: usize,
    /// Slots before this one have no payload in memory.
    cached_from: u64,
    /// Bytes appended since the last purge, as a measure of what a replay would cost.
    bytes_since_purge: u64,
    /// What the whole log had taken when the oldest entry here was appended.
    oldest_at_bytes: u64,
}

/// The log of one shard.
pub struct ShardLog {
    shard: ShardId,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    writer: LogWriter,
    inner: Mutex<Inner>,
}

impl ShardLog {
    /// The log of `shard`, with what recovery found of it.
    pub fn new(shard: ShardId, disk: Arc<dyn Disk>, dir: PathBuf, writer: LogWriter, found: Recovered) -> Arc<Self> {
        let slots: VecDeque<Slot> = found
            .entries
            .into_iter()
            .map(|(position, location)| Slot { position, location: Some(location), payload: None })
            .collect();
        let bytes: u64 = slots.iter().filter_map(|s| s.location).map(|l| u64::from(l.len)).sum();
        let cached_from = slots.back().map_or(0, |s| s.position.index + 1);
        let inner = Inner {
            slots,
            purged: found.purged,
            vote: found.vote,
            cached_bytes: 0,
            cached_from,
            bytes_since_purge: bytes,
            oldest_at_bytes: 0,
        };
        Arc::new(Self { shard, disk, dir, writer, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose log this is.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Where the log ends: the newest entry, or the purge point.
    pub fn last(&self) -> Option<Position> {
        let inner = self.lock();
        inner.slots.back().map(|s| s.position).or(inner.purged)
    }

    /// Entries up to here are gone behind a snapshot.
    pub fn purged(&self) -> Option<Position> {
        self.lock().purged
    }

    /// The latest vote.
    pub fn vote(&self) -> Option<Bytes> {
        self.lock().vote.clone()
    }

    /// Bytes that a replay from the purge point would read.
    pub fn bytes_since_purge(&self) -> u64 {
        self.lock().bytes_since_purge
    }

    /// Bytes of the whole log, of all shards, that must be kept because of this shard's entries.
    pub fn bytes_held_back(&self) -> u64 {
        let inner = self.lock();
        if inner.slots.is_empty() { 0 } else { self.writer.submitted_bytes().saturating_sub(inner.oldest_at_bytes) }
    }

    /// Whether a command may be proposed: there is room above the reserve.
    pub fn has_space(&self) -> bool {
        self.writer.has_space()
    }

    /// Free bytes on the log's disk when last looked at.
    pub fn free_bytes(&self) -> u64 {
        self.writer.free_bytes()
    }

    /// Appends entries; `done` is called when they are durable.
    pub fn append(self: &Arc<Self>, entries: Vec<LogEntry>, done: Done) {
        let mut records = Vec::with_capacity(entries.iter().map(|e| e.payload.len() + 64).sum());
        let mut places = Vec::with_capacity(entries.len());
        let mut inner = self.lock();
        if inner.slots.is_empty() {
            inner.oldest_at_bytes = self.writer.submitted_bytes();
        }
        for entry in entries {
            let start = records.len();
            let payload = &entry.payload;
            Record { kind: RecordKind::Entry, shard: self.shard, position: entry.position, payload }
                .write(&mut records);
            let len = (records.len() - start) as u32;
            places.push((self.clone(), entry.position.index, start as u32, len));
            inner.cached_bytes += entry.payload.len();
            inner.bytes_since_purge += u64::from(len);
            inner.slots.push_back(Slot { position: entry.position, location: None, payload: Some(entry.payload) });
        }
        drop(inner);
        self.writer.submit(Job { records, entries: places, notes: Vec::new(), done: Some(done) });
    }

    /// Saves a vote; `done` is called when it is durable.
    pub fn save_vote(&self, vote: Bytes, done: Done) {
        self.lock().vote = Some(vote.clone());
        self.note(RecordKind::Vote, Position::default(), &vote, Some(Note::Vote(self.shard, vote.clone())), Some(done));
    }

    /// Voids the entries from `index` on.
    pub fn truncate(&self, index: u64) {
        let mut inner = self.lock();
        while inner.slots.back().is_some_and(|s| s.position.index >= index) {
            let slot = inner.slots.pop_back();
            inner.cached_bytes -= slot.and_then(|s| s.payload).map_or(0, |p| p.len());
        }
        drop(inner);
        self.note(RecordKind::Truncate, Position { index, ..Position::default() }, &[], None, None);
    }

    /// Lets go of the entries up to `position`, which a durable snapshot holds.
    pub fn purge(&self, position: Position) {
        let mut inner = self.lock();
        while inner.slots.front().is_some_and(|s| s.position.index <= position.index) {
            if let Some(slot) = inner.slots.pop_front() {
                inner.cached_bytes -= slot.payload.map_or(0, |p| p.len());
                inner.bytes_since_purge -= slot.location.map_or(0, |l| u64::from(l.len)).min(inner.bytes_since_purge);
            }
        }
        inner.oldest_at_bytes = self.writer.submitted_bytes();
        inner.purged = inner.purged.max(Some(position));
        drop(inner);
        self.note(RecordKind::Purge, position, &[], Some(Note::Purge(self.shard, position)), None);
    }

    fn note(&self, kind: RecordKind, position: Position, payload: &[u8], note: Option<Note>, done: Option<Done>) {
        let mut records = Vec::new();
        Record { kind, shard: self.shard, position, payload }.write(&mut records);
        self.writer.submit(Job { records, entries: Vec::new(), notes: note.into_iter().collect(), done });
    }

    /// The writer says where an entry went. Old payloads leave memory.
    pub(super) fn written(&self, index: u64, location: Location) {
        let mut inner = self.lock();
        let Some(first) = inner.slots.front().map(|s| s.position.index) else { return };
        if index < first {
            return;
        }
        if let Some(slot) = inner.slots.get_mut((index - first) as usize) {
            slot.location = Some(location);
        }
        while inner.cached_bytes > TAIL_BYTES_MAX {
            let from = inner.cached_from.max(first);
            let Some(slot) = inner.slots.get_mut((from - first) as usize) else { break };
            if slot.location.is_none() || slot.position.index >= index {
                break;
            }
            let len = slot.payload.take().map_or(0, |p| p.len());
            inner.cached_bytes -= len;
            inner.cached_from = from + 1;
        }
    }

    /// The entries from `from` up to and without `to` that are there, from memory or from disk, checked.
    pub fn read(&self, from: u64, to: u64) -> Result<Vec<LogEntry>, LogError> {
        let inner = self.lock();
        let Some(first) = inner.slots.front().map(|s| s.position.index) else { return Ok(Vec::new()) };
        let start = (from.max(first) - first) as usize;
        let count = to.saturating_sub(from.max(first)) as usize;
        let mut found = Vec::with_capacity(count.min(64));
        for slot in inner.slots.iter().skip(start).take(count) {
            let payload = match (&slot.payload, slot.location) {
                (Some(payload), _) => payload.clone(),
                (None, Some(location)) => self.read_at(location)?,
                (None, None) => break,
            };
            found.push(LogEntry { position: slot.position, payload });
        }
        Ok(found)
    }

    fn read_at(&self, location: Location) -> Result<Bytes, LogError> {
        let path = segment_path(&self.dir, location.segment);
        let bytes = self.disk.read_at(&path, u64::from(location.offset), location.len as usize)?;
        match format::read_record(&bytes) {
            Some((record, _)) if record.shard == self.shard => Ok(Bytes::copy_from_slice(record.payload)),
            _ => Err(LogError::Damaged {
                file: path.display().to_string(),
                offset: u64::from(location.offset),
                what: "a record does not check out".into(),
            }),
        }
    }
}
