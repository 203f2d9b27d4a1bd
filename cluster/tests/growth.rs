//! A cluster that grows and shrinks, and nodes that must not come in.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod cluster;
mod machine;

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use cluster::{Cluster, SHARDS, id, until, until_async};
use machine::{Command, Said, user};
use magpie_cluster::{
    AskError, Ending, EntityId,
    disk::memory::MemoryDisk,
    system::{Change, Standing},
};
use magpie_protocol::ShardId;
use tokio::time::Instant;

fn leaders(cluster: &Cluster) -> BTreeMap<u16, usize> {
    (0..SHARDS).filter_map(|shard| Some((shard, cluster.leader(shard)?))).collect()
}

async fn stand(cluster: &Cluster, at: usize, standing: Standing) {
    let router = cluster.up().next().unwrap().storage.router();
    router.change(Change::Stand { node: id(at), standing }).await.unwrap().unwrap();
}

/// Whoever lives in shard 0, and whose reads need not be fresh.
fn somebody() -> u64 {
    (0..8).find(|n| user(*n).slot().get().is_multiple_of(SHARDS)).unwrap()
}

/// Gives everybody one more; who has how much is known from then on.
async fn add(cluster: &Cluster, at: usize, totals: &mut u64) {
    *totals += 1;
    for n in 0..10 {
        assert_eq!(cluster.insist(at, n, Command::Add(1)).await, Said::Total(*totals));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_comes_and_another_goes_while_people_chat() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    let mut total = 0;
    add(&cluster, 0, &mut total).await;
    let fourth = cluster.grow().await;
    for (leaving, coming) in [(0, fourth), (1, 0), (2, 1)] {
        if coming != fourth {
            stand(&cluster, coming, Standing::Active).await;
        }
        stand(&cluster, leaving, Standing::Draining).await;
        let deadline = Instant::now() + Duration::from_secs(60);
        while cluster.system().held_by(id(leaving)) > 0 || cluster.system().held_by(id(coming)) == 0 {
            assert!(Instant::now() < deadline, "{:?}", cluster.system());
            add(&cluster, coming, &mut total).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        until(|| !cluster.node(leaving).storage.shards().iter().any(|shard| shard.is_hosted())).await;
        add(&cluster, leaving, &mut total).await;
        // What it let go of stays gone, and what it was given is there.
        for at in [coming] {
            cluster.crash(at).await;
            cluster.start(at).await;
            add(&cluster, at, &mut total).await;
        }
    }
    stand(&cluster, 2, Standing::Removed).await;
    until(|| cluster.node(2).fatal.lock().unwrap().contains("was removed")).await;
}

#[tokio::test(start_paused = true)]
async fn leaders_are_spread_and_moved_without_a_gap() {
    leaders_move(3).await;
}

#[tokio::test(start_paused = true)]
async fn leaders_of_five_replicas_are_moved_without_a_gap() {
    leaders_move(5).await;
}

async fn leaders_move(nodes: usize) {
    let cluster = Cluster::of(nodes).await;
    cluster.settled().await;
    until(|| leaders(&cluster).len() == 2 && leaders(&cluster)[&0] != leaders(&cluster)[&1]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let router = cluster.node(0).storage.router();
    for _ in 0..10 {
        let old = cluster.leader(0).unwrap();
        let new = (old + 1) % nodes;
        let began = Instant::now();
        router.hand_over(ShardId::new(0), id(new)).await.unwrap();
        let n = somebody();
        cluster.insist(old, n, Command::Add(1)).await;
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        assert_eq!(cluster.leader(0), Some(new));
        // It grants no vote for a while after it was elected itself.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_folder_does_not_come_back_under_its_id() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    let mut total = 0;
    add(&cluster, 0, &mut total).await;
    for lost in 0..3 {
        cluster.crash(lost).await;
        let disk = std::mem::take(&mut cluster.disks[lost]);
        cluster.folders.insert(lost, 77);
        cluster.start(lost).await;
        until(|| cluster.node(lost).fatal.lock().unwrap().contains("another data folder")).await;
        assert!(!cluster.node(lost).storage.shards().iter().any(|shard| shard.is_hosted()), "it would vote");
        add(&cluster, (lost + 1) % 3, &mut total).await;
        cluster.crash(lost).await;
        cluster.disks[lost] = disk;
        cluster.folders.remove(&lost);
        cluster.start(lost).await;
        add(&cluster, lost, &mut total).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_not_founded_twice_nor_by_a_minority() {
    let mut cluster = Cluster::of(3).await;
    // Alone, the first of three waits.
    let mut lonely = Cluster::of(1).await;
    lonely.crash(0).await;
    (lonely.first, lonely.disks[0]) = (3, MemoryDisk::default());
    lonely.start(0).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(lonely.node(0).storage.router().system().now().is_none());

    cluster.settled().await;
    for at in 0..3 {
        cluster.crash(at).await;
    }
    for at in [2, 0, 1] {
        cluster.start(at).await;
    }
    cluster.settled().await;
    cluster.agree(0..10).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_hears_of_no_majority_serves_no_reads() {
    let cluster = Cluster::of(3).await;
    cluster.settled().await;
    let n = somebody();
    let old = cluster.leader(0).unwrap();
    cluster.insist(old, n, Command::Add(1)).await;
    let router = cluster.node(old).storage.router().clone();
    let slot = user(n).slot();
    assert_eq!(router.query_here(slot, user(n)).unwrap().0.story().0, 1);
    cluster.isolate(old, true);
    tokio::time::sleep(Duration::from_millis(450)).await;
    let read = router.query_here(slot, user(n));
    assert!(matches!(read, Err(AskError::NotLeader { .. })), "a read of who knows how old");
    cluster.isolate(old, false);
    cluster.agree(0..10).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_clock_is_off_leads_nothing_until_it_is_set() {
    let cluster = Cluster::of(3).await;
    cluster.settled().await;
    let mut total = 0;
    for off_ms in [3_000, -3_000] {
        let at = cluster.leader(0).unwrap();
        let n = somebody();
        cluster.clocks[at].store(off_ms, Ordering::Relaxed);
        // It has not compared itself with the others yet, and decides nothing at a time that nobody else has.
        let asked = cluster.node(at).storage.shards()[0].clone();
        let (tx, rx) = tokio::sync::oneshot::channel();
        asked.submit(EntityId::user(user(n)), &Command::Add(0), Box::new(|said| drop(tx.send(said))));
        assert!(rx.await.unwrap().is_err());
        until(|| leaders(&cluster).len() == usize::from(SHARDS) && leaders(&cluster).values().all(|l| *l != at)).await;
        add(&cluster, at, &mut total).await;
        cluster.clocks[at].store(0, Ordering::Relaxed);
        until(|| leaders(&cluster).len() == usize::from(SHARDS)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    cluster.agree(0..10).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_alone_grows_to_three() {
    let mut cluster = Cluster::of(1).await;
    cluster.settled().await;
    let mut total = 0;
    add(&cluster, 0, &mut total).await;
    for _ in 0..2 {
        cluster.grow().await;
    }
    let router = cluster.node(0).storage.router().clone();
    until(|| cluster.system().active().count() == 3).await;
    router.change(Change::Want { replicas: 3 }).await.unwrap().unwrap();
    until(|| cluster.system().shards.iter().all(|place| place.replicas.len() == 3)).await;
    add(&cluster, 1, &mut total).await;
    // Any one of the three may go now, the first among them.
    cluster.crash(0).await;
    add(&cluster, 2, &mut total).await;
    cluster.start(0).await;
    add(&cluster, 0, &mut total).await;
    cluster.agree(0..10).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_differs_from_the_others_stops_and_says_so() {
    let cluster = Cluster::of(3).await;
    cluster.settled().await;
    let n = somebody();
    for _ in 0..100 {
        cluster.insist(0, n, Command::Add(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(170)).await;
    let sums = || cluster.up().filter_map(|node| node.storage.shards()[0].audited()).collect::<Vec<_>>();
    assert!(sums().len() == 3 && sums().iter().all(|sum| *sum == sums()[0]), "{:?}", sums());

    let bad = (cluster.leader(0).unwrap() + 1) % 3;
    cluster.node(bad).wrong.store(true, Ordering::Relaxed);
    cluster.insist(0, n, Command::Add(1)).await;
    until(|| cluster.node(bad).fatal.lock().unwrap().contains("replicas differ")).await;
    assert!((0..3).filter(|at| *at != bad).all(|at| cluster.node(at).fatal.lock().unwrap().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_fresh_read_is_not_answered_by_a_leader_that_was_cut_off_a_moment_ago() {
    let cluster = Cluster::of(3).await;
    cluster.settled().await;
    let (lax, strict) =
        (somebody(), [8, 9].into_iter().find(|n| user(*n).slot().get().is_multiple_of(SHARDS)).unwrap());
    let old = cluster.leader(0).unwrap();
    let router = cluster.node(old).storage.router().clone();
    cluster.insist(old, strict, Command::Add(5)).await;
    assert_eq!(router.query(user(strict).slot(), user(strict)).await.unwrap().0.story().0, 5);
    cluster.isolate(old, true);
    // As long as it serves by what it last heard, others may have been told otherwise.
    assert!(router.query(user(lax).slot(), user(lax)).await.is_ok());
    let read = tokio::time::timeout(Duration::from_secs(2), router.query(user(strict).slot(), user(strict))).await;
    assert!(!matches!(read, Ok(Ok(_))), "read without a majority");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_removed_while_it_was_down_is_told_when_it_comes_back() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    let fourth = cluster.grow().await;
    until(|| cluster.system().held_by(id(fourth)) > 0 && cluster.system().active().count() == 4).await;
    stand(&cluster, 2, Standing::Draining).await;
    until(|| cluster.system().held_by(id(2)) == 0).await;
    // It has let go of what it held, and goes down before it hears that it is gone.
    until(|| !cluster.node(2).storage.shards().iter().any(|shard| shard.is_hosted())).await;
    cluster.crash(2).await;
    stand(&cluster, 2, Standing::Removed).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    cluster.start(2).await;
    until(|| cluster.node(2).fatal.lock().unwrap().contains("was removed")).await;
    assert_eq!(*cluster.node(2).ending.lock().unwrap(), Some(Ending::TurnedAway));
    let mut total = 0;
    add(&cluster, 0, &mut total).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_deletes_no_replica_by_a_record_that_is_no_longer_in_force() {
    let cluster = Cluster::of(3).await;
    cluster.settled().await;
    let mut total = 0;
    add(&cluster, 0, &mut total).await;
    cluster.agree(0..10).await;
    let (late, shard) = ((cluster.leader(1).unwrap() + 1) % 3, ShardId::new(1));
    let there = (0..10).find(|n| user(*n).slot().get() % SHARDS == 1).unwrap();
    cluster.isolate(late, true);
    // A record took it out of the shard, the next put it back; it hears of the first alone.
    let mut old = (*cluster.system()).clone();
    old.version += 1;
    old.shards[1].replicas.remove(&id(late));
    assert!(!old.holds(id(late), shard));
    let router = cluster.node((late + 1) % 3).storage.router();
    for node in [7, 8] {
        let expect = Change::Expect { node: id(node), address: cluster::address(node), token: [0; 32] };
        until_async(async || router.change(expect.clone()).await == Ok(Ok(()))).await;
    }
    cluster.node(late).storage.router().system().offer(old);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(cluster.total(late, there), total, "it deleted what the others count on");
    cluster.isolate(late, false);
    until(|| cluster.node(late).storage.router().system().version() == cluster.system().version).await;
    // What comes after it finds its way, too.
    cluster.insist((late + 1) % 3, there, Command::Add(1)).await;
    cluster.agree(0..10).await;
    assert!(cluster.total(late, there) > total);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_nobody_leads_holds_up_no_stream_to_another() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    for _ in 0..2 {
        cluster.grow().await;
    }
    until(|| cluster.system().active().count() == 5).await;
    let router = cluster.node(0).storage.router().clone();
    for (shard, places) in [(1, [2, 3, 4]), (0, [0, 1, 2])] {
        let to: std::collections::BTreeSet<_> = places.into_iter().map(id).collect();
        until_async(async || {
            let system = cluster.system();
            let place = system.place(ShardId::new(shard)).unwrap();
            if place.replicas == to && place.becoming.is_none() {
                return true;
            }
            _ = router.change(Change::Move { shard: ShardId::new(shard), to: to.clone() }).await;
            false
        })
        .await;
    }
    let of = |shard: u16| (0..20).filter(move |n| user(*n).slot().get() % SHARDS == shard).collect::<Vec<u64>>();
    let (here, there) = (of(0), of(1));
    cluster.settled().await;
    cluster.crash(3).await;
    cluster.crash(4).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Something waits for the shard that is gone ...
    cluster.insist(0, here[0], Command::Tell { to: user(there[0]), note: 1 }).await;
    for note in 0..5 {
        let began = Instant::now();
        cluster.insist(0, here[0], Command::Tell { to: user(here[1]), note }).await;
        let leader = || cluster.leader(0).map(|at| cluster.node(at).storage.router().clone());
        let notes =
            || leader().and_then(|router| Some(router.shard_of(user(here[1]).slot()).look(user(here[1])).ok()?.0));
        until(|| notes().is_some_and(|sum| sum.story().1.len() > note as usize)).await;
        // ... and what goes elsewhere does not.
        assert!(began.elapsed() < Duration::from_millis(500), "note {note} took {:?}", began.elapsed());
    }
    cluster.start(3).await;
    cluster.start(4).await;
    cluster.settled().await;
    let told = || {
        cluster.up().any(|node| {
            let shard = node.storage.router().shard_of(user(there[0]).slot());
            shard.look(user(there[0])).is_ok_and(|view| view.0.story().1.len() == 1)
        })
    };
    until(told).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_does_not_carry_a_shard_with_it() {
    let cluster = Cluster::of(3).await;
    cluster.settled().await;
    let n = somebody();
    let began = Instant::now();
    for jump in 0..20 {
        let at = cluster.leader(0).unwrap();
        // At different times between two looks at the others' clocks.
        tokio::time::sleep(Duration::from_millis(137 * (jump % 8))).await;
        cluster.clocks[at].store(600_000, Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            _ = cluster.ask(at, n, Command::Add(1)).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cluster.clocks[at].store(0, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.settled().await;
        cluster.insist(at, n, Command::Add(1)).await;
        let leader = cluster.leader(0).unwrap();
        let newest = cluster.node(leader).storage.shards()[0].look(user(n)).unwrap().2;
        let now = 1_000_000 + began.elapsed().as_millis() as u64;
        assert!(newest <= now + 5_000, "jump {jump}: an entry of {} s ahead", newest.saturating_sub(now) / 1000);
    }
}
