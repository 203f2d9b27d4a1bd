//! Accounts and contacts: what each may, what others get, and that nothing leaks.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use magpie_client::{
    Body, ContactState, ConversationId, Error, ErrorCode, SetContact, SetPrivacy, SetProfile, Status, UserId,
};
use magpie_node::Options;
use magpie_tests::{
    Company, InProcess, Person, Place,
    node::test_config,
    people::{PASSWORD, befriend},
    until,
};

const SOON: Duration = Duration::from_secs(10);

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    match result {
        Err(Error::Refused(error)) => error.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn privacy() -> SetPrivacy {
    SetPrivacy { by_phone: None, by_handle: None, show_typing: None, show_online: None }
}

async fn state(person: &Person, other: UserId) -> Option<ContactState> {
    person.client.cards().await.unwrap().into_iter().find(|card| card.user == other).and_then(|card| card.state)
}

#[tokio::test]
async fn a_profile_is_seen_by_others_as_it_is_set() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let set = SetProfile {
        nickname: Some("Ann of the Hill".into()),
        avatar: None,
        region: Some("Aachen".into()),
        signature: Some("birds".into()),
    };
    ann.client.set_profile(set).await.unwrap();
    let only = SetProfile { nickname: None, avatar: None, region: None, signature: Some("more birds".into()) };
    ann.client.set_profile(only).await.unwrap();
    let shown = ben.client.profiles(&[ann.id, UserId::from_bits(5)]).await.unwrap();
    assert_eq!(shown.len(), 1, "who does not exist is left out");
    assert_eq!(shown[0].handle, "ann");
    let profile = &shown[0].profile;
    assert_eq!((profile.nickname.as_str(), profile.signature.as_str()), ("Ann of the Hill", "more birds"));
    let tablet = Person::another(&scene.place, "ann").await;
    until("the other device knows", SOON, async || tablet.client.profile().unwrap() == *profile).await;
    let long = SetProfile { nickname: Some("x".repeat(65)), avatar: None, region: None, signature: None };
    assert_eq!(refused(ann.client.set_profile(long).await), ErrorCode::TooLarge);
    assert_eq!(ann.client.account().await.unwrap().profile, *profile, "nothing changed");
    scene.node.stop();
}

#[tokio::test]
async fn people_are_found_by_what_they_allow_and_by_nothing_else() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    assert_eq!(ben.client.find("ann").await.unwrap().user, ann.id);
    for phone in ["", "4912345678", "+0912345678", "+49 123 45678", "+4912345678901234", "+49"] {
        assert_eq!(refused(ben.client.find_phone(phone).await), ErrorCode::Invalid, "{phone}");
    }
    ann.client.set_phone("+4912345678").await.unwrap();
    let nobody = ben.client.find_phone("+4900000000").await.map_err(|e| e.to_string());
    let hidden = ben.client.find_phone("+4912345678").await.map_err(|e| e.to_string());
    assert_eq!(hidden, nobody, "a number that may not be found looks like no number");
    ann.client.set_privacy(SetPrivacy { by_phone: Some(true), ..privacy() }).await.unwrap();
    until("ann is found", SOON, async || ben.client.find_phone("+4912345678").await.is_ok()).await;
    assert_eq!(refused(ben.client.set_phone("+4912345678").await), ErrorCode::HandleTaken);
    ann.client.set_phone("+4998765432").await.unwrap();
    until("the old number is free", SOON, async || ben.client.set_phone("+4912345678").await.is_ok()).await;
    until("the new one finds her", SOON, async || ben.client.find_phone("+4998765432").await.is_ok()).await;
    ann.client.set_privacy(SetPrivacy { by_handle: Some(false), ..privacy() }).await.unwrap();
    assert_eq!(refused(ben.client.find("ann").await), ErrorCode::NotFound);
    let code = ann.client.my_code().await.unwrap();
    assert_eq!(ann.client.my_code().await.unwrap(), code, "it stays");
    assert_eq!(ben.client.find_code(code.to_string().parse().unwrap()).await.unwrap().user, ann.id);
    let new = ann.client.new_code().await.unwrap();
    assert_eq!(refused(ben.client.find_code(code).await), ErrorCode::NotFound, "rotated");
    assert_eq!(ben.client.find_code(new).await.unwrap().handle, "ann");
    let zero = magpie_client::UserCode { user: ben.id, code: 0 };
    assert_eq!(refused(ann.client.find_code(zero).await), ErrorCode::NotFound, "no code finds nobody");
    scene.node.stop();
}

#[tokio::test]
async fn requests_are_accepted_or_refused_and_cards_follow() {
    let scene = Company::new(&["ann", "ben", "cat"], |config| config.policy.version = 0).await;
    let [ann, ben, cat] = &scene.people[..] else { panic!() };
    let talk = befriend(ann, ben).await;
    cat.client.request_contact(ann.id, "it is me, cat").await.unwrap();
    let asked = ann.inbox("the request", |body| match body {
        Body::ContactRequested(asked) => Some(asked.clone()),
        _ => None,
    });
    assert_eq!(asked.await.greeting, "it is me, cat");
    let card = ann.client.cards().await.unwrap().into_iter().find(|card| card.user == cat.id).unwrap();
    assert_eq!((card.state, card.greeting.as_str()), (Some(ContactState::Waiting), "it is me, cat"));
    assert!(card.expires_ms > 1_700_000_000_000);
    ann.client.refuse_contact(cat.id).await.unwrap();
    assert_eq!(refused(ann.client.refuse_contact(cat.id).await), ErrorCode::NotFound);
    assert_eq!(refused(ann.client.accept_contact(cat.id).await), ErrorCode::NotFound);
    assert_eq!(state(cat, ann.id).await, Some(ContactState::Requested), "cat is not told");
    let set = |user, remark: &str| SetContact {
        user,
        remark: Some(remark.into()),
        tags: Some(vec!["work".into()]),
        starred: Some(true),
    };
    ann.client.set_contact(set(ben.id, "Benny")).await.unwrap();
    assert_eq!(refused(ann.client.set_contact(set(cat.id, "x")).await), ErrorCode::NotFound);
    assert_eq!(refused(ann.client.set_contact(set(ben.id, &"x".repeat(65))).await), ErrorCode::TooLarge);
    let tablet = Person::another(&scene.place, "ann").await;
    until("the other device has the cards", SOON, async || {
        let cards = tablet.client.known_cards().unwrap();
        cards.len() == 1 && cards[0].remark == "Benny" && cards[0].starred && cards[0].tags == ["work"]
    })
    .await;
    assert!(!format!("{:?}", ben.client.cards().await.unwrap()).contains("Benny"), "what one keeps is one's own");
    // Whom one deletes cannot write, nor one to them, until both agree again.
    ann.client.delete_contact(ben.id).await.unwrap();
    until("the conversation knows", SOON, async || ben.act(ben.client.say(talk, "you there?")).await.is_err()).await;
    for person in [ann, ben] {
        let refused = person.act(person.client.say(talk, "still there?")).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotContacts);
    }
    until("ben is off the list", SOON, async || state(ann, ben.id).await.is_none()).await;
    ben.client.request_contact(ann.id, "sorry").await.unwrap();
    until("ann accepts", SOON, async || ann.client.accept_contact(ben.id).await.is_ok()).await;
    until("they write again", SOON, async || ben.act(ben.client.say(talk, "thanks")).await.is_ok()).await;
    // Who deleted the other can ask, too: the other never stopped having them.
    ann.client.delete_contact(ben.id).await.unwrap();
    until("ben is off the list", SOON, async || state(ann, ben.id).await.is_none()).await;
    ann.client.request_contact(ben.id, "sorry, too").await.unwrap();
    until("they write again", SOON, async || ann.act(ann.client.say(talk, "thanks")).await.is_ok()).await;
    ben.say(talk, "no harm done").await;
    scene.node.stop();
}

#[tokio::test]
async fn the_last_word_on_a_friendship_holds_however_fast_it_comes() {
    let scene = Company::new(&["ann", "ben"], |config| config.policy.version = 0).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = ConversationId::direct(ann.id, ben.id);
    // A request that is taken back, before there is a conversation.
    ann.client.request_contact(ben.id, "hello").await.unwrap();
    until("ben was asked", SOON, async || state(ben, ann.id).await.is_some()).await;
    ann.client.delete_contact(ben.id).await.unwrap();
    ben.client.accept_contact(ann.id).await.unwrap();
    until("ann is not drawn in", SOON, async || {
        ben.act(ben.client.say(talk, "hi")).await.is_err_and(|e| e.code == ErrorCode::NotContacts)
    })
    .await;
    assert_eq!(state(ann, ben.id).await, None);
    // Accepted and deleted in one breath: deleted it stays.
    for round in 0..5 {
        ann.client.request_contact(ben.id, "again").await.unwrap();
        until("they are contacts", SOON, async || state(ann, ben.id).await == Some(ContactState::Accepted)).await;
        if round % 2 == 0 {
            until("they write", SOON, async || ann.act(ann.client.say(talk, "hi")).await.is_ok()).await;
        }
        ann.client.delete_contact(ben.id).await.unwrap();
        until("it holds", SOON, async || ben.act(ben.client.say(talk, "hi")).await.is_err()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let refused = ben.act(ben.client.say(talk, "still?")).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotContacts, "nothing that was under way undoes it");
    }
    scene.node.stop();
}

#[tokio::test]
async fn nothing_of_who_is_blocked_comes_through() {
    let scene = Company::new(&["ann", "ben", "eve"], |_| {}).await;
    let [ann, ben, eve] = &scene.people[..] else { panic!() };
    let talk = befriend(ann, ben).await;
    let head = ann.say(talk, "before").await;
    ann.client.block(ben.id, true).await.unwrap();
    let refused_by = ben.act(ben.client.say(talk, "let me in")).await.unwrap_err();
    assert_eq!(refused_by.code, ErrorCode::Blocked);
    let own = ann.act(ann.client.say(talk, "and I?")).await.unwrap_err();
    assert_eq!(own.code, ErrorCode::NotAllowed, "one's own block is said plainly");
    // A stranger who is blocked asks in vain, and is not told.
    ann.client.block(eve.id, true).await.unwrap();
    assert!(ben.client.signal(talk, 1).await.is_ok() && ben.act(ben.client.recall(talk, head)).await.is_err());
    until("the block is on the list", SOON, async || {
        ann.client.cards().await.unwrap().iter().any(|card| card.user == eve.id && card.blocked)
    })
    .await;
    eve.client.request_contact(ann.id, "please").await.unwrap();
    // Nor is she taken into a group, and it does not say why.
    assert_eq!(refused(eve.client.create_group("come here", vec![ann.id]).await), ErrorCode::NotContacts);
    assert!(!ann.seen().events.iter().any(|event| event.contains("Signalled")), "nor heard typing");
    ann.client.block(ben.id, false).await.unwrap();
    let next = ben.say(talk, "after").await;
    assert_eq!(next, head + 1, "nothing was stored meanwhile");
    ann.has(talk, next, SOON).await;
    assert_eq!(state(ann, eve.id).await, None);
    assert_eq!(state(eve, ann.id).await, Some(ContactState::Requested));
    assert_eq!(refused(ann.client.block(ann.id, true).await), ErrorCode::Invalid);
    scene.node.stop();
}

#[tokio::test]
async fn those_who_shake_together_find_each_other() {
    let scene = Company::new(&["ann", "ben", "far"], |_| {}).await;
    let [ann, ben, far] = &scene.people[..] else { panic!() };
    let (a, b, c) =
        tokio::join!(ann.client.shake(5_077, 608), ben.client.shake(5_079, 610), far.client.shake(4_800, 200));
    let names = |found: Vec<magpie_client::Found>| found.into_iter().map(|f| f.handle).collect::<Vec<_>>();
    assert_eq!(
        (names(a.unwrap()), names(b.unwrap()), names(c.unwrap())),
        (vec!["ben".into()], vec!["ann".into()], vec![])
    );
    assert_eq!(refused(ann.client.shake(9_001, 0).await), ErrorCode::Invalid);
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert!(far.client.shake(5_077, 608).await.unwrap().is_empty(), "the moment is over");
    scene.node.stop();
}

#[tokio::test]
async fn online_is_shown_only_to_contacts_and_only_by_choice() {
    let scene = Company::new(&["ann", "ben", "eve"], |_| {}).await;
    let [ann, ben, eve] = &scene.people[..] else { panic!() };
    befriend(ann, ben).await;
    assert_eq!(ben.client.online(vec![ann.id]).await.unwrap(), [], "off by default");
    ann.client.set_privacy(SetPrivacy { show_online: Some(true), ..privacy() }).await.unwrap();
    assert_eq!(ben.client.online(vec![ann.id, eve.id]).await.unwrap(), [ann.id]);
    assert_eq!(eve.client.online(vec![ann.id]).await.unwrap(), [], "no contact");
    ann.client.close().await;
    until("ann is offline", SOON, async || ben.client.online(vec![ann.id]).await.unwrap().is_empty()).await;
    scene.node.stop();
}

#[tokio::test]
async fn devices_are_signed_out_within_a_second_and_passwords_change() {
    let scene = Company::new(&["ann"], |_| {}).await;
    let ann = &scene.people[0];
    let tablet = Person::another(&scene.place, "ann").await;
    let devices = ann.client.devices().await.unwrap();
    assert_eq!(devices.len(), 2);
    assert!(devices.iter().all(|device| device.last_seen_ms > 1_700_000_000_000));
    let began = Instant::now();
    ann.client.sign_out(tablet.client.me().unwrap().device).await.unwrap();
    until("the tablet is out", SOON, async || tablet.client.status() == Status::SignedOut).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(refused(ann.client.change_password("wrong", "another horse").await), ErrorCode::BadCredentials);
    assert_eq!(refused(ann.client.change_password(PASSWORD, "short").await), ErrorCode::Invalid);
    ann.client.change_password(PASSWORD, "another horse").await.unwrap();
    ann.client.change_password(PASSWORD, "another horse").await.expect("a retry gets the same answer");
    assert_eq!(refused(tablet.client.sign_in("ann", PASSWORD).await), ErrorCode::BadCredentials);
    tablet.client.sign_in("ann", "another horse").await.unwrap();
    scene.node.stop();
}

#[tokio::test]
async fn an_account_can_be_kept_for_thirty_days_and_is_then_gone() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let ahead = std::sync::Arc::new(AtomicU64::new(0));
    let clock = {
        let ahead = ahead.clone();
        let since = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        std::sync::Arc::new(move || since() + ahead.load(Ordering::Relaxed))
    };
    let dir = tempfile::tempdir().unwrap();
    let start = || InProcess::start(test_config(dir.path()), Options { clock: clock.clone(), ..Options::default() });
    let node = start();
    let place = Place::new(node.address, node.ca.clone());
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let talk = befriend(&ann, &ben).await;
    let group = ben.client.create_group("team", vec![ann.id]).await.unwrap();
    ann.client.set_phone("+4912345678").await.unwrap();
    assert_eq!(refused(ann.client.close_account("wrong").await), ErrorCode::BadCredentials);
    ann.client.close_account(PASSWORD).await.unwrap();
    until("ann is signed out", SOON, async || ann.client.status() == Status::SignedOut).await;
    ann.client.sign_in("ann", PASSWORD).await.unwrap();
    assert_eq!(ann.client.account().await.unwrap().closing_ms, 0, "a sign-in keeps it");
    ann.client.close_account(PASSWORD).await.unwrap();
    until("ann is signed out again", SOON, async || ann.client.status() == Status::SignedOut).await;
    node.stop();
    ahead.store(31 * 24 * 3_600 * 1_000, Ordering::Relaxed);
    let node = start();
    let place = Place::new(node.address, node.ca.clone());
    let ben = Person::another(&place, "ben").await;
    until("nothing of ann is left", Duration::from_secs(20), async || {
        ben.client.cards().await.unwrap().is_empty()
            && ben.client.profiles(&[ann.id]).await.unwrap().is_empty()
            && ben.client.members(group).await.unwrap().members == [ben.id]
    })
    .await;
    until("the number is free", SOON, async || ben.client.set_phone("+4912345678").await.is_ok()).await;
    let new = Person::new(&place, "ann").await;
    assert_ne!(new.id, ann.id, "the handle is free for somebody else");
    assert!(new.client.members(ConversationId::direct(ann.id, ben.id)).await.is_err());
    assert!(ben.client.history(talk, 0, 10).is_ok());
    node.stop();
}

#[tokio::test]
async fn nobody_is_taken_into_a_group_by_a_stranger() {
    let scene = Company::new(&["ann", "ben", "eve"], |config| config.policy.version = 0).await;
    let (ann, ben, eve) = (&scene.people[0], &scene.people[1], &scene.people[2]);
    befriend(ann, ben).await;
    let made = ann.client.conversations().len();
    assert_eq!(refused(ann.client.create_group("team", vec![ben.id, eve.id]).await), ErrorCode::NotContacts);
    assert_eq!(ann.client.conversations().len(), made, "there is no group");
    let team = ann.client.create_group_once(7, "team", vec![ben.id]).await.unwrap();
    let error = ann.act(ann.client.invite(team, eve.id)).await.unwrap_err();
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::NotContacts, "user"));
    let number = ann.say(team, "the three of us?").await;
    assert_eq!(number, 4, "made, two joined, and nothing else");
    ben.has(team, number, SOON).await;
    assert!(eve.client.conversations().is_empty());
    // Who comes with the code of a group comes by their own will.
    let (code, opened) = ann.client.set_join(team, true, false).unwrap();
    opened.posted().await.unwrap();
    assert!(eve.client.join(code).await.unwrap());
    // Whom one deleted takes one nowhere, and a group that there is stays what it is.
    ben.client.delete_contact(ann.id).await.unwrap();
    until("ann is off the list", SOON, async || state(ben, ann.id).await.is_none()).await;
    assert_eq!(refused(ann.client.create_group("again", vec![ben.id]).await), ErrorCode::NotContacts);
    assert_eq!(ann.client.create_group_once(7, "team", vec![ben.id]).await.unwrap(), team, "a retry");
    scene.node.stop();
}
