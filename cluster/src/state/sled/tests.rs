//! Chains of runs over sled: what goes in comes out, whatever the checkpoints, starts and crashes between.

use std::{collections::BTreeMap, thread};

use bytes::Bytes;
use magpie_protocol::{Slot, TimelineId, UserId};
use proptest::prelude::*;

use super::*;
use crate::state::{
    Key, Store,
    base::{FAR_VERSION, decode_entries, encode_entries, seal_as},
    chain::key_of,
};

fn timeline(n: u64) -> TimelineId {
    TimelineId::Inbox(UserId::in_slot(Slot::new(7), n))
}

fn applied(index: u64) -> Applied {
    Applied { position: Some(crate::log::Position { term: 1, node: 1, index }), membership: Bytes::new() }
}

struct Rig {
    dir: tempfile::TempDir,
    db: Option<SledDb>,
    base: Option<std::sync::Arc<SledBase>>,
    index: u64,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self { dir: tempfile::tempdir().unwrap(), db: None, base: None, index: 0 };
        rig.start();
        rig
    }

    fn start(&mut self) {
        (self.base, self.db) = (None, None);
        let db = SledDb::open(self.dir.path(), 1 << 20).unwrap();
        self.base = Some(std::sync::Arc::new(db.shard(ShardId::new(0)).unwrap()));
        self.db = Some(db);
    }

    fn base(&self) -> &std::sync::Arc<SledBase> {
        self.base.as_ref().unwrap()
    }

    /// A checkpoint in which timelines got these entries.
    fn checkpoint(&mut self, appended: &[(u64, Vec<Bytes>)]) {
        self.change(&[], appended);
    }

    /// A checkpoint in which entries, by timeline and number, became others, and timelines got these.
    fn change(&mut self, replaced: &[(u64, u64, Bytes)], appended: &[(u64, Vec<Bytes>)]) {
        self.change_all(&[], replaced, appended);
    }

    /// The same behind which these timelines begin anew.
    fn change_all(&mut self, erased: &[u64], replaced: &[(u64, u64, Bytes)], appended: &[(u64, Vec<Bytes>)]) {
        let mut store = Store::new(self.base().clone(), 1 << 20);
        erased.iter().for_each(|n| store.erase(timeline(*n)));
        for (n, number, entry) in replaced {
            store.replace(timeline(*n), *number, entry.clone());
        }
        for (n, entries) in appended {
            for entry in entries {
                let number = store.head(timeline(*n)).unwrap() + 1;
                store.append(timeline(*n), number, entry);
            }
        }
        self.index += 1;
        store.set_applied(applied(self.index));
        let (writes, applied) = store.freeze().unwrap().writes(&**self.base()).unwrap();
        self.base().commit(writes, &applied).unwrap();
    }

    fn check(&self, expected: &BTreeMap<u64, Vec<Bytes>>) {
        let mut store = Store::new(self.base().clone(), 1 << 20);
        for (n, entries) in expected {
            let (timeline, all) = (timeline(*n), entries.len() as u64);
            assert_eq!(store.head(timeline).unwrap(), all);
            assert_eq!(&store.entries(timeline, 1, u64::MAX, usize::MAX).unwrap().entries, entries);
            for from in [all / 3 + 1, all / 2 + 1, all] {
                let view = store.entries(timeline, from, from, usize::MAX).unwrap();
                assert_eq!(view.entries, entries[from as usize - 1..from as usize]);
            }
        }
        assert_eq!(store.head(timeline(77)).unwrap(), 0);
        // The scan, of which snapshots are made: in order of key, each run under the key of its last entry.
        let (mut scanned, mut before) = (BTreeMap::<Vec<u8>, Vec<Bytes>>::new(), Vec::new());
        let scan = self.base().scan(&mut |key, stored| {
            assert!(before.as_slice() < key);
            before = key.to_vec();
            let (front, last) = split_key(key).unwrap();
            let run = decode_entries(&"run", unseal(key, stored)?.to_vec())?;
            let entries = scanned.entry(front.to_vec()).or_default();
            entries.extend(run);
            assert_eq!(entries.len() as u64, last);
            assert_eq!(self.base().get(key)?.as_deref(), Some(stored));
            Ok(())
        });
        scan.unwrap();
        let by_front = expected.iter().map(|(n, entries)| {
            let key = Key::entries(timeline(*n), 0);
            (split_key(key.as_bytes()).unwrap().0.to_vec(), entries.clone())
        });
        assert_eq!(scanned, by_front.collect());
        self.check_slices();
    }

    /// What is scanned piece by piece, as audits do, is what is scanned at once.
    fn check_slices(&self) {
        let (mut whole, mut sliced, mut from) = (Vec::new(), Vec::new(), Some(Vec::new()));
        let mut keep = |key: &[u8], stored: &[u8]| {
            whole.push((key.to_vec(), stored.to_vec()));
            Ok(())
        };
        self.base().scan(&mut keep).unwrap();
        while let Some(begin) = from.take() {
            let mut seen = 0;
            let scan = self.base().scan_from(&begin, &mut |key, stored| {
                seen += 1;
                if seen > 3 {
                    from = Some(key.to_vec());
                    return Ok(false);
                }
                sliced.push((key.to_vec(), stored.to_vec()));
                Ok(true)
            });
            scan.unwrap();
        }
        assert_eq!(sliced, whole);
    }

    fn records(&self) -> usize {
        self.base().tree.len()
    }
}

fn entries(count: usize, len: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(vec![(n % 251) as u8; len])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_appended_is_read(
        checkpoints in prop::collection::vec(
            (
                prop::collection::vec((0u64..3, 1usize..40, prop_oneof![0usize..60, 100usize..700]), 0..4),
                prop::collection::vec((0u64..3, any::<prop::sample::Index>(), prop_oneof![0usize..60, 400usize..700]), 0..4),
                prop_oneof![9 => Just(3u64), 1 => 0u64..3],
                any::<bool>(),
            ),
            1..60,
        ),
    ) {
        let (mut rig, mut expected) = (Rig::new(), BTreeMap::<u64, Vec<Bytes>>::new());
        for (appended, replaced, erased, restart) in checkpoints {
            let (mut others, erased) = (Vec::new(), expected.remove(&erased).map(|_| erased));
            for (n, at, len) in replaced {
                let Some(entries) = expected.get_mut(&n) else { continue };
                let (at, other) = (at.index(entries.len()), Bytes::from(vec![255; len]));
                entries[at] = other.clone();
                others.push((n, at as u64 + 1, other));
            }
            let appended: Vec<_> = appended.into_iter().map(|(n, count, len)| (n, entries(count, len))).collect();
            for (n, entries) in &appended {
                expected.entry(*n).or_default().extend(entries.iter().cloned());
            }
            if appended.is_empty() && others.is_empty() && erased.is_none() {
                continue;
            }
            rig.change_all(erased.as_slice(), &others, &appended);
            if restart {
                rig.start();
            }
        }
        rig.check(&expected);
        rig.start();
        prop_assert_eq!(rig.base().applied().index(), rig.index);
        rig.check(&expected);
    }
}

#[test]
fn a_database_that_is_open_already_is_not_taken_for_damaged() {
    let mut rig = Rig::new();
    rig.checkpoint(&[(1, entries(3, 100))]);
    let refused = SledDb::open(rig.dir.path(), 1 << 20).err();
    assert!(matches!(&refused, Some(StateError::Io(why)) if why.contains("another process")), "{refused:?}");
    let (path, last) = (rig.dir.path().to_owned(), (rig.db.take(), rig.base.take()));
    let opening = thread::spawn(move || SledDb::open(&path, 1 << 20));
    thread::sleep(Duration::from_millis(200));
    drop(last);
    rig.db = Some(opening.join().unwrap().unwrap());
    rig.base = Some(std::sync::Arc::new(rig.db.as_ref().unwrap().shard(ShardId::new(0)).unwrap()));
    rig.check(&BTreeMap::from([(1, entries(3, 100))]));
}

#[test]
fn records_grow_with_bytes_not_with_checkpoints() {
    let mut rig = Rig::new();
    for _ in 0..1000 {
        rig.checkpoint(&[(1, entries(1, 100))]);
    }
    // 104 bytes each: five in a run, and sixteen runs in a record; the open chain, and how far the state is.
    assert_eq!(rig.records(), 1000 / (5 * 16) + 2);
    rig.check(&BTreeMap::from([(1, vec![entries(1, 100).remove(0); 1000])]));
}

#[test]
fn what_older_builds_wrote_is_read() {
    let mut rig = Rig::new();
    let long = entries(20, 100);
    let (near, far) = (Key::entries(timeline(1), 3), Key::entries(timeline(1), 23));
    {
        let base = rig.base();
        let mut to = base.runs.append();
        let place = to.push(&seal(far.as_bytes(), &encode_entries(long.iter()))).unwrap();
        to.finish().unwrap();
        let place = seal_as(FAR_VERSION, far.as_bytes(), &codec::encode(&place));
        let mut digest = Digest::default();
        let writes = vec![
            (near.as_bytes().to_vec(), Some(seal(near.as_bytes(), &encode_entries(entries(3, 9).iter())))),
            (far.as_bytes().to_vec(), Some(place)),
        ];
        writes.iter().flat_map(|(_, value)| value).for_each(|value| digest.add(value));
        base.insert(&writes, &codec::encode(&(applied(5).to_bytes(), digest))).unwrap();
    }
    let mut expected = BTreeMap::from([(1, [entries(3, 9), long].concat())]);
    rig.start();
    rig.check(&expected);
    // An entry of each of the two becomes another.
    for (number, len) in [(2, 7), (23, 900)] {
        rig.change(&[(1, number, Bytes::from(vec![9; len]))], &[]);
        expected.get_mut(&1).unwrap()[number as usize - 1] = Bytes::from(vec![9; len]);
        rig.start();
        rig.check(&expected);
    }
    for len in [5, 600, 5] {
        rig.checkpoint(&[(1, entries(2, len))]);
        expected.entry(1).or_default().extend(entries(2, len));
    }
    rig.start();
    rig.check(&expected);
}

#[test]
fn what_a_crash_left_behind_the_runs_is_cut_off() {
    let mut rig = Rig::new();
    rig.checkpoint(&[(1, entries(10, 100))]);
    let file = rig.dir.path().join("runs-shard0-000001");
    let before = fs::metadata(&file).unwrap().len();
    // Runs were written, and the redo file was not.
    let mut to = rig.base().runs.append();
    to.push(&[7; 5000]).unwrap();
    to.finish().unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), before + 5000);
    rig.start();
    assert_eq!(fs::metadata(&file).unwrap().len(), before);
    rig.checkpoint(&[(1, entries(10, 100))]);
    rig.start();
    rig.check(&BTreeMap::from([(1, [entries(10, 100), entries(10, 100)].concat())]));
}

#[test]
fn a_checkpoint_with_its_redo_file_is_repeated_after_a_crash_at_any_point() {
    let writes = |last| vec![(Key::entries(timeline(1), last), Some(encode_entries(entries(10, 100).iter())))];
    let one = applied(9);
    for inserted in 0..=3 {
        let mut rig = Rig::new();
        let mut all = Vec::new();
        // The sixteenth run closes the chain, so that the last checkpoint writes a record and removes one.
        for _ in 0..15 {
            rig.checkpoint(&[(1, entries(10, 100))]);
            all.extend(entries(10, 100));
        }
        let base = rig.base();
        let Folded { sealed, digest, .. } = base.fold(writes(160), base.lock().1).unwrap();
        assert_eq!(sealed.iter().map(|(_, value)| value.is_some()).collect::<Vec<_>>(), [true, false]);
        let marker = codec::encode(&(one.to_bytes(), digest));
        base.write_redo(&[(sealed.clone(), marker.clone())]).unwrap();
        for (key, value) in sealed.iter().take(inserted) {
            match value {
                Some(value) => base.tree.insert(key, &value[..]).unwrap(),
                None => base.tree.remove(key).unwrap(),
            };
        }
        if inserted == 3 {
            base.insert(&sealed, &marker).unwrap();
        }
        rig.start();
        all.extend(entries(10, 100));
        assert_eq!(rig.base().applied(), one);
        assert!(!rig.base().redo.exists());
        rig.check(&BTreeMap::from([(1, all)]));
    }
}

#[test]
fn entries_that_do_not_follow_are_refused() {
    let rig = Rig::new();
    let gap = vec![(Key::entries(timeline(1), 5), Some(encode_entries(entries(3, 10).iter())))];
    assert!(matches!(rig.base().commit(gap, &applied(1)), Err(StateError::Damaged { .. })));
    assert_eq!(rig.records(), 0);
}

#[test]
fn a_state_whose_runs_are_gone_is_rebuilt_at_the_start() {
    for cut in [0, 700] {
        let mut rig = Rig::new();
        rig.checkpoint(&[(1, entries(10, 100))]);
        let file = rig.dir.path().join("runs-shard0-000001");
        match cut {
            0 => fs::remove_file(&file).unwrap(),
            len => File::options().write(true).open(&file).unwrap().set_len(len).unwrap(),
        }
        rig.start();
        // Empty, for snapshot and log to fill.
        assert_eq!((rig.base().applied().index(), rig.records()), (0, 0));
    }
}

#[test]
fn reads_beside_a_checkpoint_find_what_was_there_before() {
    // Runs of three timelines at a time, so that chains are often closed, and runs in which an entry becomes another;
    // a reader of their other entries meanwhile.
    let mut rig = Rig::new();
    rig.checkpoint(&[(1, entries(40, 100)), (2, entries(40, 100)), (3, entries(40, 100))]);
    let (base, stop) = (rig.base().clone(), std::sync::atomic::AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut reads = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || reads < 100 {
                let (n, number) = (reads % 3 + 1, reads % 19 + 1);
                let mut store = Store::new(base.clone(), 1 << 20);
                let view = store.entries(timeline(n), number, number, usize::MAX).unwrap();
                assert_eq!(view.entries, entries(40, 100)[number as usize - 1..number as usize]);
                reads += 1;
            }
        });
        for round in 0..400u32 {
            let replaced = [1, 2, 3].map(|n| (n, 20, Bytes::from(vec![round as u8; 100])));
            rig.change(&replaced, &[(1, entries(7, 100)), (2, entries(7, 100)), (3, entries(7, 100))]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_chain_that_begins_behind_an_entry_is_not_taken_for_its_own() {
    let mut rig = Rig::new();
    // Between its looks at two pages a read saw neither: the chain that was closed, nor the one that was open before.
    for _ in 0..17 {
        rig.checkpoint(&[(1, entries(10, 100))]);
    }
    let front = Key::entries(timeline(1), 0);
    let front = split_key(front.as_bytes()).unwrap().0.to_vec();
    let closed = key_of(&front, 160);
    let stored = rig.base().tree.remove(&closed).unwrap().unwrap();
    let next = || rig.base().next(&front, &key_of(&front, 5));
    assert!(matches!(next(), Err(StateError::Damaged { what, .. }) if what.contains("gap")));
    rig.base().tree.insert(&closed, stored).unwrap();
    let (key, _) = next().unwrap().unwrap();
    assert_eq!(split_key(&key).unwrap().1, 10);
    // Behind the newest there is nothing.
    assert_eq!(rig.base().next(&front, &key_of(&front, 171)).unwrap(), None);
}

#[test]
fn nothing_is_left_of_a_timeline_that_was_erased() {
    let mut rig = Rig::new();
    let (gone, stays) = (Bytes::from(vec![77; 300]), Bytes::from(vec![88; 300]));
    for _ in 0..40 {
        rig.checkpoint(&[(1, vec![gone.clone()]), (2, vec![stays.clone()])]);
    }
    let words = |dir: &Path, byte: u8| {
        let runs = fs::read(dir.join("runs-shard0-000001")).unwrap();
        runs.windows(200).any(|window| window.iter().all(|b| *b == byte))
    };
    assert!(words(rig.dir.path(), 77) && rig.records() >= 5);
    rig.change_all(&[1], &[], &[]);
    assert!(!words(rig.dir.path(), 77) && words(rig.dir.path(), 88));
    rig.start();
    rig.check(&BTreeMap::from([(2, vec![stays; 40])]));
    assert_eq!(Store::new(rig.base().clone(), 1 << 20).head(timeline(1)).unwrap(), 0);
}

#[test]
fn nothing_is_left_of_a_state_that_was_cleared_before_a_crash() {
    let mut rig = Rig::new();
    // Too little for a run beside the store, whose loss would be found.
    rig.checkpoint(&[(1, entries(1, 20))]);
    rig.base().clear().unwrap();
    // As a process that is killed leaves it: what it had not handed to the system is gone.
    let copy = tempfile::tempdir().unwrap();
    copy_all(rig.dir.path(), copy.path());
    let left = SledDb::open(copy.path(), 1 << 20).unwrap().shard(ShardId::new(0)).unwrap();
    assert_eq!(left.applied(), Applied::default());
    assert_eq!(left.last(&Key::timeline(timeline(1))).unwrap(), None);
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => _ = fs::copy(entry.path(), target).unwrap(),
        }
    }
}

#[test]
fn the_room_of_what_was_replaced_is_given_back() {
    use std::os::unix::fs::MetadataExt as _;
    let mut rig = Rig::new();
    rig.checkpoint(&[(1, entries(200, 300))]);
    let file = rig.dir.path().join("runs-shard0-000001");
    let words = |byte: u8| fs::read(&file).unwrap().windows(300).any(|window| window.iter().all(|b| *b == byte));
    let blocks = || fs::metadata(&file).unwrap().blocks();
    let (before, mut expected) = (blocks(), entries(200, 300));
    assert!(words(7));
    for round in 0..40u8 {
        expected[7] = Bytes::from(vec![200 + round; 300]);
        rig.change(&[(1, 8, expected[7].clone())], &[]);
        // Nobody can read any more what it was.
        assert!(!words(7) && words(200 + round) && (round == 0 || !words(199 + round)));
    }
    // Forty times 30 KB were written since; a part of a block may be left of each.
    assert!(blocks() < before + 40 * 2 * 8 + 200, "{before} blocks became {}", blocks());
    rig.start();
    rig.check(&BTreeMap::from([(1, expected)]));
}

#[test]
fn what_was_replaced_is_gone_after_a_crash_behind_the_checkpoint_and_there_after_one_before_it() {
    for happened in [true, false] {
        let mut rig = Rig::new();
        rig.checkpoint(&[(1, entries(200, 300))]);
        let file = rig.dir.path().join("runs-shard0-000001");
        let words = || fs::read(&file).unwrap().windows(300).any(|window| window.iter().all(|b| *b == 7));
        let (mut store, mut expected) = (Store::new(rig.base().clone(), 1 << 20), entries(200, 300));
        store.replace(timeline(1), 8, Bytes::from(vec![250; 300]));
        store.set_applied(applied(2));
        let (writes, to) = store.freeze().unwrap().writes(&**rig.base()).unwrap();
        let base = rig.base();
        let Folded { sealed, digest, dead } = base.fold(writes, base.lock().1).unwrap();
        base.write_dead(&dead).unwrap();
        if happened {
            let marker = codec::encode(&(to.to_bytes(), digest));
            base.write_redo(&[(sealed.clone(), marker.clone())]).unwrap();
            base.insert(&sealed, &marker).unwrap();
            expected[7] = Bytes::from(vec![250; 300]);
        }
        // The process is killed here.
        drop(store);
        rig.start();
        assert_eq!(words(), !happened);
        assert!(!rig.base().dead.exists());
        rig.check(&BTreeMap::from([(1, expected)]));
    }
}

#[test]
fn an_earlier_build_rebuilds_the_state_and_this_one_keeps_that_of_an_earlier_one() {
    let mut rig = Rig::new();
    rig.checkpoint(&[(1, entries(10, 100))]);
    let mark = rig.dir.path().join(TRUST_FILE);
    // What an earlier build trusts is one of these two, to the letter.
    let old = [CLOSED.to_owned(), boot_id()];
    assert!(!old.contains(&fs::read_to_string(&mark).unwrap()));
    rig.db.as_ref().unwrap().close().unwrap();
    assert!(!old.contains(&fs::read_to_string(&mark).unwrap()));
    for trusted in old {
        (rig.base, rig.db) = (None, None);
        fs::write(&mark, trusted).unwrap();
        rig.start();
        rig.check(&BTreeMap::from([(1, entries(10, 100))]));
    }
}
