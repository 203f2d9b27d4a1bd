//! Blobs as durable state: which attempt holds one, how many messages name it, until when it is kept without one.

use std::sync::Arc;

use bincode::{Decode, Encode};
use magpie_cluster::{EntityId, Key, Record, Store, Tx, state::StateError};
use magpie_protocol::{BlobId, Body, ConversationId, ErrorCode, MessageId, Slot, UserId, WireError, message::BlobRef};

use super::{Command, holdings};
use crate::{
    account, chat,
    machine::{self, Outcome, Replied, table, user_of},
    personal,
};

/// How long a blob is kept that no message names, in milliseconds, where nobody said otherwise.
pub const KEEP_MS: u64 = 24 * 60 * 60 * 1000;
/// Attempts of one person to bring one blob, and of all.
const ATTEMPTS_PER_USER: usize = 16;
const ATTEMPTS_MAX: usize = 256;
/// How soon to come back when there are too many, in milliseconds.
const ATTEMPTS_RETRY_MS: u32 = 60_000;
/// Blobs that one look for what is due gives.
const DUE_MAX: usize = 256;
/// Which kind of entity a blob is.
const ENTITY_KIND: u8 = 5;

/// Somebody brings the blob, or did.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Attempt {
    id: u64,
    user: UserId,
    begun_ms: u64,
    /// Nobody writes to it nor reads from it any more: its pieces wait to be deleted.
    dead: bool,
}

/// A blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Blob {
    /// Its length, in bytes, once it is there.
    len: u64,
    /// The attempt that holds it; 0 while none does.
    held_by: u64,
    /// Messages that name it. They count whether it is there or not: brought again, it is kept for them.
    references: u64,
    /// When it may go, if no message names it, in milliseconds since 1970.
    expires_ms: u64,
    keep_ms: u64,
    attempts: Vec<Attempt>,
}
impl Record for Blob {
    fn heap_bytes(&self) -> usize {
        self.attempts.len() * size_of::<Attempt>()
    }
}

/// Blobs of one slot that may have to be collected one day, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Due(Vec<BlobId>);
impl Record for Due {
    fn heap_bytes(&self) -> usize {
        self.0.len() * size_of::<BlobId>()
    }
}

/// What can be read of media.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Query {
    /// Is it there?
    Blob(BlobId),
    /// May this attempt still be written to?
    Attempt { blob: BlobId, attempt: u64 },
    /// Blobs of this slot that may be collected at this time.
    Due { slot: Slot, now_ms: u64, keep_ms: u64 },
    /// May this person read the message, and does it name the blob?
    Names { reader: UserId, message: MessageId, blob: BlobId },
    /// May this person name the blob in a message?
    Held { user: UserId, blob: BlobId },
    /// Does this person show the blob as their picture?
    Avatar { user: UserId, blob: BlobId },
    /// Is this message a favourite of this person, and does it name the blob as they keep it?
    Kept { user: UserId, message: MessageId, blob: BlobId },
}

/// What those reads give.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum View {
    /// Length, attempt that holds it, and when it may go (0 for never); `None` when it is not there.
    Blob(Option<Stored>),
    Due(Vec<BlobId>),
    Yes(bool),
}

/// See [`View::Blob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stored {
    pub len: u64,
    pub held_by: u64,
    /// When it may go, in milliseconds since 1970; 0 while a message names it.
    pub expires_ms: u64,
}

/// What comes back from a blob.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The other attempts of the same person.
    Begun(Vec<u64>),
    /// This very attempt holds the blob now; otherwise another does, and its pieces may be deleted.
    Complete { held: bool },
    /// The pieces of these attempts may be deleted.
    Collect(Vec<u64>),
}

/// The blob as an entity.
pub fn entity(blob: BlobId) -> EntityId {
    EntityId::new(ENTITY_KIND, blob.bits())
}

fn key(blob: BlobId) -> Key {
    Key::new(blob.slot(), table::BLOB).bytes(blob.hash())
}

/// A message of this person, a favourite, or their picture names these from now on.
pub fn claim(tx: &mut Tx<'_>, user: UserId, blobs: &[BlobRef]) {
    for named in distinct(blobs) {
        let (blob, len) = (named.blob, named.len);
        tx.send(entity(blob), &machine::Command::Media(Command::Claim { blob }));
        tx.send(EntityId::user(user), &machine::Command::Media(Command::Used { blob, len }));
    }
}

/// It no longer names these.
pub fn release(tx: &mut Tx<'_>, user: UserId, blobs: &[BlobRef]) {
    for named in distinct(blobs) {
        let blob = named.blob;
        tx.send(entity(blob), &machine::Command::Media(Command::Release { blob }));
        tx.send(EntityId::user(user), &machine::Command::Media(Command::Unused { blob }));
    }
}

/// The same of a person who is no more.
pub fn let_go(tx: &mut Tx<'_>, blobs: &[BlobRef]) {
    for named in distinct(blobs) {
        let blob = named.blob;
        tx.send(entity(blob), &machine::Command::Media(Command::Release { blob }));
    }
}

/// A message counts once, however often it names a blob.
fn distinct(blobs: &[BlobRef]) -> impl Iterator<Item = &BlobRef> {
    blobs.iter().enumerate().filter(|(at, named)| !blobs[..*at].iter().any(|b| b.blob == named.blob)).map(|(_, b)| b)
}

/// The account of this person is deleted: forgets what they brought, a part at a time. Whether there is more.
pub fn forget(tx: &mut Tx<'_>, user: UserId) -> bool {
    holdings::purge(tx, user)
}

/// Carries out a command.
pub fn apply(tx: &mut Tx<'_>, entity_id: EntityId, command: Command) -> Replied {
    match command {
        Command::Reserve { .. } | Command::Hold { .. } | Command::Used { .. } | Command::Unused { .. } => {
            return holdings::apply(tx, user_of(entity_id), command);
        }
        _ => {}
    }
    let blob = command.blob();
    if entity(blob) != entity_id {
        return Err(WireError::field(ErrorCode::Invalid, "blob", "another blob than the entity"));
    }
    let mut record = tx.get::<Blob>(&key(blob)).map(|found| (*found).clone()).unwrap_or_default();
    let replied = act(&mut record, tx.time_ms(), command)?;
    keep(tx, blob, record);
    Ok(replied.map_or(Outcome::Done, |reply| Outcome::Media(Box::new(reply))))
}

fn act(record: &mut Blob, now: u64, command: Command) -> Result<Option<Reply>, WireError> {
    match command {
        Command::Begin { user, attempt, keep_ms, .. } => return begin(record, now, user, attempt, keep_ms).map(Some),
        Command::Complete { user, attempt, len, keep_ms, .. } => {
            return complete(record, now, user, attempt, len, keep_ms).map(Some);
        }
        Command::Abandon { attempts, .. } => {
            let abandoned = |a: &&mut Attempt| attempts.contains(&a.id);
            record.attempts.iter_mut().filter(abandoned).for_each(|attempt| attempt.dead = true);
        }
        Command::Touch { keep_ms, .. } => {
            if record.held_by == 0 {
                return Err(WireError::field(ErrorCode::NotFound, "blob", ""));
            }
            record.expires_ms = record.expires_ms.max(now.saturating_add(keep_ms));
        }
        Command::Claim { .. } => record.references += 1,
        Command::Release { .. } => {
            record.references = record.references.saturating_sub(1);
            let keep_ms = if record.keep_ms == 0 { KEEP_MS } else { record.keep_ms };
            record.expires_ms = now.saturating_add(keep_ms);
        }
        Command::Collect { keep_ms, .. } => return Ok(Some(collect(record, now, keep_ms))),
        Command::Collected { attempts, .. } => {
            record.attempts.retain(|attempt| !(attempt.dead && attempts.contains(&attempt.id)));
        }
        Command::Reserve { .. } | Command::Hold { .. } | Command::Used { .. } | Command::Unused { .. } => {}
    }
    Ok(None)
}

fn begin(record: &mut Blob, now: u64, user: UserId, attempt: u64, keep_ms: u64) -> Result<Reply, WireError> {
    let others = |record: &Blob| -> Vec<u64> {
        let mine = record.attempts.iter().filter(|a| a.user == user && !a.dead && a.id != attempt);
        mine.map(|a| a.id).collect()
    };
    if record.held_by != attempt && !record.attempts.iter().any(|a| a.id == attempt) {
        let of_user = record.attempts.iter().filter(|a| a.user == user && !a.dead).count();
        if of_user >= ATTEMPTS_PER_USER || record.attempts.len() >= ATTEMPTS_MAX {
            let error = WireError::field(ErrorCode::RateLimited, "blob", "too many uploads of it were begun");
            return Err(WireError { retry_after_ms: ATTEMPTS_RETRY_MS, ..error });
        }
        record.attempts.push(Attempt { id: attempt, user, begun_ms: now, dead: false });
    }
    record.keep_ms = keep_ms;
    record.expires_ms = record.expires_ms.max(now.saturating_add(keep_ms));
    Ok(Reply::Begun(others(record)))
}

fn complete(
    record: &mut Blob,
    now: u64,
    user: UserId,
    attempt: u64,
    len: u64,
    keep_ms: u64,
) -> Result<Reply, WireError> {
    record.expires_ms = record.expires_ms.max(now.saturating_add(keep_ms));
    if record.held_by == attempt {
        return Ok(Reply::Complete { held: true });
    }
    let found = record.attempts.iter().position(|a| a.id == attempt && a.user == user);
    if record.held_by != 0 {
        // Somebody else was first. What this one brought is the same.
        if let Some(at) = found {
            record.attempts[at].dead = true;
        }
        return Ok(Reply::Complete { held: false });
    }
    let Some(at) = found.filter(|at| !record.attempts[*at].dead) else {
        // A later one took over what this one had: it is not all here.
        return Err(WireError::field(ErrorCode::Unavailable, "blob", "another upload of it went on from this one"));
    };
    record.attempts.remove(at);
    (record.held_by, record.len) = (attempt, len);
    Ok(Reply::Complete { held: true })
}

fn collect(record: &mut Blob, now: u64, keep_ms: u64) -> Reply {
    if record.references == 0 && record.expires_ms <= now && record.held_by != 0 {
        let id = std::mem::take(&mut record.held_by);
        record.attempts.push(Attempt { id, user: UserId::default(), begun_ms: now, dead: true });
    }
    for attempt in record.attempts.iter_mut().filter(|a| a.begun_ms.saturating_add(keep_ms) <= now) {
        attempt.dead = true;
    }
    Reply::Collect(record.attempts.iter().filter(|a| a.dead).map(|a| a.id).collect())
}

/// Writes the record, or removes it when it says nothing any more, and keeps the list of what may be collected.
fn keep(tx: &mut Tx<'_>, blob: BlobId, record: Blob) {
    let needless = record.held_by == 0 && record.references == 0 && record.attempts.is_empty();
    let may_be_due = !needless && (record.references == 0 || !record.attempts.is_empty());
    let due_key = due_key(blob.slot());
    let due = tx.get::<Due>(&due_key).unwrap_or_default();
    let found = due.0.binary_search(&blob);
    if found.is_ok() != may_be_due {
        let mut due = (*due).clone();
        match found {
            Ok(at) => drop(due.0.remove(at)),
            Err(at) => due.0.insert(at, blob),
        }
        if due.0.is_empty() { tx.delete(due_key) } else { tx.put(due_key, due) }
    }
    if needless { tx.delete(key(blob)) } else { tx.put(key(blob), record) }
}

fn due_key(slot: Slot) -> Key {
    Key::new(slot, table::BLOBS_DUE)
}

/// Answers a read.
pub fn query(store: &mut Store, query: Query) -> Result<View, StateError> {
    Ok(match query {
        Query::Blob(blob) => {
            let found = store.get::<Blob>(&key(blob))?.filter(|record| record.held_by != 0);
            View::Blob(found.map(|record| Stored {
                len: record.len,
                held_by: record.held_by,
                expires_ms: if record.references == 0 { record.expires_ms } else { 0 },
            }))
        }
        Query::Attempt { blob, attempt } => {
            let found = store.get::<Blob>(&key(blob))?;
            View::Yes(found.is_some_and(|record| record.attempts.iter().any(|a| a.id == attempt && !a.dead)))
        }
        Query::Due { slot, now_ms, keep_ms } => {
            let due = store.get::<Due>(&due_key(slot))?.unwrap_or_default();
            let mut found = Vec::new();
            for blob in &due.0 {
                let Some(record) = store.get::<Blob>(&key(*blob))? else { continue };
                if is_due(&record, now_ms, keep_ms) && found.len() < DUE_MAX {
                    found.push(*blob);
                }
            }
            View::Due(found)
        }
        Query::Names { reader, message, blob } => {
            let entry = chat::state::readable(store, reader, message)?;
            View::Yes(entry.is_some_and(|entry| names(&entry.body, blob)))
        }
        Query::Held { user, blob } => View::Yes(holdings::is_held(store, user, blob)?),
        Query::Kept { user, message, blob } => View::Yes(personal::state::keeps(store, user, message, blob)?),
        Query::Avatar { user, blob } => View::Yes(account::state::person::shows(store, user, blob)?),
    })
}

fn is_due(record: &Arc<Blob>, now_ms: u64, keep_ms: u64) -> bool {
    let expired = record.references == 0 && record.expires_ms <= now_ms && record.held_by != 0;
    expired || record.attempts.iter().any(|a| a.dead || a.begun_ms.saturating_add(keep_ms) <= now_ms)
}

/// The blobs that an entry names.
pub fn blobs_of(body: &Body) -> Vec<BlobRef> {
    match body {
        Body::Message(said) => said.message.kind.blobs(),
        Body::Edited(edited) => edited.kind.as_ref().map(magpie_protocol::Kind::blobs).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn names(body: &Body, blob: BlobId) -> bool {
    blobs_of(body).iter().any(|named| named.blob == blob)
}

/// The slot of the conversation that a message is in.
pub fn slot_of(message: MessageId) -> Slot {
    let conversation: ConversationId = message.conversation;
    conversation.slot()
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let blob = BlobId::from_hash([5; 32]);
    let attempt = Attempt { id: 7, user: UserId::from_bits(1 << 40), begun_ms: 1_700_000_000_000, dead: true };
    let record = Blob { len: 9, held_by: 3, references: 2, expires_ms: 5, keep_ms: KEEP_MS, attempts: vec![attempt] };
    let mut all =
        vec![Golden::coded("record.media.blob", &record), Golden::coded("record.media.due", &Due(vec![blob]))];
    all.extend(holdings::goldens());
    all
}

#[cfg(test)]
mod tests;
