//! A node's disk: in memory, forgetful, slow or failing as [`Nature`] will have it; or with a known bug of those above
//! it put back.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use magpie_cluster::{
    disk::{
        Disk, DiskFile,
        memory::{Faults, MemoryDisk},
    },
    snapshot,
    state::{Key, StateBase, base::Applied, memory::MemoryBase},
};
use magpie_node::machine::table;
use magpie_protocol::{ShardId, Slot};

use super::nature::{Fault, Nature};

/// A known bug, put back where the product meets its disk: the tests of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A sync returns before the last bytes are safe: the next sync brings them to disk. What is acknowledged by it is
    /// acknowledged too early.
    EarlyAck,
    /// Snapshots leave out what the conversations remember of their senders: numbers and answers.
    ForgottenWindow,
    /// A leader serves reads however long it has heard of no majority.
    StaleRead,
}

/// See the module's documentation. Clones share it.
#[derive(Clone)]
pub struct SimDisk {
    memory: Arc<Mutex<MemoryDisk>>,
    nature: Nature,
    sabotage: Option<Sabotage>,
    /// Milliseconds that a write of the log takes while the disk is slow; 0 while it is not.
    slow_ms: Arc<AtomicU64>,
    /// The next sync of a disk with [`Sabotage::EarlyAck`] is one that it does.
    honest: Arc<AtomicBool>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(nature: &Nature, sabotage: Option<Sabotage>) -> Self {
        let (memory, slow_ms, honest) = (Arc::default(), Arc::default(), Arc::default());
        Self { memory, nature: nature.clone(), sabotage, slow_ms, honest }
    }

    fn memory(&self) -> MemoryDisk {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A write of the log takes so long from now on; 0 for as long as it takes a good disk.
    pub fn slow_down(&self, to_ms: u64) {
        self.slow_ms.store(to_ms, Ordering::Relaxed);
    }

    /// The next sync fails, and all after it.
    pub fn fail(&self) {
        self.memory().set_faults(Faults { fail_sync_after: Some(0), ..Faults::default() });
    }

    /// Another disk, with nothing on it, takes its place.
    pub fn replace(&self) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = MemoryDisk::default();
    }

    /// The power goes: what is not synced is lost, but for its first bytes. Those who use the disk now keep using what
    /// is no more.
    pub fn lose_power(&self, torn_bytes: usize) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        *memory = memory.after_power_loss(torn_bytes);
    }

    /// A snapshot without the senders' windows, in the place of the one in this file.
    fn forget(disk: &MemoryDisk, path: &Path) -> Result<(), snapshot::SnapshotError> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let (base, mut kept) = (MemoryBase::default(), Vec::new());
        let applied = snapshot::read(&disk, path, &mut |key, value| {
            let (front, id) = key.split_at_checked(3).unwrap_or((&[0; 3], &[]));
            if front[2] != table::SENDER {
                let slot = Slot::new(u16::from_be_bytes([front[0], front[1]]));
                kept.push((Key::new(slot, front[2]).bytes(id), Some(value.to_vec())));
            }
            Ok(())
        })?;
        base.commit(kept, &applied)?;
        let (written, _, _): (PathBuf, Applied, u64) =
            snapshot::write(&disk, Path::new("/forgetful"), ShardId::new(0), &base)?;
        Ok(disk.rename(&written, path)?)
    }
}

struct SimFile {
    file: Box<dyn DiskFile>,
    disk: SimDisk,
    of_log: bool,
}

fn is_of_log(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.ends_with("log"))
}

impl DiskFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let early = self.of_log && self.disk.sabotage == Some(Sabotage::EarlyAck);
        if early && !self.disk.honest.fetch_xor(true, Ordering::Relaxed) {
            return Ok(());
        }
        let synced = self.file.sync();
        if synced.is_err() {
            self.disk.nature.happened(Fault::DiskError);
        }
        synced
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SimFile { file: self.memory().create(path)?, disk: self.clone(), of_log: is_of_log(path) }))
    }
    fn open(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SimFile { file: self.memory().open(path, len)?, disk: self.clone(), of_log: is_of_log(path) }))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.memory().read(path)
    }
    fn len(&self, path: &Path) -> io::Result<u64> {
        self.memory().len(path)
    }
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.memory().read_at(path, offset, len)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let memory = self.memory();
        let is_snapshot = to.extension().is_some_and(|extension| extension == "snap");
        if self.sabotage == Some(Sabotage::ForgottenWindow) && is_snapshot {
            Self::forget(&memory, from).map_err(io::Error::other)?;
        }
        memory.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.memory().remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.memory().list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.memory().create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.memory().sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.memory().free_bytes(dir)
    }
    fn simulated_time(&self) -> Duration {
        let slow = self.slow_ms.load(Ordering::Relaxed);
        if slow == 0 {
            return Duration::from_millis(1 + self.nature.draw(2));
        }
        self.nature.happened(Fault::SlowDisk);
        Duration::from_millis(slow / 2 + self.nature.draw(slow))
    }
}
