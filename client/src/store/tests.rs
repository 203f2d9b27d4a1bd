use super::*;
use std::path::Path;

const C: ConversationId = ConversationId::from_bits(7);
const T: TimelineId = TimelineId::Conversation(C);

fn file(path: &Path) -> Result<(Box<dyn Store>, Loaded), Error> {
    open(&StorePlace::File(path.to_owned()), History::All)
}

fn post(store: &mut dyn Store, loaded: &Loaded, number: u64) {
    store.put_send(C, loaded.identity.incarnation, number, &Content::Text(number.to_string()), None).unwrap();
}

fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let name = |path: &Path| std::path::PathBuf::from(format!("{}{suffix}", path.display()));
        if name(from).exists() {
            std::fs::copy(name(from), name(to)).unwrap();
        }
    }
}

#[test]
fn a_reopened_store_goes_on_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let (mut store, first) = file(&path).unwrap();
    post(&mut *store, &first, 1);
    post(&mut *store, &first, 2);
    store.resolve_send(C, first.identity.incarnation, 1).unwrap();
    let mark = Mark { cursor: 2, first: 1, head: 3, read: 1, ended: None, title: Some("t".into()) };
    let entry = |number| NewEntry { number, bytes: EntryBytes(bytes::Bytes::from(vec![number as u8])) };
    store.append(T, &mark, &[entry(1), entry(2)], &[]).unwrap();
    let mut identity = first.identity.clone();
    (identity.token, identity.user, identity.handle) = (vec![1, 2], Some(UserId::from_bits(5)), "ann".into());
    store.put_identity(&identity).unwrap();
    store.close().unwrap();
    drop(store);
    for closed in [true, false] {
        let (mut store, again) = file(&path).unwrap();
        assert_eq!(again.identity.incarnation, first.identity.incarnation);
        assert_eq!(again.identity.key_seed, first.identity.key_seed);
        assert_eq!((&again.identity.handle[..], again.identity.user), ("ann", Some(UserId::from_bits(5))));
        assert_eq!(again.timelines, [(T, mark.clone())]);
        let sends = vec![(2, Content::Text("2".into()))];
        let lane = LaneRow { conversation: C, incarnation: first.identity.incarnation, next: 3, sends };
        assert_eq!(again.lanes, [lane]);
        assert_eq!(store.entries(T, 1, 10).unwrap(), [vec![2]]);
        if closed {
            store.close().unwrap();
        }
    }
    // Not closed well, as when the process was killed, it goes on too.
    assert_eq!(file(&path).unwrap().1.identity.incarnation, first.identity.incarnation);
}

#[test]
fn a_second_opening_finds_it_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let first = file(&path).unwrap();
    assert!(matches!(file(&path), Err(Error::StoreInUse(in_use)) if in_use == path));
    drop(first);
    assert!(file(&path).is_ok());
}

#[test]
fn a_wiped_store_is_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let (mut store, first) = file(&path).unwrap();
    store.close().unwrap();
    std::fs::remove_file(&path).unwrap();
    let (_store, second) = file(&path).unwrap();
    assert_ne!(first.identity.incarnation, second.identity.incarnation);
    assert_ne!(first.identity.key_seed, second.identity.key_seed);
}

#[test]
fn a_copy_writes_under_an_incarnation_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (path, twin) = (dir.path().join("a.db"), dir.path().join("b.db"));
    for closed in [true, false] {
        let (mut store, first) = file(&path).unwrap();
        post(&mut *store, &first, 1);
        if closed {
            store.close().unwrap();
        }
        copy(&path, &twin);
        let (_store, copied) = file(&twin).unwrap();
        assert_ne!(first.identity.incarnation, copied.identity.incarnation);
        assert_eq!(first.identity.key_seed, copied.identity.key_seed);
        assert_eq!(copied.lanes[0].incarnation, first.identity.incarnation, "unresolved under the old one");
        drop(store);
        let (mut store, again) = file(&path).unwrap();
        assert_eq!(again.identity.incarnation, first.identity.incarnation, "the original is what it was");
        store.close().unwrap();
    }
}

#[test]
fn a_backup_put_back_in_place_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("a.db"), dir.path().join("backup"));
    let (mut store, first) = file(&path).unwrap();
    post(&mut *store, &first, 1);
    // Of a store in use, without its lock file, in place: same inode.
    copy(&path, &backup);
    post(&mut *store, &first, 2);
    drop(store);
    for suffix in ["", "-wal", "-shm"] {
        let name = |path: &Path| std::path::PathBuf::from(format!("{}{suffix}", path.display()));
        let _ = std::fs::remove_file(name(&path).with_extension("never"));
        match std::fs::read(name(&backup)) {
            Ok(bytes) => std::fs::write(name(&path), bytes).unwrap(),
            Err(_) => drop(std::fs::remove_file(name(&path))),
        }
    }
    let (mut store, second) = file(&path).unwrap();
    assert_ne!(second.identity.incarnation, first.identity.incarnation);
    // Of a closed store, with its lock file, in place.
    store.close().unwrap();
    copy(&path, &backup);
    copy(&backup, &path);
    let (_store, third) = file(&path).unwrap();
    assert_ne!(third.identity.incarnation, second.identity.incarnation);
}

#[test]
fn a_renumbered_lane_and_a_cleared_history_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let (mut store, first) = file(&path).unwrap();
    post(&mut *store, &first, 8);
    let lane = LaneRow {
        conversation: C,
        incarnation: mint_incarnation(),
        next: 2,
        sends: vec![(1, Content::Text("8".into()))],
    };
    store.put_lane(&lane).unwrap();
    store.put_marks(&[(T, Mark::default())]).unwrap();
    store.start_over(None).unwrap();
    drop(store);
    let (_store, again) = file(&path).unwrap();
    assert_eq!(again.lanes, [lane]);
    assert!(again.timelines.is_empty());
}
