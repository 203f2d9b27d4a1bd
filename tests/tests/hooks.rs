//! Those who are told of what happens: whom, how, and what becomes of it when they do not listen.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use magpie_node::{
    Config, Options,
    hooks::{ReceiverStatus, everywhere, query::Act},
};
use magpie_protocol::{
    ConversationId, Kind, Message,
    frame::{
        account::SetProfile,
        conversation::{Content, React},
        personal::SetConversation,
    },
};
use magpie_tests::{
    InProcess, Person, Place,
    cluster::Cluster,
    node::test_config,
    people::befriend,
    receiver::{Heard, Mood, Receiver},
    until,
};
use serde_json::Value;

/// A leader waits for four seconds before it takes people for away.
const SOON: Duration = Duration::from_secs(20);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn start(dir: &std::path::Path, change: impl FnOnce(&mut Config)) -> (InProcess, Place) {
    let mut config = test_config(dir);
    config.hooks.secret = SECRET.to_owned();
    config.hooks.timeout_ms = 500;
    change(&mut config);
    let node = InProcess::start(config, Options::default());
    let place = Place::new(node.address, node.ca.clone());
    (node, place)
}

async fn status(node: &InProcess) -> Vec<ReceiverStatus> {
    everywhere::status(node.observer.router()).await.0
}

/// Whether the signature is right, as Python sees it.
fn is_signed(heard: &Heard) -> bool {
    const CHECK: &str = "
import base64, hashlib, hmac, sys
secret, id, time, signature = sys.argv[1:5]
body = sys.stdin.buffer.read()
key = base64.b64decode(secret.removeprefix('whsec_'))
digest = hmac.new(key, f'{id}.{time}.'.encode() + body, hashlib.sha256).digest()
expected = 'v1,' + base64.b64encode(digest).decode()
sys.exit(0 if any(hmac.compare_digest(expected, one) for one in signature.split()) else 3)
";
    let (time, signature) = (&heard.headers["webhook-timestamp"], &heard.headers["webhook-signature"]);
    let mut python = Command::new("python3")
        .args(["-c", CHECK, SECRET, heard.id(), time, signature])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(&heard.body).unwrap();
    python.wait().unwrap().code() == Some(0)
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
    let (node, place) = start(dir.path(), |config| config.hooks.push_url = push.url());
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
    assert!(is_signed(&heard[0]), "{heard:?}");
    let mut wrong = heard[0].clone();
    wrong.body[10] ^= 1;
    assert!(!is_signed(&wrong), "the check of this test checks nothing");
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
    let (node, place) = start(dir.path(), |config| config.hooks.webhook_url = hook.url());
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let conversation = befriend(&ann, &ben).await;
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
    let firsts: Vec<u64> = single.iter().copied().filter(|number| seen.insert(*number)).collect();
    assert_eq!(firsts, numbers, "each once or again, in order, and none missing");
    assert_eq!(several, []);
    ids_are_stable(&hook);
    let failed = hook.heard().iter().filter(|heard| !heard.taken).count();
    assert!(failed > 5, "only {failed} tries failed: this test tries nothing");
    let created = hook.taken("user.created");
    assert_eq!(created.len(), 2);
    assert_eq!(hook.taken("contact.accepted").len(), 2, "once for each of both");
    let texts: Vec<String> = ben.texts(conversation).into_iter().collect();
    assert_eq!(texts.len(), numbers.len());
    node.stop();
}

#[tokio::test]
async fn past_the_limit_there_is_one_for_each_person() {
    let dir = tempfile::tempdir().unwrap();
    let (push, hook) = (Receiver::start(Mood::HangsUp), Receiver::start(Mood::HangsUp));
    let (node, place) = start(dir.path(), |config| {
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

/// The refusal of a message, if it was refused.
async fn refusal(from: &Person, conversation: ConversationId, content: Content) -> Option<String> {
    let posted = from.client.post(conversation, content).unwrap().posted().await;
    posted.err().map(|error| error.to_string())
}

fn text(text: &str) -> Content {
    Content::Text(text.to_owned())
}

#[tokio::test]
async fn a_listed_word_is_refused_or_masked_and_the_numbers_go_on() {
    for action in ["refuse", "mask"] {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("words");
        std::fs::write(&list, "bad\n").unwrap();
        let (node, place) = start(&dir.path().join("data"), |config| {
            config.hooks.words.clone_from(&list);
            config.hooks.words_action = action.to_owned();
        });
        let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
        let direct = befriend(&ann, &ben).await;
        let mut sent = Vec::new();
        for n in 0..40 {
            let words = if n % 3 == 0 { format!("ＢＡＤ {n}") } else { format!("good {n}") };
            sent.push((n % 3 == 0, ann.client.post(direct, text(&words)).unwrap()));
            if n % 10 == 5 {
                // What was sent and not answered is sent again.
                ann.client.drop_connection();
            }
        }
        let mut expected = Vec::new();
        for (n, (bad, sending)) in sent.into_iter().enumerate() {
            let posted = sending.posted().await;
            match (bad, action) {
                (true, "refuse") => {
                    let error = posted.unwrap_err().to_string();
                    assert!(error.contains("words that are not allowed"), "{error}");
                }
                (true, _) => {
                    assert_eq!(posted.unwrap().number, 0, "an answer with a number would stand for other words");
                    expected.push(format!("*** {n}"));
                }
                (false, _) => {
                    posted.unwrap();
                    expected.push(format!("good {n}"));
                }
            }
        }
        let last = 3 + expected.len() as u64;
        for person in [&ann, &ben] {
            person.has(direct, last, SOON).await;
            assert_eq!(person.texts(direct), expected, "{} ({action})", person.name);
            person.assert_in_order(direct);
        }
        let tablet = Person::another(&place, "ann").await;
        tablet.has(direct, last, SOON).await;
        assert_eq!(tablet.texts(direct), expected);
        let refused = ann.client.create_group("bad company", vec![ben.id]).await;
        assert!(refused.unwrap_err().to_string().contains("title"), "a group's title");
        let sign = |emoji: &str| Content::React(React { number: last, emoji: emoji.into(), on: true });
        assert!(refusal(&ann, direct, sign("bad")).await.is_some(), "a sign of letters");
        assert_eq!(refusal(&ann, direct, sign("👍")).await, None);
        let cat = Person::new(&place, "cat").await;
        let refused = ann.client.request_contact(cat.id, "bad manners").await;
        assert!(refused.unwrap_err().to_string().contains("greeting"));
        let shown = |nickname: &str| SetProfile { nickname: Some(nickname.into()), ..SetProfile::default() };
        let refused = ann.client.set_profile(shown("bad girl")).await;
        assert!(refused.unwrap_err().to_string().contains("nickname"));
        ann.client.set_profile(shown("good girl")).await.unwrap();
        let entered = Person::by(&place, async |client| client.sign_up("bad", "a long password").await).await;
        assert!(entered.err().unwrap().to_string().contains("handle"));
        // The list is read again when it changes.
        std::fs::write(&list, "worse\n").unwrap();
        until("the new list holds", SOON, async || {
            ann.client.post(direct, text("bad")).unwrap().posted().await.is_ok_and(|posted| posted.number > 0)
        })
        .await;
        let worse = ann.client.post(direct, text("so much WORSE!")).unwrap().posted().await;
        assert!(worse.is_err() || worse.is_ok_and(|posted| posted.number == 0));
        node.stop();
    }
}

#[tokio::test]
async fn a_service_is_asked_first_and_what_it_says_counts_once() {
    for default in ["allow", "refuse"] {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("words");
        std::fs::write(&list, "bad\n").unwrap();
        let service = Receiver::start(Mood::Says(200, r#"{"allow": true}"#.to_owned()));
        let (node, place) = start(&dir.path().join("data"), |config| {
            config.hooks.words.clone_from(&list);
            config.hooks.before_send_url = service.url();
            config.hooks.before_send_timeout_ms = 300;
            config.hooks.before_send_default = default.to_owned();
        });
        let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
        let direct = befriend(&ann, &ben).await;
        assert_eq!(refusal(&ann, direct, text("one")).await, None);
        let asked = service.heard().pop().unwrap();
        assert!(is_signed(&asked) && asked.kind() == "before_send");
        assert_eq!(asked.json["data"]["content"], serde_json::json!({ "kind": "text", "text": "one" }));
        service.set(Mood::Says(200, r#"{"allow": false, "reason": "not in this house"}"#.to_owned()));
        let refused = refusal(&ann, direct, text("two")).await.unwrap();
        assert!(refused.contains("not in this house"), "{refused}");
        let refused = ann.client.create_group("our house", vec![]).await.unwrap_err().to_string();
        assert!(refused.contains("not in this house") && refused.contains("title"), "{refused}");
        let asked = service.heard();
        let of_last = &asked.last().unwrap().json["data"]["content"];
        assert_eq!(*of_last, serde_json::json!({ "kind": "title", "text": "our house" }));
        // What the list refuses it is not asked.
        let refused = ann.client.create_group("bad house", vec![]).await.unwrap_err().to_string();
        assert!(refused.contains("words") && refused.contains("title"), "{refused}");
        assert_eq!(service.heard().len(), asked.len());
        let shown = SetProfile { signature: Some("our house".into()), ..SetProfile::default() };
        assert!(ann.client.set_profile(shown).await.unwrap_err().to_string().contains("signature"));
        // Whatever it does: the answer comes in time, and says what was configured.
        let moods = [
            Mood::Slow(Duration::from_secs(3)),
            Mood::Says(500, r#"{"allow": true}"#.to_owned()),
            Mood::Says(200, "garbage".to_owned()),
            Mood::Garbage,
            Mood::HangsUp,
        ];
        for (n, mood) in moods.into_iter().enumerate() {
            service.set(mood);
            let began = Instant::now();
            let refused = refusal(&ann, direct, text(&format!("mood {n}"))).await;
            assert!(began.elapsed() < Duration::from_millis(1_500), "it took {:?}", began.elapsed());
            assert_eq!(refused.is_some(), default == "refuse", "{refused:?} in mood {n}");
        }
        // Many at once, judged one by one, some lost on their way: in order, each once.
        service.set(Mood::Says(200, r#"{"allow": true}"#.to_owned()));
        let sent: Vec<_> = (0..60)
            .map(|n| {
                if n == 20 || n == 40 {
                    ann.client.drop_connection();
                }
                ann.client.post(direct, text(&format!("many {n}"))).unwrap()
            })
            .collect();
        for sending in sent {
            sending.posted().await.unwrap();
        }
        let mut expected = vec!["one".to_owned()];
        if default == "allow" {
            expected.extend((0..5).map(|n| format!("mood {n}")));
        }
        expected.extend((0..60).map(|n| format!("many {n}")));
        ben.has(direct, 3 + expected.len() as u64, SOON).await;
        assert_eq!(ben.texts(direct), expected, "what was refused left no trace");
        assert_eq!(ann.texts(direct), expected);
        node.stop();
    }
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
