//! Long runs of entries, in files beside sled: written once, at the end of a file, and never moved.
//!
//! sled keeps up to sixteen values in a page and writes the page anew every ten changes; with long values that is
//! two to three times their bytes. Of a run it keeps the place alone. What a crash leaves behind the last place that
//! sled knows is never read.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bincode::{Decode, Encode};
use magpie_protocol::ShardId;

/// A file that has grown to this is followed by another.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Where a run lies, and the checksum at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
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

/// One shard's files.
pub(super) struct Runs {
    dir: PathBuf,
    prefix: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    files: HashMap<u32, Arc<File>>,
    /// The file that grows, and its length; none before the first run.
    current: u32,
    len: u64,
}

impl Runs {
    /// The files of this shard in `dir`. What is written goes behind what is there.
    pub(super) fn open(dir: &Path, shard: ShardId) -> io::Result<Self> {
        let runs = Self { dir: dir.to_owned(), prefix: format!("runs-{shard}-"), inner: Mutex::default() };
        let mut inner = runs.lock();
        for number in runs.numbers()? {
            let file = File::options().read(true).write(true).open(runs.path(number))?;
            if number >= inner.current {
                (inner.current, inner.len) = (number, file.metadata()?.len());
            }
            inner.files.insert(number, Arc::new(file));
        }
        drop(inner);
        Ok(runs)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Writes runs one behind the other, each with its checksum at its end; says where they lie.
    pub(super) fn append(&self, runs: &[Vec<u8>]) -> io::Result<Vec<Place>> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let mut inner = self.lock();
        if inner.current == 0 || inner.len >= FILE_BYTES_MAX {
            let number = inner.current + 1;
            let file = File::options().read(true).write(true).create_new(true).open(self.path(number))?;
            inner.files.insert(number, Arc::new(file));
            (inner.current, inner.len) = (number, 0);
        }
        let (number, mut offset) = (inner.current, inner.len);
        let file = inner.files.get(&number).cloned().ok_or_else(|| missing(number))?;
        let mut places = Vec::with_capacity(runs.len());
        for run in runs {
            file.write_all_at(run, offset)?;
            let checksum = run.last_chunk::<8>().map_or(0, |sum| u64::from_le_bytes(*sum));
            places.push(Place { file: number, offset, len: run.len() as u32, checksum });
            offset += run.len() as u64;
        }
        inner.len = offset;
        Ok(places)
    }

    /// The run at a place. Its content is checked by who asked.
    pub(super) fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let file = self.lock().files.get(&place.file).cloned().ok_or_else(|| missing(place.file))?;
        let mut run = vec![0; place.len()];
        file.read_exact_at(&mut run, place.offset)?;
        Ok(run)
    }

    /// Removes every file.
    pub(super) fn clear(&self) -> io::Result<()> {
        let mut inner = self.lock();
        for number in self.numbers()? {
            fs::remove_file(self.path(number))?;
        }
        *inner = Inner::default();
        Ok(())
    }
}

fn missing(number: u32) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the file {number} of runs is missing"))
}

#[cfg(test)]
pub(super) fn place_for_golden() -> Place {
    Place { file: 1, offset: 4096, len: 700, checksum: 0x0102_0304_0506_0708 }
}
