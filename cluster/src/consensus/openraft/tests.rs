//! The engine's own tests of what it is given to store in.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use magpie_protocol::{NodeId, ShardId};
use openraft::{
    StorageError,
    testing::{StoreBuilder, Suite},
};

use super::{super::openraft_machine::Adapter, LogStore, Types};
use crate::{
    Fatal, Machine, Shard, ShardLimits, ShardMap, Store, Tx,
    disk::{Disk, memory::MemoryDisk},
    log::{LogLimits, LogWriter, ShardLog, segments::Segments},
    machine::EntityId,
    shard::{NodeParts, ShardParts},
    state::memory::MemoryBase,
    system::SystemView,
    work::Background,
};
/// A machine that nothing is asked of: the suite's entries are empty, or changes of members.
struct Nothing;

impl Machine for Nothing {
    type Command = ();
    type Reply = ();
    type Query = ();
    type View = ();

    fn apply(&self, _: &mut Tx<'_>, _: EntityId, (): ()) {}
    fn query(&self, _: &mut Store, (): ()) {}
    fn internal(&self) {}
}

/// Replicas on one disk, each in a folder of its own: what one wrote the other can take.
#[derive(Default)]
struct Builder {
    disk: MemoryDisk,
    built: AtomicU64,
}

impl StoreBuilder<Types, LogStore, Adapter> for Builder {
    async fn build(&self) -> Result<((), LogStore, Adapter), StorageError<u64>> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let dir = PathBuf::from(format!("/replica{}", self.built.fetch_add(1, Ordering::Relaxed)));
        let (log_dir, snapshot_dir) = (dir.join("log"), dir.join("snapshots"));
        let fatal = Fatal::new(|why| panic!("{why}"));
        let (segments, _) = Segments::open(disk.clone(), &log_dir, LogLimits::default()).unwrap();
        let writer = LogWriter::inline(segments, fatal.clone()).unwrap();
        let id = ShardId::new(0);
        let log = ShardLog::new(id, disk.clone(), log_dir, writer, Default::default());
        disk.create_dir(&snapshot_dir).unwrap();
        let node = NodeParts {
            clock: Arc::new(|| 1),
            fatal,
            background: Background::inline(),
            disk,
            snapshot_dir,
            transport: None,
            astray: Default::default(),
        };
        let shard = Shard::new(ShardParts {
            id,
            me: NodeId::new(1, 1),
            map: ShardMap::even(1),
            limits: ShardLimits::default(),
            machine: Nothing,
            store: Store::new(Arc::new(MemoryBase::default()), 1 << 20),
            log: log.clone(),
            system: SystemView::default(),
            snapshot: None,
            node,
        });
        Ok(((), LogStore::new(log), Adapter::new(shard.unwrap().0)))
    }
}

#[test]
fn the_engines_own_suite_passes() {
    Suite::test_all(Builder::default()).unwrap();
}
