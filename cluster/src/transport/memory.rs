//! Nodes of one process, for tests: what they send goes through tasks, in order, and is cut, held, delayed and lost on
//! demand.

mod pipe;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use foldhash::fast::FixedState;
use magpie_protocol::NodeId;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    time::Instant,
};

use self::pipe::{Item, Pipe, State};
use super::{Lane, LinkError, MESSAGE_LEN_MAX, Service, Transport};
use crate::consensus::BoxFuture;

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    /// How each direction is; a direction that is not named is well.
    directions: BTreeMap<(NodeId, NodeId), watch::Sender<State>>,
    pipes: BTreeMap<(NodeId, NodeId, Lane), Pipe>,
    /// Of the node that joined last.
    runtime: Option<Handle>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// Numbers the calls of all nodes, so that no answer finds a call of a node that was started again.
    last_id: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node has joined and not stopped.
    fn is_there(&self, node: NodeId) -> bool {
        let node = self.lock().nodes.get(&node).cloned();
        node.is_some_and(|node| !node.lock().stopped)
    }

    /// Ends a node: its calls, and those that wait for it.
    fn end(&self, id: NodeId) {
        let mut inner = self.lock();
        inner.pipes.retain(|(from, to, _), _| *from != id && *to != id);
        let (gone, others) = (inner.nodes.remove(&id), inner.nodes.values().cloned().collect::<Vec<_>>());
        drop(inner);
        if let Some(gone) = gone {
            let mut state = gone.lock();
            state.stopped = true;
            state.calls.clear();
        }
        for other in others {
            other.lock().calls.retain(|_, (to, _)| *to != id);
        }
    }

    fn set(&self, from: NodeId, to: NodeId, change: impl FnOnce(&mut State)) {
        self.lock().directions.entry((from, to)).or_default().send_modify(change);
    }

    /// Queues an item; `false` when too much waits already.
    fn send(self: &Arc<Self>, from: NodeId, to: NodeId, lane: Lane, item: Item) -> bool {
        let mut inner = self.lock();
        let Inner { directions, pipes, runtime, .. } = &mut *inner;
        let Some(runtime) = runtime else { return false };
        let pipe = pipes.entry((from, to, lane)).or_insert_with(|| {
            let state = directions.entry((from, to)).or_default().subscribe();
            let shared = Arc::downgrade(self);
            Pipe::start(runtime, state, move |item| deliver(&shared, from, to, lane, item))
        });
        pipe.push(item)
    }
}

/// Hands an item to its node, if that is still there.
fn deliver(shared: &Weak<Shared>, from: NodeId, to: NodeId, lane: Lane, item: Item) {
    let Some(node) = shared.upgrade().and_then(|shared| shared.lock().nodes.get(&to).cloned()) else { return };
    let known = {
        let state = node.lock();
        !state.stopped && (state.peers.contains(&from) || state.guests.contains(&from))
    };
    match (item, node.service.get()) {
        (Item::Answer(id, answer), _) => {
            let call = node.lock().calls.remove(&id);
            if let Some((_, call)) = call {
                _ = call.send(answer);
            }
        }
        (Item::Message(message), Some(service)) if known => service.on_message(from, lane, message),
        (Item::Request(id, request), Some(service)) if known => {
            let (shared, us) = (shared.clone(), node.clone());
            let answer = move |answer: Bytes| {
                if let Some(shared) = shared.upgrade().filter(|_| answer.len() <= MESSAGE_LEN_MAX) {
                    shared.send(us.id, from, lane, Item::Answer(id, answer));
                }
            };
            service.on_request(from, lane, request, Box::new(answer));
        }
        (Item::Message(_) | Item::Request(..), _) => {}
    }
}

/// The nodes of a process. Dropped with its transports, it ends its tasks.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Shared>);

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryNetwork")
    }
}

impl MemoryNetwork {
    /// A network where all is well.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, or starts one again. Must be called in a tokio runtime.
    pub fn join(&self, id: NodeId) -> Arc<MemoryTransport> {
        let node = Arc::new(Node { id, service: OnceLock::new(), state: Mutex::default() });
        self.0.end(id);
        let mut inner = self.0.lock();
        inner.runtime = Some(Handle::current());
        inner.nodes.insert(id, node.clone());
        drop(inner);
        Arc::new(MemoryTransport { node, shared: self.0.clone() })
    }

    /// From now on nothing arrives that `from` sends to `to`, answers included.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.0.set(from, to, |state| state.cut = true);
    }

    /// Ends a cut. What was sent meanwhile stays lost.
    pub fn heal(&self, from: NodeId, to: NodeId) {
        self.0.set(from, to, |state| state.cut = false);
    }

    /// Holds what `from` sends to `to` until it is resumed.
    pub fn pause(&self, from: NodeId, to: NodeId) {
        self.0.set(from, to, |state| state.paused = true);
    }

    /// Lets what was held arrive.
    pub fn resume(&self, from: NodeId, to: NodeId) {
        self.0.set(from, to, |state| state.paused = false);
    }

    /// What `from` sends to `to` arrives this much later.
    pub fn delay(&self, from: NodeId, to: NodeId, by: Duration) {
        self.0.set(from, to, |state| state.delay = by);
    }

    /// Loses this share, from 0 to 1, of what `from` sends to `to`; which ones depends on the seed and on nothing else.
    pub fn lose(&self, from: NodeId, to: NodeId, share: f64, seed: u64) {
        self.0.set(from, to, |state| (state.lost_share, state.seed) = (share, seed));
    }
}

struct Node {
    id: NodeId,
    service: OnceLock<Arc<dyn Service>>,
    state: Mutex<NodeState>,
}

#[derive(Default)]
struct NodeState {
    peers: BTreeSet<NodeId>,
    guests: BTreeSet<NodeId>,
    calls: HashMap<u64, (NodeId, oneshot::Sender<Bytes>), FixedState>,
    stopped: bool,
}

impl Node {
    fn lock(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node's end of every link in a [`MemoryNetwork`].
pub struct MemoryTransport {
    node: Arc<Node>,
    shared: Arc<Shared>,
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport").field("node", &self.node.id).finish_non_exhaustive()
    }
}

impl MemoryTransport {
    /// Whether something can be sent to this node, and why not.
    fn check(&self, to: NodeId, payload: &Bytes) -> Result<(), String> {
        if payload.len() > MESSAGE_LEN_MAX {
            return Err(format!("{} bytes are over the limit of {MESSAGE_LEN_MAX}", payload.len()));
        }
        let state = self.node.lock();
        if state.stopped {
            return Err("this node stops".to_owned());
        }
        if !state.peers.contains(&to) {
            return Err("it is not among the peers".to_owned());
        }
        drop(state);
        if self.shared.is_there(to) { Ok(()) } else { Err("not connected".to_owned()) }
    }

    fn start_call(&self, to: NodeId, lane: Lane, request: Bytes) -> Result<Call, LinkError> {
        let refused = |why| LinkError::Refused { to, why };
        self.check(to, &request).map_err(refused)?;
        let id = self.shared.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        self.node.lock().calls.insert(id, (to, sender));
        let call = Call { node: self.node.clone(), id, answer };
        if self.shared.send(self.node.id, to, lane, Item::Request(id, request)) {
            Ok(call)
        } else {
            Err(refused(format!("its {lane:?} lane is full")))
        }
    }
}

/// A call that waits; forgotten when its caller no longer does.
struct Call {
    node: Arc<Node>,
    id: u64,
    answer: oneshot::Receiver<Bytes>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.node.lock().calls.remove(&self.id);
    }
}

impl Transport for MemoryTransport {
    fn set_guests(&self, guests: BTreeSet<NodeId>) {
        self.node.lock().guests = guests;
    }

    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>) {
        let mut state = self.node.lock();
        state.peers = peers.into_keys().filter(|peer| *peer != self.node.id).collect();
        let NodeState { peers, calls, .. } = &mut *state;
        calls.retain(|_, (to, _)| peers.contains(to));
    }

    fn set_service(&self, service: Arc<dyn Service>) {
        if self.node.service.set(service).is_err() {
            tracing::error!(node = %self.node.id, "the service of a transport is set twice; the first one stays");
        }
    }

    fn call(&self, to: NodeId, lane: Lane, request: Bytes, within: Duration) -> BoxFuture<Result<Bytes, LinkError>> {
        let deadline = Instant::now() + within;
        let call = self.start_call(to, lane, request);
        Box::pin(async move {
            let mut call = call?;
            let why = match tokio::time::timeout_at(deadline, &mut call.answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(_)) => "the connection ended".to_owned(),
                Err(_) => format!("none within {} ms", within.as_millis()),
            };
            Err(LinkError::Lost { to, why })
        })
    }

    fn tell(&self, to: NodeId, lane: Lane, message: Bytes) {
        let sent = self.check(to, &message).is_ok() && self.shared.send(self.node.id, to, lane, Item::Message(message));
        if !sent {
            tracing::trace!(%to, ?lane, "a message is lost");
        }
    }

    fn connected(&self) -> Vec<NodeId> {
        let state = self.node.lock();
        if state.stopped {
            return Vec::new();
        }
        let peers: Vec<NodeId> = state.peers.iter().copied().collect();
        drop(state);
        peers.into_iter().filter(|peer| self.shared.is_there(*peer)).collect()
    }

    fn stop(&self) -> BoxFuture<()> {
        self.node.lock().stopped = true;
        let is_current = self.shared.lock().nodes.get(&self.node.id).is_some_and(|node| Arc::ptr_eq(node, &self.node));
        if is_current {
            self.shared.end(self.node.id);
        }
        Box::pin(std::future::ready(()))
    }
}
