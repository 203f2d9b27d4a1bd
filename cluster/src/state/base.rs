//! What lies below memory: a sorted map of bytes that changes only at checkpoints.

use bincode::{Decode, Encode};
use bytes::Bytes;
use magpie_protocol::codec;
use xxhash_rust::xxh3::xxh3_64;

use super::key::Key;
use crate::log::Position;

/// What is wrong with stored state.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    #[error("state store: {0}")]
    Io(String),
    #[error("state damaged: {place}: {what}; it is rebuilt from the snapshot and the log at the next start")]
    Damaged { place: String, what: String },
}

/// How far a state is: the last entry in it, and the group's members as consensus wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    pub position: Option<Position>,
    pub membership: Bytes,
}

#[derive(Encode, Decode)]
struct StoredApplied {
    position: Option<(u64, u64, u64)>,
    membership: Vec<u8>,
}

impl Applied {
    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let position = self.position.map(|p| (p.term, p.node, p.index));
        codec::encode(&StoredApplied { position, membership: self.membership.to_vec() })
    }

    /// The inverse of [`Applied::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: StoredApplied = codec::decode_stored(bytes).ok()?;
        let position = stored.position.map(|(term, node, index)| Position { term, node, index });
        Some(Self { position, membership: stored.membership.into() })
    }

    /// The index of the last entry in the state; 0 before the first.
    pub fn index(&self) -> u64 {
        self.position.map_or(0, |p| p.index)
    }
}

/// A change of one record: its new bytes, or its removal. Entries are removed by timeline: by the key of the entry 0.
pub type Write = (Key, Option<Vec<u8>>);

/// A key and what is stored under it.
pub type Stored = (Vec<u8>, Vec<u8>);

/// What a full scan calls for each key and its stored value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StateError> + 'a;

/// What a scan calls that ends when this says false.
pub type VisitWhile<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StateError> + 'a;

/// The state below memory. All calls may block for as long as a disk read.
pub trait StateBase: Send + Sync + 'static {
    /// How far this state is.
    fn applied(&self) -> Applied;
    /// The stored bytes under a key, with their envelope.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;
    /// The first key at or after `from` that begins with `prefix`, and its value.
    fn next(&self, prefix: &[u8], from: &[u8]) -> Result<Option<Stored>, StateError>;
    /// The last key that begins with `prefix`.
    fn last(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, StateError>;
    /// Writes a checkpoint: after a crash there is all of it or none.
    fn commit(&self, writes: Vec<Write>, applied: &Applied) -> Result<(), StateError>;
    /// Every record in order of key.
    fn scan(&self, visit: &mut Visit<'_>) -> Result<(), StateError>;
    /// Records from this key on, in order, as long as `visit` says so.
    fn scan_from(&self, from: &[u8], visit: &mut VisitWhile<'_>) -> Result<(), StateError>;
    /// Forgets everything, before a rebuild.
    fn clear(&self) -> Result<(), StateError>;
    /// The state cannot be trusted: rebuild it at the next start.
    fn distrust(&self);
}

/// The version at the front of a stored record.
const RECORD_VERSION: u8 = 1;
/// The same of one whose payload is where the record lies instead.
pub(super) const FAR_VERSION: u8 = 2;
/// The same of one that holds several runs of entries.
pub(super) const CHAIN_VERSION: u8 = 3;

/// Puts a record in its envelope: `version u8 | payload | checksum u64`, the checksum seeded with the key, so
/// that a record under another's key does not check out either.
pub fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    seal_as(RECORD_VERSION, key, payload)
}

pub(super) fn seal_as(version: u8, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 9);
    out.push(version);
    out.extend_from_slice(payload);
    let checksum = xxh3_64(&out) ^ xxh3_64(key);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The payload of a record in its envelope.
pub fn unseal<'a>(key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], StateError> {
    unseal_as(RECORD_VERSION, key, stored)
}

pub(super) fn unseal_as<'a>(version: u8, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], StateError> {
    let damaged = |what: &str| StateError::Damaged { place: format!("record {}", hex(key)), what: what.to_owned() };
    let Some((body, checksum)) = stored.split_last_chunk::<8>() else {
        return Err(damaged("shorter than its envelope"));
    };
    if u64::from_le_bytes(*checksum) != xxh3_64(body) ^ xxh3_64(key) {
        return Err(damaged("its checksum does not match"));
    }
    match body.split_first() {
        Some((found, payload)) if *found == version => Ok(payload),
        _ => Err(damaged("a version that this build does not know")),
    }
}

/// Bytes as text, for messages.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The entries of a timeline record, as they are stored: a list of byte strings.
pub fn encode_entries<E: AsRef<[u8]>>(entries: impl Iterator<Item = E> + Clone) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.clone().map(|e| e.as_ref().len() + 4).sum());
    for entry in entries {
        let entry = entry.as_ref();
        out.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        out.extend_from_slice(entry);
    }
    out
}

/// The inverse of [`encode_entries`]; `place` is for what is damaged.
pub fn decode_entries(place: &dyn std::fmt::Display, payload: Vec<u8>) -> Result<Vec<Bytes>, StateError> {
    let damaged = || StateError::Damaged { place: place.to_string(), what: "its entries do not add up".into() };
    let mut rest = Bytes::from(payload);
    let mut entries = Vec::new();
    while !rest.is_empty() {
        if rest.len() < 4 {
            return Err(damaged());
        }
        let len = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if rest.len() < 4 + len {
            return Err(damaged());
        }
        entries.push(rest.slice(4..4 + len));
        rest = rest.slice(4 + len..);
    }
    Ok(entries)
}
