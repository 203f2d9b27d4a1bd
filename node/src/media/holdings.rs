//! What a person brought, may name in messages, and is charged for.

use bincode::{Decode, Encode};
use magpie_cluster::{Key, Record, Store, Tx, state::StateError};
use magpie_protocol::{BlobId, ErrorCode, UserId, WireError};

use super::{Command, state::KEEP_MS};
use crate::{
    account,
    machine::{Outcome, Replied, table},
};

/// Blobs of one person that no message names, at a time.
const UNUSED_MAX: usize = 1_000;
/// Blobs of a deleted account that one command forgets.
const PURGED_AT_ONCE: usize = 256;

/// One blob of one person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Holding {
    len: u64,
    /// They have shown that they have it: they may name it. Until then there is only room for it.
    held: bool,
    /// Messages of theirs that name it.
    uses: u64,
}
impl Record for Holding {}

/// All blobs of one person, in sum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Holdings {
    bytes: u64,
    keep_ms: u64,
    /// Those that no message names, and when they are forgotten.
    unused: Vec<(BlobId, u64)>,
}
impl Record for Holdings {
    fn heap_bytes(&self) -> usize {
        self.unused.len() * size_of::<(BlobId, u64)>()
    }
}

fn key(user: UserId, blob: BlobId) -> Key {
    Key::new(user.slot(), table::HOLDING).u64(user.bits()).bytes(blob.hash())
}

fn sum_key(user: UserId) -> Key {
    Key::new(user.slot(), table::HOLDINGS).u64(user.bits())
}

/// The account of this person is deleted: nothing of this stays. Erases a part, and says whether there is more.
pub fn purge(tx: &mut Tx<'_>, me: UserId) -> bool {
    tx.delete(sum_key(me));
    let theirs = Key::new(me.slot(), table::HOLDING).u64(me.bits());
    let some = tx.keys(&theirs, None, PURGED_AT_ONCE);
    some.iter().for_each(|key| tx.delete(*key));
    some.len() == PURGED_AT_ONCE
}

/// Carries out a command of a person.
pub fn apply(tx: &mut Tx<'_>, me: UserId, command: Command) -> Replied {
    let blob = command.blob();
    // Messages of theirs are recalled by others after their account is no more.
    account::state::user(tx, me).ok_or_else(|| WireError::new(ErrorCode::NotFound))?;
    let mut all = tx.get::<Holdings>(&sum_key(me)).map(|found| (*found).clone()).unwrap_or_default();
    forget_expired(tx, me, &mut all);
    let known = tx.get::<Holding>(&key(me, blob)).map(|found| *found);
    let mut holding = known.unwrap_or_default();
    match command {
        Command::Reserve { len, quota, keep_ms, .. } | Command::Hold { len, quota, keep_ms, .. } => {
            all.keep_ms = keep_ms;
            holding.held |= matches!(command, Command::Hold { .. });
            if known.is_none() {
                make_room(&mut all, len, quota)?;
                holding.len = len;
            } else if holding.len != len && !known.is_some_and(|known| known.held) {
                // Only the content says how long it is.
                all.bytes = all.bytes.saturating_sub(holding.len);
                make_room(&mut all, len, quota)?;
                holding.len = len;
            }
        }
        Command::Used { len, .. } => {
            if known.is_none() {
                // It was forgotten meanwhile. What a message names counts, whatever the quota.
                (holding.len, holding.held) = (len, true);
                all.bytes = all.bytes.saturating_add(len);
            }
            holding.uses += 1;
        }
        Command::Unused { .. } if known.is_none() => {
            tx.put(sum_key(me), all);
            return Ok(Outcome::Done);
        }
        Command::Unused { .. } => holding.uses = holding.uses.saturating_sub(1),
        _ => return Err(WireError::new(ErrorCode::Internal)),
    }
    all.unused.retain(|(unused, _)| *unused != blob);
    if holding.uses == 0 {
        let keep_ms = if all.keep_ms == 0 { KEEP_MS } else { all.keep_ms };
        all.unused.push((blob, tx.time_ms().saturating_add(keep_ms)));
    }
    tx.put(key(me, blob), holding);
    tx.put(sum_key(me), all);
    Ok(Outcome::Done)
}

fn make_room(all: &mut Holdings, len: u64, quota: u64) -> Result<(), WireError> {
    let bytes = all.bytes.saturating_add(len);
    if bytes > quota {
        let detail = format!("{} bytes are in use, {len} do not fit into {quota}", all.bytes);
        return Err(WireError { number: quota, ..WireError::field(ErrorCode::LimitReached, "quota", detail) });
    }
    if all.unused.len() >= UNUSED_MAX {
        let error = WireError::field(ErrorCode::LimitReached, "blob", "too many were brought that no message names");
        return Err(error.at(UNUSED_MAX));
    }
    all.bytes = bytes;
    Ok(())
}

fn forget_expired(tx: &mut Tx<'_>, me: UserId, all: &mut Holdings) {
    let now = tx.time_ms();
    let expired: Vec<BlobId> = all.unused.iter().filter(|(_, at)| *at <= now).map(|(blob, _)| *blob).collect();
    if expired.is_empty() {
        return;
    }
    all.unused.retain(|(_, at)| *at > now);
    for blob in expired {
        let key = key(me, blob);
        let len = tx.get::<Holding>(&key).map_or(0, |holding| holding.len);
        all.bytes = all.bytes.saturating_sub(len);
        tx.delete(key);
    }
    // Written at once: what follows may be refused, and what is staged stays so.
    tx.put(sum_key(me), all.clone());
}

/// Whether the person may name the blob.
pub fn is_held(store: &mut Store, user: UserId, blob: BlobId) -> Result<bool, StateError> {
    Ok(store.get::<Holding>(&key(user, blob))?.is_some_and(|holding| holding.held))
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let unused = vec![(BlobId::from_hash([5; 32]), 1_700_000_000_000)];
    vec![
        Golden::coded("record.media.holding", &Holding { len: 9, held: true, uses: 2 }),
        Golden::coded("record.media.holdings", &Holdings { bytes: 300, keep_ms: KEEP_MS, unused }),
    ]
}
