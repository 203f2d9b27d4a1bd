//! Backups: one consistent cut across all shards, in a folder.
//!
//! Each shard's leader writes its part beside its snapshots, see [`cut`](crate::shard::cut); whoever makes the backup
//! fetches the parts, from whichever nodes have them, through the node that it asks, and they are forgotten there.
//! [`folder`] is what it makes of them, [`restore`](mod@restore) how new nodes begin from it.

pub mod folder;
pub mod restore;

use magpie_protocol::{NodeId, ShardId};

use crate::{
    AskError, Machine, Router,
    remote::Request,
    router::CUT_PART_MAX,
    shard::cut::Held,
    system::{BACKUP_LEVEL, SYSTEM_SHARD},
};

/// Why a backup is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    #[error("this node knows of no cluster yet")]
    NoCluster,
    #[error(
        "the cluster is at level {0}, and backups need level {BACKUP_LEVEL}: upgrade every node first (`magpie admin upgrade status`)"
    )]
    TooOld(u32),
    #[error("{0} has made a later cut: another backup began after this one")]
    Overtaken(ShardId),
    #[error("{0}'s part is gone: its leader changed while it was made, or a later backup took its place")]
    Gone(ShardId),
    #[error("{shard}: {error}")]
    Ask { shard: ShardId, error: AskError },
}

/// A cut that every shard has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    pub cut: u64,
    /// Which cluster.
    pub cluster: u64,
    pub epoch: u64,
    /// Which node has, or is about to have, each shard's part.
    pub parts: Vec<(ShardId, NodeId)>,
}

/// Bytes of a shard's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// How long the whole of it is; none while it is being written.
    pub len: Option<u64>,
    pub bytes: Vec<u8>,
}

impl<M: Machine> Router<M> {
    /// Lets every shard make the next cut. The parts are then there to be fetched, and kept for two minutes after they
    /// were last asked for.
    pub async fn begin_backup(&self) -> Result<Begun, BackupError> {
        let system = self.system().now().ok_or(BackupError::NoCluster)?;
        if system.level < BACKUP_LEVEL {
            return Err(BackupError::TooOld(system.level));
        }
        // Every backup begins here, so that each has a number of its own.
        let (cut, first) = self.cut_at(SYSTEM_SHARD, 0).await?;
        let others = (0..self.shards()).map(ShardId::new).filter(|shard| *shard != SYSTEM_SHARD);
        let cuts = others.map(async |shard| match self.cut_at(shard, cut).await? {
            (made, node) if made == cut => Ok((shard, node)),
            _ => Err(BackupError::Overtaken(shard)),
        });
        let mut parts = vec![(SYSTEM_SHARD, first)];
        parts.extend(futures_util::future::try_join_all(cuts).await?);
        Ok(Begun { cut, cluster: system.id, epoch: system.epoch, parts })
    }

    async fn cut_at(&self, shard: ShardId, cut: u64) -> Result<(u64, NodeId), BackupError> {
        let asked = self.at_leader(Request::Cut(shard, cut)).await;
        asked.and_then(|response| response.cut()).map_err(|error| BackupError::Ask { shard, error })
    }

    /// What lies at `offset` of a shard's part, up to half a megabyte, from the node that has it. `len` of 0 only says
    /// that it is still wanted.
    pub async fn backup_part(
        &self,
        (shard, node): (ShardId, NodeId),
        cut: u64,
        offset: u64,
        len: u64,
    ) -> Result<Part, BackupError> {
        let request = Request::CutPart { shard, cut, offset, len: len.min(CUT_PART_MAX) };
        let asked = self.ask_node(node, request).await.and_then(|response| response.cut_part());
        match asked.map_err(|error| BackupError::Ask { shard, error })? {
            (Held::No, _) => Err(BackupError::Gone(shard)),
            (Held::NotYet, _) => Ok(Part { len: None, bytes: Vec::new() }),
            (Held::Whole { len, .. }, bytes) => Ok(Part { len: Some(len), bytes }),
        }
    }

    /// The parts are not needed any more.
    pub async fn end_backup(&self, begun: &Begun) {
        let forgotten = begun.parts.iter().map(async |(shard, node)| {
            // Nobody asks for them: they are forgotten by themselves, later.
            _ = self.ask_node(*node, Request::ForgetCut(*shard, begun.cut)).await;
        });
        futures_util::future::join_all(forgotten).await;
    }
}
