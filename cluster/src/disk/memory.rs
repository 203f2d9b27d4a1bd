//! A disk in memory that remembers what was synced, for tests that pull the plug.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, DiskFile};

/// What goes wrong next. The default is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Fail the sync after this many more have worked.
    pub fail_sync_after: Option<u64>,
    /// Fail the append after this many more have worked; half of it is written.
    pub fail_append_after: Option<u64>,
    /// Report this much free space.
    pub free_bytes: Option<u64>,
}

#[derive(Debug, Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    synced_len: usize,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<PathBuf, Content>,
    faults: Faults,
    syncs: u64,
}

/// A disk in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Inner>>);

impl MemoryDisk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms what goes wrong next.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// How many syncs have worked.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// What a restart finds after the power went: of each file what was synced, and of the rest the first
    /// `torn_bytes`. Handles to the disk before keep writing to the disk before.
    pub fn after_power_loss(&self, torn_bytes: usize) -> Self {
        let mut files = self.lock().files.clone();
        for content in files.values_mut() {
            let len = content.bytes.len().min(content.synced_len + torn_bytes);
            content.bytes.truncate(len);
            content.synced_len = len;
        }
        Self(Arc::new(Mutex::new(Inner { files, ..Inner::default() })))
    }

    /// Flips one bit.
    pub fn flip_bit(&self, path: &Path, offset: usize) {
        if let Some(content) = self.lock().files.get_mut(path)
            && let Some(byte) = content.bytes.get_mut(offset)
        {
            *byte ^= 1;
        }
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    path: PathBuf,
}

fn gone(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: no such file", path.display()))
}

/// Counts an armed fault down; true when it is due.
fn due(counter: &mut Option<u64>) -> bool {
    match counter {
        Some(0) => true,
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}

impl DiskFile for MemoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let fails = due(&mut inner.faults.fail_append_after);
        let content = inner.files.get_mut(&self.path).ok_or_else(|| gone(&self.path))?;
        if fails {
            content.bytes.extend_from_slice(&bytes[..bytes.len() / 2]);
            return Err(io::Error::other(format!("{}: injected write error", self.path.display())));
        }
        content.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        if due(&mut inner.faults.fail_sync_after) {
            return Err(io::Error::other(format!("{}: injected sync error", self.path.display())));
        }
        inner.syncs += 1;
        let content = inner.files.get_mut(&self.path).ok_or_else(|| gone(&self.path))?;
        content.synced_len = content.bytes.len();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let content = inner.files.get_mut(&self.path).ok_or_else(|| gone(&self.path))?;
        content.bytes.truncate(len as usize);
        content.synced_len = content.bytes.len();
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.lock().files.insert(path.to_owned(), Content::default());
        Ok(Box::new(MemoryFile { disk: self.clone(), path: path.to_owned() }))
    }

    fn open(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        match self.lock().files.get_mut(path) {
            Some(content) => content.bytes.truncate(len as usize),
            None => return Err(gone(path)),
        }
        Ok(Box::new(MemoryFile { disk: self.clone(), path: path.to_owned() }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.lock().files.get(path).map(|c| c.bytes.clone()).ok_or_else(|| gone(path))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(self.lock().files.get(path).ok_or_else(|| gone(path))?.bytes.len() as u64)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let inner = self.lock();
        let content = inner.files.get(path).ok_or_else(|| gone(path))?;
        let from = offset as usize;
        content.bytes.get(from..from + len).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let content = inner.files.remove(from).ok_or_else(|| gone(from))?;
        inner.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().files.remove(path).map(|_| ()).ok_or_else(|| gone(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.lock();
        let inside = inner.files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.lock().faults.free_bytes.unwrap_or(u64::MAX))
    }
}
