//! Damage to what a stopped node left on its disk: found and named, never served; the truth brings all of it back.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use magpie_client::{ConversationId, Error, ErrorCode};
use magpie_cluster::{
    EntityId,
    log::format::{self, GROUP_HEADER_LEN, SEGMENT_HEADER_LEN},
};
use magpie_node::{Command, Config, Options, machine::TestCommand};
use magpie_protocol::ShardId;
use magpie_tests::{
    InProcess, Person, Place, Process,
    crowd::{Crowd, Shape},
    from_env,
    node::test_config,
    people::befriend,
    seed,
    story::{Subjects, tell},
    until,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// What a node left, and what it told before.
struct Left {
    dir: tempfile::TempDir,
    subjects: Subjects,
    story: Vec<String>,
}

fn config(dir: &Path) -> Config {
    let mut config = test_config(dir);
    config.storage.log_segment_bytes = 256 * 1024;
    config
}

/// Lets people talk through a node, with a snapshot in the middle, and stops it or crashes it.
async fn leave(seed: u64, crash: bool) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let node = InProcess::start(config(dir.path()), Options::default());
    let shape = Shape { people: 10, second_devices: 2, groups: vec![0..5, 0..10] };
    let mut crowd = Crowd::gather(&Place::new(node.address, node.ca.clone()), &shape).await;
    for more in [1200, 600] {
        crowd.talk(seed + more, Duration::from_millis(5));
        crowd.acked_more(more as usize).await;
        crowd.fall_silent().await;
        for shard in (0..node.router.shards()).filter(|_| more == 1200) {
            node.router.shard(ShardId::new(shard)).unwrap().snapshot_now().await.unwrap();
        }
    }
    crowd.check().await;
    let mut people = crowd.people();
    people.sort();
    people.dedup();
    let subjects = Subjects { people, conversations: crowd.conversations().to_vec() };
    drop(crowd);
    let story = tell(&node.router, &subjects).unwrap();
    tokio::task::spawn_blocking(move || if crash { node.crash() } else { node.stop() }).await.unwrap();
    Left { dir, subjects, story }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
    found.sort();
    found
}

fn flip(file: &Path, offset: usize, bit: u8) {
    let mut bytes = fs::read(file).unwrap();
    bytes[offset] ^= 1 << bit;
    fs::write(file, bytes).unwrap();
}

impl Left {
    /// A copy to damage.
    fn copy(&self) -> tempfile::TempDir {
        let to = tempfile::tempdir().unwrap();
        copy(self.dir.path(), to.path());
        to
    }

    /// Starts a node over this folder. Its story must be the right one; one that cannot be told to its end must
    /// have been reported, and be the right one at the next start. Returns what was reported, if anything.
    fn must_tell(&self, dir: &Path, what: &str) -> Option<String> {
        let node = match InProcess::try_start(config(dir), Options::default()) {
            Ok(node) => node,
            Err(error) => panic!("{what}: the node does not start: {error}"),
        };
        let told = tell(&node.router, &self.subjects);
        // Whatever thread of the node meets the damage serves nothing from then on, and then says why.
        let deadline = Instant::now() + Duration::from_secs(5);
        while told.is_err() && node.fatal().is_empty() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let fatal = node.fatal();
        node.crash();
        match told {
            Ok(story) => {
                self.assert_same(&story, what);
                (!fatal.is_empty()).then_some(fatal)
            }
            Err(error) => {
                assert!(!fatal.is_empty(), "{what}: {error}, but the node did not say why");
                let node = InProcess::start(config(dir), Options::default());
                let story = tell(&node.router, &self.subjects);
                assert_eq!(node.fatal(), "", "{what}: a rebuilt state");
                self.assert_same(&story.unwrap(), what);
                node.crash();
                Some(fatal)
            }
        }
    }

    fn assert_same(&self, story: &[String], what: &str) {
        assert_eq!(story.len(), self.story.len(), "{what}: another story is told");
        for (told, right) in story.iter().zip(&self.story) {
            assert!(told == right, "{what}: told:\n{:.2000}\nright:\n{:.2000}", told, right);
        }
    }
}

/// Where the last group of a segment begins.
fn last_group(bytes: &[u8]) -> usize {
    let (mut at, mut last) = (SEGMENT_HEADER_LEN, SEGMENT_HEADER_LEN);
    while let Some((_, records)) = format::read_group(&bytes[at..]) {
        last = at;
        at += GROUP_HEADER_LEN + records.len();
    }
    last
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_the_log_stops_the_start_and_is_named() {
    let (seed, flips) = (seed("log flips"), from_env("MAGPIE_FLIPS", 60));
    let mut rng = StdRng::seed_from_u64(seed);
    let left = leave(seed, false).await;
    let work = left.copy();
    let segments = files(&work.path().join("log"));
    let mut harmless = 0;
    for (i, file) in segments.iter().enumerate() {
        let bytes = fs::read(file).unwrap();
        let last = i + 1 == segments.len();
        let seal = if last { last_group(&bytes) } else { bytes.len() };
        // Every byte of the headers, some of everything, and both sides of every border.
        let mut offsets: Vec<usize> = (0..SEGMENT_HEADER_LEN + GROUP_HEADER_LEN).collect();
        offsets.extend((0..flips).map(|_| rng.random_range(0..bytes.len())));
        offsets.extend([seal - 1, bytes.len() - 1, seal.min(bytes.len() - 1)]);
        for offset in offsets {
            let bit = rng.random_range(0..8);
            flip(file, offset, bit);
            let started = InProcess::try_start(config(work.path()), Options::default());
            let at = format!("{} at {offset}, bit {bit}", file.display());
            match started {
                Err(error) => {
                    let named = error.contains("log damaged") && error.contains(&file.display().to_string());
                    assert!(named && error.contains("at offset"), "{at}: {error}");
                    flip(file, offset, bit);
                }
                Ok(node) => {
                    assert!(last && offset >= seal, "{at}: the damage was not found");
                    left.assert_same(&tell(&node.router, &left.subjects).unwrap(), &at);
                    node.crash();
                    harmless += 1;
                    copy(left.dir.path(), work.path());
                }
            }
        }
    }
    assert_eq!(left.must_tell(work.path(), "every bit is as it was"), None);
    println!("{} segments, {flips} random flips in each; {harmless} in the last seal", segments.len());
}

#[tokio::test]
async fn a_flipped_bit_in_a_snapshot_is_named_when_it_is_needed_and_harmless_when_not() {
    let (seed, flips) = (seed("snapshot flips"), from_env("MAGPIE_FLIPS", 60));
    let mut rng = StdRng::seed_from_u64(seed);
    let left = leave(seed, false).await;
    let (needed, spare) = (left.copy(), left.copy());
    let state = needed.path().join("state");
    let snapshots = files(&needed.path().join("snapshots"));
    assert!(!snapshots.is_empty());
    for i in 0..flips {
        let file = &snapshots[rng.random_range(0..snapshots.len())];
        let len = fs::metadata(file).unwrap().len() as usize;
        // What stands at the front is read even when the rest is not.
        let (offset, bit) = (rng.random_range(0..if i % 2 == 0 { len } else { len.min(80) }), rng.random_range(0..8));
        let at = format!("{} at {offset}, bit {bit}", file.display());
        flip(file, offset, bit);
        fs::remove_dir_all(&state).unwrap();
        let error = InProcess::try_start(config(needed.path()), Options::default()).err().unwrap_or_default();
        flip(file, offset, bit);
        let named = error.contains("snapshot damaged") && error.contains(&file.display().to_string());
        assert!(named && error.contains("at offset"), "{at}: {error:?}");
        let other = spare.path().join("snapshots").join(file.file_name().unwrap());
        flip(&other, offset, bit);
        match InProcess::try_start(config(spare.path()), Options::default()) {
            Ok(node) => {
                left.assert_same(&tell(&node.router, &left.subjects).unwrap(), &at);
                assert_eq!(node.fatal(), "", "{at}");
                node.crash();
            }
            Err(error) => assert!(error.contains(&other.display().to_string()), "{at}: {error}"),
        }
        flip(&other, offset, bit);
    }
    assert_eq!(left.must_tell(needed.path(), "every bit is as it was"), None);
}

/// The files that hold long runs of entries.
fn runs(state: &Path) -> Vec<PathBuf> {
    let mut runs = files(state);
    runs.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("runs-")));
    runs
}

/// Flips bits of the files that a state store is made of. Each is found, or does no harm.
async fn flip_state(crash: bool, test: &str) {
    let (seed, flips) = (seed(test), from_env("MAGPIE_FLIPS", 60));
    let mut rng = StdRng::seed_from_u64(seed);
    let left = leave(seed, crash).await;
    let mut reported = 0;
    for _ in 0..flips {
        let work = left.copy();
        let (state, store) = (work.path().join("state"), work.path().join("state/sled"));
        let mut files = files(&store);
        // Most of what is there is in one file, much of which is not used, and in those beside it.
        files.extend(vec![store.join("db"); 8]);
        files.extend(runs(&state));
        let file = files.swap_remove(rng.random_range(0..files.len()));
        let bytes = fs::read(&file).unwrap();
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        if used.is_empty() {
            continue;
        }
        let (offset, bit) = (used[rng.random_range(0..used.len())], rng.random_range(0..8));
        flip(&file, offset, bit);
        let at = format!("{} of {} at {offset}, bit {bit}", file.display(), bytes.len());
        if let Some(fatal) = left.must_tell(work.path(), &at) {
            println!("{at}: {fatal}");
            reported += 1;
        }
    }
    println!("{flips} flips, {reported} of them reported while serving");
}

#[tokio::test]
async fn a_flipped_bit_in_the_state_of_a_stopped_node_is_never_served() {
    flip_state(false, "state flips, stopped").await;
}

#[tokio::test]
async fn a_flipped_bit_in_the_state_of_a_crashed_node_is_never_served() {
    flip_state(true, "state flips, crashed").await;
}

#[tokio::test]
async fn a_state_that_is_gone_or_covered_in_garbage_comes_back_from_the_truth() {
    let seed = seed("state gone");
    let mut rng = StdRng::seed_from_u64(seed);
    for crash in [false, true] {
        let left = leave(seed, crash).await;
        let work = left.copy();
        assert_eq!(left.must_tell(work.path(), "as it was left"), None);
        fs::remove_dir_all(work.path().join("state")).unwrap();
        assert_eq!(left.must_tell(work.path(), "without its state"), None);
        for len in [0, 7, 8, 9, 5000] {
            for shard in 0..8 {
                let mut noise = vec![0u8; len];
                rng.fill(&mut noise[..]);
                fs::write(work.path().join(format!("state/redo-shard{shard}")), noise).unwrap();
            }
            assert_eq!(left.must_tell(work.path(), "with garbage in place of a checkpoint"), None);
        }
        let names = runs(&work.path().join("state"));
        assert!(!names.is_empty(), "no runs of entries lie beside the store");
        for name in names.iter().flat_map(|file| file.file_name()) {
            for half in [true, false] {
                let work = left.copy();
                let file = work.path().join("state").join(name);
                match half {
                    true => {
                        let len = fs::metadata(&file).unwrap().len() / 2;
                        fs::File::options().write(true).open(&file).unwrap().set_len(len).unwrap();
                    }
                    false => fs::remove_file(&file).unwrap(),
                }
                let what = format!("with half ({half}) or nothing of {}", file.display());
                assert_eq!(left.must_tell(work.path(), &what), None);
            }
        }
        fs::write(work.path().join("state/sled/db"), b"no database").unwrap();
        left.must_tell(work.path(), "with garbage in place of the store");
    }
}

const TEST_NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");

/// Kills the node in the middle of a checkpoint: while a redo file is there. Says whether it was still there after.
fn kill_in_checkpoint(node: Process) -> (Process, bool) {
    let under_way = |dir: &Path| {
        let names = fs::read_dir(dir.join("state")).unwrap().flatten().map(|e| e.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("redo-")).count() > 0
    };
    let (dir, deadline) = (node.dir.clone(), Instant::now() + Duration::from_secs(20));
    while !under_way(&dir) {
        assert!(Instant::now() < deadline, "no checkpoint begins");
        std::thread::yield_now();
    }
    let parts = node.kill();
    let hit = under_way(&dir);
    (Process::restart(parts).unwrap(), hit)
}

#[tokio::test]
async fn a_process_killed_in_its_checkpoints_loses_nothing() {
    let (seed, kills) = (seed("checkpoints"), from_env("MAGPIE_KILLS", 3).max(3) * 2);
    let dir = tempfile::tempdir().unwrap();
    let often = [("MAGPIE_STORAGE_CHECKPOINT_MS", "1"), ("MAGPIE_STORAGE_SNAPSHOT_BYTES_MIN", "16384")];
    let mut node = Process::try_start(Path::new(TEST_NODE), &dir.path().join("data"), &often).unwrap();
    let mut place = Place::new(node.address, node.ca());
    place.request_timeout = Duration::from_secs(1);
    let shape = Shape { people: 10, second_devices: 2, groups: vec![0..5, 0..10] };
    let mut crowd = Crowd::gather(&place, &shape).await;
    crowd.talk(seed, Duration::from_millis(10));
    let mut hits = 0;
    for _ in 0..kills {
        crowd.acked_more(100).await;
        crowd.ledger().note_loss();
        let (again, hit) = tokio::task::spawn_blocking(|| kill_in_checkpoint(node)).await.unwrap();
        node = again;
        hits += u32::from(hit);
    }
    crowd.acked_more(100).await;
    crowd.fall_silent().await;
    crowd.check().await;
    println!("{kills} kills, {hits} of them within a checkpoint: {:?}", crowd.counts());
    assert!(hits > 0, "no kill fell into a checkpoint");
    assert_eq!(node.terminate(), 0);
}

#[tokio::test]
async fn a_state_from_before_a_reboot_is_not_trusted_unless_it_was_closed() {
    let seed = seed("reboot");
    let dir = tempfile::tempdir().unwrap();
    let mut node = Process::try_start(Path::new(TEST_NODE), &dir.path().join("data"), &[]).unwrap();
    let mut place = Place::new(node.address, node.ca());
    place.request_timeout = Duration::from_secs(1);
    let shape = Shape { people: 6, second_devices: 2, groups: vec![0..6] };
    let mut crowd = Crowd::gather(&place, &shape).await;
    crowd.talk(seed, Duration::from_millis(10));
    for reboot in [false, true] {
        crowd.acked_more(300).await;
        crowd.ledger().note_loss();
        let parts = node.kill();
        let trusted = parts.1.join("state/trusted");
        assert!(trusted.exists());
        if reboot {
            fs::write(trusted, "5cd5af10-0000-4000-8000-000000000000").unwrap();
            // What the kernel had not written is not there after a reboot.
            fs::write(parts.1.join("state/sled/db"), []).unwrap();
        }
        node = tokio::task::spawn_blocking(move || Process::restart(parts)).await.unwrap().unwrap();
        assert_eq!(node.errors().contains("was not closed before the machine went down"), reboot, "{}", node.errors());
    }
    crowd.acked_more(50).await;
    crowd.fall_silent().await;
    crowd.check().await;
    assert_eq!(node.terminate(), 0);
}

async fn say(person: &Person, conversation: ConversationId, text: &str) -> Result<u64, Error> {
    person.client.say(conversation, text)?.posted().await.map(|posted| posted.number)
}

/// Says what the state machine replied, as text.
async fn panic_in_apply(node: &InProcess, conversation: ConversationId) -> String {
    let (tell, told) = tokio::sync::oneshot::channel();
    let command = Command::Test(TestCommand::Panic);
    let reply = Box::new(move |result| _ = tell.send(format!("{result:?}")));
    node.router.shard_of(conversation.slot()).submit(EntityId::conversation(conversation), &command, reply);
    told.await.unwrap()
}

#[tokio::test]
async fn a_command_that_makes_apply_panic_quarantines_one_conversation_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let mut node = InProcess::start(config.clone(), Options::default());
    config.gateway.listen = node.address;
    let mut place = Place::new(node.address, node.ca.clone());
    place.request_timeout = Duration::from_secs(1);
    let (ann, ben) = (Person::new(&place, "ann").await, Person::new(&place, "ben").await);
    let bad = befriend(&ann, &ben).await;
    let good = ann.client.create_group("fine", vec![ben.id]).await.unwrap();
    assert_eq!(say(&ann, bad, "before").await, Ok(4));
    assert!(panic_in_apply(&node, bad).await.contains("Internal"));
    let internal = |result| matches!(result, Err(Error::Refused(error)) if error.code == ErrorCode::Internal);
    let mut head = 3;
    for round in ["at once", "after a stop", "after a crash", "rebuilt from the log"] {
        assert!(internal(say(&ann, bad, round).await), "{round}");
        assert!(internal(say(&ben, bad, round).await), "{round}");
        for person in [&ann, &ben] {
            head += 1;
            assert_eq!(say(person, good, round).await, Ok(head), "{round}: others are served");
        }
        assert_eq!(node.observer.status().shards.iter().map(|s| s.quarantined_entities).sum::<usize>(), 1, "{round}");
        assert!(node.observer.status().ready, "{round}: the node is well");
        let fresh = Person::another(&place, "ben").await;
        fresh.has(good, head, Duration::from_secs(20)).await;
        fresh.has(bad, 4, Duration::from_secs(20)).await;
        assert_eq!(fresh.texts(bad), ["before"], "{round}: what was said before can be read");
        let (next, state) = (config.clone(), dir.path().join("state"));
        let restart = tokio::task::spawn_blocking(move || {
            if round == "at once" {
                node.stop()
            } else {
                node.crash()
            }
            if round == "after a crash" {
                fs::remove_dir_all(state).unwrap();
            }
            InProcess::start(next, Options::default())
        });
        node = restart.await.unwrap();
    }
    tokio::task::spawn_blocking(|| node.stop()).await.unwrap();
}

/// Files under this folder that this process has open.
fn open_files(dir: &Path) -> Vec<PathBuf> {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter(|file| file.starts_with(dir)).collect()
}

#[tokio::test]
async fn a_node_that_ended_lets_go_of_its_files() {
    // Else the next one in this process finds its state store locked, and what is tested is only ever a rebuild.
    for crash in [false, true] {
        let left = leave(seed("files"), crash).await;
        let open = async || open_files(left.dir.path()).is_empty();
        let what = format!("all files are closed: {:?}", open_files(left.dir.path()));
        until(&what, Duration::from_secs(5), open).await;
    }
}
