//! The data folder, which belongs to one node for ever and to one process at a time.

use std::{io, path::Path, sync::Arc};

use magpie_cluster::{
    DiskId,
    disk::{Disk, os::OsDisk},
};
use magpie_protocol::NodeId;

use super::NodeError;

/// What else to do about a folder of another node: the next generation of an id comes without what the last one had.
pub(super) fn advice(owner: &str, me: NodeId) -> String {
    let number = |id: &str| id.split_once('.').map(|(number, _)| number.to_owned());
    if number(owner) != number(&me.to_string()) {
        return String::new();
    }
    format!(
        ". If {owner} has lost its disk or was removed, and this node comes in its place, nothing in the folder is \
         needed: delete it, and start again"
    )
}

/// Two processes on one data folder would ruin it.
pub(crate) fn lock(dir: &Path) -> Result<std::fs::File, NodeError> {
    std::fs::create_dir_all(dir)?;
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(NodeError::InUse(dir.display().to_string())),
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// A folder belongs to one node for ever: another would vote twice. Returns what names the folder itself.
pub(super) fn claim(dir: &Path, me: NodeId) -> Result<DiskId, NodeError> {
    let path = dir.join("node");
    let disk = match std::fs::read_to_string(&path) {
        Ok(text) => {
            let (owner, disk) = text.split_once('\n').unwrap_or((&text, ""));
            if owner.trim() != me.to_string() {
                let owner = owner.trim().to_owned();
                return Err(NodeError::Foreign { dir: dir.display().to_string(), owner, me });
            }
            u128::from_str_radix(disk.trim(), 16).ok()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(disk) = disk {
        return Ok(DiskId(disk));
    }
    let disk = DiskId(rand::random::<u128>());
    mark(dir, me, disk)?;
    Ok(disk)
}

/// Writes down whose folder it is.
pub(crate) fn mark(dir: &Path, me: NodeId, disk: DiskId) -> io::Result<()> {
    let whole: Arc<dyn Disk> = Arc::new(OsDisk);
    magpie_cluster::disk::write_whole(&whole, &dir.join("node"), format!("{me}\n{:032x}\n", disk.0).as_bytes())
}
