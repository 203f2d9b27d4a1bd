//! A machine of two commands, and the rig that runs it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bincode::{Decode, Encode};
use magpie_cluster::{
    AskError, DiskId, EntityId, Fatal, Key, Machine, Outside, Part, Record, Router, Storage, StorageConfig,
    StorageError, Store, Tx,
    consensus::openraft::HEARD_WITHIN,
    disk::{Disk, memory::MemoryDisk},
    log::LogLimits,
    shard::ShardLimits,
    state::table,
    system::{FIRST_LEVEL, LEVEL},
};
use magpie_protocol::{Body, Entry, NodeId, Slot, TimelineId, UserId};
use tokio::runtime::Handle;

#[derive(Clone, Debug, Encode, Decode)]
pub enum Command {
    Add(u64),
    Tell {
        to: UserId,
        note: u64,
    },
    Told {
        from: UserId,
        note: u64,
    },
    Panic,
    /// Of the level after this build's.
    Later,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Said {
    Total(u64),
    Internal,
}

#[derive(Clone, Default, Encode, Decode)]
pub struct Sum {
    total: u64,
    notes: Vec<(u64, u64)>,
    told: Vec<(u64, u64)>,
}
impl Record for Sum {}

impl Sum {
    /// All of it.
    pub fn story(&self) -> (u64, Vec<(u64, u64)>) {
        (self.total, self.notes.clone())
    }

    /// Whom this person told what, in order.
    pub fn told(&self) -> Vec<(u64, u64)> {
        self.told.clone()
    }
}

#[derive(Default)]
pub struct Counter {
    /// This replica adds wrongly.
    pub wrong: Arc<AtomicBool>,
}

fn key(user: UserId) -> Key {
    Key::new(user.slot(), table::FIRST_FREE).u64(user.bits())
}

fn entity_user(entity: EntityId) -> UserId {
    UserId::from_bits((entity.bits() >> 64) as u64)
}

/// People spread over all shards; the low bits say who.
pub fn user(n: u64) -> UserId {
    UserId::in_slot(Slot::new((n * 1021 % 4096) as u16), n)
}

fn number(user: UserId) -> u64 {
    user.bits() & 0xffff
}

impl Machine for Counter {
    type Command = Command;
    type Reply = Said;
    type Query = UserId;
    /// Sum, numbers of entries, time of the newest.
    type View = (Sum, Vec<u64>, u64);

    fn apply(&self, tx: &mut Tx<'_>, entity: EntityId, command: Command) -> Said {
        let me = entity_user(entity);
        let mut sum = tx.get::<Sum>(&key(me)).map(|s| (*s).clone()).unwrap_or_default();
        match command {
            Command::Add(n) => {
                // What it did before, as long as not every replica does otherwise.
                let n = if tx.level() > LEVEL { 2 * n } else { n };
                sum.total += n + u64::from(self.wrong.load(Ordering::Relaxed));
                tx.append(TimelineId::Inbox(me), me, Body::Text(n.to_string()), 0, None);
            }
            Command::Tell { to, note } => {
                sum.told.push((number(to), note));
                tx.send(EntityId::user(to), &Command::Told { from: me, note });
            }
            Command::Told { from, note } => sum.notes.push((number(from), note)),
            Command::Later => sum.total += 1000,
            Command::Panic => {
                sum.total = 999;
                tx.put(key(me), sum);
                panic!("asked to");
            }
        }
        let total = sum.total;
        tx.put(key(me), sum);
        Said::Total(total)
    }

    fn query(&self, store: &mut Store, user: UserId) -> Self::View {
        let sum = store.get::<Sum>(&key(user)).unwrap().map(|s| (*s).clone()).unwrap_or_default();
        let view = store.entries(TimelineId::Inbox(user), 1, u64::MAX, usize::MAX).unwrap();
        let numbers = view.entries.iter().map(|e| Entry::from_bytes(e).unwrap().number).collect();
        let newest = view.entries.last().map_or(0, |e| Entry::from_bytes(e).unwrap().time_ms);
        (sum, numbers, newest)
    }

    /// Reads of these two people must be fresh, one in each of two shards.
    fn is_fresh(query: &UserId) -> bool {
        *query == user(8) || *query == user(9)
    }

    fn level_of(command: &Command) -> u32 {
        if matches!(command, Command::Later) { LEVEL + 1 } else { FIRST_LEVEL }
    }

    fn internal(&self) -> Said {
        Said::Internal
    }
}

pub fn memory_disk() -> Arc<MemoryDisk> {
    Arc::new(MemoryDisk::default())
}

pub struct Rig {
    storage: Storage<Counter>,
    fatal: Arc<Mutex<String>>,
}

impl Rig {
    pub async fn try_on(disk: Arc<dyn Disk>, dir: &Path, state_in_memory: bool) -> Result<Self, StorageError> {
        Self::in_loops(disk, dir, state_in_memory, Vec::new()).await
    }

    /// The same with its shards in these loops.
    pub async fn in_loops(
        disk: Arc<dyn Disk>,
        dir: &Path,
        state_in_memory: bool,
        loops: Vec<Handle>,
    ) -> Result<Self, StorageError> {
        let config = StorageConfig {
            dir: dir.to_owned(),
            node: NodeId::new(1, 1),
            shards: 4,
            disk: DiskId(1),
            part: Part::default(),
            lost_after: Duration::from_secs(300),
            audit_every: Duration::from_secs(60),
            catch_up_bytes: 64 << 20,
            serve_within: HEARD_WITHIN,
            level: LEVEL,
            state_in_memory,
            // What is in memory is tested without threads too.
            threads: !state_in_memory,
            sled_cache_bytes: 16 << 20,
            log: LogLimits { segment_bytes: 64 * 1024, reserve_bytes: 64 * 1024 },
            shard: ShardLimits { checkpoint_ms: 100, snapshot_bytes_min: 64 * 1024, ..ShardLimits::default() },
        };
        let began = Instant::now();
        let clock = Arc::new(move || 1_000_000 + began.elapsed().as_millis() as u64);
        let fatal = Arc::new(Mutex::new(String::new()));
        let seen = fatal.clone();
        let end = Fatal::new(move |why| *seen.lock().unwrap() += why);
        let outside = Outside { disk, clock, fatal: end, transport: None, loops };
        Ok(Self { storage: Storage::open(&config, outside, Counter::default).await?, fatal })
    }

    pub async fn on(disk: Arc<dyn Disk>, dir: &Path, state_in_memory: bool) -> Self {
        Self::try_on(disk, dir, state_in_memory).await.unwrap()
    }

    pub async fn ask(&self, n: u64, command: Command) -> Result<Said, AskError> {
        self.storage.router().ask(EntityId::user(user(n)), command).await
    }

    pub fn router(&self) -> Router<Counter> {
        self.storage.router().clone()
    }

    pub fn total(&self, n: u64) -> u64 {
        self.storage.router().query_here(user(n).slot(), user(n)).unwrap().0.total
    }

    pub fn notes(&self, n: u64) -> Vec<(u64, u64)> {
        self.storage.router().query_here(user(n).slot(), user(n)).unwrap().0.notes
    }

    pub fn entries(&self, n: u64) -> Vec<u64> {
        self.storage.router().query_here(user(n).slot(), user(n)).unwrap().1
    }

    pub fn health(&self) -> Result<(), String> {
        self.storage.shards().iter().try_for_each(|s| s.health())
    }

    pub fn fatal(&self) -> String {
        self.fatal.lock().unwrap().clone()
    }

    pub async fn snapshot_all(&self) {
        for shard in self.storage.shards() {
            shard.snapshot_now().await.unwrap();
        }
    }

    pub async fn end(self, crash: bool) {
        if crash {
            self.storage.crash();
        } else {
            self.storage.stop().await.unwrap();
        }
    }
}

pub async fn until(mut holds: impl FnMut() -> bool) {
    until_async(async || holds()).await;
}

pub async fn until_async(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 20 seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
