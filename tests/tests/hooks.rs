//! Those who are told of what happens: whom, how, and what becomes of it when they do not listen.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use magpie_node::hooks::{ReceiverStatus, everywhere, query::Act};
use magpie_protocol::{
    ConversationId, Kind, Message,
    frame::{conversation::Content, personal::SetConversation},
};
use magpie_tests::{
    InProcess, Person,
    cluster::Cluster,
    people::befriend,
    receiver::{Heard, Mood, Receiver, start_node},
    until,
};
use serde_json::Value;

/// A leader waits for four seconds before it takes people for away.
const SOON: Duration = Duration::from_secs(20);

async fn status(node: &InProcess) -> Vec<ReceiverStatus> {
    everywhere::status(node.observer.router()).await.0
}

async fn hears(receiver: &Receiver, kind: &str, count: usize) -> Vec<Heard> {
    until(&format!("{count} of {kind}"), SOON, async || receiver.taken(kind).len() >= count).await;
    receiver.taken(kind)
}

fn mention(text: &str, of: &Person) -> Content {
    Content::Say(Message { kind: Kind::Text(text.to_owned()), quote: 0, mentions: vec![of.id] })
}

#[tokio::test]
async fn who_is_away_is_woken_and_who_is_here_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let push = Receiver::start(Mood::Takes);
    let (node, place) = start_node(dir.path(), |config| config.hooks.push_url = push.url());
    let (ann, ben, cat) =
        (Person::new(&place, "ann").await, Person::new(&place, "ben").await, Person::new(&place, "cat").await);
    let direct = befriend(&ann, &ben).await;
    let group = ann.client.create_group("team", vec![ben.id, cat.id]).await.unwrap();
    ann.say(direct, "you are here").await;
    let here = ann.say(group, "all are here").await;
    for person in [&ann, &ben, &cat] {
        person.has(group, here, SOON).await;
    }
    let quiet =
        SetConversation { conversation: group, pinned: None, do_not_disturb: Some(true), saved: None, hidden_at: None };
    ben.client.set_conversation(quiet).await.unwrap();
    // A leader that is new waits until it knows who is here.
    until("all is evaluated", SOON, async || status(&node).await.iter().all(|of| of.shards == 8 && of.waiting == 0))
        .await;
    assert_eq!(push.heard().len(), 0);
    ben.client.close().await;
    until("ben is gone", SOON, async || node.observer.status().sessions == 2).await;
    let number = ann.say(direct, "wake up, 本! ".repeat(20).as_str()).await;
    let heard = hears(&push, "push.message", 1).await;
    let data = &heard[0].json["data"];
    assert_eq!(data["user"], ben.id.to_string());
    assert_eq!((&data["conversation"], &data["number"]), (&direct.to_string().into(), &number.into()));
    assert_eq!(
        (&data["sender"], &data["kind"], &data["direct"]),
        (&ann.id.to_string().into(), &"text".into(), &true.into())
    );
    let preview = data["preview"].as_str().unwrap();
    assert!(preview.starts_with("wake up, 本!") && preview.chars().count() == 101, "{preview}");
    assert!(heard[0].is_signed(), "{heard:?}");
    let mut wrong = heard[0].clone();
    wrong.body[10] ^= 1;
    assert!(!wrong.is_signed(), "the check of this test checks nothing");
    // He does not want to be disturbed by the group ...
    cat.say(group, "nobody needs this").await;
    // ... but where it is about him.
    let sent = cat.client.post(group, mention("@ben", &ben)).unwrap().posted().await.unwrap();
    let heard = hears(&push, "push.message", 2).await;
    let data = &heard[1].json["data"];
    assert_eq!((&data["user"], &data["number"]), (&ben.id.to_string().into(), &sent.number.into()));
    assert_eq!((&data["mentioned"], &data["title"]), (&true.into(), &"team".into()));
    // Somebody asks to be his contact.
    cat.client.request_contact(ben.id, "it is me").await.unwrap();
    let heard = hears(&push, "push.contact_requested", 1).await;
    assert_eq!(heard[0].json["data"]["greeting"], "it is me");
    // He is back: nobody wakes him.
    let ben = Person::another(&place, "ben").await;
    ben.has(direct, number, SOON).await;
    let before = push.heard().len();
    let last = ann.say(direct, "welcome").await;
    ben.has(direct, last, SOON).await;
    cat.client.close().await;
    until("cat is gone", SOON, async || node.observer.status().sessions == 2).await;
    let told = ann.say(group, "cat?").await;
    hears(&push, "push.message", 3).await;
    let news: Vec<Value> = push.heard()[before..].iter().map(|heard| heard.json["data"].clone()).collect();
    assert_eq!(news.len(), 1, "{news:?}");
    assert_eq!((&news[0]["user"], &news[0]["number"]), (&cat.id.to_string().into(), &told.into()));
    node.stop();
}

/// The numbers of a conversation's messages that were taken, in the order of their taking, and those that were told as
/// ranges.
fn told(receiver: &Receiver, conversation: ConversationId) -> (Vec<u64>, Vec<(u64, u64, u64)>) {
    let of = |heard: &Heard| heard.json["data"]["conversation"] == conversation.to_string();
    let number = |heard: &Heard| heard.json["data"]["number"].as_u64().unwrap();
    let range = |heard: &Heard| {
        let part = |name: &str| heard.json["data"][name].as_u64().unwrap();
        (part("first_number"), part("last_number"), part("count"))
    };
    let single = receiver.taken("message.posted");
    let several = receiver.taken("several");
    (single.iter().filter(|h| of(h)).map(number).collect(), several.iter().filter(|h| of(h)).map(range).collect())
}

/// The same id is the same event.
fn ids_are_stable(receiver: &Receiver) {
    let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for heard in receiver.heard() {
        let known = bodies.entry(heard.id().to_owned()).or_insert_with(|| heard.body.clone());
        assert_eq!(*known, heard.body, "{} was told in two ways", heard.id());
    }
}

#[tokio::test]
async fn a_receiver_that_does_not_listen_holds_nobody_up_and_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Receiver::start(Mood::Takes);
    let (node, place) = start_node(dir.path(), |config| config.hooks.webhook_url = hook.url());
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let conversation = befriend(&ann, &ben).await;
    // It is told of what happens from the moment on that the conversation's shard follows for it, soon after the start.
    until("it is told what is said", Duration::from_secs(30), async || {
        ann.say(conversation, "do you hear?").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        !told(&hook, conversation).0.is_empty()
    })
    .await;
    let moods = [
        Mood::HangsUp,
        Mood::Garbage,
        Mood::Says(500, "no".repeat(100_000)),
        Mood::Says(302, String::new()),
        Mood::Slow(Duration::from_millis(700)),
        Mood::Says(429, "{}".to_owned()),
        Mood::Slow(Duration::from_millis(20)),
    ];
    let (mut slowest, mut numbers) = (Duration::ZERO, Vec::new());
    for (round, mood) in moods.into_iter().enumerate() {
        hook.set(mood);
        for n in 0..20 {
            let (from, began) = (if n % 2 == 0 { &ann } else { &ben }, Instant::now());
            numbers.push(from.say(conversation, &format!("{round} {n}")).await);
            slowest = slowest.max(began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    println!("the slowest acknowledgement took {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "somebody waited {slowest:?} for a receiver");
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    hook.set(Mood::Takes);
    let last = *numbers.last().unwrap();
    until("the last is told", Duration::from_secs(90), async || told(&hook, conversation).0.contains(&last)).await;
    let (single, several) = told(&hook, conversation);
    let mut seen = BTreeSet::new();
    let of_moods = |number: &u64| *number >= numbers[0];
    let firsts: Vec<u64> = single.iter().copied().filter(of_moods).filter(|number| seen.insert(*number)).collect();
    assert_eq!(firsts, numbers, "each once or again, in order, and none missing");
    assert_eq!(several, []);
    ids_are_stable(&hook);
    let failed = hook.heard().iter().filter(|heard| !heard.taken).count();
    assert!(failed > 2, "only {failed} tries failed: this test tries nothing");
    let different = |kind| hook.taken(kind).iter().map(|heard| heard.id().to_owned()).collect::<BTreeSet<_>>().len();
    assert_eq!(different("user.created"), 2);
    assert_eq!(different("contact.accepted"), 2, "one for each of both");
    let said = ben.texts(conversation).into_iter().filter(|text| text != "do you hear?").count();
    assert_eq!(said, numbers.len());
    node.stop();
}

#[tokio::test]
async fn past_the_limit_there_is_one_for_each_person() {
    let dir = tempfile::tempdir().unwrap();
    let (push, hook) = (Receiver::start(Mood::HangsUp), Receiver::start(Mood::HangsUp));
    let (node, place) = start_node(dir.path(), |config| {
        config.storage.shards = 1;
        config.hooks.push_url = push.url();
        config.hooks.webhook_url = hook.url();
        config.hooks.backlog_items = 30;
    });
    let (ann, ben, cat) =
        (Person::new(&place, "ann").await, Person::new(&place, "ben").await, Person::new(&place, "cat").await);
    let group = ann.client.create_group("team", vec![ben.id, cat.id]).await.unwrap();
    let first = ann.say(group, "hello").await;
    for person in [&ben, &cat] {
        person.has(group, first, SOON).await;
        person.client.close().await;
    }
    until("they are gone", SOON, async || node.observer.status().sessions == 1).await;
    let mut numbers = vec![first];
    for n in 0..300 {
        numbers.push(ann.say(group, &format!("{n}")).await);
        if n % 100 == 99 {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }
    let backlog = async |name: &str| status(&node).await.into_iter().find(|status| status.receiver == name).unwrap();
    until("most is folded", Duration::from_secs(60), async || {
        let (push, hook) = (backlog("push").await, backlog("webhook").await);
        push.waiting <= 60 && push.collapsed > 100 && hook.collapsed > 100
    })
    .await;
    println!("{:?}", status(&node).await);
    let seen = backlog("push").await;
    assert_eq!((seen.collapsed_into, seen.lost), (2, 0));
    assert!(seen.oldest_ms.is_some() && seen.last_error.is_some());
    push.set(Mood::Takes);
    hook.set(Mood::Takes);
    for name in ["push", "webhook"] {
        assert!(everywhere::act(node.observer.router(), name, Act::Retry).await.unwrap());
    }
    until("all is told", Duration::from_secs(60), async || {
        status(&node).await.iter().all(|of| of.waiting == 0 && of.collapsed == 0)
    })
    .await;
    let (single, several) = told(&hook, group);
    let mut covered: Vec<u64> = single.clone();
    // A range also counts what is no message: who joined, for instance.
    covered.extend(several.iter().flat_map(|(first, last, _)| *first..=*last));
    let covered: BTreeSet<u64> = covered.into_iter().collect();
    assert!(numbers.iter().all(|number| covered.contains(number)), "{single:?} {several:?}");
    let counted: u64 = several.iter().map(|(_, _, count)| count).sum();
    assert!(several.len() <= 3 && counted > 100, "{several:?}");
    for person in [&ben, &cat] {
        let mine = |kind: &str| {
            let of = |heard: &Heard| heard.json["data"]["user"] == person.id.to_string();
            push.taken(kind).into_iter().filter(of).collect::<Vec<_>>()
        };
        let several = mine("push.several");
        let counted: u64 = several.iter().map(|heard| heard.json["data"]["count"].as_u64().unwrap()).sum();
        let single: BTreeSet<u64> =
            mine("push.message").iter().map(|h| h.json["data"]["number"].as_u64().unwrap()).collect();
        assert!((1..=3).contains(&several.len()), "{several:?}");
        // What was on its way when it was folded may have been taken and be counted too.
        assert!(counted + single.len() as u64 >= 300, "{counted} and {single:?} of {}", person.name);
        assert_eq!(several[0].json["data"]["last"]["conversation"], group.to_string());
    }
    ids_are_stable(&hook);
    ids_are_stable(&push);
    node.stop();
}

#[tokio::test]
async fn a_leader_is_killed_and_nothing_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Receiver::start_at("0.0.0.0:0", Mood::Slow(Duration::from_millis(5)));
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_magpie-test-node"));
    let port = hook.address.port();
    let mut cluster = Cluster::start_with(
        program,
        dir.path(),
        3,
        7,
        |_| None,
        |lan| {
            let url = format!("http://{}:{port}/hook", lan.middle());
            vec![("MAGPIE_HOOKS_WEBHOOK_URL", url), ("MAGPIE_HOOKS_TIMEOUT_MS", "500".to_owned())]
        },
    );
    cluster.ready().await;
    let place = cluster.place();
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let conversation = befriend(&ann, &ben).await;
    let mut numbers = Vec::new();
    for round in 0..3 {
        for n in 0..40 {
            let from = if n % 2 == 0 { &ann } else { &ben };
            numbers.push(from.say(conversation, &format!("{round} {n}")).await);
            if n == 20 && round < 2 {
                let gone = cluster.busiest();
                let before = cluster.leaders();
                cluster.kill(gone);
                let lost: Vec<_> = before.iter().map(|led| led.filter(|led| led.by == gone)).collect();
                assert!(lost.iter().any(Option::is_some), "the one that was killed led nothing");
            }
        }
        for at in 0..3 {
            if cluster.status(at).is_none() {
                cluster.restart(at, &[]);
            }
        }
        cluster.ready().await;
    }
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    let last = *numbers.last().unwrap();
    until("the last is told", Duration::from_secs(90), async || told(&hook, conversation).0.contains(&last)).await;
    let (single, several) = told(&hook, conversation);
    let mut seen = BTreeSet::new();
    let firsts: Vec<u64> = single.iter().copied().filter(|number| seen.insert(*number)).collect();
    assert_eq!(several, []);
    let missed: Vec<u64> = numbers.iter().copied().filter(|number| !seen.contains(number)).collect();
    assert_eq!(missed, [] as [u64; 0], "of {} messages", numbers.len());
    assert!(firsts.windows(2).all(|pair| pair[0] < pair[1]), "out of order: {firsts:?}");
    println!("{} messages were told in {} requests", numbers.len(), single.len());
    ids_are_stable(&hook);
    cluster.terminate();
}
