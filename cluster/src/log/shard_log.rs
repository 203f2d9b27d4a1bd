//! One shard's view of the log: its entries by index, the newest of them kept in memory.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use magpie_protocol::ShardId;

use super::{
    anchors::Anchors,
    format::{PAYLOAD_LEN_MAX, Position, Record, RecordKind},
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
    payload: Bytes,
    /// Bytes of this shard's entries before it.
    before: u64,
}

#[derive(Default)]
struct Inner {
    /// Where the older entries are.
    old: Anchors,
    /// The newest, with what they hold: those that are not written yet, and some before.
    slots: VecDeque<Slot>,
    /// The oldest entry that is there.
    first: u64,
    purged: Option<Position>,
    vote: Option<Bytes>,
    floor: Option<Position>,
    cached_bytes: usize,
    /// Bytes of all entries that were ever here.
    bytes: u64,
    /// What the whole log had taken when the oldest entry here was appended.
    oldest_at_bytes: u64,
}

impl Inner {
    fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.old.last().is_none()
    }

    fn last(&self) -> Option<Position> {
        self.slots.back().map(|s| s.position).or(self.old.last())
    }

    /// Entries before this one have only a place.
    fn newer_from(&self) -> u64 {
        self.slots.front().map_or(u64::MAX, |slot| slot.position.index)
    }
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
        let mut inner = Inner {
            first: found.entries.first().map_or(0, |(position, _)| position.index),
            purged: found.purged,
            vote: found.vote,
            floor: found.floor,
            ..Inner::default()
        };
        for (position, location) in found.entries {
            inner.old.push(position, location, inner.bytes);
            inner.bytes += u64::from(location.len);
        }
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
        inner.last().or(inner.purged)
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
        let inner = self.lock();
        let before = inner.old.before().or(inner.slots.front().map(|slot| slot.before));
        before.map_or(0, |before| inner.bytes - before)
    }

    /// Bytes of the whole log, of all shards, that must be kept because of this shard's entries.
    pub fn bytes_held_back(&self) -> u64 {
        let inner = self.lock();
        if inner.is_empty() { 0 } else { self.writer.submitted_bytes().saturating_sub(inner.oldest_at_bytes) }
    }

    /// Whether a command may be proposed: there is room above the reserve.
    pub fn has_space(&self) -> bool {
        self.writer.has_space()
    }

    /// Bytes that the whole log, of all shards, was given since it was opened.
    pub fn written_bytes(&self) -> u64 {
        self.writer.submitted_bytes()
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
        if inner.is_empty() {
            inner.oldest_at_bytes = self.writer.submitted_bytes();
            inner.first = entries.first().map_or(0, |entry| entry.position.index);
        }
        for entry in entries {
            let start = records.len();
            let payload = &entry.payload;
            // What cannot be read back must not be acknowledged.
            assert!(payload.len() <= PAYLOAD_LEN_MAX, "an entry of {} bytes", payload.len());
            Record { kind: RecordKind::Entry, shard: self.shard, position: entry.position, payload }
                .write(&mut records);
            let len = (records.len() - start) as u32;
            places.push((self.clone(), entry.position.index, start as u32, len));
            inner.cached_bytes += entry.payload.len();
            let before = inner.bytes;
            inner.bytes += u64::from(len);
            let LogEntry { position, payload } = entry;
            inner.slots.push_back(Slot { position, location: None, payload, before });
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
    pub fn truncate(&self, index: u64) -> Result<(), LogError> {
        let mut inner = self.lock();
        while inner.slots.back().is_some_and(|s| s.position.index >= index) {
            let slot = inner.slots.pop_back();
            inner.cached_bytes -= slot.map_or(0, |slot| slot.payload.len());
        }
        if inner.old.last().is_some_and(|last| last.index >= index) {
            let before =
                if index > inner.first { self.read_old(&inner.old, index - 1, index, usize::MAX)? } else { Vec::new() };
            inner.old.truncate(index, before.last().map(|entry| entry.position));
        }
        drop(inner);
        self.note(RecordKind::Truncate, Position { index, ..Position::default() }, &[], None, None);
        Ok(())
    }

    /// Lets go of the entries up to `position`, which a durable snapshot holds.
    pub fn purge(&self, position: Position) {
        let mut inner = self.lock();
        inner.old.purge(position.index);
        while inner.slots.front().is_some_and(|s| s.position.index <= position.index) {
            inner.cached_bytes -= inner.slots.pop_front().map_or(0, |slot| slot.payload.len());
        }
        inner.first = inner.first.max(position.index + 1);
        inner.oldest_at_bytes = self.writer.submitted_bytes();
        inner.purged = inner.purged.max(Some(position));
        drop(inner);
        self.note(RecordKind::Purge, position, &[], Some(Note::Purge(self.shard, position)), None);
    }

    /// What this node's replica had when it was forgotten: with less than that it does not vote.
    pub fn floor(&self) -> Option<Position> {
        self.lock().floor
    }

    /// Forgets the entries: this node no longer holds the shard. What it promised is kept, and how far it was: with
    /// less than that a replica that comes again must not decide anything. `done` is called when that is durable.
    pub fn forget(&self, vote: Option<Bytes>, done: Done) {
        if let Some(vote) = vote {
            self.save_vote(vote, Box::new(|| ()));
        }
        let mut inner = self.lock();
        let floor = inner.last().or(inner.purged).max(inner.floor).unwrap_or_default();
        *inner = Inner { vote: inner.vote.take(), floor: Some(floor), ..Inner::default() };
        drop(inner);
        self.note(RecordKind::Forget, floor, &[], Some(Note::Forget(self.shard, floor)), Some(done));
    }

    fn note(&self, kind: RecordKind, position: Position, payload: &[u8], note: Option<Note>, done: Option<Done>) {
        let mut records = Vec::new();
        Record { kind, shard: self.shard, position, payload }.write(&mut records);
        self.writer.submit(Job { records, entries: Vec::new(), notes: note.into_iter().collect(), done });
    }

    /// The writer says where an entry went. What old ones hold leaves memory.
    pub(super) fn written(&self, index: u64, location: Location) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(at) = inner.slots.front().and_then(|first| index.checked_sub(first.position.index)) else { return };
        if let Some(slot) = inner.slots.get_mut(at as usize) {
            slot.location = Some(location);
        }
        while inner.cached_bytes > TAIL_BYTES_MAX {
            let Some(slot) = inner.slots.front() else { break };
            let Some(location) = slot.location.filter(|_| slot.position.index < index) else { break };
            inner.cached_bytes -= slot.payload.len();
            inner.old.push(slot.position, location, slot.before);
            inner.slots.pop_front();
        }
    }

    /// The entries from `from` up to and without `to` that are there, from memory or from disk, checked.
    pub fn read(&self, from: u64, to: u64) -> Result<Vec<LogEntry>, LogError> {
        self.read_some(from, to, usize::MAX)
    }

    /// The first of these entries: no more follow once their payloads have `bytes` together.
    pub fn read_some(&self, from: u64, to: u64, bytes: usize) -> Result<Vec<LogEntry>, LogError> {
        let inner = self.lock();
        let (from, newer) = (from.max(inner.first), inner.newer_from());
        let old = inner.old.last().map_or(0, |last| last.index + 1).min(to);
        let mut found = if from < old { self.read_old(&inner.old, from, old, bytes)? } else { Vec::new() };
        let mut held: usize = found.iter().map(|entry| entry.payload.len()).sum();
        let from = found.last().map_or(from, |last| last.position.index + 1);
        if to > newer && from >= old {
            let slots = inner.slots.iter().skip(from.saturating_sub(newer) as usize);
            for slot in slots.take(to.saturating_sub(from.max(newer)) as usize) {
                if held >= bytes {
                    break;
                }
                held += slot.payload.len();
                found.push(LogEntry { position: slot.position, payload: slot.payload.clone() });
            }
        }
        Ok(found)
    }

    /// The first of these, from disk, up to so many bytes.
    fn read_old(&self, old: &Anchors, from: u64, to: u64, bytes: usize) -> Result<Vec<LogEntry>, LogError> {
        let read = |segment: u64, offset: u64, len: usize| -> Result<Vec<u8>, LogError> {
            let path = segment_path(&self.dir, segment);
            let there = self.disk.len(&path)?.saturating_sub(offset);
            Ok(self.disk.read_at(&path, offset, len.min(there as usize))?)
        };
        let found = old.read(self.shard, from, to, bytes, read)?;
        let expected = from + found.len() as u64;
        if expected == to || found.iter().map(|entry| entry.payload.len()).sum::<usize>() >= bytes {
            return Ok(found);
        }
        let (segment, offset) = old.place(expected).unwrap_or_default();
        Err(LogError::Damaged {
            file: segment_path(&self.dir, segment).display().to_string(),
            offset,
            what: format!("the entry {expected} of {} behind it does not check out", self.shard),
        })
    }
}

#[cfg(test)]
mod tests;
