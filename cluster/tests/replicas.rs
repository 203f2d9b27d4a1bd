//! Several nodes in one process, over a network that is cut on demand and disks that forget what was not synced.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod machine;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use machine::{Command, Counter, Said, user};
use magpie_cluster::{
    AskError, DiskId, EntityId, Fatal, Hint, HintSink, Outside, Part, ShardLimits, Storage, StorageConfig,
    disk::memory::MemoryDisk,
    log::LogLimits,
    transport::{Transport, memory::MemoryNetwork},
};
use magpie_protocol::{NodeId, ShardId, TimelineId};
use tokio::time::Instant;

const SHARDS: u16 = 2;

struct Node {
    storage: Storage<Counter>,
    transport: Arc<dyn Transport>,
    fatal: Arc<Mutex<String>>,
    heard: Arc<Heard>,
}

/// What a node's sessions would hear.
#[derive(Default)]
struct Heard {
    hints: Mutex<Vec<(TimelineId, u64)>>,
    beats: Mutex<BTreeMap<ShardId, u64>>,
    leaders: Mutex<BTreeMap<ShardId, usize>>,
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

struct Cluster {
    network: MemoryNetwork,
    disks: Vec<MemoryDisk>,
    nodes: Vec<Option<Node>>,
    began: Instant,
    limits: ShardLimits,
}

fn id(at: usize) -> NodeId {
    NodeId::new(at as u32 + 1, 1)
}

impl Cluster {
    async fn of(nodes: usize) -> Self {
        let limits = ShardLimits { checkpoint_ms: 100, snapshot_bytes_min: 1 << 30, ..ShardLimits::default() };
        let disks = (0..nodes).map(|_| MemoryDisk::default()).collect();
        let (network, began) = (MemoryNetwork::new(), Instant::now());
        let mut cluster = Self { network, disks, nodes: Vec::new(), began, limits };
        for at in 0..nodes {
            cluster.nodes.push(None);
            cluster.start(at).await;
        }
        cluster
    }

    async fn start(&mut self, at: usize) {
        let transport: Arc<dyn Transport> = self.network.join(id(at));
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let nodes = (0..self.disks.len()).map(|node| (id(node), address)).collect();
        let config = StorageConfig {
            dir: Path::new("/m").into(),
            node: id(at),
            shards: SHARDS,
            disk: DiskId(at as u128),
            part: Part { nodes, ..Part::default() },
            lost_after: Duration::from_secs(300),
            state_in_memory: true,
            threads: false,
            sled_cache_bytes: 0,
            log: LogLimits { segment_bytes: 64 * 1024, reserve_bytes: 0 },
            shard: self.limits,
        };
        let began = self.began;
        let fatal = Arc::new(Mutex::new(String::new()));
        let seen = fatal.clone();
        let outside = Outside {
            disk: Arc::new(self.disks[at].clone()),
            clock: Arc::new(move || 1_000_000 + began.elapsed().as_millis() as u64),
            fatal: Fatal::new(move |why| *seen.lock().unwrap() += why),
            transport: Some(transport.clone()),
        };
        let storage = Storage::open(&config, outside, || Counter).await.unwrap();
        let heard = Arc::new(Heard::default());
        let sink: Arc<dyn HintSink> = heard.clone();
        storage.router().set_sink(&sink);
        self.nodes[at] = Some(Node { storage, transport, fatal, heard });
    }

    /// As a loss of power would.
    async fn crash(&mut self, at: usize) {
        let disk = self.disks[at].after_power_loss(0);
        let node = self.nodes[at].take().unwrap();
        node.transport.stop().await;
        node.storage.crash();
        self.disks[at] = disk;
    }

    fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().unwrap()
    }

    fn up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    async fn ask(&self, at: usize, n: u64, command: Command) -> Result<Said, AskError> {
        self.node(at).storage.router().ask(EntityId::user(user(n)), command).await
    }

    /// Asks until it is known what became of it. Only for what may be done twice.
    async fn insist(&self, at: usize, n: u64, command: Command) -> Said {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.ask(at, n, command.clone()).await {
                Ok(said) => return said,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn leader(&self, shard: u16) -> Option<usize> {
        let leads = |node: &Option<Node>| {
            node.as_ref().is_some_and(|node| node.storage.shards()[usize::from(shard)].leadership().leads)
        };
        self.nodes.iter().position(leads)
    }

    async fn settled(&self) {
        until(|| (0..SHARDS).all(|shard| self.leader(shard).is_some())).await;
    }

    /// Every replica that is up has applied the same, and it is this for each person: total and notes.
    async fn agree(&self, people: std::ops::Range<u64>) {
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

    fn total(&self, at: usize, n: u64) -> u64 {
        self.node(at).storage.router().shard_of(user(n).slot()).look(user(n)).unwrap().0.story().0
    }

    fn isolate(&self, at: usize, cut: bool) {
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

async fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn any_node_takes_a_command_and_every_replica_applies_it() {
    let cluster = Cluster::of(3).await;
    for n in 0..30 {
        assert_eq!(cluster.insist(n as usize % 3, n % 10, Command::Add(n)).await, Said::Total(expected(n)));
    }
    for n in 0..10 {
        cluster.insist(n as usize % 3, n, Command::Tell { to: user((n + 3) % 10), note: n }).await;
    }
    until(|| (0..10).all(|n| (0..3).all(|at| look_notes(&cluster, at, n).len() == 1))).await;
    cluster.agree(0..10).await;
}

/// What ten people have after each was given its numbers up to `n`.
fn expected(n: u64) -> u64 {
    (0..=n).filter(|m| m % 10 == n % 10).sum()
}

fn look_notes(cluster: &Cluster, at: usize, n: u64) -> Vec<(u64, u64)> {
    cluster.node(at).storage.router().shard_of(user(n).slot()).look(user(n)).unwrap().0.story().1
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_the_loss_of_its_leader() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    for round in 1..=6 {
        let leader = cluster.leader(0).unwrap();
        for n in 0..10 {
            cluster.insist((leader + 1) % 3, n, Command::Add(1)).await;
        }
        let acknowledged: Vec<u64> = (0..10).map(|n| cluster.total(leader, n).max(round)).collect();
        cluster.crash(leader).await;
        let began = Instant::now();
        until(|| cluster.leader(0).is_some() && cluster.leader(1).is_some()).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?} without a leader", began.elapsed());
        for n in 0..10 {
            let new = cluster.leader(user(n).slot().get() % SHARDS).unwrap();
            assert!(cluster.total(new, n) >= acknowledged[n as usize], "{n} of round {round} is gone");
        }
        cluster.start(leader).await;
        cluster.agree(0..10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_follows_when_it_is_back() {
    let cluster = Cluster::of(3).await;
    cluster.settled().await;
    let old = cluster.leader(0).unwrap();
    let n = (0..10).find(|n| user(*n).slot().get().is_multiple_of(SHARDS)).unwrap();
    cluster.insist(old, n, Command::Add(5)).await;
    cluster.isolate(old, true);
    let lonely = tokio::time::timeout(Duration::from_secs(5), cluster.ask(old, n, Command::Add(100))).await;
    assert!(!matches!(lonely, Ok(Ok(_))), "acknowledged without a quorum: {lonely:?}");
    until(|| (0..3).any(|at| at != old && cluster.node(at).storage.shards()[0].leadership().leads)).await;
    cluster.insist((old + 1) % 3, n, Command::Add(7)).await;
    cluster.isolate(old, false);
    cluster.agree(0..10).await;
    assert_eq!(cluster.total(old, n), 12, "what nobody else had is void");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_away_catches_up_by_log_or_by_snapshot() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    for by_snapshot in [false, true] {
        let away = (cluster.leader(0).unwrap() + 1) % 3;
        cluster.crash(away).await;
        cluster.settled().await;
        for n in 0..200 {
            cluster.insist((away + 1) % 3, n % 10, Command::Add(n)).await;
        }
        if by_snapshot {
            for node in cluster.up() {
                for shard in node.storage.shards() {
                    shard.snapshot_now().await.unwrap();
                }
            }
        }
        cluster.start(away).await;
        cluster.agree(0..10).await;
        // And once more, over what it took.
        cluster.crash(away).await;
        cluster.start(away).await;
        cluster.agree(0..10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_watches_hears_of_every_entry_from_whoever_leads() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    let (n, timeline) = (1, TimelineId::Inbox(user(1)));
    let shard = user(n).slot().get() % SHARDS;
    let leader = cluster.leader(shard).unwrap();
    let watcher = (leader + 1) % 3;
    let router = cluster.node(watcher).storage.router().clone();
    router.rewatch(ShardId::new(shard), vec![timeline]).await.unwrap();
    for _ in 0..5 {
        cluster.insist(leader, n, Command::Add(1)).await;
    }
    let heard = cluster.node(watcher).heard.clone();
    until(|| heard.hints.lock().unwrap().len() == 5).await;
    assert!(cluster.node(leader).heard.hints.lock().unwrap().is_empty(), "a node heard what it does not watch");
    until(|| heard.beats.lock().unwrap().get(&ShardId::new(shard)) == Some(&5)).await;
    let leaders = || heard.leaders.lock().unwrap().get(&ShardId::new(shard)).copied().unwrap_or(0);
    let before = leaders();
    cluster.crash(leader).await;
    until(|| cluster.leader(shard).is_some()).await;
    let began = Instant::now();
    until(|| leaders() > before).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?} until a new leader was told", began.elapsed());
    router.rewatch(ShardId::new(shard), vec![timeline]).await.unwrap();
    cluster.insist(watcher, n, Command::Add(1)).await;
    until(|| heard.hints.lock().unwrap().last() == Some(&(timeline, 6))).await;
}

#[tokio::test(start_paused = true)]
async fn what_shards_say_to_each_other_arrives_once_while_leaders_come_and_go() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    let mut told = 0;
    for round in 0..5 {
        for _ in 0..20 {
            // A command whose fate is not known is not repeated: what it told may have been told.
            if cluster.ask(round % 3, 1, Command::Tell { to: user(2), note: told }).await.is_ok() {
                told += 1;
            }
        }
        let leader = cluster.leader(user(1).slot().get() % SHARDS).unwrap_or(0);
        cluster.crash(leader).await;
        cluster.start(leader).await;
        cluster.settled().await;
    }
    until(|| look_notes(&cluster, 0, 2).len() as u64 >= told).await;
    cluster.agree(0..10).await;
    let mut notes: Vec<u64> = look_notes(&cluster, 0, 2).into_iter().map(|(_, note)| note).collect();
    assert!(notes.is_sorted(), "out of order: {notes:?}");
    notes.dedup();
    assert!(notes.len() as u64 >= told && told > 20, "{told} told, {} arrived", notes.len());
}
