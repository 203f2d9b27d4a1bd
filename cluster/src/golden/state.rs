//! Keys, envelopes and what lies beside sled.

use magpie_protocol::{ConversationId, ShardId, Slot, TimelineId, UserId};

use super::{AT, file::Golden};
use crate::state::{
    Applied, Key, StateBase,
    base::{decode_entries, encode_entries, seal, unseal},
    sled::SledDb,
};

fn same(expected: &[u8]) -> impl Fn(&[u8]) -> Option<Vec<u8>> + 'static {
    let expected = expected.to_vec();
    move |bytes| (bytes == expected).then(|| bytes.to_vec())
}

fn key(name: &str, key: Key) -> Golden {
    Golden::new(format!("key.{name}"), key.as_bytes(), same(key.as_bytes()))
}

/// What a node left that ended in the middle of a checkpoint is taken up.
fn read_redo(bytes: &[u8]) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().ok()?;
    std::fs::write(dir.path().join(format!("redo-{}", ShardId::new(0))), bytes).ok()?;
    let base = SledDb::open(dir.path(), 1 << 20).ok()?.shard(ShardId::new(0)).ok()?;
    let is_there = base.applied() == applied() && base.get(record().as_bytes()).ok()?.is_some();
    let is_there = is_there && base.next(b"", b"").ok()?.is_some();
    is_there.then(|| bytes.to_vec())
}

fn applied() -> Applied {
    Applied { position: Some(AT), membership: vec![1, 2, 3].into() }
}

fn record() -> Key {
    Key::new(Slot::new(77), 20).u64(1)
}

pub(super) fn goldens() -> Vec<Golden> {
    let alice = UserId::in_slot(Slot::new(0x0abc), 0x1234);
    let timelines = [TimelineId::Inbox(alice), TimelineId::Conversation(ConversationId::group(alice, 9))];
    let mut goldens: Vec<Golden> =
        (0..).zip(timelines).map(|(i, timeline)| key(&format!("entries.{i}"), Key::entries(timeline, 258))).collect();
    let sealed = seal(record().as_bytes(), b"payload");
    goldens.push(Golden::new("state.record", sealed, |bytes| {
        Some(seal(record().as_bytes(), unseal(record().as_bytes(), bytes).ok()?))
    }));
    let entries = encode_entries([&b"one"[..], b"another"].iter());
    goldens.push(Golden::new("state.entries", entries, |bytes| {
        Some(encode_entries(decode_entries(&"golden", bytes.to_vec()).ok()?.iter()))
    }));
    goldens
        .push(Golden::new("state.applied", applied().to_bytes(), |bytes| Some(Applied::from_bytes(bytes)?.to_bytes())));
    let redo = crate::state::sled::redo_of(vec![(record(), Some(b"payload".to_vec()))], &applied());
    goldens.push(Golden::new("state.redo", redo, read_redo));
    goldens.extend(crate::state::sled::goldens());
    goldens
}
