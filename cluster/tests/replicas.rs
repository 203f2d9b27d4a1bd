//! Several replicas: what they promise when some are lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod cluster;
mod machine;

use std::time::Duration;

use cluster::{Cluster, SHARDS, until};
use machine::{Command, Said, user};
use magpie_protocol::{ShardId, TimelineId};
use tokio::time::Instant;

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

/// Three nodes, slow to bring others up to date; somebody of the first shard, who leads it, and a follower that missed
/// this many entries and is back.
async fn one_that_missed(entries: u64) -> (Cluster, u64, usize, usize) {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    cluster.catch_up = 5_000;
    for at in 0..3 {
        cluster.crash(at).await;
        cluster.start(at).await;
        cluster.settled().await;
    }
    let n = (0..10).find(|n| user(*n).slot().get().is_multiple_of(SHARDS)).unwrap();
    let leader = cluster.leader(0).unwrap();
    let away = (leader + 1) % 3;
    cluster.crash(away).await;
    for _ in 0..entries {
        cluster.insist(leader, n, Command::Add(1)).await;
    }
    cluster.start(away).await;
    (cluster, n, leader, away)
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_away_long_is_brought_up_slowly_and_follows_meanwhile() {
    let (cluster, n, leader, away) = one_that_missed(1_000).await;
    let term = cluster.node(leader).storage.shards()[0].leadership().term;
    let began = Instant::now();
    while cluster.total(away, n) < 700 {
        let before = cluster.total(away, n);
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Some sixty bytes an entry, of which 64 may go at once.
        let went = cluster.total(away, n).saturating_sub(before);
        assert!(went <= 128, "{went} entries in 200 ms");
        cluster.insist(leader, n, Command::Add(0)).await;
        assert!(began.elapsed() < Duration::from_secs(30), "it has {before}");
    }
    assert!(began.elapsed() > Duration::from_secs(2), "after {:?} it has all", began.elapsed());
    until(|| cluster.total(away, n) == 1_000).await;
    assert_eq!(cluster.node(leader).storage.shards()[0].leadership().term, term, "it stood for election");
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_which_nothing_is_acknowledged_is_brought_up_at_once() {
    let (mut cluster, n, leader, away) = one_that_missed(1_500).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cluster.total(away, n) < 1_000, "it is there already");
    cluster.crash((leader + 2) % 3).await;
    let began = Instant::now();
    cluster.insist(leader, n, Command::Add(1)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "a write waited {:?} for it", began.elapsed());
    until(|| cluster.total(away, n) == 1_501).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_and_is_not_reached_at_once_disturbs_no_leader() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    // One that leads nothing, so that nothing is moved to it either.
    let away = (0..3).find(|at| (0..SHARDS).all(|shard| cluster.leader(shard) != Some(*at))).unwrap();
    let terms = |cluster: &Cluster| -> Vec<u64> {
        cluster.node((away + 1) % 3).storage.shards().iter().map(|shard| shard.leadership().term).collect()
    };
    let before = terms(&cluster);
    cluster.crash(away).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.isolate(away, true);
    cluster.start(away).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    cluster.isolate(away, false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(terms(&cluster), before, "it stood for election before its leader had reached it");
    cluster.agree(0..10).await;
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
    let heard = cluster.node(watcher).heard.clone();
    let count = || heard.beats.lock().unwrap().get(&ShardId::new(shard)).copied();
    until(|| count().is_some()).await;
    let before = count().unwrap();
    for _ in 0..5 {
        cluster.insist(leader, n, Command::Add(1)).await;
    }
    until(|| heard.hints.lock().unwrap().len() == 5).await;
    assert!(cluster.node(leader).heard.hints.lock().unwrap().is_empty(), "a node heard what it does not watch");
    until(|| count() == Some(before + 5)).await;
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

#[tokio::test(start_paused = true)]
async fn a_follower_says_how_far_it_may_lag_and_never_less() {
    let cluster = Cluster::of(3).await;
    cluster.settled().await;
    // Leads are spread out first: who follows must go on following.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (n, slot) = (1, user(1).slot());
    let leader = cluster.leader(slot.get() % SHARDS).unwrap();
    let follower = (leader + 1) % 3;
    let router = cluster.node(follower).storage.router().clone();
    let reads = async |by: Duration| {
        let (view, lag) = router.query_behind(slot, user(n), by).await?;
        Ok::<_, magpie_cluster::AskError>((view.0.story().0, lag))
    };
    let (mut acknowledged, mut here) = (vec![(Instant::now(), 0)], 0);
    // All that was acknowledged so long before the question is in the answer.
    let check = |acknowledged: &[(Instant, u64)], asked: Instant, (seen, lag): (u64, Duration)| {
        let since = asked.checked_sub(lag).unwrap_or(acknowledged[0].0);
        let must = acknowledged.iter().rev().find(|(at, _)| *at < since).map_or(0, |(_, total)| *total);
        assert!(seen >= must, "{seen} is seen, and {must} were acknowledged {lag:?} before");
    };
    for total in 1..=300 {
        cluster.insist(leader, n, Command::Add(1)).await;
        acknowledged.push((Instant::now(), total));
        tokio::time::sleep(Duration::from_millis(total % 40)).await;
        let asked = Instant::now();
        here += u32::from(router.shard_of(slot).lag().is_some_and(|lag| lag <= Duration::from_secs(2)));
        check(&acknowledged, asked, reads(Duration::from_secs(2)).await.unwrap());
    }
    assert!(here > 290, "only {here} of 300 were answered by the follower");
    assert_eq!(cluster.leader(slot.get() % SHARDS), Some(leader), "somebody else leads now");
    // Who hears of nobody any more claims less and less, while the others go on.
    cluster.isolate(follower, true);
    for total in 301..=360 {
        cluster.insist(leader, n, Command::Add(1)).await;
        acknowledged.push((Instant::now(), total));
        check(&acknowledged, Instant::now(), reads(Duration::from_secs(60)).await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It cannot say that it is near, and asks the leader, who is not there either.
    assert!(reads(Duration::from_secs(2)).await.is_err());
    let (seen, lag) = reads(Duration::from_secs(60)).await.unwrap();
    assert!((300..360).contains(&seen) && lag > Duration::from_secs(2), "{seen}, {lag:?}");
    cluster.insist(leader, n, Command::Add(1)).await;
    cluster.isolate(follower, false);
    until(|| cluster.node(follower).storage.router().shard_of(slot).lag().is_some_and(|l| l < Duration::from_secs(2)))
        .await;
    assert_eq!(reads(Duration::from_secs(2)).await.unwrap().0, 361);
    cluster.agree(0..10).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_of_three_stops_although_nobody_answers_it() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    let last = cluster.leader(0).unwrap();
    for at in (0..3).filter(|at| *at != last) {
        cluster.crash(at).await;
    }
    // Something is open in every shard that it led.
    for n in 0..40 {
        let router = cluster.node(last).storage.router().clone();
        tokio::spawn(async move { router.ask(magpie_cluster::EntityId::user(user(n)), Command::Add(1)).await });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    cluster.stop(last).await;
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
}
