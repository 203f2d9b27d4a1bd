//! sled as the state store: one tree a shard, never the only copy of anything.
//!
//! Facts about sled 0.34.7 that shape this file: its `flush` does not fsync on Linux, an atomic batch costs
//! several times a plain insert and holds a lock that readers need, and damage may show as a panic. So a
//! checkpoint is written to a redo file first and then inserted record by record: after a crash in between, the
//! redo file is inserted again. What sled wrote is trusted after a crash of the process, and after a crash of the
//! machine only when it was closed and synced before; otherwise the state is rebuilt.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bincode::{Decode, Encode};
use magpie_protocol::{ShardId, codec};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    base::{Applied, StateBase, StateError, Stored, Visit, VisitWhile, Write, hex, seal, unseal},
    chain::split_key,
    runs::{InUse, Place, Runs},
};

const APPLIED_KEY: &[u8] = b"\xff\xff\xffapplied";
const TRUST_FILE: &str = "trusted";
/// Stands behind what that file says since chains are written: earlier builds take it for the mark of another boot, and
/// rebuild the state instead of stumbling over a chain.
const FORM: &str = " chains";
const CLOSED: &str = "closed";
/// What sled says of a database that is open already, and how long that is waited for.
const LOCKED: &str = "could not acquire lock";
const LOCKED_MAX: Duration = Duration::from_secs(5);

mod history;

use history::Folded;

/// The database that holds the trees of all shards of a node.
#[derive(Clone)]
pub struct SledDb {
    db: sled::Db,
    dir: PathBuf,
}

fn guarded<T>(place: &str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StateError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Corruption { at, .. })) => {
            Err(StateError::Damaged { place: format!("{place} at {at:?}"), what: "sled found a damaged page".into() })
        }
        Ok(Err(error)) => Err(StateError::Io(format!("{place}: {error}"))),
        Err(_) => Err(StateError::Damaged { place: place.to_owned(), what: "sled panicked while reading it".into() }),
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> StateError {
    move |error| StateError::Io(format!("{}: {error}", path.display()))
}

/// Changes when the machine starts anew, and with it what the kernel still had in memory.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl SledDb {
    /// Opens the database in `dir`. One that cannot be trusted or opened is removed: it is rebuilt from the truth.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StateError> {
        fs::create_dir_all(dir).map_err(io(dir))?;
        let trust = dir.join(TRUST_FILE);
        let trusted = fs::read_to_string(&trust).unwrap_or_default();
        let fresh = !dir.join("sled").exists();
        let mark = trusted.strip_suffix(FORM).unwrap_or(&trusted);
        if !fresh && mark != CLOSED && mark != boot_id() {
            tracing::warn!(dir = %dir.display(), "the state was not closed before the machine went down: rebuilding it");
            Self::wipe(dir)?;
        }
        let path = dir.join("sled");
        let open = || {
            guarded(&path.display().to_string(), || {
                sled::Config::new().path(&path).cache_capacity(cache_bytes).flush_every_ms(Some(1000)).open()
            })
        };
        let began = Instant::now();
        let db = loop {
            match open() {
                Ok(db) => break db,
                // It is not damaged: one that was closed a moment ago is let go by its threads a moment later.
                Err(StateError::Io(why)) if why.contains(LOCKED) => {
                    if began.elapsed() >= LOCKED_MAX {
                        return Err(StateError::Io(format!("{why}; does another process run on this folder?")));
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => {
                    tracing::error!(%error, "the state store does not open: rebuilding it from snapshots and log");
                    Self::wipe(dir)?;
                    break open()?;
                }
            }
        };
        fs::write(&trust, boot_id() + FORM).map_err(io(&trust))?;
        Ok(Self { db, dir: dir.to_owned() })
    }

    fn wipe(dir: &Path) -> Result<(), StateError> {
        fs::remove_dir_all(dir).map_err(io(dir))?;
        fs::create_dir_all(dir).map_err(io(dir))
    }

    /// The tree of one shard, with an interrupted checkpoint repeated.
    pub fn shard(&self, shard: ShardId) -> Result<SledBase, StateError> {
        let tree = guarded(&self.dir.display().to_string(), || self.db.open_tree(shard.to_string()))?;
        let base = SledBase {
            place: format!("{}, tree {shard}", self.dir.join("sled").display()),
            redo: self.dir.join(format!("redo-{shard}")),
            dead: self.dir.join(format!("dead-{shard}")),
            dir: self.dir.clone(),
            tree,
            runs: Runs::open(&self.dir, shard).map_err(io(&self.dir))?,
            applied: Mutex::default(),
        };
        if let Err(error) = base.recover() {
            tracing::error!(%shard, %error, "the state is damaged: rebuilding it");
            base.clear()?;
        }
        Ok(base)
    }

    /// Leaves the database so that even a start after a power loss trusts it.
    pub fn close(&self) -> Result<(), StateError> {
        guarded("sled", || self.db.flush())?;
        for dir in [self.dir.clone(), self.dir.join("sled"), self.dir.join("sled/blobs")] {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.path().is_file() {
                    File::open(entry.path()).and_then(|f| f.sync_all()).map_err(io(&entry.path()))?;
                }
            }
            File::open(&dir).and_then(|f| f.sync_all()).ok();
        }
        let trust = self.dir.join(TRUST_FILE);
        if fs::read_to_string(&trust).is_ok_and(|t| t == boot_id() + FORM) {
            fs::write(&trust, [CLOSED, FORM].concat()).map_err(io(&trust))?;
        }
        Ok(())
    }
}

/// One shard's tree.
pub struct SledBase {
    tree: sled::Tree,
    dir: PathBuf,
    redo: PathBuf,
    /// Says which runs nothing leads to behind a checkpoint, until their room is given back.
    dead: PathBuf,
    place: String,
    runs: Runs,
    applied: Mutex<(Applied, Digest)>,
}

/// Changes of records by key, sealed; nothing removes one.
type Sealed = Vec<(Vec<u8>, Option<Vec<u8>>)>;
/// Those, and the marker that goes in with them.
type Redo = (Sealed, Vec<u8>);

/// What all records of a tree come to. sled takes damage in its log for the torn end of a write and goes on without
/// what follows: every record that is left checks out, and only this tells that others are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
struct Digest {
    records: u64,
    sum: u64,
}

impl Digest {
    fn add(&mut self, sealed: &[u8]) {
        self.records = self.records.wrapping_add(1);
        self.sum = self.sum.wrapping_add(Self::weight(sealed));
    }

    fn remove(&mut self, sealed: &[u8]) {
        self.records = self.records.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(Self::weight(sealed));
    }

    /// The envelope's checksum covers key and content.
    fn weight(sealed: &[u8]) -> u64 {
        sealed.last_chunk::<8>().map_or(0, |checksum| u64::from_le_bytes(*checksum))
    }
}

impl SledBase {
    fn recover(&self) -> Result<(), StateError> {
        if let Ok(bytes) = fs::read(&self.redo) {
            let whole = bytes.split_last_chunk::<8>().filter(|(body, sum)| xxh3_64(body) == u64::from_le_bytes(**sum));
            // One that is not whole was never acted upon.
            if let Some((body, _)) = whole {
                let mut at = 0;
                while at < body.len() {
                    let (chunk, used): (Redo, usize) =
                        codec::decode_prefix(&body[at..]).map_err(|e| StateError::Io(e.to_string()))?;
                    at += used;
                    self.insert(&chunk.0, &chunk.1)?;
                }
                guarded(&self.place, || self.tree.flush())?;
            }
            fs::remove_file(&self.redo).map_err(io(&self.redo))?;
        }
        let damaged = |what: &str| StateError::Damaged { place: self.place.clone(), what: what.to_owned() };
        let marker = match guarded(&self.place, || self.tree.get(APPLIED_KEY))? {
            Some(stored) => {
                let (applied, digest): (Vec<u8>, Digest) =
                    codec::decode_stored(unseal(APPLIED_KEY, &stored)?).map_err(|_| damaged("its applied index"))?;
                (Applied::from_bytes(&applied).ok_or_else(|| damaged("its applied index"))?, digest)
            }
            None => Default::default(),
        };
        let (mut found, mut in_use, mut dead) = (Digest::default(), InUse::default(), self.read_dead());
        let mut records = self.tree.iter();
        while let Some((key, sealed)) = guarded(&self.place, || records.next().transpose())? {
            if key != APPLIED_KEY {
                found.add(&sealed);
                self.places(&key, &sealed, &mut |place| {
                    in_use.add(&place);
                    dead.remove(&place);
                })?;
            }
        }
        if found != marker.1 {
            return Err(damaged(&format!(
                "it holds {} records where {} were written",
                found.records, marker.1.records
            )));
        }
        // What a crash left between the runs and their redo file.
        if !self.runs.cut(&in_use).map_err(io(&self.dir))? {
            return Err(damaged("a file of runs is missing or too short"));
        }
        // What was taken back must not stay because of a crash between a checkpoint and this.
        self.runs.give_back(&dead.into_iter().collect::<Vec<_>>());
        fs::remove_file(&self.dead).ok();
        *self.lock() = marker;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, (Applied, Digest)> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, writes: &[(Vec<u8>, Option<Vec<u8>>)], applied: &[u8]) -> Result<(), StateError> {
        for (key, value) in writes {
            guarded(&self.place, || match value {
                Some(sealed) => self.tree.insert(key, &sealed[..]),
                None => self.tree.remove(key),
            })?;
        }
        guarded(&self.place, || self.tree.insert(APPLIED_KEY, seal(APPLIED_KEY, applied)))?;
        Ok(())
    }

    /// Before the redo file: of a checkpoint that did not happen everything is in use.
    fn write_dead(&self, dead: &[Place]) -> std::io::Result<()> {
        let body = codec::encode(&dead.to_vec());
        fs::write(&self.dead, [&body[..], &xxh3_64(&body).to_le_bytes()].concat())
    }

    fn read_dead(&self) -> BTreeSet<Place> {
        let bytes = fs::read(&self.dead).unwrap_or_default();
        let whole = bytes.split_last_chunk::<8>().filter(|(body, sum)| xxh3_64(body) == u64::from_le_bytes(**sum));
        // One that is not whole stands before no checkpoint.
        whole
            .and_then(|(body, _)| codec::decode_stored::<Vec<Place>>(body).ok())
            .unwrap_or_default()
            .into_iter()
            .collect()
    }

    fn write_redo(&self, chunks: &[Redo]) -> std::io::Result<()> {
        let mut body = Vec::new();
        chunks.iter().for_each(|chunk| codec::encode_into(chunk, &mut body));
        let sum = xxh3_64(&body);
        let mut file = File::create(&self.redo)?;
        file.write_all(&body)?;
        file.write_all(&sum.to_le_bytes())
    }
}

impl StateBase for SledBase {
    fn applied(&self) -> Applied {
        self.lock().0.clone()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if let Some((front, _)) = split_key(key) {
            let run = self.next(front, key)?.filter(|(found, _)| found == key);
            return Ok(run.map(|(_, run)| run));
        }
        let found = guarded(&self.place, || self.tree.get(key))?;
        Ok(found.map(|stored| stored.to_vec()))
    }

    fn next(&self, prefix: &[u8], from: &[u8]) -> Result<Option<Stored>, StateError> {
        self.next_run(prefix, from)
    }

    fn last(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.last_key(prefix)
    }

    fn commit(&self, writes: Vec<Write>, applied: &Applied) -> Result<(), StateError> {
        let Folded { sealed, digest, dead } = self.fold(writes, self.lock().1)?;
        let marker = codec::encode(&(applied.to_bytes(), digest));
        let mut chunks: Vec<Redo> = Vec::new();
        let mut rest = sealed.into_iter().peekable();
        while chunks.is_empty() || rest.peek().is_some() {
            // Chunks stay below what the codec accepts of one stored value.
            let mut bytes = 0;
            let mut chunk = Vec::new();
            while let Some((key, value)) = rest.next_if(|_| bytes < codec::STORED_LEN_MAX / 4) {
                bytes += key.len() + value.as_ref().map_or(0, Vec::len) + 64;
                chunk.push((key, value));
            }
            chunks.push((chunk, marker.clone()));
        }
        if !dead.is_empty() {
            self.write_dead(&dead).map_err(io(&self.dead))?;
        }
        self.write_redo(&chunks).map_err(io(&self.redo))?;
        for (writes, marker) in &chunks {
            self.insert(writes, marker)?;
        }
        guarded(&self.place, || self.tree.flush())?;
        fs::remove_file(&self.redo).map_err(io(&self.redo))?;
        *self.lock() = (applied.clone(), digest);
        if !dead.is_empty() {
            self.runs.give_back(&dead);
            fs::remove_file(&self.dead).map_err(io(&self.dead))?;
        }
        Ok(())
    }

    fn scan(&self, visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.scan_from(&[], &mut |key, stored| visit(key, stored).map(|()| true))
    }

    fn scan_from(&self, from: &[u8], visit: &mut VisitWhile<'_>) -> Result<(), StateError> {
        let mut records = self.tree.range(from..);
        while let Some((key, stored)) = guarded(&self.place, || records.next().transpose())? {
            if key != APPLIED_KEY && !self.unfold(&key, &stored, from, visit)? {
                break;
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), StateError> {
        guarded(&self.place, || self.tree.clear())?;
        // Whoever clears it says next that nothing is left: what a crash would bring back must not outlive that.
        guarded(&self.place, || self.tree.flush())?;
        self.runs.clear().map_err(io(&self.dir))?;
        fs::remove_file(&self.redo).ok();
        fs::remove_file(&self.dead).ok();
        *self.lock() = Default::default();
        Ok(())
    }

    fn distrust(&self) {
        tracing::error!(place = %self.place, key = %hex(APPLIED_KEY), "the state is no longer trusted");
        fs::write(self.dir.join(TRUST_FILE), "damaged").ok();
    }
}

/// The redo file of these writes.
#[cfg(test)]
pub(crate) fn redo_of(writes: Vec<Write>, applied: &Applied) -> Vec<u8> {
    let mut digest = Digest::default();
    let sealed: Sealed = writes
        .into_iter()
        .map(|(key, value)| (key.as_bytes().to_vec(), value.map(|value| seal(key.as_bytes(), &value))))
        .collect();
    sealed.iter().flat_map(|(_, value)| value).for_each(|value| digest.add(value));
    let redo: Redo = (sealed, codec::encode(&(applied.to_bytes(), digest)));
    let body = codec::encode(&redo);
    [&body[..], &xxh3_64(&body).to_le_bytes()].concat()
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    vec![
        Golden::coded("state.marker", &(Applied::default().to_bytes(), Digest { records: 3, sum: 4 })),
        Golden::coded("state.place", &super::runs::place_for_golden()),
        Golden::coded("state.dead", &vec![super::runs::place_for_golden(); 2]),
        Golden::coded("state.chain", &super::chain::chain_for_golden()),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
mod tests;
