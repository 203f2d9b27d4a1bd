//! Segments of the log, batches in its entries, snapshots.

use std::{path::Path, sync::Arc};

use magpie_protocol::{ShardId, Slot};

use super::{AT, file::Golden};
use crate::{
    disk::{Disk, memory::MemoryDisk, write_whole},
    log::{
        Record, RecordKind,
        format::{self, GROUP_HEADER_LEN},
    },
    machine::EntityId,
    shard::batch::{BatchBuilder, BatchReader, Item},
    snapshot,
    state::{Applied, Key, StateBase, memory::MemoryBase},
    system::{Change, FIRST_LEVEL},
};

const SHARD: ShardId = ShardId::new(5);

fn segment(records: &[(RecordKind, Vec<u8>)]) -> Vec<u8> {
    let mut group = vec![0; GROUP_HEADER_LEN];
    for (kind, payload) in records {
        Record { kind: *kind, shard: SHARD, position: AT, payload }.write(&mut group);
    }
    format::finish_group(&mut group, 9);
    [&format::segment_header(2, 9)[..], &group].concat()
}

fn read_segment(bytes: &[u8]) -> Option<Vec<u8>> {
    let (2, 9) = format::read_segment_header(bytes)? else { return None };
    let (9, mut rest) = format::read_group(&bytes[format::SEGMENT_HEADER_LEN..])? else { return None };
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (record, len) = format::read_record(rest)?;
        if record.position != AT || record.shard != SHARD {
            return None;
        }
        records.push((record.kind, record.payload.to_vec()));
        rest = &rest[len..];
    }
    Some(segment(&records))
}

fn batch() -> Vec<u8> {
    let entity = EntityId::new(2, 0x0123_4567_89ab_cdef);
    let mut batch = BatchBuilder::default();
    batch.ask(entity, &"asked");
    batch.inbound(ShardId::new(3), 0, 7, entity, b"delivered");
    batch.acked(ShardId::new(4), 0, 8);
    batch.system(&Change::Raise { level: FIRST_LEVEL });
    batch.audit();
    batch.level(6);
    batch.inbound(ShardId::new(3), 2, 9, entity, b"behind a cut");
    batch.acked(ShardId::new(4), 2, 10);
    batch.cut(3);
    batch.finish(0x0a0b, 1_700_000_000_000).to_vec()
}

fn read_batch(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut reader = BatchReader::new(bytes)?;
    let (id, time_ms, mut again) = (reader.id, reader.time_ms, BatchBuilder::default());
    while let Some(item) = reader.next_item().ok()? {
        match item {
            Item::Ask { entity, command } => {
                again.ask(entity, &magpie_protocol::codec::decode_stored::<String>(command).ok()?);
            }
            Item::Inbound { from, cut, number, entity, command } => again.inbound(from, cut, number, entity, command),
            Item::Acked { to, cut, upto } => again.acked(to, cut, upto),
            Item::Cut { cut } => again.cut(cut),
            Item::System { change } => again.system(&magpie_protocol::codec::decode_stored(change).ok()?),
            Item::Audit => again.audit(),
            Item::Level { level } => again.level(level),
            Item::Feed { change } => again.feed(&magpie_protocol::codec::decode_stored(change).ok()?),
        }
    }
    Some(again.finish(id, time_ms).to_vec())
}

fn records() -> Vec<(Key, Option<Vec<u8>>)> {
    (1..4).map(|n| (Key::new(Slot::new(77), 20 + n).u64(u64::from(n)), Some(vec![n; 5]))).collect()
}

fn write_snapshot(base: &MemoryBase) -> Option<Vec<u8>> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let (path, _, _) = snapshot::write(&disk, Path::new("/s"), SHARD, base).ok()?;
    disk.read(&path).ok()
}

fn read_snapshot(bytes: &[u8]) -> Option<Vec<u8>> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    disk.create_dir(Path::new("/s")).ok()?;
    let path = snapshot::snapshot_path(Path::new("/s"), SHARD, AT.index);
    write_whole(&disk, &path, bytes).ok()?;
    let base = MemoryBase::default();
    snapshot::load(&disk, &path, &base).ok()?;
    (snapshot::read_meta(&disk, &path).ok()? == base.applied()).then(|| write_snapshot(&base))?
}

pub(super) fn goldens() -> Vec<Golden> {
    use RecordKind::{Entry, Floor, Forget, Purge, Seal, Truncate, Vote};
    let kinds = [Entry, Vote, Truncate, Purge, Seal, Forget, Floor];
    let records_of_log: Vec<_> = kinds.into_iter().map(|kind| (kind, vec![kind as u8; 3])).collect();
    let base = MemoryBase::default();
    base.commit(records(), &Applied { position: Some(AT), membership: vec![1, 2, 3].into() }).unwrap();
    vec![
        Golden::new("log.segment", segment(&records_of_log), read_segment),
        Golden::new("log.batch", batch(), read_batch),
        Golden::new("snapshot", write_snapshot(&base).unwrap(), read_snapshot),
    ]
}
