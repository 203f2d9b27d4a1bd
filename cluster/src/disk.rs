//! The disk, as the log and the snapshots see it: files that grow at their end, and an explicit sync.
//!
//! [`os::OsDisk`] is the real one. [`memory::MemoryDisk`] forgets what was not synced, tears writes and fails on
//! demand, so that tests can ask what survives.

pub mod memory;
pub mod os;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// A disk behind the log and the snapshots. All calls block; they are made on threads that may.
pub trait Disk: Send + Sync + 'static {
    /// Makes an empty file, replacing one of that name.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file to append to it behind its first `len` bytes.
    fn open(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>>;
    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Bytes of a file.
    fn len(&self, path: &Path) -> io::Result<u64>;
    /// Exactly `len` bytes from `offset`.
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Gives a file another name, replacing one of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a folder, sorted; none when the folder is not there.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a folder and those above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can still be written under this folder.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// How long the log's next write and sync take where time is simulated and no thread waits for them. The real ones
    /// take the time that they take.
    fn simulated_time(&self) -> Duration {
        Duration::ZERO
    }
}

/// An open file.
pub trait DiskFile: Send {
    /// Writes all of `bytes` at the end.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns when everything appended so far survives a loss of power.
    fn sync(&mut self) -> io::Result<()>;
    /// Asks for room for so many bytes behind the end, zeros until they are written: a sync then need not write the
    /// file's length each time. Without room nothing happens.
    fn reserve(&mut self, bytes: u64) {
        let _ = bytes;
    }
    /// Cuts the file to this length.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// Writes a file so that after a crash there is either the whole of it or the one before.
pub fn write_whole(disk: &Arc<dyn Disk>, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    let mut file = disk.create(&temporary)?;
    file.append(bytes)?;
    file.sync()?;
    drop(file);
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// The name that a file has until it is whole.
pub fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}
