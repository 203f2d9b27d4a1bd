//! Long runs of entries, in files beside sled: written once, at the end of a file, and never moved.
//!
//! sled keeps up to sixteen values in a page and writes the page anew every ten changes; with long values that is
//! two to three times their bytes. Of a run it keeps the place alone. What a crash leaves behind the last place that
//! sled knows is never read, and cut off at the next start.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bincode::{Decode, Encode};
use magpie_protocol::ShardId;
use rustix::fs::{FallocateFlags, fallocate};

/// A file that has grown to this is followed by another.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Runs are gathered up to this, in bytes, and written at once.
const GATHERED_BYTES: usize = 1 << 20;

/// Where a run lies, and the checksum at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(super) struct Place {
    file: u32,
    offset: u64,
    len: u32,
    checksum: u64,
}

impl Place {
    /// Bytes of the run.
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }
}

/// Up to where each file is in use.
#[derive(Debug, Default)]
pub(super) struct InUse(BTreeMap<u32, u64>);

impl InUse {
    /// Something lies here.
    pub(super) fn add(&mut self, place: &Place) {
        let end = self.0.entry(place.file).or_default();
        *end = (*end).max(place.offset + u64::from(place.len));
    }
}

/// One shard's files.
pub(super) struct Runs {
    dir: PathBuf,
    prefix: String,
    files: Mutex<HashMap<u32, Arc<File>>>,
    end: Mutex<End>,
}

/// The file that grows, and its length; 0 before the first run.
#[derive(Clone, Copy, Default)]
struct End {
    file: u32,
    len: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runs {
    /// The files of this shard in `dir`. What is written goes behind what is there.
    pub(super) fn open(dir: &Path, shard: ShardId) -> io::Result<Self> {
        let prefix = format!("runs-{shard}-");
        let runs = Self { dir: dir.to_owned(), prefix, files: Mutex::default(), end: Mutex::default() };
        for number in runs.numbers()? {
            let file = File::options().read(true).write(true).open(runs.path(number))?;
            let mut end = lock(&runs.end);
            if number >= end.file {
                *end = End { file: number, len: file.metadata()?.len() };
            }
            lock(&runs.files).insert(number, Arc::new(file));
        }
        Ok(runs)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{}{number:06}", self.prefix))
    }

    fn numbers(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(&self.prefix)?.parse::<u32>().ok());
            numbers.extend(number);
        }
        Ok(numbers)
    }

    fn file(&self, number: u32) -> io::Result<Arc<File>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("the file {number} of runs is missing"));
        lock(&self.files).get(&number).cloned().ok_or_else(missing)
    }

    /// Begins to write behind what is there. One at a time.
    pub(super) fn append(&self) -> Appending<'_> {
        let end = lock(&self.end);
        Appending { runs: self, written: *end, end, gathered: Vec::new() }
    }

    /// The run at a place. Its content is checked by who asked.
    pub(super) fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let mut run = vec![0; place.len()];
        self.file(place.file)?.read_exact_at(&mut run, place.offset)?;
        Ok(run)
    }

    /// Gives back what lies behind everything that is in use. Whether all of that is there. Between that may be runs that
    /// nothing leads to any more: see [`Runs::give_back`].
    pub(super) fn cut(&self, in_use: &InUse) -> io::Result<bool> {
        let (mut end, mut whole) = (lock(&self.end), 0);
        *end = End::default();
        for number in self.numbers()? {
            let Some(&len) = in_use.0.get(&number) else {
                lock(&self.files).remove(&number);
                fs::remove_file(self.path(number))?;
                continue;
            };
            let file = self.file(number)?;
            let found = file.metadata()?.len();
            if found > len {
                file.set_len(len)?;
            }
            whole += usize::from(found >= len);
            if number >= end.file {
                *end = End { file: number, len: found.min(len) };
            }
        }
        Ok(whole == in_use.0.len())
    }

    /// Gives back the room of runs that nothing leads to any more, as far as the file system can. Who is still reading
    /// one finds zeros, and looks again.
    pub(super) fn give_back(&self, dead: &[Place]) {
        for place in dead {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let punched =
                self.file(place.file).and_then(|file| Ok(fallocate(&file, how, place.offset, place.len.into())?));
            if let Err(error) = punched {
                tracing::debug!(%error, "the room of a run is not given back");
            }
        }
    }

    /// Removes every file.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.cut(&InUse::default()).map(|_| ())
    }
}

/// Runs on their way to the end of a file. Nothing counts before [`Appending::finish`].
pub(super) struct Appending<'a> {
    runs: &'a Runs,
    end: MutexGuard<'a, End>,
    written: End,
    gathered: Vec<u8>,
}

impl Appending<'_> {
    /// Writes a run, which ends with its checksum, behind the others; says where it will lie.
    pub(super) fn push(&mut self, run: &[u8]) -> io::Result<Place> {
        if self.written.file == 0 || self.written.len + self.gathered.len() as u64 >= FILE_BYTES_MAX {
            self.write()?;
            let number = self.written.file + 1;
            // One that was begun and not finished holds nothing.
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(self.runs.path(number))?;
            lock(&self.runs.files).insert(number, Arc::new(file));
            self.written = End { file: number, len: 0 };
        }
        let offset = self.written.len + self.gathered.len() as u64;
        let checksum = run.last_chunk::<8>().map_or(0, |sum| u64::from_le_bytes(*sum));
        self.gathered.extend_from_slice(run);
        if self.gathered.len() >= GATHERED_BYTES {
            self.write()?;
        }
        Ok(Place { file: self.written.file, offset, len: run.len() as u32, checksum })
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.gathered.is_empty() {
            self.runs.file(self.written.file)?.write_all_at(&self.gathered, self.written.len)?;
            self.written.len += self.gathered.len() as u64;
            self.gathered.clear();
        }
        Ok(())
    }

    /// Returns when everything is in its file.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write()?;
        *self.end = self.written;
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn place_for_golden() -> Place {
    Place { file: 1, offset: 4096, len: 700, checksum: 0x0102_0304_0506_0708 }
}
