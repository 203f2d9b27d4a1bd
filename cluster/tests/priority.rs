//! What a node asks of another carries its priority; the other lets in by it, and says by how far.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod cluster;
mod machine;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::{Cluster, until};
use machine::{Command, Said};
use magpie_cluster::{
    AskError,
    priority::{self, Admission},
    system::{FIRST_LEVEL, LEVEL},
};

/// Lets in up to a level that the test says, and counts.
struct Door {
    level: AtomicU16,
    asked: AtomicU64,
}

impl Door {
    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn lower(&self, level: u16) {
        self.level.store(level, Ordering::Relaxed);
    }
}

impl Admission for Door {
    fn admit(&self, priority: u16) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        priority <= self.level()
    }
    fn level(&self) -> u16 {
        self.level.load(Ordering::Relaxed)
    }
    fn retry_after_ms(&self, priority: u16, level: u16) -> u32 {
        u32::from(priority - level)
    }
}

fn doors(cluster: &Cluster) -> Vec<Arc<Door>> {
    let door = |at: usize| {
        let door = Arc::new(Door { level: AtomicU16::new(u16::MAX), asked: AtomicU64::new(0) });
        cluster.node(at).storage.router().set_admission(door.clone());
        door
    };
    (0..cluster.nodes.len()).map(door).collect()
}

async fn add(cluster: &Cluster, at: usize, n: u64, priority: Option<u16>) -> Result<Said, AskError> {
    let asked = priority::with(priority, || priority::inherit(cluster.ask(at, n, Command::Add(1))));
    asked.await
}

/// A node that leads no shard of this person's, and the one that does.
fn ends(cluster: &Cluster, n: u64) -> (usize, usize) {
    let shard = cluster.node(0).storage.router().shard_of(machine::user(n).slot()).id();
    let leader = cluster.leader(shard.get()).unwrap();
    ((leader + 1) % cluster.nodes.len(), leader)
}

#[tokio::test(start_paused = true)]
async fn a_node_lets_in_what_others_ask_by_its_priority_and_they_stop_early() {
    let cluster = Cluster::of(3).await;
    cluster.settled().await;
    until(|| cluster.system().level == LEVEL).await;
    let doors = doors(&cluster);
    let (asker, leader) = ends(&cluster, 1);
    let door = &doors[leader];
    assert_eq!(add(&cluster, asker, 1, Some(300)).await, Ok(Said::Total(1)));
    assert_eq!(door.asked(), 1, "it came with its priority");
    assert_eq!(add(&cluster, asker, 1, None).await, Ok(Said::Total(2)));
    assert_eq!(door.asked(), 1, "what is the cluster's own is not asked about");

    door.lower(299);
    let refused = |by: u32| Err(AskError::Overloaded { retry_after_ms: by });
    assert_eq!(add(&cluster, asker, 1, Some(300)).await, refused(1));
    assert_eq!(door.asked(), 2, "refused there: nobody knew");
    for priority in [300, 511] {
        assert_eq!(add(&cluster, asker, 1, Some(priority)).await, refused(u32::from(priority) - 299));
    }
    assert_eq!(door.asked(), 2, "refused here: with its answer it said so");
    assert_eq!(add(&cluster, asker, 1, Some(299)).await, Ok(Said::Total(3)), "what is more important comes in");
    assert_eq!(add(&cluster, asker, 1, None).await, Ok(Said::Total(4)));
    assert_eq!(add(&cluster, leader, 1, Some(511)).await, Ok(Said::Total(5)), "its own gateway has let that in");

    // It says that it is well again whether it is asked for anything or not: nodes ask each other how they are.
    door.lower(u16::MAX);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = door.asked();
    assert_eq!(add(&cluster, asker, 1, Some(511)).await, Ok(Said::Total(6)));
    assert_eq!(door.asked(), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn a_build_that_knows_no_priorities_is_asked_without() {
    let mut cluster = Cluster::of(3).await;
    for at in 0..3 {
        cluster.crash(at).await;
        cluster.levels.insert(at, FIRST_LEVEL + 1);
        cluster.start(at).await;
    }
    cluster.settled().await;
    until(|| cluster.system().level == FIRST_LEVEL + 1).await;
    let doors = doors(&cluster);
    let (asker, leader) = ends(&cluster, 1);
    doors[leader].lower(0);
    for total in 1..4 {
        let said = add(&cluster, asker, 1, Some(1)).await;
        if total == 1 {
            assert_eq!(said, Ok(Said::Total(1)), "it was not told, and took it as what was always asked");
        } else {
            // What others let in was said before there were priorities: nothing new has to be understood for that.
            assert_eq!(said, Err(AskError::Overloaded { retry_after_ms: 1 }));
        }
    }
    assert_eq!(doors[leader].asked(), 0);
}
