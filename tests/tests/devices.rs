//! Several devices of one person: signing them in, out, and over.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use magpie_client::{ConversationId, Error, ErrorCode, Incarnation, Status, StorePlace};
use magpie_node::Options;
use magpie_protocol::{
    Answer, Request,
    frame::{
        account::{Devices, Resume, SignOut},
        hello::ClosingReason,
    },
    limits::DEVICES_MAX,
};
use magpie_tests::{
    InProcess, Person, Place, Process,
    node::test_config,
    people::befriend,
    raw::{Key, Net, Raw},
    stop, until,
};

const SOON: Duration = Duration::from_secs(20);
const I: Incarnation = Incarnation::from_bits(7 << 24);

fn node() -> (tempfile::TempDir, InProcess, Place, Net) {
    let dir = tempfile::tempdir().unwrap();
    let node = InProcess::start(test_config(dir.path()), Options::default());
    let (place, net) = (Place::new(node.address, node.ca.clone()), Net::to(&node));
    (dir, node, place, net)
}

async fn sign_out(raw: &mut Raw, device: magpie_client::DeviceId) {
    let answer = raw.ask(Request::SignOut(SignOut { device })).await;
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
}

/// How long until the node ends this session, and why it says that it does.
async fn ended(raw: &mut Raw) -> (Duration, Option<ClosingReason>) {
    let begun = Instant::now();
    let why = tokio::time::timeout(Duration::from_secs(8), raw.ended()).await.expect("the session ends");
    (begun.elapsed(), why)
}

#[tokio::test]
async fn a_device_that_another_signs_out_is_told_within_a_second_and_cannot_come_back() {
    let (_dir, node, place, _) = node();
    let phone = Person::new(&place, "alice").await;
    let tablet = Person::another(&place, "alice").await;
    let group = phone.client.create_group("g", vec![]).await.unwrap();
    tablet.has(group, 2, SOON).await;
    let gone = tablet.client.me().unwrap().device;
    let begun = Instant::now();
    phone.client.sign_out(gone).await.unwrap();
    until("the tablet knows", SOON, async || tablet.client.status() == Status::SignedOut).await;
    println!("told after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(matches!(tablet.client.resume().await, Err(Error::NotSignedIn | Error::SignedOut)));
    assert!(phone.client.devices().await.unwrap().iter().all(|device| device.device != gone));
    let number = phone.say(group, "the tablet is lost").await;
    phone.has(group, number, SOON).await;
    assert!(tablet.texts(group).is_empty());
    stop(node).await;
}

#[tokio::test]
async fn a_device_that_follows_nothing_is_signed_out_all_the_same() {
    let (_dir, node, _, net) = node();
    let (mut phone, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    // Whoever stole it need not ask for anything to stay connected.
    let (mut stolen, is) = Raw::sign_in(&net, "alice", &Key::new(2)).await;
    sign_out(&mut phone, is.device).await;
    let (took, why) = ended(&mut stolen).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(why, Some(ClosingReason::SignedOut));
    let error = Raw::resume(&net, &is.token, &Key::new(2)).await.err().unwrap();
    assert_eq!(error.code, ErrorCode::SignedOut);
    stop(node).await;
}

#[tokio::test]
async fn a_device_is_signed_out_even_when_the_hint_of_it_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default();
    let lost = options.drop_hints.clone();
    let node = InProcess::start(test_config(dir.path()), options);
    let net = Net::to(&node);
    let (mut phone, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let (mut stolen, is) = Raw::sign_in(&net, "alice", &Key::new(2)).await;
    stolen.sync().await;
    lost.store(true, std::sync::atomic::Ordering::SeqCst);
    sign_out(&mut phone, is.device).await;
    let (took, why) = ended(&mut stolen).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(why, Some(ClosingReason::SignedOut));
    stop(node).await;
}

#[tokio::test]
async fn a_device_that_is_being_signed_out_writes_nothing_more() {
    let (_dir, node, _, net) = node();
    let (mut phone, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let group = phone.group(1, "g", vec![]).await;
    let (mut stolen, is) = Raw::sign_in(&net, "alice", &Key::new(2)).await;
    stolen.sync().await;
    sign_out(&mut phone, is.device).await;
    until("the node says that it ends", SOON, async || {
        matches!(stolen.next().await.map(|f| f.body), None | Some(Answer::Closing(_)))
    })
    .await;
    // It does not let go, and writes on.
    for number in 1..=20 {
        let request = Request::CreateGroup(magpie_protocol::frame::conversation::CreateGroup {
            nonce: number,
            title: "mine".into(),
            members: vec![],
        });
        let frame = magpie_protocol::Frame::new(magpie_protocol::RequestId::new(number as u32), request);
        if stolen.write(&frame.to_bytes()).await.is_err() {
            break;
        }
    }
    _ = ended(&mut stolen).await;
    phone.post(group, (I, 1), "is it gone").await.unwrap();
    let heads = phone.sync().await;
    assert_eq!(heads.len(), 2, "an inbox and one group: {heads:?}");
    stop(node).await;
}

#[tokio::test]
async fn a_newer_session_of_a_device_replaces_the_older() {
    let (_dir, node, _, net) = node();
    let key = Key::new(1);
    let (mut old, is) = Raw::sign_up(&net, "alice", &key).await;
    let (mut new, newer) = Raw::resume(&net, &is.token, &key).await.unwrap();
    let (took, why) = ended(&mut old).await;
    assert_eq!(why, Some(ClosingReason::Replaced));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!((newer.device, newer.user), (is.device, is.user));
    let group = new.group(1, "g", vec![]).await;
    new.post(group, (I, 1), "still here").await.unwrap();
    // The token of before is good until it ends: the answer with the newer one may have been lost.
    assert!(Raw::resume(&net, &is.token, &key).await.is_ok());
    stop(node).await;
}

#[tokio::test]
async fn a_token_that_was_tampered_with_or_stolen_is_refused() {
    let (_dir, node, _, net) = node();
    let key = Key::new(1);
    let (_raw, is) = Raw::sign_up(&net, "alice", &key).await;
    let mut tampered: Vec<Vec<u8>> = vec![vec![], vec![0; 64], vec![1; 65], is.token[1..].to_vec()];
    tampered.push(is.token[..is.token.len() - 1].to_vec());
    tampered.push([is.token.as_slice(), &[0]].concat());
    for at in (0..is.token.len()).step_by(7) {
        let mut token = is.token.clone();
        token[at] ^= 1;
        tampered.push(token);
    }
    let mut raw = Raw::hello(&net).await;
    for token in tampered {
        let proof = key.prove(&raw.connection);
        let error = raw.refused(Request::Resume(Resume { token, proof })).await;
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::SignedOut, "token"));
    }
    // The right token, without the key, or with a proof for another connection.
    let elsewhere = Raw::hello(&net).await;
    for proof in [Key::new(2).prove(&raw.connection), key.prove(&elsewhere.connection), [0; 64]] {
        let error = raw.refused(Request::Resume(Resume { token: is.token.clone(), proof })).await;
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::SignedOut, "proof"));
    }
    let proof = key.prove(&raw.connection);
    let answer = raw.ask(Request::Resume(Resume { token: is.token.clone(), proof })).await;
    assert!(matches!(answer, Answer::SignedIn(_)), "{answer:?}");
    stop(node).await;
}

#[tokio::test]
async fn a_read_cursor_travels_and_never_goes_back() {
    let (_dir, node, place, net) = node();
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let direct = befriend(&alice, &bob).await;
    let mut last = 0;
    for i in 0..5 {
        last = bob.say(direct, &i.to_string()).await;
    }
    let tablet = Person::another(&place, "alice").await;
    tablet.has(direct, last, SOON).await;
    alice.has(direct, last, SOON).await;
    let info = |person: &Person| person.client.conversations().into_iter().find(|c| c.id == direct).unwrap();
    assert_eq!((info(&tablet).read, info(&tablet).unread), (0, last));
    alice.client.mark_read(direct, last - 1).await.unwrap();
    until("the tablet knows", SOON, async || info(&tablet).read == last - 1).await;
    assert_eq!((info(&tablet).unread, info(&alice).unread), (1, 1));
    tablet.client.mark_read(direct, 2).await.unwrap();
    let later = Person::another(&place, "alice").await;
    later.has(direct, last, SOON).await;
    until("the new device knows", SOON, async || info(&later).read == last - 1).await;
    assert_eq!(info(&alice).read, last - 1, "it does not go back");
    assert_eq!(info(&bob).read, 0, "others' cursors are their own");
    // What the node itself keeps: the SDK would mend it.
    let (mut raw, _) = Raw::sign_in(&net, "alice", &Key::new(1)).await;
    let heads = raw.sync().await;
    let kept = heads.iter().find(|head| head.timeline == magpie_client::TimelineId::Conversation(direct)).unwrap().read;
    assert_eq!(kept, last - 1);
    stop(node).await;
}

#[tokio::test]
async fn so_many_devices_and_no_more() {
    let (_dir, node, _, net) = node();
    let (mut first, _) = Raw::sign_up(&net, "alice", &Key::new(1)).await;
    let mut last = None;
    for seed in 2..=DEVICES_MAX as u8 {
        last = Some(Raw::sign_in(&net, "alice", &Key::new(seed)).await);
    }
    let key = Key::new(100);
    let mut raw = Raw::hello(&net).await;
    let answer = raw.try_sign_in("alice", magpie_tests::people::PASSWORD, &key).await;
    let Answer::Refused(error) = answer else { panic!("{answer:?}") };
    assert_eq!((error.code, error.number), (ErrorCode::LimitReached, DEVICES_MAX as u64));
    let listed = first.ask(Request::Devices(Devices)).await;
    assert!(matches!(&listed, Answer::DeviceList(list) if list.devices.len() == DEVICES_MAX), "{listed:?}");
    sign_out(&mut first, last.unwrap().1.device).await;
    let answer = raw.try_sign_in("alice", magpie_tests::people::PASSWORD, &key).await;
    assert!(matches!(answer, Answer::SignedIn(_)), "{answer:?}");
    stop(node).await;
}

#[tokio::test]
async fn whatever_a_persons_many_devices_say_is_said_once() {
    let (_dir, node, place, _) = node();
    let mut devices = vec![Person::new(&place, "alice").await];
    for _ in 1..DEVICES_MAX {
        devices.push(Person::another(&place, "alice").await);
    }
    let group: ConversationId = devices[0].client.create_group("g", vec![]).await.unwrap();
    let mut said = Vec::new();
    for round in 0..3 {
        for (i, device) in devices.iter().enumerate() {
            let text = format!("{round} from {i}");
            let number = device.say(group, &text).await;
            assert!(number > 0, "{text:?} was acknowledged without a place in the timeline");
            said.push(text);
        }
    }
    let all = said.len() as u64 + 2;
    for device in &devices {
        device.has(group, all, SOON).await;
        assert_eq!(device.texts(group), said);
    }
    stop(node).await;
}

#[tokio::test]
async fn a_device_that_signs_itself_out_forgets_its_token() {
    let (_dir, node, place, _) = node();
    let files = tempfile::tempdir().unwrap();
    let store = StorePlace::File(files.path().join("alice.db"));
    let alice = Person::new_at(&place, "alice", store.clone()).await;
    let device = alice.client.me().unwrap().device;
    alice.client.sign_out(device).await.unwrap();
    until("it is signed out", SOON, async || alice.client.status() == Status::SignedOut).await;
    alice.client.close().await;
    let config = magpie_client::Config::new(place.server);
    let (client, _events) = magpie_client::Client::open(&place.network, config, store).unwrap();
    assert_eq!(client.resume().await, Err(Error::NotSignedIn));
    client.sign_in("alice", magpie_tests::people::PASSWORD).await.unwrap();
    stop(node).await;
}

const NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");

/// What the admin address answers: status and body.
fn http(admin: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

#[tokio::test]
async fn operators_see_what_is() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::try_start(Path::new(NODE), &dir.path().join("data"), &[]).unwrap();
    let place = Place::new(node.address, node.ca());
    let alice = Person::new(&place, "alice").await;
    let group = alice.client.create_group("g", vec![]).await.unwrap();
    alice.say(group, "a very private text").await;
    assert_eq!(http(node.admin, "GET /healthz"), (200, "ok\n".into()));
    assert_eq!(http(node.admin, "GET /readyz"), (200, "ready\n".into()));
    let (code, body) = http(node.admin, "GET /api/v1/status");
    let status: serde_json::Value = serde_json::from_str(body.trim()).unwrap_or_else(|e| panic!("{code} {body}: {e}"));
    assert_eq!((code, status["ready"].as_bool(), status["sessions"].as_u64()), (200, Some(true), Some(1)));
    assert_eq!(status["shards"].as_array().map(Vec::len), Some(8));
    let (code, metrics) = http(node.admin, "GET /metrics");
    assert_eq!(code, 200);
    for name in
        ["magpie_node_sessions 1", "# TYPE magpie_node_requests_total counter", "magpie_cluster_log_groups_total"]
    {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    for secret in ["alice", "private", &alice.id.to_string()] {
        assert!(!metrics.contains(secret) && !body.contains(secret), "{secret:?} is told");
        assert!(!node.errors().contains(secret), "{secret:?} is in the log: {}", node.errors());
    }
    for wrong in ["GET /", "GET /api/v1", "GET /metrics/../../etc/passwd", "GET /readyz/x"] {
        assert_eq!(http(node.admin, wrong).0, 404, "{wrong}");
    }
    for wrong in ["POST /healthz", "DELETE /api/v1/status"] {
        assert!(matches!(http(node.admin, wrong).0, 404 | 405), "{wrong}");
    }
}

#[tokio::test]
async fn the_admin_token_is_asked_for_where_it_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [("MAGPIE_ADMIN_TOKEN", "open sesame")];
    let node = Process::try_start(Path::new(NODE), &dir.path().join("data"), &environment).unwrap();
    for path in ["GET /metrics", "GET /api/v1/status"] {
        assert_eq!(http(node.admin, path).0, 401, "{path}");
        let with = |token: &str| format!("{path} HTTP/1.1\r\nauthorization: Bearer {token}\r\nx:");
        assert_eq!(http(node.admin, &with("open")).0, 401, "{path}");
        assert_eq!(http(node.admin, &with("open sesame")).0, 200, "{path}");
    }
    assert_eq!(http(node.admin, "GET /healthz").0, 200, "a health check has no token");
}

#[tokio::test]
async fn a_stopping_node_tells_its_devices_and_they_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Process::try_start(Path::new(NODE), &data, &[]).unwrap();
    let (address, ca) = (node.address, node.ca());
    let place = Place::new(address, ca.clone());
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let (mut raw, _) = Raw::sign_up(&Net::new(address, &ca), "carol", &Key::new(1)).await;
    let direct = befriend(&alice, &bob).await;
    let before = alice.say(direct, "before").await;
    bob.has(direct, before, SOON).await;
    let begun = Instant::now();
    let stopping = tokio::task::spawn_blocking(move || node.terminate());
    assert_eq!(ended(&mut raw).await.1, Some(ClosingReason::Stopping));
    assert_eq!(stopping.await.unwrap(), 0, "a clean end");
    println!("stopped after {:?}", begun.elapsed());
    // Said while nobody listens: it leaves when the node is back.
    let waiting = alice.client.say(direct, "meanwhile").unwrap();
    let environment = vec![("MAGPIE_ACCOUNTS_ARGON2_MEMORY_KIB".to_owned(), "8".to_owned())];
    let node = Process::restart((NODE.into(), data, environment, address)).unwrap();
    let number = tokio::time::timeout(SOON, waiting.posted()).await.unwrap().unwrap().number;
    assert_eq!(number, before + 1);
    for person in [&alice, &bob] {
        person.has(direct, number, SOON).await;
        person.assert_in_order(direct);
        assert_eq!(person.texts(direct), ["before", "meanwhile"]);
    }
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_second_node_on_the_same_folder_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Process::try_start(Path::new(NODE), &data, &[]).unwrap();
    let error = Process::try_start(Path::new(NODE), &data, &[]).err().expect("the folder is taken");
    assert!(error.contains("in use by another process") && error.contains("data"), "{error}");
    assert!(!error.contains("exit status: 0") && !error.contains("panicked"), "{error}");
    assert_eq!(http(first.admin, "GET /readyz").0, 200, "the first does not mind");
    assert_eq!(first.terminate(), 0);
    assert_eq!(Process::try_start(Path::new(NODE), &data, &[]).unwrap().terminate(), 0);
}
