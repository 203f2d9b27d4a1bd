//! What stored history takes of memory: a node is to grow with its caches, not with what it has ever stored.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use bytes::Bytes;
use magpie_cluster::state::{Applied, Key, StateBase, base::encode_entries, sled::SledDb};
use magpie_protocol::{ShardId, Slot, TimelineId, UserId};

/// The system's allocator, and how many bytes of it are in use.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it hands on what the system's allocator gives.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn timeline(n: u64) -> TimelineId {
    TimelineId::Inbox(UserId::in_slot(Slot::new((n * 1021 % 4096) as u16), n))
}

#[test]
fn memory_grows_with_bytes_of_history_not_with_checkpoints() {
    // For a longer look: `TIMELINES=510 CHECKPOINTS=3600 cargo test -p magpie-cluster --test history -- --nocapture`.
    let or = |name: &str, other: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(other);
    let (timelines, checkpoints) = (or("TIMELINES", 510), or("CHECKPOINTS", 100));
    let (entries, bytes) = (or("ENTRIES", 5), or("BYTES", 150));
    let dir = tempfile::tempdir().unwrap();
    let db = SledDb::open(dir.path(), 8 << 20).unwrap();
    let base = db.shard(ShardId::new(0)).unwrap();
    let run: Vec<Bytes> = (0..entries).map(|_| Bytes::from(vec![b'm'; bytes as usize])).collect();
    let (began, before) = (Instant::now(), LIVE.load(Ordering::Relaxed));
    let mut a_run = 0;
    for checkpoint in 1..=checkpoints {
        let writes = (0..timelines)
            .map(|n| (Key::entries(timeline(n), checkpoint * entries), Some(encode_entries(run.iter()))))
            .collect();
        base.commit(writes, &Applied::default()).unwrap();
        if checkpoint % checkpoints.div_ceil(10) == 0 {
            let live = LIVE.load(Ordering::Relaxed).saturating_sub(before) as u64;
            let runs = checkpoint * timelines;
            a_run = live / runs;
            println!("{runs} runs of {entries} entries: {live} bytes, {a_run} a run, {:?}", began.elapsed());
        }
    }
    drop(base);
    // A record of sled for each was 230.
    assert!(a_run < 100, "{a_run} bytes of memory for each run of a checkpoint");
}
