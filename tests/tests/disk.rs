//! A disk that is full, and one that fails: refused in time or ended in time, and nothing acknowledged is lost.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, reason = "a test")]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use magpie_cluster::disk::{Disk, memory::MemoryDisk};
use magpie_node::Options;
use magpie_tests::{
    InProcess, Person, Place, Process,
    crowd::{Crowd, Shape},
    http,
    node::test_config,
    people::befriend,
    seed,
    small_disk::SmallDisk,
    until,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

const TEST_NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
const SOON: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
const MIB: u64 = 1024 * 1024;
const RESERVE: u64 = 4 * MIB;

fn place(server: SocketAddr, ca: Vec<u8>) -> Place {
    let mut place = Place::new(server, ca);
    // A node that ended says nothing: devices learn of it only by this.
    place.request_timeout = Duration::from_secs(1);
    place
}

fn eight() -> Shape {
    Shape { people: 8, second_devices: 2, groups: vec![0..8] }
}

fn start(disk: &SmallDisk) -> Process {
    let reserve = RESERVE.to_string();
    Process::try_start(Path::new(TEST_NODE), &disk.at, &[("MAGPIE_STORAGE_LOG_RESERVE_BYTES", &reserve)]).unwrap()
}

/// What /readyz says.
async fn readyz(node: &Process) -> (u16, String) {
    let admin = node.admin;
    tokio::task::spawn_blocking(move || http::get(admin, "/readyz")).await.unwrap().unwrap()
}

/// Nothing is acknowledged for a while, however often the devices ask.
async fn nothing_is_acknowledged(crowd: &Crowd) {
    // What was admitted before the disk was full may still come.
    let (mut acked, mut since) = (crowd.counts().acked, Instant::now());
    until("acknowledgements end", SOON, async || {
        let now = crowd.counts().acked;
        if now != acked {
            (acked, since) = (now, Instant::now());
        }
        // Devices come back after two seconds and a half at most.
        since.elapsed() > Duration::from_secs(3)
    })
    .await;
    assert!(crowd.counts().open > 0, "the devices have something to say: {:?}", crowd.counts());
}

async fn says_full(node: &Process) {
    until("/readyz says that the disk is full", SOON, async || {
        let (status, text) = readyz(node).await;
        status == 503 && text.contains("the disk is full")
    })
    .await;
}

async fn refuses(node: &mut Process, crowd: &Crowd) {
    says_full(node).await;
    nothing_is_acknowledged(crowd).await;
    assert_eq!(node.ended(), None, "a full disk is no reason to end: {}", node.errors());
    assert_eq!(readyz(node).await.0, 503);
    let (_, metrics) = http::get(node.admin, "/metrics").unwrap();
    let refused = metrics.lines().any(|line| line.contains("refusals") && line.contains("disk is full"));
    assert!(refused, "devices are told why: {metrics}");
}

async fn serves(node: &Process, crowd: &Crowd) {
    until("/readyz says ready", SOON, async || readyz(node).await.0 == 200).await;
    crowd.acked_more(50).await;
}

#[tokio::test]
async fn a_full_disk_refuses_in_time_and_serves_again_by_itself() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let seed = seed("full disk");
    let mut node = start(&disk);
    let mut crowd = Crowd::gather(&place(node.address, node.ca()), &eight()).await;
    crowd.talk(seed, PAUSE);
    crowd.acked_more(50).await;
    for leave in [MIB, 0] {
        disk.fill(RESERVE - 1);
        says_full(&node).await;
        // Once the node writes nothing more, even the last byte may go.
        disk.fill(leave);
        refuses(&mut node, &crowd).await;
        disk.clear();
        serves(&node, &crowd).await;
    }
    node = tokio::task::spawn_blocking(|| node.kill_and_restart()).await.unwrap().unwrap();
    serves(&node, &crowd).await;
    crowd.fall_silent().await;
    crowd.check().await;
    println!("{:?}", crowd.counts());
    assert_eq!(node.terminate(), 0);
}

#[tokio::test]
async fn a_node_killed_on_a_full_disk_comes_back_with_everything() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let seed = seed("killed on a full disk");
    let mut node = start(&disk);
    let mut crowd = Crowd::gather(&place(node.address, node.ca()), &eight()).await;
    crowd.talk(seed, PAUSE);
    crowd.acked_more(200).await;
    disk.fill(RESERVE / 2);
    refuses(&mut node, &crowd).await;
    node = tokio::task::spawn_blocking(|| node.kill_and_restart()).await.unwrap().unwrap();
    refuses(&mut node, &crowd).await;
    disk.fill(0);
    let parts = node.kill();
    let again = parts.clone();
    // Without a single byte it may start or say why not; either way nothing is harmed.
    let started = tokio::task::spawn_blocking(move || Process::restart(again)).await.unwrap();
    match started {
        Ok(started) => drop(started),
        Err(error) => assert!(error.contains("No space left"), "{error}"),
    }
    disk.clear();
    node = tokio::task::spawn_blocking(move || Process::restart(parts)).await.unwrap().unwrap();
    serves(&node, &crowd).await;
    crowd.fall_silent().await;
    crowd.check().await;
    println!("{:?}", crowd.counts());
    assert_eq!(node.terminate(), 0);
}

/// Brings the node down by this fault, under load, several times; devices must not notice but for the pause.
async fn fails(fault: &str, says: &str, test: &str) {
    let seed = seed(test);
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut node = Process::try_start(Path::new(TEST_NODE), &dir.path().join("data"), &[]).unwrap();
    let mut crowd = Crowd::gather(&place(node.address, node.ca()), &eight()).await;
    crowd.talk(seed, PAUSE);
    for _ in 0..4 {
        crowd.acked_more(100).await;
        let mut parts = node.kill();
        let clean = parts.clone();
        parts.2.push((fault.to_owned(), rng.random_range(20..300).to_string()));
        let before = fs::read_to_string(dir.path().join("data.stderr")).unwrap().len();
        // With a low number it fails while it starts, which is to end the same way.
        let code = match tokio::task::spawn_blocking(move || Process::restart(parts)).await.unwrap() {
            Ok(mut failing) => {
                until("the node ends", SOON * 3, async || failing.ended().is_some()).await;
                failing.ended()
            }
            Err(error) if error.contains("exit status: 74") => Some(74),
            Err(error) => panic!("it failed at its start, but not as it should: {error}"),
        };
        crowd.ledger().note_loss();
        let errors = fs::read_to_string(dir.path().join("data.stderr")).unwrap()[before..].to_owned();
        assert_eq!(code, Some(74), "{errors}");
        assert!(errors.contains(says) && errors.contains("the node ends here"), "{errors}");
        node = tokio::task::spawn_blocking(move || Process::restart(clean)).await.unwrap().unwrap();
    }
    crowd.acked_more(50).await;
    crowd.fall_silent().await;
    crowd.check().await;
    println!("{:?}", crowd.counts());
    assert_eq!(node.terminate(), 0);
}

#[tokio::test]
async fn a_failed_sync_ends_the_node_and_is_never_acknowledged() {
    fails("MAGPIE_TEST_FAIL_SYNC_AFTER", "injected sync error", "failed sync").await;
}

#[tokio::test]
async fn a_failed_write_ends_the_node_and_is_never_acknowledged() {
    fails("MAGPIE_TEST_FAIL_APPEND_AFTER", "injected write error", "failed write").await;
}

#[tokio::test]
async fn a_node_that_cannot_say_why_ends_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    // The disk that is full is often the one to which the node's own words go.
    let nowhere = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut node = Command::new(TEST_NODE)
        .args(["serve", "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .env("MAGPIE_TEST_FAIL_APPEND_AFTER", "2")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(nowhere)
        .spawn()
        .unwrap();
    let began = Instant::now();
    while node.try_wait().unwrap().is_none() && began.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended = node.try_wait().unwrap();
    _ = node.kill();
    _ = node.wait();
    assert_eq!(ended.and_then(|status| status.code()), Some(74), "a node whose log failed: {ended:?}");
}

#[tokio::test]
async fn the_log_is_cut_although_only_one_conversation_is_busy() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::default());
    let mut config = test_config(dir.path());
    config.storage.snapshot_bytes_min = 32 * 1024;
    config.storage.log_segment_bytes = 64 * 1024;
    let node =
        InProcess::start(config, Options { disk: Arc::new(disk.clone()), state_in_memory: true, ..Options::default() });
    let place = place(node.address, node.ca.clone());
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let conversation = befriend(&ann, &ben).await;
    for _ in 0..40 {
        let sent: Vec<_> = (0..25).map(|_| ann.client.say(conversation, "~".repeat(2000)).unwrap()).collect();
        for sending in sent {
            sending.posted().await.unwrap();
        }
    }
    // Two megabytes went through; the shards to which nobody speaks must not keep them.
    let log = dir.path().join("log");
    until("the log is cut", SOON, async || disk.list(&log).unwrap().len() <= 8).await;
    tokio::task::spawn_blocking(|| node.stop()).await.unwrap();
}
