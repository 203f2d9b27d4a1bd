//! The hosts that are nodes: how they start, and what the simulation sees of them.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use magpie_cluster::{
    Fatal, Part,
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

/// How many there are.
pub const NODES: usize = 3;
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
    dir: PathBuf,
    keys: PathBuf,
    starts: Cell<u8>,
    router: RefCell<Option<MagpieRouter>>,
    sockets: RefCell<Vec<Arc<Socket>>>,
    fatal: Arc<Mutex<Option<String>>>,
}

/// All of them. Clones share it.
#[derive(Clone)]
pub struct Nodes(Rc<Inner>);

struct Inner {
    hosts: Vec<Host>,
    nature: Nature,
    seed: u64,
}

/// The id of a node.
pub fn id(at: usize) -> NodeId {
    NodeId::new(at as u32 + 1, 1)
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
            dir: dir.join(format!("node{at}")),
            keys: dir.join(format!("keys{at}")),
            starts: Cell::new(0),
            router: RefCell::default(),
            sockets: RefCell::default(),
            fatal: Arc::default(),
        };
        Self(Rc::new(Inner { hosts: (0..NODES).map(host).collect(), nature: nature.clone(), seed }))
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

    /// How far each node's replica of each shard is; none when a node is down.
    pub fn applied(&self) -> Option<Vec<Vec<u64>>> {
        let of = |at: usize| {
            let router = self.router(at)?;
            (0..SHARDS).map(|shard| Some(router.shard(ShardId::new(shard))?.applied_index())).collect()
        };
        (0..NODES).map(of).collect()
    }

    /// Forgets what ran on a host that has just crashed, and takes from its disk what was not synced.
    pub fn crashed(&self, at: usize, torn_bytes: usize) {
        let host = self.host(at);
        if host.router.borrow_mut().take().is_some() {
            self.0.nature.happened(Fault::Crash);
        }
        *host.fatal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        host.disk.lose_power(torn_bytes);
    }

    /// Runs a node as long as its host runs.
    pub async fn run(self, at: usize) -> turmoil::Result {
        let host = self.host(at);
        // Whatever a crash left holds no port.
        host.sockets.borrow_mut().drain(..).for_each(|socket| socket.close());
        let node = Box::pin(self.start(at)).await?;
        *host.router.borrow_mut() = Some(node.router().clone());
        if host.starts.get() > 1 {
            self.0.nature.happened(Fault::Restart);
        }
        std::future::pending::<()>().await;
        drop(node);
        Ok(())
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
        let files = node_files(&host.keys);
        let identity = Identity::load(&host.keys.join("ca.pem"), &files.chain, &files.key)?;
        let transport = QuicTransport::over(id(at), &identity, self.underlay(at, NODES_PORT).await?)?;
        let nodes: BTreeMap<_, _> =
            (0..NODES).map(|node| (id(node), SocketAddr::new(address(node), NODES_PORT))).collect();
        let part = Part { address: nodes.get(&id(at)).copied(), nodes, ..Part::default() };
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
            others: Some(Others { me: id(at), part, transport: Arc::new(transport) }),
            ..Options::default()
        };
        Ok(Node::start(self.config(at), options).await?)
    }

    /// Small files, so that snapshots are made and logs are cut.
    fn config(&self, at: usize) -> Config {
        let host = self.host(at);
        let mut config = test_config(&host.dir);
        config.cluster.nodes = (0..NODES).map(|at| format!("{}@192.168.0.{}:{NODES_PORT}", id(at), at + 1)).collect();
        config.cluster.keys.clone_from(&host.keys);
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
