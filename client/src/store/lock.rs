//! One store, one process; and a store that was copied or restored knows it.
//!
//! Beside the store `<file>` lies `<file>.lock`. It is locked (flock) while a client has the store, and it holds a
//! *witness*: a mark that is minted anew at every opening, and how many posts were numbered since. The store holds
//! the same two. An older store put back (a backup) differs from its witness; a copy lies in another file (device
//! and inode); and when the store was closed well, it also knows the witness's change time, which nobody can set,
//! so that both files put back in place are noticed too.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::Error;

/// What the lock file says about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Witness {
    /// Minted at each opening.
    pub(super) mark: u64,
    /// Posts numbered since, counted after each is durable in the store.
    pub(super) sends: u64,
}

/// The place where a store is, as the file system knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct FileIdentity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl FileIdentity {
    /// Of the file at `path`.
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        let meta = std::fs::metadata(path).map_err(|e| Error::Store(format!("{}: {e}", path.display())))?;
        Ok(Self { device: meta.dev(), inode: meta.ino() })
    }
}

/// A held lock. Dropping it lets others in.
#[derive(Debug)]
pub(super) struct StoreLock {
    file: File,
    path: PathBuf,
}

impl StoreLock {
    /// Takes the lock of the store at `store`.
    pub(super) fn take(store: &Path) -> Result<Self, Error> {
        let mut name = store.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let failed = |e: std::io::Error| Error::Store(format!("{}: {e}", path.display()));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => Err(Error::StoreInUse(store.to_owned())),
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }

    /// What the file says; nothing in a new or damaged one.
    pub(super) fn witness(&self) -> Option<Witness> {
        let mut bytes = [0; 16];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let number = |at: usize| bytes[at..at + 8].iter().fold(0u64, |n, &b| (n << 8) | u64::from(b));
        Some(Witness { mark: number(0), sends: number(8) })
    }

    /// Writes what the file says. Without `durable` it may be lost with the power, which does no harm: a witness
    /// of fewer posts than the store proves nothing.
    pub(super) fn set_witness(&self, witness: Witness, durable: bool) -> Result<(), Error> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&witness.mark.to_be_bytes());
        bytes[8..].copy_from_slice(&witness.sends.to_be_bytes());
        self.file.write_all_at(&bytes, 0).map_err(|e| self.failed(&e))?;
        if durable { self.file.sync_all().map_err(|e| self.failed(&e)) } else { Ok(()) }
    }

    /// When the file's inode last changed, in nanoseconds since 1970.
    pub(super) fn changed_ns(&self) -> Result<i64, Error> {
        let meta = self.file.metadata().map_err(|e| self.failed(&e))?;
        Ok(meta.ctime().wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec()))
    }

    fn failed(&self, e: &std::io::Error) -> Error {
        Error::Store(format!("{}: {e}", self.path.display()))
    }
}
