//! Who was away gets exactly what was missed; and whatever becomes of a store, nothing is lost or doubled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use std::time::{Duration, Instant};

use magpie_client::{
    Body, Client, Config, ConversationId, Entry, Error, Event, Events, Incarnation, Status, StorePlace, TimelineId,
};
use magpie_node::Options;
use magpie_protocol::{Answer, limits::PAGE_ENTRIES_MAX};
use magpie_tests::{
    InProcess, Person, Place, from_env,
    node::test_config,
    people::{PASSWORD, befriend},
    raw::{Key, Net, Raw, entries},
    stop, until,
};

const SOON: Duration = Duration::from_secs(60);
const I: Incarnation = Incarnation::from_bits(7 << 24);

fn node() -> (tempfile::TempDir, InProcess, Place) {
    let dir = tempfile::tempdir().unwrap();
    let node = InProcess::start(test_config(dir.path()), Options::default());
    let place = Place::new(node.address, node.ca.clone());
    (dir, node, place)
}

fn open(place: &Place, store: &StorePlace) -> (Client, Events) {
    Client::open(&place.network, Config::new(place.server), store.clone()).unwrap()
}

/// Everything that a store holds of a conversation.
fn history(client: &Client, conversation: ConversationId) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let after = all.last().map_or(0, |entry| entry.number);
        let page = client.history(conversation, after, 700).unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn texts(entries: &[Entry]) -> Vec<&str> {
    fn text(entry: &Entry) -> Option<&str> {
        if let Body::Text(text) = &entry.body { Some(text) } else { None }
    }
    entries.iter().filter_map(text).collect()
}

fn assert_no_gap(entries: &[Entry]) {
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

/// Posts so many texts, spread over these conversations, with a full window.
async fn fill(raw: &mut Raw, conversations: &[ConversationId], count: usize) {
    let mut outstanding = std::collections::VecDeque::new();
    for i in 0..count {
        let conversation = conversations[i % conversations.len()];
        let number = (i / conversations.len()) as u64 + 1;
        let content = magpie_client::Content::Text(format!("{number} of {conversation}"));
        let post = magpie_protocol::frame::conversation::Post { conversation, incarnation: I, number, content };
        outstanding.push_back(raw.send(magpie_protocol::Request::Post(post)).await);
        if outstanding.len() >= 32 {
            let answer = raw.answer(outstanding.pop_front().unwrap()).await;
            assert!(matches!(answer, Answer::Posted(_)), "{answer:?}");
        }
    }
    for id in outstanding {
        assert!(matches!(raw.answer(id).await, Answer::Posted(_)));
    }
}

#[tokio::test]
async fn a_device_that_was_away_catches_up_exactly() {
    let count = from_env("MAGPIE_CATCH_UP", 10_000) as usize;
    let groups = (count / 50).clamp(40, 200);
    let (_dir, node, place) = node();
    let files = tempfile::tempdir().unwrap();
    let store = StorePlace::File(files.path().join("bob.db"));
    let (mut alice, _) = Raw::sign_up(&Net::to(&node), "alice", &Key::new(1)).await;
    let bob = Person::new_at(&place, "bob", store.clone()).await;
    let mut conversations = Vec::new();
    for i in 0..groups {
        conversations.push(alice.group(i as u128, &format!("g{i}"), vec![bob.id]).await);
    }
    until("bob has all groups", SOON, async || bob.client.conversations().len() == groups).await;
    for conversation in &conversations {
        bob.has(*conversation, 3, SOON).await;
    }
    bob.client.close().await;
    let begun = Instant::now();
    fill(&mut alice, &conversations, count).await;
    println!("{count} messages in {groups} conversations took {:?}", begun.elapsed());
    let (client, mut events) = open(&place, &store);
    let begun = Instant::now();
    client.resume().await.unwrap();
    let synced = async { while !matches!(events.next().await, None | Some(Event::Synced)) {} };
    tokio::time::timeout(SOON, synced).await.expect("it has everything");
    println!("caught up after {:?}", begun.elapsed());
    let mut total = 0;
    for conversation in &conversations {
        let all = history(&client, *conversation);
        assert_no_gap(&all);
        let expected: Vec<String> = (1..=all.len() - 3).map(|i| format!("{i} of {conversation}")).collect();
        assert_eq!(texts(&all), expected);
        let info = client.conversations().into_iter().find(|c| c.id == *conversation).unwrap();
        assert_eq!((info.cursor, info.head, info.unread), (all.len() as u64, all.len() as u64, all.len() as u64));
        total += texts(&all).len();
    }
    assert_eq!(total, count);
    client.close().await;
    stop(node).await;
}

#[tokio::test]
async fn pages_are_bounded_and_join_without_gap_or_overlap() {
    let (_dir, node, _) = node();
    let (mut alice, _) = Raw::sign_up(&Net::to(&node), "alice", &Key::new(1)).await;
    let group = alice.group(1, "g", vec![]).await;
    let long = "x".repeat(16_000);
    for number in 1..=20 {
        alice.post(group, (I, number), &long).await.unwrap();
    }
    for number in 21..=1_100 {
        alice.post(group, (I, number), "short").await.unwrap();
    }
    let (mut held, mut pages) = (0, 0);
    loop {
        let page = alice.pull(TimelineId::Conversation(group), held).await.unwrap();
        assert_eq!((page.first, page.head), (1, 1_102));
        let numbers: Vec<u64> = entries(&page).iter().map(|entry| entry.number).collect();
        assert!(numbers.len() <= PAGE_ENTRIES_MAX as usize);
        assert_eq!(numbers, (held + 1..=held + numbers.len() as u64).collect::<Vec<_>>());
        if numbers.is_empty() {
            break;
        }
        held += numbers.len() as u64;
        pages += 1;
    }
    assert_eq!(held, 1_102);
    println!("{held} entries in {pages} pages");
    assert!((9..20).contains(&pages), "{pages}");
    stop(node).await;
}

#[tokio::test]
async fn a_large_group_that_talks_all_at_once_sees_one_order() {
    let members = from_env("MAGPIE_GROUP", 500) as usize;
    let (_dir, node, place) = node();
    let mut people = Vec::with_capacity(members);
    for i in 0..members {
        people.push(Person::new(&place, &format!("p{i}")).await);
    }
    let others = people[1..].iter().map(|person| person.id).collect();
    let group = people[0].client.create_group("all", others).await.unwrap();
    let first = members as u64 + 1;
    for person in &people {
        person.has(group, first, SOON).await;
    }
    let begun = Instant::now();
    let mut sendings = Vec::new();
    for round in 0..2 {
        for (i, person) in people.iter().enumerate() {
            sendings.push(person.client.say(group, format!("{round} from {i}")).unwrap());
        }
    }
    for sending in sendings {
        sending.posted().await.unwrap();
    }
    let last = first + 2 * members as u64;
    for person in &people {
        person.has(group, last, SOON).await;
    }
    println!("{members} people said two things each: {:?}", begun.elapsed());
    let order = history(&people[0].client, group);
    assert_no_gap(&order);
    assert_eq!(order.len() as u64, last);
    let mut said: Vec<&str> = texts(&order);
    for i in 0..members {
        let own = [format!("0 from {i}"), format!("1 from {i}")];
        let at = own.each_ref().map(|text| said.iter().position(|t| t == text).unwrap());
        assert!(at[0] < at[1], "{i} is heard out of order");
    }
    said.sort_unstable();
    said.dedup();
    assert_eq!(said.len(), 2 * members, "each once");
    for person in &people {
        assert_eq!(history(&person.client, group), order, "{} sees another order", person.name);
    }
    stop(node).await;
}

#[tokio::test]
async fn a_device_that_reads_slowly_is_told_to_pull_and_gets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = test_config(dir.path());
    config.gateway.hints_bytes_max = 16 * 1024;
    let node = InProcess::start(config, Options::default());
    let mut small = quinn::TransportConfig::default();
    small.stream_receive_window(8_192u32.into());
    let slow_net = Net::with(node.address, &node.ca, magpie_protocol::ALPN, small);
    let (mut alice, _) = Raw::sign_up(&Net::to(&node), "alice", &Key::new(1)).await;
    let (mut bob, bob_is) = Raw::sign_up(&slow_net, "bob", &Key::new(2)).await;
    let group = alice.group(1, "g", vec![bob_is.user]).await;
    let timeline = TimelineId::Conversation(group);
    until("bob follows", SOON, async || bob.sync().await.len() == 2).await;
    // He reads nothing while a megabyte comes.
    let text = "y".repeat(4_000);
    for number in 1..=300 {
        alice.post(group, (I, number), &text).await.unwrap();
    }
    // Now he reads, by the rules of the protocol: hints in order, a pull where there is a gap.
    let (mut held, mut hinted, mut pulled, mut told) = (3, 0, 0, 0);
    while held < 303 {
        let answer = match bob.unasked.pop_front() {
            Some(answer) => answer,
            None => bob.next().await.expect("the session goes on").body,
        };
        let head = match answer {
            Answer::Pushed(pushed) if pushed.timeline == timeline => {
                let entry = Entry::from_bytes(&pushed.entry.0).unwrap();
                hinted += u64::from(entry.number == held + 1);
                held += u64::from(entry.number == held + 1);
                entry.number
            }
            Answer::Behind(behind) => {
                told += 1;
                behind.heads.iter().find(|head| head.timeline == timeline).map_or(0, |head| head.head)
            }
            _ => 0,
        };
        while head > held {
            let page = entries(&bob.pull(timeline, held).await.unwrap());
            assert_eq!(page.first().map(|entry| entry.number), Some(held + 1));
            assert_no_gap(&page);
            held = page.last().unwrap().number;
            pulled += page.len();
        }
    }
    println!("{hinted} by hints, {pulled} by pulling, told to pull {told} times");
    assert!(hinted > 0 && pulled > 100 && told > 0);
    let last = alice.post(group, (I, 301), "and now").await.unwrap().0;
    let heard = async {
        loop {
            if let Some(Answer::Pushed(pushed)) = bob.next().await.map(|frame| frame.body)
                && Entry::from_bytes(&pushed.entry.0).unwrap().number == last
            {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, heard).await.expect("hints come again");
    stop(node).await;
}

#[tokio::test]
async fn a_store_that_was_closed_goes_on_where_it_was() {
    let (_dir, node, place) = node();
    let files = tempfile::tempdir().unwrap();
    let store = StorePlace::File(files.path().join("alice.db"));
    let alice = Person::new_at(&place, "alice", store.clone()).await;
    let bob = Person::new(&place, "bob").await;
    let direct = befriend(&alice, &bob).await;
    let mut expected = Vec::new();
    for round in 0..4 {
        let (client, _events) = match round {
            0 => (alice.client.clone(), None),
            _ => {
                let (client, events) = open(&place, &store);
                (client, Some(events))
            }
        };
        // Before there is a session: it is stored, and sent when there is one. The last is cut off by the close.
        let texts = [format!("{round} before"), format!("{round} after"), format!("{round} at the end")];
        drop(client.say(direct, &texts[0]).unwrap());
        client.resume().await.unwrap();
        client.say(direct, &texts[1]).unwrap().posted().await.unwrap();
        drop(client.say(direct, &texts[2]).unwrap());
        client.close().await;
        expected.extend(texts);
        bob.say(direct, &format!("{round} heard")).await;
    }
    let last = Person::back(&place, store).await;
    until("all is sent", SOON, async || last.client.unresolved() == 0).await;
    let head = 3 + expected.len() as u64 + 4;
    last.has(direct, head, SOON).await;
    bob.has(direct, head, SOON).await;
    let all = history(&last.client, direct);
    assert_no_gap(&all);
    let own: Vec<&str> = texts(&all).into_iter().filter(|text| !text.ends_with("heard")).collect();
    assert_eq!(own, expected, "each once, in the order in which they were said");
    assert_eq!(all, history(&bob.client, direct));
    stop(node).await;
}

/// A store of alice's that has said one thing, closed; and bob, who listens.
async fn closed_store(place: &Place, store: &StorePlace) -> (Person, ConversationId) {
    let alice = Person::new_at(place, "alice", store.clone()).await;
    let bob = Person::new(place, "bob").await;
    let direct = befriend(&alice, &bob).await;
    alice.say(direct, "first").await;
    alice.client.close().await;
    (bob, direct)
}

#[tokio::test]
async fn a_wiped_store_begins_anew_and_reuses_no_number() {
    let (_dir, node, place) = node();
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("alice.db");
    let store = StorePlace::File(path);
    let (bob, direct) = closed_store(&place, &store).await;
    for entry in std::fs::read_dir(files.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let (client, _events) = open(&place, &store);
    assert_eq!(client.resume().await, Err(Error::NotSignedIn));
    client.sign_in("alice", PASSWORD).await.unwrap();
    // What was said before comes back, and the first thing said now is no retry of the first thing said then.
    let number = client.say(direct, "second").unwrap().posted().await.unwrap().number;
    bob.has(direct, number, SOON).await;
    assert_eq!(bob.texts(direct), ["first", "second"]);
    until("it is all here again", SOON, async || history(&client, direct) == history(&bob.client, direct)).await;
    stop(node).await;
}

#[tokio::test]
async fn a_copied_store_loses_and_repeats_nothing() {
    let (_dir, node, place) = node();
    let files = tempfile::tempdir().unwrap();
    let (original, copy) = (files.path().join("alice.db"), files.path().join("copy.db"));
    let store = StorePlace::File(original.clone());
    let (bob, direct) = closed_store(&place, &store).await;
    for ending in ["", ".lock", "-wal", "-shm"] {
        let name = |path: &std::path::Path| format!("{}{ending}", path.display());
        _ = std::fs::copy(name(&original), name(&copy));
    }
    let mut expected = vec!["first".to_owned()];
    // Both go on, in turn: the same device, from two stores. Each takes the session over from the other.
    for round in 0..3 {
        for path in [&original, &copy] {
            let (client, _events) = open(&place, &StorePlace::File(path.clone()));
            client.resume().await.unwrap();
            let text = format!("{round} from {}", path.file_name().unwrap().display());
            let number = client.say(direct, &text).unwrap().posted().await.unwrap().number;
            assert!(number > 0, "{text:?} has no place");
            expected.push(text);
            bob.has(direct, number, SOON).await;
            until("it has all", SOON, async || history(&client, direct) == history(&bob.client, direct)).await;
            client.close().await;
        }
    }
    assert_eq!(bob.texts(direct), expected);
    bob.assert_in_order(direct);
    stop(node).await;
}

#[tokio::test]
async fn a_restored_store_loses_and_repeats_nothing() {
    let (_dir, node, place) = node();
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("alice.db");
    let store = StorePlace::File(path.clone());
    let (bob, direct) = closed_store(&place, &store).await;
    let backup = std::fs::read(&path).unwrap();
    let mut expected = vec!["first".to_owned()];
    for round in 0..2 {
        let (client, _events) = open(&place, &store);
        client.resume().await.unwrap();
        for i in 0..40 {
            expected.push(format!("{round}: {i}"));
            client.say(direct, expected.last().unwrap()).unwrap().posted().await.unwrap();
        }
        client.close().await;
        // The backup of before is put back, under a store that has said more since.
        std::fs::write(&path, &backup).unwrap();
        for ending in ["-wal", "-shm"] {
            _ = std::fs::remove_file(format!("{}{ending}", path.display()));
        }
    }
    let (client, _events) = open(&place, &store);
    client.resume().await.unwrap();
    expected.push("last".into());
    let number = client.say(direct, "last").unwrap().posted().await.unwrap().number;
    bob.has(direct, number, SOON).await;
    assert_eq!(bob.texts(direct), expected);
    until("it has all", SOON, async || history(&client, direct) == history(&bob.client, direct)).await;
    stop(node).await;
}

#[tokio::test]
async fn a_second_client_does_not_get_a_store_that_is_in_use() {
    let (_dir, node, place) = node();
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("alice.db");
    let store = StorePlace::File(path.clone());
    let alice = Person::new_at(&place, "alice", store.clone()).await;
    let second = Client::open(&place.network, Config::new(place.server), store.clone());
    assert_eq!(second.err(), Some(Error::StoreInUse(path)));
    let group = alice.client.create_group("g", vec![]).await.unwrap();
    alice.say(group, "not disturbed").await;
    assert_eq!(alice.client.status(), Status::Online);
    alice.client.close().await;
    assert!(Client::open(&place.network, Config::new(place.server), store).is_ok());
    stop(node).await;
}
