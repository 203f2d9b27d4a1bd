use std::time::Instant as Clock;

use futures_util::StreamExt;

use super::*;

const CHUNK_LEN: usize = 1024 * 1024;
const CHUNKS: usize = 64;

fn p99(latencies: &mut [Duration]) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

#[tokio::test]
async fn a_snapshot_does_not_delay_consensus() {
    let nodes = cluster(&Authority::new(), 2).await;
    let (one, chunk) = (&nodes[0], Bytes::from(vec![7; CHUNK_LEN]));
    let vote = async || {
        let asked = Clock::now();
        one.call(node(2), Lane::Consensus, &[1; 100]).await.unwrap();
        asked.elapsed()
    };
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(vote().await);
    }
    let started = Clock::now();
    let mut snapshot = Box::pin(async {
        let calls = (0..CHUNKS).map(|_| one.transport.call(node(2), Lane::Bulk, chunk.clone(), 30 * SECOND));
        let mut calls = futures_util::stream::iter(calls).buffered(3);
        while let Some(answer) = calls.next().await {
            assert_eq!(answer.unwrap().len(), CHUNK_LEN);
        }
    });
    let mut busy = Vec::new();
    loop {
        tokio::select! {
            () = &mut snapshot => break,
            took = vote() => busy.push(took),
        }
    }
    drop(snapshot);
    let took = started.elapsed();
    let (count, idle, busy_most) = (busy.len(), p99(&mut idle), p99(&mut busy));
    println!(
        "{CHUNKS} MiB there and back in {took:?}; {count} calls meanwhile, median {:?}, p99 {busy_most:?}; p99 {idle:?} \
         without",
        busy[count / 2]
    );
    assert!(count >= 20, "{count} calls in {took:?}");
    // A few ms on a machine that has nothing else to do; an election starts after several times this.
    assert!(busy_most < Duration::from_millis(100), "p99 of {count} calls is {busy_most:?}");
    stop(nodes).await;
}

#[tokio::test]
async fn many_calls_at_once_are_all_answered() {
    const CALLS: u32 = 20_000;
    let nodes = cluster(&Authority::new(), 2).await;
    let started = Clock::now();
    let calls = (0..CALLS).map(|i| {
        let request = Bytes::copy_from_slice(&[&[1][..], &i.to_le_bytes(), &[2; 95]].concat());
        let call = nodes[0].transport.call(node(2), Lane::Requests, request.clone(), 30 * SECOND);
        async move { call.await.unwrap() == request }
    });
    let right = futures_util::stream::iter(calls).buffer_unordered(1000).filter(|right| std::future::ready(*right));
    assert_eq!(right.count().await as u32, CALLS);
    println!("{CALLS} calls of 100 bytes, 1,000 at a time, in {:?}", started.elapsed());
    stop(nodes).await;
}
