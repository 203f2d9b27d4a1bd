//! Backups of a cluster that is busy: the cut is a state that it could have been in, and new nodes begin from it.
//! `MAGPIE_SEEDS=1..200` runs those seeds, a few by default.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod cluster;
mod machine;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::{Cluster, address, id, until};
use machine::{Command, Counter, user};
use magpie_cluster::{
    DiskId, EntityId, Router, System,
    backup::{
        BackupError, Begun,
        folder::{Folder, Manifest},
        restore::{NewNode, RestoreError, restore},
    },
    disk::{Disk, memory::MemoryDisk},
    system::LEVEL,
};
use magpie_protocol::ShardId;
use rand::{Rng, SeedableRng, rngs::StdRng};

const SHARDS: u16 = 4;
const PEOPLE: u64 = 12;
const DIR: &str = "/backup";

fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var("MAGPIE_SEEDS").unwrap_or_else(|_| "1..9".into());
    let (from, to) = text.split_once("..").unwrap();
    from.parse().unwrap()..to.parse().unwrap()
}

/// Every shard has a leader, and the cluster can do what its nodes can.
async fn ready(cluster: &Cluster) {
    cluster.settled().await;
    until(|| cluster.system().level == LEVEL).await;
}

/// Fetches every shard's part into a folder.
async fn fetch(router: &Router<Counter>, begun: &Begun, disk: &Arc<dyn Disk>) -> Result<Manifest, BackupError> {
    let folder = Folder::create(disk.clone(), Path::new(DIR)).unwrap();
    let mut files = Vec::new();
    for &(shard, node) in &begun.parts {
        let mut incoming = folder.begin(shard).unwrap();
        loop {
            // Small parts, so that there are several.
            let part = router.backup_part((shard, node), begun.cut, incoming.len(), 700).await?;
            incoming.append(&part.bytes).unwrap();
            match part.len {
                Some(len) if incoming.len() == len => break,
                Some(_) => {}
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        files.push(folder.end(shard, begun.cut, incoming).unwrap());
    }
    Ok(folder.finish(begun.cut, 5, files).unwrap())
}

/// A backup that is tried until it is made, as the command does.
async fn back_up(cluster: &Cluster, at: usize) -> (Arc<dyn Disk>, Manifest) {
    let router = cluster.node(at).storage.router();
    for _ in 0..50 {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        match router.begin_backup().await {
            Ok(begun) => match fetch(router, &begun, &disk).await {
                Ok(manifest) => {
                    router.end_backup(&begun).await;
                    return (disk, manifest);
                }
                Err(error) => tracing::info!(%error, "again"),
            },
            Err(error) => tracing::info!(%error, "again"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no backup was made");
}

fn new_nodes(count: usize) -> Vec<NewNode> {
    let new = |at: usize| NewNode {
        node: id(at),
        address: address(at),
        zone: String::new(),
        disk: DiskId(at as u128),
        dir: format!("/m{at}").into(),
        shards: SHARDS,
    };
    (0..count).map(new).collect()
}

async fn restore_to(backup: &Arc<dyn Disk>, count: usize) -> (Cluster, System) {
    let (folder, manifest) = Folder::open(backup.clone(), Path::new(DIR)).unwrap();
    folder.check(&manifest).unwrap();
    let (made, old): (Arc<dyn Disk>, _) = (Arc::new(MemoryDisk::default()), folder.system().unwrap());
    restore(&folder, &manifest, &made, 10, &new_nodes(count), |_, _| ()).unwrap();
    let carried = |at: usize| {
        let disk = MemoryDisk::default();
        for (from, to) in [(format!("/m{at}"), "/m"), (format!("/m{at}/snapshots"), "/m/snapshots")] {
            for name in made.list(Path::new(&from)).unwrap() {
                let bytes = made.read(&Path::new(&from).join(&name)).unwrap();
                let mut file = disk.create(&Path::new(to).join(&name)).unwrap();
                file.append(&bytes).unwrap();
                file.sync().unwrap();
            }
        }
        disk
    };
    (Cluster::over((0..count).map(carried).collect(), SHARDS).await, old)
}

/// What a shard told others, and what it heard of them.
type Story = (Vec<(u64, u64)>, Vec<(u64, u64)>);

/// Who told whom what, and who has heard it.
fn stories(cluster: &Cluster) -> Vec<Story> {
    let look = |n| {
        let shard = user(n).slot().get() % SHARDS;
        let leader = cluster.leader(shard)?;
        let sum = cluster.node(leader).storage.router().shard_of(user(n).slot()).look(user(n)).ok()?.0;
        Some((sum.told(), sum.story().1))
    };
    (0..PEOPLE).map(|n| look(n).unwrap_or_default()).collect()
}

/// Everything told was heard once and in order, and nothing else was heard.
fn is_whole(stories: &[Story]) -> bool {
    let told = |from: usize, to: usize| stories[from].0.iter().filter(move |(t, _)| *t == to as u64).map(|(_, n)| *n);
    let heard = |from: usize, to: usize| stories[to].1.iter().filter(move |(f, _)| *f == from as u64).map(|(_, n)| *n);
    let people = 0..stories.len();
    people.clone().all(|from| people.clone().all(|to| told(from, to).eq(heard(from, to))))
}

/// Never: heard and not told.
fn heard_too_much(stories: &[Story]) -> Vec<(u64, u64)> {
    let told: BTreeSet<u64> = stories.iter().flat_map(|(told, _)| told.iter().map(|(_, note)| *note)).collect();
    stories.iter().flat_map(|(_, heard)| heard).filter(|(_, note)| !told.contains(note)).copied().collect()
}

async fn talk(
    router: Router<Counter>,
    seed: u64,
    note: Arc<AtomicU64>,
    acked: Arc<Mutex<Vec<u64>>>,
    stop: Arc<AtomicBool>,
) {
    let mut lots = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let (from, to) = (lots.random_range(0..PEOPLE), lots.random_range(0..PEOPLE));
        let note = note.fetch_add(1, Ordering::Relaxed);
        if router.ask(EntityId::user(user(from)), Command::Tell { to: user(to), note }).await.is_ok() {
            acked.lock().unwrap().push(note);
        }
        tokio::time::sleep(Duration::from_millis(lots.random_range(0..20))).await;
    }
}

/// One seed: people on several shards tell each other things, a backup is made meanwhile, all is lost, and what is
/// restored must be a state that could have been.
async fn one(seed: u64) {
    let mut lots = StdRng::seed_from_u64(seed);
    let disks = (0..3).map(|_| MemoryDisk::default()).collect();
    let cluster = Cluster::over(disks, SHARDS).await;
    ready(&cluster).await;
    // Whoever makes the backup is slow to be heard: shards make their cuts far apart, and talk meanwhile. Slower, and it
    // could lead nothing.
    let asked = lots.random_range(0..3);
    for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
        let delay = if from == asked { lots.random_range(25..65) } else { lots.random_range(0..5) };
        cluster.network.delay(id(from), id(to), Duration::from_millis(delay));
    }
    let (note, acked, stop): (Arc<AtomicU64>, Arc<Mutex<Vec<u64>>>, Arc<AtomicBool>) = Default::default();
    for talker in 0..9 {
        let router = cluster.node(talker % 3).storage.router().clone();
        let seed = seed * 100 + talker as u64;
        tokio::spawn(talk(router, seed, note.clone(), acked.clone(), stop.clone()));
    }
    tokio::time::sleep(Duration::from_millis(lots.random_range(100..1500))).await;
    if lots.random_bool(0.5) {
        // Leaders change while the cut is made.
        let router = cluster.node(0).storage.router().clone();
        let (shard, to) = (ShardId::new(lots.random_range(0..SHARDS)), id(lots.random_range(0..3)));
        let after = Duration::from_millis(lots.random_range(0..100));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            _ = router.hand_over(shard, to).await;
        });
    }
    let before = acked.lock().unwrap().clone();
    let (backup, manifest) = back_up(&cluster, asked).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.store(true, Ordering::Relaxed);
    let told = note.load(Ordering::Relaxed);
    for node in cluster.up() {
        assert_eq!(*node.fatal.lock().unwrap(), "");
    }
    assert!(before.len() > 5, "seed {seed}: nobody talked");
    drop(cluster);

    let (restored, old) = restore_to(&backup, if lots.random_bool(0.5) { 3 } else { 1 }).await;
    ready(&restored).await;
    let now = restored.system();
    assert!(now.epoch > old.epoch && now.id != old.id && now.version > old.version);
    assert_eq!(manifest.epoch, old.epoch);
    let mut last = Vec::new();
    let healed = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            last = stories(&restored);
            if is_whole(&last) && before.iter().all(|note| last.iter().any(|(t, _)| t.iter().any(|(_, n)| n == note))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let healed = healed.await.is_ok();
    assert!(healed, "seed {seed}: heard and never told: {:?}; of {told}: {last:?}", heard_too_much(&last));
    // And it goes on.
    restored.insist(0, 1, Command::Tell { to: user(2), note: u64::MAX }).await;
    until(|| is_whole(&stories(&restored))).await;
    restored.agree(0..PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_a_state_that_could_have_been() {
    for seed in seeds() {
        one(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_leaves_nothing_behind_even_if_nobody_fetches_it() {
    let cluster = Cluster::over(vec![MemoryDisk::default()], SHARDS).await;
    ready(&cluster).await;
    let cuts = || {
        let disk: Arc<dyn Disk> = Arc::new(cluster.disks[0].clone());
        disk.list(Path::new("/m/snapshots")).unwrap().iter().filter(|name| name.ends_with(".cut")).count()
    };
    let router = cluster.node(0).storage.router();
    let begun = router.begin_backup().await.unwrap();
    until(|| cuts() == usize::from(SHARDS)).await;
    // Another one takes its place.
    let next = router.begin_backup().await.unwrap();
    assert!(next.cut > begun.cut);
    let (shard, node) = begun.parts[0];
    let gone = router.backup_part((shard, node), begun.cut, 0, 100).await;
    assert!(matches!(gone, Err(BackupError::Gone(_))), "{gone:?}");
    until(|| cuts() == usize::from(SHARDS)).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    // Still wanted.
    router.backup_part((shard, node), next.cut, 0, 0).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(cuts(), 1);
    router.end_backup(&next).await;
    until(|| cuts() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_or_half_written_backup_is_refused() {
    let cluster = Cluster::over(vec![MemoryDisk::default()], SHARDS).await;
    ready(&cluster).await;
    for n in 0..PEOPLE {
        cluster.insist(0, n, Command::Add(n)).await;
    }
    let (disk, manifest) = back_up(&cluster, 0).await;
    let dir = Path::new(DIR);
    assert!(Folder::create(disk.clone(), dir).is_err(), "a folder that is not empty");
    let put = |name: &str, bytes: &[u8]| disk.create(&dir.join(name)).unwrap().append(bytes).unwrap();
    for name in disk.list(dir).unwrap() {
        let whole = disk.read(&dir.join(&name)).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut other = whole.clone();
            other[at] ^= 1;
            put(&name, &other);
            let opened = Folder::open(disk.clone(), dir).and_then(|(folder, manifest)| folder.check(&manifest));
            assert!(opened.is_err(), "{name} changed at {at}");
        }
        put(&name, &whole[..whole.len() / 2]);
        let opened = Folder::open(disk.clone(), dir).and_then(|(folder, manifest)| folder.check(&manifest));
        assert!(opened.is_err(), "half of {name}");
        disk.remove(&dir.join(&name)).unwrap();
        let opened = Folder::open(disk.clone(), dir).and_then(|(folder, manifest)| folder.check(&manifest));
        assert!(opened.is_err(), "without {name}");
        put(&name, &whole);
    }
    let (folder, again) = Folder::open(disk.clone(), dir).unwrap();
    folder.check(&again).unwrap();
    assert_eq!(again, manifest);
    let to: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let two = restore(&folder, &manifest, &to, 0, &new_nodes(2), |_, _| ());
    assert!(matches!(two, Err(RestoreError::Nodes(2))), "{two:?}");
    let mut other = new_nodes(1);
    other[0].shards = 2;
    let shards = restore(&folder, &manifest, &to, 0, &other, |_, _| ());
    assert!(matches!(shards, Err(RestoreError::Shards { backup: 4, wanted: 2, .. })), "{shards:?}");
    assert!(to.list(Path::new("/m0/snapshots")).unwrap().is_empty(), "nothing was written");
}

#[tokio::test(start_paused = true)]
async fn a_node_of_the_lost_history_is_not_heard() {
    let mut lost = Cluster::over((0..3).map(|_| MemoryDisk::default()).collect(), SHARDS).await;
    ready(&lost).await;
    for n in 0..PEOPLE {
        lost.insist(0, n, Command::Add(1)).await;
    }
    let (backup, _) = back_up(&lost, 0).await;
    lost.crash(2).await;
    let old = lost.disks[2].clone();
    drop(lost);
    let (mut restored, _) = restore_to(&backup, 3).await;
    ready(&restored).await;
    restored.crash(2).await;
    restored.disks[2] = old;
    restored.start(2).await;
    ready(&restored).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..PEOPLE {
        let asked = tokio::time::timeout(Duration::from_secs(20), restored.ask(2, n, Command::Add(100))).await;
        assert!(!matches!(asked, Ok(Ok(_))), "{n}: it was heard: {asked:?}");
        let leader = restored.leader(user(n).slot().get() % SHARDS).unwrap();
        assert_eq!(restored.total(leader, n), 1);
    }
    assert_ne!(restored.node(2).storage.router().system().id(), restored.node(0).storage.router().system().id());
    restored.insist(0, 1, Command::Add(1)).await;
}
