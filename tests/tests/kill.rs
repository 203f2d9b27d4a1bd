//! Nodes that are taken away at random moments under load: nothing acknowledged is lost, repeated or reordered.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, reason = "a test")]

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::Path,
    pin::Pin,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use magpie_cluster::{
    disk::{
        Disk,
        memory::{Faults, MemoryDisk},
    },
    log::format::{self, GROUP_HEADER_LEN, Position, Record, RecordKind, SEGMENT_HEADER_LEN},
    transport::quic::Underlay,
};
use magpie_node::{Config, Options};
use magpie_protocol::{Request, ShardId, UserId, frame::contact::Contacts};
use magpie_tests::{
    InProcess, Place, Process,
    crowd::{Crowd, Shape},
    from_env,
    node::test_config,
    raw::{Net, Raw},
    seed, until,
};
use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

const TEST_NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
/// Between two sends of a talker, at most.
const PAUSE: Duration = Duration::from_millis(40);

/// Fifty devices: forty people in twenty pairs, four groups of ten and one of all; ten have a second device.
fn fifty() -> Shape {
    Shape { people: 40, second_devices: 10, groups: vec![0..10, 10..20, 20..30, 30..40, 0..40] }
}

fn place(server: SocketAddr, ca: Vec<u8>) -> Place {
    let mut place = Place::new(server, ca);
    // A killed node says nothing: devices learn of it only by this.
    place.request_timeout = Duration::from_secs(1);
    place
}

type Parts = (std::path::PathBuf, std::path::PathBuf, Vec<(String, String)>, SocketAddr);

/// Starts the node and kills it before it is up, or just after.
fn kill_at_start(parts: &Parts, after: Duration) {
    let (program, dir, environment, address) = parts;
    let mut child = Command::new(program)
        .args(["serve", "--admin", "127.0.0.1:0", "--listen", &address.to_string(), "--data-dir"])
        .arg(dir)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The number that the next group of this segment has, and where it goes.
fn end_of(bytes: &[u8]) -> (u64, usize) {
    let (_, mut next) = format::read_segment_header(bytes).unwrap();
    let mut at = SEGMENT_HEADER_LEN;
    while let Some((number, records)) = format::read_group(&bytes[at..]) {
        next = number + 1;
        at += GROUP_HEADER_LEN + records.len();
    }
    (next, at)
}

/// Leaves at the end of the log what a write that was never synced may leave: noise, a group cut short, or a
/// group of the right length and number whose bytes did not all arrive.
fn tear(dir: &Path, rng: &mut StdRng) -> &'static str {
    let mut segments: Vec<_> = std::fs::read_dir(dir.join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    segments.sort();
    let last = segments.pop().unwrap();
    let mut group = vec![0; GROUP_HEADER_LEN];
    let position = Position { term: 1, node: 1, index: 1 << 40 };
    let payload = vec![7; rng.random_range(1..5000)];
    Record { kind: RecordKind::Entry, shard: ShardId::new(0), position, payload: &payload }.write(&mut group);
    // What was reserved behind the end reads as zeros.
    let (next, end) = end_of(&std::fs::read(&last).unwrap());
    format::finish_group(&mut group, next);
    let what = ["noise", "a group cut short", "a group with a hole"][rng.random_range(0..3)];
    match what {
        "noise" => rng.fill(&mut group[..]),
        "a group cut short" => group.truncate(rng.random_range(1..group.len())),
        _ => group[GROUP_HEADER_LEN + 20..].fill(0),
    }
    std::fs::OpenOptions::new().write(true).open(last).unwrap().write_all_at(&group, end as u64).unwrap();
    what
}

/// Kills the node and brings it back, in one of several ways. Blocks.
fn kill(node: Process, round: u64, rng: &mut StdRng) -> Process {
    let parts = node.kill();
    if rng.random_ratio(1, 4) {
        kill_at_start(&parts, Duration::from_millis(rng.random_range(5..250)));
    }
    let torn = if round % 3 == 2 { tear(&parts.1, rng) } else { "nothing" };
    let began = Instant::now();
    let node = Process::restart(parts).unwrap();
    println!("kill {}: torn: {torn}; up again in {:?}", round + 1, began.elapsed());
    node
}

#[tokio::test]
async fn a_device_learns_at_its_next_packet_that_the_node_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::try_start(Path::new(TEST_NODE), &dir.path().join("data"), &[]).unwrap();
    let net = Net::new(node.address, &node.ca());
    let mut raw = Raw::hello(&net).await;
    let node = node.kill_and_restart().unwrap();
    raw.send(Request::Contacts(Contacts { after: UserId::from_bits(0) })).await;
    let why = tokio::time::timeout(Duration::from_secs(5), raw.connection.closed()).await;
    assert!(matches!(why, Ok(quinn::ConnectionError::Reset)), "{why:?}");
    assert_eq!(node.terminate(), 0);
}

#[tokio::test]
async fn a_process_killed_under_load_keeps_every_acknowledged_message() {
    let (kills, seed) = (from_env("MAGPIE_KILLS", 3), seed("kill"));
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    // In several loops: what is true of those is true of one.
    let loops = [("MAGPIE_NODE_LOOPS", "3")];
    let mut node = Process::try_start(Path::new(TEST_NODE), &dir.path().join("data"), &loops).unwrap();
    let mut crowd = Crowd::gather(&place(node.address, node.ca()), &fifty()).await;
    assert!(crowd.devices() >= 50);
    crowd.talk(seed, PAUSE);
    let began = Instant::now();
    for round in 0..kills {
        // Most kills hit a busy node, some one that devices are just coming back to.
        if round == 0 || rng.random_ratio(4, 5) {
            crowd.acked_more(rng.random_range(50..500)).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..100))).await;
        crowd.ledger().note_loss();
        let mut lots = StdRng::seed_from_u64(rng.random());
        node = tokio::task::spawn_blocking(move || kill(node, round, &mut lots)).await.unwrap();
    }
    crowd.acked_more(500).await;
    crowd.fall_silent().await;
    let counts = crowd.counts();
    let delivered = crowd.check().await;
    println!(
        "{kills} kills in {:?}, {} devices: {counts:?}, {delivered} entries delivered",
        began.elapsed(),
        crowd.devices()
    );
    assert_eq!(node.terminate(), 0);
}

/// What the next start of an in-process node finds: its address, and its disk.
fn on_memory(dir: &Path, listen: Option<SocketAddr>, disk: &MemoryDisk) -> (Config, Options) {
    let mut config = test_config(dir);
    config.gateway.listen = listen.unwrap_or(config.gateway.listen);
    config.node.loops = 3;
    config.storage.snapshot_bytes_min = 8 * 1024;
    config.storage.log_segment_bytes = 128 * 1024;
    (config, Options { disk: Arc::new(disk.clone()), state_in_memory: true, ..Options::default() })
}

/// Takes the power away: from one moment on no sync works, so nothing is acknowledged, and what was not synced by
/// then is lost but for its first bytes. Blocks.
fn lose_power(node: InProcess, disk: &MemoryDisk, torn: usize, half_written: bool) -> MemoryDisk {
    let fault = Faults { fail_sync_after: Some(0), ..Faults::default() };
    disk.set_faults(if half_written { Faults { fail_append_after: Some(0), ..fault } } else { fault });
    // A group may be under way: it is the one to tear.
    std::thread::sleep(Duration::from_millis(torn as u64 % 7));
    let after = disk.after_power_loss(torn);
    node.crash();
    after
}

#[tokio::test]
async fn a_power_loss_under_load_takes_only_what_was_not_acknowledged() {
    let (losses, seed) = (from_env("MAGPIE_POWER_LOSSES", 4), seed("power loss"));
    let mut rng = StdRng::seed_from_u64(seed);
    let (dir, mut disk) = (tempfile::tempdir().unwrap(), MemoryDisk::default());
    let (config, options) = on_memory(dir.path(), None, &disk);
    let mut node = InProcess::start(config, options);
    let address = node.address;
    let shape = Shape { people: 12, second_devices: 4, groups: vec![0..6, 0..12] };
    let mut crowd = Crowd::gather(&place(address, node.ca.clone()), &shape).await;
    crowd.talk(seed, PAUSE / 4);
    for round in 0..losses {
        crowd.acked_more(rng.random_range(200..1500)).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..50))).await;
        crowd.ledger().note_loss();
        let torn = [0, 1, 30, 100, 700, 10_000][rng.random_range(0..6)];
        let (old, half_written) = (disk.clone(), rng.random());
        let (config, folder) = (dir.path().to_owned(), dir.path().join("log"));
        (node, disk) = tokio::task::spawn_blocking(move || {
            let disk = lose_power(node, &old, torn, half_written);
            let (config, options) = on_memory(&config, Some(address), &disk);
            (InProcess::start(config, options), disk)
        })
        .await
        .unwrap();
        println!("power loss {}: {torn} bytes torn; {} segments", round + 1, disk.list(&folder).unwrap().len());
    }
    crowd.acked_more(200).await;
    crowd.fall_silent().await;
    let counts = crowd.counts();
    let delivered = crowd.check().await;
    println!("{losses} power losses, {} devices: {counts:?}, {delivered} entries delivered", crowd.devices());
    node.stop();
}

#[tokio::test]
async fn a_power_loss_after_the_log_was_cut_finds_a_log_that_begins_where_the_snapshot_ends() {
    let seed = seed("cut log");
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::default());
    let (config, options) = on_memory(dir.path(), None, &disk);
    let node = InProcess::start(config, options);
    let address = node.address;
    let shape = Shape { people: 6, second_devices: 0, groups: vec![0..6] };
    let mut crowd = Crowd::gather(&place(address, node.ca.clone()), &shape).await;
    let (log, first) = (dir.path().join("log"), "log-0000000000.seg".to_owned());
    crowd.talk(seed, PAUSE / 4);
    until("the log has a second segment", Duration::from_secs(60), async || disk.list(&log).unwrap().len() > 1).await;
    crowd.fall_silent().await;
    // What cuts the log now is followed by nothing that would be synced.
    let cut = async || !disk.list(&log).unwrap().contains(&first);
    for shard in 0..node.router.shards() {
        node.router.shard(ShardId::new(shard)).unwrap().snapshot_now().await.unwrap();
    }
    until("the log is cut", Duration::from_secs(60), cut).await;
    let power = tokio::task::spawn_blocking(move || {
        let disk = lose_power(node, &disk, 0, false);
        let (config, options) = on_memory(dir.path(), Some(address), &disk);
        (InProcess::try_start(config, options), dir)
    });
    let (started, _dir) = power.await.unwrap();
    let node = started.unwrap_or_else(|error| panic!("the node does not start after the power loss: {error}"));
    crowd.talk(seed, PAUSE);
    crowd.acked_more(20).await;
    crowd.fall_silent().await;
    crowd.check().await;
    node.stop();
}

/// A socket that can be made to fail.
#[derive(Debug)]
struct Frail {
    socket: Arc<dyn AsyncUdpSocket>,
    failed: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl AsyncUdpSocket for Frail {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        slices: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        *self.reader.lock().unwrap() = Some(context.waker().clone());
        if self.failed.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::Error::other("the interface is gone")));
        }
        self.socket.poll_recv(context, slices, metas)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Its devices would reach nobody, and whoever watches over it would not know.
#[tokio::test]
async fn a_node_whose_socket_for_devices_fails_ends_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let socket = TokioRuntime.wrap_udp_socket(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let socket = Arc::new(Frail { socket, failed: AtomicBool::new(false), reader: Mutex::default() });
    let underlay = Some(Underlay { socket: socket.clone(), seed: None });
    let node = InProcess::start(test_config(dir.path()), Options { underlay, ..Options::default() });
    assert_eq!((node.fatal(), node.observer.status().ready), (String::new(), true));
    socket.failed.store(true, Ordering::SeqCst);
    socket.reader.lock().unwrap().take().unwrap().wake();
    until("the node ends", Duration::from_secs(10), async || !node.fatal().is_empty()).await;
    assert!(node.fatal().contains("a socket for devices failed"), "{}", node.fatal());
    assert!(!node.observer.status().ready);
}
