use std::path::Path;

use super::*;
use crate::{
    Fatal,
    disk::memory::{Faults, MemoryDisk},
    log::{LogLimits, segments::Segments},
};

const DIR: &str = "/log";

fn open(disk: &MemoryDisk) -> Vec<Arc<ShardLog>> {
    let limits = LogLimits { segment_bytes: 256 * 1024, reserve_bytes: 0 };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let (segments, mut found) = Segments::open(disk.clone(), Path::new(DIR), limits).unwrap();
    let writer = LogWriter::inline(segments, Fatal::new(|why| panic!("{why}"))).unwrap();
    let log = |shard| {
        let shard = ShardId::new(shard);
        ShardLog::new(shard, disk.clone(), DIR.into(), writer.clone(), found.remove(&shard).unwrap_or_default())
    };
    (0..2).map(log).collect()
}

fn entry(shard: usize, term: u64, index: u64) -> LogEntry {
    // Of many lengths, some longer than what is read at a time.
    let len = if index.is_multiple_of(211) { 100_000 } else { (index * 37 % 900) as usize };
    let payload = [vec![shard as u8, term as u8], vec![index as u8; len]].concat();
    LogEntry { position: Position { term, node: 1, index }, payload: payload.into() }
}

fn append(logs: &[Arc<ShardLog>], term: u64, range: std::ops::Range<u64>) {
    for from in range.clone().step_by(3) {
        for (shard, log) in logs.iter().enumerate() {
            log.append(
                (from..range.end.min(from + 3)).map(|index| entry(shard, term, index)).collect(),
                Box::new(|| ()),
            );
        }
    }
}

/// Every entry is as it was appended: one by one, many at a time, across what is in memory and what is not.
fn check(logs: &[Arc<ShardLog>], first: u64, term_of: impl Fn(u64) -> u64, end: u64) {
    for (shard, log) in logs.iter().enumerate() {
        let same = |found: &[LogEntry], range: std::ops::Range<u64>| {
            let expected: Vec<_> = range.map(|index| entry(shard, term_of(index), index)).collect();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert_eq!(found.position, expected.position);
                assert_eq!(found.payload, expected.payload);
            }
        };
        for index in (first..end).step_by(17) {
            same(&log.read(index, index + 1).unwrap(), index..index + 1);
        }
        same(&log.read(0, u64::MAX).unwrap(), first..end);
        same(&log.read(first + 5, end - 2).unwrap(), first + 5..end - 2);
        assert_eq!(log.last().unwrap(), entry(shard, term_of(end - 1), end - 1).position);
    }
}

#[test]
fn entries_that_left_memory_are_read_from_their_places() {
    let disk = MemoryDisk::default();
    let logs = open(&disk);
    append(&logs, 1, 1..9_000);
    assert!(logs[0].lock().slots.len() < 4_000, "{} are in memory", logs[0].lock().slots.len());
    check(&logs, 1, |_| 1, 9_000);

    // Void what is in memory, and then what is not: new entries of a new term stand behind the void ones.
    for (term, from) in [(2, 8_500), (3, 4_003)] {
        logs.iter().for_each(|log| log.truncate(from).unwrap());
        append(&logs, term, from..from + 3_000);
    }
    let term_of = |index| if index >= 4_003 { 3 } else { 1 };
    check(&logs, 1, term_of, 7_003);
    check(&open(&disk), 1, term_of, 7_003);

    for purged in [100, 4_002, 5_000] {
        let before = logs[0].bytes_since_purge();
        logs.iter().for_each(|log| log.purge(Position { term: term_of(purged), node: 1, index: purged }));
        assert!(logs[0].bytes_since_purge() < before);
        check(&logs, purged + 1, term_of, 7_003);
        check(&open(&disk), purged + 1, term_of, 7_003);
    }
}

#[test]
fn what_is_forgotten_stays_so_and_harms_no_other_shard() {
    let disk = MemoryDisk::default();
    let logs = open(&disk);
    append(&logs, 1, 1..3_000);
    logs[1].save_vote(Bytes::from_static(b"vote"), Box::new(|| ()));
    logs[1].forget(Some(Bytes::from_static(b"promise")), Box::new(|| ()));
    let again = open(&disk);
    for logs in [&logs, &again] {
        assert_eq!((logs[1].last(), logs[1].purged()), (None, None));
        assert_eq!((logs[1].vote().unwrap(), logs[1].floor().unwrap().index), (Bytes::from_static(b"promise"), 2_999));
        check(&logs[..1], 1, |_| 1, 3_000);
    }
    again[0].purge(Position { term: 1, node: 1, index: 2_999 });
    append(&again[1..], 7, 1..50);
    assert_eq!(open(&disk)[1].last().unwrap().term, 7);
    // Whatever segments have gone since.
    for from in (50..6_000).step_by(50) {
        append(&again[1..], 8, from..from + 50);
    }
    again[1].purge(Position { term: 8, node: 1, index: 5_000 });
    append(&again[1..], 8, 6_000..7_000);
    assert_eq!(open(&disk)[1].floor().unwrap().index, 2_999);
}

#[test]
fn damage_behind_an_anchor_is_found() {
    let disk = MemoryDisk::default();
    let logs = open(&disk);
    append(&logs, 1, 1..9_000);
    let path = Path::new(DIR).join("log-0000000001.seg");
    let mut bytes = disk.read(&path).unwrap();
    bytes[100_000] ^= 1;
    let mut file = disk.create(&path).unwrap();
    file.append(&bytes).unwrap();
    let errors: Vec<_> = logs.iter().filter_map(|log| log.read(1, 3_000).err()).map(|e| e.to_string()).collect();
    assert!(errors.iter().any(|error| error.contains("log-0000000001.seg")), "{errors:?}");
}

/// How many groups of so many bytes are written, each synced, before it is known that there is no space any more.
fn groups_until_full(bytes: usize) -> usize {
    let disk = MemoryDisk::default();
    let limits = LogLimits { segment_bytes: 64 << 20, reserve_bytes: 1 << 20 };
    let (segments, _) = Segments::open(Arc::new(disk.clone()), Path::new(DIR), limits).unwrap();
    let writer = LogWriter::start(segments, Fatal::new(|why| panic!("{why}"))).unwrap();
    disk.set_faults(Faults { free_bytes: Some(1_000), ..Faults::default() });
    let mut groups = 0;
    while writer.has_space() && groups < 1_000 {
        let (told, done) = std::sync::mpsc::channel();
        let tell: Done = Box::new(move || told.send(()).unwrap());
        writer.submit(Job { records: vec![0; bytes], entries: Vec::new(), notes: Vec::new(), done: Some(tell) });
        done.recv().unwrap();
        groups += 1;
    }
    writer.stop();
    groups
}

#[test]
fn a_full_disk_is_noticed_while_much_is_written_and_long_before_the_reserve_is_gone() {
    assert!(groups_until_full(100) <= 16);
    // An eighth of the reserve.
    assert!(groups_until_full(200_000) <= 1);
}
