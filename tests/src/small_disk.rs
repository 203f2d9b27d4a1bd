//! A small disk of its own, that can be filled.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a failure here is the failure of a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Unmounted at the end.
pub struct SmallDisk {
    /// Where it is mounted.
    pub at: PathBuf,
    _parent: tempfile::TempDir,
}

impl SmallDisk {
    /// Of so many MiB; `None`, having said why, where this process may not mount.
    pub fn mount(mib: u32) -> Option<Self> {
        let parent = tempfile::tempdir().expect("a folder");
        let at = parent.path().join("data");
        fs::create_dir(&at).expect("a folder");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { at, _parent: parent }),
            Ok(output) => {
                println!("SKIPPED: no tmpfs can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("SKIPPED: mount cannot be run: {error}");
                None
            }
        }
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).expect("a disk");
        stat.f_bavail * stat.f_frsize
    }

    /// Somebody else fills the disk until only this is free.
    pub fn fill(&self, leave: u64) {
        let mut filler = fs::read(self.filler()).unwrap_or_default();
        filler.resize(filler.len() + self.free().saturating_sub(leave) as usize, 7);
        // It fails at the end when the node takes a page meanwhile: as full as can be is what is wanted.
        if let Err(error) = fs::write(self.filler(), filler) {
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
        }
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// What was filled is free again.
    pub fn clear(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    /// A folder on it.
    pub fn folder(&self, name: &str) -> PathBuf {
        Path::new(&self.at).join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node that a failed test left behind must not keep it.
        let ended = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking(), "the disk stays mounted");
    }
}
