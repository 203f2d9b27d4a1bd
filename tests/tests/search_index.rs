//! The index behind the search: bit by bit, gone, damaged, forged, swept, and on a cluster.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use magpie_client::ConversationId;
use magpie_node::{Options, search};
use magpie_tests::{
    Company, InProcess, Person, Place,
    cluster::Cluster,
    files_under, from_env,
    node::test_config,
    people::befriend,
    search::{found, found_in, group},
    until,
};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_question_too_large_for_once_is_answered_bit_by_bit() {
    let scene = Company::new(&["ann", "ben"], |config| config.search.entries_max = 40).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let mut expected = Vec::new();
    for i in 0..500 {
        expected.push(ann.say(talk, &format!("grain {i}")).await);
    }
    expected.reverse();
    let first = ben.client.search_once("grain", None, None).await.unwrap();
    let newest = expected[0];
    assert!(!first.complete && first.messages.iter().all(|found| found.place.number != newest));
    let mut tries = 1;
    while !ben.client.search_once("grain", None, None).await.unwrap().complete {
        tries += 1;
        assert!(tries < 20, "it goes on from where it stopped");
    }
    // A page is read whole, so that it goes on: of 200 entries each.
    assert!(tries >= 2, "{tries} tries");
    assert_eq!(found(ben, "grain").await, expected);
    scene.node.stop();
}

#[tokio::test]
async fn what_one_question_has_added_is_found_by_another_at_the_same_time() {
    let scene = Company::new(&["ann", "ben"], |config| config.storage.shards = 1).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let mut rooms = Vec::new();
    for i in 0..10 {
        let room = group(&[ann, ben], &format!("room {i}")).await;
        for j in 0..60 {
            ann.say(room, &format!("grain {j}")).await;
        }
        rooms.push(room);
    }
    let everywhere = async { ann.client.search("grain", None, None).await.unwrap() };
    let in_each = async {
        for _ in 0..5 {
            for room in &rooms {
                let page = ben.client.search_once("grain", Some(*room), None).await.unwrap();
                assert!(!page.complete || page.messages.len() == 50, "{} in {room}", page.messages.len());
            }
        }
    };
    let (page, ()) = tokio::join!(everywhere, in_each);
    assert!(page.complete && page.messages.len() == 50);
    scene.node.stop();
}

fn indexes(dir: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(dir.join("search")).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter(|folder| folder.join("form").exists()).collect()
}

/// All words in the indexes of a node that are now in its files; `None` while they cannot be read.
fn words_in(dir: &Path) -> Option<Vec<String>> {
    let words = indexes(dir).into_iter().map(|folder| search::index::words_in(&folder).ok());
    words.collect::<Option<Vec<_>>>().map(|all| all.concat())
}

#[tokio::test]
async fn an_index_that_is_gone_damaged_foreign_or_forged_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let config = test_config(dir.path());
    let node = InProcess::start(config.clone(), Options::default());
    let place = Place::new(node.address, node.ca.clone());
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let cat = Person::new(&place, "cat").await;
    let (talk, theirs) = (befriend(&ann, &ben).await, befriend(&ben, &cat).await);
    let mut expected = Vec::new();
    for text in ["treasure here", "nothing", "treasure there", "宝藏"] {
        expected.push((ann.say(talk, text).await, text.contains("treasure")));
    }
    let secret = cat.say(theirs, "treasure of others").await;
    let expected: Vec<u64> = expected.iter().rev().filter(|(_, is)| *is).map(|(number, _)| *number).collect();
    assert_eq!(found(&ann, "treasure").await, expected);
    let times = |person: &Person, talk| person.entries(talk).iter().map(|e| (e.number, e.time_ms)).collect::<Vec<_>>();
    ann.has(talk, expected[0] + 1, SOON).await;
    cat.has(theirs, secret, SOON).await;
    let lies = [(talk, times(&ann, talk)), (theirs, times(&cat, theirs))];
    // Gone while the node runs.
    let folder = dir.path().join("search");
    until("the folder is deleted", SOON, async || fs::remove_dir_all(&folder).is_ok()).await;
    assert_eq!(found(&ann, "treasure").await, expected);
    assert!(!indexes(dir.path()).is_empty(), "it was made anew");
    magpie_tests::stop(node).await;
    // Every file damaged while it does not.
    for file in files_under(&folder).into_iter().filter(|file| file.file_name().unwrap() != "form") {
        let mut bytes = fs::read(&file).unwrap();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 0x41;
        }
        fs::write(&file, &bytes).unwrap();
    }
    let node = InProcess::start(config.clone(), Options::default());
    let place = Place::new(node.address, node.ca.clone());
    let ann = Person::another(&place, "ann").await;
    assert_eq!(found(&ann, "treasure").await, expected);
    magpie_tests::stop(node).await;
    // An index that lies: that everything says it, what others say to each other, too.
    forge(dir.path(), &lies);
    let node = InProcess::start(config.clone(), Options::default());
    let place = Place::new(node.address, node.ca.clone());
    let ann = Person::another(&place, "ann").await;
    assert_eq!(found(&ann, "treasure").await, expected);
    assert_eq!(found_in(&ann, "treasure", Some(talk)).await, expected);
    magpie_tests::stop(node).await;
    // One of another cluster, in its place.
    for folder in indexes(dir.path()) {
        fs::write(folder.join("form"), "magpie search index, form 1\nanother 1\n").unwrap();
    }
    let node = InProcess::start(config, Options::default());
    let place = Place::new(node.address, node.ca.clone());
    let ann = Person::another(&place, "ann").await;
    assert_eq!(found(&ann, "treasure").await, expected);
    magpie_tests::stop(node).await;
}

/// Writes lies into every index of a node that is stopped.
fn forge(dir: &Path, lies: &[(ConversationId, Vec<(u64, u64)>)]) {
    use search::index::{Change, Cursor, Index};
    for folder in indexes(dir) {
        let form = fs::read_to_string(folder.join("form")).unwrap();
        let mut index = Index::open(&folder, form.lines().nth(1).unwrap(), 15_000_000).unwrap();
        for (conversation, entries) in lies {
            index.forget(*conversation).unwrap();
            let lie = |(number, time_ms): &(u64, u64)| {
                let words = "treasure".to_owned();
                Change::Put { number: *number, time_ms: *time_ms, words }
            };
            let through = entries.last().unwrap().0;
            let cursor = Cursor { conversation: *conversation, through, searched_ms: 1 };
            index.add(0, cursor, entries.iter().map(lie).collect()).unwrap();
        }
        index.commit().unwrap();
    }
}

#[tokio::test]
async fn taken_back_words_leave_the_files_of_the_index_and_so_does_what_nobody_needs() {
    let scene = Company::new(&["ann", "ben"], |config| config.search.sweep_every_s = 1).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let (recalled, edited) = ("zwiebelkuchen", "quarktasche");
    let (first, second) = (ann.say(talk, recalled).await, ann.say(talk, edited).await);
    let kept = ann.say(talk, "streuselkuchen").await;
    assert_eq!((found(ben, recalled).await, found(ben, edited).await), (vec![first], vec![second]));
    let dir = scene.dir.path();
    // Of several words, which are there; nothing while the index is being written.
    let there = |words: [&str; 4]| words_in(dir).map(|all| words.map(|word| all.iter().any(|there| there == word)));
    let words = [recalled, edited, "streuselkuchen", "butterbrot"];
    until("they are there", SOON, async || there(words) == Some([true, true, true, false])).await;
    ann.act(ann.client.recall(talk, first)).await.unwrap();
    ann.act(ann.client.edit(talk, second, "butterbrot")).await.unwrap();
    // Nobody searches: the sweep alone does it.
    until("they are gone", SOON, async || there(words) == Some([false, false, true, true])).await;
    until("the files that had them are gone, too", SOON, async || {
        indexes(dir).iter().all(|folder| {
            let meta = fs::read_to_string(folder.join("meta.json")).unwrap_or_default().replace('-', "");
            files_under(folder).iter().all(|file| {
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                let stem = name.split('.').next().unwrap_or_default().to_owned();
                stem.len() != 32 || meta.contains(&stem)
            })
        })
    })
    .await;
    assert_eq!(found(ben, "streusel").await, [kept]);
    scene.node.stop();
}

#[tokio::test]
async fn what_nobody_searches_leaves_the_index() {
    let scene = Company::new(&["ann", "ben"], |config| {
        (config.search.sweep_every_s, config.search.keep_s) = (1, 1);
    })
    .await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let number = ann.say(talk, "streuselkuchen").await;
    assert_eq!(found(ben, "streusel").await, [number]);
    let dir = scene.dir.path();
    until("nothing is left", SOON, async || words_in(dir).is_some_and(|words| words.is_empty())).await;
    assert!(!indexes(dir).is_empty(), "the index itself stays");
    assert_eq!(found(ben, "streusel").await, [number]);
    scene.node.stop();
}

const TEST_NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");

#[tokio::test]
async fn a_cluster_answers_alike_wherever_one_asks_and_whoever_leads() {
    let seed = magpie_tests::seed("search");
    let dir = tempfile::tempdir().unwrap();
    let besides = |_: &magpie_tests::lan::Lan| vec![("MAGPIE_LIMITS_SEARCHES_PER_USER_RATE", "0".to_owned())];
    let mut cluster = Cluster::start_with(Path::new(TEST_NODE), dir.path(), 3, seed, |_| None, besides);
    cluster.ready().await;
    let place = cluster.place();
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let mut expected = vec![(befriend(&ann, &ben).await, 0)];
    for i in 0..6 {
        expected.push((group(&[&ann, &ben], &format!("room {i}")).await, 0));
    }
    for (talk, number) in &mut expected {
        *number = ben.say(*talk, "喜鹊 in every shard").await;
    }
    expected.sort();
    let all = async |person: &Person| {
        let page = person.client.search("喜鹊 shard", None, None).await.unwrap();
        assert!(page.complete);
        let mut found: Vec<_> = page.messages.iter().map(|f| (f.place.conversation, f.place.number)).collect();
        found.sort();
        found
    };
    // Through each node.
    for at in 0..cluster.len() {
        let mut place = place.clone();
        (place.server, place.others) = (cluster.node(at).address, Vec::new());
        let other = Person::another(&place, "ann").await;
        assert_eq!(all(&other).await, expected, "through node {}", at + 1);
    }
    let leaders = cluster.leaders();
    let busiest = cluster.busiest();
    let led: Vec<_> = leaders.iter().flatten().filter(|led| led.by == busiest).copied().map(Some).collect();
    assert!(!led.is_empty());
    cluster.kill(busiest);
    until("others lead all shards", Duration::from_secs(30), async || {
        let now = cluster.leaders();
        now.len() == leaders.len() && now.iter().all(|led| led.is_some_and(|led| led.by != busiest))
    })
    .await;
    assert_eq!(all(&ann).await, expected, "when others lead");
    cluster.restart(busiest, &[]);
    cluster.ready().await;
    assert_eq!(all(&ben).await, expected);
    cluster.terminate();
}

/// How long it takes: `MAGPIE_SEARCH=100000 cargo test --release --workspace --test search_index how_long -- --nocapture`.
#[tokio::test]
async fn how_long_it_takes() {
    let count = from_env("MAGPIE_SEARCH", 2_000);
    let scene = Company::new(&["ann", "ben"], |_| {}).await;
    let (ann, ben) = (&scene.people[0], &scene.people[1]);
    let talk = befriend(ann, ben).await;
    let began = Instant::now();
    let words = ["喜鹊在树上", "the quick brown fox", "мы идём домой", "今日は天気がいい", "see you at eight"];
    let mut sent = std::collections::VecDeque::new();
    for i in 0..count {
        let text = format!("{} {} number{i}", words[i as usize % 5], words[(i as usize / 5) % 5]);
        sent.push_back(ann.client.say(talk, text).unwrap());
        if sent.len() >= 32 {
            sent.pop_front().unwrap().posted().await.unwrap();
        }
    }
    for sending in sent {
        sending.posted().await.unwrap();
    }
    let posted = began.elapsed();
    let (began, mut tries) = (Instant::now(), 1);
    while !ben.client.search_once("number7", None, None).await.unwrap().complete {
        tries += 1;
    }
    let indexed = began.elapsed();
    let bytes: u64 = files_under(&scene.dir.path().join("search")).iter().map(|f| fs::metadata(f).unwrap().len()).sum();
    println!(
        "{count} messages posted in {posted:?}, indexed in {indexed:?} by {tries} questions, {bytes} bytes of index"
    );
    for words in ["number7 ", "number7", "树上", "喜", "quick eight", "今日は天気がいい 喜鹊", "nowhere", "n"]
    {
        let began = Instant::now();
        let page = ben.client.search(words, None, None).await.unwrap();
        println!("{words:?}: {} of a page in {:?}", page.messages.len(), began.elapsed());
        assert!(page.complete);
    }
    let one = ben.client.search(&format!("number{} ", count / 2), None, None).await.unwrap();
    assert_eq!(one.messages.len(), 1);
    scene.node.stop();
}
