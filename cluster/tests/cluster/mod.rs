//! Several nodes in one process, over a network that is cut on demand and disks that forget what was not synced.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use super::machine::{Command, Counter, Said, user};
use magpie_cluster::{
    AskError, DiskId, Ending, EntityId, Fatal, Hint, HintSink, Outside, Part, ShardLimits, Storage, StorageConfig,
    StorageError, System,
    consensus::openraft::HEARD_WITHIN,
    disk::memory::MemoryDisk,
    log::LogLimits,
    system::{Change, LEVEL, founding::token_hash},
    transport::{Transport, memory::MemoryNetwork},
};
use magpie_protocol::{NodeId, ShardId, TimelineId};
use tokio::time::Instant;

pub const SHARDS: u16 = 2;

pub struct Node {
    pub storage: Storage<Counter>,
    pub transport: Arc<dyn Transport>,
    pub fatal: Arc<Mutex<String>>,
    pub ending: Arc<Mutex<Option<Ending>>>,
    pub heard: Arc<Heard>,
    pub wrong: Arc<AtomicBool>,
}

/// What a node's sessions would hear.
#[derive(Default)]
pub struct Heard {
    pub hints: Mutex<Vec<(TimelineId, u64)>>,
    pub beats: Mutex<BTreeMap<ShardId, u64>>,
    pub leaders: Mutex<BTreeMap<ShardId, usize>>,
}

impl HintSink for Heard {
    fn on_hints(&self, _: ShardId, _: u64, hints: &[Hint]) {
        self.hints.lock().unwrap().extend(hints.iter().map(|hint| (hint.timeline, hint.number)));
    }
    fn on_beat(&self, shard: ShardId, count: u64) {
        self.beats.lock().unwrap().insert(shard, count);
    }
    fn on_new_leader(&self, shard: ShardId) {
        *self.leaders.lock().unwrap().entry(shard).or_default() += 1;
    }
}

pub struct Cluster {
    pub network: MemoryNetwork,
    pub disks: Vec<MemoryDisk>,
    pub nodes: Vec<Option<Node>>,
    /// Those that the cluster began with.
    pub first: usize,
    /// What a node that joins was given.
    pub tokens: BTreeMap<usize, String>,
    /// Which data folder each has: another one where it lost the first.
    pub folders: BTreeMap<usize, u128>,
    /// What the build of each can do, where it is not this one.
    pub levels: BTreeMap<usize, u32>,
    /// How far a node's clock is off, in milliseconds.
    pub clocks: Vec<Arc<AtomicI64>>,
    began: Instant,
    pub limits: ShardLimits,
    pub shards: u16,
    /// What a node sends at most to those that were away, in bytes a second.
    pub catch_up: u64,
}

pub fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], at as u16 + 1))
}

pub fn id(at: usize) -> NodeId {
    NodeId::new(at as u32 + 1, 1)
}

impl Cluster {
    pub async fn of(nodes: usize) -> Self {
        Self::over((0..nodes).map(|_| MemoryDisk::default()).collect(), SHARDS).await
    }

    /// Nodes over what lies on these disks.
    pub async fn over(disks: Vec<MemoryDisk>, shards: u16) -> Self {
        let nodes = disks.len();
        if std::env::var_os("MAGPIE_TRACE").is_some() {
            // Of one test at a time: `MAGPIE_TRACE=1 cargo test NAME -- --nocapture`.
            _ = tracing_subscriber::fmt()
                .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
                .with_test_writer()
                .try_init();
        }
        let limits = ShardLimits { checkpoint_ms: 100, snapshot_bytes_min: 1 << 30, ..ShardLimits::default() };
        let (network, began) = (MemoryNetwork::new(), Instant::now());
        let (tokens, folders, levels) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let clocks = (0..nodes).map(|_| Arc::default()).collect();
        let mut cluster = Self {
            network,
            disks,
            nodes: Vec::new(),
            first: nodes,
            tokens,
            folders,
            levels,
            clocks,
            began,
            limits,
            shards,
            catch_up: 64 << 20,
        };
        for at in 0..nodes {
            cluster.nodes.push(None);
            cluster.start(at).await;
        }
        cluster
    }

    pub async fn start(&mut self, at: usize) {
        self.try_start(at).await.unwrap();
    }

    pub async fn try_start(&mut self, at: usize) -> Result<(), StorageError> {
        let transport: Arc<dyn Transport> = self.network.join(id(at));
        let nodes = (0..self.first).map(|node| (id(node), address(node))).collect();
        let address = address(at);
        let (clock, folder) = (self.clocks[at].clone(), self.folders.get(&at).copied().unwrap_or(at as u128));
        let config = StorageConfig {
            dir: Path::new("/m").into(),
            node: id(at),
            shards: self.shards,
            disk: DiskId(folder),
            part: Part { address: Some(address), nodes, token: self.tokens.get(&at).cloned(), ..Part::default() },
            lost_after: Duration::from_secs(300),
            audit_every: Duration::from_secs(60),
            catch_up_bytes: self.catch_up,
            serve_within: HEARD_WITHIN,
            level: self.levels.get(&at).copied().unwrap_or(LEVEL),
            state_in_memory: true,
            threads: false,
            sled_cache_bytes: 0,
            log: LogLimits { segment_bytes: 64 * 1024, reserve_bytes: 0 },
            shard: self.limits,
        };
        let began = self.began;
        let (fatal, wrong) = (Arc::new(Mutex::new(String::new())), Arc::new(AtomicBool::new(false)));
        let (seen, ending) = (fatal.clone(), Arc::new(Mutex::new(None)));
        let kind = ending.clone();
        let outside = Outside {
            disk: Arc::new(self.disks[at].clone()),
            clock: Arc::new(move || {
                (1_000_000 + began.elapsed().as_millis() as i64 + clock.load(Ordering::Relaxed)) as u64
            }),
            fatal: Fatal::by_kind(move |ending, why| {
                *seen.lock().unwrap() += why;
                kind.lock().unwrap().get_or_insert(ending);
            }),
            transport: Some(transport.clone()),
            loops: Vec::new(),
        };
        let storage = Storage::open(&config, outside, || Counter { wrong: wrong.clone() }).await?;
        let heard = Arc::new(Heard::default());
        let sink: Arc<dyn HintSink> = heard.clone();
        storage.router().set_sink(&sink);
        self.nodes[at] = Some(Node { storage, transport, fatal, ending, heard, wrong });
        Ok(())
    }

    /// A node more, which the cluster expects.
    pub async fn grow(&mut self) -> usize {
        let at = self.disks.len();
        let address = address(at);
        let expect = Change::Expect { node: id(at), address, token: token_hash("open") };
        let router = self.up().next().unwrap().storage.router().clone();
        router.change(expect).await.unwrap().unwrap();
        self.disks.push(MemoryDisk::default());
        self.clocks.push(Arc::default());
        self.nodes.push(None);
        self.tokens.insert(at, "open".to_owned());
        self.start(at).await;
        at
    }

    /// What the first node that is up knows of the cluster.
    pub fn system(&self) -> Arc<System> {
        self.up().filter_map(|node| node.storage.router().system().now()).max_by_key(|system| system.version).unwrap()
    }

    /// As a loss of power would.
    pub async fn crash(&mut self, at: usize) {
        let disk = self.disks[at].after_power_loss(0);
        let node = self.nodes[at].take().unwrap();
        node.transport.stop().await;
        node.storage.crash();
        self.disks[at] = disk;
    }

    /// As an operator would.
    pub async fn stop(&mut self, at: usize) {
        self.nodes[at].take().unwrap().storage.stop().await.unwrap();
    }

    pub fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().unwrap()
    }

    pub fn up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    pub async fn ask(&self, at: usize, n: u64, command: Command) -> Result<Said, AskError> {
        self.node(at).storage.router().ask(EntityId::user(user(n)), command).await
    }

    /// Asks until it is known what became of it. Only for what may be done twice.
    pub async fn insist(&self, at: usize, n: u64, command: Command) -> Said {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.ask(at, n, command.clone()).await {
                Ok(said) => return said,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn leader(&self, shard: u16) -> Option<usize> {
        let leads = |node: &Option<Node>| {
            node.as_ref().is_some_and(|node| node.storage.shards()[usize::from(shard)].leadership().leads)
        };
        self.nodes.iter().position(leads)
    }

    pub async fn settled(&self) {
        until(|| (0..self.shards).all(|shard| self.leader(shard).is_some())).await;
    }

    /// Every replica that is up has applied the same, and it is this for each person: total and notes.
    pub async fn agree(&self, people: std::ops::Range<u64>) {
        let story = |node: &Node| -> Vec<_> {
            let look = |n| node.storage.router().shard_of(user(n).slot()).look(user(n)).unwrap();
            people.clone().map(|n| look(n).0.story()).collect()
        };
        until(|| {
            let mut stories = self.up().map(story);
            let first = stories.next().unwrap();
            stories.all(|other| other == first)
        })
        .await;
        for node in self.up() {
            assert_eq!(*node.fatal.lock().unwrap(), "");
        }
    }

    pub fn total(&self, at: usize, n: u64) -> u64 {
        self.node(at).storage.router().shard_of(user(n).slot()).look(user(n)).unwrap().0.story().0
    }

    pub fn isolate(&self, at: usize, cut: bool) {
        for other in (0..self.disks.len()).filter(|other| *other != at) {
            for (a, b) in [(at, other), (other, at)] {
                if cut {
                    self.network.cut(id(a), id(b));
                } else {
                    self.network.heal(id(a), id(b));
                }
            }
        }
    }
}

pub async fn until_async(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within a minute");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub async fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
