//! Parts of a node by themselves: `cargo bench -p magpie --bench micro`. All of it is CPU: disks are in memory.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use divan::{Bencher, black_box, counter::ItemsCount};
use futures_util::future::join_all;
use magpie_cluster::{
    DiskId, EntityId, Fatal, Outside, Part, ShardLimits, Storage, StorageConfig, disk::memory::MemoryDisk,
    log::LogLimits,
};
use magpie_node::{
    Command, Magpie, account, chat,
    machine::MagpieRouter,
    session::{outbound::Outbound, writer::Writer},
};
use magpie_protocol::{
    Answer, Body, ConversationId, DeviceId, Entry, Frame, Incarnation, NodeId, Request, Slot, TimelineId, UserId,
    frame::{
        FrameReader,
        conversation::{Content, Post},
        sync::{EntryBytes, Pushed},
    },
};

fn main() {
    divan::main();
}

fn handle(n: u64) -> String {
    format!("user-{n}")
}

/// A person lives where their handle does.
fn user(n: u64) -> UserId {
    UserId::in_slot(Slot::of_text(&handle(n)), n)
}

fn conversation() -> ConversationId {
    ConversationId::direct(user(1), user(2))
}

fn text() -> String {
    "m".repeat(100)
}

/// A frame as the gateway reads it.
fn post(number: u64) -> Frame<Request> {
    let (conversation, incarnation) = (conversation(), Incarnation::mint(1, 1));
    let post = Post { conversation, incarnation, number, content: Content::Text(text()) };
    Frame::new(magpie_protocol::RequestId::new(7), Request::Post(post))
}

/// A frame as sessions write it.
fn pushed() -> Frame<Answer> {
    let entry = Entry { number: 9, time_ms: 1, sender: user(1), body: Body::Text(text()) };
    let entry = EntryBytes(entry.to_bytes().into());
    Frame::push(Answer::Pushed(Pushed { timeline: TimelineId::Conversation(conversation()), entry }))
}

#[divan::bench]
fn codec_encode_post(bencher: Bencher) {
    let frame = post(1);
    bencher.bench_local(|| black_box(&frame).to_bytes());
}

#[divan::bench]
fn codec_decode_post(bencher: Bencher) {
    let bytes = post(1).to_bytes();
    let mut reader = FrameReader::default();
    bencher.bench_local(|| {
        reader.push(black_box(bytes.clone()));
        reader.next_frame::<Request>().unwrap().unwrap()
    });
}

#[divan::bench]
fn codec_encode_push(bencher: Bencher) {
    let frame = pushed();
    bencher.bench_local(|| black_box(&frame).to_bytes());
}

/// What a hint costs for so many sessions: encoded once, queued by reference for each, taken by each writer.
#[divan::bench(args = [1, 50, 500])]
fn fan_out(bencher: Bencher, sessions: usize) {
    let timeline = TimelineId::Conversation(conversation());
    let sessions: Vec<Arc<Outbound>> = (0..sessions).map(|_| Outbound::new(1 << 20, Writer::default())).collect();
    let frame = pushed();
    bencher.counter(ItemsCount::new(sessions.len())).bench_local(|| {
        let bytes: Bytes = black_box(&frame).to_bytes();
        sessions.iter().for_each(|session| session.push_hint(timeline, &bytes));
        sessions.iter().for_each(|session| drop(black_box(session.drain())));
    });
}

async fn storage() -> Storage<Magpie> {
    let config = StorageConfig {
        serve_within: magpie_cluster::consensus::openraft::HEARD_WITHIN,
        level: magpie_cluster::system::LEVEL,
        dir: "/m".into(),
        node: NodeId::new(1, 1),
        disk: DiskId(1),
        part: Part::default(),
        lost_after: Duration::from_secs(300),
        audit_every: Duration::from_secs(60),
        catch_up_bytes: 64 << 20,
        shards: 8,
        state_in_memory: true,
        threads: false,
        sled_cache_bytes: 0,
        log: LogLimits { segment_bytes: 64 << 20, reserve_bytes: 0 },
        shard: ShardLimits::default(),
    };
    let fatal = Fatal::new(|why| panic!("{why}"));
    let disk = Arc::new(MemoryDisk::default());
    let outside = Outside { disk, clock: Arc::new(|| 1_000_000), fatal, transport: None, loops: Vec::new() };
    Storage::open(&config, outside, || Magpie).await.unwrap()
}

async fn sign_up(router: &MagpieRouter, n: u64) {
    let device =
        account::command::NewDevice { device: DeviceId::from_bits(n), public_key: [0; 32], name: "bench".into() };
    let command = account::Command::SignUp { handle: handle(n), user: user(n), password_hash: String::new(), device };
    let entity = EntityId::handle(Slot::of_text(&handle(n)));
    router.ask(entity, Command::Account(command)).await.unwrap().unwrap();
}

/// A post from the router to its answer: batch, consensus, log in memory, apply; as many conversations at once.
#[divan::bench(args = [1, 64, 512], max_time = 2)]
fn apply_post(bencher: Bencher, at_once: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let storage = runtime.block_on(storage());
    let router = storage.router();
    let ask = |n: u64, command: chat::Command| {
        let entity = EntityId::conversation(ConversationId::direct(user(2 * n), user(2 * n + 1)));
        async move { router.ask(entity, Command::Chat(command)).await.unwrap().unwrap() }
    };
    runtime.block_on(async {
        for n in 0..2 * at_once {
            sign_up(router, n).await;
        }
        for n in 0..at_once {
            ask(n, chat::Command::CreateDirect { a: user(2 * n), b: user(2 * n + 1) }).await;
        }
    });
    let mut number = 0;
    bencher.counter(ItemsCount::new(at_once)).bench_local(|| {
        number += 1;
        let post = |n: u64| chat::command::Post {
            user: user(2 * n),
            device: DeviceId::from_bits(1),
            epoch: 1,
            incarnation: Incarnation::mint(1, 1),
            number,
            content: Content::Text(text()),
        };
        runtime.block_on(join_all((0..at_once).map(|n| ask(n, chat::Command::Post(post(n))))));
    });
    runtime.block_on(async { storage.crash() });
}
