//! The other replicas of a group, as openraft asks them.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use magpie_protocol::{NodeId, ShardId};
use openraft::{
    BasicNode, Entry, EntryPayload, ErrorVerb, LogId, Snapshot, Vote,
    error::{
        Fatal, InstallSnapshotError, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
    },
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, SnapshotResponse,
        VoteRequest, VoteResponse,
    },
};

use super::{
    openraft::Types,
    openraft_log::failed,
    openraft_wire::{self as wire, Chunk, Offer, Received},
    pace::Brake,
};
use crate::{
    disk::Disk,
    system::SystemView,
    transport::{Lane, LinkError, Transport},
};

/// Bytes of a snapshot that travel at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// How long a part of a snapshot may take; the last is installed meanwhile.
const CHUNK_WITHIN: Duration = Duration::from_secs(60);
/// Pause before a peer that was not reached is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// How often the engine must have been found at work, a moment apart, before it hears of a later term.
const FAREWELLS: usize = 3;

type RpcError<E = openraft::error::Infallible> = RPCError<u64, BasicNode, RaftError<u64, E>>;

/// What all groups of a node need to reach the others.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) shard: ShardId,
    /// Of which cluster the group is.
    pub(super) system: SystemView,
    /// None for a node that is alone.
    pub(super) transport: Option<Arc<dyn Transport>>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) brake: Brake,
    /// The group's own replica, once it runs.
    pub(super) engine: Arc<OnceLock<openraft::Raft<Types>>>,
}

/// One other replica.
pub(super) struct Peer {
    network: Network,
    node: NodeId,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, node: u64, _: &BasicNode) -> Peer {
        Peer { network: self.clone(), node: NodeId::from_bits(node) }
    }
}

fn unreachable(error: &LinkError) -> Unreachable {
    Unreachable::new(error)
}

fn nonsense(node: NodeId) -> NetworkError {
    NetworkError::new(&std::io::Error::other(format!("{node} answered what this build does not understand")))
}

impl Peer {
    async fn call(&self, lane: Lane, request: Bytes, within: Duration) -> Result<Bytes, LinkError> {
        let Some(transport) = &self.network.transport else {
            let why = "this node runs without others".to_owned();
            return Err(LinkError::Refused { to: self.node, why });
        };
        let mut framed = BytesMut::with_capacity(10 + request.len());
        framed.put_u64_le(self.network.system.id());
        framed.put_u16_le(self.network.shard.get());
        framed.put_slice(&request);
        transport.call(self.node, lane, framed.freeze(), within).await
    }

    /// What goes to a replica that is far behind goes on the lane of snapshots. Where nothing may go yet it only hears
    /// that its leader is there: how far that reaches is returned.
    fn hold_back(&self, rpc: &mut AppendEntriesRequest<Types>) -> (Lane, Option<Option<LogId<u64>>>) {
        let from = rpc.prev_log_id.map_or(0, |prev| prev.index + 1);
        if rpc.entries.is_empty() || !self.network.brake.holds(from) {
            return (Lane::Consensus, None);
        }
        let bytes = |entry: &Entry<Types>| match &entry.payload {
            EntryPayload::Normal(batch) => batch.0.len(),
            _ => 0,
        };
        if self.network.brake.take(rpc.entries.iter().map(bytes).sum()) {
            return (Lane::Bulk, None);
        }
        rpc.entries.clear();
        (Lane::Consensus, Some(rpc.prev_log_id))
    }

    /// Returns when the engine has dealt with what it was told before. It ends the stream to a replica when that says that
    /// the term is over; where what it was told before has it send a snapshot on that stream, it takes the end for a
    /// failure and ends itself (openraft 0.9.25, `Command::Replicate` in `raft_core.rs`).
    async fn farewell(&self) {
        let Some(engine) = self.network.engine.get() else { return };
        for _ in 0..FAREWELLS {
            if engine.with_raft_state(|_| ()).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Sends the snapshot from where the peer's copy ends; returns the peer's vote when it is installed.
    async fn send(&self, vote: Vote<u64>, snapshot: &Snapshot<Types>) -> Result<Vote<u64>, Streaming> {
        let path = &snapshot.snapshot.path;
        let len = self.network.disk.len(path).map_err(unreadable)?;
        let index = snapshot.snapshot.applied.index();
        let offer = Offer { vote: wire::from_vote(&vote), index, len };
        let mut answer = self.call(Lane::Bulk, wire::offer(&offer), CHUNK_WITHIN).await;
        loop {
            let bytes = answer.map_err(|e| unreachable(&e))?;
            let offset = match magpie_protocol::codec::decode_stored(&bytes).map_err(|_| nonsense(self.node))? {
                Received::Done(vote) => return Ok(wire::to_vote(vote)),
                Received::Upto(offset) => offset.min(len),
                Received::Absent => {
                    // Waiting for an answer would keep it from all that it lacks when it is there.
                    let error = LinkError::Refused { to: self.node, why: "it holds no replica".to_owned() };
                    return Err(unreachable(&error).into());
                }
                Received::Failed(why) => {
                    tracing::warn!(shard = %self.network.shard, to = %self.node, %why, "a snapshot was not taken");
                    return Err(NetworkError::new(&std::io::Error::other(why)).into());
                }
            };
            let part = CHUNK_BYTES.min((len - offset) as usize);
            let bytes = self.network.disk.read_at(path, offset, part).map_err(unreadable)?;
            self.network.brake.part(part).await;
            let chunk = Chunk { offer: offer.clone(), offset, bytes };
            answer = self.call(Lane::Bulk, wire::chunk(&chunk), CHUNK_WITHIN).await;
        }
    }
}

type Streaming = StreamingError<Types, Fatal<u64>>;

/// A snapshot that is gone has a newer one in its place, which is sent next; one that cannot be read is the end of this
/// replica.
fn unreadable(error: std::io::Error) -> Streaming {
    match error.kind() {
        std::io::ErrorKind::NotFound => NetworkError::new(&error).into(),
        _ => failed(ErrorVerb::Read, error).into(),
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        let (lane, part) = self.hold_back(&mut rpc);
        let answer = self.call(lane, wire::append(rpc), option.hard_ttl()).await;
        let answer = answer.map_err(|e| RPCError::Unreachable(unreachable(&e)))?;
        let answer = wire::to_appended(&answer);
        if let Some(AppendEntriesResponse::HigherVote(_)) = answer {
            self.farewell().await;
        }
        match (answer, part) {
            (Some(AppendEntriesResponse::Success), Some(upto)) => Ok(AppendEntriesResponse::PartialSuccess(upto)),
            (Some(answer), _) => Ok(answer),
            (None, _) => Err(RPCError::Network(nonsense(self.node))),
        }
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RpcError<InstallSnapshotError>> {
        let unused = std::io::Error::other("snapshots go whole");
        Err(RPCError::Network(NetworkError::new(&unused)))
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, RpcError> {
        let answer = self.call(Lane::Consensus, wire::vote(&rpc), option.hard_ttl()).await;
        let answer = answer.map_err(|e| RPCError::Unreachable(unreachable(&e)))?;
        wire::to_voted(&answer).ok_or_else(|| RPCError::Network(nonsense(self.node)))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, Streaming> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send(vote, &snapshot) => Ok(SnapshotResponse::new(sent?)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_AFTER))
    }
}
