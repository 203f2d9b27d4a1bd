//! How far people have read: on all of their devices, in few writes, and nobody else's business unless the operator says so.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::time::Duration;

use futures_util::future::join_all;
use magpie_client::{Body, ConversationId, Error, ErrorCode, TimelineId};
use magpie_tests::{Company, Person, people::befriend, until};

const SOON: Duration = Duration::from_secs(20);

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    match result {
        Err(Error::Refused(error)) => error.code,
        other => panic!("not refused: {other:?}"),
    }
}

/// How far a device knows that its person has read.
fn read(person: &Person, conversation: ConversationId) -> u64 {
    person.client.conversations().into_iter().find(|c| c.id == conversation).map_or(0, |c| c.read)
}

/// How often this person's cursors were written.
fn writes(person: &Person) -> usize {
    let inbox = person.client.timeline_history(TimelineId::Inbox(person.id), 0, u32::MAX).unwrap();
    inbox.iter().filter(|entry| matches!(entry.body, Body::ReadTo(_))).count()
}

#[tokio::test]
async fn cursors_that_move_fast_are_written_together_and_none_is_lost() {
    let company = Company::new(&["ann", "ben", "cat"], |config| config.limits.read_every_ms = 1_000).await;
    let [ann, ben, cat] = &company.people[..] else { panic!() };
    let (first, second) = (befriend(ann, ben).await, befriend(ann, cat).await);
    for n in 0..30 {
        ben.say(first, &format!("{n}")).await;
        cat.say(second, &format!("{n}")).await;
    }
    until("she has all", SOON, async || {
        ann.client.cursor(TimelineId::Conversation(first)) >= 31
            && ann.client.cursor(TimelineId::Conversation(second)) >= 31
    })
    .await;
    let tablet = Person::another(&company.place, "ann").await;
    let before = writes(ann);
    // In any order: they are merged by maximum.
    let reads = (0..15).flat_map(|n| [(first, 2 + 2 * n), (second, 31 - 2 * n)]);
    let done = join_all(reads.map(|(talk, number)| ann.client.mark_read(talk, number))).await;
    done.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    until("both devices know", SOON, async || {
        [ann, &tablet].iter().all(|device| read(device, first) == 30 && read(device, second) == 31)
    })
    .await;
    let written = writes(&tablet) - before.min(writes(&tablet));
    assert!((2..=4).contains(&written), "thirty reads were written {written} times");
    // What is not there cannot be read, and nor can what one is not in.
    ann.client.mark_read(first, 1_000).await.unwrap();
    let talk = befriend(ben, cat).await;
    assert_eq!(code(ann.client.mark_read(talk, 1).await), ErrorCode::NotFound);
    let head = ann.client.cursor(TimelineId::Conversation(first));
    until("it stands at the head", SOON, async || read(&tablet, first) == head).await;
    company.node.stop();
}

#[tokio::test]
async fn nobody_is_told_what_others_have_read_unless_the_operator_says_so() {
    let company = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&company.people[0], &company.people[1]);
    let talk = befriend(ann, ben).await;
    assert_eq!(code(ann.client.read_by(talk).await), ErrorCode::NotAllowed);
    company.node.stop();
}

#[tokio::test]
async fn where_it_is_allowed_members_see_how_far_the_others_have_read() {
    let company = Company::new(&["ann", "ben", "cat", "eve"], |config| config.policy.show_read = true).await;
    let [ann, ben, cat, eve] = &company.people[..] else { panic!() };
    let group = ann.client.create_group("team", vec![ben.id, cat.id]).await.unwrap();
    let number = ann.say(group, "who has read this?").await;
    ben.has(group, number, SOON).await;
    ben.client.mark_read(group, number).await.unwrap();
    let mut read = ann.client.read_by(group).await.unwrap();
    read.sort_by_key(|read| read.user != ben.id);
    assert_eq!((read[0].user, read[0].number), (ben.id, number));
    assert_eq!(read[1].user, cat.id);
    assert!(read.len() == 2 && read[1].number < number, "she is not among them, and cat has not read it");
    assert_eq!(code(eve.client.read_by(group).await), ErrorCode::NotFound);
    ann.act(ann.client.leave(group)).await.unwrap();
    assert_eq!(code(ann.client.read_by(group).await), ErrorCode::NotFound, "who has left is told no more");
    company.node.stop();
}
