//! Whatever bytes arrive, from anyone: that connection ends, or waits; honest people notice nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use magpie_client::{ConversationId, ErrorCode, Incarnation, TimelineId};
use magpie_protocol::{
    Answer, Frame, Request, RequestId,
    frame::{
        contact::Find,
        conversation::{Content, Post},
        hello::{ClosingReason, Hello},
        sync::{Pull, Sync},
    },
};
use magpie_tests::{
    honest::Scene,
    raw::{Key, Net, Raw},
    seed,
};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use tokio::{sync::Mutex, time::timeout};

const NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
const MB: u64 = 1 << 20;
const I: Incarnation = Incarnation::from_bits(7 << 24);
/// These tests measure how long others wait: one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

fn scene(environment: &[(&str, &str)]) -> Scene {
    Scene::new(Path::new(NODE), environment)
}

fn hello() -> Request {
    Request::Hello(Hello { version_min: 1, version_max: 1, agent: "raw".into() })
}

fn frame(request: Request) -> Vec<u8> {
    Frame::new(RequestId::new(7), request).to_bytes().to_vec()
}

/// A frame with this tag and payload, whatever they are.
fn crafted(version: u8, tag: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = (7 + payload.len() as u32).to_le_bytes().to_vec();
    out.push(version);
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&7u32.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// The node ends this session soon, and says that it broke the protocol.
async fn is_shown_out(mut raw: Raw, what: &str) {
    let why = timeout(Duration::from_secs(5), raw.ended()).await;
    assert_eq!(why.unwrap_or_else(|_| panic!("{what}: the session goes on")), Some(ClosingReason::Protocol), "{what}");
}

#[tokio::test]
async fn what_is_no_frame_ends_its_connection() {
    let _alone = ALONE.lock().await;
    let scene = scene(&[]);
    let mut flipped = frame(hello());
    flipped[10] = 0xff;
    let breaches: Vec<(&str, Vec<u8>)> = vec![
        ("a length beyond the limit", 65_537u32.to_le_bytes().to_vec()),
        ("the largest length", vec![0xff; 4]),
        ("a length of nothing", vec![0; 4]),
        ("a length shorter than a header", [6u32.to_le_bytes().as_slice(), &[1; 6]].concat()),
        ("version 0", crafted(0, 1, &[])),
        ("version 2", crafted(2, 1, &[])),
        ("no payload", crafted(1, 1, &[])),
        ("bytes left over", [frame(hello()).as_slice(), &crafted(1, 64, &[0])].concat()),
        ("text that is no text", crafted(1, 32, &[2, 0xff, 0xfe])),
        ("a list that claims 2^60 elements", crafted(1, 49, &[0, 0, 253, 0, 0, 0, 0, 0, 0, 0, 16])),
        ("nine bytes that ask for everything", crafted(1, 18, &[253, 255, 255, 255, 255, 255, 255, 255, 255])),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()),
        ("TLS", [&[0x16, 0x03, 0x01, 0x02], [0; 600].as_slice()].concat()),
    ];
    let net = &scene.net;
    let attack = async || {
        for (what, bytes) in &breaches {
            let mut raw = Raw::silent(net).await;
            _ = raw.write(bytes).await;
            is_shown_out(raw, what).await;
        }
        // The same from somebody who is signed in.
        let (_raw, is) = Raw::sign_up(net, "mallory", &Key::new(1)).await;
        for (what, bytes) in &breaches {
            let (mut raw, _) = Raw::resume(net, &is.token, &Key::new(1)).await.unwrap();
            _ = raw.write(bytes).await;
            is_shown_out(raw, what).await;
        }
        // A frame of which only a part ever comes.
        for len in [1, 3, 4, 5, 16] {
            let mut raw = Raw::silent(net).await;
            raw.write(&frame(hello())[..len]).await.unwrap();
            _ = raw.stream.finish();
            timeout(Duration::from_secs(5), raw.ended()).await.expect("it ends");
        }
    };
    scene.bears("what is no frame", 48 * MB, attack).await;
    scene.end();
}

#[tokio::test]
async fn what_is_not_known_or_not_yet_allowed_is_refused_and_the_session_goes_on() {
    let _alone = ALONE.lock().await;
    let scene = scene(&[]);
    let mut raw = Raw::silent(&scene.net).await;
    for request in [Request::Sync(Sync), Request::Find(Find { handle: "honest-a0".into() })] {
        assert_eq!(raw.refused(request).await.code, ErrorCode::BadFrame, "hello comes first");
    }
    assert!(matches!(raw.ask(hello()).await, Answer::Welcome(_)));
    assert_eq!(raw.refused(hello()).await.code, ErrorCode::BadFrame, "once");
    let (mut known, _) = Raw::sign_up(&scene.net, "mallory", &Key::new(1)).await;
    for raw in [&mut raw, &mut known] {
        for tag in [0, 2, 250, 1_000, u16::MAX] {
            let id = 1_000 + u32::from(tag);
            let mut bytes = crafted(1, tag, &[1, 2, 3]);
            bytes[7..11].copy_from_slice(&id.to_le_bytes());
            raw.write(&bytes).await.unwrap();
            let answer = raw.answer(id).await;
            let refused = matches!(&answer, Answer::Refused(e) if e.code == ErrorCode::BadFrame && e.field == "tag");
            assert!(refused, "tag {tag}: {answer:?}");
        }
    }
    assert_eq!(known.sync().await.len(), 1, "it is still served");
    assert_eq!(raw.refused(Request::Sync(Sync)).await.code, ErrorCode::NotSignedIn);
    let mut old = Raw::silent(&scene.net).await;
    let from_the_future = Hello { version_min: 2, version_max: 9, agent: "raw".into() };
    assert_eq!(old.refused(Request::Hello(from_the_future)).await.code, ErrorCode::UnsupportedVersion);
    assert_eq!(timeout(Duration::from_secs(5), old.ended()).await.expect("it ends"), None);
    scene.end();
}

/// Bytes that look more or less like what a device would send.
fn junk(random: &mut StdRng) -> Vec<u8> {
    let mut noise = vec![0; random.random_range(0..2_000)];
    random.fill_bytes(&mut noise);
    let tags: Vec<u16> = Request::TAGS.iter().map(|(tag, _)| *tag).collect();
    let tag = tags[random.random_range(0..tags.len())];
    let samples = [
        hello(),
        Request::Find(Find { handle: "honest-a0".into() }),
        Request::Pull(Pull { timeline: TimelineId::Conversation(ConversationId::from_bits(9)), after: 0, limit: 9 }),
        Request::Post(Post {
            conversation: ConversationId::from_bits(9),
            incarnation: I,
            number: 1,
            content: Content::Text("hello".into()),
        }),
    ];
    let mut sample = frame(samples[random.random_range(0..samples.len())].clone());
    match random.random_range(0..5) {
        0 => noise,
        1 => crafted(1, tag, &noise),
        2 => {
            let at = random.random_range(0..sample.len());
            sample[at] ^= 1 << random.random_range(0..8);
            sample
        }
        3 => {
            sample.truncate(random.random_range(0..sample.len()));
            sample
        }
        _ => {
            let at = random.random_range(0..=sample.len());
            sample.splice(at..at, noise.into_iter().take(20));
            sample
        }
    }
}

#[tokio::test]
async fn junk_of_every_kind_is_borne() {
    let _alone = ALONE.lock().await;
    let scene = scene(&[]);
    let mut random = StdRng::seed_from_u64(seed("junk of every kind"));
    let (_raw, is) = Raw::sign_up(&scene.net, "mallory", &Key::new(1)).await;
    let attack = async || {
        let begun = Instant::now();
        let mut sent = 0;
        while begun.elapsed() < Duration::from_secs(4) {
            let mut raw = match random.random() {
                true => Raw::silent(&scene.net).await,
                false => Raw::resume(&scene.net, &is.token, &Key::new(1)).await.unwrap().0,
            };
            for _ in 0..random.random_range(1..10) {
                sent += 1;
                if raw.write(&junk(&mut random)).await.is_err() {
                    break;
                }
            }
            _ = raw.stream.finish();
            timeout(Duration::from_secs(5), raw.ended()).await.expect("the session ends");
        }
        sent
    };
    let sent = scene.bears("junk of every kind", 48 * MB, attack).await;
    println!("{sent} pieces of junk");
    scene.end();
}

#[tokio::test]
async fn packets_that_are_no_quic_are_ignored() {
    let _alone = ALONE.lock().await;
    let scene = scene(&[]);
    let mut random = StdRng::seed_from_u64(seed("packets that are no QUIC"));
    let attack = async || {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..3_000 {
            let mut packet = vec![0; random.random_range(0..1_400)];
            random.fill_bytes(&mut packet);
            // Half of them look like the first packet of version 1.
            if random.random() && packet.len() > 5 {
                packet[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
            }
            _ = socket.send_to(&packet, scene.node.address).await;
            tokio::task::yield_now().await;
        }
    };
    scene.bears("packets that are no QUIC", 48 * MB, attack).await;
    scene.end();
}

/// Opens so many connections, a few at a time.
async fn connections(net: &Net, count: usize) -> Vec<quinn::Connection> {
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let some = (0..8.min(count - open.len())).map(|_| net.connecting()).collect::<Vec<_>>();
        for connecting in some {
            open.push(connecting.await.expect("a connection"));
        }
    }
    open
}

/// Waits until the node has closed all of these. Where the packet that says so was lost, the next sign of life brings
/// it again, or the idle time-out ends it: hence the long wait, which a node that closes nothing outlasts.
async fn are_closed(open: &[quinn::Connection]) {
    let begun = Instant::now();
    for (i, connection) in open.iter().enumerate() {
        let left = Duration::from_secs(60).saturating_sub(begun.elapsed());
        let closed = timeout(left, connection.closed()).await;
        let alive = open.iter().filter(|connection| connection.close_reason().is_none()).count();
        assert!(closed.is_ok(), "connection {i} is not closed, {alive} of {} are not", open.len());
    }
    println!("closed in {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_thousand_half_open_connections_are_borne_and_closed() {
    let _alone = ALONE.lock().await;
    // The usual time to sign in: on a busy machine it takes some of it to connect them all.
    let scene = scene(&[]);
    let attack = async || {
        let begun = Instant::now();
        let open = connections(&scene.net, 1_000).await;
        println!("connected in {:?}", begun.elapsed());
        let alive = open.iter().filter(|connection| connection.close_reason().is_none()).count();
        println!("{alive} of 1,000 open at a time, {} MB", scene.memory() / MB);
        assert!(alive > 500, "{alive}");
        are_closed(&open).await;
    };
    scene.bears("a thousand half-open connections", 96 * MB, attack).await;
    Raw::sign_up(&scene.net, "afterwards", &Key::new(9)).await;
    scene.end();
}

#[tokio::test]
async fn streams_that_are_opened_and_left_are_closed() {
    let _alone = ALONE.lock().await;
    let scene = scene(&[("MAGPIE_GATEWAY_SIGN_IN_TIMEOUT_MS", "3000")]);
    let attack = async || {
        let mut left = Vec::new();
        for (i, connection) in connections(&scene.net, 200).await.into_iter().enumerate() {
            let mut raw = Raw::over(connection).await;
            // A length and no frame, a part of a frame, or a hello and nothing after it.
            let part = [&frame(hello())[..4], &frame(hello())[..9], &frame(hello())[..]][i % 3].to_vec();
            _ = raw.write(&part).await;
            left.push(raw);
        }
        let more = left[0].connection.clone();
        let second = timeout(Duration::from_millis(500), more.open_bi()).await;
        assert!(!matches!(second, Ok(Ok(_))), "there is one stream to a session");
        let uni = timeout(Duration::from_millis(500), more.open_uni()).await;
        assert!(!matches!(uni, Ok(Ok(_))), "and no other kind");
        assert!(more.send_datagram(vec![1, 2, 3].into()).is_err(), "and no datagrams");
        let open: Vec<_> = left.iter().map(|raw| raw.connection.clone()).collect();
        are_closed(&open).await;
    };
    scene.bears("streams opened and left", 64 * MB, attack).await;
    scene.end();
}

/// Makes a group and fills it; its maker's token.
async fn filled(scene: &Scene, key: &Key) -> (ConversationId, Vec<u8>) {
    let (mut raw, is) = Raw::sign_up(&scene.net, "mallory", key).await;
    let group = raw.group(1, "g", vec![]).await;
    for number in 1..=150 {
        raw.post(group, (I, number), &"x".repeat(1_000)).await.unwrap();
    }
    (group, is.token)
}

#[tokio::test]
async fn devices_that_never_read_are_held_and_then_closed() {
    let _alone = ALONE.lock().await;
    let scene = scene(&[("MAGPIE_GATEWAY_STALL_TIMEOUT_MS", "3000")]);
    let (group, _) = filled(&scene, &Key::new(1)).await;
    let pull = Pull { timeline: TimelineId::Conversation(group), after: 0, limit: 500 };
    let bytes = frame(Request::Pull(pull)).repeat(50);
    let attack = async || {
        let mut deaf = Vec::new();
        for seed in 2..=12 {
            deaf.push(Raw::sign_in(&scene.net, "mallory", &Key::new(seed)).await.0);
        }
        let before = scene.memory();
        let mut asked = 0;
        for raw in &mut deaf {
            // Until the node reads no more.
            while let Ok(Ok(())) = timeout(Duration::from_millis(100), raw.write(&bytes)).await {
                asked += 50;
                assert!(asked < 1_000_000, "the node takes whatever is asked");
            }
        }
        println!("{asked} pages asked for, and {} MB held for them", scene.memory().saturating_sub(before) / MB);
        let open: Vec<_> = deaf.iter().map(|raw| raw.connection.clone()).collect();
        are_closed(&open).await;
    };
    scene.bears("devices that never read", 64 * MB, attack).await;
    scene.end();
}

#[tokio::test]
async fn a_flood_of_requests_is_held_to_its_share() {
    let _alone = ALONE.lock().await;
    let scene = scene(&[]);
    let (group, token) = filled(&scene, &Key::new(1)).await;
    let kinds = [
        ("unknown tags", crafted(1, 999, &[])),
        ("finds", frame(Request::Find(Find { handle: "honest-a0".into() }))),
        ("pages", frame(Request::Pull(Pull { timeline: TimelineId::Conversation(group), after: 0, limit: 500 }))),
        ("heads", frame(Request::Sync(Sync))),
    ];
    for (what, request) in kinds {
        let attack = async || {
            let (mut raw, _) = Raw::resume(&scene.net, &token, &Key::new(1)).await.unwrap();
            let bytes = request.repeat(1 + 8_000 / request.len());
            let begun = Instant::now();
            // It reads as it writes, so that nothing but its share holds it back.
            let (sent, answered) = raw.flood(&bytes, Duration::from_secs(3)).await;
            let sent = sent / request.len();
            println!("{what}: {sent} sent, {answered} bytes back in {:?}", begun.elapsed());
        };
        scene.bears(&format!("a flood of {what}"), 64 * MB, attack).await;
    }
    scene.end();
}

#[tokio::test]
async fn another_protocol_is_refused_and_early_data_is_not_taken() {
    let _alone = ALONE.lock().await;
    let scene = scene(&[]);
    for alpn in [b"h3".as_slice(), b"magpie/2", b"magpie"] {
        let net = Net::with(scene.node.address, &scene.ca, alpn, quinn::TransportConfig::default());
        let error = net.connect().await.err();
        assert!(error.is_some(), "{alpn:?} is spoken here");
    }
    for round in 0..3 {
        // The first connection leaves a ticket behind; with it the next could send at once, were it allowed.
        let raw = Raw::hello(&scene.net).await;
        drop(raw);
        assert!(scene.net.connecting().into_0rtt().is_err(), "round {round}: 0-RTT is offered");
    }
    scene.end();
}
