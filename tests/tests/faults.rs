//! A cluster of three real processes, killed with -9 one after the other while people talk through it.
//!
//! `MAGPIE_KILLS=100 cargo test --release -p magpie-tests --test faults -- --nocapture` is the long form.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, reason = "a test")]

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use magpie_node::authority::ClusterAuthority;
use magpie_protocol::NodeId;
use magpie_tests::{
    Place, Process,
    crowd::{Crowd, Shape},
    from_env, http, seed, until,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

const TEST_NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
const NODES: usize = 3;

/// Addresses that are free now.
fn free_addresses() -> Vec<SocketAddr> {
    let sockets: Vec<_> = (0..NODES).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
}

fn start(dir: &Path) -> Vec<Process> {
    let (authority, addresses) = (dir.join("ca"), free_addresses());
    ClusterAuthority::create(&authority).unwrap();
    let authority = ClusterAuthority::open(&authority).unwrap();
    let named = |(at, address): (usize, &SocketAddr)| format!("\"n{}.1@{address}\"", at + 1);
    let nodes = format!("[{}]", addresses.iter().enumerate().map(named).collect::<Vec<_>>().join(","));
    let start = |(at, address): (usize, &SocketAddr)| {
        let node = NodeId::new(at as u32 + 1, 1);
        let keys = dir.join(format!("keys{at}"));
        authority.issue_node(node, 1, &keys).unwrap();
        let environment = [
            ("MAGPIE_CLUSTER_NODE", node.to_string()),
            ("MAGPIE_CLUSTER_LISTEN", address.to_string()),
            ("MAGPIE_CLUSTER_NODES", nodes.clone()),
            ("MAGPIE_CLUSTER_KEYS", keys.display().to_string()),
        ];
        let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
        Process::try_start(Path::new(TEST_NODE), &dir.join(format!("node{at}")), &environment).unwrap()
    };
    addresses.iter().enumerate().map(start).collect()
}

async fn ready(node: &Process) {
    let known = async || http::get(node.admin, "/readyz").is_ok_and(|(status, _)| status == 200);
    until("the node knows the leader of every shard", Duration::from_secs(30), known).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_nodes_of_a_cluster_are_killed_in_turn() {
    let (seed, kills) = (seed("faults"), from_env("MAGPIE_KILLS", 4));
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = start(dir.path());
    for node in &nodes {
        ready(node).await;
    }
    let ca = std::fs::read(dir.path().join("ca/devices-ca.pem")).unwrap();
    let mut place = Place::new(nodes[0].address, ca);
    place.others = nodes[1..].iter().map(|node| node.address).collect();
    // A killed node says nothing: devices learn of it only by this.
    place.request_timeout = Duration::from_secs(1);
    let shape = Shape { people: 10, second_devices: 2, groups: vec![0..5, 0..10] };
    let mut crowd = Crowd::gather(&place, &shape).await;
    crowd.talk(seed, Duration::from_millis(20));
    for kill in 0..kills {
        crowd.acked_more(100).await;
        crowd.ledger().note_loss();
        // Every node once, then any.
        let at = if kill < NODES as u64 { kill as usize } else { rng.random_range(0..NODES) };
        let (began, parts) = (Instant::now(), nodes.remove(at).kill());
        // Two of three go on without it.
        crowd.acked_more(50).await;
        println!("kill {kill} of node {}: 50 acknowledgements after {:?}", at + 1, began.elapsed());
        nodes.insert(at, Process::restart(parts).unwrap());
        ready(&nodes[at]).await;
    }
    crowd.acked_more(100).await;
    crowd.fall_silent().await;
    let checked = crowd.check().await;
    println!("{kills} kills, {checked} histories: {:?}", crowd.counts());
    for node in nodes {
        assert_eq!(node.terminate(), 0);
    }
}
