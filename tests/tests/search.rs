//! Searching: what is found in which script, by whom, and what is not.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use magpie_client::{
    ConversationId, Error, ErrorCode, Kind, Message, SetContact, SetProfile, UserId,
    message::{Card, Custom, Forwarded, ForwardedItem, Link, Location},
};
use magpie_node::{View, search};
use magpie_protocol::{
    Answer, MessageId, Request,
    frame::search::{SearchMessages, SearchNames},
};
use magpie_tests::{
    Company, InProcess, Person,
    people::befriend,
    raw::{Key, Net, Raw},
    search::{found, found_in, group},
};

const SOON: Duration = Duration::from_secs(10);

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> (ErrorCode, String) {
    match result {
        Err(Error::Refused(refusal)) => (refusal.code, refusal.field),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn every_script_is_found_as_its_readers_write_it() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let said = [
        "今天天气很好，我们去公园吧",
        "Crème brûlée im Straßencafé",
        "東京タワーで会いましょう",
        "ﾊﾝｶｸｶﾀｶﾅ ＦＵＬＬ",
        "我的iPhone坏了 help",
        "오늘 날씨가 좋아요",
        "Привет, ёжик! 👍",
        "see you at eight-thirty in room 42b",
    ];
    let mut numbers = Vec::new();
    for text in said {
        numbers.push(ann.say(talk, text).await);
    }
    for (words, at) in [
        ("天气", 0),
        ("天", 0),
        ("去公园", 0),
        ("公园 今天", 0),
        ("creme BRULEE", 1),
        ("strassencaf", 1),
        ("東京", 2),
        ("タワ", 2),
        ("ハンカクカタカナ", 3),
        ("full", 3),
        ("iphone坏", 4),
        ("坏了 hel", 4),
        ("날씨", 5),
        ("елка", 8),
        ("ЁЖИК", 6),
        ("ежи", 6),
        ("👍", 6),
        ("thirty 42b", 7),
        ("eig", 7),
        ("room ei", 7),
        ("eig ", 8),
        ("天公", 8),
        ("o", 8),
        ("会", 2),
    ] {
        let expected: Vec<u64> = numbers.get(at).copied().into_iter().collect();
        for person in [ann, ben] {
            assert_eq!(found(person, words).await, expected, "{words:?} for {}", person.name);
        }
    }
    let page = ben.client.search("公园", Some(talk), None).await.unwrap();
    let hit = &page.messages[0];
    assert_eq!((hit.sender, hit.kind, hit.place.conversation), (ann.id, 1, talk));
    assert_eq!(hit.excerpt, said[0]);
    scene.node.stop();
}

#[tokio::test]
async fn words_of_every_kind_of_message_are_found() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let item = |words: &str| ForwardedItem {
        sender: "Cat".into(),
        time_ms: 7,
        kind: magpie_protocol::codec::encode(&Kind::Text(words.into())),
    };
    let kinds = [
        Kind::Location(Location {
            latitude_e7: 1, longitude_e7: 1, name: "老树咖啡".into(), address: "Elm St".into()
        }),
        Kind::Card(Card { user: ben.id, handle: "ben_the_bird".into(), nickname: "Benny".into() }),
        Kind::Link(Link {
            url: "https://example.org/nest".into(),
            title: "How to build".into(),
            summary: "twigs".into(),
            preview: vec![],
        }),
        Kind::Forwarded(Forwarded { title: "of Cat".into(), items: vec![item("first"), item("hidden gem")] }),
        Kind::Custom(Custom { name: "com.example.poll".into(), data: b"needle".to_vec() }),
    ];
    let mut numbers = Vec::new();
    for kind in kinds {
        numbers.push(ann.act(ann.client.send(talk, Message::new(kind))).await.unwrap());
    }
    let quoting = Message { kind: Kind::Text("quite so".into()), quote: numbers[3], mentions: vec![ben.id] };
    numbers.push(ann.act(ann.client.send(talk, quoting)).await.unwrap());
    for (words, at) in [
        ("咖啡", 0),
        ("elm", 0),
        ("bird", 1),
        ("benny", 1),
        ("nest example", 2),
        ("twigs build", 2),
        ("hidden gem", 3),
        ("cat gem", 3),
        ("quite", 5),
        ("needle", 9),
    ] {
        let expected: Vec<u64> = numbers.get(at).copied().into_iter().collect();
        assert_eq!(found(ben, words).await, expected, "{words:?}");
    }
    let room = group(&[ann, ben], "the nest").await;
    let number = ann.act(ann.client.announce(room, "seed at eight")).await.unwrap();
    assert_eq!(found(ben, "seed").await, [number]);
    scene.node.stop();
}

/// What a reader may read of these numbers of a conversation, asked past the wire, as a leader asks it.
async fn readable(node: &InProcess, reader: UserId, conversation: ConversationId, numbers: &[u64]) -> Vec<u64> {
    let messages = numbers.iter().map(|number| MessageId { conversation, number: *number }).collect();
    let query = magpie_node::Query::Search(search::Query::Read { reader, messages });
    match node.router.query(conversation.slot(), query).await {
        Ok(View::Search(search::View::Read(entries))) => {
            numbers.iter().zip(entries).filter(|(_, entry)| entry.is_some()).map(|(number, _)| *number).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_finds_what_they_may_not_read() {
    let scene = Company::new(&["ann", "ben", "cat", "dan"], |_| {}).await;
    let [ann, ben, cat, dan] = &scene.people[..] else { panic!() };
    let room = group(&[ann, ben], "team").await;
    let early = ann.say(room, "magpie before").await;
    ann.act(ann.client.invite(room, cat.id)).await.unwrap();
    let during = ann.say(room, "magpie during").await;
    cat.has(room, during, SOON).await;
    ben.act(ben.client.leave(room)).await.unwrap();
    ann.act(ann.client.remove(room, cat.id)).await.unwrap();
    let late = ann.say(room, "magpie after").await;
    let all = [early, during, late];
    // Found as it may be pulled: from where one joined to where one left, and by strangers never.
    for (person, sees) in
        [(ann, vec![late, during, early]), (ben, vec![during, early]), (cat, vec![during]), (dan, vec![])]
    {
        assert_eq!(found(person, "magpie").await, sees, "{}", person.name);
        let mut read = readable(&scene.node, person.id, room, &all).await;
        read.reverse();
        assert_eq!(read, sees, "{} at the read", person.name);
    }
    // That there is such a conversation is not told, either.
    let refused = code(dan.client.search("magpie", Some(room), None).await);
    let nowhere = ConversationId::group(dan.id, 7);
    assert_eq!(refused, (ErrorCode::NotFound, "conversation".to_owned()));
    assert_eq!(refused, code(dan.client.search("magpie", Some(nowhere), None).await));
    // Who comes again sees from there on.
    ann.act(ann.client.invite(room, cat.id)).await.unwrap();
    let again = ann.say(room, "magpie again").await;
    cat.has(room, again, SOON).await;
    assert_eq!(found(cat, "magpie").await, [again]);
    // A group that was ended, and a talk that was blocked, stay readable, and so found.
    ann.act(ann.client.dissolve(room)).await.unwrap();
    assert_eq!(found(ann, "magpie").await, [again, late, during, early]);
    let talk = befriend(ann, dan).await;
    let number = ann.say(talk, "magpie between us").await;
    dan.client.block(ann.id, true).await.unwrap();
    let blocked = ann.act(ann.client.say(talk, "magpie refused")).await.unwrap_err();
    assert_eq!(blocked.code, ErrorCode::Blocked);
    for person in [ann, dan] {
        assert_eq!(found_in(person, "magpie", Some(talk)).await, [number], "{}", person.name);
    }
    scene.node.stop();
}

#[tokio::test]
async fn what_was_taken_back_edited_or_deleted_for_oneself_is_not_found() {
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let mut numbers = Vec::new();
    for text in ["secret one", "secret two", "secret three", "secret four", "secret five"] {
        numbers.push(ann.say(talk, text).await);
    }
    let at = |some: &[usize]| some.iter().map(|at| numbers[*at]).collect::<Vec<u64>>();
    // One before it was ever looked for, the others after they were.
    ann.act(ann.client.recall(talk, numbers[0])).await.unwrap();
    assert_eq!(found(ben, "secret").await, at(&[4, 3, 2, 1]));
    ann.act(ann.client.recall(talk, numbers[1])).await.unwrap();
    ann.act(ann.client.edit(talk, numbers[2], "harmless 鸟")).await.unwrap();
    ann.act(ann.client.edit(talk, numbers[3], "first try")).await.unwrap();
    assert_eq!(found(ben, "secret").await, at(&[4]));
    assert_eq!((found(ben, "harmless").await, found(ben, "鸟").await), (at(&[2]), at(&[2])));
    ann.act(ann.client.edit(talk, numbers[3], "second try")).await.unwrap();
    assert_eq!((found(ben, "first").await, found(ben, "second").await), (vec![], at(&[3])));
    ann.act(ann.client.recall(talk, numbers[3])).await.unwrap();
    assert_eq!(found(ben, "second").await, [] as [u64; 0]);
    // Recalled between the index and the read it is not found, whatever the index says: here it is not told at all.
    ann.act(ann.client.recall(talk, numbers[2])).await.unwrap();
    assert_eq!(readable(&scene.node, ben.id, talk, &at(&[2])).await, at(&[2]), "what is left of it is readable");
    assert_eq!(found(ben, "harmless").await, [] as [u64; 0]);
    // Deleted for oneself, on all one's devices, and nobody else's.
    let more = [ann.say(talk, "secret six").await, ann.say(talk, "secret seven").await];
    let other = Person::another(&scene.place, "ben").await;
    assert_eq!(found(&other, "secret").await, [more[1], more[0], numbers[4]]);
    ben.client.hide(talk, vec![more[0]]).await.unwrap();
    assert_eq!(found(&other, "secret").await, [more[1], numbers[4]]);
    ben.client.hide_up_to(talk, numbers[4]).await.unwrap();
    assert_eq!((found(&other, "secret").await, found(ben, "secret").await), (vec![more[1]], vec![more[1]]));
    assert_eq!(found(ann, "secret").await, [more[1], more[0], numbers[4]]);
    scene.node.stop();
}

#[tokio::test]
async fn pages_have_everything_once_newest_first_also_across_conversations() {
    let scene = Company::new(&["ann", "ben", "cat"], |_| {}).await;
    let (ann, ben, cat) = (&scene.people[0], &scene.people[1], &scene.people[2]);
    let talks = [befriend(ann, ben).await, befriend(ann, cat).await, group(&[ann, ben, cat], "all").await];
    let mut said = Vec::new();
    for i in 0..130 {
        let talk = talks[i % 3];
        said.push((talk, ann.say(talk, &format!("word {i}")).await));
    }
    let (mut seen, mut before, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = ann.client.search("word", None, before).await.unwrap();
        assert!(page.complete && page.messages.len() <= 50);
        assert!(page.messages.is_sorted_by(|a, b| a.place > b.place));
        seen.extend(page.messages.iter().map(|found| (found.place.conversation, found.place.number)));
        (before, pages) = (page.next, pages + 1);
        if before.is_none() {
            break;
        }
    }
    let sorted = |mut all: Vec<(ConversationId, u64)>| {
        all.sort();
        all
    };
    assert_eq!(sorted(seen), sorted(said));
    assert!(pages >= 3, "{pages} pages");
    scene.node.stop();
}

#[tokio::test]
async fn people_and_groups_are_found_by_any_part_of_a_name() {
    let scene = Company::new(&["ann", "benjamin", "cat", "dan"], |_| {}).await;
    let [ann, ben, cat, dan] = &scene.people[..] else { panic!() };
    befriend(ann, ben).await;
    befriend(ann, cat).await;
    let nickname = SetProfile { nickname: Some("喜鹊 Čermák".into()), avatar: None, region: None, signature: None };
    ben.client.set_profile(nickname.clone()).await.unwrap();
    dan.client.set_profile(nickname).await.unwrap();
    let tags = Some(vec!["Neighbours".to_owned()]);
    ann.client
        .set_contact(SetContact { user: cat.id, remark: Some("Katze".into()), tags, starred: None })
        .await
        .unwrap();
    let room = group(&[ann, cat], "Vogel-Verein").await;
    let people = async |person: &Person, words: &str| -> Vec<UserId> {
        let found = person.client.search_names(words).await.unwrap();
        assert!(found.complete);
        found.contacts.iter().map(|contact| contact.user).collect()
    };
    for (words, expected) in [
        ("jami", vec![ben.id]),
        ("喜鹊", vec![ben.id]),
        ("cerma", vec![ben.id]),
        ("KATZ", vec![cat.id]),
        ("neigh", vec![cat.id]),
        ("dan", vec![]),
    ] {
        assert_eq!(people(ann, words).await, expected, "{words:?}");
    }
    // What one person writes down of another is theirs alone.
    assert_eq!(people(ben, "katz").await, []);
    let groups = ann.client.search_names("el-ver").await.unwrap().groups;
    assert_eq!(groups.iter().map(|group| group.conversation).collect::<Vec<_>>(), [room]);
    assert!(ben.client.search_names("verein").await.unwrap().groups.is_empty());
    ann.act(ann.client.remove(room, cat.id)).await.unwrap();
    ann.act(ann.client.rename(room, "Vogel-Verein geheim")).await.unwrap();
    assert!(cat.client.search_names("geheim").await.unwrap().groups.is_empty(), "who left learns no new title");
    scene.node.stop();
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let scene = Company::new(&["ann"], |config| {
        config.limits.searches_per_user_rate = 0.1;
        config.limits.searches_per_user_burst = 5.0;
    })
    .await;
    let net = Net::to(&scene.node);
    let (mut session, _) = Raw::sign_up(&net, "raw", &Key::new(1)).await;
    let ask = |words: &str| {
        let words = words.to_owned();
        let messages = SearchMessages { words: words.clone(), conversation: None, before: None };
        [Request::SearchMessages(messages), Request::SearchNames(SearchNames { words })]
    };
    for (words, expected) in [("x".repeat(257), ErrorCode::TooLarge), (" ".to_owned(), ErrorCode::Invalid)] {
        for request in ask(&words) {
            let refused = session.refused(request).await;
            assert_eq!((refused.code, refused.field.as_str()), (expected, "words"));
        }
    }
    let [messages, names] = ask("fine");
    assert!(!matches!(session.ask(messages.clone()).await, Answer::Refused(_)));
    for request in [messages, names] {
        let refused = session.refused(request).await;
        assert!(refused.code == ErrorCode::RateLimited && refused.retry_after_ms > 0, "{refused:?}");
    }
    scene.node.stop();
    let off = Company::new(&["ann"], |config| config.search.enabled = false).await;
    let refused = code(off.people[0].client.search("fine", None, None).await);
    assert_eq!(refused, (ErrorCode::NotAllowed, "search".to_owned()));
    off.node.stop();
}
