//! The engine's own tests of what it is given to store in.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use magpie_protocol::{NodeId, ShardId, codec};
use openraft::{
    StorageError, Vote,
    raft::VoteRequest,
    storage::RaftLogStorage as _,
    testing::{StoreBuilder, Suite},
};

use super::{
    super::{
        openraft_log::{Start, from_position},
        openraft_machine::Adapter,
        openraft_wire as wire,
        pace::{Brake, Pace},
    },
    LogStore, Types,
};
use crate::{
    Fatal, Machine, Shard, ShardLimits, ShardMap, Store, Tx,
    disk::{Disk, memory::MemoryDisk},
    log::{LogEntry, LogLimits, LogWriter, Position, ShardLog, segments::Segments},
    machine::EntityId,
    shard::{NodeParts, ShardParts},
    state::memory::MemoryBase,
    system::SystemView,
    work::Background,
};

const ALONE: Start = Start { applied: None, follows: None };

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

impl Builder {
    fn replica(&self) -> (Arc<ShardLog>, Shard<Nothing>) {
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
            level: crate::system::LEVEL,
            serve_within: crate::consensus::openraft::HEARD_WITHIN,
            clock: Arc::new(|| 1),
            fatal,
            background: Background::inline(),
            disk,
            snapshot_dir,
            transport: None,
            astray: Default::default(),
            pace: Pace::new(1 << 20),
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
            runtime: tokio::runtime::Handle::current(),
        });
        (log, shard.unwrap())
    }
}

impl StoreBuilder<Types, LogStore, Adapter> for Builder {
    async fn build(&self) -> Result<((), LogStore, Adapter), StorageError<u64>> {
        let (log, shard) = self.replica();
        let brake = Brake::new(log.clone(), Pace::new(1 << 20));
        Ok(((), LogStore::new(log, brake, ALONE), Adapter::new(shard.0)))
    }
}

/// A replica left with ten entries and came again with none: it may have acknowledged any of the ten.
#[tokio::test]
async fn a_replica_that_came_again_votes_for_nobody_who_lacks_what_it_had() {
    let (log, shard) = Builder::default().replica();
    let entry = |index| LogEntry { position: Position { term: 3, node: 1, index }, payload: Bytes::from_static(&[0]) };
    log.append((1..=10).map(entry).collect(), Box::new(|| ()));
    log.save_vote(codec::encode(&(3u64, NodeId::new(2, 1).bits(), true)).into(), Box::new(|| ()));
    crate::shard::hosting::forget(&log, Box::new(|| ()));
    shard.host().await.unwrap();
    let group = shard.group().unwrap();
    let ask = async |term, node, last| {
        let last_log_id = Some(from_position(Position { term: 3, node: 1, index: last }));
        let request = VoteRequest { vote: Vote::new(term, NodeId::new(node, 1).bits()), last_log_id };
        let answer = group.answer(wire::vote(&request)).await;
        answer.is_some_and(|answer| wire::to_voted(&answer).unwrap().vote_granted)
    };
    assert!(group.stand().await.is_err(), "it would be elected by others who lack it");
    assert!(!ask(5, 3, 9).await);
    assert!(!ask(3, 1, 20).await, "its promise of term 3 is another's");
    assert!(ask(6, 3, 10).await);
    shard.end_group().await;
}

#[tokio::test]
async fn a_replica_starts_with_what_it_promised_and_leads_nothing() {
    let (log, _shard) = Builder::default().replica();
    let brake = Brake::new(log.clone(), Pace::new(1 << 20));
    let (me, other) = (NodeId::new(3, 1), NodeId::new(7, 1));
    let applied = |term| Some(Position { term, node: other.bits(), index: 9 });
    let read = async |start| LogStore::new(log.clone(), brake.clone(), start).read_vote().await.unwrap();
    let save = async |vote| LogStore::new(log.clone(), brake.clone(), ALONE).save_vote(&vote).await.unwrap();
    let company = |applied| Start { applied, follows: Some(me) };

    let given = Vote::new(2, me.bits());
    save(given).await;
    assert_eq!(read(ALONE).await, Some(given));
    assert_eq!(read(company(applied(2))).await, Some(given));
    // A snapshot came and was written down, and the node ended before it wrote down who had led when it was made.
    let decided = Vote::new_committed(3, other.bits());
    assert_eq!(read(company(applied(3))).await, Some(decided));

    for (leader, again) in [(other, Vote::new_committed(4, other.bits())), (me, Vote::new(4, me.bits()))] {
        save(Vote::new_committed(4, leader.bits())).await;
        assert_eq!(read(company(applied(4))).await, Some(again));
        assert_eq!(read(ALONE).await, Some(Vote::new_committed(4, leader.bits())));
    }
}

#[test]
fn the_engines_own_suite_passes() {
    Suite::test_all(Builder::default()).unwrap();
}
