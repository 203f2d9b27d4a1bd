//! A hint may be lost, the last one before silence too: delivery and rights never depend on it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use magpie_client::{ConversationId, Entry, TimelineId};
use magpie_node::Options;
use magpie_protocol::Answer;
use magpie_tests::{
    InProcess, Person, Place,
    node::test_config,
    people::befriend,
    raw::{Key, Net, Raw},
    seed, stop, until,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// What is promised, and what a busy machine may add.
const PROMISED: Duration = Duration::from_millis(3_000 + 500);
const SOON: Duration = Duration::from_secs(20);

struct Deaf {
    _dir: tempfile::TempDir,
    node: InProcess,
    place: Place,
    lost: Arc<AtomicBool>,
}

impl Deaf {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lost = Arc::new(AtomicBool::new(false));
        let options = Options { drop_hints: lost.clone(), ..Options::default() };
        let node = InProcess::start(test_config(dir.path()), options);
        let place = Place::new(node.address, node.ca.clone());
        Self { _dir: dir, node, place, lost }
    }

    fn lose(&self, lost: bool) {
        self.lost.store(lost, Ordering::SeqCst);
    }

    async fn people(&self, names: &[&str]) -> Vec<Person> {
        let mut people = Vec::new();
        for name in names {
            people.push(Person::new(&self.place, name).await);
        }
        people
    }
}

/// Everybody has everything up to here; how long that took.
async fn delivered(people: &[Person], conversation: ConversationId, number: u64) -> Duration {
    let begun = Instant::now();
    for person in people {
        person.has(conversation, number, SOON).await;
    }
    begun.elapsed()
}

#[tokio::test]
async fn with_every_hint_lost_every_device_has_every_entry_within_three_seconds() {
    let deaf = Deaf::new();
    let people = deaf.people(&["ann", "ben", "cat", "dan"]).await;
    let group = people[0].client.create_group("g", people[1..].iter().map(|p| p.id).collect()).await.unwrap();
    let direct = befriend(&people[0], &people[1]).await;
    delivered(&people, group, 5).await;
    deaf.lose(true);
    let mut random = StdRng::seed_from_u64(seed("every hint lost"));
    let mut slowest = Duration::ZERO;
    for round in 0..5 {
        // Somewhere between two of the leader's beats.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1_000))).await;
        let number = people[round % 4].say(group, "do you hear me").await;
        let alone = people[round % 2].say(direct, "and you").await;
        slowest = slowest.max(delivered(&people, group, number).await);
        slowest = slowest.max(delivered(&people[..2], direct, alone).await);
    }
    println!("slowest delivery without hints: {slowest:?}");
    people.iter().for_each(|person| person.assert_in_order(group));
    assert!(slowest <= PROMISED, "{slowest:?}");
    stop(deaf.node).await;
}

#[tokio::test]
async fn a_conversation_gained_while_inbox_hints_are_lost_shows_up() {
    let deaf = Deaf::new();
    let people = deaf.people(&["ann", "ben"]).await;
    deaf.lose(true);
    let begun = Instant::now();
    let group = people[0].client.create_group("g", vec![people[1].id]).await.unwrap();
    for person in &people {
        until("the group is listed", SOON, async || person.client.conversations().iter().any(|c| c.id == group)).await;
    }
    delivered(&people, group, 3).await;
    println!("a new conversation without hints: {:?}", begun.elapsed());
    // Its list, then its entries: each may take a beat.
    assert!(begun.elapsed() <= 2 * PROMISED, "{:?}", begun.elapsed());
    let number = people[0].say(group, "welcome").await;
    let took = delivered(&people, group, number).await;
    assert!(took <= PROMISED, "{took:?}");
    deaf.lose(false);
    stop(deaf.node).await;
}

/// The numbers of the conversations' entries that the node gave this device, until it has been silent.
async fn given(raw: &mut Raw) -> Vec<(TimelineId, u64)> {
    let mut numbers = Vec::new();
    let mut pushed: Vec<Answer> = raw.unasked.drain(..).collect();
    while let Ok(Some(frame)) = tokio::time::timeout(Duration::from_millis(2_500), raw.next()).await {
        pushed.push(frame.body);
    }
    for answer in pushed {
        match answer {
            Answer::Pushed(pushed) => {
                numbers.push((pushed.timeline, Entry::from_bytes(&pushed.entry.0).unwrap().number));
            }
            // What it is told of heads must not go beyond its end either.
            Answer::Behind(behind) => numbers.extend(behind.heads.iter().map(|h| (h.timeline, h.head))),
            _ => {}
        }
    }
    numbers
}

#[tokio::test]
async fn a_removed_device_whose_removal_hint_is_lost_gets_nothing_of_what_follows() {
    let deaf = Deaf::new();
    let people = deaf.people(&["ann", "ben"]).await;
    let net = Net::to(&deaf.node);
    let (mut mallory, is) = Raw::sign_up(&net, "mallory", &Key::new(1)).await;
    let mut groups = Vec::new();
    for i in 0..12 {
        let group = people[0].client.create_group(&format!("g{i}"), vec![people[1].id, is.user]).await.unwrap();
        delivered(&people, group, 4).await;
        groups.push(group);
    }
    until("mallory follows", SOON, async || mallory.sync().await.len() == 13).await;
    let mut ends = Vec::new();
    for group in &groups {
        let before = people[0].say(*group, "hello all").await;
        deaf.lose(true);
        let removed = people[0].client.remove(*group, is.user).unwrap().posted().await.unwrap().number;
        deaf.lose(false);
        let mut last = 0;
        for text in ["now that mallory is gone", "let us talk"] {
            last = people[0].say(*group, text).await;
        }
        ends.push((before, removed, last));
    }
    for (group, (before, removed, last)) in groups.iter().zip(&ends) {
        delivered(&people, *group, *last).await;
        people[1].assert_in_order(*group);
        assert_eq!(people[1].texts(*group), ["hello all", "now that mallory is gone", "let us talk"]);
        let page = mallory.pull(TimelineId::Conversation(*group), 0).await.unwrap();
        assert_eq!(
            (page.head, page.entries.len() as u64),
            (*removed, *removed),
            "up to the removal, which was {before}"
        );
    }
    let heard = given(&mut mallory).await;
    println!("mallory heard of {} entries", heard.len());
    for (group, (before, removed, _)) in groups.iter().zip(&ends) {
        let numbers: Vec<u64> = heard.iter().filter(|h| h.0 == TimelineId::Conversation(*group)).map(|h| h.1).collect();
        assert!(numbers.contains(before), "mallory followed before: {numbers:?}");
        assert!(numbers.iter().all(|number| number <= removed), "{numbers:?} of at most {removed}");
    }
    stop(deaf.node).await;
}

#[tokio::test]
async fn hints_lost_at_random_leave_no_gap() {
    let deaf = Deaf::new();
    let people = deaf.people(&["ann", "ben", "cat"]).await;
    let group = people[0].client.create_group("g", people[1..].iter().map(|p| p.id).collect()).await.unwrap();
    delivered(&people, group, 4).await;
    let mut random = StdRng::seed_from_u64(seed("hints lost at random"));
    let mut last = 0;
    for i in 0..300 {
        if random.random_ratio(1, 10) {
            deaf.lose(random.random());
        }
        last = people[i % 3].say(group, &i.to_string()).await;
    }
    deaf.lose(random.random());
    let took = delivered(&people, group, last).await;
    println!("the last of 300 came after {took:?}");
    assert!(took <= PROMISED, "{took:?}");
    for person in &people {
        person.assert_in_order(group);
        assert_eq!(person.texts(group), (0..300).map(|i| i.to_string()).collect::<Vec<_>>());
    }
    stop(deaf.node).await;
}
