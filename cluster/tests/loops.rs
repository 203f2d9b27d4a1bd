//! Shards in several event loops, asked from threads that are none of them.
#![allow(clippy::unwrap_used)]

mod machine;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use machine::{Command, Rig, user};
use magpie_cluster::{EntityId, Router, disk::os::OsDisk};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// People who are added to, and told things by others.
const PEOPLE: u64 = 16;

/// A loop on a thread of its own, until the sender is dropped.
fn start_loop() -> (Handle, oneshot::Sender<()>, thread::JoinHandle<()>) {
    let (tell, told) = mpsc::channel();
    let (end, ended) = oneshot::channel::<()>();
    let thread = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        tell.send(runtime.handle().clone()).unwrap();
        _ = runtime.block_on(ended);
    });
    (told.recv().unwrap(), end, thread)
}

/// What became of the commands of all threads.
#[derive(Default)]
struct Counts {
    asked: AtomicU64,
    answered: AtomicU64,
    /// Durable and applied: additions, and notes to somebody else.
    added: AtomicU64,
    told: AtomicU64,
    waiting: AtomicU64,
}

fn ask(router: &Router<machine::Counter>, counts: &Arc<Counts>, n: u64) {
    let (from, to) = (user(n % PEOPLE), user((n / 3) % PEOPLE));
    let tells = n.is_multiple_of(5);
    let command = if tells { Command::Tell { to, note: n } } else { Command::Add(1) };
    let counts = counts.clone();
    counts.asked.fetch_add(1, Ordering::Relaxed);
    counts.waiting.fetch_add(1, Ordering::Relaxed);
    let reply = move |replied: Result<_, _>| {
        let of_kind = if tells { &counts.told } else { &counts.added };
        of_kind.fetch_add(u64::from(replied.is_ok()), Ordering::Relaxed);
        counts.answered.fetch_add(1, Ordering::Relaxed);
        counts.waiting.fetch_sub(1, Ordering::Relaxed);
    };
    router.submit(EntityId::user(from), command, Box::new(reply));
}

#[tokio::test]
async fn every_command_is_answered_once_while_shards_in_several_loops_run_and_when_they_stop() {
    let dir = tempfile::tempdir().unwrap();
    let loops: Vec<_> = (0..3).map(|_| start_loop()).collect();
    let handles: Vec<Handle> = loops.iter().map(|(handle, ..)| handle.clone()).collect();
    let counts = Arc::new(Counts::default());
    for _ in 0..3 {
        let rig = Rig::in_loops(Arc::new(OsDisk), dir.path(), false, handles.clone()).await.unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let askers: Vec<_> = (0..4)
            .map(|asker| {
                let (router, counts, stopped) = (rig.router(), counts.clone(), stopped.clone());
                thread::spawn(move || {
                    let mut n = asker;
                    // For a while behind the end: what comes then is refused.
                    while !stopped.load(Ordering::Relaxed) {
                        if counts.waiting.load(Ordering::Relaxed) < 2_000 {
                            ask(&router, &counts, n);
                            n += 4;
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        rig.end(false).await;
        let took = began.elapsed();
        stopped.store(true, Ordering::Relaxed);
        askers.into_iter().for_each(|asker| asker.join().unwrap());
        assert!(took < Duration::from_secs(5), "something was accepted and never handed on: {took:?}");
        let (asked, answered) = (counts.asked.load(Ordering::Relaxed), counts.answered.load(Ordering::Relaxed));
        assert_eq!(asked, answered);
    }
    let rig = Rig::on(Arc::new(OsDisk), dir.path(), false).await;
    let total: u64 = (0..PEOPLE).map(|n| rig.total(n)).sum();
    assert_eq!(
        total,
        counts.added.load(Ordering::Relaxed),
        "what was acknowledged is there, and nothing that was refused"
    );
    assert!(total > 1_000, "{total}");
    let told = counts.told.load(Ordering::Relaxed);
    let heard = || (0..PEOPLE).map(|n| rig.notes(n).len() as u64).sum::<u64>();
    machine::until(|| heard() == told).await;
    rig.end(false).await;
    for (_, end, thread) in loops {
        drop(end);
        thread.join().unwrap();
    }
}
