//! People talk.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, reason = "a test")]

use std::time::Duration;

use magpie_node::Options;
use magpie_tests::{InProcess, Person, Place, node::test_config, people::befriend};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn two_people_become_contacts_and_talk() {
    let dir = tempfile::tempdir().unwrap();
    let node = InProcess::start(test_config(dir.path()), Options::default());
    let place = Place::new(node.address, node.ca.clone());
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let conversation = befriend(&alice, &bob).await;
    let first = alice.say(conversation, "hi bob").await;
    let second = bob.say(conversation, "hi alice").await;
    assert_eq!((first, second), (4, 5));
    alice.has(conversation, 5, SOON).await;
    bob.has(conversation, 5, SOON).await;
    assert_eq!(alice.texts(conversation), ["hi bob", "hi alice"]);
    assert_eq!(bob.texts(conversation), ["hi bob", "hi alice"]);
    let tablet = Person::another(&place, "alice").await;
    tablet.has(conversation, 5, SOON).await;
    assert_eq!(tablet.texts(conversation), ["hi bob", "hi alice"]);
    node.stop();
}

#[tokio::test]
async fn a_group_talks_and_its_members_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let node = InProcess::start(test_config(dir.path()), Options::default());
    let place = Place::new(node.address, node.ca.clone());
    let mut people = Vec::new();
    for name in ["ann", "ben", "cat", "dan"] {
        people.push(Person::new(&place, name).await);
    }
    let group = people[0].client.create_group("team", vec![people[1].id, people[2].id]).await.unwrap();
    let hello = people[0].say(group, "hello").await;
    for person in &people[..3] {
        person.has(group, hello, SOON).await;
        assert_eq!(person.texts(group), ["hello"]);
    }
    people[1].client.invite(group, people[3].id).unwrap().posted().await.unwrap();
    let more = people[2].say(group, "welcome").await;
    people[3].has(group, more, SOON).await;
    assert_eq!(people[3].texts(group), ["welcome"], "who joins later reads from there on");
    people[0].client.remove(group, people[1].id).unwrap().posted().await.unwrap();
    let last = people[0].say(group, "ben is gone").await;
    people[3].has(group, last, SOON).await;
    assert!(people[1].client.say(group, "may I").unwrap().posted().await.is_err());
    assert!(!people[1].texts(group).contains(&"ben is gone".to_owned()));
    people.iter().for_each(|p| p.assert_in_order(group));
    node.stop();
}
