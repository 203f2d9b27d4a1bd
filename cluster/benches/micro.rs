//! Parts of the durable half by themselves: `cargo bench -p magpie-cluster --bench micro`.
//!
//! With a disk in memory it is CPU that is measured; `log_append_and_sync` writes to the real one.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use divan::{Bencher, black_box, counter::ItemsCount};
use magpie_cluster::{
    EntityId, Fatal,
    disk::{Disk, memory::MemoryDisk, os::OsDisk},
    log::{LogEntry, LogLimits, LogWriter, Position, ShardLog, segments::Segments},
    shard::batch::{BatchBuilder, BatchReader},
};
use magpie_protocol::{ShardId, Slot, UserId};

#[path = "../tests/machine/mod.rs"]
mod machine;

use machine::{Command, Rig};

/// A 100-byte message as a command, with what names it.
const COMMAND_BYTES: usize = 150;

fn main() {
    divan::main();
}

/// Commands of a batch.
const COMMANDS: [usize; 3] = [1, 64, 512];

#[divan::bench(args = COMMANDS)]
fn batch_build_and_read(bencher: Bencher, commands: usize) {
    let command = vec![b'm'; COMMAND_BYTES];
    let entity = EntityId::user(UserId::in_slot(Slot::new(7), 7));
    bencher.counter(ItemsCount::new(commands)).bench_local(|| {
        let mut batch = BatchBuilder::default();
        (0..commands).for_each(|_| batch.ask(entity, black_box(&command)));
        let bytes = batch.finish(1, 1);
        let mut reader = BatchReader::new(&bytes).unwrap();
        while let Ok(Some(item)) = reader.next_item() {
            black_box(&item);
        }
    });
}

/// A log on this disk, written by whoever appends.
fn log(disk: Arc<dyn Disk>, dir: &Path) -> Arc<ShardLog> {
    let limits = LogLimits { segment_bytes: 64 << 20, reserve_bytes: 0 };
    let (segments, mut found) = Segments::open(disk.clone(), dir, limits).unwrap();
    let writer = LogWriter::inline(segments, Fatal::new(|why| panic!("{why}"))).unwrap();
    let shard = ShardId::new(0);
    ShardLog::new(shard, disk, dir.to_owned(), writer, found.remove(&shard).unwrap_or_default())
}

fn append(bencher: Bencher, commands: usize, log: &Arc<ShardLog>) {
    let payload = Bytes::from(vec![b'm'; COMMAND_BYTES * commands]);
    let mut index = 0;
    bencher.counter(ItemsCount::new(commands)).bench_local(|| {
        index += 1;
        let entry = LogEntry { position: Position { term: 1, node: 1, index }, payload: payload.clone() };
        log.append(vec![entry], Box::new(|| ()));
        // What a snapshot lets go, so that memory does not grow with the time that this takes.
        if index % 1024 == 0 {
            log.purge(Position { term: 1, node: 1, index: index - 1 });
        }
    });
}

/// One entry, on a disk in memory: framing, checksums, book-keeping.
#[divan::bench(args = COMMANDS, max_time = 1)]
fn log_append(bencher: Bencher, commands: usize) {
    append(bencher, commands, &log(Arc::new(MemoryDisk::default()), Path::new("/log")));
}

/// One entry on the real disk, fdatasync and all.
#[divan::bench(args = COMMANDS, max_time = 1)]
fn log_append_and_sync(bencher: Bencher, commands: usize) {
    let dir = tempfile::tempdir().unwrap();
    append(bencher, commands, &log(Arc::new(OsDisk), dir.path()));
}

/// From a command in one shard through its outbox to what it does in another: as many at once.
#[divan::bench(args = [1, 64], max_time = 2)]
fn outbox(bencher: Bencher, at_once: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rig = runtime.block_on(Rig::on(machine::memory_disk(), Path::new("/m"), true));
    let mut note = 0;
    bencher.counter(ItemsCount::new(at_once)).bench_local(|| {
        runtime.block_on(async {
            note += 1;
            let tell = |from: u64| rig.ask(from, Command::Tell { to: machine::user(1000 + from), note });
            futures_util::future::join_all((1..=at_once).map(tell)).await;
            // Streams between two shards are in order, but there are several pairs of shards: everybody is asked.
            for from in 1..=at_once {
                while rig.notes(1000 + from).len() < note as usize {
                    tokio::task::yield_now().await;
                }
            }
        });
    });
    runtime.block_on(rig.end(true));
}
