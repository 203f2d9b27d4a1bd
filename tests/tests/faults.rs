//! Clusters of three and five real processes, to which bad things happen while people talk through them. Each node has
//! a network of its own where this process may make one, and what nodes say to each other passes through a relay.
//!
//! `MAGPIE_KILLS=100 MAGPIE_FAULT_SECONDS=600 cargo test --release -p magpie-tests --test faults -- --nocapture` is the
//! long form.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, reason = "a test")]

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use magpie_tests::{
    cluster::Cluster,
    crowd::{Crowd, Shape},
    from_env,
    scene::{Fault, Scene},
    seed,
    small_disk::SmallDisk,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

const TEST_NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
/// Between two messages of one device, at most.
const PAUSE: Duration = Duration::from_millis(20);
const DISK_MIB: u32 = 96;

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_nodes_of_a_cluster_are_killed_in_turn() {
    let (seed, kills) = (seed("faults"), from_env("MAGPIE_KILLS", 3));
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(Path::new(TEST_NODE), dir.path(), 3, seed, |_| None);
    cluster.ready().await;
    let shape = Shape { people: 10, second_devices: 2, groups: vec![0..5, 0..10] };
    let mut crowd = Crowd::gather(&cluster.place(), &shape).await;
    crowd.talk(seed, PAUSE);
    for kill in 0..kills {
        crowd.acked_more(100).await;
        crowd.ledger().note_loss();
        // Every node once, then any.
        let at = if kill < cluster.len() as u64 { kill as usize } else { rng.random_range(0..cluster.len()) };
        let began = Instant::now();
        cluster.kill(at);
        // Two of three go on without it.
        crowd.acked_more(50).await;
        println!("kill {kill} of node {}: 50 acknowledgements after {:?}", at + 1, began.elapsed());
        cluster.restart(at, &[]);
        cluster.ready().await;
    }
    crowd.acked_more(100).await;
    crowd.fall_silent().await;
    let checked = crowd.check().await;
    println!("{kills} kills, {checked} histories: {:?}", crowd.counts());
    cluster.terminate();
}

/// Lets all of these happen, in an order that the seed decides, again and again for MAGPIE_FAULT_SECONDS; or those that
/// MAGPIE_FAULTS names, with commas between, in its order.
async fn all_befall(test: &str, nodes: usize, faults: &[Fault], shape: Shape) {
    let seed = seed(test);
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let disk = if faults.contains(&Fault::FillDisk) { SmallDisk::mount(DISK_MIB) } else { None };
    let data = |at| disk.as_ref().filter(|_| at == 0).map(|disk| disk.folder("node0"));
    let cluster = Cluster::start(Path::new(TEST_NODE), dir.path(), nodes, seed, data);
    cluster.ready().await;
    let mut crowd = Crowd::gather(&cluster.place(), &shape).await;
    crowd.talk(seed, PAUSE);
    let mut scene = Scene { cluster, crowd, disk };
    let (began, long) = (Instant::now(), Duration::from_secs(from_env("MAGPIE_FAULT_SECONDS", 0)));
    let mut happened: BTreeMap<String, u32> = BTreeMap::new();
    loop {
        let mut faults = faults.to_vec();
        match std::env::var("MAGPIE_FAULTS") {
            Err(_) => faults.shuffle(&mut rng),
            Ok(named) => faults = named.split(',').filter_map(|name| named_fault(&faults, name)).collect(),
        }
        for fault in faults {
            if scene.befall(fault).await {
                *happened.entry(format!("{fault:?}")).or_default() += 1;
            }
        }
        if began.elapsed() >= long {
            break;
        }
    }
    let Scene { cluster, mut crowd, disk } = scene;
    crowd.acked_more(50).await;
    crowd.fall_silent().await;
    let checked = crowd.check().await;
    println!("{nodes} nodes, {:?}: {happened:?}; {checked} histories: {:?}", began.elapsed(), crowd.counts());
    cluster.terminate();
    drop(disk);
}

fn named_fault(all: &[Fault], name: &str) -> Option<Fault> {
    all.iter().copied().find(|fault| format!("{fault:?}") == name)
}

#[tokio::test]
async fn three_nodes_keep_their_promises_whatever_befalls_one() {
    use Fault::{CutOff, Deaf, FillDisk, Freeze, Kill, Mute, ShiftClock, Storm, Unplug};
    let faults = [Kill, Freeze, CutOff, Mute, Deaf, Unplug, FillDisk, ShiftClock, Storm];
    let shape = Shape { people: 8, second_devices: 2, groups: vec![0..4, 0..8] };
    all_befall("three nodes", 3, &faults, shape).await;
}

#[tokio::test]
async fn five_nodes_keep_their_promises_whatever_befalls_two() {
    use Fault::{CutOff, Freeze, Kill, Storm};
    let shape = Shape { people: 6, second_devices: 1, groups: vec![0..6] };
    all_befall("five nodes", 5, &[Kill, Freeze, CutOff, Storm], shape).await;
}

#[tokio::test]
async fn five_nodes_go_on_through_one_storm_after_another() {
    let shape = Shape { people: 6, second_devices: 1, groups: vec![0..6] };
    all_befall("storms", 5, &[Fault::Storm; 6], shape).await;
}
