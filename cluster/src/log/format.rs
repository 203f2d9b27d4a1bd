//! The log's bytes.
//!
//! A segment is a header and then groups. A group is what one write put there and one sync made durable:
//! `magic u32 | len u32 | number u64 | checksum u64 | records`, all little endian; groups are numbered without
//! gaps over all segments. A record is `checksum u64 | kind u8 | shard u16 | term u64 | node u64 | index u64 |
//! len u32 | payload`, so that it can be read and checked by itself. Checksums are XXH3-64.

use magpie_protocol::ShardId;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// At the front of every segment, with the format's version in its last byte.
pub const SEGMENT_MAGIC: [u8; 8] = *b"MAGPLOG\x01";
/// Magic, segment number, number of its first group, checksum.
pub const SEGMENT_HEADER_LEN: usize = 32;
/// At the front of every group.
pub const GROUP_MAGIC: u32 = 0x4d47_5031;
/// See the module's documentation.
pub const GROUP_HEADER_LEN: usize = 24;
/// See the module's documentation.
pub const RECORD_HEADER_LEN: usize = 39;
/// Longest payload of a record.
pub const PAYLOAD_LEN_MAX: usize = 8 * 1024 * 1024;

/// Where an entry stands in a shard's log: Raft's log id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Position {
    pub term: u64,
    pub node: u64,
    pub index: u64,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// An entry of a shard's log.
    Entry = 1,
    /// What the shard's replica has voted.
    Vote = 2,
    /// Entries from this index on are void.
    Truncate = 3,
    /// Entries up to this position are in a snapshot.
    Purge = 4,
    /// Everything before was synced.
    Seal = 5,
    /// The node no longer holds the shard: its entries, the last of which was this one, are void.
    Forget = 6,
    /// A replica that was forgotten had entries up to this one.
    Floor = 7,
}

impl RecordKind {
    fn from_tag(tag: u8) -> Option<Self> {
        [Self::Entry, Self::Vote, Self::Truncate, Self::Purge, Self::Seal, Self::Forget, Self::Floor]
            .into_iter()
            .find(|k| *k as u8 == tag)
    }
}

/// One record, borrowed from where it was read.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub kind: RecordKind,
    pub shard: ShardId,
    pub position: Position,
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Appends the record to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        out.push(self.kind as u8);
        out.extend_from_slice(&self.shard.get().to_le_bytes());
        out.extend_from_slice(&self.position.term.to_le_bytes());
        out.extend_from_slice(&self.position.node.to_le_bytes());
        out.extend_from_slice(&self.position.index.to_le_bytes());
        out.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(self.payload);
        let checksum = xxh3_64(&out[start + 8..]);
        out[start..start + 8].copy_from_slice(&checksum.to_le_bytes());
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The record at the front of `bytes` and its length, or `None` when it does not check out.
pub fn read_record(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    if bytes.len() < RECORD_HEADER_LEN {
        return None;
    }
    let payload_len = u32_at(bytes, 35) as usize;
    let len = RECORD_HEADER_LEN + payload_len;
    if payload_len > PAYLOAD_LEN_MAX || bytes.len() < len || xxh3_64(&bytes[8..len]) != u64_at(bytes, 0) {
        return None;
    }
    let record = Record {
        kind: RecordKind::from_tag(bytes[8])?,
        shard: ShardId::new(u16::from_le_bytes([bytes[9], bytes[10]])),
        position: Position { term: u64_at(bytes, 11), node: u64_at(bytes, 19), index: u64_at(bytes, 27) },
        payload: &bytes[RECORD_HEADER_LEN..len],
    };
    Some((record, len))
}

/// The header of a segment.
pub fn segment_header(segment: u64, first_group: u64) -> [u8; SEGMENT_HEADER_LEN] {
    let mut header = [0; SEGMENT_HEADER_LEN];
    header[..8].copy_from_slice(&SEGMENT_MAGIC);
    header[8..16].copy_from_slice(&segment.to_le_bytes());
    header[16..24].copy_from_slice(&first_group.to_le_bytes());
    let checksum = xxh3_64(&header[..24]);
    header[24..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Segment number and first group of a segment header, or `None` when it does not check out.
pub fn read_segment_header(bytes: &[u8]) -> Option<(u64, u64)> {
    if bytes.len() < SEGMENT_HEADER_LEN || bytes[..8] != SEGMENT_MAGIC || xxh3_64(&bytes[..24]) != u64_at(bytes, 24) {
        return None;
    }
    Some((u64_at(bytes, 8), u64_at(bytes, 16)))
}

/// Fills in the header of a group whose records stand behind [`GROUP_HEADER_LEN`] spare bytes.
pub fn finish_group(group: &mut [u8], number: u64) {
    let len = (group.len() - GROUP_HEADER_LEN) as u32;
    let checksum = xxh3_64_with_seed(&group[GROUP_HEADER_LEN..], number);
    group[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
    group[4..8].copy_from_slice(&len.to_le_bytes());
    group[8..16].copy_from_slice(&number.to_le_bytes());
    group[16..24].copy_from_slice(&checksum.to_le_bytes());
}

/// Number and records of the group at the front of `bytes`, or `None` when it does not check out.
pub fn read_group(bytes: &[u8]) -> Option<(u64, &[u8])> {
    if bytes.len() < GROUP_HEADER_LEN || u32_at(bytes, 0) != GROUP_MAGIC {
        return None;
    }
    let len = u32_at(bytes, 4) as usize;
    let records = bytes.get(GROUP_HEADER_LEN..GROUP_HEADER_LEN + len)?;
    let number = u64_at(bytes, 8);
    (xxh3_64_with_seed(records, number) == u64_at(bytes, 16)).then_some((number, records))
}
