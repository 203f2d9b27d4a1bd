//! Where the older entries of a shard lie: the place of one in sixteen, from which the others are found by reading
//! on. An entry's place takes two bytes of memory instead of a hundred, however long the log.

use std::collections::VecDeque;

use bytes::Bytes;
use magpie_protocol::ShardId;

use super::{
    format::{self, GROUP_HEADER_LEN, GROUP_MAGIC, PAYLOAD_LEN_MAX, Position, RecordKind},
    segments::Location,
    shard_log::LogEntry,
};

/// Entries from one anchor to the next, at most.
const SPACING: u64 = 16;
/// Bytes of a segment that are read at a time.
const WINDOW: usize = 64 * 1024;

/// An entry whose place is known.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    index: u64,
    segment: u64,
    offset: u32,
    /// Bytes of this shard's entries before it.
    before: u64,
}

/// The places of contiguous entries.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    list: VecDeque<Anchor>,
    /// The newest entry here.
    last: Option<Position>,
}

impl Anchors {
    /// The newest entry here.
    pub(super) fn last(&self) -> Option<Position> {
        self.last
    }

    /// Bytes of the shard's entries before the oldest anchor.
    pub(super) fn before(&self) -> Option<u64> {
        self.list.front().map(|anchor| anchor.before)
    }

    /// Adds the next entry, with the bytes of those before it. Where the term changes, void entries of an older term
    /// may lie between: nobody reads across.
    pub(super) fn push(&mut self, position: Position, location: Location, before: u64) {
        let near =
            self.list.back().is_some_and(|a| position.index < a.index + SPACING && a.segment == location.segment);
        if !near || self.last.is_none_or(|last| last.term != position.term) {
            let Location { segment, offset, .. } = location;
            self.list.push_back(Anchor { index: position.index, segment, offset, before });
        }
        self.last = Some(position);
    }

    /// Forgets the entries from `index` on; `last` is the one before it, or nothing where none is left.
    pub(super) fn truncate(&mut self, index: u64, last: Option<Position>) {
        while self.list.back().is_some_and(|anchor| anchor.index >= index) {
            self.list.pop_back();
        }
        self.last = last;
    }

    /// Forgets the entries up to `index`.
    pub(super) fn purge(&mut self, index: u64) {
        if self.last.is_none_or(|last| last.index <= index) {
            return *self = Self::default();
        }
        while self.list.get(1).is_some_and(|next| next.index <= index + 1) {
            self.list.pop_front();
        }
    }

    /// Where to begin to read for the entry `index`, and the entry from which on another place is better.
    fn find(&self, index: u64) -> Option<(Anchor, u64)> {
        let at = self.list.partition_point(|anchor| anchor.index <= index).checked_sub(1)?;
        let end = self.list.get(at + 1).map_or(u64::MAX, |next| next.index);
        Some((*self.list.get(at)?, end))
    }

    /// The place from which the entry `index` is looked for: a segment and an offset.
    pub(super) fn place(&self, index: u64) -> Option<(u64, u64)> {
        self.find(index).map(|(anchor, _)| (anchor.segment, u64::from(anchor.offset)))
    }

    /// The entries `from..to` of a shard, each checked, and no more once they have `bytes` together. `read` gives so many
    /// bytes of a segment from an offset, or as many as there are. Where an entry is not found, what it gives ends there.
    pub(super) fn read<E>(
        &self,
        shard: ShardId,
        from: u64,
        to: u64,
        bytes: usize,
        read: impl Fn(u64, u64, usize) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<LogEntry>, E> {
        let mut found = Vec::with_capacity((to - from).min(64) as usize);
        let (mut next, mut left) = (from, bytes);
        while next < to && left > 0 {
            let Some((anchor, end)) = self.find(next) else { break };
            let mut scan = Scan { shard, next, to: to.min(end), left, found: &mut found };
            scan.run(anchor, &read)?;
            if scan.next == next {
                break;
            }
            (next, left) = (scan.next, scan.left);
        }
        Ok(found)
    }
}

/// Reading on from one anchor.
struct Scan<'a> {
    shard: ShardId,
    next: u64,
    to: u64,
    /// Bytes that may still be taken: the last entry may be longer.
    left: usize,
    found: &'a mut Vec<LogEntry>,
}

impl Scan<'_> {
    fn is_done(&self) -> bool {
        self.next >= self.to || self.left == 0
    }

    fn run<E>(&mut self, from: Anchor, read: &impl Fn(u64, u64, usize) -> Result<Vec<u8>, E>) -> Result<(), E> {
        // A segment that goes on with the shard's entries has an anchor of its own.
        let (mut offset, mut window) = (u64::from(from.offset), WINDOW);
        while !self.is_done() {
            let bytes = read(from.segment, offset, window)?;
            let used = self.take(&bytes);
            offset += used as u64;
            if used > 0 {
                window = WINDOW;
            } else if bytes.len() == window && window < 2 * PAYLOAD_LEN_MAX {
                // A record that is longer than the window.
                window *= 2;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Takes whole records from the front; how many bytes they were.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while !self.is_done() {
            let rest = bytes.get(at..).unwrap_or_default();
            if let Some((record, len)) = format::read_record(rest) {
                let mine = record.kind == RecordKind::Entry && record.shard == self.shard;
                if mine && record.position.index == self.next {
                    self.left = self.left.saturating_sub(record.payload.len());
                    let payload = Bytes::copy_from_slice(record.payload);
                    self.found.push(LogEntry { position: record.position, payload });
                    self.next += 1;
                }
                at += len;
            } else if rest.len() >= GROUP_HEADER_LEN && format::u32_at(rest, 0) == GROUP_MAGIC {
                at += GROUP_HEADER_LEN;
            } else {
                break;
            }
        }
        at
    }
}
