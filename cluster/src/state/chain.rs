//! How sled keeps a timeline: chains of runs of entries, each chain one record.
//!
//! A key of sled takes memory for good, whatever it holds: some 30 bytes in tables of pages and segments, and while it
//! is in the cache three to five times what sled counts for it. A key for each run of a checkpoint would make memory
//! grow with time. So the newest runs of a timeline stand in one record, its open chain, which each checkpoint
//! replaces: the places of long runs, and the entries themselves of what is still too short to lie in a file. A chain
//! that is full moves under the number of its last entry, and is never touched again.

use bincode::{Decode, Encode};
use magpie_protocol::codec;

use super::{
    base::{CHAIN_VERSION, StateError, hex, seal, seal_as, unseal_as},
    key::table,
    runs::{Appending, Place},
};

/// Entries of a timeline that come to this, in bytes, lie in a file.
const RUN_BYTES_MIN: usize = 512;
/// Runs in files that one chain holds. More would make the open one longer, and it is written at each checkpoint.
const RUNS_MAX: usize = 16;

/// The key of a timeline's open chain ends with this instead of a number.
const OPEN: [u8; 8] = [0xff; 8];

/// What names the timeline in the key of its entries, and the number behind it.
pub(super) fn split_key(key: &[u8]) -> Option<(&[u8], u64)> {
    let (front, number) = key.split_last_chunk::<8>()?;
    (front.get(2) == Some(&table::TIMELINE)).then_some((front, u64::from_be_bytes(*number)))
}

/// The key of a timeline's entries up to this number.
pub(super) fn key_of(front: &[u8], last: u64) -> Vec<u8> {
    [front, &last.to_be_bytes()].concat()
}

/// The key of a timeline's open chain.
pub(super) fn open_key(front: &[u8]) -> Vec<u8> {
    [front, &OPEN].concat()
}

/// Entries that follow each other, in several runs.
#[derive(Debug, Encode, Decode)]
pub(super) struct Chain {
    /// The number of the first entry.
    first: u64,
    far: Vec<Far>,
    /// What came after those, as entries are stored.
    near: Vec<u8>,
}

#[derive(Debug, Encode, Decode)]
struct Far {
    entries: u32,
    place: Place,
}

/// A run of a chain.
pub(super) enum Piece<'a> {
    Far(&'a Place),
    Near(&'a [u8]),
}

impl Chain {
    /// An empty one.
    pub(super) fn starting(first: u64) -> Self {
        Self { first, far: Vec::new(), near: Vec::new() }
    }

    /// The chain that is stored under a key.
    pub(super) fn open(key: &[u8], stored: &[u8]) -> Result<Self, StateError> {
        let what = |e: codec::CodecError| StateError::Damaged { place: hex(key), what: e.to_string() };
        let chain: Self = codec::decode_stored(unseal_as(CHAIN_VERSION, key, stored)?).map_err(what)?;
        (chain.first > 0 && count(&chain.near).is_some()).then_some(chain).ok_or_else(|| uneven(key))
    }

    /// As it is stored under a key.
    pub(super) fn seal(&self, key: &[u8]) -> Vec<u8> {
        seal_as(CHAIN_VERSION, key, &codec::encode(self))
    }

    /// The number of its first entry.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number of the entry that comes next.
    pub(super) fn next(&self) -> u64 {
        self.first + self.far.iter().map(|far| u64::from(far.entries)).sum::<u64>() + count(&self.near).unwrap_or(0)
    }

    /// Whether it takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.far.len() >= RUNS_MAX
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.far.is_empty() && self.near.is_empty()
    }

    /// Adds a run whose last entry has this number.
    pub(super) fn add(
        &mut self,
        front: &[u8],
        last: u64,
        run: &[u8],
        to: &mut Appending<'_>,
    ) -> Result<(), StateError> {
        let key = key_of(front, last);
        let entries = count(run).filter(|entries| *entries > 0).ok_or_else(|| uneven(&key))?;
        if self.next() + entries != last + 1 {
            let what = format!("entries up to {last}, {entries} of them, do not follow on {}", self.next() - 1);
            return Err(StateError::Damaged { place: hex(&key), what });
        }
        self.near.extend_from_slice(run);
        self.settle(&key, to)
    }

    /// Puts what is near into a file, if that is long enough.
    fn settle(&mut self, key: &[u8], to: &mut Appending<'_>) -> Result<(), StateError> {
        if self.near.len() >= RUN_BYTES_MIN {
            let entries = count(&self.near).ok_or_else(|| uneven(key))? as u32;
            self.far.push(Far { entries, place: put(key, &self.near, to)? });
            self.near.clear();
        }
        Ok(())
    }

    /// Puts another run, of as many entries, in the place of the one whose last entry has this number. Where that lay
    /// is added to `dead`.
    pub(super) fn replace(
        &mut self,
        front: &[u8],
        last: u64,
        run: &[u8],
        to: &mut Appending<'_>,
        dead: &mut Vec<Place>,
    ) -> Result<(), StateError> {
        let key = key_of(front, last);
        let entries = count(run).ok_or_else(|| uneven(&key))?;
        let mut before = self.first - 1;
        for far in &mut self.far {
            before += u64::from(far.entries);
            if before == last && u64::from(far.entries) == entries {
                dead.push(std::mem::replace(&mut far.place, put(&key, run, to)?));
                return Ok(());
            }
        }
        if before + entries == last && count(&self.near) == Some(entries) {
            self.near = run.to_vec();
            return self.settle(&key, to);
        }
        let what = format!("there are no {entries} entries up to {last} that others could take the place of");
        Err(StateError::Damaged { place: hex(&key), what })
    }

    /// Its runs in order, each with the number of its last entry.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, Piece<'_>)> {
        let mut last = self.first - 1;
        let far = self.far.iter().map(move |far| {
            last += u64::from(far.entries);
            (last, Piece::Far(&far.place))
        });
        let near = (!self.near.is_empty()).then(|| (self.next() - 1, Piece::Near(&self.near)));
        far.chain(near)
    }
}

/// Writes a run into a file.
fn put(key: &[u8], run: &[u8], to: &mut Appending<'_>) -> Result<Place, StateError> {
    to.push(&seal(key, run)).map_err(|e| StateError::Io(format!("runs of {}: {e}", hex(key))))
}

/// How many entries these are, if they add up.
pub(super) fn count(mut entries: &[u8]) -> Option<u64> {
    let mut n = 0;
    while !entries.is_empty() {
        let (len, rest) = entries.split_first_chunk::<4>()?;
        entries = rest.get(u32::from_le_bytes(*len) as usize..)?;
        n += 1;
    }
    Some(n)
}

fn uneven(key: &[u8]) -> StateError {
    StateError::Damaged { place: hex(key), what: "its entries do not add up".into() }
}

#[cfg(test)]
pub(super) fn chain_for_golden() -> Chain {
    let far = Far { entries: 3, place: super::runs::place_for_golden() };
    Chain { first: 258, far: vec![far], near: vec![3, 0, 0, 0, b'o', b'n', b'e'] }
}
