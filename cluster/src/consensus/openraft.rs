//! openraft 0.9 as the consensus engine: one group a shard, many commands an entry.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use magpie_protocol::{NodeId, codec};
use openraft::{
    BasicNode, Config, RaftTypeConfig, SnapshotPolicy, Vote,
    error::{CheckIsLeaderError, ClientWriteError, RaftError},
};
use tokio::sync::watch;

use super::{
    Applier, BoxFuture, Consensus, Incoming, Leadership, ProposeError, SnapshotFile,
    openraft_log::LogStore,
    openraft_machine::{Adapter, to_snapshot},
    openraft_network::Network,
    openraft_wire::{self as wire, Received},
};
use crate::{disk::Disk, log::ShardLog, transport::Transport};

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

/// Heartbeats, and how long a replica waits without them before it stands for election, in milliseconds. openraft
/// adds the longer of the two timeouts to a random one before a first election.
const HEARTBEAT_MS: u64 = 100;
const ELECTION_MS: (u64, u64) = (300, 400);
/// Entries that travel at a time: each a batch of at most some 80 KB, and a message has a limit.
const ENTRIES_MAX: u64 = 64;

/// What a group is made of.
pub struct GroupParts {
    pub node: NodeId,
    /// The replicas that a new group begins with.
    pub voters: Vec<NodeId>,
    pub log: Arc<ShardLog>,
    pub applier: Arc<dyn Applier>,
    /// The way to the others; none for a node that is alone.
    pub transport: Option<Arc<dyn Transport>>,
    pub disk: Arc<dyn Disk>,
}

/// This node's replica of a group.
#[derive(Clone)]
pub struct Group {
    raft: openraft::Raft<Types>,
    applier: Arc<dyn Applier>,
    leadership: watch::Receiver<Leadership>,
}

fn stopped(error: impl fmt::Display) -> ProposeError {
    ProposeError::Stopped(error.to_string())
}

impl Group {
    /// Starts the group over its log and its state, with its first voters if it is new. A group of one returns when
    /// it leads and has applied what the log holds; one of several at once.
    pub async fn start(parts: GroupParts) -> Result<Self, ProposeError> {
        let GroupParts { node, voters, log, applier, transport, disk } = parts;
        let alone = voters == [node];
        let config = Config {
            cluster_name: log.shard().to_string(),
            // A node that is alone wakes for nothing.
            heartbeat_interval: if alone { 500 } else { HEARTBEAT_MS },
            election_timeout_min: if alone { 1000 } else { ELECTION_MS.0 },
            election_timeout_max: if alone { 1500 } else { ELECTION_MS.1 },
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            max_payload_entries: ENTRIES_MAX,
            install_snapshot_timeout: 120_000,
            ..Config::default()
        };
        let config = Arc::new(config.validate().map_err(stopped)?);
        let network = Network { shard: log.shard(), transport, disk };
        let store = LogStore::new(log);
        let raft = openraft::Raft::new(node.bits(), config, network, store, Adapter::new(applier.clone()))
            .await
            .map_err(stopped)?;
        if !raft.is_initialized().await.map_err(stopped)? {
            // Every first voter does this, with the same voters: the groups that come of it are one.
            let members: BTreeMap<u64, BasicNode> = voters.iter().map(|v| (v.bits(), BasicNode::default())).collect();
            raft.initialize(members).await.map_err(stopped)?;
        } else if alone {
            // There is nobody to wait for.
            raft.trigger().elect().await.map_err(stopped)?;
        }
        let (tell, leadership) = watch::channel(Leadership::default());
        tokio::spawn(follow(raft.metrics(), tell));
        let mut group = Self { raft, applier, leadership };
        if alone {
            let leads = group.leadership.wait_for(|l| l.leads || l.ended).await;
            if leads.map_err(stopped)?.ended {
                return Err(ProposeError::Stopped(group.died().await));
            }
            group.read_index().await?;
        }
        Ok(group)
    }

    async fn answer(&self, request: wire::Request) -> Result<Bytes, String> {
        let failed = |e: RaftError<u64>| e.to_string();
        match request {
            wire::Request::Append(rpc) => Ok(wire::appended(&self.raft.append_entries(rpc).await.map_err(failed)?)),
            wire::Request::Vote(rpc) => Ok(wire::voted(&self.raft.vote(rpc).await.map_err(failed)?)),
            wire::Request::Offer(offer) => Ok(self.received(&offer, None).await),
            wire::Request::Chunk(chunk) => Ok(self.received(&chunk.offer, Some((chunk.offset, chunk.bytes))).await),
        }
    }

    /// Takes a part of a snapshot; installs it with the last.
    async fn received(&self, offer: &wire::Offer, part: Option<(u64, Vec<u8>)>) -> Bytes {
        let vote = wire::to_vote(offer.vote);
        let newer = self.raft.metrics().borrow().vote;
        let received = if newer > vote {
            Received::Done(wire::from_vote(&newer))
        } else {
            match self.applier.clone().receive(offer.index, offer.len, part).await {
                Err(error) => Received::Failed(error.to_string()),
                Ok(Incoming::Upto(offset)) => Received::Upto(offset),
                Ok(Incoming::Whole(file)) => match self.install(vote, file).await {
                    Ok(vote) => Received::Done(wire::from_vote(&vote)),
                    Err(why) => Received::Failed(why),
                },
            }
        };
        codec::encode(&received).into()
    }

    async fn install(&self, vote: Vote<u64>, file: SnapshotFile) -> Result<Vote<u64>, String> {
        let snapshot = to_snapshot(file).map_err(|e| e.to_string())?;
        Ok(self.raft.install_full_snapshot(vote, snapshot).await.map_err(|e| e.to_string())?.vote)
    }
}

/// Says who leads, as often as that changes.
async fn follow(mut metrics: watch::Receiver<openraft::RaftMetrics<u64, BasicNode>>, tell: watch::Sender<Leadership>) {
    loop {
        let now = {
            let m = metrics.borrow_and_update();
            // Before the first entry of its term is applied, a new leader may not hold all that was acknowledged.
            let ready = m.last_applied.is_some_and(|id| id.leader_id.term == m.current_term);
            let leader = m.current_leader.map(NodeId::from_bits);
            let leads = m.current_leader == Some(m.id) && ready;
            Leadership { leader, term: m.current_term, leads, ended: m.running_state.is_err() }
        };
        let ended = now.ended;
        tell.send_if_modified(|before| std::mem::replace(before, now) != now);
        if ended || metrics.changed().await.is_err() {
            tell.send_modify(|before| *before = Leadership { leads: false, ended: true, ..*before });
            return;
        }
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

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    fn answer(&self, request: Bytes) -> BoxFuture<Option<Bytes>> {
        let group = self.clone();
        Box::pin(async move {
            let request = wire::request(request)?;
            match group.answer(request).await {
                Ok(answer) => Some(answer),
                Err(error) => {
                    tracing::debug!(%error, "a request of another replica was not answered");
                    None
                }
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
