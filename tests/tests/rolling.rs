//! Builds beside each other: a cluster that is upgraded node by node while people talk, and data folders that earlier
//! builds have left.
//!
//! The newer build is this one with two things added, both of the test node alone: it says that it can do one level
//! more, and it asks again and again for a command that belongs to that level.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, reason = "a test")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use magpie_client::Status;
use magpie_cluster::system::LEVEL;
use magpie_tests::{
    Person,
    cluster::Cluster,
    crowd::{Crowd, Shape},
    people::befriend,
    seed, until,
};
use serde_json::Value;

const TEST_NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
const SOON: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// What became of asking for the new thing, through this node.
fn asked(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn of_node(known: &Value, at: usize) -> Value {
    let name = format!("n{}.1", at + 1);
    known["nodes"].as_array().and_then(|nodes| nodes.iter().find(|node| node["node"] == name)).cloned().unwrap()
}

/// As an operator would: leaders and sessions go elsewhere first.
async fn drain_and_stop(cluster: &mut Cluster, at: usize) {
    let through = (at + 1) % cluster.len();
    cluster.stand(through, at, "draining");
    until("the node leads nothing and serves nobody", SOON, async || {
        let node = of_node(&cluster.known(through), at);
        node["leaders"] == 0 && node["sessions"] == 0
    })
    .await;
    cluster.stop(at);
}

/// Panics unless it was not done before all could, and then once for each number, wherever it was asked.
fn check_asked(files: &[PathBuf]) {
    let mut numbers = BTreeSet::new();
    for file in files {
        let lines = asked(file);
        let done: Vec<u64> = lines.iter().filter_map(|line| line.parse().ok()).collect();
        assert!(done.windows(2).all(|two| two[0] < two[1]), "{}: not in order: {done:?}", file.display());
        assert!(!done.is_empty(), "{}: never done", file.display());
        for number in done {
            assert!(numbers.insert(number), "{number} was the answer twice");
        }
        let odd = |line: &&String| line.parse::<u64>().is_err() && *line != "not yet" && *line != "unknown";
        assert_eq!(lines.iter().find(odd), None, "{}", file.display());
    }
}

#[tokio::test]
async fn a_cluster_is_upgraded_node_by_node_while_people_talk() {
    let seed = seed("rolling");
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(Path::new(TEST_NODE), dir.path(), 3, seed, |_| None);
    cluster.ready().await;
    let shape = Shape { people: 8, second_devices: 2, groups: vec![0..4, 0..8] };
    let mut crowd = Crowd::gather(&cluster.place(), &shape).await;
    crowd.talk(seed, PAUSE);
    // A new cluster takes a moment to reach what its builds can do.
    until("the level is theirs", SOON, async || (0..3).all(|at| cluster.known(at)["level"] == LEVEL)).await;
    let newer = (LEVEL + 1).to_string();
    let files: Vec<PathBuf> = (0..3).map(|at| dir.path().join(format!("later{at}"))).collect();
    let environment = |at: usize| {
        let file: &str = files[at].to_str().unwrap();
        [("MAGPIE_TEST_LEVEL", newer.as_str()), ("MAGPIE_TEST_LATER", file)]
    };
    for at in 0..3 {
        crowd.acked_more(50).await;
        drain_and_stop(&mut cluster, at).await;
        crowd.acked_more(50).await;
        // Two builds beside each other: the new thing is refused, and nothing else.
        for file in &files[..at] {
            assert!(asked(file).iter().all(|line| line == "not yet" || line == "unknown"), "{:?}", asked(file));
            assert!(asked(file).iter().any(|line| line == "not yet"));
        }
        assert_eq!(cluster.known((at + 1) % 3)["level"], LEVEL);
        cluster.restart(at, &environment(at));
        cluster.stand((at + 1) % 3, at, "active");
        cluster.ready().await;
        println!("node {} runs the newer build", at + 1);
    }
    until("the level is raised", SOON, async || (0..3).all(|at| cluster.known(at)["level"] == LEVEL + 1)).await;
    let done = |file: &PathBuf| asked(file).iter().any(|line| line.parse::<u64>().is_ok());
    until("everybody gets what is new", SOON, async || files.iter().all(done)).await;
    crowd.acked_more(50).await;

    drain_and_stop(&mut cluster, 0).await;
    let older = LEVEL.to_string();
    let refused = cluster.try_restart(0, &[("MAGPIE_TEST_LEVEL", older.as_str())]).unwrap_err();
    println!("the older build: {refused}");
    assert!(refused.contains("exit status: 76") && refused.contains("upgrade this node"), "{refused}");
    crowd.acked_more(50).await;
    cluster.restart(0, &environment(0));
    cluster.stand(1, 0, "active");
    cluster.ready().await;
    crowd.acked_more(50).await;
    crowd.fall_silent().await;
    let checked = crowd.check().await;
    println!("{checked} histories: {:?}", crowd.counts());
    cluster.terminate();
    check_asked(&files);
}

#[tokio::test]
async fn a_device_that_knew_one_node_is_told_where_to_go_when_that_is_drained() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(Path::new(TEST_NODE), dir.path(), 3, seed("elsewhere"), |_| None);
    cluster.ready().await;
    let mut place = cluster.place();
    (place.server, place.others) = (cluster.node(0).address, Vec::new());
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let talk = befriend(&ann, &ben).await;
    cluster.stand(1, 0, "draining");
    until("both are connected elsewhere", SOON, async || {
        [&ann, &ben].iter().all(|person| {
            let there = person.client.server();
            there.is_some_and(|at| at != place.server) && person.client.status() == Status::Online
        })
    })
    .await;
    let number = ann.say(talk, "still here").await;
    ben.has(talk, number, SOON).await;
    cluster.terminate();
}
