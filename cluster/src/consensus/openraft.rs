//! openraft 0.9 as the consensus engine: one group a shard, many commands an entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use magpie_protocol::{NodeId, codec};
use openraft::{
    BasicNode, ChangeMembers, Config, RaftMetrics, RaftTypeConfig, SnapshotPolicy, Vote,
    error::{ChangeMembershipError, CheckIsLeaderError, ClientWriteError, InitializeError, RaftError},
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    Applier, BoxFuture, Consensus, Followed, Heard, Incoming, Leadership, Members, ProposeError, Reshaping,
    SnapshotFile,
    openraft_log::{LogStore, Start, to_position},
    openraft_machine::{Adapter, to_snapshot},
    openraft_network::Network,
    openraft_wire::{self as wire, Received},
    pace::{BEHIND_MAX, Brake, Pace},
};
use crate::{
    disk::Disk,
    log::{Position, ShardLog},
    system::SystemView,
    transport::Transport,
};

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
const HEARTBEAT_MS: u64 = 75;
const ELECTION_MS: (u64, u64) = (200, 300);
/// A leader that has not heard of a majority for this long no longer serves: another may have been elected.
pub const HEARD_WITHIN: Duration = Duration::from_millis(ELECTION_MS.1);
/// After so long a leader that nobody follows any more has fallen silent: twice the time after which it serves nothing, and
/// until it looks again. What another acknowledged meanwhile is not in what it says.
const DEPOSED_WITHIN: Duration = Duration::from_millis(2 * ELECTION_MS.1 + 2 * HEARTBEAT_MS);
/// Entries that travel at a time: each a batch of at most some 80 KB, and a message has a limit.
const ENTRIES_MAX: u64 = 64;

/// What a group is made of.
pub struct GroupParts {
    pub node: NodeId,
    pub log: Arc<ShardLog>,
    pub applier: Arc<dyn Applier>,
    /// The way to the others; none for a node that is alone.
    pub transport: Option<Arc<dyn Transport>>,
    pub disk: Arc<dyn Disk>,
    /// Told who leads, and every change of it.
    pub tell: watch::Sender<Leadership>,
    /// Told each time that a majority answers, as long as this replica leads.
    pub heard: Heard,
    /// Told each time that this replica takes something from its leader.
    pub followed: Followed,
    /// How long it serves after it last heard of a majority; [`HEARD_WITHIN`] where it is no test.
    pub serve_within: Duration,
    /// How fast replicas that were away are brought up to date.
    pub pace: Pace,
    /// Of which cluster the group is.
    pub system: SystemView,
}

/// This node's replica of a group.
#[derive(Clone)]
pub struct Group {
    raft: openraft::Raft<Types>,
    log: Arc<ShardLog>,
    applier: Arc<dyn Applier>,
    followed: Followed,
    following: Arc<Mutex<Option<JoinHandle<()>>>>,
}

fn stopped(error: impl fmt::Display) -> ProposeError {
    ProposeError::Stopped(error.to_string())
}

impl Group {
    /// Starts this replica over its log and its state. One that is new waits to be told of its group, or for
    /// [`Consensus::found`].
    pub async fn start(parts: GroupParts) -> Result<Self, ProposeError> {
        let GroupParts { node, log, applier, transport, disk, tell, heard, followed, serve_within, pace, system } =
            parts;
        let alone = transport.is_none();
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
        let brake = Brake::new(log.clone(), pace);
        let engine = Arc::new(OnceLock::new());
        let network =
            Network { shard: log.shard(), system, transport, disk, brake: brake.clone(), engine: engine.clone() };
        let start = Start { applied: applier.applied().position, follows: (!alone).then_some(node) };
        let store = LogStore::new(log.clone(), brake.clone(), start);
        let raft = openraft::Raft::new(node.bits(), config, network, store, Adapter::new(applier.clone()))
            .await
            .map_err(stopped)?;
        _ = engine.set(raft.clone());
        let following = tokio::spawn(follow(raft.clone(), alone, tell, heard, brake, serve_within));
        let group = Self { raft, log, applier, followed, following: Arc::new(Mutex::new(Some(following))) };
        // In company it is told later whether it may: first its leader must have had the time to reach it.
        group.set_electable(alone);
        Ok(group)
    }

    /// This replica was here before and has not all yet that it had then: it may have promised more than it knows.
    fn lacks(&self, last: Option<Position>) -> bool {
        let floor = self.log.floor();
        self.log.last() < floor && last < floor
    }

    async fn answer(&self, request: wire::Request) -> Result<Bytes, String> {
        let failed = |e: RaftError<u64>| e.to_string();
        match request {
            wire::Request::Append(rpc) => {
                // Before an entry of its own term is committed, a new leader may not know of all that was acknowledged; and
                // one that was deposed goes on for a while before it falls silent.
                let mine = rpc.leader_commit.filter(|id| id.leader_id.term == rpc.vote.leader_id.term);
                let told = mine.map(|id| id.index).zip(Instant::now().checked_sub(DEPOSED_WITHIN));
                let appended = self.raft.append_entries(rpc).await.map_err(failed)?;
                if let (true, Some((committed, at))) = (appended.is_success(), told) {
                    self.followed.note(at, committed, self.applier.applied().index());
                }
                Ok(wire::appended(&appended))
            }
            wire::Request::Vote(rpc) if self.lacks(rpc.last_log_id.as_ref().map(to_position)) => {
                Err("this replica has less than it had when it was last here, and so has who asks".to_owned())
            }
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

/// Says who leads, as often as that changes. A leader that hears of no majority falls silent, so that others elect one
/// of them: it may be deaf, while they still hear it.
async fn follow(
    raft: openraft::Raft<Types>,
    alone: bool,
    tell: watch::Sender<Leadership>,
    quorum: Heard,
    brake: Brake,
    serve_within: Duration,
) {
    let (mut metrics, mut was_deaf) = (raft.metrics(), false);
    // What is said of the past is said of a moment after this one.
    let mut before = Instant::now();
    loop {
        let (now, deaf, ended) = {
            let m = metrics.borrow_and_update();
            // Before the first entry of its term is applied, a new leader may not hold all that was acknowledged.
            let ready = m.last_applied.is_some_and(|id| id.leader_id.term == m.current_term);
            let alone = alone || m.membership_config.membership().voter_ids().eq([m.id]);
            match m.millis_since_quorum_ack {
                _ if alone => quorum.note_alone(),
                Some(ms) => quorum.note(Duration::from_millis(ms), before),
                None => {}
            }
            let heard = alone || m.millis_since_quorum_ack.is_some_and(|ms| u128::from(ms) < serve_within.as_millis());
            let leads = m.current_leader == Some(m.id) && ready && heard;
            let applied = m.last_applied.map_or(0, |id| id.index);
            brake.note(!alone && is_majority_near(&m), m.last_log_index.unwrap_or(0), applied);
            let leader = m.current_leader.filter(|id| leads || *id != m.id).map(NodeId::from_bits);
            let silence = if alone { None } else { m.millis_since_quorum_ack };
            let deaf = m.state.is_leader() && silence.is_some_and(|ms| u128::from(ms) > 2 * HEARD_WITHIN.as_millis());
            (Leadership { leader, term: m.current_term, leads }, deaf, m.running_state.is_err())
        };
        if std::mem::replace(&mut was_deaf, deaf) != deaf {
            raft.runtime_config().heartbeat(!deaf);
        }
        tell.send_if_modified(|before| std::mem::replace(before, now) != now);
        before = Instant::now();
        if ended || metrics.changed().await.is_err() {
            return tell.send_modify(|before| before.leads = false);
        }
    }
}

/// Whether a majority of its voters is near the end of the log, in both sets where they change.
fn is_majority_near(m: &RaftMetrics<u64, BasicNode>) -> bool {
    let (Some(last), Some(replication)) = (m.last_log_index, &m.replication) else { return false };
    let near = |node: &u64| {
        let at = replication.get(node).copied().flatten().map_or(0, |at| at.index);
        *node == m.id || at + BEHIND_MAX / 2 >= last
    };
    let sets = m.membership_config.membership().get_joint_config();
    sets.iter().all(|set| 2 * set.iter().filter(|node| near(node)).count() > set.len())
}

/// What became of a change of members.
fn reshaped<T>(
    result: Result<T, RaftError<u64, ClientWriteError<u64, BasicNode>>>,
    behind: u64,
) -> Result<Reshaping, ProposeError> {
    match result {
        Ok(_) => Ok(Reshaping::Learning { behind }),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => match error {
            ChangeMembershipError::InProgress(_) => Ok(Reshaping::Learning { behind: 0 }),
            error => Err(stopped(error)),
        },
        Err(error) => Err(stopped(error)),
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

    fn found(&self, voters: BTreeSet<NodeId>) -> BoxFuture<Result<(), ProposeError>> {
        let raft = self.raft.clone();
        Box::pin(async move {
            let members: BTreeMap<u64, BasicNode> = voters.iter().map(|v| (v.bits(), BasicNode::default())).collect();
            match raft.initialize(members).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
                Err(error) => Err(stopped(error)),
            }
        })
    }

    fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        let m = metrics.borrow();
        let membership = m.membership_config.membership();
        let matched = m.replication.iter().flatten();
        let matched = matched.map(|(id, at)| (NodeId::from_bits(*id), at.map_or(0, |at| at.index)));
        Members {
            voters: membership.voter_ids().map(NodeId::from_bits).collect(),
            learners: membership.learner_ids().map(NodeId::from_bits).collect(),
            matched: matched.collect(),
            last: m.last_log_index.unwrap_or(0),
        }
    }

    fn reshape(&self, to: BTreeSet<NodeId>) -> BoxFuture<Result<Reshaping, ProposeError>> {
        let group = self.clone();
        Box::pin(async move {
            let Members { voters, learners, matched, last } = group.members();
            let (joint, settled) = {
                let metrics = group.raft.metrics();
                let m = metrics.borrow();
                let joint = m.membership_config.membership().get_joint_config().len() > 1;
                (joint, m.membership_config.log_id().as_ref() <= m.last_applied.as_ref())
            };
            if !joint && voters == to && learners.is_empty() {
                return Ok(if settled { Reshaping::Done } else { Reshaping::Learning { behind: 0 } });
            }
            if let Some(node) = to.iter().find(|node| !voters.contains(node) && !learners.contains(node)) {
                let added = group.raft.add_learner(node.bits(), BasicNode::default(), false).await;
                return reshaped(added, last);
            }
            let at = |node: &NodeId| matched.get(node).copied().unwrap_or(0);
            let behind =
                to.iter().filter(|node| !voters.contains(node)).map(|node| last.saturating_sub(at(node))).max();
            if let Some(behind) = behind.filter(|behind| *behind > BEHIND_MAX) {
                return Ok(Reshaping::Learning { behind });
            }
            let change = if !joint && voters == to {
                ChangeMembers::RemoveNodes(learners.into_iter().map(NodeId::bits).collect())
            } else {
                ChangeMembers::ReplaceAllVoters(to.into_iter().map(NodeId::bits).collect())
            };
            // Whether that is what was asked for, the next call sees.
            reshaped(group.raft.change_membership(change, false).await, 0)
        })
    }

    fn stand(&self) -> BoxFuture<Result<(), ProposeError>> {
        let (raft, lacks) = (self.raft.clone(), self.lacks(self.log.last()));
        Box::pin(async move {
            if lacks {
                return Err(stopped("this replica has less than it had when it was last here"));
            }
            raft.trigger().elect().await.map_err(stopped)
        })
    }

    fn set_electable(&self, electable: bool) {
        self.raft.runtime_config().elect(electable && !self.lacks(self.log.last()));
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
        let (raft, following) = (self.raft.clone(), self.following.clone());
        Box::pin(async move {
            if let Err(error) = raft.shutdown().await {
                tracing::error!(%error, "a consensus core ended in a panic");
            }
            let following = following.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(following) = following {
                _ = following.await;
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

#[cfg(test)]
mod tests;
