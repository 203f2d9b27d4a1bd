//! openraft 0.9 as the consensus engine: one group a shard, many commands an entry.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use magpie_protocol::NodeId;
use openraft::{
    BasicNode, Config, RaftTypeConfig, SnapshotPolicy,
    error::{CheckIsLeaderError, ClientWriteError, Infallible, InstallSnapshotError, RPCError, RaftError, Unreachable},
    network::{RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
        VoteResponse,
    },
};

use super::{
    Applier, BoxFuture, Consensus, ProposeError, SnapshotFile, openraft_log::LogStore, openraft_machine::Adapter,
};
use crate::log::ShardLog;

/// A batch as openraft carries it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Batch(pub(super) Bytes);

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

/// The types of our groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Types;

impl RaftTypeConfig for Types {
    type D = Batch;
    type R = ();
    type NodeId = u64;
    type Node = BasicNode;
    type Entry = openraft::Entry<Types>;
    type SnapshotData = SnapshotFile;
    type AsyncRuntime = openraft::TokioRuntime;
    type Responder = openraft::impls::OneshotResponder<Types>;
}

/// One voter talks to nobody. The network to other nodes takes this place.
struct Alone;

impl RaftNetworkFactory<Types> for Alone {
    type Network = Alone;

    async fn new_client(&mut self, _: u64, _: &BasicNode) -> Alone {
        Alone
    }
}

type RpcError<E = Infallible> = RPCError<u64, BasicNode, RaftError<u64, E>>;

fn nobody<E: std::error::Error>() -> RpcError<E> {
    RPCError::Unreachable(Unreachable::new(&std::io::Error::other("a group of one voter has no other replica")))
}

impl RaftNetwork<Types> for Alone {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        Err(nobody())
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RpcError<InstallSnapshotError>> {
        Err(nobody())
    }

    async fn vote(&mut self, _: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, RpcError> {
        Err(nobody())
    }

    async fn full_snapshot(
        &mut self,
        _: openraft::Vote<u64>,
        _: openraft::Snapshot<Types>,
        _: impl std::future::Future<Output = openraft::error::ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<
        openraft::raft::SnapshotResponse<u64>,
        openraft::error::StreamingError<Types, openraft::error::Fatal<u64>>,
    > {
        Err(openraft::error::StreamingError::Unreachable(Unreachable::new(&std::io::Error::other("no other replica"))))
    }
}

/// A group of one voter: this node.
#[derive(Clone)]
pub struct Group {
    raft: openraft::Raft<Types>,
}

impl Group {
    /// Starts the group over its log and its state, makes this node its only voter if it is new, and returns when
    /// it leads and has applied what the log holds.
    pub async fn start(node: NodeId, log: Arc<ShardLog>, applier: Arc<dyn Applier>) -> Result<Self, ProposeError> {
        let stopped = |what: String| ProposeError::Stopped(what);
        let config = Config {
            cluster_name: log.shard().to_string(),
            heartbeat_interval: 500,
            election_timeout_min: 1000,
            election_timeout_max: 1500,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            ..Config::default()
        };
        let config = Arc::new(config.validate().map_err(|e| stopped(e.to_string()))?);
        let store = LogStore::new(log);
        let raft = openraft::Raft::new(node.bits(), config, Alone, store, Adapter::new(applier))
            .await
            .map_err(|e| stopped(e.to_string()))?;
        if !raft.is_initialized().await.map_err(|e| stopped(e.to_string()))? {
            let members = BTreeMap::from([(node.bits(), BasicNode::default())]);
            raft.initialize(members).await.map_err(|e| stopped(e.to_string()))?;
        } else {
            // Alone, there is nobody to wait for.
            raft.trigger().elect().await.map_err(|e| stopped(e.to_string()))?;
        }
        let mut metrics = raft.metrics();
        let leads = metrics.wait_for(|m| m.current_leader == Some(m.id) || m.running_state.is_err());
        leads.await.map_err(|e| stopped(e.to_string()))?.running_state.clone().map_err(|e| stopped(e.to_string()))?;
        let group = Self { raft };
        group.read_index().await?;
        Ok(group)
    }
}

impl Consensus for Group {
    fn propose(&self, batch: Bytes) -> BoxFuture<Result<(), ProposeError>> {
        let raft = self.raft.clone();
        Box::pin(async move {
            match raft.client_write(Batch(batch)).await {
                Ok(_) => Ok(()),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
                Err(error) => Err(ProposeError::Stopped(error.to_string())),
            }
        })
    }

    fn read_index(&self) -> BoxFuture<Result<u64, ProposeError>> {
        let raft = self.raft.clone();
        Box::pin(async move {
            match raft.ensure_linearizable().await {
                Ok(position) => Ok(position.map_or(0, |p| p.index)),
                Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
                Err(error) => Err(ProposeError::Stopped(error.to_string())),
            }
        })
    }

    fn snapshot(&self) -> BoxFuture<Result<(), ProposeError>> {
        let raft = self.raft.clone();
        Box::pin(async move { raft.trigger().snapshot().await.map_err(|e| ProposeError::Stopped(e.to_string())) })
    }

    fn stop(&self) -> BoxFuture<()> {
        let raft = self.raft.clone();
        Box::pin(async move {
            if let Err(error) = raft.shutdown().await {
                tracing::error!(%error, "a consensus core ended in a panic");
            }
        })
    }

    fn died(&self) -> BoxFuture<String> {
        let mut metrics = self.raft.metrics();
        Box::pin(async move {
            match metrics.wait_for(|m| m.running_state.is_err()).await {
                Ok(m) => m.running_state.clone().err().map_or_else(String::new, |e| e.to_string()),
                Err(_) => "its metrics are gone".to_owned(),
            }
        })
    }
}
