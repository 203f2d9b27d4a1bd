//! A disk that fails or is slow on demand, over the real one.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use magpie_cluster::disk::{Disk, DiskFile, os::OsDisk};

/// Fails the sync, or the append, after so many more have worked; a negative number never.
#[derive(Clone)]
pub struct FaultyDisk {
    syncs_left: Arc<AtomicI64>,
    appends_left: Arc<AtomicI64>,
    sync_ms: Arc<AtomicU64>,
}

impl FaultyDisk {
    /// A disk that will fail after these.
    pub fn new(syncs_left: i64, appends_left: i64) -> Self {
        let (syncs_left, appends_left) = (Arc::new(syncs_left.into()), Arc::new(appends_left.into()));
        Self { syncs_left, appends_left, sync_ms: Arc::default() }
    }

    /// From now on each sync takes so much longer, in whole milliseconds.
    pub fn slow_down(&self, by: Duration) {
        self.sync_ms.store(by.as_millis() as u64, Ordering::Relaxed);
    }
}

struct FaultyFile {
    file: Box<dyn DiskFile>,
    disk: FaultyDisk,
    len: u64,
    synced_len: u64,
}

fn due(left: &AtomicI64) -> bool {
    left.load(Ordering::Relaxed) >= 0 && left.fetch_sub(1, Ordering::Relaxed) <= 0
}

impl DiskFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if due(&self.disk.appends_left) {
            self.file.append(&bytes[..bytes.len() / 2])?;
            return Err(io::Error::other("injected write error"));
        }
        self.len += bytes.len() as u64;
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        if due(&self.disk.syncs_left) {
            // After a failed sync the kernel forgets what was not written.
            self.file.truncate(self.synced_len)?;
            return Err(io::Error::other("injected sync error"));
        }
        std::thread::sleep(Duration::from_millis(self.disk.sync_ms.load(Ordering::Relaxed)));
        self.synced_len = self.len;
        self.file.sync()
    }

    fn reserve(&mut self, bytes: u64) {
        self.file.reserve(bytes);
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        (self.len, self.synced_len) = (len, len);
        self.file.truncate(len)
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile { file: OsDisk.create(path)?, disk: self.clone(), len: 0, synced_len: 0 }))
    }
    fn open(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile { file: OsDisk.open(path, len)?, disk: self.clone(), len, synced_len: len }))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        OsDisk.read(path)
    }
    fn len(&self, path: &Path) -> io::Result<u64> {
        OsDisk.len(path)
    }
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        OsDisk.read_at(path, offset, len)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        OsDisk.free_bytes(dir)
    }
}
