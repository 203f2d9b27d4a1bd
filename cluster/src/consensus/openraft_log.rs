//! The shard's log as openraft stores and reads it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::Arc,
};

use bincode::{Decode, Encode};
use bytes::Bytes;
use magpie_protocol::{NodeId, codec};
use openraft::{
    BasicNode, CommittedLeaderId, Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, LogState, Membership,
    OptionalSend, RaftLogReader, StorageError, StorageIOError, StoredMembership, Vote,
    storage::{LogFlushed, RaftLogStorage},
};

use super::{
    openraft::{Batch, Types},
    pace::Brake,
};
use crate::log::{LogEntry, Position, ShardLog};

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes of entries that travel at a time: more would take longer than the engine waits for the answer.
const READ_BYTES: usize = 1024 * 1024;

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct LogStore {
    log: Arc<ShardLog>,
    brake: Brake,
    start: Start,
}

/// How a replica starts.
#[derive(Clone, Copy)]
pub(super) struct Start {
    /// The last of what is applied. A snapshot may have come and been written down, and its leader not.
    pub(super) applied: Option<Position>,
    /// This node, where others may lead. One that led when it ended does not lead again in the same term: it has not
    /// applied yet all that it acknowledged, and has forgotten what others watch.
    pub(super) follows: Option<NodeId>,
}

impl LogStore {
    pub(super) fn new(log: Arc<ShardLog>, brake: Brake, start: Start) -> Self {
        Self { log, brake, start }
    }

    fn read(&self, from: u64, to: u64, bytes: usize) -> io::Result<Vec<Entry<Types>>> {
        let entries = self.log.read_some(from, to, bytes).map_err(io::Error::other)?;
        let decoded: Option<Vec<_>> = entries.into_iter().map(decode_entry).collect();
        decoded.ok_or_else(|| io::Error::other("an entry of a kind that this build does not know"))
    }
}

pub(super) fn to_position(id: &LogId<u64>) -> Position {
    Position { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub(super) fn from_position(position: Position) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(position.term, position.node), position.index)
}

#[derive(Encode, Decode)]
struct StoredMembers {
    log_id: Option<(u64, u64, u64)>,
    configs: Vec<Vec<u64>>,
    nodes: Vec<(u64, String)>,
}

pub(super) fn encode_members(stored: &StoredMembership<u64, BasicNode>) -> Bytes {
    let log_id = stored.log_id().map(|id| to_position(&id)).map(|p| (p.term, p.node, p.index));
    let membership = stored.membership();
    let configs = membership.get_joint_config().iter().map(|config| config.iter().copied().collect()).collect();
    let nodes = membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
    codec::encode(&StoredMembers { log_id, configs, nodes }).into()
}

/// The members of a group that begins anew at this position, as consensus writes them.
pub(crate) fn members_at(voters: &BTreeSet<NodeId>, position: Position) -> Bytes {
    let config: BTreeSet<u64> = voters.iter().map(|node| node.bits()).collect();
    let nodes: BTreeMap<u64, BasicNode> = config.iter().map(|node| (*node, BasicNode::default())).collect();
    encode_members(&StoredMembership::new(Some(from_position(position)), Membership::new(vec![config], nodes)))
}

pub(super) fn decode_members(bytes: &[u8]) -> Option<StoredMembership<u64, BasicNode>> {
    if bytes.is_empty() {
        return Some(StoredMembership::default());
    }
    let stored: StoredMembers = codec::decode_stored(bytes).ok()?;
    let log_id = stored.log_id.map(|(term, node, index)| from_position(Position { term, node, index }));
    let configs: Vec<BTreeSet<u64>> = stored.configs.into_iter().map(|c| c.into_iter().collect()).collect();
    let nodes: std::collections::BTreeMap<u64, BasicNode> =
        stored.nodes.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
    Some(StoredMembership::new(log_id, Membership::new(configs, nodes)))
}

pub(super) fn encode_entry(entry: Entry<Types>) -> LogEntry {
    let position = to_position(&entry.log_id);
    let payload = match entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[BLANK]),
        // A batch leaves room for this tag at its front, so that it is copied only into the log.
        EntryPayload::Normal(Batch(bytes)) => bytes,
        EntryPayload::Membership(membership) => {
            let stored = StoredMembership::new(Some(entry.log_id), membership);
            [&[MEMBERSHIP][..], &encode_members(&stored)].concat().into()
        }
    };
    LogEntry { position, payload }
}

pub(super) fn decode_entry(entry: LogEntry) -> Option<Entry<Types>> {
    let payload = match *entry.payload.first()? {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(Batch(entry.payload)),
        MEMBERSHIP => EntryPayload::Membership(decode_members(&entry.payload[1..])?.membership().clone()),
        _ => return None,
    };
    Some(Entry { log_id: from_position(entry.position), payload })
}

/// A vote as of one who follows nobody: a replica that comes again does not go on to lead.
pub(crate) fn promise_of(vote: &Bytes) -> Option<Bytes> {
    let (term, node, _): (u64, u64, bool) = codec::decode_stored(vote).ok()?;
    Some(codec::encode(&(term, node, false)).into())
}

/// The first byte of every batch.
pub(crate) const BATCH_TAG: u8 = NORMAL;

pub(super) fn failed(verb: ErrorVerb, error: impl std::error::Error + 'static) -> StorageError<u64> {
    StorageIOError::new(ErrorSubject::Logs, verb, openraft::AnyError::new(&error)).into()
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>, StorageError<u64>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match range.start_bound() {
            Included(&n) => n,
            Excluded(&n) => n + 1,
            Unbounded => 0,
        };
        let to = match range.end_bound() {
            Included(&n) => n + 1,
            Excluded(&n) => n,
            Unbounded => u64::MAX,
        };
        self.read(from, to, usize::MAX).map_err(|e| failed(ErrorVerb::Read, e))
    }

    /// What goes to another replica next: at least one entry.
    async fn limited_get_log_entries(&mut self, from: u64, to: u64) -> Result<Vec<Entry<Types>>, StorageError<u64>> {
        let bytes = if self.brake.holds(from) { self.brake.piece().await } else { READ_BYTES };
        self.read(from, to, bytes).map_err(|e| failed(ErrorVerb::Read, e))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<u64>> {
        Ok(LogState {
            last_purged_log_id: self.log.purged().map(from_position),
            last_log_id: self.log.last().map(from_position),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let (done, saved) = tokio::sync::oneshot::channel();
        let leader = vote.leader_id();
        let bytes = codec::encode(&(leader.term, leader.node_id, vote.is_committed()));
        self.log.save_vote(bytes.into(), Box::new(move || _ = done.send(())));
        saved.await.map_err(|e| failed(ErrorVerb::Write, e))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        let Some(bytes) = self.log.vote() else { return Ok(None) };
        let (term, node, committed): (u64, u64, bool) =
            codec::decode_stored(&bytes).map_err(|e| failed(ErrorVerb::Read, e))?;
        // Whoever led when what is applied was decided, led: nobody of an earlier term leads any more, not this one either.
        if let Some(decided) = self.start.applied.filter(|applied| applied.term > term) {
            return Ok(Some(Vote::new_committed(decided.term, decided.node)));
        }
        let led = self.start.follows.is_some_and(|me| me.bits() == node);
        Ok(Some(if committed && !led { Vote::new_committed(term, node) } else { Vote::new(term, node) }))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(encode_entry).collect();
        self.log.append(entries, Box::new(move || callback.log_io_completed(Ok(()))));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.log.truncate(log_id.index).map_err(|e| failed(ErrorVerb::Write, e))
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.log.purge(to_position(&log_id));
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let position = Position { term: 3, node: 0x0102, index: 0x0304_0506 };
    let log_id = from_position(position);
    let nodes: std::collections::BTreeMap<u64, BasicNode> = (1..4).map(|id| (id, BasicNode::default())).collect();
    let joint: Vec<BTreeSet<u64>> = vec![[1, 2].into(), [2, 3].into()];
    let stored = StoredMembership::new(Some(log_id), Membership::new(joint, nodes));
    let entry = |payload: EntryPayload<Types>| encode_entry(Entry { log_id, payload }).payload;
    let again = move |bytes: &[u8]| {
        let entry = LogEntry { position, payload: Bytes::copy_from_slice(bytes) };
        Some(encode_entry(decode_entry(entry)?).payload.to_vec())
    };
    let vote = codec::encode(&(4u64, 0x0102u64, true));
    vec![
        Golden::new("entry.blank", entry(EntryPayload::Blank), again),
        Golden::new("entry.batch", entry(EntryPayload::Normal(Batch(vec![NORMAL, 1, 2].into()))), again),
        Golden::new("entry.members", entry(EntryPayload::Membership(stored.membership().clone())), again),
        Golden::new("members", encode_members(&stored), |bytes| Some(encode_members(&decode_members(bytes)?).to_vec())),
        Golden::new("vote", vote, |bytes| promise_of(&Bytes::copy_from_slice(bytes)).map(|_| bytes.to_vec())),
    ]
}
