//! The files of the log, and what a restart makes of them.
//!
//! Recovery drops only a last group that does not check out and after which no valid group follows: that is a
//! write that was never synced, so never acknowledged. Anything else that does not check out stops the node.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use magpie_protocol::ShardId;

use super::format::{self, GROUP_HEADER_LEN, Position, Record, RecordKind, SEGMENT_HEADER_LEN};
use crate::disk::{Disk, DiskFile};

/// What is wrong with the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    #[error("log: {0}")]
    Io(#[from] io::Error),
    #[error(
        "log damaged: {file} at offset {offset}: {what}. Nothing of it is served: restore this file, or remove the \
         data folder and let the node rejoin under a new id"
    )]
    Damaged { file: String, offset: u64, what: String },
}

/// The log's bounds.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// A segment is closed when it has grown past this, in bytes.
    pub segment_bytes: u64,
    /// Free space below which commands are refused before they are proposed, in bytes.
    pub reserve_bytes: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { segment_bytes: 32 * 1024 * 1024, reserve_bytes: 64 * 1024 * 1024 }
    }
}

/// Where the bytes of a record are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    pub segment: u64,
    pub offset: u32,
    pub len: u32,
}

/// What recovery found of one shard.
#[derive(Debug, Default, Clone)]
pub struct Recovered {
    /// The latest vote, as it was saved.
    pub vote: Option<Bytes>,
    /// Entries up to here are gone behind a snapshot.
    pub purged: Option<Position>,
    /// What a replica that was forgotten had: who has less of the log than that does not vote.
    pub floor: Option<Position>,
    /// The entries that are there, contiguous.
    pub entries: Vec<(Position, Location)>,
}

#[derive(Debug, Default)]
struct SegmentFacts {
    last_index: HashMap<ShardId, u64>,
}

/// The open log.
pub struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    limits: LogLimits,
    file: Box<dyn DiskFile>,
    segment: u64,
    len: u64,
    /// The file has room up to here.
    reserved: u64,
    next_group: u64,
    facts: BTreeMap<u64, SegmentFacts>,
    /// Votes and purge points, repeated at the front of each segment so that older ones can go.
    votes: BTreeMap<ShardId, Bytes>,
    purged: BTreeMap<ShardId, Position>,
    floors: BTreeMap<ShardId, Position>,
}

/// Room that is asked for at a time, in bytes.
const RESERVE_AHEAD: u64 = 4 * 1024 * 1024;

/// The name of a segment's file.
pub fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("log-{segment:010}.seg"))
}

impl Segments {
    /// Opens the log in `dir`, making it when there is none, and says what it holds of each shard.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        limits: LogLimits,
    ) -> Result<(Self, BTreeMap<ShardId, Recovered>), LogError> {
        disk.create_dir(dir)?;
        let mut numbers: Vec<u64> = Vec::new();
        for name in disk.list(dir)? {
            if let Some(n) = name.strip_prefix("log-").and_then(|n| n.strip_suffix(".seg")).and_then(|n| n.parse().ok())
            {
                numbers.push(n);
            }
        }
        let mut recovery = Recovery::default();
        for (i, &number) in numbers.iter().enumerate() {
            recovery.read_segment(&disk, dir, number, i + 1 == numbers.len())?;
        }
        let last = numbers.last().copied();
        let file = match last {
            Some(number) => disk.open(&segment_path(dir, number), recovery.len)?,
            None => disk.create(&segment_path(dir, 0))?,
        };
        let mut log = Self {
            disk,
            dir: dir.to_owned(),
            limits,
            file,
            segment: last.unwrap_or(0),
            len: recovery.len,
            reserved: recovery.len,
            next_group: recovery.next_group,
            facts: recovery.facts,
            votes: recovery.shards.iter().filter_map(|(s, r)| Some((*s, r.vote.clone()?))).collect(),
            purged: recovery.shards.iter().filter_map(|(s, r)| Some((*s, r.purged?))).collect(),
            floors: recovery.shards.iter().filter_map(|(s, r)| Some((*s, r.floor?))).collect(),
        };
        if last.is_none() || recovery.headerless {
            log.file.truncate(0)?;
            log.start_segment()?;
        }
        Ok((log, recovery.shards))
    }

    fn start_segment(&mut self) -> io::Result<()> {
        self.file.append(&format::segment_header(self.segment, self.next_group))?;
        self.len = SEGMENT_HEADER_LEN as u64;
        self.reserved = self.len;
        let mut group = vec![0; GROUP_HEADER_LEN];
        for (&shard, vote) in &self.votes {
            let position = Position::default();
            Record { kind: RecordKind::Vote, shard, position, payload: vote }.write(&mut group);
        }
        for (&shard, &position) in &self.floors {
            Record { kind: RecordKind::Floor, shard, position, payload: &[] }.write(&mut group);
        }
        for (&shard, &position) in &self.purged {
            Record { kind: RecordKind::Purge, shard, position, payload: &[] }.write(&mut group);
        }
        if group.len() > GROUP_HEADER_LEN {
            self.write_group(&mut group)?;
        }
        self.file.sync()?;
        self.disk.sync_dir(&self.dir)
    }

    /// Appends a group whose records stand behind [`GROUP_HEADER_LEN`] spare bytes. Returns the segment and the
    /// offset of its first record. Not durable before [`Segments::sync`].
    pub fn write_group(&mut self, group: &mut [u8]) -> io::Result<(u64, u64)> {
        format::finish_group(group, self.next_group);
        let at = self.len + GROUP_HEADER_LEN as u64;
        if self.len + group.len() as u64 > self.reserved {
            let room = RESERVE_AHEAD.max(group.len() as u64).min(self.limits.segment_bytes);
            self.file.reserve(room);
            self.reserved = self.len + room;
        }
        self.file.append(group)?;
        self.next_group += 1;
        self.len += group.len() as u64;
        Ok((self.segment, at))
    }

    /// Makes everything written durable.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    /// Notes that an entry went to the current segment.
    pub fn note_entry(&mut self, shard: ShardId, index: u64) {
        self.facts.entry(self.segment).or_default().last_index.insert(shard, index);
    }

    /// Notes a vote, to be repeated in later segments.
    pub fn note_vote(&mut self, shard: ShardId, vote: Bytes) {
        self.votes.insert(shard, vote);
    }

    /// Notes that a shard's entries up to here are in a snapshot.
    pub fn note_purge(&mut self, shard: ShardId, position: Position) {
        self.purged.insert(shard, position);
    }

    /// Notes that a shard is no longer here, and what it had.
    pub fn note_forget(&mut self, shard: ShardId, floor: Position) {
        self.facts.values_mut().for_each(|facts| _ = facts.last_index.remove(&shard));
        self.purged.remove(&shard);
        self.floors.insert(shard, floor);
    }

    /// Begins a new segment when this one is full, or when nothing in it is needed any more: words that were taken back
    /// must not stay in it until it is full. Removes those that nobody needs.
    pub fn roll(&mut self) -> io::Result<()> {
        let holds = self.facts.get(&self.segment).is_some_and(|facts| !facts.last_index.is_empty());
        let spent = holds && self.facts.get(&self.segment).is_some_and(|facts| self.is_needless(facts));
        if self.len >= self.limits.segment_bytes || spent {
            let next = self.segment + 1;
            // The room that was not used goes back.
            self.file.truncate(self.len)?;
            self.file = self.disk.create(&segment_path(&self.dir, next))?;
            self.segment = next;
            self.start_segment()?;
        }
        // Only from the front: what recovery reads must be contiguous.
        while let Some((&oldest, facts)) = self.facts.first_key_value() {
            if oldest >= self.segment || !self.is_needless(facts) {
                break;
            }
            // What lets it go must be durable first: after a power loss it would be missed.
            self.file.sync()?;
            self.facts.remove(&oldest);
            self.disk.remove(&segment_path(&self.dir, oldest))?;
        }
        Ok(())
    }

    /// Whether every entry in a segment is in a snapshot.
    fn is_needless(&self, facts: &SegmentFacts) -> bool {
        facts.last_index.iter().all(|(shard, last)| self.purged.get(shard).is_some_and(|p| p.index >= *last))
    }

    /// How long the next write and sync take where time is simulated.
    pub fn simulated_time(&self) -> Duration {
        self.disk.simulated_time()
    }

    /// Free space on the log's disk, and the space below which commands are refused, in bytes.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        Ok((self.disk.free_bytes(&self.dir)?, self.limits.reserve_bytes))
    }
}

#[derive(Default)]
struct Recovery {
    shards: BTreeMap<ShardId, Recovered>,
    facts: BTreeMap<u64, SegmentFacts>,
    next_group: u64,
    len: u64,
    headerless: bool,
    started: bool,
}

impl Recovery {
    fn read_segment(&mut self, disk: &Arc<dyn Disk>, dir: &Path, segment: u64, last: bool) -> Result<(), LogError> {
        let path = segment_path(dir, segment);
        let bytes = disk.read(&path)?;
        let damaged = |offset: usize, what: &str| LogError::Damaged {
            file: path.display().to_string(),
            offset: offset as u64,
            what: what.to_owned(),
        };
        let header = format::read_segment_header(&bytes);
        let Some((number, first_group)) = header else {
            // A segment that was being made when the power went: nothing in it was synced.
            if last && find_group(&bytes, 0, 0).is_none() {
                self.headerless = true;
                return Ok(());
            }
            return Err(damaged(0, "the segment's header does not check out"));
        };
        if number != segment || (self.started && first_group != self.next_group) {
            return Err(damaged(0, "a segment before it is missing"));
        }
        self.started = true;
        self.next_group = first_group;
        self.facts.entry(segment).or_default();
        let mut at = SEGMENT_HEADER_LEN;
        while at < bytes.len() {
            match format::read_group(&bytes[at..]) {
                Some((number, records)) if number == self.next_group => {
                    self.read_records(segment, at + GROUP_HEADER_LEN, records, &damaged)?;
                    at += GROUP_HEADER_LEN + records.len();
                    self.next_group += 1;
                }
                // Room that was reserved and not used.
                None if bytes[at..].iter().all(|b| *b == 0) => break,
                _ if last && find_group(&bytes, at, self.next_group + 1).is_none() => {
                    tracing::warn!(file = %path.display(), offset = at, dropped_bytes = bytes.len() - at,
                        "dropped a group that was never synced from the end of the log");
                    disk.open(&path, at as u64)?.truncate(at as u64)?;
                    break;
                }
                _ => return Err(damaged(at, "a group of records does not check out, and valid ones follow it")),
            }
        }
        self.len = at as u64;
        Ok(())
    }

    fn read_records(
        &mut self,
        segment: u64,
        offset: usize,
        records: &[u8],
        damaged: &dyn Fn(usize, &str) -> LogError,
    ) -> Result<(), LogError> {
        let mut at = 0;
        while at < records.len() {
            let (record, len) = format::read_record(&records[at..])
                .ok_or_else(|| damaged(offset + at, "a record does not check out"))?;
            let location = Location { segment, offset: (offset + at) as u32, len: len as u32 };
            self.take(record, location).map_err(|what| damaged(offset + at, what))?;
            at += len;
        }
        Ok(())
    }

    fn take(&mut self, record: Record<'_>, location: Location) -> Result<(), &'static str> {
        let shard = self.shards.entry(record.shard).or_default();
        let index = record.position.index;
        match record.kind {
            RecordKind::Entry => {
                let after = shard.entries.last().map(|(p, _)| p.index).or(shard.purged.map(|p| p.index));
                if after.is_some_and(|after| index != after + 1) && !shard.entries.is_empty() {
                    return Err("an entry is missing before this one");
                }
                shard.entries.push((record.position, location));
                let facts = self.facts.entry(location.segment).or_default();
                facts.last_index.insert(record.shard, index);
            }
            RecordKind::Vote => shard.vote = Some(Bytes::copy_from_slice(record.payload)),
            RecordKind::Truncate => shard.entries.retain(|(p, _)| p.index < index),
            RecordKind::Purge => {
                shard.entries.retain(|(p, _)| p.index > index);
                shard.purged = shard.purged.max(Some(record.position));
            }
            RecordKind::Floor => shard.floor = shard.floor.max(Some(record.position)),
            RecordKind::Seal => {}
            RecordKind::Forget => {
                let (vote, floor) = (shard.vote.take(), shard.floor.max(Some(record.position)));
                *shard = Recovered { vote, floor, ..Recovered::default() };
                self.facts.values_mut().for_each(|facts| _ = facts.last_index.remove(&record.shard));
            }
        }
        Ok(())
    }
}

/// The offset of a valid group at or after `from` whose number is at least `number_min`.
fn find_group(bytes: &[u8], from: usize, number_min: u64) -> Option<usize> {
    let magic = format::GROUP_MAGIC.to_le_bytes();
    let mut at = from;
    while at + GROUP_HEADER_LEN <= bytes.len() {
        let next = bytes[at..].windows(4).position(|window| window == magic)?;
        at += next;
        if format::read_group(&bytes[at..]).is_some_and(|(number, _)| number >= number_min) {
            return Some(at);
        }
        at += 1;
    }
    None
}
