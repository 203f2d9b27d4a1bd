//! The feed: who follows a shard gets every entry, whoever leads.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod cluster;
mod machine;

use std::collections::BTreeMap;

use cluster::{Cluster, SHARDS, until};
use machine::{Command, Counter, user};
use magpie_cluster::{Shard, shard::feed::Fed};
use magpie_protocol::TimelineId;

/// People of shard 0.
fn people() -> Vec<u64> {
    (0..40).filter(|n| user(*n).slot().get().is_multiple_of(SHARDS)).take(8).collect()
}

fn led(cluster: &Cluster) -> Option<Shard<Counter>> {
    Some(cluster.node(cluster.leader(0)?).storage.shards()[0].clone())
}

async fn leader(cluster: &Cluster) -> Shard<Counter> {
    until(|| cluster.leader(0).is_some()).await;
    led(cluster).unwrap()
}

/// Follows until the shard says that it does.
async fn follow(cluster: &Cluster, name: &str, max: u64) {
    loop {
        if leader(cluster).await.follow(name, max).await == Ok(true) {
            return;
        }
    }
}

/// Reads on from where the cursor is, and moves it, at most `items` further. Returns what it read.
async fn consume(cluster: &Cluster, name: &str, items: usize) -> Vec<(TimelineId, u64)> {
    loop {
        let shard = leader(cluster).await;
        let Ok(Some(cursor)) = shard.cursor(name) else { continue };
        let Ok(page) = shard.feed(cursor.after, items, 1 << 20) else { continue };
        if page.last == cursor.after {
            return Vec::new();
        }
        match shard.move_cursor(name, cursor.after, page.last, Vec::new()).await {
            Ok(true) => {}
            // It may have moved all the same: whoever follows acts first and moves then, so nothing is missed.
            Ok(false) | Err(_) => continue,
        }
        let entry = |item: &magpie_cluster::shard::feed::FeedItem| match &item.what {
            Fed::Entry(number, _) => (item.timeline, *number),
            Fed::Note(what) => panic!("note {what}"),
        };
        return page.items.iter().map(entry).collect();
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_gets_every_entry_in_order_whoever_leads() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    let who = people();
    for n in &who {
        cluster.insist(0, *n, Command::Add(1)).await;
    }
    follow(&cluster, "f", 1 << 20).await;
    let mut seen: BTreeMap<TimelineId, Vec<u64>> = BTreeMap::new();
    let note = |got: Vec<(TimelineId, u64)>, seen: &mut BTreeMap<TimelineId, Vec<u64>>| {
        got.into_iter().for_each(|(timeline, number)| seen.entry(timeline).or_default().push(number));
    };
    for round in 0..6 {
        for n in &who {
            cluster.insist((round + 1) % 3, *n, Command::Add(1)).await;
        }
        note(consume(&cluster, "f", 5).await, &mut seen);
        let gone = cluster.leader(0).unwrap();
        cluster.crash(gone).await;
        // The first to lead next does not begin anew.
        note(consume(&cluster, "f", 3).await, &mut seen);
        cluster.start(gone).await;
        cluster.agree(0..1).await;
    }
    loop {
        let more = consume(&cluster, "f", 7).await;
        if more.is_empty() {
            break;
        }
        note(more, &mut seen);
    }
    for n in &who {
        let timeline = TimelineId::Inbox(user(*n));
        let view = cluster.up().next().unwrap().storage.shards()[0].look(user(*n)).unwrap();
        // A move whose answer was lost with its leader was made all the same, and its items were not seen by this test:
        // they come in order, and none twice.
        let numbers = &seen[&timeline];
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{timeline}: {numbers:?}");
        assert_eq!(numbers, &view.1[1..], "{timeline}: what was there before is not fed, all that came then is");
    }
}

#[tokio::test(start_paused = true)]
async fn what_all_have_is_removed_and_who_is_too_far_behind_is_told_what_it_lost() {
    let cluster = Cluster::of(1).await;
    cluster.settled().await;
    let who = people();
    follow(&cluster, "fast", 1_000).await;
    follow(&cluster, "slow", 20).await;
    let shard = leader(&cluster).await;
    let before = shard.cursor("slow").unwrap().unwrap();
    for round in 0..10 {
        for n in &who {
            cluster.insist(0, *n, Command::Add(round)).await;
        }
    }
    let slow = shard.cursor("slow").unwrap().unwrap();
    assert_eq!((slow.waiting, slow.lost), (20, 60), "each command was a batch, so whole pieces are one item");
    assert_eq!(shard.cursor("fast").unwrap().unwrap().waiting, 80);
    let all = shard.feed(before.after, 1_000, usize::MAX).unwrap();
    assert_eq!((all.items.len(), all.rest), (80, 0));
    let some = shard.feed(before.after, 30, usize::MAX).unwrap();
    assert_eq!((some.items.len(), some.rest, &some.items[..]), (30, 50, &all.items[..30]));
    // Whoever has not all of it cannot move there twice, nor from elsewhere.
    assert_eq!(shard.move_cursor("fast", before.after + 1, all.last, vec![(7, b"k".to_vec())]).await, Ok(false));
    assert_eq!(shard.kept("fast", 7).unwrap(), b"");
    assert_eq!(shard.move_cursor("fast", before.after, all.last, vec![(7, b"k".to_vec())]).await, Ok(true));
    assert_eq!(shard.kept("fast", 7).unwrap(), b"k");
    assert_eq!(shard.move_cursor("nobody", 0, 0, Vec::new()).await, Ok(false));
    let left = shard.feed(0, 1_000, usize::MAX).unwrap();
    assert_eq!(left.items, all.items[60..], "only what the slow one lacks is still there");
    shard.unfollow("slow").await.unwrap();
    assert_eq!(shard.feed(0, 1_000, usize::MAX).unwrap().items, []);
    shard.unfollow("fast").await.unwrap();
    cluster.insist(0, who[0], Command::Add(1)).await;
    assert_eq!(shard.feed(0, 1_000, usize::MAX).unwrap().items, [], "nobody follows: nothing is fed");
    assert_eq!(shard.kept("fast", 7).unwrap(), b"", "what it kept is forgotten");
}

#[tokio::test(start_paused = true)]
async fn who_leads_anew_does_not_know_yet_what_is_watched() {
    let cluster = Cluster::of(3).await;
    cluster.settled().await;
    let n = people()[0];
    let timeline = TimelineId::Inbox(user(n));
    let router = cluster.node(0).storage.router().clone();
    let shard = router.shard_id_of(timeline);
    assert!(router.unwatched(shard, vec![timeline]).await.is_err(), "it has led for no time");
    router.watch(shard, vec![timeline], user(n)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let other = TimelineId::Inbox(user(people()[1]));
    assert_eq!(router.unwatched(shard, vec![timeline, other]).await, Ok(vec![other]));
    router.unwatch(shard, vec![timeline]);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(router.unwatched(shard, vec![timeline]).await, Ok(vec![timeline]));
}
