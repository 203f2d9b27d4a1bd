//! The SDK against a fake server: sessions, reconnecting, exactly once, nothing missed. The real proof is in the
//! whole-system suites.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "session/fake.rs"]
mod fake;

use std::time::Duration;

use fake::{Server, USER};
use magpie_client::*;
use magpie_protocol::{
    Answer,
    frame::{
        hello::{Closing, ClosingReason},
        sync::Behind,
    },
};

const C: ConversationId = ConversationId::from_bits(7);
const T: TimelineId = TimelineId::Conversation(C);

fn config(server: &Server) -> Config {
    let mut config = Config::new(server.address);
    config.ask_timeout = Duration::from_secs(20);
    config
}

async fn signed_up(server: &Server, config: Config, place: StorePlace) -> (Client, Events) {
    server.with(|world| world.timelines.entry(T).or_default().len());
    let (client, events) = Client::open(&server.network(), config, place).unwrap();
    let me = client.sign_up("ann", "password").await.unwrap();
    assert_eq!((me.user, &me.handle[..]), (USER, "ann"));
    (client, events)
}

async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(Duration::from_secs(20), events.next()).await.expect("an event in time").expect("not closed")
}

async fn until(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = next(events).await;
        if wanted(&event) {
            return event;
        }
    }
}

/// Reads entries of the conversation until number `last`; they must come in order, each once.
async fn entries(events: &mut Events, first: u64, last: u64) {
    let mut expected = first;
    while expected <= last {
        if let Event::Entry { timeline, entry } = next(events).await {
            assert_eq!((timeline, entry.number), (T, expected));
            expected += 1;
        }
    }
}

#[tokio::test]
async fn posts_are_pipelined_and_arrive_in_order() {
    let server = Server::start();
    let (client, mut events) = signed_up(&server, config(&server), StorePlace::Memory).await;
    let sendings: Vec<_> = (0..200).map(|i| client.say(C, format!("{i}")).unwrap()).collect();
    for (i, sending) in sendings.into_iter().enumerate() {
        assert_eq!(sending.posted().await.unwrap().number, i as u64 + 1);
    }
    entries(&mut events, 1, 200).await;
    server.with(|world| {
        assert_eq!(world.texts(T), (0..200).map(|i| i.to_string()).collect::<Vec<_>>());
        assert!((2..=32).contains(&world.outstanding_max), "{}", world.outstanding_max);
    });
    assert_eq!(client.history(C, 198, 10).unwrap().len(), 2);
    let refused = client.say(ConversationId::from_bits(8), "hello?").unwrap().posted().await;
    assert!(matches!(refused, Err(Error::Refused(error)) if error.code == ErrorCode::NotFound));
    client.close().await;
    assert_eq!(client.status(), Status::Closed);
    assert!(matches!(client.say(C, "late"), Err(Error::Closed)));
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn cut_connections_lose_nothing_and_repeat_nothing() {
    let server = Server::start();
    let (client, mut events) = signed_up(&server, config(&server), StorePlace::Memory).await;
    server.with(|world| world.cut_after_post = 5);
    let mut sendings = Vec::new();
    for i in 0..120 {
        sendings.push(client.say(C, format!("{i}")).unwrap());
        if i % 30 == 29 {
            client.drop_connection();
            tokio::task::yield_now().await;
        }
    }
    for (i, sending) in sendings.into_iter().enumerate() {
        assert_eq!(sending.posted().await.unwrap().number, i as u64 + 1);
    }
    entries(&mut events, 1, 120).await;
    server.with(|world| {
        assert_eq!(world.texts(T).len(), 120);
        assert_eq!(world.taken.len(), 1, "one incarnation");
        assert!(world.connections > 5);
    });
    client.close().await;
}

#[tokio::test]
async fn lost_hints_are_made_up_for() {
    let server = Server::start();
    let (client, mut events) = signed_up(&server, config(&server), StorePlace::Memory).await;
    until(&mut events, |event| *event == Event::Synced).await;
    server.with(|world| world.mute = true);
    for i in 0..30 {
        server.with(|world| world.append(T, Body::Text(format!("{i}"))));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.cursor(T), 0);
    // An answer to a post of one's own stands for its entry, once there is no gap before it.
    assert_eq!(client.say(C, "30").unwrap().posted().await.unwrap().number, 31);
    entries(&mut events, 1, 31).await;
    assert_eq!(client.say(C, "31").unwrap().posted().await.unwrap().number, 32);
    entries(&mut events, 32, 32).await;
    // A later hint shows the gap ...
    server.with(|world| world.mute = false);
    server.with(|world| world.append(T, Body::Text("32".into())));
    entries(&mut events, 33, 33).await;
    // ... and so does the node when there is none.
    server.with(|world| {
        world.mute = true;
        world.append(T, Body::Text("33".into()));
        let heads = world.heads();
        world.push_all(Answer::Behind(Behind { heads }));
    });
    entries(&mut events, 34, 34).await;
    let known = client.conversations();
    assert_eq!((known.len(), known[0].head, known[0].cursor, known[0].unread), (1, 34, 34, 34));
    client.close().await;
}

#[tokio::test]
async fn a_store_in_a_file_goes_on_where_it_was() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let place = StorePlace::File(dir.path().join("a.db"));
    let (client, mut events) = signed_up(&server, config(&server), place.clone()).await;
    client.say(C, "one").unwrap().posted().await.unwrap();
    entries(&mut events, 1, 1).await;
    let in_use = Client::open(&server.network(), config(&server), place.clone());
    assert!(matches!(in_use, Err(Error::StoreInUse(_))));
    // Nobody answers this one any more; it waits in the file.
    server.with(|world| world.overloaded = u32::MAX);
    let unheard = client.say(C, "two").unwrap();
    client.close().await;
    assert_eq!(unheard.posted().await, Err(Error::Closed));
    server.with(|world| {
        world.overloaded = 0;
        world.append(T, Body::Text("meanwhile".into()));
    });
    let (client, mut events) = Client::open(&server.network(), config(&server), place.clone()).unwrap();
    assert_eq!(client.resume().await.unwrap().handle, "ann");
    let resolved = until(&mut events, |event| matches!(event, Event::Resolved { .. })).await;
    assert!(
        matches!(resolved, Event::Resolved { sending: 0, content: Content::Text(text), result: Ok(posted), .. } if posted.number == 3 && text == "two")
    );
    assert_eq!(server.with(|world| world.texts(T)), ["one", "meanwhile", "two"]);
    assert_eq!(server.with(|world| world.taken.len()), 1, "one incarnation");
    while client.cursor(T) < 3 {
        next(&mut events).await;
    }
    assert_eq!(client.history(C, 0, 10).unwrap().len(), 3);
    // A restored server: what was read before is read anew.
    // What was acknowledged last is not in its backup.
    server.with(|world| {
        world.history_epoch = 2;
        world.forget(T, 3);
    });
    client.drop_connection();
    until(&mut events, |event| *event == Event::HistoryReset).await;
    entries(&mut events, 1, 2).await;
    until(&mut events, |event| *event == Event::HistoryLost { count: 1 }).await;
    let lost = client.lost().unwrap();
    assert!(matches!(&lost[..], [(T, Entry { number: 3, body: Body::Text(text), .. })] if text == "two"), "{lost:?}");
    client.say(C, "four").unwrap().posted().await.unwrap();
    assert_eq!(server.with(|world| world.taken.len()), 2, "a new incarnation");
    // A node of the lost history is still there: nothing is said to it.
    server.with(|world| world.history_epoch = 1);
    client.drop_connection();
    let offline = until(&mut events, |event| matches!(event, Event::Offline { .. })).await;
    let _ = client.say(C, "five").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.with(|world| world.texts(T)).len(), 3, "{offline:?}");
    server.with(|world| world.history_epoch = 2);
    until(&mut events, |event| *event == Event::Synced).await;
    while client.unresolved() > 0 {
        next(&mut events).await;
    }
    client.close().await;
    // What was lost is known until it is forgotten.
    let (client, _events) = Client::open(&server.network(), config(&server), place).unwrap();
    assert_eq!(client.lost().unwrap().len(), 1);
    client.forget_lost().unwrap();
    assert!(client.lost().unwrap().is_empty());
    client.close().await;
}

#[tokio::test]
async fn a_slow_reader_without_history_holds_the_stream_and_misses_nothing() {
    let server = Server::start();
    let mut config = config(&server);
    (config.history, config.events_max) = (History::None, 4);
    let (client, mut events) = signed_up(&server, config, StorePlace::Memory).await;
    until(&mut events, |event| *event == Event::Synced).await;
    for i in 0..2000 {
        server.with(|world| world.append(T, Body::Text(format!("{i} {}", "x".repeat(1000)))));
        if i % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    entries(&mut events, 1, 2000).await;
    client.close().await;
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again() {
    let server = Server::start();
    server.with(|world| world.overloaded = 2);
    let (client, _events) = signed_up(&server, config(&server), StorePlace::Memory).await;
    server.with(|world| world.overloaded = 3);
    assert_eq!(client.find("bob").await.unwrap().handle, "bob");
    server.with(|world| world.overloaded = 3);
    client.say(C, "patience").unwrap().posted().await.unwrap();
    client.mark_read(C, 1).await.unwrap();
    assert!(matches!(client.sign_in("ann", "x").await, Err(Error::AlreadySignedIn(USER))));
    client.close().await;
}

#[tokio::test]
async fn what_is_refused_is_asked_again_within_a_budget_and_nothing_is_given_up() {
    let server = Server::start();
    let (client, mut events) = signed_up(&server, config(&server), StorePlace::Memory).await;
    until(&mut events, |event| *event == Event::Synced).await;
    server.with(|world| world.overloaded = u32::MAX);
    let sendings: Vec<_> = (0..20).map(|n| client.say(C, n.to_string()).unwrap()).collect();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asked = server.with(|world| u32::MAX - std::mem::take(&mut world.overloaded));
    // The server says that each may come back after 20 ms.
    assert!((25..=34).contains(&asked), "20, then 10 at once, then one in two seconds: {asked}");
    let began = std::time::Instant::now();
    for sending in sendings {
        sending.posted().await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(6), "all at once when it is well again: {:?}", began.elapsed());
    assert_eq!(server.with(|world| world.texts(T)), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    client.close().await;
}

#[tokio::test]
async fn replaced_rests_until_told_and_signed_out_ends_the_token() {
    let server = Server::start();
    let (client, mut events) = signed_up(&server, config(&server), StorePlace::Memory).await;
    until(&mut events, |event| *event == Event::Synced).await;
    let close = |reason| Answer::Closing(Closing { reason, reconnect_after_ms: 10 });
    server.with(|world| world.push_all(close(ClosingReason::Stopping)));
    until(&mut events, |event| *event == Event::Synced).await;
    server.with(|world| world.push_all(close(ClosingReason::Replaced)));
    until(&mut events, |event| *event == Event::Replaced).await;
    assert_eq!(client.status(), Status::Replaced);
    assert_eq!(client.find("bob").await, Err(Error::Replaced));
    client.resume().await.unwrap();
    server.with(|world| world.refuse_resume = Some(ErrorCode::SignedOut));
    client.drop_connection();
    until(&mut events, |event| *event == Event::SignedOut).await;
    assert_eq!((client.status(), client.resume().await), (Status::SignedOut, Err(Error::NotSignedIn)));
    client.sign_in("ann", "password").await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn who_is_signed_out_before_the_answer_is_there_learns_so_at_once() {
    let server = Server::start();
    let (client, mut events) = signed_up(&server, config(&server), StorePlace::Memory).await;
    until(&mut events, |event| *event == Event::Synced).await;
    let closed = tokio::time::timeout(Duration::from_secs(5), client.close_account("password")).await;
    assert_eq!(closed, Ok(Ok(())), "it was closed: that is what signed the device out");
    assert_eq!(client.status(), Status::SignedOut);
    client.sign_in("ann", "password").await.unwrap();
    until(&mut events, |event| *event == Event::Synced).await;
    let made = tokio::time::timeout(Duration::from_secs(5), client.create_group("team", Vec::new())).await;
    assert_eq!(made, Ok(Err(Error::Unknown)), "it may have been made");
    client.close().await;
}

#[tokio::test]
async fn a_sign_up_whose_answer_was_lost_ends_signed_in() {
    let server = Server::start();
    server.with(|world| world.cut_after_sign_up = true);
    let (client, _events) = signed_up(&server, config(&server), StorePlace::Memory).await;
    assert_eq!(client.status(), Status::Online);
    client.close().await;
    // Somebody else's handle is another matter.
    let (other, _events) = Client::open(&server.network(), config(&server), StorePlace::Memory).unwrap();
    let refused = other.sign_up("ann", "mine").await;
    assert!(matches!(refused, Err(Error::Refused(error)) if error.code == ErrorCode::HandleTaken));
    assert_eq!(other.status(), Status::Offline);
    other.close().await;
}

#[tokio::test]
async fn what_cannot_be_reached_is_offline() {
    let server = Server::start();
    let mut config = Config::new("127.0.0.1:1".parse().unwrap());
    config.request_timeout = Duration::from_millis(200);
    config.ask_timeout = Duration::from_millis(500);
    let (client, _events) = Client::open(&server.network(), config, StorePlace::Memory).unwrap();
    assert!(matches!(client.sign_up("ann", "password").await, Err(Error::Offline(_))));
    assert!(matches!(client.say(C, "no"), Err(Error::NotSignedIn)));
    assert_eq!(client.find("bob").await, Err(Error::NotSignedIn));
    client.close().await;
}

#[tokio::test]
async fn a_sign_up_whose_outcome_is_not_known_ends_signed_in() {
    let server = Server::start();
    server.with(|world| world.doubt_sign_up = true);
    let (client, _events) = signed_up(&server, config(&server), StorePlace::Memory).await;
    // It asked again on the same connection.
    assert_eq!(server.with(|world| world.connections), 1);
    client.close().await;
}

/// A way to the server that can be cut, as a node that is killed is: nothing comes back, and nobody says why.
fn tunnel(to: std::net::SocketAddr) -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    use std::sync::atomic::Ordering;
    let (near, far) =
        (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let (address, cut) = (near.local_addr().unwrap(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    far.connect(to).unwrap();
    let client = std::sync::Arc::new(std::sync::Mutex::new(None));
    let (near_out, far_out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let (known, cut_in, cut_out) = (client.clone(), cut.clone(), cut.clone());
    std::thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok((len, from)) = near.recv_from(&mut bytes) {
            *client.lock().unwrap() = Some(from);
            if !cut_in.load(Ordering::Relaxed) {
                _ = far_out.send(&bytes[..len]);
            }
        }
    });
    std::thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok(len) = far.recv(&mut bytes) {
            let to = *known.lock().unwrap();
            if let (Some(to), false) = (to, cut_out.load(Ordering::Relaxed)) {
                _ = near_out.send_to(&bytes[..len], to);
            }
        }
    });
    (address, cut)
}

#[tokio::test]
async fn a_node_from_which_nothing_comes_back_is_left_for_another_long_before_a_request_is_overdue() {
    let server = Server::start();
    let (first, cut) = tunnel(server.address);
    let mut config = config(&server);
    config.server = first;
    config.others = vec![server.address];
    config.request_timeout = Duration::from_secs(60);
    let (client, _events) = signed_up(&server, config, StorePlace::Memory).await;
    assert_eq!(client.say(C, "1").unwrap().posted().await.unwrap().number, 1);
    assert_eq!((client.status(), client.server()), (Status::Online, Some(first)));
    cut.store(true, std::sync::atomic::Ordering::Relaxed);
    let posted = tokio::time::timeout(Duration::from_secs(20), client.say(C, "2").unwrap().posted()).await;
    assert_eq!(posted.expect("long before a minute").unwrap().number, 2);
    assert_eq!(client.server(), Some(server.address));
    client.close().await;
}
