//! Batches: many commands in one consensus entry.
//!
//! `tag u8 | version u8 | id u64 | time u64 | items`; an item is a tag and its fields, numbers little endian.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use magpie_protocol::{ShardId, codec};

use super::feed::FeedChange;
use crate::{consensus::BATCH_TAG, machine::EntityId, system::Change};

const VERSION: u8 = 1;
const HEADER_LEN: usize = 18;
const ASK: u8 = 1;
const INBOUND: u8 = 2;
const ACKED: u8 = 3;
const SYSTEM: u8 = 4;
const AUDIT: u8 = 5;
const INBOUND_CUT: u8 = 6;
const ACKED_CUT: u8 = 7;
const CUT: u8 = 8;
const LEVEL: u8 = 9;
const FEED: u8 = 10;

/// A batch that is being filled.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    commands: usize,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(&[0; HEADER_LEN]);
        Self { bytes, commands: 0 }
    }
}

impl BatchBuilder {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// Items so far.
    pub fn commands(&self) -> usize {
        self.commands
    }

    fn entity(&mut self, entity: EntityId) {
        self.bytes.push(entity.kind());
        self.bytes.extend_from_slice(&entity.bits().to_le_bytes());
    }

    /// Adds a command.
    pub fn ask<C: bincode::Encode>(&mut self, entity: EntityId, command: &C) {
        self.bytes.push(ASK);
        self.entity(entity);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        codec::encode_into(command, &mut self.bytes);
        let len = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        self.commands += 1;
    }

    /// A tag, and behind it the cut that the other shard has made when it says this; none was ever made in clusters
    /// that know only the tag without.
    fn tagged(&mut self, (plain, with_cut): (u8, u8), cut: u64) {
        if cut == 0 {
            return self.bytes.push(plain);
        }
        self.bytes.push(with_cut);
        self.bytes.extend_from_slice(&cut.to_le_bytes());
    }

    /// Adds a message of another shard's outbox, and which cut that shard has made.
    pub fn inbound(&mut self, from: ShardId, cut: u64, number: u64, entity: EntityId, command: &[u8]) {
        self.tagged((INBOUND, INBOUND_CUT), cut);
        self.bytes.extend_from_slice(&from.get().to_le_bytes());
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self.entity(entity);
        self.bytes.extend_from_slice(&(command.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(command);
        self.commands += 1;
    }

    /// Adds that another shard, which has made this cut, has applied this one's messages up to a number.
    pub fn acked(&mut self, to: ShardId, cut: u64, upto: u64) {
        self.tagged((ACKED, ACKED_CUT), cut);
        self.bytes.extend_from_slice(&to.get().to_le_bytes());
        self.bytes.extend_from_slice(&upto.to_le_bytes());
        self.commands += 1;
    }

    /// Adds a change of what the cluster knows of itself.
    pub fn system(&mut self, change: &Change) {
        self.bytes.push(SYSTEM);
        let change = codec::encode(change);
        self.bytes.extend_from_slice(&(change.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&change);
        self.commands += 1;
    }

    /// Adds that every replica says what its state comes to.
    pub fn audit(&mut self) {
        self.bytes.push(AUDIT);
        self.commands += 1;
    }

    /// Adds that the shard makes this cut. Nothing else may be in the batch.
    pub fn cut(&mut self, cut: u64) {
        self.bytes.push(CUT);
        self.bytes.extend_from_slice(&cut.to_le_bytes());
        self.commands += 1;
    }

    /// Adds that the shard is at this feature level from here on.
    pub fn level(&mut self, level: u32) {
        self.bytes.push(LEVEL);
        self.bytes.extend_from_slice(&level.to_le_bytes());
        self.commands += 1;
    }

    /// Adds what a follower of the feed asks for.
    pub(crate) fn feed(&mut self, change: &FeedChange) {
        self.bytes.push(FEED);
        let change = codec::encode(change);
        self.bytes.extend_from_slice(&(change.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&change);
        self.commands += 1;
    }

    /// The batch, under this id and at this time.
    pub fn finish(mut self, id: u64, time_ms: u64) -> Bytes {
        self.bytes[0] = BATCH_TAG;
        self.bytes[1] = VERSION;
        self.bytes[2..10].copy_from_slice(&id.to_le_bytes());
        self.bytes[10..18].copy_from_slice(&time_ms.to_le_bytes());
        // The log keeps it for a while.
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
        }
        self.bytes.into()
    }
}

/// One item of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Ask { entity: EntityId, command: &'a [u8] },
    Inbound { from: ShardId, cut: u64, number: u64, entity: EntityId, command: &'a [u8] },
    Acked { to: ShardId, cut: u64, upto: u64 },
    System { change: &'a [u8] },
    Audit,
    Cut { cut: u64 },
    Level { level: u32 },
    Feed { change: &'a [u8] },
}

/// A batch that is being applied.
#[derive(Debug)]
pub struct BatchReader<'a> {
    pub id: u64,
    pub time_ms: u64,
    rest: &'a [u8],
}

impl<'a> BatchReader<'a> {
    /// The batch in these bytes. `None` for bytes of a version that this build does not know.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        if header[1] != VERSION {
            return None;
        }
        let id = u64::from_le_bytes(*header[2..].first_chunk::<8>()?);
        let time_ms = u64::from_le_bytes(*header[10..].first_chunk::<8>()?);
        Some(Self { id, time_ms, rest })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*front)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_le_bytes(self.take()?) as usize;
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    fn command(&mut self) -> Option<(EntityId, &'a [u8])> {
        let kind = self.take::<1>()?[0];
        let entity = EntityId::new(kind, u128::from_le_bytes(self.take()?));
        Some((entity, self.bytes()?))
    }

    /// The next item; `Ok(None)` at the end, an error where the bytes make no sense.
    pub fn next_item(&mut self) -> Result<Option<Item<'a>>, UnknownItem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.item().map(Some).ok_or(UnknownItem)
    }

    fn cut(&mut self, tagged: bool) -> Option<u64> {
        if tagged { Some(u64::from_le_bytes(self.take()?)) } else { Some(0) }
    }

    fn item(&mut self) -> Option<Item<'a>> {
        let tag = self.take::<1>()?[0];
        match tag {
            ASK => self.command().map(|(entity, command)| Item::Ask { entity, command }),
            INBOUND | INBOUND_CUT => {
                let cut = self.cut(tag == INBOUND_CUT)?;
                let from = ShardId::new(u16::from_le_bytes(self.take()?));
                let number = u64::from_le_bytes(self.take()?);
                self.command().map(|(entity, command)| Item::Inbound { from, cut, number, entity, command })
            }
            ACKED | ACKED_CUT => {
                let cut = self.cut(tag == ACKED_CUT)?;
                let to = ShardId::new(u16::from_le_bytes(self.take()?));
                Some(Item::Acked { to, cut, upto: u64::from_le_bytes(self.take()?) })
            }
            SYSTEM => self.bytes().map(|change| Item::System { change }),
            AUDIT => Some(Item::Audit),
            CUT => self.cut(true).map(|cut| Item::Cut { cut }),
            LEVEL => Some(Item::Level { level: u32::from_le_bytes(self.take()?) }),
            FEED => self.bytes().map(|change| Item::Feed { change }),
            _ => None,
        }
    }
}

/// An item that this build does not know: the replica stops rather than guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownItem;

/// How long messages of some kind waited.
#[derive(Debug, Default)]
pub struct Waits {
    micros: AtomicU64,
    batches: AtomicU64,
}

impl Waits {
    /// One waited so long.
    pub fn note(&self, wait: Duration) {
        self.micros.fetch_add(wait.as_micros() as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// The average since this was last asked.
    pub fn take(&self) -> Duration {
        let (micros, batches) = (self.micros.swap(0, Ordering::Relaxed), self.batches.swap(0, Ordering::Relaxed));
        Duration::from_micros(micros.checked_div(batches).unwrap_or(0))
    }
}
