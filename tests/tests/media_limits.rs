//! What is not taken, what a device that misbehaves gets, what is collected, and what it all takes of memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use std::{path::PathBuf, time::Duration};

use magpie_client::{ErrorCode, MessageId, message::BlobRef};
use magpie_node::{Config, Options};
use magpie_protocol::frame::{
    MediaAnswer, MediaRequest,
    media::{Download, Upload},
};
use magpie_tests::{
    InProcess, Person, Place, Process, files_under, from_env,
    media::{RawMedia, TYPE, blob, blob_of, bytes, refusal, share, upload},
    node::test_config,
    people::befriend,
    raw::{Key, Net, Raw},
    seed, until,
};

const SOON: Duration = Duration::from_secs(20);
const MB: usize = 1024 * 1024;

fn node(change: impl FnOnce(&mut Config)) -> (tempfile::TempDir, InProcess, Place) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = test_config(&dir.path().join("node"));
    change(&mut config);
    let node = InProcess::start(config, Options::default());
    let place = Place::new(node.address, node.ca.clone());
    (dir, node, place)
}

/// Files that lie in the media folder of a node.
fn objects(dir: &std::path::Path) -> Vec<PathBuf> {
    files_under(&dir.join("node/media"))
}

#[tokio::test]
async fn types_lengths_and_quotas_are_held_and_nothing_of_it_is_stored() {
    let (dir, node, place) = node(|config| {
        config.media.types = vec!["image/*".into(), "text/plain".into()];
        config.media.image_len_max = 10_000;
        config.media.file_len_max = 20_000;
        config.media.quota_bytes = 25_000;
    });
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let conversation = befriend(&alice, &bob).await;
    let refused = async |len: usize, media_type: &str| {
        let error = refusal(alice.client.upload(bytes(len as u64, len), media_type).await);
        assert_eq!(objects(dir.path()), Vec::<PathBuf>::new());
        (error.code, error.field, error.number)
    };
    assert_eq!(refused(10_001, "image/png").await, (ErrorCode::TooLarge, "len".into(), 10_000));
    assert_eq!(refused(0, "image/png").await, (ErrorCode::TooLarge, "len".into(), 10_000));
    assert_eq!(refused(20_001, "text/plain").await, (ErrorCode::TooLarge, "len".into(), 20_000));
    assert_eq!(refused(10, "text/html").await, (ErrorCode::Invalid, "media_type".into(), 0));
    assert_eq!(refused(10, "nonsense").await, (ErrorCode::Invalid, "media_type".into(), 0));

    let first = alice.client.upload(bytes(1, 20_000), "text/plain").await.unwrap();
    let error = refusal(alice.client.upload(bytes(2, 5_001), "text/plain").await);
    assert_eq!((error.code, error.field.as_str(), error.number), (ErrorCode::LimitReached, "quota", 25_000));
    alice.client.upload(bytes(3, 5_000), "text/plain").await.unwrap();
    // The same again is charged once; and everybody has a quota of their own.
    alice.client.upload(bytes(1, 20_000), "text/plain").await.unwrap();
    bob.client.upload(bytes(1, 20_000), "text/plain").await.unwrap();
    // A message describes it within the same limits.
    let disguised = BlobRef { media_type: "image/png".into(), ..first.clone() };
    assert_eq!(refusal(share(&alice, conversation, &disguised).await).code, ErrorCode::TooLarge);
    share(&alice, conversation, &first).await.unwrap();
    node.stop();
}

#[tokio::test]
async fn bytes_with_another_hash_and_more_or_fewer_than_were_announced_are_not_stored() {
    let (dir, node, _place) = node(|_| ());
    let net = Net::to(&node);
    let (raw, _) = Raw::sign_up(&net, "mallory", &Key::new(1)).await;
    let (good, bad) = (bytes(1, 100_000), bytes(2, 100_000));
    let mut stream = RawMedia::ask(&raw.connection, upload(&good)).await;
    assert!(matches!(stream.answer().await, Some(MediaAnswer::Go(go)) if go.offset == 0));
    stream.send.write_all(&bad).await.unwrap();
    stream.send.finish().unwrap();
    let error = stream.refused().await;
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::Invalid, "blob"));
    assert_eq!(objects(dir.path()), Vec::<PathBuf>::new());

    let mut stream = RawMedia::ask(&raw.connection, upload(&good)).await;
    assert!(matches!(stream.answer().await, Some(MediaAnswer::Go(go)) if go.offset == 0), "nothing of the bad is kept");
    _ = stream.send.write_all(&[good.clone(), bad].concat()).await;
    let error = stream.refused().await;
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::Invalid, "len"));

    // One that ends half-way has said all that it will: the next goes on from there.
    let mut stream = RawMedia::ask(&raw.connection, upload(&good)).await;
    assert!(matches!(stream.answer().await, Some(MediaAnswer::Go(go)) if go.offset == 0));
    stream.send.write_all(&good[..60_000]).await.unwrap();
    stream.send.finish().unwrap();
    assert_eq!(stream.answer().await, None);
    until("what came is kept", SOON, async || objects(dir.path()).len() == 1).await;
    let mut stream = RawMedia::ask(&raw.connection, upload(&good)).await;
    assert!(matches!(stream.answer().await, Some(MediaAnswer::Go(go)) if go.offset == 60_000));
    stream.send.write_all(&good[60_000..]).await.unwrap();
    stream.send.finish().unwrap();
    assert!(matches!(stream.answer().await, Some(MediaAnswer::Stored(_))));
    node.stop();
}

#[tokio::test]
async fn two_streams_at_once_cannot_spoil_what_one_of_them_brought() {
    let (_dir, node, _place) = node(|_| ());
    let net = Net::to(&node);
    let (raw, _) = Raw::sign_up(&net, "mallory", &Key::new(1)).await;
    let (good, bad) = (bytes(1, 2 * MB), bytes(2, 2 * MB));
    // One begins, another goes on from it and completes; then the first one sends something else under the same name.
    let mut first = RawMedia::ask(&raw.connection, upload(&good)).await;
    assert!(matches!(first.answer().await, Some(MediaAnswer::Go(_))));
    let mut second = RawMedia::ask(&raw.connection, upload(&good)).await;
    assert!(matches!(second.answer().await, Some(MediaAnswer::Go(_))));
    second.send.write_all(&good).await.unwrap();
    second.send.finish().unwrap();
    assert!(matches!(second.answer().await, Some(MediaAnswer::Stored(_))));
    _ = first.send.write_all(&bad).await;
    _ = first.send.finish();
    assert_eq!(first.refused().await.code, ErrorCode::Unavailable);
    let place = Place::new(node.address, node.ca.clone());
    let alice = Person::new(&place, "alice").await;
    let group = alice.client.create_group("team", vec![]).await.unwrap();
    let named = alice.client.upload(good.clone(), TYPE).await.unwrap();
    let message = share(&alice, group, &named).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    alice.client.download(message, &named, dir.path().join("to")).await.unwrap();
    assert_eq!(blob_of(&dir.path().join("to")), blob(&good));
    node.stop();
}

#[tokio::test]
async fn a_device_that_misbehaves_is_refused_and_its_session_and_others_go_on() {
    let (dir, node, place) = node(|config| config.media.streams_per_session = 3);
    let net = Net::to(&node);
    let alice = Person::new(&place, "alice").await;
    let group = alice.client.create_group("team", vec![]).await.unwrap();

    // Before it is signed in, a device has its session stream and no other.
    let raw = Raw::hello(&net).await;
    let opened = tokio::time::timeout(Duration::from_millis(300), raw.connection.open_bi()).await;
    assert!(opened.is_err(), "a stream was opened before the sign-in");

    let (mut raw, _) = Raw::sign_up(&net, "mallory", &Key::new(1)).await;
    let seed = seed("a_device_that_misbehaves");
    for (at, junk) in [
        bytes(seed, 5000),
        vec![0; 100],
        vec![255; 100],
        // A frame that would be longer than is allowed here; one with bytes behind it; one of an unknown tag.
        [&60_000u32.to_le_bytes()[..], &[1; 5000]].concat(),
        [&magpie_protocol::Frame::push(upload(b"x")).to_bytes()[..], b"and more"].concat(),
        vec![7, 0, 0, 0, 1, 99, 0, 0, 0, 0, 0],
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = RawMedia::open(&raw.connection).await;
        _ = stream.send.write_all(&junk).await;
        _ = stream.send.finish();
        let error = stream.refused().await;
        assert_eq!(error.code, ErrorCode::BadFrame, "junk {at}: {error}");
    }
    // It may open three streams, and the fourth waits until one ends, however many it would like.
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(RawMedia::ask(&raw.connection, upload(&bytes(held.len() as u64, MB))).await);
    }
    for stream in &mut held {
        assert!(matches!(stream.answer().await, Some(MediaAnswer::Go(_))));
        stream.send.write_all(&[1; 1000]).await.unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(300), raw.connection.open_bi()).await.is_err());
    // Its session goes on meanwhile, and so do others.
    raw.ask(magpie_protocol::Request::Devices(magpie_protocol::frame::account::Devices)).await;
    alice.say(group, "hello").await;
    let named = alice.client.upload(bytes(seed + 1, MB), TYPE).await.unwrap();
    share(&alice, group, &named).await.unwrap();
    held.clear();
    tokio::time::timeout(SOON, raw.connection.open_bi()).await.unwrap().unwrap();

    // What it may not have, or beyond the end.
    let message = MessageId { conversation: group, number: 4 };
    let ask = |blob, offset| MediaRequest::Download(Download { message, blob, offset, len: 0 });
    let mut stream = RawMedia::ask(&raw.connection, ask(named.blob, 0)).await;
    assert_eq!(stream.refused().await.code, ErrorCode::NotFound);
    // A connection that ends takes its transfers with it, and keeps nothing open.
    raw.connection.close(0u32.into(), b"");
    drop(raw);
    assert!(!objects(dir.path()).is_empty());
    alice.say(group, "still here").await;
    node.stop();
}

#[tokio::test]
async fn parts_are_sent_as_asked_for() {
    let (_dir, node, _place) = node(|_| ());
    let net = Net::to(&node);
    let place = Place::new(node.address, node.ca.clone());
    let alice = Person::new(&place, "alice").await;
    let (raw, me) = Raw::sign_up(&net, "raw", &Key::new(1)).await;
    let group = alice.client.create_group("team", vec![me.user]).await.unwrap();
    let content = bytes(9, 2 * MB + 1000);
    let named = alice.client.upload(content.clone(), TYPE).await.unwrap();
    let message = share(&alice, group, &named).await.unwrap();
    let len = content.len();
    for (offset, asked) in [(0, 10), (MB - 5, 10), (2 * MB, 0), (len - 1, 100), (len, 0), (5, MB), (300_000, 600_000)] {
        let (blob, offset_u, len_u) = (named.blob, offset as u64, asked as u64);
        let download = Download { message, blob, offset: offset_u, len: len_u };
        let mut stream = RawMedia::ask(&raw.connection, MediaRequest::Download(download)).await;
        let end = if asked == 0 { len } else { (offset + asked).min(len) };
        match stream.answer().await {
            Some(MediaAnswer::Sending(s)) => assert_eq!((s.blob_len, s.len), (len as u64, (end - offset) as u64)),
            other => panic!("{other:?}"),
        }
        assert!(stream.rest().await.unwrap() == content[offset..end], "{offset} {asked}");
    }
    let beyond = Download { message, blob: named.blob, offset: len as u64 + 1, len: 0 };
    let mut stream = RawMedia::ask(&raw.connection, MediaRequest::Download(beyond)).await;
    assert_eq!(stream.refused().await.field, "offset");
    node.stop();
}

#[tokio::test]
async fn what_no_message_names_is_collected_and_comes_back_when_it_is_brought_again() {
    let (dir, node, place) = node(|config| {
        config.media.unused_keep_s = 5;
        config.media.collect_every_s = 1;
        config.media.quota_bytes = 2_000_000;
    });
    let alice = Person::new(&place, "alice").await;
    let group = alice.client.create_group("team", vec![]).await.unwrap();
    let (kept, unused) = (bytes(1, 900_000), bytes(2, 900_000));
    let named = alice.client.upload(kept, TYPE).await.unwrap();
    let message = share(&alice, group, &named).await.unwrap();
    let forgotten = alice.client.upload(unused.clone(), TYPE).await.unwrap();
    // And one that was begun and given up.
    let net = Net::to(&node);
    let (raw, _) = Raw::sign_up(&net, "raw", &Key::new(1)).await;
    let mut stream = RawMedia::ask(&raw.connection, upload(&bytes(3, 100_000))).await;
    stream.answer().await;
    stream.send.write_all(&[0; 50_000]).await.unwrap();
    stream.send.finish().unwrap();
    until("all three are there", SOON, async || objects(dir.path()).len() == 3).await;
    until("one is left", SOON, async || objects(dir.path()).len() == 1).await;
    let error = refusal(share(&alice, group, &forgotten).await);
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::NotFound, "blob"));
    let to = dir.path().join("to");
    alice.client.download(message, &named, &to).await.unwrap();
    assert_eq!(blob_of(&to), named.blob);
    // What was collected is not charged any more, and comes back.
    let again = alice.client.upload(unused, TYPE).await.unwrap();
    let message = share(&alice, group, &again).await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    alice.client.download(message, &again, &to).await.unwrap();
    assert_eq!(blob_of(&to), again.blob);
    node.stop();
}

#[tokio::test]
async fn a_session_that_is_signed_out_transfers_nothing_more() {
    let (_dir, node, place) = node(|_| ());
    let net = Net::to(&node);
    let (raw, me) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let mut stream = RawMedia::ask(&raw.connection, upload(&bytes(1, MB))).await;
    assert!(matches!(stream.answer().await, Some(MediaAnswer::Go(_))));
    let other = Person::another(&place, "alice").await;
    other.client.sign_out(me.device).await.unwrap();
    let ended = async {
        while stream.send.write_all(&[0; 1000]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("the stream ends with the session");
    node.stop();
}

/// What a process has taken of memory at most, in bytes.
fn peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_files_take_no_more_memory_than_short_ones() {
    let dir = tempfile::tempdir().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_magpie-test-node"));
    let process = Process::try_start(program, &dir.path().join("node"), &[]).unwrap();
    let place = Place::new(process.address, process.ca());
    let alice = Person::new(&place, "alice").await;
    let group = alice.client.create_group("team", vec![]).await.unwrap();
    let mb = from_env("MAGPIE_MEDIA_MB", 20) as usize;
    let round = async |len: usize, seed: u64| {
        let one = async |at: u64| {
            let from = dir.path().join(format!("from{at}"));
            std::fs::write(&from, bytes(seed + at, len)).unwrap();
            let named = alice.client.upload(from.as_path(), TYPE).await.unwrap();
            let message = share(&alice, group, &named).await.unwrap();
            alice.client.download(message, &named, dir.path().join(format!("to{at}"))).await.unwrap();
            assert_eq!(blob_of(&dir.path().join(format!("to{at}"))), named.blob);
        };
        tokio::join!(one(0), one(1), one(2), one(3));
    };
    Box::pin(round(2 * MB, 100)).await;
    let before = peak(process.pid());
    Box::pin(round(mb * MB, 200)).await;
    let after = peak(process.pid());
    println!("peak {} MiB after 4 x 2 MiB, {} MiB after 4 x {mb} MiB", before / MB, after / MB);
    // Four transfers of up to 2 MB, and what an allocator holds back of them.
    assert!(after - before < 24 * MB, "{before} before, {after} after");
    process.terminate();
}

#[tokio::test]
async fn talk_is_not_held_up_by_files() {
    let (_dir, node, place) = node(|_| ());
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let conversation = befriend(&alice, &bob).await;
    let median = async || {
        let mut took = Vec::new();
        for at in 0..50 {
            let begun = std::time::Instant::now();
            alice.say(conversation, &format!("{at}")).await;
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        took[took.len() / 2]
    };
    let idle = median().await;
    let content = bytes(5, 30 * MB);
    let upload = async { alice.client.upload(content, TYPE).await.unwrap() };
    let (_, busy) = tokio::join!(upload, median());
    println!("a message takes {idle:?} alone and {busy:?} beside an upload");
    assert!(busy < idle * 20 + Duration::from_millis(200), "{idle:?} alone, {busy:?} beside an upload");
    node.stop();
}

#[tokio::test]
async fn an_upload_that_borrows_from_what_it_may_not_read_learns_nothing() {
    let (_dir, node, place) = node(|_| ());
    let net = Net::to(&node);
    let alice = Person::new(&place, "alice").await;
    let group = alice.client.create_group("team", vec![]).await.unwrap();
    let named = alice.client.upload(bytes(1, 1000), TYPE).await.unwrap();
    let message = share(&alice, group, &named).await.unwrap();
    let (raw, _) = Raw::sign_up(&net, "eve", &Key::new(1)).await;
    let ask = async |blob, len, from| {
        let request = MediaRequest::Upload(Upload { blob, len, media_type: TYPE.into(), from });
        RawMedia::ask(&raw.connection, request).await.refused().await
    };
    let there = ask(named.blob, named.len, Some(message)).await;
    let not_there = ask(blob(b"nothing"), 7, Some(message)).await;
    assert_eq!(there, not_there, "whether it is there is not told");
    // Nor does the offer to bring it tell: both are to be brought whole.
    for (blob, len) in [(named.blob, named.len), (blob(b"nothing"), 7)] {
        let request = MediaRequest::Upload(Upload { blob, len, media_type: TYPE.into(), from: None });
        let mut stream = RawMedia::ask(&raw.connection, request).await;
        assert!(matches!(stream.answer().await, Some(MediaAnswer::Go(go)) if go.offset == 0));
    }
    node.stop();
}
