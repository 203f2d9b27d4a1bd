//! What may be done in conversations, and what may not: every rule with its refusal.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use magpie_client::{
    Body, ConversationId, Entry, ErrorCode, Kind, Message, SetConversation, StorePlace, UserId, WireError,
    message::{Custom, Forwarded, ForwardedItem, Location, Voice},
};
use magpie_tests::{Company, Person, people::befriend, until};

const SOON: Duration = Duration::from_secs(10);

trait Rooms {
    /// A group of all, made by the first.
    async fn group(&self) -> ConversationId;
    /// Every device holds the same entries of a conversation, in its store, from where it may read.
    async fn all_equal(&self, conversation: ConversationId, who: &[&Person]) -> Vec<Entry>;
}

impl Rooms for Company {
    async fn group(&self) -> ConversationId {
        let members = self.people[1..].iter().map(|p| p.id).collect();
        let group = self.people[0].client.create_group("team", members).await.unwrap();
        let head = 1 + self.people.len() as u64;
        for person in &self.people {
            person.has(group, head, SOON).await;
        }
        group
    }

    async fn all_equal(&self, conversation: ConversationId, who: &[&Person]) -> Vec<Entry> {
        let head = who.iter().map(|p| p.client.cursor(magpie_client::TimelineId::Conversation(conversation))).max();
        for person in who {
            person.has(conversation, head.unwrap(), SOON).await;
        }
        let first = who[0].client.history(conversation, 0, 10_000).unwrap();
        for person in &who[1..] {
            let theirs = person.client.history(conversation, 0, 10_000).unwrap();
            let from = theirs.first().unwrap().number;
            let same: Vec<&Entry> = first.iter().filter(|entry| entry.number >= from).collect();
            assert_eq!(theirs.iter().collect::<Vec<_>>(), same, "{} holds something else", person.name);
        }
        first
    }
}

fn code(result: Result<u64, WireError>) -> ErrorCode {
    result.map(|number| panic!("it was allowed: entry {number}")).unwrap_err().code
}

fn text(words: &str) -> Kind {
    Kind::Text(words.into())
}

fn body(history: &[Entry], number: u64) -> Body {
    history.iter().find(|entry| entry.number == number).unwrap().body.clone()
}

#[tokio::test]
async fn messages_of_every_kind_arrive_as_they_were_sent() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let item = ForwardedItem {
        sender: "Cat".into(),
        time_ms: 7,
        kind: magpie_protocol::codec::encode(&text("what cat said")),
    };
    let kinds = vec![
        text("plain"),
        Kind::Location(Location { latitude_e7: 480_000_000, longitude_e7: -11, name: "n".into(), address: "a".into() }),
        Kind::Custom(Custom { name: "com.example.poll".into(), data: vec![0, 255, 3] }),
        Kind::Forwarded(Forwarded { title: "Cat".into(), items: vec![item] }),
    ];
    let mut last = 0;
    for kind in &kinds {
        let quote = last;
        let message = Message { kind: kind.clone(), quote, mentions: vec![ben.id] };
        last = ann.act(ann.client.send(talk, message)).await.unwrap();
    }
    let history = scene.all_equal(talk, &[ann, ben]).await;
    let said: Vec<Kind> = history
        .iter()
        .filter_map(|entry| match &entry.body {
            Body::Message(said) => Some(said.message.kind.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(said, kinds);
    scene.node.stop();
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_nothing_is_stored() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let blob = magpie_client::message::BlobRef {
        blob: magpie_protocol::BlobId::from_hash([1; 32]),
        len: 9,
        media_type: "audio/ogg".into(),
    };
    let long = Kind::Voice(Voice { blob, duration_ms: 60_001 });
    let nested = magpie_protocol::codec::encode(&Kind::Forwarded(Forwarded { title: "x".into(), items: vec![] }));
    let nested = ForwardedItem { sender: "x".into(), time_ms: 1, kind: nested };
    let junk = ForwardedItem { sender: "x".into(), time_ms: 1, kind: vec![9; 3] };
    let forwarded = |items| Kind::Forwarded(Forwarded { title: "t".into(), items });
    let refused = [
        (text(""), ErrorCode::Invalid),
        // Nobody brought the blob that it names.
        (long, ErrorCode::NotFound),
        (forwarded(vec![]), ErrorCode::Invalid),
        (forwarded(vec![nested]), ErrorCode::Invalid),
        (forwarded(vec![junk]), ErrorCode::Invalid),
        (Kind::Custom(Custom { name: String::new(), data: vec![] }), ErrorCode::Invalid),
        (Kind::Custom(Custom { name: "n".into(), data: vec![0; 25_000] }), ErrorCode::TooLarge),
        (
            Kind::Location(Location {
                latitude_e7: 900_000_001,
                longitude_e7: 0,
                name: String::new(),
                address: String::new(),
            }),
            ErrorCode::Invalid,
        ),
    ];
    for (kind, expected) in refused {
        let what = format!("{kind:?}");
        assert_eq!(code(ann.act(ann.client.send(talk, Message::new(kind))).await), expected, "{what:.80}");
    }
    let quote = Message { quote: 99, ..Message::new(text("x")) };
    assert_eq!(code(ann.act(ann.client.send(talk, quote)).await), ErrorCode::NotFound);
    let everyone = Message { mentions: vec![UserId::EVERYONE], ..Message::new(text("x")) };
    assert_eq!(code(ann.act(ann.client.send(talk, everyone)).await), ErrorCode::NotAllowed, "no group");
    let next = ann.say(talk, "after all of it").await;
    assert_eq!(next, 4, "a refusal leaves no entry");
    scene.node.stop();
}

#[tokio::test]
async fn a_recalled_message_is_gone_everywhere_and_its_words_with_it() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let said = ann.say(talk, "the words that are taken back").await;
    let theirs = ben.say(talk, "an answer").await;
    ben.has(talk, theirs, SOON).await;
    assert_eq!(code(ann.act(ann.client.recall(talk, theirs)).await), ErrorCode::NotAllowed);
    assert_eq!(code(ann.act(ann.client.recall(talk, 1)).await), ErrorCode::NotFound, "not a message");
    assert_eq!(code(ann.act(ann.client.recall(talk, 77)).await), ErrorCode::NotFound);
    let recalled = ann.act(ann.client.recall(talk, said)).await.unwrap();
    assert_eq!(code(ann.act(ann.client.recall(talk, said)).await), ErrorCode::AlreadyDone);
    let late = Person::another(&scene.place, "ben").await;
    let history = scene.all_equal(talk, &[ann, ben, &late]).await;
    assert!(matches!(body(&history, said), Body::Gone(gone) if gone.recalled == recalled));
    let words = format!("{history:?}");
    assert!(!words.contains("taken back"), "{words}");
    assert_eq!(code(ben.act(ben.client.react(talk, said, "x", true)).await), ErrorCode::NotFound);
    let quote = Message { quote: said, ..Message::new(text("that")) };
    assert_eq!(code(ben.act(ben.client.send(talk, quote)).await), ErrorCode::NotFound);
    scene.node.stop();
}

#[tokio::test]
async fn recalls_and_edits_have_their_time_and_the_operator_sets_it() {
    let scene = Company::new(&["ann", "ben", "cat"], |config| {
        config.policy.version = 1;
        config.policy.recall_s = 0;
        config.policy.edit_s = 1;
    })
    .await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let group = scene.group().await;
    until("the policy holds", SOON, async || {
        let said = ben.say(group, "stays").await;
        ben.act(ben.client.recall(group, said)).await.is_err()
    })
    .await;
    let said = ben.say(group, "stays, too").await;
    assert_eq!(code(ben.act(ben.client.recall(group, said)).await), ErrorCode::NotAllowed);
    ben.act(ben.client.edit(group, said, "edited at once")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(code(ben.act(ben.client.edit(group, said, "too late")).await), ErrorCode::TooLate);
    ann.act(ann.client.recall(group, said)).await.expect("who runs the group takes back any message at any time");
    let all: Vec<&Person> = scene.people.iter().collect();
    let history = scene.all_equal(group, &all).await;
    assert!(matches!(body(&history, said), Body::Gone(_)));
    scene.node.stop();
}

#[tokio::test]
async fn an_edited_message_reads_as_it_is_now_on_every_device() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let said = ann.say(talk, "frist words").await;
    let first = ann.act(ann.client.edit(talk, said, "first words")).await.unwrap();
    let second = ann.act(ann.client.edit(talk, said, "last words")).await.unwrap();
    assert_eq!(code(ben.act(ben.client.edit(talk, said, "mine")).await), ErrorCode::NotAllowed);
    assert_eq!(code(ann.act(ann.client.edit(talk, said, "")).await), ErrorCode::Invalid);
    let late = Person::another(&scene.place, "ben").await;
    let history = scene.all_equal(talk, &[ann, ben, &late]).await;
    let Body::Message(now) = body(&history, said) else { panic!("{:?}", body(&history, said)) };
    assert_eq!((now.message.kind, now.edited), (text("last words"), second));
    assert!(matches!(body(&history, first), Body::Edited(edited) if edited.kind.is_none()));
    assert!(!format!("{history:?}").contains("frist"), "what was edited away is nowhere");
    ann.act(ann.client.recall(talk, said)).await.unwrap();
    let history = scene.all_equal(talk, &[ann, ben, &late]).await;
    assert!(!format!("{history:?}").contains("last words"), "a recall takes the edit's words, too");
    assert_eq!(code(ann.act(ann.client.edit(talk, said, "again")).await), ErrorCode::NotFound);
    scene.node.stop();
}

#[tokio::test]
async fn reactions_fold_the_same_everywhere() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let said = ann.say(talk, "look").await;
    for (person, sign, on) in [(ben, "👍", true), (ann, "🎉", true), (ben, "👍", false), (ben, "❤", true)] {
        person.act(person.client.react(talk, said, sign, on)).await.unwrap();
    }
    for sign in ["", "a b", &"x".repeat(33)] {
        assert!(ben.act(ben.client.react(talk, said, sign, true)).await.is_err(), "{sign:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let late = Person::another_at(&scene.place, "ben", StorePlace::File(dir.path().join("ben.db"))).await;
    scene.all_equal(talk, &[ann, ben, &late]).await;
    let signs = |person: &Person| -> Vec<(UserId, String)> {
        let signs = person.client.reactions(talk, said, said).unwrap();
        signs.into_iter().map(|sign| (sign.user, sign.emoji)).collect()
    };
    assert_eq!(signs(ann), [(ann.id, "🎉".to_owned()), (ben.id, "❤".to_owned())]);
    assert_eq!((signs(ben), signs(&late)), (signs(ann), signs(ann)));
    scene.node.stop();
}

#[tokio::test]
async fn a_group_is_run_by_its_owner_and_administrators() {
    let scene = Company::new(&["ann", "ben", "cat", "dan"], |_| {}).await;
    let [ann, ben, cat, dan] = &scene.people[..] else { panic!() };
    let group = scene.group().await;
    // A plain member may do none of it, and nothing changes.
    let before = cat.client.group(group).await.unwrap();
    let c = &cat.client;
    let tries = vec![
        c.remove(group, dan.id),
        c.set_admin(group, cat.id, true),
        c.set_admin(group, dan.id, true),
        c.transfer(group, cat.id),
        c.dissolve(group),
        c.announce(group, "mine"),
        c.mute_all(group, true),
        c.mute(group, dan.id, 1_000),
        c.set_join(group, true, false).map(|(_, sending)| sending),
        c.admit(group, dan.id, true),
    ];
    for sending in tries {
        assert_eq!(code(cat.act(sending).await), ErrorCode::NotAllowed);
    }
    let everyone = Message { mentions: vec![UserId::EVERYONE], ..Message::new(text("all!")) };
    assert_eq!(code(cat.act(c.send(group, everyone.clone())).await), ErrorCode::NotAllowed);
    assert_eq!(cat.client.group(group).await.unwrap(), before);
    // The owner makes an administrator, who may most of it, but nothing above.
    ann.act(ann.client.set_admin(group, ben.id, true)).await.unwrap();
    assert_eq!(code(ann.act(ann.client.set_admin(group, ben.id, true)).await), ErrorCode::AlreadyDone);
    ben.act(ben.client.announce(group, "be kind")).await.unwrap();
    ben.act(ben.client.send(group, everyone)).await.unwrap();
    assert_eq!(code(ben.act(ben.client.remove(group, ann.id)).await), ErrorCode::NotAllowed);
    assert_eq!(code(ben.act(ben.client.mute(group, ann.id, 1_000)).await), ErrorCode::NotAllowed);
    assert_eq!(code(ben.act(ben.client.dissolve(group)).await), ErrorCode::NotAllowed);
    // Mutes.
    ben.act(ben.client.mute(group, cat.id, 60_000)).await.unwrap();
    let refused = cat.act(c.say(group, "may I")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Muted);
    assert!(refused.number > 1_700_000_000_000, "it says until when: {}", refused.number);
    assert_eq!(code(cat.act(c.rename(group, "mine")).await), ErrorCode::Muted);
    ben.act(ben.client.mute(group, cat.id, 0)).await.unwrap();
    cat.say(group, "I may").await;
    ben.act(ben.client.mute_all(group, true)).await.unwrap();
    assert_eq!(code(dan.act(dan.client.say(group, "and I?")).await), ErrorCode::Muted);
    ben.say(group, "only we").await;
    ben.act(ben.client.mute_all(group, false)).await.unwrap();
    dan.act(dan.client.nickname(group, "Danny")).await.unwrap();
    ben.act(ben.client.remove(group, cat.id)).await.unwrap();
    ann.act(ann.client.transfer(group, dan.id)).await.unwrap();
    assert_eq!(code(ann.act(ann.client.dissolve(group)).await), ErrorCode::NotAllowed);
    let info = dan.client.group(group).await.unwrap();
    assert_eq!((info.owner, info.admins.clone(), info.announcement.as_str()), (dan.id, vec![ben.id], "be kind"));
    assert_eq!(info.nicknames, [(dan.id, "Danny".to_owned())]);
    assert!(cat.client.group(group).await.is_err(), "who was removed learns nothing");
    dan.act(dan.client.dissolve(group)).await.unwrap();
    for person in [ann, ben, dan] {
        assert_eq!(code(person.act(person.client.say(group, "hello?")).await), ErrorCode::NotAllowed);
    }
    let d = &dan.client;
    for sending in
        [d.announce(group, "hear me"), d.mute_all(group, true), d.remove(group, ben.id), d.transfer(group, ben.id)]
    {
        assert_eq!(code(dan.act(sending).await), ErrorCode::NotAllowed, "nor anything else, by its owner either");
    }
    ben.act(ben.client.leave(group)).await.expect("but to go");
    scene.all_equal(group, &[ann, dan]).await;
    scene.node.stop();
}

#[tokio::test]
async fn a_group_whose_owner_goes_says_whose_it_is_now() {
    let scene = Company::new(&["ann", "ben", "cat"], |_| {}).await;
    let [ann, ben, cat] = &scene.people[..] else { panic!() };
    let group = scene.group().await;
    ann.act(ann.client.set_admin(group, ben.id, true)).await.unwrap();
    let left = ann.act(ann.client.leave(group)).await.unwrap();
    ben.has(group, left + 1, SOON).await;
    let history = scene.all_equal(group, &[ben, cat]).await;
    let heir = ben.client.group(group).await.unwrap();
    assert_eq!(body(&history, left + 1), Body::OwnerChanged(heir.owner));
    assert!(!heir.admins.contains(&heir.owner), "an owner is no administrator besides");
    scene.node.stop();
}

#[tokio::test]
async fn what_a_member_did_not_find_can_be_asked_for_again() {
    let scene = Company::new(&["ann", "eve"], |_| {}).await;
    let (ann, eve) = (&scene.people[0], &scene.people[1]);
    let group = ann.client.create_group("open house", vec![]).await.unwrap();
    let (code_, sending) = ann.client.set_join(group, true, true).unwrap();
    ann.act(Ok(sending)).await.unwrap();
    assert_eq!(code(ann.act(ann.client.admit(group, eve.id, true)).await), ErrorCode::NotFound, "she has not asked");
    assert!(!eve.client.join(code_).await.unwrap());
    ann.act(ann.client.admit(group, eve.id, true)).await.expect("now she has: the old answer is not the new one's");
    let too_long = Kind::Custom(Custom { name: "n".into(), data: vec![0; 70_000] });
    assert!(ann.client.send(group, Message::new(too_long)).is_err(), "what no node can read is not even kept");
    ann.say(group, "and goes on").await;
    scene.node.stop();
}

#[tokio::test]
async fn people_join_by_code_and_with_approval_and_read_from_there() {
    let scene = Company::new(&["ann", "ben", "cat", "dan", "eve"], |_| {}).await;
    let [ann, ben, cat, dan, eve] = &scene.people[..] else { panic!() };
    let group = ann.client.create_group("open house", vec![ben.id]).await.unwrap();
    ann.say(group, "before anybody came").await;
    let (old, sending) = ann.client.set_join(group, true, false).unwrap();
    ann.act(Ok(sending)).await.unwrap();
    assert_eq!(ben.client.group(group).await.unwrap().join_code, old.code, "members pass the code on");
    assert!(cat.client.join(old.to_string().parse().unwrap()).await.unwrap());
    assert!(cat.client.join(old).await.unwrap(), "joining again is joining");
    let said = ann.say(group, "welcome cat").await;
    cat.has(group, said, SOON).await;
    assert_eq!(cat.texts(group), ["welcome cat"]);
    // A new code makes the old one void, and a stranger cannot tell a wrong code from no group.
    let (code, sending) = ann.client.set_join(group, true, true).unwrap();
    ann.act(Ok(sending)).await.unwrap();
    let nowhere = magpie_client::GroupCode { conversation: ConversationId::group(ann.id, 5), code: 5 };
    let (wrong, none) = (dan.client.join(old).await.unwrap_err(), dan.client.join(nowhere).await.unwrap_err());
    assert_eq!(wrong.to_string(), none.to_string());
    assert!(!dan.client.join(code).await.unwrap() && !eve.client.join(code).await.unwrap(), "they have to wait");
    assert!(dan.client.group(group).await.is_err());
    assert_eq!(ann.client.group(group).await.unwrap().waiting, [dan.id, eve.id]);
    assert_eq!(ben.client.group(group).await.unwrap().waiting, [], "not for members");
    assert_eq!(ben.client.group(group).await.unwrap().join_code, 0, "nor the code, where people are let in");
    ann.act(ann.client.admit(group, dan.id, true)).await.unwrap();
    ann.act(ann.client.admit(group, eve.id, false)).await.unwrap();
    let refused = ann.act(ann.client.admit(group, eve.id, true)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    let said = ann.say(group, "welcome dan").await;
    dan.has(group, said, SOON).await;
    assert!(eve.client.members(group).await.is_err());
    // A member's invitation waits, too.
    ben.act(ben.client.invite(group, eve.id)).await.unwrap();
    assert_eq!(ann.client.group(group).await.unwrap().waiting, [eve.id]);
    scene.all_equal(group, &[ann, ben, cat, dan]).await;
    scene.node.stop();
}

#[tokio::test]
async fn settings_and_deleted_messages_are_the_same_on_all_devices_of_a_person() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let dir = tempfile::tempdir().unwrap();
    let tablet = Person::another_at(&scene.place, "ann", StorePlace::File(dir.path().join("ann.db"))).await;
    let set = |pinned, do_not_disturb| SetConversation {
        conversation: talk,
        pinned,
        do_not_disturb,
        saved: None,
        hidden_at: None,
    };
    let (a, b) = tokio::join!(
        ann.client.set_conversation(set(Some(true), None)),
        tablet.client.set_conversation(set(None, Some(true)))
    );
    a.unwrap();
    b.unwrap();
    let first = ben.say(talk, "delete me").await;
    let kept = ben.say(talk, "keep me").await;
    tablet.has(talk, kept, SOON).await;
    ann.client.add_favourite(talk, first).await.unwrap();
    ann.client.add_favourite(talk, first).await.expect("keeping the same again changes nothing");
    assert!(ann.client.add_favourite(talk, 1).await.is_err(), "not a message");
    let nowhere = ConversationId::group(ben.id, 4);
    assert!(ann.client.add_favourite(nowhere, 1).await.is_err());
    assert!(ann.client.hide(nowhere, vec![1]).await.is_err());
    ann.client.hide(talk, vec![first]).await.unwrap();
    let gone = |person: &Person| person.client.history(talk, 0, 100).unwrap().iter().all(|e| e.number != first);
    until("it is deleted on all", SOON, async || gone(ann) && gone(&tablet)).await;
    assert!(!gone(ben), "others keep it");
    let late = Person::another(&scene.place, "ann").await;
    late.has(talk, kept, SOON).await;
    until("and on a new device", SOON, async || gone(&late)).await;
    for person in [ann, &tablet, &late] {
        until("the settings are the same", SOON, async || {
            let settings = person.client.settings().unwrap();
            settings.len() == 1 && settings[0].pinned && settings[0].do_not_disturb
        })
        .await;
    }
    let favourites = tablet.client.favourites().await.unwrap();
    assert_eq!(favourites.len(), 1);
    assert_eq!(favourites[0].kind, text("delete me"));
    tablet.client.remove_favourite(favourites[0].id).await.unwrap();
    assert!(ann.client.favourites().await.unwrap().is_empty());
    scene.node.stop();
}

#[tokio::test]
async fn typing_is_seen_by_those_who_are_there_and_only_by_them() {
    let scene = Company::new(&["ann", "ben", "eve"], |_| {}).await;
    let [ann, ben, eve] = &scene.people[..] else { panic!() };
    let talk = befriend(ann, ben).await;
    let saw = |person: &Person| person.seen().events.iter().any(|event| event.contains("Signalled"));
    until("ben sees ann type", SOON, async || {
        ann.client.signal(talk, 1).await.unwrap();
        saw(ben)
    })
    .await;
    assert!(!saw(ann) && !saw(eve));
    assert!(eve.client.signal(talk, 1).await.is_err(), "a stranger is told nothing");
    ben.seen().events.clear();
    let quiet =
        magpie_client::SetPrivacy { by_phone: None, by_handle: None, show_typing: Some(false), show_online: None };
    ann.client.set_privacy(quiet).await.unwrap();
    ann.client.signal(talk, 1).await.unwrap();
    let said = ann.say(talk, "typed unseen").await;
    ben.has(talk, said, SOON).await;
    assert!(!saw(ben), "the switch is off");
    scene.node.stop();
}
