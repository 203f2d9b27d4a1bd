//! A node of one shard in memory, for tests of what commands leave behind: no network, no sessions, a clock that is set.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use magpie_cluster::{
    EntityId, Fatal, Outside, Part, ShardLimits, Storage, StorageConfig,
    consensus::openraft::HEARD_WITHIN,
    disk::{Disk, memory::MemoryDisk},
    log::LogLimits,
    snapshot,
    state::table,
    system::{DiskId, LEVEL},
};
use magpie_protocol::{NodeId, ShardId, Slot};

use crate::{Command, Magpie, Query, View, machine::Replied, policy::Policy};

/// Keys and values as they stand in a snapshot.
pub(crate) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// See the module's documentation.
pub(crate) struct OneShard {
    storage: Storage<Magpie>,
    disk: Arc<dyn Disk>,
    now_ms: Arc<AtomicU64>,
}

impl OneShard {
    /// An empty one, in November 2023.
    pub(crate) async fn start() -> Self {
        let config = StorageConfig {
            dir: "/m".into(),
            node: NodeId::new(1, 1),
            disk: DiskId(1),
            part: Part::default(),
            lost_after: Duration::from_secs(300),
            audit_every: Duration::from_secs(60),
            catch_up_bytes: 64 << 20,
            serve_within: HEARD_WITHIN,
            level: LEVEL,
            shards: 1,
            state_in_memory: true,
            threads: false,
            sled_cache_bytes: 0,
            log: LogLimits { segment_bytes: 1 << 20, reserve_bytes: 0 },
            shard: ShardLimits::default(),
        };
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let now_ms = Arc::new(AtomicU64::new(1_700_000_000_000));
        let clock = now_ms.clone();
        let (clock, fatal) = (Arc::new(move || clock.load(Ordering::Relaxed)), Fatal::new(|why| panic!("{why}")));
        let outside = Outside { disk: disk.clone(), clock, fatal, transport: None, loops: Vec::new() };
        let storage = Storage::open(&config, outside, || Magpie).await.unwrap();
        Self { storage, disk, now_ms }
    }

    /// So much later. A shard doubts a clock that jumps for ten seconds: for tests in which tokio's time is paused.
    pub(crate) async fn pass(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
        for _ in 0..2 {
            let nothing = Command::Policy(Policy::default());
            self.hurry(EntityId::handle(Slot::new(0)), nothing).await.unwrap();
            tokio::time::sleep(Duration::from_secs(11)).await;
        }
    }

    /// Carries out a command.
    pub(crate) async fn hurry(&self, entity: EntityId, command: impl Into<Command>) -> Replied {
        self.storage.router().ask(entity, command.into()).await.unwrap()
    }

    /// Carries out a command, and what it sent.
    pub(crate) async fn ask(&self, entity: EntityId, command: impl Into<Command>) -> Replied {
        let replied = self.hurry(entity, command).await;
        let mut quiet = 0;
        while quiet < 20 {
            let before = self.storage.shards()[0].applied_index();
            tokio::time::sleep(Duration::from_millis(2)).await;
            quiet = if self.storage.shards()[0].applied_index() == before { quiet + 1 } else { 0 };
        }
        replied
    }

    /// What can be read.
    pub(crate) async fn read(&self, slot: Slot, query: Query) -> View {
        self.storage.router().query(slot, query).await.unwrap()
    }

    /// All records, but for what the cluster knows of itself, which was drawn by lot.
    pub(crate) async fn records(self) -> Records {
        self.storage.shards()[0].snapshot_now().await.unwrap();
        let dir = Path::new("/m/snapshots");
        let (_, path) = snapshot::list(&self.disk, dir, ShardId::new(0)).unwrap().pop().unwrap();
        let mut records = Vec::new();
        let mut take = |key: &[u8], value: &[u8]| {
            records.push((key.to_vec(), value.to_vec()));
            Ok(())
        };
        snapshot::read(&self.disk, &path, &mut take).unwrap();
        self.storage.crash();
        records.retain(|(key, _)| key[2] != table::SYSTEM);
        records
    }
}
