//! What was taken back leaves the disk, also of a node where little happens.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{path::Path, time::Duration};

use magpie_node::Options;
use magpie_tests::{InProcess, Person, Place, files_under, node::test_config, people::befriend, until};

const SOON: Duration = Duration::from_secs(60);

/// The files below a folder in which these bytes stand.
fn with(dir: &Path, secret: &str) -> Vec<String> {
    let holds = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
    };
    files_under(dir).into_iter().filter(holds).map(|path| path.display().to_string()).collect()
}

#[tokio::test]
async fn recalled_and_edited_words_leave_the_disk_of_a_quiet_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = test_config(dir.path());
    // Nothing here is written often enough for a snapshot by size: age alone makes it.
    config.storage.snapshot_bytes_min = 1 << 30;
    config.storage.log_segment_bytes = 1 << 30;
    config.storage.snapshot_age_s = 3;
    let node = InProcess::start(config, Options::default());
    let place = Place::new(node.address, node.ca.clone());
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let talk = befriend(&ann, &ben).await;
    let (recalled, edited) = ("the words that were taken back at once", "the words that were written anew");
    let (first, second) = (ann.say(talk, recalled).await, ann.say(talk, edited).await);
    assert!(!with(dir.path(), recalled).is_empty(), "they were there");
    ann.act(ann.client.recall(talk, first)).await.unwrap();
    ann.act(ann.client.edit(talk, second, "other words")).await.unwrap();
    let kept = |secret| with(dir.path(), secret);
    until("they are gone from log, snapshots and state", SOON, async || {
        let left = (kept(recalled), kept(edited));
        left.0.is_empty() && left.1.is_empty()
    })
    .await;
    ann.say(talk, "and on it goes").await;
    node.stop();
    assert_eq!((kept(recalled), kept(edited)), (vec![], vec![]));
}
