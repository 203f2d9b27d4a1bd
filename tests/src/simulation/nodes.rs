//! The hosts that are nodes: how they start, and what the simulation sees of them.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use magpie_cluster::{
    Fatal, Part, System,
    system::Change,
    transport::{
        quic::{QuicTransport, Underlay},
        tls::Identity,
    },
};
use magpie_node::{Config, Node, Options, authority::node_files, machine::MagpieRouter, node::Others};
use magpie_protocol::{NodeId, ShardId};

use super::{
    disk::{Sabotage, SimDisk},
    nature::{Fault, Nature},
    network::Socket,
};
use crate::node::test_config;

/// How many there may be, ...
pub const NODES: usize = 4;
/// ... how many the cluster begins with, ...
pub const FOUNDERS: usize = 3;
/// ... and how often each may come under a new id.
pub const GENERATIONS: u8 = 4;
/// Shards of each node.
pub const SHARDS: u16 = 2;
/// Where devices connect.
pub const DEVICES_PORT: u16 = 4433;
/// Where the other nodes connect.
const NODES_PORT: u16 = 4434;

/// A node's host, its files, and how it is.
pub struct Host {
    pub name: String,
    pub disk: SimDisk,
    /// Milliseconds that its clock is ahead.
    pub skew_ms: Arc<AtomicI64>,
    /// It was given its place in the cluster, and runs unless it has crashed.
    pub on: Cell<bool>,
    /// It is being removed, and ends when it hears of that.
    pub leaving: Cell<bool>,
    /// What it was given to join with; nothing for those that the cluster began with.
    pub joining: RefCell<Option<Joining>>,
    /// What an operator asks of it.
    pub tasks: RefCell<VecDeque<Task>>,
    generation: Cell<u8>,
    dir: PathBuf,
    starts: Cell<u8>,
    router: RefCell<Option<MagpieRouter>>,
    sockets: RefCell<Vec<Arc<Socket>>>,
    fatal: Arc<Mutex<Option<String>>>,
}

/// What a node that joins is told.
#[derive(Debug, Clone)]
pub struct Joining {
    pub token: String,
    pub nodes: BTreeMap<NodeId, SocketAddr>,
}

/// What an operator asks of a node.
#[derive(Clone)]
pub enum Task {
    Change(Change),
    Lead { shard: ShardId, to: NodeId, done: Rc<Cell<bool>> },
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Change(change) => write!(f, "{change:?}"),
            Self::Lead { shard, to, .. } => write!(f, "{to} is to lead {shard}"),
        }
    }
}

/// All of them. Clones share it.
#[derive(Clone)]
pub struct Nodes(Rc<Inner>);

struct Inner {
    hosts: Vec<Host>,
    nature: Nature,
    seed: u64,
    sabotage: Option<Sabotage>,
}

/// The id of a node of this generation.
pub fn id(at: usize, generation: u8) -> NodeId {
    NodeId::new(at as u32 + 1, u32::from(generation))
}

/// Where the keys of that one are.
pub fn keys(dir: &Path, at: usize, generation: u8) -> PathBuf {
    dir.join(format!("keys{at}.{generation}"))
}

/// What an endpoint draws from.
pub fn endpoint_seed(seed: u64, of: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..8 + of.len()].copy_from_slice(of);
    bytes
}

impl Nodes {
    /// Nodes with these keys, one folder each, and empty disks.
    pub fn new(nature: &Nature, seed: u64, dir: &Path, sabotage: Option<Sabotage>) -> Self {
        let host = |at: usize| Host {
            name: format!("n{}", at + 1),
            disk: SimDisk::new(nature, sabotage),
            skew_ms: Arc::default(),
            on: Cell::new(at < FOUNDERS),
            leaving: Cell::new(false),
            joining: RefCell::default(),
            tasks: RefCell::default(),
            generation: Cell::new(1),
            dir: dir.to_owned(),
            starts: Cell::new(0),
            router: RefCell::default(),
            sockets: RefCell::default(),
            fatal: Arc::default(),
        };
        Self(Rc::new(Inner { hosts: (0..NODES).map(host).collect(), nature: nature.clone(), seed, sabotage }))
    }

    /// The id of a node, as of now.
    pub fn id(&self, at: usize) -> NodeId {
        id(at, self.host(at).generation.get())
    }

    /// Where the others reach a node.
    pub fn address(&self, at: usize) -> SocketAddr {
        SocketAddr::from(([192, 168, 0, at as u8 + 1], NODES_PORT))
    }

    /// The newest that any node knows of the cluster.
    pub fn system(&self) -> Option<Arc<System>> {
        let known = (0..NODES).filter_map(|at| self.router(at)?.system().now());
        known.max_by_key(|system| system.version)
    }

    /// Which host a node is on.
    pub fn at(&self, node: NodeId) -> Option<usize> {
        (0..NODES).find(|at| self.id(*at) == node)
    }

    /// A node's host.
    pub fn host(&self, at: usize) -> &Host {
        &self.0.hosts[at]
    }

    /// The names of all hosts.
    pub fn names(&self) -> Vec<String> {
        self.0.hosts.iter().map(|host| host.name.clone()).collect()
    }

    /// Where devices connect, node by node. Must be called within the simulation.
    pub fn devices_addresses() -> Vec<SocketAddr> {
        (0..NODES).map(|at| SocketAddr::new(address(at), DEVICES_PORT)).collect()
    }

    /// The way to a node's entities, past the wire; none while it is down.
    pub fn router(&self, at: usize) -> Option<MagpieRouter> {
        self.0.hosts[at].router.borrow().clone()
    }

    /// Why a node ended by itself.
    pub fn fatal(&self, at: usize) -> Option<String> {
        self.0.hosts[at].fatal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which node leads a shard, as that node itself has it; the one of the highest term if there are two.
    pub fn leader(&self, shard: ShardId) -> Option<usize> {
        let leads = |at: usize| {
            let now = self.router(at)?.shard(shard)?.leadership();
            now.leads.then_some((now.term, at))
        };
        (0..NODES).filter_map(leads).max().map(|(_, at)| at)
    }

    /// How far each replica of each shard is, with where it is; none when one is not there, or is on its way.
    pub fn applied(&self) -> Option<Vec<Vec<(usize, u64)>>> {
        let system = self.system()?;
        let of = |shard: u16| {
            let (shard, place) = (ShardId::new(shard), system.place(ShardId::new(shard))?);
            let is_settled = place.becoming.is_none();
            let held = place.replicas.iter().filter(|_| is_settled).map(|node| {
                let at = self.at(*node)?;
                let router = self.router(at)?;
                let replica = router.shard(shard).filter(|replica| replica.is_hosted())?;
                Some((at, replica.applied_index()))
            });
            held.collect::<Option<Vec<_>>>().filter(|held| held.len() == FOUNDERS)
        };
        (0..SHARDS).map(of).collect()
    }

    /// Forgets a node that is gone for ever: its host begins anew.
    pub fn retire(&self, at: usize) {
        let host = self.host(at);
        host.router.borrow_mut().take();
        *host.fatal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        host.disk.replace();
        host.on.set(false);
        host.leaving.set(false);
        host.tasks.borrow_mut().clear();
        host.generation.set(host.generation.get() + 1);
    }

    /// Forgets what ran on a host that has just crashed, and takes from its disk what was not synced.
    pub fn crashed(&self, at: usize, torn_bytes: usize) {
        let host = self.host(at);
        if host.router.borrow_mut().take().is_some() {
            self.0.nature.happened(Fault::Crash);
        }
        *host.fatal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        host.tasks.borrow_mut().clear();
        host.disk.lose_power(torn_bytes);
    }

    /// Runs a node as long as its host runs.
    pub async fn run(self, at: usize) -> turmoil::Result {
        let host = self.host(at);
        // Whatever a crash left holds no port.
        host.sockets.borrow_mut().drain(..).for_each(|socket| socket.close());
        if !host.on.get() {
            std::future::pending::<()>().await;
        }
        let node = Box::pin(self.start(at)).await?;
        *host.router.borrow_mut() = Some(node.router().clone());
        if host.starts.get() > 1 {
            self.0.nature.happened(Fault::Restart);
        }
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let task = host.tasks.borrow_mut().pop_front();
            if let Some(task) = task {
                self.carry_out(at, node.router(), task).await;
            }
        }
    }

    async fn carry_out(&self, at: usize, router: &MagpieRouter, task: Task) {
        let said = match task {
            Task::Change(change) => format!("{:?}", router.change(change).await),
            Task::Lead { shard, to, done } => {
                let moved = router.hand_over(shard, to).await;
                done.set(done.get() || moved.is_ok());
                format!("{moved:?}")
            }
        };
        self.0.nature.log(format_args!("n{} says: {said}", at + 1));
    }

    async fn underlay(&self, at: usize, port: u16) -> turmoil::Result<Underlay> {
        let host = self.host(at);
        let socket = Socket::bind(&self.0.nature, &host.name, port).await?;
        host.sockets.borrow_mut().push(socket.clone());
        let of = [at as u8, host.starts.get(), (port % 256) as u8];
        Ok(Underlay { socket, seed: Some(endpoint_seed(self.0.seed, &of)) })
    }

    async fn start(&self, at: usize) -> turmoil::Result<Node> {
        let host = self.host(at);
        host.starts.set(host.starts.get() + 1);
        let me = self.id(at);
        let keys = keys(&host.dir, at, host.generation.get());
        let files = node_files(&keys);
        let identity = Identity::load(&keys.join("ca.pem"), &files.chain, &files.key)?;
        let transport = QuicTransport::over(me, &identity, self.underlay(at, NODES_PORT).await?)?;
        let (nodes, token) = match host.joining.borrow().clone() {
            Some(Joining { token, nodes }) => (nodes, Some(token)),
            None => ((0..FOUNDERS).map(|node| (id(node, 1), self.address(node))).collect(), None),
        };
        let part = Part { address: Some(self.address(at)), nodes, token, ..Part::default() };
        let (nature, skew) = (self.0.nature.clone(), host.skew_ms.clone());
        let clock = move || {
            let skew = skew.load(Ordering::Relaxed);
            if skew != 0 {
                nature.happened(Fault::ClockSkew);
            }
            nature.now_ms().saturating_add_signed(skew)
        };
        let seen = host.fatal.clone();
        let options = Options {
            disk: Arc::new(host.disk.clone()),
            clock: Arc::new(clock),
            fatal: Fatal::new(move |why| {
                seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
            }),
            state_in_memory: true,
            threads: false,
            underlay: Some(self.underlay(at, DEVICES_PORT).await?),
            others: Some(Others { me, part, transport: Arc::new(transport) }),
            serve_within: match self.0.sabotage {
                Some(Sabotage::StaleRead) => Duration::from_secs(3_600),
                _ => Options::default().serve_within,
            },
            ..Options::default()
        };
        Ok(Node::start(self.config(at), options).await?)
    }

    /// Small files, so that snapshots are made and logs are cut.
    fn config(&self, at: usize) -> Config {
        let host = self.host(at);
        let generation = host.generation.get();
        let mut config = test_config(&host.dir.join(format!("node{at}.{generation}")));
        config.cluster.nodes = (0..FOUNDERS).map(|at| format!("{}@{}", id(at, 1), self.address(at))).collect();
        config.cluster.keys = keys(&host.dir, at, generation);
        config.storage.shards = SHARDS;
        config.storage.log_reserve_bytes = 0;
        config.storage.snapshot_bytes_min = 4 * 1024;
        config.storage.checkpoint_ms = 200;
        config.storage.log_segment_bytes = 16 * 1024;
        config
    }
}

/// Where a node is. Must be called within the simulation.
pub fn address(at: usize) -> IpAddr {
    turmoil::lookup(format!("n{}", at + 1))
}
