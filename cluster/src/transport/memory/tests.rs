use futures_util::FutureExt;

use super::*;
use crate::transport::Answer;

const SECOND: Duration = Duration::from_secs(1);

/// Keeps what comes, and answers each request with what it was.
#[derive(Default)]
struct Recorder(Mutex<Vec<(NodeId, Lane, Bytes)>>);

impl Recorder {
    fn seen(&self) -> Vec<(NodeId, Lane, Bytes)> {
        self.0.lock().unwrap().clone()
    }
}

impl Service for Recorder {
    fn on_request(&self, _: NodeId, _: Lane, request: Bytes, answer: Answer) {
        answer(request);
    }
    fn on_message(&self, from: NodeId, lane: Lane, message: Bytes) {
        self.0.lock().unwrap().push((from, lane, message));
    }
}

fn node(index: u32) -> NodeId {
    NodeId::new(index, 1)
}

fn join(network: &MemoryNetwork, index: u32) -> (Arc<MemoryTransport>, Arc<Recorder>) {
    let (transport, service) = (network.join(node(index)), Arc::new(Recorder::default()));
    transport.set_service(service.clone());
    transport.set_peers((1..=3).map(|i| (node(i), ([127, 0, 0, 1], i as u16).into())).collect());
    (transport, service)
}

async fn call(transport: &MemoryTransport, to: u32, text: &'static str) -> Result<Bytes, LinkError> {
    transport.call(node(to), Lane::Requests, Bytes::from_static(text.as_bytes()), SECOND).await
}

#[tokio::test(start_paused = true)]
async fn a_cut_loses_one_direction_until_it_is_healed() {
    let network = MemoryNetwork::new();
    let ((one, _), (two, seen)) = (join(&network, 1), join(&network, 2));
    assert_eq!(one.connected(), [node(2)], "node 3 is not there, and no node is its own peer");
    assert_eq!(call(&one, 2, "well").await.unwrap(), "well");
    for (from, to) in [(1, 2), (2, 1)] {
        network.cut(node(from), node(to));
        let asked = Instant::now();
        let lost = call(&one, 2, "cut").await;
        assert!(matches!(lost, Err(LinkError::Lost { .. })), "{from} to {to}: {lost:?}");
        assert_eq!(asked.elapsed(), SECOND, "a black hole says nothing before the time is over");
        network.heal(node(from), node(to));
        assert_eq!(call(&one, 2, "healed").await.unwrap(), "healed");
    }
    network.cut(node(1), node(2));
    one.tell(node(2), Lane::Bulk, Bytes::from_static(b"lost"));
    two.tell(node(1), Lane::Bulk, Bytes::from_static(b"kept"));
    network.heal(node(1), node(2));
    one.tell(node(2), Lane::Bulk, Bytes::from_static(b"after"));
    assert_eq!(call(&one, 2, "healed").await.unwrap(), "healed");
    assert_eq!(seen.seen(), [(node(1), Lane::Bulk, Bytes::from_static(b"after"))]);
    // What is under way when the cut comes is lost too.
    network.delay(node(1), node(2), SECOND / 4);
    let under_way = one.call(node(2), Lane::Requests, Bytes::from_static(b"under way"), SECOND);
    network.cut(node(1), node(2));
    assert!(matches!(under_way.await, Err(LinkError::Lost { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_or_delayed_arrives_later_and_in_order() {
    let network = MemoryNetwork::new();
    let ((one, _), (_two, seen)) = (join(&network, 1), join(&network, 2));
    let numbers = |n: u8| (0..n).map(|i| (node(1), Lane::Consensus, Bytes::from(vec![i]))).collect::<Vec<_>>();
    network.pause(node(1), node(2));
    for i in 0..100 {
        one.tell(node(2), Lane::Consensus, Bytes::from(vec![i]));
    }
    assert!(matches!(call(&one, 2, "paused").await, Err(LinkError::Lost { .. })));
    assert_eq!(seen.seen(), []);
    network.resume(node(1), node(2));
    assert_eq!(call(&one, 2, "resumed").await.unwrap(), "resumed");
    // With the clock paused, time passes when nothing is left to do.
    tokio::time::sleep(SECOND).await;
    assert_eq!(seen.seen(), numbers(100));
    network.delay(node(1), node(2), SECOND / 4);
    let asked = Instant::now();
    assert_eq!(call(&one, 2, "later").await.unwrap(), "later");
    assert_eq!(asked.elapsed(), SECOND / 4);
}

#[tokio::test(start_paused = true)]
async fn a_seed_says_which_messages_are_lost() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let network = MemoryNetwork::new();
        let ((one, _), (_two, seen)) = (join(&network, 1), join(&network, 2));
        network.lose(node(1), node(2), 0.25, seed);
        for i in 0..1000_u32 {
            one.tell(node(2), Lane::Consensus, Bytes::copy_from_slice(&i.to_be_bytes()));
        }
        tokio::time::sleep(SECOND).await;
        let seen = seen.seen();
        assert!(seen.is_sorted() && (700..800).contains(&seen.len()), "{}", seen.len());
        runs.push(seen);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_there_is_refused_and_who_stops_is_lost() {
    let network = MemoryNetwork::new();
    let ((one, _), (two, _)) = (join(&network, 1), join(&network, 2));
    for to in [1, 3, 9] {
        let refused = one.call(node(to), Lane::Requests, Bytes::new(), SECOND).now_or_never().unwrap();
        assert!(matches!(refused, Err(LinkError::Refused { .. })), "{to}: {refused:?}");
    }
    let too_long = one.call(node(2), Lane::Bulk, Bytes::from(vec![0; MESSAGE_LEN_MAX + 1]), SECOND).await;
    assert!(matches!(too_long, Err(LinkError::Refused { .. })), "{too_long:?}");
    network.pause(node(1), node(2));
    let waiting = one.call(node(2), Lane::Requests, Bytes::from_static(b"waits"), SECOND);
    let asked = Instant::now();
    let (lost, ()) = tokio::join!(waiting, two.stop());
    assert!(matches!(lost, Err(LinkError::Lost { .. })), "{lost:?}");
    assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
    assert!(matches!(call(&one, 2, "gone").await, Err(LinkError::Refused { .. })));
    assert!(matches!(call(&two, 1, "gone").await, Err(LinkError::Refused { .. })));
    network.resume(node(1), node(2));
    let (_two, _) = join(&network, 2);
    assert_eq!(call(&one, 2, "again").await.unwrap(), "again");
}

#[tokio::test]
async fn nothing_runs_when_the_network_is_gone() {
    let network = MemoryNetwork::new();
    let ((one, _), (two, _)) = (join(&network, 1), join(&network, 2));
    assert_eq!(call(&one, 2, "well").await.unwrap(), "well");
    let metrics = Handle::current().metrics();
    assert!(metrics.num_alive_tasks() > 0);
    drop((network, one, two));
    let deadline = std::time::Instant::now() + 10 * SECOND;
    while metrics.num_alive_tasks() > 0 {
        assert!(std::time::Instant::now() < deadline, "{} tasks still run", metrics.num_alive_tasks());
        tokio::task::yield_now().await;
    }
}
