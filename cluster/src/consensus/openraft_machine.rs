//! The shard's state as openraft applies to it.

use std::sync::Arc;

use openraft::{
    BasicNode, Entry, EntryPayload, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StoredMembership, storage::RaftStateMachine,
};

use super::{
    Applier, SnapshotFile,
    openraft::{Batch, Types},
    openraft_log::{decode_members, encode_members, failed, from_position, to_position},
};

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct Adapter {
    applier: Arc<dyn Applier>,
}

impl Adapter {
    pub(super) fn new(applier: Arc<dyn Applier>) -> Self {
        Self { applier }
    }
}

#[expect(clippy::result_large_err, reason = "openraft's own error type")]
pub(super) fn to_snapshot(file: SnapshotFile) -> Result<Snapshot<Types>, StorageError<u64>> {
    let unreadable = || failed(ErrorVerb::Read, std::io::Error::other("the members in a snapshot do not check out"));
    let meta = SnapshotMeta {
        last_log_id: file.applied.position.map(from_position),
        last_membership: decode_members(&file.applied.membership).ok_or_else(unreadable)?,
        snapshot_id: file.path.display().to_string(),
    };
    Ok(Snapshot { meta, snapshot: Box::new(file) })
}

impl RaftSnapshotBuilder<Types> for Adapter {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let file = self.applier.clone().write_snapshot().await.map_err(|e| failed(ErrorVerb::Write, e))?;
        to_snapshot(file)
    }
}

impl RaftStateMachine<Types> for Adapter {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), StorageError<u64>> {
        let applied = self.applier.applied();
        let unreadable = || failed(ErrorVerb::Read, std::io::Error::other("the members in the state do not check out"));
        Ok((applied.position.map(from_position), decode_members(&applied.membership).ok_or_else(unreadable)?))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        for entry in entries {
            let position = to_position(&entry.log_id);
            let applied = match &entry.payload {
                EntryPayload::Blank => self.applier.apply(position, None, None),
                EntryPayload::Normal(Batch(bytes)) => self.applier.apply(position, Some(bytes), None),
                EntryPayload::Membership(membership) => {
                    let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                    self.applier.apply(position, None, Some(encode_members(&stored)))
                }
            };
            applied.map_err(|what| failed(ErrorVerb::Write, std::io::Error::other(what)))?;
            replies.push(());
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError<u64>> {
        // To be replaced: the shard receives it, whole.
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        _: &SnapshotMeta<u64, BasicNode>,
        file: Box<SnapshotFile>,
    ) -> Result<(), StorageError<u64>> {
        self.applier.clone().install(*file).await.map_err(|e| failed(ErrorVerb::Write, e))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        self.applier.snapshot().map(to_snapshot).transpose()
    }
}
