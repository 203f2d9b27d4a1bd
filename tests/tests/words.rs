//! Words that are not to be sent: those of a list, and those that a service says no to.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use magpie_protocol::{
    ConversationId,
    frame::{
        account::SetProfile,
        conversation::{Content, React},
    },
};
use magpie_tests::{
    Person,
    people::befriend,
    receiver::{Mood, Receiver, start_node},
    until,
};

/// For what comes in the end.
const SOON: Duration = Duration::from_secs(20);

/// The refusal of a message, if it was refused.
async fn refusal(from: &Person, conversation: ConversationId, content: Content) -> Option<String> {
    let posted = from.client.post(conversation, content).unwrap().posted().await;
    posted.err().map(|error| error.to_string())
}

fn text(text: &str) -> Content {
    Content::Text(text.to_owned())
}

fn list_of(dir: &Path, words: &str) -> PathBuf {
    let list = dir.join("words");
    std::fs::write(&list, words).unwrap();
    list
}

#[tokio::test]
async fn a_listed_word_is_refused_or_masked_and_the_numbers_go_on() {
    for action in ["refuse", "mask"] {
        let dir = tempfile::tempdir().unwrap();
        let list = list_of(dir.path(), "bad\n");
        let (node, place) = start_node(&dir.path().join("data"), |config| {
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
        let list = list_of(dir.path(), "bad\n");
        let service = Receiver::start(Mood::Says(200, r#"{"allow": true}"#.to_owned()));
        let (node, place) = start_node(&dir.path().join("data"), |config| {
            config.hooks.words.clone_from(&list);
            config.hooks.before_send_url = service.url();
            config.hooks.before_send_timeout_ms = 300;
            config.hooks.before_send_default = default.to_owned();
        });
        let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
        let direct = befriend(&ann, &ben).await;
        assert_eq!(refusal(&ann, direct, text("one")).await, None);
        let asked = service.heard().pop().unwrap();
        assert!(asked.is_signed() && asked.kind() == "before_send");
        assert_eq!(asked.json["data"]["content"], serde_json::json!({ "kind": "text", "text": "one" }));
        service.set(Mood::Says(200, r#"{"allow": false, "reason": "not in this house"}"#.to_owned()));
        let refused = refusal(&ann, direct, text("two")).await.unwrap();
        assert!(refused.contains("not in this house"), "{refused}");
        let refused = ann.client.create_group("our house", vec![]).await.unwrap_err().to_string();
        assert!(refused.contains("not in this house") && refused.contains("title"), "{refused}");
        let asked = service.heard();
        let title = serde_json::json!({ "kind": "title", "text": "our house" });
        assert_eq!(asked.last().unwrap().json["data"]["content"], title);
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
