//! Who is not in a conversation reads and writes nothing, and does not learn that it exists.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use magpie_client::{Body, ConversationId, ErrorCode, Incarnation, TimelineId, UserId};
use magpie_node::{Options, account::state::TRIES_MAX};
use magpie_protocol::{
    Answer, Request, WireError,
    frame::{
        account::{SignOut, SignUp},
        contact::{AcceptContact, Contacts, Find, RequestContact},
        conversation::{Content, Leave, Members, Post},
        search::SearchMessages,
        sync::{MarkRead, Pull},
    },
};
use magpie_tests::{
    InProcess,
    node::test_config,
    people::PASSWORD,
    raw::{Key, Net, Raw, entries},
    stop, until,
};

const I: Incarnation = Incarnation::from_bits(7 << 24);

fn node() -> (tempfile::TempDir, InProcess, Net) {
    let dir = tempfile::tempdir().unwrap();
    let node = InProcess::start(test_config(dir.path()), Options::default());
    let net = Net::to(&node);
    (dir, node, net)
}

/// Everything that can be asked of a conversation.
fn questions(conversation: ConversationId, somebody: UserId) -> Vec<Request> {
    let post = |number, content| Request::Post(Post { conversation, incarnation: I, number, content });
    let pull = |after| Request::Pull(Pull { timeline: TimelineId::Conversation(conversation), after, limit: 10 });
    vec![
        pull(0),
        pull(3),
        pull(u64::MAX),
        Request::Members(Members { conversation }),
        Request::MarkRead(MarkRead { conversation, number: 1 }),
        Request::SearchMessages(SearchMessages {
            words: "eyes".into(),
            conversation: Some(conversation),
            before: None,
        }),
        post(1, Content::Text("hello".into())),
        post(2, Content::Text("a gap".into())),
        post(0, Content::Text("nothing".into())),
        post(1, Content::Text(String::new())),
        post(1, Content::Text("x".repeat(20_000))),
        post(1, Content::Invite(somebody)),
        post(1, Content::Remove(somebody)),
        post(1, Content::Rename("mine".into())),
        post(1, Content::Rename("x".repeat(1_000))),
        post(1, Content::Leave(Leave)),
    ]
}

/// Asks the same of two conversations; the answers must not differ in a single byte.
async fn cannot_tell(raw: &mut Raw, there: ConversationId, not_there: ConversationId, somebody: UserId) {
    for (a, b) in questions(there, somebody).into_iter().zip(questions(not_there, somebody)) {
        let asked = format!("{a:?}");
        let (real, none) = (raw.ask_for_bytes(500, a).await, raw.ask_for_bytes(500, b).await);
        let told = magpie_protocol::Frame::<Answer>::from_bytes(&real).unwrap().body;
        assert_eq!(real, none, "{asked} tells: {told:?}");
        assert!(matches!(&told, Answer::Refused(error) if error.code == ErrorCode::NotFound), "{asked}: {told:?}");
    }
}

#[tokio::test]
async fn a_stranger_reads_and_writes_nothing_and_cannot_tell_what_exists() {
    let (_dir, node, net) = node();
    let (mut alice, alice_is) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let (mut eve, eve_is) = Raw::sign_up(&net, "eve", &Key::new(2)).await;
    let group = alice.group(1, "secret", vec![]).await;
    alice.post(group, (I, 1), "for my eyes").await.unwrap();
    let none = ConversationId::group(alice_is.user, 2);
    cannot_tell(&mut eve, group, none, alice_is.user).await;
    let heads = eve.sync().await;
    assert_eq!(heads.len(), 1, "an inbox and nothing else: {heads:?}");
    let page = alice.pull(TimelineId::Conversation(group), 0).await.unwrap();
    assert_eq!(page.head, 3, "nothing was written: {:?}", entries(&page));
    // Somebody else's inbox is as one of nobody.
    let nobody = UserId::in_slot(alice_is.user.slot(), 12_345);
    let pull = |user| Request::Pull(Pull { timeline: TimelineId::Inbox(user), after: 0, limit: 10 });
    let theirs = eve.ask_for_bytes(500, pull(alice_is.user)).await;
    assert_eq!(theirs, eve.ask_for_bytes(500, pull(nobody)).await);
    assert!(matches!(eve.ask(pull(eve_is.user)).await, Answer::Page(_)));
    stop(node).await;
}

#[tokio::test]
async fn the_direct_conversation_of_two_others_is_as_none() {
    let (_dir, node, net) = node();
    let (mut alice, alice_is) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let (mut bob, bob_is) = Raw::sign_up(&net, "bob", &Key::new(2)).await;
    let (mut eve, eve_is) = Raw::sign_up(&net, "eve", &Key::new(3)).await;
    let ask = RequestContact { user: bob_is.user, greeting: "hi".into() };
    assert!(matches!(alice.ask(Request::RequestContact(ask)).await, Answer::Done(_)));
    let accept = || Request::AcceptContact(AcceptContact { user: alice_is.user });
    until("bob accepts", std::time::Duration::from_secs(10), async || {
        matches!(bob.ask(accept()).await, Answer::Done(_))
    })
    .await;
    // Its id can be computed by anybody who knows both.
    let direct = ConversationId::direct(alice_is.user, bob_is.user);
    until("they can talk", std::time::Duration::from_secs(10), async || {
        alice.pull(TimelineId::Conversation(direct), 0).await.is_ok()
    })
    .await;
    let none = ConversationId::direct(alice_is.user, eve_is.user);
    cannot_tell(&mut eve, direct, none, alice_is.user).await;
    // Nobody joins two people's conversation, and nobody leaves it.
    for (number, content) in [Content::Invite(eve_is.user), Content::Leave(Leave), Content::Remove(bob_is.user)]
        .into_iter()
        .enumerate()
        .map(|(i, content)| (i as u64 + 1, content))
    {
        let post = Post { conversation: direct, incarnation: I, number, content };
        assert_eq!(alice.refused(Request::Post(post)).await.code, ErrorCode::NotAllowed);
    }
    stop(node).await;
}

#[tokio::test]
async fn a_removed_member_reads_up_to_the_removal_and_writes_nothing() {
    let (_dir, node, net) = node();
    let (mut alice, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let (mut bob, bob_is) = Raw::sign_up(&net, "bob", &Key::new(2)).await;
    let group = alice.group(1, "g", vec![bob_is.user]).await;
    let timeline = TimelineId::Conversation(group);
    bob.post(group, (I, 1), "here").await.unwrap();
    let removed = alice.act(group, (I, 1), Content::Remove(bob_is.user)).await;
    alice.post(group, (I, 2), "bob is gone").await.unwrap();
    let page = bob.pull(timeline, 0).await.unwrap();
    let bodies: Vec<Body> = entries(&page).into_iter().map(|entry| entry.body).collect();
    assert_eq!((page.head, bodies.len() as u64), (removed, removed));
    assert!(matches!(bodies.last(), Some(Body::Removed(_))));
    for after in [removed - 1, removed, removed + 1, u64::MAX] {
        let page = bob.pull(timeline, after).await.unwrap();
        assert_eq!(page.head, removed, "after {after}");
        assert!(entries(&page).iter().all(|entry| entry.number <= removed), "after {after}");
    }
    let none = ConversationId::group(bob_is.user, 99);
    let kept = bob.post(group, (I, 1), "here").await;
    assert!(kept.is_ok(), "the answer to what he said then: {kept:?}");
    for (number, text) in [(2, "may I"), (5, "a gap")] {
        let (there, not) = (bob.post(group, (I, number), text).await, bob.post(none, (I, number), text).await);
        assert_eq!(there, not);
    }
    let members = |conversation| Request::Members(Members { conversation });
    assert_eq!(bob.ask_for_bytes(500, members(group)).await, bob.ask_for_bytes(500, members(none)).await);
    until("his list says so", std::time::Duration::from_secs(10), async || {
        let heads = bob.sync().await;
        heads.iter().all(|head| head.timeline != timeline || head.head == removed)
    })
    .await;
    assert_eq!(alice.pull(timeline, 0).await.unwrap().head, removed + 1);
    stop(node).await;
}

#[tokio::test]
async fn who_comes_back_does_not_read_what_was_said_in_between() {
    let (_dir, node, net) = node();
    let (mut alice, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let (mut bob, bob_is) = Raw::sign_up(&net, "bob", &Key::new(2)).await;
    let group = alice.group(1, "g", vec![bob_is.user]).await;
    alice.act(group, (I, 1), Content::Remove(bob_is.user)).await;
    let between = alice.post(group, (I, 2), "between us").await.unwrap().0;
    let back = alice.act(group, (I, 3), Content::Invite(bob_is.user)).await;
    let page = bob.pull(TimelineId::Conversation(group), 0).await.unwrap();
    let numbers: Vec<u64> = entries(&page).iter().map(|entry| entry.number).collect();
    assert!(!numbers.contains(&between), "{numbers:?}");
    assert_eq!((page.first, page.head), (back, back));
    stop(node).await;
}

#[tokio::test]
async fn only_the_owner_removes_and_a_device_of_another_is_not_touched() {
    let (_dir, node, net) = node();
    let (mut alice, alice_is) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let (mut bob, bob_is) = Raw::sign_up(&net, "bob", &Key::new(2)).await;
    let group = alice.group(1, "g", vec![bob_is.user]).await;
    let post = Post { conversation: group, incarnation: I, number: 1, content: Content::Remove(alice_is.user) };
    assert_eq!(bob.refused(Request::Post(post)).await.code, ErrorCode::NotAllowed);
    // Another person's device, named by its id, stays signed in.
    let answer = bob.ask(Request::SignOut(SignOut { device: alice_is.device })).await;
    assert!(matches!(answer, Answer::Done(_)), "as if there were none: {answer:?}");
    assert!(Raw::resume(&net, &alice_is.token, &Key::new(1)).await.is_ok());
    stop(node).await;
}

#[tokio::test]
async fn an_unknown_handle_and_a_wrong_password_are_refused_alike_and_tries_end() {
    let (_dir, node, net) = node();
    let key = Key::new(1);
    let (_alice, _) = Raw::sign_up(&net, "alice", &key).await;
    let mut raw = Raw::hello(&net).await;
    let error = |answer| if let Answer::Refused(error) = answer { error } else { panic!("accepted: {answer:?}") };
    let unknown = error(raw.try_sign_in("nobody", "wrong password", &key).await);
    assert_eq!(unknown, WireError::new(ErrorCode::BadCredentials));
    for i in 0..TRIES_MAX {
        assert_eq!(error(raw.try_sign_in("alice", "wrong password", &key).await), unknown, "try {i}");
    }
    for password in ["wrong password", PASSWORD] {
        let closed = error(raw.try_sign_in("alice", password, &key).await);
        assert_eq!(closed.code, ErrorCode::TooManyTries);
        assert!(closed.retry_after_ms > 0);
    }
    stop(node).await;
}

#[tokio::test]
async fn a_right_password_gives_the_tries_back() {
    let (_dir, node, net) = node();
    let key = Key::new(1);
    let (_alice, _) = Raw::sign_up(&net, "alice", &key).await;
    for _ in 0..3 {
        let mut raw = Raw::hello(&net).await;
        for _ in 0..TRIES_MAX - 1 {
            let answer = raw.try_sign_in("alice", "wrong password", &key).await;
            assert!(matches!(&answer, Answer::Refused(e) if e.code == ErrorCode::BadCredentials), "{answer:?}");
        }
        let answer = raw.try_sign_in("alice", PASSWORD, &key).await;
        assert!(matches!(answer, Answer::SignedIn(_)), "{answer:?}");
    }
    stop(node).await;
}

#[tokio::test]
async fn a_person_who_does_not_exist_can_be_asked_all_the_same() {
    let (_dir, node, net) = node();
    let (mut alice, alice_is) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let (_bob, bob_is) = Raw::sign_up(&net, "bob", &Key::new(2)).await;
    let nobody = UserId::in_slot(bob_is.user.slot(), 12_345);
    let ask = |user| Request::RequestContact(RequestContact { user, greeting: "hi".into() });
    assert_eq!(alice.ask_for_bytes(500, ask(bob_is.user)).await, alice.ask_for_bytes(500, ask(nobody)).await);
    assert!(matches!(alice.ask(ask(nobody)).await, Answer::Done(_)));
    let accept = |user| Request::AcceptContact(AcceptContact { user });
    assert_eq!(alice.ask_for_bytes(500, accept(bob_is.user)).await, alice.ask_for_bytes(500, accept(nobody)).await);
    assert_eq!(alice.refused(ask(alice_is.user)).await.field, "user");
    let listed = alice.ask(Request::Contacts(Contacts { after: UserId::default() })).await;
    let Answer::ContactList(list) = listed else { panic!("{listed:?}") };
    let told: Vec<_> = list.contacts.iter().map(|c| (c.handle.clone(), c.state)).collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], told[1], "who is there and who is not look the same");
    stop(node).await;
}

#[tokio::test]
async fn people_are_found_by_their_whole_handle_alone() {
    let (_dir, node, net) = node();
    let (mut alice, _) = Raw::sign_up(&net, "Alice-Doe", &Key::new(1)).await;
    let find = |handle: &str| Request::Find(Find { handle: handle.into() });
    for handle in ["Alice-Doe", "alice-doe"] {
        let answer = alice.ask(find(handle)).await;
        assert!(matches!(&answer, Answer::Found(found) if found.handle == "Alice-Doe"), "{answer:?}");
    }
    let mut refusals = Vec::new();
    for handle in ["alice", "Alice-Do", "lice-doe", "", "%", "*", "alice-doe ", &"a".repeat(32), &"a".repeat(10_000)] {
        refusals.push(alice.ask_for_bytes(500, find(handle)).await);
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "one refusal for all");
    stop(node).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_sign_up_is_said_by_field() {
    let (_dir, node, net) = node();
    let key = Key::new(1);
    let mut raw = Raw::hello(&net).await;
    let long = "x".repeat(33);
    let cases = [
        ("", PASSWORD, "handle"),
        (long.as_str(), PASSWORD, "handle"),
        ("two words", PASSWORD, "handle"),
        ("a@b", PASSWORD, "handle"),
        ("tab\t", PASSWORD, "handle"),
        ("good", "short", "password"),
        ("good", &"x".repeat(257), "password"),
    ];
    for (handle, password, field) in cases {
        let device = key.device(&raw.connection);
        let request = SignUp { handle: handle.into(), password: password.into(), device };
        let error = raw.refused(Request::SignUp(request)).await;
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::Invalid, field), "{handle:?}: {error}");
        assert!(!error.detail.is_empty() && !error.detail.contains("short"), "{error}");
    }
    // A proof that was made for another connection.
    let other = Raw::hello(&net).await;
    let device = key.device(&other.connection);
    let request = SignUp { handle: "good".into(), password: PASSWORD.into(), device };
    let error = raw.refused(Request::SignUp(request)).await;
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::BadCredentials, "device.proof"));
    let mut named = key.device(&raw.connection);
    named.name = "x".repeat(65);
    let request = SignUp { handle: "good".into(), password: PASSWORD.into(), device: named };
    assert_eq!(raw.refused(Request::SignUp(request)).await.field, "device.name");
    let device = key.device(&raw.connection);
    let request = SignUp { handle: "good".into(), password: PASSWORD.into(), device };
    assert!(matches!(raw.ask(Request::SignUp(request)).await, Answer::SignedIn(_)));
    // The handle is taken, in any case of letters.
    let (mut second, other) = (Raw::hello(&net).await, Key::new(2));
    let device = other.device(&second.connection);
    let request = SignUp { handle: "GOOD".into(), password: PASSWORD.into(), device };
    let error = second.refused(Request::SignUp(request)).await;
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::HandleTaken, "handle"));
    stop(node).await;
}

#[tokio::test]
async fn before_the_sign_in_nothing_is_answered() {
    let (_dir, node, net) = node();
    let (mut alice, alice_is) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let group = alice.group(1, "g", vec![]).await;
    let mut raw = Raw::hello(&net).await;
    let mut all = questions(group, alice_is.user);
    all.push(Request::Sync(magpie_protocol::frame::sync::Sync));
    all.push(Request::Devices(magpie_protocol::frame::account::Devices));
    all.push(Request::Find(Find { handle: "alice".into() }));
    all.push(Request::SignOut(SignOut { device: alice_is.device }));
    for request in all {
        assert_eq!(raw.refused(request).await, WireError::new(ErrorCode::NotSignedIn));
    }
    stop(node).await;
}
