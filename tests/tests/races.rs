//! Many acts at once, and a network that changes: all devices end equal, nothing is lost or said twice.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use magpie_client::{Body, Entry, StorePlace, TimelineId, UserId};
use magpie_node::Options;
use magpie_tests::{InProcess, Person, Place, node::test_config, people::befriend, until};
use rand::{Rng, SeedableRng, rngs::StdRng};

const SOON: Duration = Duration::from_secs(30);

fn in_loops(dir: &Path, loops: usize) -> InProcess {
    let mut config = test_config(dir);
    config.node.loops = loops;
    InProcess::start(config, Options::default())
}

/// What a device shows: its entries as they read now, and the signs on them.
fn shown(person: &Person, group: magpie_client::ConversationId) -> (Vec<Entry>, BTreeSet<(u64, UserId, String)>) {
    let entries = person.client.history(group, 0, 100_000).unwrap();
    let signs = person.client.reactions(group, 0, u64::MAX >> 1).unwrap();
    (entries, signs.into_iter().map(|sign| (sign.number, sign.user, sign.emoji)).collect())
}

#[tokio::test]
async fn acts_that_race_end_equal_on_all_devices() {
    let dir = tempfile::tempdir().unwrap();
    let node = in_loops(dir.path(), 3);
    let place = Place::new(node.address, node.ca.clone());
    let mut people = Vec::new();
    for (i, name) in ["ann", "ben", "cat", "dan"].into_iter().enumerate() {
        let file = StorePlace::File(dir.path().join(format!("{name}.db")));
        people.push(Person::new_at(&place, name, if i % 2 == 0 { file } else { StorePlace::Memory }).await);
    }
    let members = people[1..].iter().map(|p| p.id).collect();
    let group = people[0].client.create_group("team", members).await.unwrap();
    for person in &people {
        person.has(group, 5, SOON).await;
    }
    people[0].act(people[0].client.set_admin(group, people[1].id, true)).await.unwrap();
    let acts = people.iter().enumerate().map(async |(i, person)| {
        let mut random = StdRng::seed_from_u64(i as u64);
        let client = &person.client;
        for step in 0..60 {
            let head = client.cursor(TimelineId::Conversation(group)).max(1);
            let number = random.random_range(head.saturating_sub(12).max(1)..=head);
            let sending = match random.random_range(0..12) {
                0..5 => client.say(group, format!("{} says {step}", person.name)),
                5 | 6 => client.recall(group, number),
                7 | 8 => client.edit(group, number, format!("{} edits at {step}", person.name)),
                9 | 10 => client.react(group, number, ["a", "b"][step % 2], random.random_bool(0.7)),
                // Only one of these two has the right: the others are refused.
                _ if i == 0 => client.remove(group, UserId::from_bits(77)),
                _ => client.rename(group, format!("renamed by {} at {step}", person.name)),
            };
            // Refused or not: what counts is that all see the same.
            _ = sending.unwrap().posted().await;
        }
    });
    futures_util::future::join_all(acts).await;
    // Somebody goes while all talk, and comes back.
    let (go, talk) =
        (people[0].client.remove(group, people[3].id).unwrap(), people[2].client.say(group, "go").unwrap());
    let (go, talk) = tokio::join!(go.posted(), talk.posted());
    go.unwrap();
    talk.unwrap();
    let last = people[0].say(group, "the end").await;
    let late = Person::another(&place, "ben").await;
    for person in people[..3].iter().chain([&late]) {
        person.has(group, last, SOON).await;
    }
    let first = shown(&people[0], group);
    for person in people[1..3].iter().chain([&late]) {
        let theirs = shown(person, group);
        assert_eq!(theirs.0, first.0, "{} reads something else", person.name);
        assert_eq!(theirs.1, first.1, "{} sees other signs", person.name);
    }
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    for entry in &first.0 {
        let kind = match entry.body {
            Body::Gone(_) => "gone",
            Body::Message(_) => "edited",
            Body::Recalled(_) => "recalled",
            Body::Text(_) => "text",
            Body::Reacted(_) => "reacted",
            _ => continue,
        };
        *kinds.entry(kind).or_default() += 1;
    }
    assert!(kinds.len() == 5 && kinds["gone"] == kinds["recalled"], "not everything happened: {kinds:?}");
    // Who was removed holds nothing of what came after.
    let theirs = people[3].client.history(group, 0, 100_000).unwrap();
    assert!(theirs.iter().all(|entry| entry.body != Body::Text("the end".into())));
    node.stop();
}

#[tokio::test]
async fn a_device_whose_address_changes_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    // Packets from another address come to another of its sockets.
    let node = in_loops(dir.path(), 4);
    let (home, phone) = (Place::new(node.address, node.ca.clone()), Place::new(node.address, node.ca.clone()));
    let (ann, ben) = (Person::new(&home, "ann").await, Person::new(&phone, "ben").await);
    let talk = befriend(&ann, &ben).await;
    let mut last = 0;
    for round in 0..20 {
        let sending = ben.client.say(talk, format!("ben {round}")).unwrap();
        phone.network.rebind().unwrap();
        let (theirs, ours) = tokio::join!(sending.posted(), ann.say(talk, "ann"));
        last = theirs.unwrap().number.max(ours);
    }
    ann.has(talk, last, SOON).await;
    ben.has(talk, last, SOON).await;
    ann.assert_in_order(talk);
    ben.assert_in_order(talk);
    let said: Vec<String> = ann.texts(talk).into_iter().filter(|text| text.starts_with("ben")).collect();
    assert_eq!(said, (0..20).map(|round| format!("ben {round}")).collect::<Vec<_>>(), "once each, in order");
    let lost = |person: &Person| person.seen().events.iter().filter(|event| event.contains("Offline")).count();
    until("the connection is the same", SOON, async || ben.client.status() == magpie_client::Status::Online).await;
    assert_eq!(lost(&ben), 0, "the session went on: {:?}", ben.seen().events);
    node.stop();
}
