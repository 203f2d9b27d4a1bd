//! Asking other nodes, and answering them.
//!
//! What travels on the lane of requests is a tag and fields in the codec's form; on the others which cluster,
//! the number of a shard, and what its consensus says. A node that does not lead the shard says who does, and nothing
//! happened.

use std::{collections::BTreeSet, marker::PhantomData, sync::Arc, time::Duration};

use bincode::{Decode, Encode};
use bytes::{Buf, Bytes};
use magpie_protocol::{NodeId, ShardId, TimelineId, codec};

use crate::{
    AskError, EntityId, Hint, HintSink, Machine, Router, Signal,
    consensus::{Reshaping, absent},
    priority::{self, Levels},
    shard::cut::{Held, Through},
    system::{
        Change, DiskId, FIRST_LEVEL, PRIORITY_LEVEL, Refusal, SYSTEM_SHARD, Standing, System, SystemView,
        placement::Step, pulse::Facts,
    },
    transport::{Answer, Lane, LinkError, Service, Transport},
};

/// What stands before a request on the lane of bulk that is not for a shard's consensus, where else the id of a cluster
/// stands.
const OF_THE_NODE: u64 = 0;
/// How long an answer may take. A batch that waits for a new leader is known within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What a node asks of another. Tags are append-only.
#[derive(Clone, Encode, Decode)]
pub(crate) enum Request<C, Q> {
    Submit(ShardId, EntityId, C),
    Query(ShardId, Q),
    Watch(ShardId, Vec<TimelineId>, Q),
    Rewatch(ShardId, Vec<TimelineId>),
    Deliver {
        to: ShardId,
        from: ShardId,
        first: u64,
        messages: Vec<(EntityId, Vec<u8>)>,
    },
    /// Which data folder it has, and what it knows of the cluster.
    Greet,
    /// How it is.
    Facts,
    /// To change what the cluster knows of itself.
    Change(ShardId, Change),
    /// To go one step towards these replicas.
    Reshape(ShardId, BTreeSet<NodeId>),
    /// To let another replica lead.
    HandOver(ShardId, NodeId),
    /// To stand for election.
    Stand(ShardId),
    /// To tell those who watch of something passing.
    Signal(ShardId, Signal),
    /// Which of these timelines somebody watches.
    Watched(ShardId, Vec<TimelineId>),
    /// To let another replica of this shard lead, and to leave it there for a while. Asked of shard 0.
    Lead(ShardId, NodeId),
    /// What is going to move, and whether to begin at once. Asked of shard 0.
    Balance(bool),
    /// The same as `Deliver`, of a shard that has made this cut.
    DeliverCut {
        to: ShardId,
        from: ShardId,
        cut: u64,
        first: u64,
        messages: Vec<(EntityId, Vec<u8>)>,
    },
    /// To make this cut; 0 for the next.
    Cut(ShardId, u64),
    /// Part of what a node has of a cut, on the lane of bulk.
    CutPart {
        shard: ShardId,
        cut: u64,
        offset: u64,
        len: u64,
    },
    /// To forget a cut.
    ForgetCut(ShardId, u64),
    /// Which of them nobody does; by who has led for long enough to know.
    Unwatched(ShardId, Vec<TimelineId>),
}

impl<C, Q> Request<C, Q> {
    /// Whose leader is asked; `None` for what is asked of a node.
    pub(crate) fn shard(&self) -> Option<ShardId> {
        match self {
            Self::Submit(shard, ..)
            | Self::Query(shard, _)
            | Self::Watch(shard, ..)
            | Self::Rewatch(shard, _)
            | Self::Change(shard, _)
            | Self::Reshape(shard, _)
            | Self::HandOver(shard, _)
            | Self::Signal(shard, _)
            | Self::Watched(shard, _)
            | Self::Cut(shard, _)
            | Self::Unwatched(shard, _) => Some(*shard),
            Self::Deliver { to, .. } | Self::DeliverCut { to, .. } => Some(*to),
            Self::Lead(..) | Self::Balance(_) => Some(SYSTEM_SHARD),
            Self::Greet | Self::Facts | Self::Stand(_) | Self::CutPart { .. } | Self::ForgetCut(..) => None,
        }
    }
}

/// The feature level from which on this may be asked of another node.
pub(crate) fn request_level<M: Machine>(request: &RequestOf<M>) -> u32 {
    match request {
        Request::Submit(_, _, command) => M::level_of(command),
        Request::Query(_, query) | Request::Watch(_, _, query) => M::level_of_query(query),
        _ => FIRST_LEVEL,
    }
}

/// What comes back.
#[derive(Encode, Decode)]
pub(crate) enum Response<R, V> {
    Reply(R),
    View(V),
    Done,
    Applied(u64),
    Greeting(DiskId),
    Facts(Facts),
    Changed(Result<(), Refusal>),
    Reshaped(Reshaping),
    Timelines(Vec<TimelineId>),
    Plan(Vec<Step>),
    /// The same as `Applied`, of a shard that has made a cut.
    Through(Through),
    /// The cut is made; by which node.
    Cut(u64, NodeId),
    CutPart(Held, Vec<u8>),
}

/// How a request travels: with its priority if it has one, with which cluster it is for, 0 where that is not said, and
/// the version of what the asker knows of it, ...
struct Asked<T> {
    priority: Option<u16>,
    cluster: u64,
    version: u64,
    request: T,
}

/// In the place of a version: cluster and version follow. Of a cluster in which every node knows that.
const NAMED: u64 = u64::MAX;
/// The level of such a cluster.
const NAMED_LEVEL: u32 = 2;
/// In front of all that: a priority follows. Of a cluster in which every node knows that.
const RANKED: u64 = u64::MAX - 1;

impl<T: Encode> Encode for Asked<T> {
    fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        if let Some(priority) = self.priority {
            (RANKED, priority).encode(encoder)?;
        }
        if self.cluster != 0 {
            (NAMED, self.cluster).encode(encoder)?;
        }
        self.version.encode(encoder)?;
        self.request.encode(encoder)
    }
}

impl<C, T: Decode<C>> Decode<C> for Asked<T> {
    fn decode<D: bincode::de::Decoder<Context = C>>(decoder: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let (priority, front) = match u64::decode(decoder)? {
            RANKED => (Some(u16::decode(decoder)?), u64::decode(decoder)?),
            front => (None, front),
        };
        let (cluster, version) = match front {
            NAMED => (u64::decode(decoder)?, u64::decode(decoder)?),
            version => (0, version),
        };
        Ok(Self { priority, cluster, version, request: T::decode(decoder)? })
    }
}

/// ... and its answer with the newer one, if there is one, and with the last priority that the other node lets in.
#[derive(Encode, Decode)]
struct Answered<T>(Option<System>, u16, T);

pub(crate) type RequestOf<M> = Request<<M as Machine>::Command, <M as Machine>::Query>;
pub(crate) type ResponseOf<M> = Response<<M as Machine>::Reply, <M as Machine>::View>;
/// Called once with what came of a request.
pub(crate) type Done<M> = Box<dyn FnOnce(Result<ResponseOf<M>, AskError>) + Send>;

/// What a caller expects of a response. A peer that answers with something else leaves the outcome unknown.
impl<R, V> Response<R, V> {
    pub(crate) fn reply(self) -> Result<R, AskError> {
        if let Self::Reply(reply) = self { Ok(reply) } else { Err(AskError::Unknown) }
    }

    pub(crate) fn view(self) -> Result<V, AskError> {
        if let Self::View(view) = self { Ok(view) } else { Err(AskError::Unknown) }
    }

    pub(crate) fn done(self) -> Result<(), AskError> {
        if let Self::Done = self { Ok(()) } else { Err(AskError::Unknown) }
    }

    pub(crate) fn through(self) -> Result<Through, AskError> {
        match self {
            Self::Applied(number) => Ok(Through { number, cut: 0 }),
            Self::Through(through) => Ok(through),
            _ => Err(AskError::Unknown),
        }
    }

    pub(crate) fn cut(self) -> Result<(u64, NodeId), AskError> {
        if let Self::Cut(cut, node) = self { Ok((cut, node)) } else { Err(AskError::Unknown) }
    }

    pub(crate) fn cut_part(self) -> Result<(Held, Vec<u8>), AskError> {
        if let Self::CutPart(held, bytes) = self { Ok((held, bytes)) } else { Err(AskError::Unknown) }
    }

    pub(crate) fn greeting(self) -> Result<DiskId, AskError> {
        if let Self::Greeting(disk) = self { Ok(disk) } else { Err(AskError::Unknown) }
    }

    pub(crate) fn facts(self) -> Result<Facts, AskError> {
        if let Self::Facts(facts) = self { Ok(facts) } else { Err(AskError::Unknown) }
    }

    pub(crate) fn changed(self) -> Result<Result<(), Refusal>, AskError> {
        if let Self::Changed(changed) = self { Ok(changed) } else { Err(AskError::Unknown) }
    }

    pub(crate) fn timelines(self) -> Result<Vec<TimelineId>, AskError> {
        if let Self::Timelines(timelines) = self { Ok(timelines) } else { Err(AskError::Unknown) }
    }

    pub(crate) fn plan(self) -> Result<Vec<Step>, AskError> {
        if let Self::Plan(steps) = self { Ok(steps) } else { Err(AskError::Unknown) }
    }

    pub(crate) fn reshaped(self) -> Result<Reshaping, AskError> {
        if let Self::Reshaped(reshaping) = self { Ok(reshaping) } else { Err(AskError::Unknown) }
    }
}

/// What one node tells another.
#[derive(Encode, Decode)]
pub(crate) enum Message {
    Unwatch(ShardId, Vec<TimelineId>),
    Hints(ShardId, u64, Vec<Hint>),
    Beat(ShardId, u64),
    System(System),
    Signal(Signal),
}

/// The way to the shards that other nodes lead.
pub(crate) struct Remote<M: Machine> {
    transport: Arc<dyn Transport>,
    system: SystemView,
    /// What each node lets in.
    levels: Levels,
    machine: PhantomData<fn() -> M>,
}

impl<M: Machine> Remote<M> {
    pub(crate) fn new(transport: Arc<dyn Transport>, system: SystemView) -> Self {
        Self { transport, system, levels: Levels::default(), machine: PhantomData }
    }

    /// The nodes that a connection stands to.
    pub(crate) fn connected(&self) -> Vec<NodeId> {
        self.transport.connected()
    }

    /// Asks a node. Where it was not reached nothing happened, and another may lead.
    pub(crate) async fn call(&self, to: NodeId, request: &RequestOf<M>) -> Result<ResponseOf<M>, AskError> {
        let named = self.system.now().filter(|system| system.level >= NAMED_LEVEL);
        let priority = priority::current().filter(|_| named.as_ref().is_some_and(|s| s.level >= PRIORITY_LEVEL));
        let (cluster, version) = (named.map_or(0, |system| system.id), self.system.version());
        let lane = if matches!(request, Request::CutPart { .. }) { Lane::Bulk } else { Lane::Requests };
        let mut bytes = if lane == Lane::Bulk { OF_THE_NODE.to_le_bytes().to_vec() } else { Vec::new() };
        codec::encode_into(&Asked { priority, cluster, version, request }, &mut bytes);
        match self.transport.call(to, lane, bytes.into(), ANSWER_WITHIN).await {
            Ok(answer) => match codec::decode_stored(&answer) {
                Ok(Answered(system, level, result)) => {
                    self.levels.note(to, level);
                    system.into_iter().for_each(|system| self.system.offer(system));
                    result
                }
                Err(_) => Err(AskError::Unknown),
            },
            Err(LinkError::Refused { .. }) => Err(AskError::NotLeader { leader: None }),
            Err(_) => Err(AskError::Unknown),
        }
    }

    /// The last priority that a node lets in.
    pub(crate) fn level_of(&self, node: NodeId) -> u16 {
        self.levels.of(node)
    }

    /// Tells a node what the cluster knows of itself.
    pub(crate) fn tell_system(&self, to: NodeId, system: &System) {
        self.transport.tell(to, Lane::Requests, codec::encode(&Message::System(system.clone())).into());
    }

    /// Tells a node that this one no longer watches.
    pub(crate) fn unwatch(&self, to: NodeId, shard: ShardId, timelines: Vec<TimelineId>) {
        self.transport.tell(to, Lane::Requests, codec::encode(&Message::Unwatch(shard, timelines)).into());
    }
}

/// Hints for the sessions of another node.
pub(crate) struct RemoteSink {
    transport: Arc<dyn Transport>,
    node: NodeId,
}

impl RemoteSink {
    pub(crate) fn new(transport: Arc<dyn Transport>, node: NodeId) -> Self {
        Self { transport, node }
    }

    fn tell(&self, message: &Message) {
        self.transport.tell(self.node, Lane::Requests, codec::encode(message).into());
    }
}

impl HintSink for RemoteSink {
    fn on_hints(&self, shard: ShardId, count: u64, hints: &[Hint]) {
        self.tell(&Message::Hints(shard, count, hints.to_vec()));
    }

    fn on_beat(&self, shard: ShardId, count: u64) {
        self.tell(&Message::Beat(shard, count));
    }

    fn on_signal(&self, signal: Signal) {
        self.tell(&Message::Signal(signal));
    }
}

fn foreign<M: Machine>() -> Result<ResponseOf<M>, AskError> {
    Err(AskError::Unavailable)
}

/// What this node answers to others.
pub(crate) struct Host<M: Machine> {
    router: Router<M>,
}

impl<M: Machine> Host<M> {
    pub(crate) fn new(router: Router<M>) -> Self {
        Self { router }
    }

    /// Whether whoever names this cluster names the one that this node is of, as far as both know.
    fn is_ours(&self, cluster: u64) -> bool {
        let mine = self.router.system().id();
        cluster == mine || cluster == 0 || mine == 0
    }

    /// What is known of the cluster, if a node was removed from it: no more than that is it told.
    fn removed(&self, node: NodeId) -> Option<Arc<System>> {
        let is_gone =
            |system: &Arc<System>| system.nodes.get(&node).is_some_and(|member| member.standing == Standing::Removed);
        self.router.system().now().filter(is_gone)
    }

    /// What a replica of the group that the front of `request` names is asked.
    fn consult(&self, lane: Lane, mut request: Bytes, answer: Answer) {
        if request.len() < 10 || request.get_u64_le() != self.router.system().id() {
            // Of another cluster, or of one that this node does not know yet.
            return;
        }
        let shard = self.router.shard(ShardId::new(request.get_u16_le()));
        let Some(group) = shard.and_then(crate::Shard::group) else {
            if lane == Lane::Bulk {
                answer(absent());
            }
            return;
        };
        tokio::spawn(async move {
            if let Some(bytes) = group.answer(request).await {
                answer(bytes);
            }
        });
    }
}

impl<M: Machine> Service for Host<M> {
    fn on_request(&self, from: NodeId, lane: Lane, request: Bytes, answer: Answer) {
        if let Some(system) = self.removed(from) {
            if lane == Lane::Requests {
                let nothing: Result<ResponseOf<M>, _> = Err(AskError::NotLeader { leader: None });
                answer(codec::encode(&Answered(Some((*system).clone()), u16::MAX, nothing)).into());
            }
            return;
        }
        match lane {
            Lane::Bulk if request.starts_with(&OF_THE_NODE.to_le_bytes()) => {
                self.on_request(from, Lane::Requests, request.slice(OF_THE_NODE.to_le_bytes().len()..), answer);
            }
            Lane::Consensus | Lane::Bulk => self.consult(lane, request, answer),
            Lane::Requests => match codec::decode_stored::<Asked<RequestOf<M>>>(&request) {
                Ok(Asked { cluster, .. }) if !self.is_ours(cluster) => {
                    tracing::warn!(%from, cluster, "a node of another cluster asks: of this one before it was restored?");
                    answer(codec::encode(&Answered(None, self.router.level(), foreign::<M>())).into());
                }
                Ok(Asked { priority, version, request, .. }) => {
                    let router = self.router.clone();
                    let done = move |result: Result<ResponseOf<M>, AskError>| {
                        // Mostly nothing is newer: no copy is made to find out.
                        let newer = if router.system().version() > version { router.system().now() } else { None };
                        let newer = newer.map(|system| (*system).clone());
                        answer(codec::encode(&Answered(newer, router.level(), result)).into());
                    };
                    match self.router.admit(priority) {
                        Ok(()) => self.router.serve(from, request, Box::new(done)),
                        Err(error) => done(Err(error)),
                    }
                }
                Err(error) => tracing::warn!(%from, %error, "a request that this build does not know"),
            },
        }
    }

    fn on_message(&self, from: NodeId, _: Lane, message: Bytes) {
        if self.removed(from).is_some() {
            return;
        }
        match codec::decode_stored(&message) {
            Ok(Message::Unwatch(shard, timelines)) => {
                if let Some(shard) = self.router.shard(shard) {
                    shard.unwatch(from, &timelines);
                }
            }
            Ok(Message::Hints(shard, count, hints)) => {
                if let Some(sink) = self.router.shard(shard).and_then(crate::Shard::sink) {
                    sink.on_hints(shard, count, &hints);
                }
            }
            Ok(Message::Beat(shard, count)) => {
                if let Some(sink) = self.router.shard(shard).and_then(crate::Shard::sink) {
                    sink.on_beat(shard, count);
                }
            }
            Ok(Message::Signal(signal)) => {
                if let Some(sink) = self.router.shard_of(signal.timeline.slot()).sink() {
                    sink.on_signal(signal);
                }
            }
            Ok(Message::System(system)) => self.router.system().offer(system),
            Err(error) => tracing::warn!(%from, %error, "a message that this build does not know"),
        }
    }
}

/// A request as it travels.
#[cfg(test)]
pub(crate) fn asked<T: Encode + Decode<()> + 'static>(
    name: &str,
    (priority, cluster, version): (Option<u16>, u64, u64),
    request: T,
) -> crate::golden::file::Golden {
    crate::golden::file::Golden::coded(name, &Asked { priority, cluster, version, request })
}

/// An answer as it travels.
#[cfg(test)]
pub(crate) fn answered<T: Encode + Decode<()> + 'static>(
    newer: Option<System>,
    level: u16,
    result: Result<T, AskError>,
) -> crate::golden::file::Golden {
    crate::golden::file::Golden::coded("node.answered", &Answered(newer, level, result))
}
