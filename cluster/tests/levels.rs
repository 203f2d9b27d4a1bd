//! Builds of different levels beside each other: what none but the newer can do waits until all can, and a build that
//! meets what it cannot do stops and says so.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod cluster;
mod machine;

use std::{path::Path, sync::Arc, time::Duration};

use bincode::{Decode, Encode};
use cluster::{Cluster, SHARDS, until};
use machine::{Command, Counter, Said, user};
use magpie_cluster::{
    AskError, DiskId, Ending, EntityId, Fatal, Machine, Outside, Part, ShardLimits, Storage, StorageConfig,
    StorageError, Store, Tx,
    consensus::openraft::HEARD_WITHIN,
    disk::memory::MemoryDisk,
    log::LogLimits,
    system::{FIRST_LEVEL, LEVEL},
};
use magpie_protocol::{NodeId, UserId};

const NEWER: u32 = LEVEL + 1;

async fn restart(cluster: &mut Cluster, at: usize, level: u32) {
    cluster.crash(at).await;
    cluster.levels.insert(at, level);
    cluster.start(at).await;
    cluster.settled().await;
}

/// Waits until every replica of every shard is at this level.
async fn all_at(cluster: &Cluster, level: u32) {
    until(|| {
        let mut shards = cluster.up().flat_map(|node| node.storage.shards());
        cluster.system().level == level && shards.all(|shard| shard.level() == level)
    })
    .await;
}

/// Nobody does it, wherever it is asked.
async fn nobody_can_yet(cluster: &Cluster) {
    for at in 0..3 {
        for n in 0..4 {
            let asked = loop {
                match cluster.ask(at, n, Command::Later).await {
                    Err(AskError::Unavailable | AskError::NotLeader { .. }) => {}
                    other => break other,
                }
            };
            assert_eq!(asked, Err(AskError::NotYet { needs: NEWER }), "n{} of {n}", at + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_new_waits_until_all_can_and_begins_everywhere_at_once() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    let mut total = 0;
    for at in 0..3 {
        nobody_can_yet(&cluster).await;
        total += 1;
        for n in 0..10 {
            assert_eq!(cluster.insist(at, n, Command::Add(1)).await, Said::Total(total), "as it was before");
        }
        restart(&mut cluster, at, NEWER).await;
        if at < 2 {
            // Long enough for whoever would raise it.
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(cluster.system().level, LEVEL);
        }
    }
    all_at(&cluster, NEWER).await;
    for n in 0..10 {
        assert_eq!(cluster.insist(0, n, Command::Add(1)).await, Said::Total(total + 2), "as a newer build does it");
        assert_eq!(cluster.ask(1, n, Command::Later).await, Ok(Said::Total(total + 1002)));
    }
    cluster.agree(0..10).await;
    // Who comes again knows how far it was: from its log, and from a snapshot.
    for at in 0..3 {
        cluster.crash(at).await;
        cluster.start(at).await;
        cluster.settled().await;
        for shard in cluster.node(at).storage.shards() {
            until(|| shard.is_hosted() && shard.level() == NEWER).await;
            shard.snapshot_now().await.unwrap();
        }
        cluster.crash(at).await;
        cluster.start(at).await;
        assert!(cluster.node(at).storage.shards().iter().all(|shard| shard.level() == NEWER));
        cluster.settled().await;
    }
    cluster.agree(0..10).await;
}

#[tokio::test(start_paused = true)]
async fn an_older_build_does_not_come_back_and_the_others_go_on() {
    let mut cluster = Cluster::of(3).await;
    cluster.settled().await;
    for at in 0..3 {
        cluster.insist(at, 0, Command::Add(1)).await;
        restart(&mut cluster, at, NEWER).await;
        if at == 1 {
            // It has said what it can do, and is not there when all can.
            until(|| cluster.system().nodes[&cluster::id(0)].level == NEWER).await;
            cluster.crash(0).await;
        }
    }
    until(|| cluster.system().level == NEWER).await;
    // What it has on its disk it can do. What the others have decided meanwhile it cannot.
    cluster.levels.insert(0, LEVEL);
    cluster.start(0).await;
    until(|| cluster.node(0).ending.lock().unwrap().is_some()).await;
    assert_eq!(*cluster.node(0).ending.lock().unwrap(), Some(Ending::TooOld));
    assert!(cluster.node(0).fatal.lock().unwrap().contains("upgrade this node"));
    assert!(cluster.node(0).storage.shards().iter().all(|shard| shard.level() <= LEVEL));
    cluster.crash(0).await;
    for n in 0..SHARDS {
        cluster.insist(1, u64::from(n), Command::Later).await;
    }
    // As what it is it comes back, ...
    cluster.levels.insert(0, NEWER);
    cluster.start(0).await;
    all_at(&cluster, NEWER).await;
    cluster.agree(0..10).await;
    // ... and as what it was it does not even start.
    cluster.crash(0).await;
    cluster.levels.insert(0, LEVEL);
    let refused = cluster.try_start(0).await;
    assert!(matches!(&refused, Err(StorageError::TooOld(why)) if why.contains("upgrade this node")), "{refused:?}");
}

/// A build that knows one command more.
struct Newer(Counter);

#[derive(Clone, Encode, Decode)]
enum NewerCommand {
    Add(u64),
    Tell { to: UserId, note: u64 },
    Told { from: UserId, note: u64 },
    Panic,
    Later,
    Newest,
}

impl Machine for Newer {
    type Command = NewerCommand;
    type Reply = Said;
    type Query = UserId;
    type View = <Counter as Machine>::View;

    fn apply(&self, tx: &mut Tx<'_>, entity: EntityId, command: NewerCommand) -> Said {
        let command = match command {
            NewerCommand::Add(n) => Command::Add(n),
            NewerCommand::Tell { to, note } => Command::Tell { to, note },
            NewerCommand::Told { from, note } => Command::Told { from, note },
            NewerCommand::Panic => Command::Panic,
            NewerCommand::Later | NewerCommand::Newest => return Said::Internal,
        };
        self.0.apply(tx, entity, command)
    }

    fn query(&self, store: &mut Store, query: UserId) -> Self::View {
        self.0.query(store, query)
    }

    fn internal(&self) -> Said {
        Said::Internal
    }
}

fn alone(level: u32) -> StorageConfig {
    StorageConfig {
        dir: Path::new("/m").into(),
        node: NodeId::new(1, 1),
        disk: DiskId(1),
        part: Part::default(),
        lost_after: Duration::from_secs(300),
        audit_every: Duration::from_secs(60),
        catch_up_bytes: 64 << 20,
        serve_within: HEARD_WITHIN,
        level,
        shards: SHARDS,
        state_in_memory: true,
        threads: false,
        sled_cache_bytes: 0,
        log: LogLimits { segment_bytes: 64 * 1024, reserve_bytes: 0 },
        shard: ShardLimits::default(),
    }
}

fn outside(disk: &MemoryDisk, ended: &Arc<std::sync::Mutex<Vec<(Ending, String)>>>) -> Outside {
    let ended = ended.clone();
    let fatal = Fatal::by_kind(move |ending, why| ended.lock().unwrap().push((ending, why.to_owned())));
    Outside { disk: Arc::new(disk.clone()), clock: Arc::new(|| 1_000_000), fatal, transport: None, loops: Vec::new() }
}

#[tokio::test]
async fn a_command_that_a_build_does_not_know_stops_it() {
    let (disk, ended) = (MemoryDisk::default(), Arc::default());
    let newer = Storage::open(&alone(LEVEL), outside(&disk, &ended), || Newer(Counter::default())).await.unwrap();
    let entity = EntityId::user(user(1));
    assert_eq!(newer.router().ask(entity, NewerCommand::Add(1)).await, Ok(Said::Total(1)));
    newer.router().ask(entity, NewerCommand::Newest).await.unwrap();
    newer.crash();
    assert_eq!(ended.lock().unwrap().len(), 0);

    let older = Storage::open(&alone(LEVEL), outside(&disk, &ended), Counter::default).await;
    assert!(older.is_err(), "it went past what it does not know");
    let (ending, why) = ended.lock().unwrap().first().cloned().unwrap();
    assert_eq!(ending, Ending::TooOld);
    assert!(why.contains("a command") && why.contains("upgrade this node"), "{why}");

    // Nothing was lost by that.
    let newer = Storage::open(&alone(LEVEL), outside(&disk, &ended), || Newer(Counter::default())).await.unwrap();
    assert_eq!(newer.router().ask(entity, NewerCommand::Add(1)).await, Ok(Said::Total(2)));
    newer.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_alone_goes_up_by_itself_and_not_down() {
    let (disk, ended) = (MemoryDisk::default(), Arc::default());
    let node = Storage::open(&alone(LEVEL), outside(&disk, &ended), Counter::default).await.unwrap();
    let entity = EntityId::user(user(1));
    assert_eq!(node.router().ask(entity, Command::Later).await, Err(AskError::NotYet { needs: NEWER }));
    node.crash();
    let node = Storage::open(&alone(NEWER), outside(&disk, &ended), Counter::default).await.unwrap();
    until(|| node.shards().iter().all(|shard| shard.level() == NEWER)).await;
    assert_eq!(node.router().ask(entity, Command::Later).await, Ok(Said::Total(1000)));
    node.crash();
    let older = Storage::open(&alone(LEVEL), outside(&disk, &ended), Counter::default).await;
    assert!(older.is_err());
    let said = ended.lock().unwrap().clone();
    assert!(said.iter().all(|(ending, _)| *ending == Ending::TooOld), "{said:?}");
    assert_eq!(FIRST_LEVEL, 1, "what stands in the logs of the first builds");
}
