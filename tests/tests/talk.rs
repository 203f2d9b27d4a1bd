//! People talk.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, reason = "a test")]

use std::time::Duration;

use magpie_client::{ConversationId, ErrorCode, Incarnation, UserId};
use magpie_node::Options;
use magpie_tests::{
    InProcess, Person, Place,
    node::test_config,
    people::befriend,
    raw::{Key, Net, Raw},
};

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

#[tokio::test]
async fn two_people_and_a_group_may_go_on_as_fast_as_one_conversation_may_each() {
    const BURST: u64 = 3;
    let dir = tempfile::tempdir().unwrap();
    let mut config = test_config(dir.path());
    (config.limits.conversation_rate, config.limits.conversation_burst) = (0.01, BURST as f64);
    let node = InProcess::start(config, Options::default());
    let (mut ann, me) = Raw::sign_up(&Net::to(&node), "ann", &Key::new(1)).await;
    let group = ann.group(1, "fast", vec![]).await;
    // That nobody made the other one is found out later.
    let pair = ConversationId::direct(me.user, UserId::from_bits(7));
    // That the group was made counts.
    for (conversation, acts, otherwise) in [(group, BURST - 1, None), (pair, BURST, Some(ErrorCode::NotFound))] {
        for number in 1..=acts {
            let posted = ann.post(conversation, (Incarnation::from_bits(7 << 24), number), "fast").await;
            assert_eq!(posted.err().map(|refused| refused.code), otherwise, "{conversation}, {number}");
        }
        let refused = ann.post(conversation, (Incarnation::from_bits(7 << 24), acts + 1), "faster").await.unwrap_err();
        assert!(refused.code == ErrorCode::Overloaded && refused.retry_after_ms > 1_000, "{refused:?}");
    }
    node.stop();
}
