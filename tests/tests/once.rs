//! The same request again, over whatever connection, is the same act; another under its id is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use magpie_client::{Body, ConversationId, ErrorCode, Incarnation, TimelineId};
use magpie_cluster::EntityId;
use magpie_node::{Command, Options, Outcome, chat};
use magpie_protocol::{
    Request,
    frame::conversation::{Content, CreateGroup, Post},
    limits::{KEPT_ANSWERS, TEXT_LEN_MAX},
};
use magpie_tests::{
    InProcess,
    node::test_config,
    raw::{Key, Net, Raw, entries, posting},
    stop,
};

const I: Incarnation = Incarnation::from_bits(7 << 24);

fn node() -> (tempfile::TempDir, InProcess, Net) {
    let dir = tempfile::tempdir().unwrap();
    let node = InProcess::start(test_config(dir.path()), Options::default());
    let net = Net::to(&node);
    (dir, node, net)
}

fn say(conversation: ConversationId, number: u64, text: &str) -> Request {
    Request::Post(Post { conversation, incarnation: I, number, content: Content::Text(text.into()) })
}

async fn texts(raw: &mut Raw, conversation: ConversationId) -> Vec<String> {
    let page = raw.pull(TimelineId::Conversation(conversation), 0).await.unwrap();
    let text = |body| if let Body::Text(text) = body { Some(text) } else { None };
    entries(&page).into_iter().filter_map(|entry| text(entry.body)).collect()
}

/// Sends the same five times before it looks at any answer.
async fn five_times(raw: &mut Raw, request: &Request) -> Vec<Result<(u64, u64), magpie_client::WireError>> {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(raw.send(request.clone()).await);
    }
    let mut answers = Vec::new();
    for id in ids {
        answers.push(posting(raw.answer(id).await));
    }
    answers
}

#[tokio::test]
async fn ten_sends_over_two_sessions_of_a_device_are_one_entry_with_ten_equal_answers() {
    let (_dir, node, net) = node();
    let key = Key::new(1);
    let (mut first, me) = Raw::sign_up(&net, "alice", &key).await;
    let group = first.group(1, "g", vec![]).await;
    let request = say(group, 1, "once");
    let mut answers = five_times(&mut first, &request).await;
    let (mut second, _) = Raw::resume(&net, &me.token, &key).await.unwrap();
    answers.extend(five_times(&mut second, &request).await);
    assert!(answers[0].is_ok(), "{answers:?}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(texts(&mut second, group).await, ["once"]);
    stop(node).await;
}

#[tokio::test]
async fn ten_sends_from_two_devices_at_once_are_one_entry_with_ten_equal_answers() {
    let (_dir, node, net) = node();
    let (mut phone, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let (mut tablet, _) = Raw::sign_in(&net, "alice", &Key::new(2)).await;
    let group = phone.group(1, "g", vec![]).await;
    let request = say(group, 1, "once");
    let (mut answers, others) = tokio::join!(five_times(&mut phone, &request), five_times(&mut tablet, &request));
    answers.extend(others);
    assert!(answers[0].is_ok(), "{answers:?}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(texts(&mut tablet, group).await, ["once"]);
    stop(node).await;
}

#[tokio::test]
async fn an_answer_outlives_a_crash_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = InProcess::start(test_config(dir.path()), Options::default());
    let key = Key::new(1);
    let (mut raw, me) = Raw::sign_up(&Net::to(&node), "alice", &key).await;
    let group = raw.group(1, "g", vec![]).await;
    let before = raw.post(group, (I, 1), "once").await;
    let refused = raw.post(group, (I, 2), "").await;
    assert!(before.is_ok() && refused.is_err());
    node.crash();
    let node = InProcess::start(test_config(dir.path()), Options::default());
    let (mut raw, _) = Raw::resume(&Net::to(&node), &me.token, &key).await.unwrap();
    assert_eq!(raw.post(group, (I, 1), "once").await, before);
    assert_eq!(raw.post(group, (I, 2), "").await, refused);
    assert_eq!(texts(&mut raw, group).await, ["once"]);
    stop(node).await;
}

#[tokio::test]
async fn other_content_under_the_same_id_is_refused_and_the_field_named() {
    let (_dir, node, net) = node();
    let (mut raw, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let group = raw.group(1, "g", vec![]).await;
    let first = raw.post(group, (I, 1), "one").await;
    let error = raw.post(group, (I, 1), "two").await.unwrap_err();
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::IdReused, "content"));
    let renamed = Post { conversation: group, incarnation: I, number: 1, content: Content::Rename("one".into()) };
    let error = raw.refused(Request::Post(renamed)).await;
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::IdReused, "content"));
    assert_eq!(raw.post(group, (I, 1), "one").await, first, "the first answer stands");
    assert_eq!(texts(&mut raw, group).await, ["one"]);
    stop(node).await;
}

#[tokio::test]
async fn a_gap_names_the_number_that_is_expected_and_changes_nothing() {
    let (_dir, node, net) = node();
    let (mut raw, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let group = raw.group(1, "g", vec![]).await;
    for (number, expected) in [(2, 1), (u64::MAX, 1)] {
        let error = raw.post(group, (I, number), "early").await.unwrap_err();
        assert_eq!((error.code, error.number), (ErrorCode::OutOfOrder, expected));
    }
    raw.post(group, (I, 1), "one").await.unwrap();
    let error = raw.post(group, (I, 5), "early").await.unwrap_err();
    assert_eq!((error.code, error.number), (ErrorCode::OutOfOrder, 2));
    let error = raw.post(group, (I, 0), "never").await.unwrap_err();
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::Invalid, "number"));
    raw.post(group, (I, 2), "two").await.unwrap();
    assert_eq!(texts(&mut raw, group).await, ["one", "two"]);
    stop(node).await;
}

#[tokio::test]
async fn number_zero_of_an_unknown_incarnation_is_invalid_too() {
    let (_dir, node, net) = node();
    let (mut raw, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let group = raw.group(1, "g", vec![]).await;
    let error = raw.post(group, (I, 0), "never").await.unwrap_err();
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::Invalid, "number"));
    stop(node).await;
}

#[tokio::test]
async fn beyond_the_kept_answers_a_number_is_resolved_long_ago() {
    let (_dir, node, net) = node();
    let (mut raw, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let group = raw.group(1, "g", vec![]).await;
    let mut answers = Vec::new();
    let all = KEPT_ANSWERS as u64 + 3;
    for number in 1..=all {
        answers.push(raw.post(group, (I, number), &number.to_string()).await);
    }
    for number in 1..=all {
        let again = raw.post(group, (I, number), &number.to_string()).await;
        match number <= 3 {
            true => assert_eq!(again.unwrap_err().code, ErrorCode::AlreadyResolved, "number {number}"),
            false => assert_eq!(again, answers[number as usize - 1], "number {number}"),
        }
    }
    assert_eq!(texts(&mut raw, group).await.len() as u64, all);
    stop(node).await;
}

#[tokio::test]
async fn a_refusal_to_a_member_is_remembered_and_uses_its_number_up() {
    let (_dir, node, net) = node();
    let (mut raw, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let group = raw.group(1, "g", vec![]).await;
    let long = "x".repeat(TEXT_LEN_MAX + 1);
    let refused = raw.post(group, (I, 1), &long).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_str()), (ErrorCode::TooLarge, "text"));
    assert_eq!(refused.number, TEXT_LEN_MAX as u64, "the limit is named");
    assert_eq!(raw.post(group, (I, 1), &long).await.unwrap_err(), refused);
    let other = raw.post(group, (I, 1), "short").await.unwrap_err();
    assert_eq!((other.code, other.field.as_str()), (ErrorCode::IdReused, "content"));
    let fits = "x".repeat(TEXT_LEN_MAX);
    raw.post(group, (I, 2), &fits).await.unwrap();
    assert_eq!(texts(&mut raw, group).await, [fits]);
    stop(node).await;
}

#[tokio::test]
async fn a_strangers_post_leaves_no_trace() {
    let (_dir, node, net) = node();
    let (mut alice, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let (mut bob, bob_is) = Raw::sign_up(&net, "bob", &Key::new(2)).await;
    let group = alice.group(1, "g", vec![]).await;
    for _ in 0..2 {
        assert_eq!(bob.post(group, (I, 1), "let me in").await.unwrap_err().code, ErrorCode::NotFound);
    }
    alice.act(group, (I, 1), Content::Invite(bob_is.user)).await;
    bob.post(group, (I, 1), "thanks").await.expect("the number stayed free");
    assert_eq!(texts(&mut alice, group).await, ["thanks"]);
    stop(node).await;
}

#[tokio::test]
async fn what_an_older_session_still_sends_is_not_carried_out() {
    let (_dir, node, net) = node();
    let key = Key::new(1);
    let (mut old, was) = Raw::sign_up(&net, "alice", &key).await;
    let group = old.group(1, "g", vec![]).await;
    old.post(group, (I, 1), "old").await.unwrap();
    let (mut new, is) = Raw::resume(&net, &was.token, &key).await.unwrap();
    assert!(is.epoch > was.epoch && is.device == was.device);
    new.post(group, (I, 2), "new").await.unwrap();
    // Whatever the half-open connection still manages to send. It may be gone already.
    _ = old
        .write(&magpie_protocol::Frame::new(magpie_protocol::RequestId::new(99), say(group, 3, "late")).to_bytes())
        .await;
    // And what was on its way inside the node when the new session wrote.
    let post = |number, epoch| {
        let content = Content::Text("late".into());
        let post = chat::Command::Post(chat::command::Post {
            user: was.user,
            device: was.device,
            epoch,
            incarnation: I,
            number,
            content,
        });
        node.router.ask(EntityId::conversation(group), Command::Chat(post))
    };
    let error = post(3, was.epoch).await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::SessionReplaced);
    assert_eq!(texts(&mut new, group).await, ["old", "new"]);
    // What it wrote before keeps its answer, so that a retry learns it.
    assert_eq!(new.post(group, (I, 1), "old").await.map(|p| p.0), Ok(3));
    let replied = post(3, is.epoch).await.unwrap();
    assert!(matches!(replied, Ok(Outcome::Posted { .. })), "{replied:?}");
    stop(node).await;
}

#[tokio::test]
async fn the_same_nonce_is_the_same_group_and_other_content_under_it_is_refused() {
    let (_dir, node, net) = node();
    let (mut alice, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let (mut bob, bob_is) = Raw::sign_up(&net, "bob", &Key::new(2)).await;
    let group = alice.group(5, "g", vec![bob_is.user]).await;
    for members in [vec![bob_is.user], vec![bob_is.user, bob_is.user]] {
        assert_eq!(alice.group(5, "g", members).await, group);
    }
    for (title, members) in [("h", vec![bob_is.user]), ("g", vec![])] {
        let create = CreateGroup { nonce: 5, title: title.into(), members };
        let error = alice.refused(Request::CreateGroup(create)).await;
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::IdReused, "nonce"));
    }
    assert_ne!(bob.group(5, "g", vec![]).await, group, "a nonce is its maker's own");
    let page = alice.pull(TimelineId::Conversation(group), 0).await.unwrap();
    assert_eq!(page.head, 3, "created, and two joined: {:?}", entries(&page));
    stop(node).await;
}
