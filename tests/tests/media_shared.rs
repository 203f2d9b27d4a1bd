//! Media that several nodes share: in a bucket, spoken to as S3, and in a folder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use std::{path::Path, sync::mpsc, time::Duration};

use magpie_tests::{
    Person, Place, Process,
    cluster::Cluster,
    files_under,
    media::{TYPE, blob, blob_of, bytes, refusal, share},
    people::befriend,
    s3::{self, S3},
    seed, until,
};

const SOON: Duration = Duration::from_secs(30);
const MB: usize = 1024 * 1024;

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_magpie-test-node"))
}

/// Objects that lie under a folder.
fn objects(dir: &Path) -> usize {
    files_under(dir).len()
}

/// The server, or why there is none: without npm and its registry this cannot be tested.
fn server(dir: &Path) -> Option<S3> {
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join("s3rver");
    match s3::install(&at).and_then(|program| S3::start(&program, &dir.join("s3"), 0)) {
        Ok(server) => Some(server),
        Err(why) => {
            println!("SKIPPED: there is no S3 server to test with: {why}");
            assert!(std::env::var_os("CI").is_none(), "where CI runs it must be there");
            None
        }
    }
}

fn start(dir: &Path, server: &S3, key: &str) -> Process {
    let (store, endpoint) =
        (format!("s3://{}/here/and/there", s3::BUCKET), format!("http://127.0.0.1:{}", server.port));
    let environment = [
        ("MAGPIE_MEDIA_STORE", store.as_str()),
        ("MAGPIE_MEDIA_S3_ENDPOINT", &endpoint),
        ("MAGPIE_MEDIA_UNUSED_KEEP_S", "4"),
        ("MAGPIE_MEDIA_COLLECT_EVERY_S", "1"),
        ("AWS_ACCESS_KEY_ID", key),
        ("AWS_SECRET_ACCESS_KEY", s3::KEY),
    ];
    Process::try_start(program(), &dir.join("node"), &environment).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_keeps_media_through_the_death_of_node_and_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = server(dir.path()) else { return };
    let process = start(dir.path(), &server, s3::KEY);
    let place = Place::new(process.address, process.ca());
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let conversation = befriend(&alice, &bob).await;
    let seed = seed("a_bucket_keeps_media");
    let content = bytes(seed, 6 * MB + 11);

    // At a third the node dies, at two thirds the bucket.
    let (at, thirds) = mpsc::channel::<(u64, mpsc::Sender<()>)>();
    let faults = std::thread::spawn(move || {
        let (mut process, mut server) = (process, server);
        for (third, done) in thirds {
            if third == 1 {
                process = process.kill_and_restart().unwrap();
                done.send(()).unwrap();
            } else {
                let restart = server.kill();
                done.send(()).unwrap();
                std::thread::sleep(Duration::from_secs(2));
                server = restart().unwrap();
            }
        }
        (process, server)
    });
    let mut third = 0;
    let mut begun = Vec::new();
    let mut last = 0;
    let uploading = alice.client.upload_with(content.clone(), TYPE, |p| {
        if p.done < last {
            begun.push(p.done);
        }
        last = p.done;
        if third < 2 && p.done * 3 > (third + 1) * p.total {
            third += 1;
            let (done, wait) = mpsc::channel();
            at.send((third, done)).unwrap();
            wait.recv().unwrap();
        }
    });
    let named = uploading.await.unwrap();
    drop(at);
    let (process, server) = faults.join().unwrap();
    println!("went on from {begun:?} of {}", content.len());
    assert_eq!((named.blob, third), (blob(&content), 2));
    assert!(begun.iter().any(|from| *from >= MB as u64), "nothing that was there was used: {begun:?}");

    let message = share(&alice, conversation, &named).await.unwrap();
    let to = dir.path().join("to");
    bob.client.download(message, &named, &to).await.unwrap();
    assert_eq!(blob_of(&to), named.blob);
    // What no message names goes from the bucket.
    alice.client.upload(bytes(seed + 1, MB), TYPE).await.unwrap();
    until("only what is named is left", SOON, async || {
        // Two files for an object: its content and what is known of it, and one more for its hash.
        let mine = dir.path().join("s3").join(s3::BUCKET);
        objects(&mine) == 7 * 3
    })
    .await;
    bob.client.download(message, &named, &to).await.unwrap();
    assert_eq!(blob_of(&to), named.blob);
    drop(server);
    assert_eq!(process.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_takes_nothing_is_told_of_and_talk_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = server(dir.path()) else { return };
    let process = start(dir.path(), &server, "somebody-else");
    let place = Place::new(process.address, process.ca());
    let alice = Person::new(&place, "alice").await;
    let group = alice.client.create_group("team", vec![]).await.unwrap();
    until("the operator is told", SOON, async || process.errors().contains("the media store does not work")).await;
    let uploading = tokio::time::timeout(Duration::from_secs(3), alice.client.upload(bytes(1, 1000), TYPE));
    assert!(uploading.await.is_err(), "it was stored in a bucket that takes nothing");
    alice.say(group, "hello").await;
    assert!(!process.errors().contains(s3::KEY), "a secret stands in the log");
    assert_eq!(process.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_and_a_download_go_on_at_other_nodes_of_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(program(), dir.path(), 3, 1, |_| None);
    cluster.ready().await;
    let place = cluster.place();
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let conversation = befriend(&alice, &bob).await;
    let content = bytes(seed("go_on_at_other_nodes"), 8 * MB + 3);
    let at = |who: &Person, cluster: &Cluster| {
        let server = who.client.server();
        (0..3).find(|at| server == Some(cluster.node(*at).address))
    };

    let first = at(&alice, &cluster).unwrap();
    let mut killed = false;
    let named = alice.client.upload_with(content.clone(), TYPE, |p| {
        if !killed && p.done * 2 > p.total {
            cluster.kill(first);
            killed = true;
        }
    });
    let named = named.await.unwrap();
    assert_eq!((named.blob, killed), (blob(&content), true));
    cluster.restart(first, &[]);
    cluster.ready().await;
    let message = share(&alice, conversation, &named).await.unwrap();

    until("bob is online", SOON, async || at(&bob, &cluster).is_some()).await;
    let first = at(&bob, &cluster).unwrap();
    let (to, mut killed) = (dir.path().join("to"), false);
    let downloading = bob.client.download_with(message, &named, &to, |p| {
        if !killed && p.done * 2 > p.total {
            cluster.kill(first);
            killed = true;
        }
    });
    downloading.await.unwrap();
    assert_eq!((blob_of(&to), killed), (named.blob, true));
}

#[tokio::test]
async fn a_cluster_without_a_shared_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let cluster =
        Cluster::start_with(program(), dir.path(), 3, 1, |_| None, |_| vec![("MAGPIE_MEDIA_STORE", String::new())]);
    cluster.ready().await;
    let alice = Person::new(&cluster.place(), "alice").await;
    let error = refusal(alice.client.upload(bytes(1, 1000), TYPE).await);
    assert_eq!(error.field, "media");
    assert!(error.detail.contains("set media.store"), "{error}");
    assert!(cluster.node(0).errors().contains("set media.store on every node"));
    cluster.terminate();
}
