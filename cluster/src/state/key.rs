//! Keys of stored records: `slot | table | id`, so that a slot's records lie together and can be moved.

use std::{any::Any, fmt, sync::Arc};

use bincode::{Decode, Encode};
use magpie_protocol::{Slot, TimelineId, codec};

/// The tables of this crate. Subsystems number theirs from [`table::FIRST_FREE`].
pub mod table {
    /// Entries of timelines, several in one record.
    pub const TIMELINE: u8 = 1;
    /// Messages on their way to another shard.
    pub const OUTBOX: u8 = 2;
    /// How far each outgoing stream is.
    pub const STREAM_OUT: u8 = 3;
    /// How far each incoming stream is.
    pub const STREAM_IN: u8 = 4;
    /// The shard's time.
    pub const SHARD: u8 = 5;
    /// Entities that no command reaches any more.
    pub const QUARANTINE: u8 = 6;
    /// What the cluster knows of itself, in shard 0.
    pub const SYSTEM: u8 = 7;
    /// The last backup whose cut the shard has made.
    pub const CUT: u8 = 8;
    /// The shard's feature level.
    pub const LEVEL: u8 = 9;
    /// What was appended, for those who follow: who they are and where, ...
    pub const FEED: u8 = 10;
    /// ... what it was, ...
    pub const FEED_PIECE: u8 = 11;
    /// ... and what they keep.
    pub const FEED_KEPT: u8 = 12;
    /// The first number that a subsystem may use.
    pub const FIRST_FREE: u8 = 16;
}

/// The slot under which a shard keeps what belongs to no entity.
pub const SHARD_SLOT: Slot = Slot::new(u16::MAX);

const KEY_LEN_MAX: usize = 47;

/// The key of a record: at most 47 bytes, compared as bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    bytes: [u8; KEY_LEN_MAX],
    len: u8,
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
    }
}

impl Key {
    /// The front of every key.
    pub fn new(slot: Slot, table: u8) -> Self {
        Self { bytes: [0; KEY_LEN_MAX], len: 0 }.bytes(&slot.get().to_be_bytes()).bytes(&[table])
    }

    /// With these bytes behind. Keys are built by our own code: one that does not fit is a bug.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let from = usize::from(self.len);
        assert!(from + bytes.len() <= KEY_LEN_MAX, "a key of more than {KEY_LEN_MAX} bytes");
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
        self
    }

    /// A key as it is stored.
    pub(super) fn stored(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= KEY_LEN_MAX).then(|| Self { bytes: [0; KEY_LEN_MAX], len: 0 }.bytes(bytes))
    }

    /// Whether it begins with a prefix and comes after another key.
    pub(super) fn is_in(&self, prefix: &Self, after: Option<&Self>) -> bool {
        self.as_bytes().starts_with(prefix.as_bytes()) && after.is_none_or(|after| self.as_bytes() > after.as_bytes())
    }

    /// The number at its end.
    pub fn last_u64(&self) -> u64 {
        self.as_bytes().last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// With this number behind, so that keys sort as numbers do.
    #[must_use]
    pub fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// With this number behind, so that keys sort as numbers do.
    #[must_use]
    pub fn u128(self, number: u128) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// The key of the record of a timeline whose last entry has this number.
    pub fn entries(timeline: TimelineId, last: u64) -> Self {
        let (kind, id) = timeline.to_parts();
        Self::new(timeline.slot(), table::TIMELINE).bytes(&[kind]).u128(id).u64(last)
    }

    /// What the keys of all records of a timeline begin with.
    pub fn timeline(timeline: TimelineId) -> Vec<u8> {
        let key = Self::entries(timeline, 0);
        key.as_bytes()[..key.as_bytes().len() - 8].to_vec()
    }

    /// The key as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A typed record. Its encoding is append-only: fields are added at the end of a new version.
pub trait Record: Encode + Decode<()> + Send + Sync + Sized + 'static {
    /// What the record takes of memory beyond its own size, in bytes, about.
    fn heap_bytes(&self) -> usize {
        64
    }
}

/// A record whose type is not known here.
pub trait AnyRecord: Any + Send + Sync {
    /// The record as it is stored, without checksum and version.
    fn encode(&self) -> Vec<u8>;
    /// What it takes of memory, in bytes, about.
    fn weight(&self) -> usize;
    /// For downcasting.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<R: Record> AnyRecord for R {
    fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    fn weight(&self) -> usize {
        size_of::<R>() + self.heap_bytes()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
