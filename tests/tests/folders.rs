//! Data folders that builds have left, one of a node that was stopped and one of a node that was killed, for each level:
//! this build starts from them and has all that was said. `MAGPIE_BLESS=1` makes those of this level where there are none.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use magpie_cluster::system::LEVEL;
use magpie_tests::{Person, Place, Process, http, people::befriend};

const TEST_NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
const SOON: Duration = Duration::from_secs(20);
const KINDS: [&str; 2] = ["stopped", "killed"];
/// Few shards, and snapshots that are made early.
const SMALL: [(&str, &str); 3] = [
    ("MAGPIE_STORAGE_SHARDS", "2"),
    ("MAGPIE_STORAGE_SNAPSHOT_BYTES_MIN", "4096"),
    ("MAGPIE_STORAGE_CHECKPOINT_MS", "200"),
];

fn archive(level: u32, kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/v{level}-{kind}.tar.gz"))
}

fn tar(arguments: &[&Path]) {
    let status = Command::new("tar").args(arguments).status().unwrap();
    assert!(status.success(), "tar {arguments:?}");
}

/// What the two say to each other.
fn said() -> Vec<String> {
    (1..=30).map(|n| format!("message {n} {}", "and so on ".repeat(n % 7))).collect()
}

async fn make(kind: &str) {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::try_start(Path::new(TEST_NODE), &dir.path().join("data"), &SMALL).unwrap();
    let place = Place::new(node.address, node.ca());
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let conversation = befriend(&alice, &bob).await;
    let mut speakers = [&alice, &bob].into_iter().cycle();
    for (n, text) in said().iter().enumerate() {
        speakers.next().unwrap().say(conversation, text).await;
        if n % 10 == 9 {
            // A checkpoint, and perhaps a snapshot.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let group = alice.client.create_group("team", vec![bob.id]).await.unwrap();
    alice.say(group, "welcome").await;
    bob.say(group, "thank you").await;
    match kind {
        "stopped" => assert_eq!(node.terminate(), 0),
        _ => drop(node.kill()),
    }
    std::fs::create_dir_all(archive(LEVEL, kind).parent().unwrap()).unwrap();
    let (file, dir) = (archive(LEVEL, kind), dir.path().to_owned());
    tar(&[Path::new("-czf"), &file, Path::new("-C"), &dir, Path::new("data")]);
}

async fn starts_from(level: u32, kind: &str) {
    let (file, dir) = (archive(level, kind), tempfile::tempdir().unwrap());
    assert!(file.exists(), "{}: MAGPIE_BLESS=1 makes it", file.display());
    tar(&[Path::new("-xzf"), &file, Path::new("-C"), dir.path()]);
    let data = dir.path().join("data");
    let node = Process::try_start(Path::new(TEST_NODE), &data, &SMALL).unwrap();
    let rebuilt = node.errors().contains("rebuilding");
    assert!(!rebuilt || kind == "killed", "what was closed is taken as it is: {}", node.errors());
    let place = Place::new(node.address, node.ca());
    let (alice, bob) = (Person::another(&place, "alice").await, Person::another(&place, "bob").await);
    let direct = magpie_client::ConversationId::direct(alice.id, bob.id);
    let head = 3 + said().len() as u64;
    for person in [&alice, &bob] {
        person.has(direct, head, SOON).await;
        assert_eq!(person.texts(direct), said(), "{} of v{level}, {kind}", person.name);
        person.assert_in_order(direct);
        let mut others = person.client.conversations();
        others.retain(|conversation| conversation.id != direct);
        assert_eq!(others.len(), 1, "the group");
        let newest = person.client.cursor(magpie_client::TimelineId::Conversation(others[0].id));
        person.has(others[0].id, newest, SOON).await;
        magpie_tests::until("the group's history is there", SOON, async || {
            person.texts(others[0].id) == ["welcome", "thank you"]
        })
        .await;
    }
    // It goes on from there.
    let number = alice.say(direct, "after the upgrade").await;
    assert_eq!(number, head + 1);
    bob.has(direct, number, SOON).await;
    assert_eq!(http::get(node.admin, "/readyz").unwrap().0, 200);
    let status: serde_json::Value = serde_json::from_str(&http::get(node.admin, "/api/v1/cluster").unwrap().1).unwrap();
    assert_eq!(status["level"], LEVEL, "a node that is alone goes up by itself");
    assert_eq!(node.terminate(), 0);
}

#[tokio::test]
async fn what_earlier_builds_left_is_taken_up() {
    let bless = std::env::var_os("MAGPIE_BLESS").is_some_and(|value| value == "1");
    for kind in KINDS {
        if bless && !archive(LEVEL, kind).exists() {
            make(kind).await;
        }
        for level in 1..=LEVEL {
            starts_from(level, kind).await;
        }
    }
}
