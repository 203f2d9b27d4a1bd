//! A snapshot that another replica sends, part by part; what came before a break is kept.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use magpie_protocol::ShardId;

use super::{SnapshotError, list, read, snapshot_path};
use crate::{
    consensus::{Incoming, SnapshotFile},
    disk::Disk,
};

/// The name of a snapshot that is not whole yet says its length too, so that parts of two never mix.
fn partial_name(shard: ShardId, index: u64, len: u64) -> String {
    format!("{shard}-{index:016}-{len}.part")
}

/// Takes bytes that lie at `offset` of the snapshot of this index and length, if they are the next; checks and keeps
/// the whole of it at the end.
pub fn receive(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    shard: ShardId,
    (index, len): (u64, u64),
    part: Option<(u64, Vec<u8>)>,
) -> Result<Incoming, SnapshotError> {
    disk.create_dir(dir)?;
    let (path, name) = (snapshot_path(dir, shard, index), partial_name(shard, index, len));
    let partial = dir.join(&name);
    let mut have = disk.len(&partial).unwrap_or(0);
    match part {
        None if have == 0 => {
            forget_others(disk, dir, shard, &name)?;
            disk.create(&partial)?;
        }
        Some((offset, bytes)) if offset == have && have + bytes.len() as u64 <= len => {
            let mut file = disk.open(&partial, have)?;
            file.append(&bytes)?;
            have += bytes.len() as u64;
            // What a sync that failed has left would pass for a whole snapshot at the next part, and be gone after a
            // loss of power.
            if have == len
                && let Err(error) = file.sync()
            {
                disk.remove(&partial)?;
                return Err(error.into());
            }
        }
        // Whoever sends begins again from where this one ends.
        _ => {}
    }
    if have < len {
        return Ok(Incoming::Upto(have));
    }
    let applied = match read(disk, &partial, &mut |_, _| Ok(())) {
        Ok(applied) if applied.index() == index => applied,
        Ok(applied) => {
            disk.remove(&partial)?;
            let what = format!("a snapshot of entry {index} is of entry {}", applied.index());
            return Err(io::Error::other(what).into());
        }
        Err(error) => {
            disk.remove(&partial)?;
            return Err(error);
        }
    };
    disk.rename(&partial, &path)?;
    disk.sync_dir(dir)?;
    Ok(Incoming::Whole(SnapshotFile { path, applied }))
}

/// Forgets what was received of a snapshot.
pub fn forget_partial(disk: &Arc<dyn Disk>, dir: &Path, shard: ShardId) -> io::Result<()> {
    forget_others(disk, dir, shard, "")
}

fn forget_others(disk: &Arc<dyn Disk>, dir: &Path, shard: ShardId, name: &str) -> io::Result<()> {
    let prefix = format!("{shard}-");
    for other in disk.list(dir)? {
        if other != name && other.starts_with(&prefix) && other.ends_with(".part") {
            disk.remove(&dir.join(other))?;
        }
    }
    Ok(())
}

/// Removes the snapshots of a shard that are older than this one. A newer one was received and will be installed.
pub fn keep_only(disk: &Arc<dyn Disk>, dir: &Path, shard: ShardId, kept: &PathBuf) -> io::Result<()> {
    let all = list(disk, dir, shard)?;
    let index = all.iter().find(|(_, path)| path == kept).map_or(0, |(index, _)| *index);
    for (_, old) in all.iter().filter(|(other, _)| *other < index) {
        disk.remove(old)?;
    }
    Ok(())
}
