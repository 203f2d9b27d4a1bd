//! Entries of timelines in a tree of sled: folded into chains at checkpoints, unfolded into runs for who reads.

use std::{collections::BTreeMap, thread};

use magpie_protocol::codec;

use super::{Digest, Sealed, SledBase, guarded, io};
use crate::state::{
    base::{CHAIN_VERSION, FAR_VERSION, StateError, Stored, VisitWhile, Write, hex, seal, unseal, unseal_as},
    chain::{Chain, Piece, count, key_of, open_key, split_key},
    runs::{Appending, Place},
};

/// How often a read looks again when chains changed under it.
const LOOKS_MAX: usize = 100;

/// What a checkpoint writes.
pub(super) struct Folded {
    pub(super) sealed: Sealed,
    /// What all records come to then.
    pub(super) digest: Digest,
    /// Runs that nothing leads to then.
    pub(super) dead: Vec<Place>,
}

/// A chain that a checkpoint changes.
struct Kept {
    chain: Chain,
    /// As it is stored, if it is.
    old: Option<Vec<u8>>,
    changed: bool,
}

/// A checkpoint's entries on their way into chains.
struct Folding<'a> {
    base: &'a SledBase,
    to: Appending<'a>,
    /// By what names the timeline.
    open: BTreeMap<Vec<u8>, Kept>,
    /// By key: those that were full before, in which runs are replaced.
    closed: BTreeMap<Vec<u8>, Kept>,
    /// Those that this checkpoint fills.
    full: Sealed,
    dead: Vec<Place>,
}

impl Folding<'_> {
    fn open(&mut self, front: &[u8]) -> Result<&mut Kept, StateError> {
        if !self.open.contains_key(front) {
            let kept = self.base.open_chain(front)?;
            self.open.insert(front.to_vec(), kept);
        }
        self.open.get_mut(front).ok_or_else(|| StateError::Io("a chain was lost".into()))
    }

    fn add(&mut self, front: &[u8], last: u64, run: &[u8]) -> Result<(), StateError> {
        self.open(front)?;
        let Some(kept) = self.open.get_mut(front) else { return Ok(()) };
        kept.changed = true;
        kept.chain.add(front, last, run, &mut self.to)?;
        if kept.chain.is_full() {
            let key = key_of(front, last);
            let full = std::mem::replace(&mut kept.chain, Chain::starting(last + 1)).seal(&key);
            self.full.push((key, Some(full)));
        }
        Ok(())
    }

    fn replace(&mut self, front: &[u8], last: u64, run: &[u8]) -> Result<(), StateError> {
        if last >= self.open(front)?.chain.first() {
            let Some(kept) = self.open.get_mut(front) else { return Ok(()) };
            kept.changed = true;
            return kept.chain.replace(front, last, run, &mut self.to, &mut self.dead);
        }
        let base = self.base;
        let found = guarded(&base.place, || base.tree.range(key_of(front, last)..).next().transpose())?;
        let (key, stored) = found
            .filter(|(key, _)| key.starts_with(front))
            .ok_or_else(|| StateError::Damaged { place: hex(&key_of(front, last)), what: "it is not there".into() })?;
        if let Some(kept) = self.closed.get_mut(&key[..]) {
            return kept.chain.replace(front, last, run, &mut self.to, &mut self.dead);
        }
        let mut chain;
        if stored.first() == Some(&CHAIN_VERSION) {
            chain = Chain::open(&key, &stored)?;
            chain.replace(front, last, run, &mut self.to, &mut self.dead)?;
        } else {
            // Of an earlier build: one run, which becomes a chain of one.
            let entries = count(run).unwrap_or(0);
            chain = Chain::starting((last + 1).saturating_sub(entries).max(1));
            chain.add(front, last, run, &mut self.to)?;
            if stored.first() == Some(&FAR_VERSION) {
                self.dead.push(base.place_in(&key, &stored)?);
            }
        }
        self.closed.insert(key.to_vec(), Kept { chain, old: Some(stored.to_vec()), changed: true });
        Ok(())
    }

    /// Removes all that is stored of a timeline, before anything else of it is folded.
    fn erase(&mut self, front: &[u8], sealed: &mut Sealed, digest: &mut Digest) -> Result<(), StateError> {
        let base = self.base;
        let mut records = base.tree.scan_prefix(front);
        while let Some((key, stored)) = guarded(&base.place, || records.next().transpose())? {
            base.places(&key, &stored, &mut |place| self.dead.push(place))?;
            digest.remove(&stored);
            sealed.push((key.to_vec(), None));
        }
        self.open.insert(front.to_vec(), Kept { chain: Chain::starting(1), old: None, changed: false });
        Ok(())
    }

    /// All of it as records. Chains that were filled come first: until the new open one stands behind them, readers
    /// have the old one.
    fn finish(self, mut sealed: Sealed, mut digest: Digest) -> Result<Folded, StateError> {
        self.to.finish().map_err(io(&self.base.dir))?;
        sealed.extend(self.full);
        let open = self.open.into_iter().map(|(front, kept)| (open_key(&front), kept));
        for (key, kept) in self.closed.into_iter().chain(open).filter(|(_, kept)| kept.changed) {
            kept.old.iter().for_each(|old| digest.remove(old));
            if !kept.chain.is_empty() {
                let stored = kept.chain.seal(&key);
                sealed.push((key, Some(stored)));
            } else if kept.old.is_some() {
                sealed.push((key, None));
            }
        }
        sealed.iter().filter_map(|(_, value)| value.as_ref()).for_each(|value| digest.add(value));
        Ok(Folded { sealed, digest, dead: self.dead })
    }
}

impl SledBase {
    /// Seals these writes, entries as the chains of their timelines.
    pub(super) fn fold(&self, writes: Vec<Write>, mut digest: Digest) -> Result<Folded, StateError> {
        let mut sealed: Sealed = Vec::with_capacity(writes.len());
        let (open, closed) = (BTreeMap::new(), BTreeMap::new());
        let to = self.runs.append();
        let mut folding = Folding { base: self, to, open, closed, full: Sealed::new(), dead: Vec::new() };
        let mut added = Vec::new();
        for (key, value) in writes {
            let Some((front, last)) = split_key(key.as_bytes()) else {
                let key = key.as_bytes();
                if let Some(old) = guarded(&self.place, || self.tree.get(key))? {
                    digest.remove(&old);
                }
                sealed.push((key.to_vec(), value.map(|value| seal(key, &value))));
                continue;
            };
            if last == 0 && value.is_none() {
                folding.erase(front, &mut sealed, &mut digest)?;
                continue;
            }
            let run = value.ok_or_else(|| StateError::Io(format!("entries are not removed one by one: {key:?}")))?;
            // What is replaced is named by runs as they are stored: before anything is added to those.
            if last < folding.open(front)?.chain.next() {
                folding.replace(front, last, &run)?;
            } else {
                added.push((key, run));
            }
        }
        for (key, run) in &added {
            if let Some((front, last)) = split_key(key.as_bytes()) {
                folding.add(front, last, run)?;
            }
        }
        folding.finish(sealed, digest)
    }

    /// The chain of a timeline that takes what is new.
    fn open_chain(&self, front: &[u8]) -> Result<Kept, StateError> {
        let key = open_key(front);
        if let Some(stored) = guarded(&self.place, || self.tree.get(&key))? {
            let chain = Chain::open(&key, &stored)?;
            return Ok(Kept { chain, old: Some(stored.to_vec()), changed: false });
        }
        let last = guarded(&self.place, || self.tree.scan_prefix(front).next_back().transpose())?;
        let last = last.and_then(|(key, _)| Some(split_key(&key)?.1)).unwrap_or(0);
        Ok(Kept { chain: Chain::starting(last + 1), old: None, changed: false })
    }

    /// The first run at or behind a key, if its record is one with this prefix.
    ///
    /// A checkpoint may change chains meanwhile, and sled does not take two pages at once, nor a page and a file: what
    /// does not fit together is looked at again, and is damage when it stays so.
    pub(super) fn next_run(&self, prefix: &[u8], from: &[u8]) -> Result<Option<Stored>, StateError> {
        let mut looks = 0;
        loop {
            let found = guarded(&self.place, || self.tree.range(from..).next().transpose())?;
            let Some((key, stored)) = found.filter(|(key, _)| key.starts_with(prefix)) else { return Ok(None) };
            looks += 1;
            match self.run_at(&key, &stored, from) {
                Err(StateError::Damaged { .. }) if looks < LOOKS_MAX => thread::yield_now(),
                done => return done,
            }
        }
    }

    /// The first run of a record that ends at or behind the entry whose key `from` is, under the key of its last. A
    /// record that is no chain is one run.
    fn run_at(&self, key: &[u8], stored: &[u8], from: &[u8]) -> Result<Option<Stored>, StateError> {
        let Some((front, _)) = split_key(key).filter(|_| stored.first() == Some(&CHAIN_VERSION)) else {
            return Ok(Some((key.to_vec(), self.fetch(key, stored)?)));
        };
        let chain = Chain::open(key, stored)?;
        let from = split_key(from).filter(|(wanted, _)| *wanted == front).map_or(0, |(_, number)| number);
        if from > 0 && chain.first() > from {
            let what = format!("its chains of runs have a gap before {}", chain.first());
            return Err(StateError::Damaged { place: format!("{}, {}", self.place, hex(&key_of(front, from))), what });
        }
        let found = chain.pieces().find(|(last, _)| *last >= from);
        found.map(|(last, piece)| self.fetch_piece(key_of(front, last), &piece)).transpose()
    }

    /// The last key that begins with `prefix`, of runs as of other records.
    pub(super) fn last_key(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let found = guarded(&self.place, || self.tree.scan_prefix(prefix).next_back().transpose())?;
        let Some((key, stored)) = found else { return Ok(None) };
        match split_key(&key).filter(|_| stored.first() == Some(&CHAIN_VERSION)) {
            Some((front, _)) => Ok(Some(key_of(front, Chain::open(&key, &stored)?.next() - 1))),
            None => Ok(Some(key.to_vec())),
        }
    }

    /// Shows the runs of a record from a key on, as long as `visit` says so; whether it still does.
    pub(super) fn unfold(
        &self,
        key: &[u8],
        stored: &[u8],
        from: &[u8],
        visit: &mut VisitWhile<'_>,
    ) -> Result<bool, StateError> {
        let Some((front, _)) = split_key(key).filter(|_| stored.first() == Some(&CHAIN_VERSION)) else {
            return visit(key, &self.fetch(key, stored)?);
        };
        for (last, piece) in Chain::open(key, stored)?.pieces() {
            let key = key_of(front, last);
            if key.as_slice() < from {
                continue;
            }
            let (key, run) = self.fetch_piece(key, &piece)?;
            if !visit(&key, &run)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fetch_piece(&self, key: Vec<u8>, piece: &Piece<'_>) -> Result<Stored, StateError> {
        let run = match piece {
            Piece::Near(entries) => seal(&key, entries),
            Piece::Far(place) => self.read_run(&key, **place)?,
        };
        Ok((key, run))
    }

    fn read_run(&self, key: &[u8], place: Place) -> Result<Vec<u8>, StateError> {
        let damaged = |e: std::io::Error| StateError::Damaged {
            place: format!("{}, {}", self.place, hex(key)),
            what: format!("its run: {e}"),
        };
        let run = self.runs.read(place).map_err(damaged)?;
        unseal(key, &run)?;
        Ok(run)
    }

    /// What is stored under a key, fetched from where it lies.
    fn fetch(&self, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, StateError> {
        match stored.first() {
            Some(&FAR_VERSION) => self.read_run(key, self.place_in(key, stored)?),
            _ => Ok(stored.to_vec()),
        }
    }

    fn place_in(&self, key: &[u8], stored: &[u8]) -> Result<Place, StateError> {
        let what = |e: codec::CodecError| StateError::Damaged {
            place: format!("{}, {}", self.place, hex(key)),
            what: e.to_string(),
        };
        codec::decode_stored(unseal_as(FAR_VERSION, key, stored)?).map_err(what)
    }

    /// Says where the runs of a record lie.
    pub(super) fn places(&self, key: &[u8], stored: &[u8], each: &mut dyn FnMut(Place)) -> Result<(), StateError> {
        match stored.first() {
            Some(&CHAIN_VERSION) => Chain::open(key, stored)?.pieces().for_each(|(_, piece)| {
                if let Piece::Far(place) = piece {
                    each(*place);
                }
            }),
            Some(&FAR_VERSION) => each(self.place_in(key, stored)?),
            _ => {}
        }
        Ok(())
    }
}
