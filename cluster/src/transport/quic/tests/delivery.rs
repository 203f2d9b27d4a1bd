use futures_util::future::join_all;

use super::*;
use crate::transport::quic::outlet::waiting_len_max;

/// A payload that says its place, of many lengths.
fn numbered(lane: Lane, i: u32) -> Bytes {
    let mut payload = vec![lane as u8 + 1; (i as usize * 37) % 9000 + 5];
    payload[1..5].copy_from_slice(&i.to_le_bytes());
    payload.into()
}

#[tokio::test]
async fn messages_and_requests_arrive_whole_and_in_order_on_each_lane() {
    const EACH: u32 = 300;
    let nodes = cluster(&Authority::new(), 2).await;
    let (one, two) = (&nodes[0], &nodes[1]);
    let mut calls = Vec::new();
    for i in 0..EACH {
        for lane in Lane::ALL {
            one.transport.tell(two.id, lane, numbered(lane, i));
            calls.push(one.transport.call(two.id, lane, numbered(lane, i), 10 * SECOND));
        }
        if i % 50 == 49 {
            // Bulk takes only so much at once.
            for (i, answer) in join_all(calls.drain(..)).await.into_iter().enumerate() {
                let answer = answer.unwrap();
                assert_eq!(answer[0] as usize, i % 3 + 1, "the answer to another lane's call");
            }
        }
    }
    let expected = |lane| (0..EACH).map(move |i| (one.id, lane, numbered(lane, i)));
    for lane in Lane::ALL {
        let of = |all: &Mutex<Vec<(NodeId, Lane, Bytes)>>| {
            all.lock().unwrap().iter().filter(|(_, l, _)| *l == lane).cloned().collect::<Vec<_>>()
        };
        assert!(of(&two.service.messages).into_iter().eq(expected(lane)), "messages on {lane:?}");
        let requests = of(&two.service.requests);
        assert!(lane == Lane::Bulk || requests.into_iter().eq(expected(lane)), "requests on {lane:?}");
    }
    assert!(one.service.messages.lock().unwrap().is_empty());
    // The other direction is another connection.
    assert_eq!(two.call(one.id, Lane::Requests, b"back").await.unwrap(), "back");
    stop(nodes).await;
}

#[tokio::test]
async fn the_longest_request_passes_and_a_longer_one_is_refused() {
    let nodes = cluster(&Authority::new(), 2).await;
    let longest: Vec<u8> = (0..MESSAGE_LEN_MAX).map(|i| (i % 251 + 1) as u8).collect();
    for lane in Lane::ALL {
        assert_eq!(nodes[0].call(node(2), lane, &longest).await.unwrap(), longest);
    }
    let refused = nodes[0].call(node(2), Lane::Bulk, &[longest, vec![1]].concat()).await;
    assert!(matches!(&refused, Err(LinkError::Refused { why, .. }) if why.contains("over the limit")), "{refused:?}");
    stop(nodes).await;
}

#[tokio::test]
async fn who_is_no_peer_is_refused_at_once() {
    let nodes = cluster(&Authority::new(), 2).await;
    let refused = nodes[0].transport.call(node(9), Lane::Requests, Bytes::new(), SECOND);
    assert!(matches!(refused.await, Err(LinkError::Refused { to, .. }) if to == node(9)));
    nodes[0].transport.tell(node(9), Lane::Requests, Bytes::new());
    // Nor is a node a peer of its own.
    let itself = nodes[0].call(node(1), Lane::Requests, b"me").await;
    assert!(matches!(itself, Err(LinkError::Refused { .. })), "{itself:?}");
    nodes[0].transport.set_peers(BTreeMap::new());
    let gone = nodes[0].call(node(2), Lane::Requests, b"you").await;
    assert!(matches!(gone, Err(LinkError::Refused { .. })), "{gone:?}");
    until("the peer that was dropped has no way in", || nodes[1].transport.connected().is_empty()).await;
    stop(nodes).await;
}

#[tokio::test]
async fn a_full_lane_refuses_and_the_others_do_not() {
    let nodes = cluster(&Authority::new(), 2).await;
    let chunk = Bytes::from(vec![1; 1024 * 1024]);
    let bulk = || nodes[0].transport.call(node(2), Lane::Bulk, chunk.clone(), 10 * SECOND);
    // Nothing is written meanwhile, as this is the one thread.
    let calls: Vec<_> = (0..10).map(|_| bulk()).collect();
    let urgent = nodes[0].transport.call(node(2), Lane::Consensus, Bytes::from_static(b"vote"), 10 * SECOND);
    assert_eq!(urgent.await.unwrap(), "vote");
    let results = join_all(calls).await;
    let fit = waiting_len_max(Lane::Bulk) / (chunk.len() + 12);
    assert_eq!(results.iter().position(|r| matches!(r, Err(LinkError::Refused { .. }))), Some(fit));
    assert_eq!(results.iter().filter(|r| r.as_ref().is_ok_and(|a| *a == chunk)).count(), fit);
    assert_eq!(bulk().await.unwrap(), chunk, "there is room again");
    stop(nodes).await;
}

#[tokio::test]
async fn what_is_urgent_overtakes_what_is_not() {
    let nodes = cluster(&Authority::new(), 2).await;
    // Both fit what a lane may have under way, and neither a first flight. Taking turns, the shorter would win.
    nodes[0].transport.tell(node(2), Lane::Bulk, Bytes::from(vec![1; 150_000]));
    nodes[0].transport.tell(node(2), Lane::Requests, Bytes::from(vec![1; 200_000]));
    nodes[0].transport.tell(node(2), Lane::Consensus, Bytes::from(vec![1; 240_000]));
    until("all are there", || nodes[1].service.messages.lock().unwrap().len() == 3).await;
    let order: Vec<Lane> = nodes[1].service.messages.lock().unwrap().iter().map(|(_, lane, _)| *lane).collect();
    assert_eq!(order, Lane::ALL);
    stop(nodes).await;
}

#[tokio::test]
async fn a_call_ends_within_its_time_and_is_forgotten() {
    let nodes = cluster(&Authority::new(), 2).await;
    let started = Instant::now();
    let within = Duration::from_millis(100);
    let lost = nodes[0].transport.call(node(2), Lane::Requests, Bytes::from_static(&[0]), within).await;
    assert!(matches!(&lost, Err(LinkError::Lost { why, .. }) if why.contains("100 ms")), "{lost:?}");
    assert!(started.elapsed() >= within && started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
    drop(nodes[0].transport.call(node(2), Lane::Requests, Bytes::from_static(&[0]), within));
    let link = nodes[0].transport.shared.peers().link(node(2)).unwrap();
    assert_eq!(link.waiting(Lane::Requests), 0);
    drop(link);
    // The answers come too late and disturb nothing.
    until("both were asked", || nodes[1].service.unanswered.lock().unwrap().len() == 2).await;
    for answer in std::mem::take(&mut *nodes[1].service.unanswered.lock().unwrap()) {
        answer(Bytes::from_static(b"late"));
    }
    assert_eq!(nodes[0].call(node(2), Lane::Requests, b"next").await.unwrap(), "next");
    stop(nodes).await;
}

#[tokio::test]
async fn a_hostile_length_ends_its_connection_and_no_other() {
    let authority = Authority::new();
    let nodes = cluster(&authority, 3).await;
    let waiting = nodes[2].transport.call(node(1), Lane::Requests, Bytes::from_static(&[0]), 10 * SECOND);
    // Node 2 dials once more, with a client that does not check what it sends.
    let config = client_config(&authority.identity(node(2))).unwrap();
    let connecting = nodes[1].transport.shared.endpoint.connect_with(
        config,
        nodes[0].transport.address().unwrap(),
        &name_of(node(1)),
    );
    let connection = connecting.unwrap().await.unwrap();
    let mut streams = Vec::new();
    for lane in Lane::ALL {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let mut wire = frames::Gathered::default();
        wire.push(0, frames::hello(lane));
        send.write_all_chunks(&mut wire.take()).await.unwrap();
        streams.push((send, receive));
    }
    let header = [u32::MAX.to_le_bytes().as_slice(), &[7; 8]].concat();
    streams[0].0.write_all(&header).await.unwrap();
    let why = tokio::time::timeout(10 * SECOND, connection.closed()).await.unwrap();
    assert!(why.to_string().contains("over the limit"), "{why}");
    drop((streams, connection));
    // The call that waited meanwhile still does, over a connection that still stands.
    until("it was asked", || nodes[0].service.unanswered.lock().unwrap().len() == 1).await;
    nodes[0].service.unanswered.lock().unwrap().pop().unwrap()(Bytes::from_static(b"well"));
    assert_eq!(waiting.await.unwrap(), "well");
    until("node 2 is back", || nodes[1].transport.connected().len() == 2).await;
    stop(nodes).await;
}
