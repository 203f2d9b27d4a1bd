//! New nodes from a backup, while none of them runs.
//!
//! Every node begins with every shard's snapshot and an empty log, as members of new groups. The record of the cluster
//! becomes that of a new one: another id, so that nodes of the lost history are not heard, and a later history epoch,
//! by which devices know that what they hold may be more than there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use magpie_protocol::{NodeId, ShardId, codec};

use super::folder::{Folder, FolderError, Manifest};
use crate::{
    consensus::members_at,
    disk::Disk,
    log::Position,
    snapshot,
    state::Applied,
    system::{self, DiskId, LEVEL, Member, Place, SYSTEM_SHARD, Standing, System, founding},
};

/// Where the log of a restored shard begins: before the first term that anybody can be elected in.
const BEGINS_AT: Position = Position { term: 0, node: 0, index: 1 };

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Snapshot(#[from] snapshot::SnapshotError),
    #[error("{0} nodes were given; a cluster is restored to 1, 3 or 5")]
    Nodes(usize),
    #[error("{0} was given twice")]
    Twice(NodeId),
    #[error("the backup has {backup} shards, and storage.shards of {node} is {wanted}: they must be the same")]
    Shards { backup: usize, node: NodeId, wanted: u16 },
    #[error("the backup is of a cluster at level {0}, and this build can do level {LEVEL}: use a newer build")]
    TooOld(u32),
}

/// A node that is to begin from the backup.
#[derive(Debug, Clone)]
pub struct NewNode {
    pub node: NodeId,
    pub address: SocketAddr,
    pub zone: String,
    /// What names its data folder.
    pub disk: DiskId,
    /// Its data folder, or what will be that.
    pub dir: PathBuf,
    /// How many shards its configuration says.
    pub shards: u16,
}

/// The record of the cluster that begins.
pub fn restored(old: &System, id: u64, now_ms: u64, nodes: &[NewNode]) -> System {
    let all: BTreeSet<NodeId> = nodes.iter().map(|new| new.node).collect();
    let gone = |member: &Member| Member { standing: Standing::Removed, token: None, ..member.clone() };
    // Ids of the old cluster are never used again but by those that are given.
    let mut members: BTreeMap<NodeId, Member> = old.nodes.iter().map(|(node, m)| (*node, gone(m))).collect();
    for new in nodes {
        let member = Member {
            address: new.address,
            zone: new.zone.clone(),
            standing: Standing::Active,
            disk: Some(new.disk),
            token: None,
            level: LEVEL,
            devices: None,
        };
        members.insert(new.node, member);
    }
    System {
        id,
        version: old.version + 1,
        level: old.level,
        // Later also than that of another history that began from the same backup.
        epoch: now_ms.max(old.epoch + 1),
        replicas: all.len() as u8,
        nodes: members,
        shards: vec![Place { replicas: all, becoming: None }; old.shards.len()],
    }
}

/// Makes the data folders of these nodes, which must be empty, from a backup that was checked. Returns the record of
/// the new cluster.
pub fn restore(
    folder: &Folder,
    manifest: &Manifest,
    to: &Arc<dyn Disk>,
    now_ms: u64,
    nodes: &[NewNode],
    mut say: impl FnMut(NodeId, ShardId),
) -> Result<System, RestoreError> {
    if !matches!(nodes.len(), 1 | 3 | 5) {
        return Err(RestoreError::Nodes(nodes.len()));
    }
    for (at, new) in nodes.iter().enumerate() {
        if nodes[..at].iter().any(|other| other.node == new.node) {
            return Err(RestoreError::Twice(new.node));
        }
        if usize::from(new.shards) != manifest.shards.len() {
            let (node, wanted) = (new.node, new.shards);
            return Err(RestoreError::Shards { backup: manifest.shards.len(), node, wanted });
        }
    }
    if manifest.level > LEVEL {
        return Err(RestoreError::TooOld(manifest.level));
    }
    let system = restored(&folder.system()?, founding::new_id(), now_ms, nodes);
    let voters = nodes.iter().map(|new| new.node).collect();
    let applied = Applied { position: Some(BEGINS_AT), membership: members_at(&voters, BEGINS_AT) };
    for new in nodes {
        let snapshots = new.dir.join("snapshots");
        for shard in (0..new.shards).map(ShardId::new) {
            say(new.node, shard);
            copy(folder, shard, to, &snapshots, &applied, &system)?;
        }
    }
    Ok(system)
}

fn copy(
    folder: &Folder,
    shard: ShardId,
    to: &Arc<dyn Disk>,
    dir: &Path,
    applied: &Applied,
    system: &System,
) -> Result<(), RestoreError> {
    let path = snapshot::snapshot_path(dir, shard, applied.index());
    let record = system::key();
    let change = |key: &[u8]| {
        let is_record = shard == SYSTEM_SHARD && key == record.as_bytes();
        is_record.then(|| codec::encode(system))
    };
    snapshot::rewrite(&(folder.disk().clone(), folder.path(shard)), &(to.clone(), path), applied, &change)?;
    Ok(())
}
