use super::*;

#[tokio::test]
async fn after_a_restart_of_the_peer_there_is_a_connection_again() {
    let authority = Authority::new();
    let mut nodes = cluster(&authority, 2).await;
    let waiting = nodes[0].transport.call(node(2), Lane::Requests, Bytes::from_static(&[0]), 20 * SECOND);
    let two = nodes.pop().unwrap();
    let port = two.port();
    until("it was asked", || two.service.unanswered.lock().unwrap().len() == 1).await;
    two.transport.stop().await;
    drop(two);
    let asked = Instant::now();
    let lost = waiting.await;
    assert!(matches!(&lost, Err(LinkError::Lost { why, .. }) if why.contains("ended")), "{lost:?}");
    assert!(asked.elapsed() < 2 * SECOND, "only after {:?}", asked.elapsed());
    let refused = nodes[0].call(node(2), Lane::Requests, b"there?").await;
    assert!(matches!(&refused, Err(LinkError::Refused { .. })), "{refused:?}");

    nodes.push(Node::restart(node(2), port, &authority.identity(node(2))).await);
    introduce(&nodes);
    until("both are connected again", || nodes.iter().all(|n| n.transport.connected().len() == 1)).await;
    assert_eq!(nodes[0].call(node(2), Lane::Requests, b"there?").await.unwrap(), "there?");
    assert_eq!(nodes[1].call(node(1), Lane::Requests, b"and you?").await.unwrap(), "and you?");
    stop(nodes).await;
}

#[tokio::test]
async fn who_was_away_long_is_reached_as_soon_as_it_is_back() {
    let authority = Authority::new();
    let mut nodes = cluster(&authority, 2).await;
    let identity = authority.identity(node(2));
    let port = nodes[1].port();
    for away in [3_000, 3_400, 3_800] {
        let two = nodes.pop().unwrap();
        two.transport.stop().await;
        drop(two);
        let one = nodes.first().unwrap();
        until("it is gone", || one.transport.connected().is_empty()).await;
        // Meanwhile it is dialled every second or so, and each attempt asks at intervals that grow.
        tokio::time::sleep(Duration::from_millis(away)).await;
        nodes.push(Node::restart(node(2), port, &identity).await);
        introduce(&nodes);
        until("it has come", || nodes[1].transport.connected().len() == 1).await;
        let came = Instant::now();
        until("it is reached", || nodes[0].transport.connected().len() == 1).await;
        assert!(came.elapsed() < Duration::from_millis(200), "reached {:?} after it came", came.elapsed());
    }
    stop(nodes).await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let nodes = cluster(&Authority::new(), 2).await;
    let waiting = nodes[0].transport.call(node(2), Lane::Consensus, Bytes::from_static(&[0]), 20 * SECOND);
    until("it was asked", || nodes[1].service.unanswered.lock().unwrap().len() == 1).await;
    let silent = Instant::now();
    nodes.iter().for_each(|n| n.gag.on.store(true, Ordering::Relaxed));
    let lost = waiting.await;
    assert!(matches!(lost, Err(LinkError::Lost { .. })), "{lost:?}");
    let noticed = silent.elapsed();
    println!("noticed after {noticed:?}");
    assert!(noticed < IDLE_TIMEOUT + 2 * SECOND, "{noticed:?}");
    until("both have noticed", || nodes.iter().all(|n| n.transport.connected().is_empty())).await;
    nodes.iter().for_each(|n| n.gag.on.store(false, Ordering::Relaxed));
    until("both are connected again", || nodes.iter().all(|n| n.transport.connected().len() == 1)).await;
    assert_eq!(nodes[0].call(node(2), Lane::Consensus, b"back").await.unwrap(), "back");
    stop(nodes).await;
}

#[tokio::test]
async fn a_process_that_came_back_says_that_the_one_before_is_gone() {
    let authority = Authority::new();
    let identity = authority.identity(node(2));
    let one = Node::start(node(1), 0, &authority.identity(node(1)));
    let two = Node::start(node(2), 0, &identity);
    let mut nodes = vec![one, two];
    introduce(&nodes);
    until("connected", || nodes.iter().all(|n| n.transport.connected().len() == 1)).await;
    let waiting = nodes[0].transport.call(node(2), Lane::Requests, Bytes::from_static(&[0]), 20 * SECOND);
    let two = nodes.pop().unwrap();
    until("it was asked", || two.service.unanswered.lock().unwrap().len() == 1).await;
    // Killed: it says nothing any more, and another process has its port and its key.
    let port = two.port();
    two.gag.on.store(true, Ordering::Relaxed);
    let killed = Instant::now();
    two.transport.stop().await;
    drop(two);
    let again = Node::restart(node(2), port, &identity).await;
    let lost = waiting.await;
    let noticed = killed.elapsed();
    assert!(matches!(&lost, Err(LinkError::Lost { .. })), "{lost:?}");
    println!("noticed after {noticed:?}");
    assert!(noticed < IDLE_TIMEOUT - SECOND, "only by silence: {noticed:?}");
    nodes.push(again);
    introduce(&nodes);
    until("connected again", || nodes.iter().all(|n| n.transport.connected().len() == 1)).await;
    stop(nodes).await;
}

#[tokio::test]
async fn the_newer_connection_of_a_peer_ends_the_older() {
    let authority = Authority::new();
    let one = Node::start(node(1), 0, &authority.identity(node(1)));
    let two = Node::start(node(2), 0, &authority.identity(node(2)));
    // Only node 1 knows the other, whose dialling is done by hand.
    one.transport.set_peers(BTreeMap::from([(node(2), two.transport.address().unwrap())]));
    let dial = || {
        let shared = &two.transport.shared;
        let dial = link::Link::dial(&shared.endpoint, shared.client(), node(1), one.transport.address().unwrap());
        Box::pin(async { tokio::time::timeout(10 * SECOND, dial).await.expect("it is greeted") })
    };
    let (older, streams) = dial().await.unwrap();
    let running = tokio::spawn(older.clone().run(streams));
    let lost = older.call(Lane::Requests, Bytes::from_static(&[0])).unwrap();
    let (newer, streams) = dial().await.unwrap();
    let ended = tokio::time::timeout(10 * SECOND, running).await.expect("the older one ends").unwrap().to_string();
    assert!(ended.contains("you have made another connection"), "{ended}");
    let lost = lost.answer(Instant::now() + 10 * SECOND, 10 * SECOND).await;
    assert!(matches!(&lost, Err(LinkError::Lost { .. })), "{lost:?}");
    let running = tokio::spawn(newer.clone().run(streams));
    let call = newer.call(Lane::Requests, Bytes::from_static(b"new")).unwrap();
    assert_eq!(call.answer(Instant::now() + 10 * SECOND, 10 * SECOND).await.unwrap(), "new");
    drop((older, newer));
    let nodes = vec![one, two];
    stop(nodes).await;
    assert!(running.is_finished());
}
