//! What outlives a connection, and with a file, the process.

mod lock;
mod memory;
mod sqlite;

use std::path::PathBuf;

use magpie_protocol::{
    Body, ConversationId, DeviceId, Entry, Incarnation, TimelineId, UserId, codec, frame::conversation::Content,
    frame::sync::EntryBytes,
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    Error, History, StorePlace,
    fold::{Change, Topic},
    session::sync::Mark,
};

/// Who this store is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The incarnation that new conversations are written under.
    pub(crate) incarnation: Incarnation,
    /// The seed of the device's Ed25519 key.
    pub(crate) key_seed: [u8; 32],
    /// For the next resume; empty when signed out.
    pub(crate) token: Vec<u8>,
    pub(crate) user: Option<UserId>,
    pub(crate) device: DeviceId,
    pub(crate) handle: String,
    /// The newest history epoch that a node named; 0 before the first.
    pub(crate) history_epoch: u64,
}

impl Identity {
    /// A new device with a key of its own.
    fn mint() -> Result<Self, Error> {
        let mut key_seed = [0; 32];
        SystemRandom::new().fill(&mut key_seed).map_err(|_| Error::Store("no randomness for the device key".into()))?;
        Ok(Self {
            incarnation: mint_incarnation(),
            key_seed,
            token: Vec::new(),
            user: None,
            device: DeviceId::default(),
            handle: String::new(),
            history_epoch: 0,
        })
    }
}

/// An incarnation that nobody has used.
pub(crate) fn mint_incarnation() -> Incarnation {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Incarnation::mint(now.map_or(0, |d| d.as_secs() / 60), rand::random())
}

/// What is sent in one conversation and not resolved, in order of number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LaneRow {
    pub(crate) conversation: ConversationId,
    pub(crate) incarnation: Incarnation,
    /// The number that the next post gets.
    pub(crate) next: u64,
    pub(crate) sends: Vec<(u64, Content)>,
}

/// A file that is to be brought and then named in a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FileRow {
    pub(crate) id: i64,
    pub(crate) conversation: ConversationId,
    pub(crate) path: PathBuf,
    /// The message.
    pub(crate) content: Content,
}

/// Everything that a store held when it was opened.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) identity: Identity,
    pub(crate) timelines: Vec<(TimelineId, Mark)>,
    pub(crate) lanes: Vec<LaneRow>,
    pub(crate) files: Vec<FileRow>,
}

/// One accepted entry on its way into the store.
#[derive(Clone, Debug)]
pub(crate) struct NewEntry {
    pub(crate) number: u64,
    pub(crate) bytes: EntryBytes,
}

/// A sign on a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// The entry that it stands on.
    pub number: u64,
    /// Whose it is.
    pub user: UserId,
    /// The sign.
    pub emoji: String,
}

/// An [`Error`] of a store. A type of its own, so that what the stores are made of shows in no public signature.
#[derive(Debug)]
pub(crate) struct StoreError(Error);

impl From<Error> for StoreError {
    fn from(e: Error) -> Self {
        Self(e)
    }
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Self {
        e.0
    }
}

/// A place for what outlives a connection. Every method is one transaction.
pub(crate) trait Store: Send {
    /// Where every timeline stands.
    fn timelines(&mut self) -> Result<Vec<(TimelineId, Mark)>, StoreError>;
    fn put_identity(&mut self, identity: &Identity) -> Result<(), StoreError>;
    fn put_marks(&mut self, marks: &[(TimelineId, Mark)]) -> Result<(), StoreError>;
    /// Adds entries, moves the mark with them, and changes what they change.
    fn append(
        &mut self,
        timeline: TimelineId,
        mark: &Mark,
        entries: &[NewEntry],
        changes: &[Change],
    ) -> Result<(), StoreError>;
    /// The records of a topic, in order of key.
    fn kept(&mut self, topic: Topic) -> Result<Vec<Vec<u8>>, StoreError>;
    /// The signs on the entries with these numbers, in order of entry and of when they came.
    fn reactions(&mut self, timeline: TimelineId, from: u64, to: u64) -> Result<Vec<Reaction>, StoreError>;
    /// At most `limit` entries before `before`, in order, as they are stored.
    fn entries_before(&mut self, timeline: TimelineId, before: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Keeps a post, durably: its number was never used and will not be used again. The file that it names, if it is
    /// one that was to be sent, is forgotten.
    fn put_send(
        &mut self,
        conversation: ConversationId,
        incarnation: Incarnation,
        number: u64,
        content: &Content,
        file: Option<i64>,
    ) -> Result<(), StoreError>;
    /// Keeps a file that is to be sent, durably. Returns its id.
    fn put_file(&mut self, file: &FileRow) -> Result<i64, StoreError>;
    /// Forgets a file that cannot be sent.
    fn forget_file(&mut self, id: i64) -> Result<(), StoreError>;
    /// Forgets a post that is resolved.
    fn resolve_send(
        &mut self,
        conversation: ConversationId,
        incarnation: Incarnation,
        number: u64,
    ) -> Result<(), StoreError>;
    /// Replaces everything about the posts of one conversation, durably.
    fn put_lane(&mut self, lane: &LaneRow) -> Result<(), StoreError>;
    /// At most `limit` entries after `after`, in order, as they are stored.
    fn entries(&mut self, timeline: TimelineId, after: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Forgets entries and marks: the server's history is another one. What `me` wrote is set aside, until it is known
    /// whether that history has it too.
    fn start_over(&mut self, me: Option<UserId>) -> Result<(), StoreError>;
    /// Everything was read anew: what was set aside and is not here again is lost. Returns how much of it that is.
    fn compare_aside(&mut self) -> Result<u64, StoreError>;
    /// What was lost, as it is stored.
    fn lost(&mut self) -> Result<Vec<(TimelineId, Vec<u8>)>, StoreError>;
    /// Forgets what was lost.
    fn forget_lost(&mut self) -> Result<(), StoreError>;
    /// Writes what is not written and lets others in.
    fn close(&mut self) -> Result<(), StoreError>;
}

/// Opens the store and takes hold of it.
pub(crate) fn open(place: &StorePlace, history: History) -> Result<(Box<dyn Store>, Loaded), Error> {
    match place {
        StorePlace::Memory => {
            let loaded =
                Loaded { identity: Identity::mint()?, timelines: Vec::new(), lanes: Vec::new(), files: Vec::new() };
            Ok((Box::new(memory::Memory::new(history)), loaded))
        }
        StorePlace::File(path) => {
            let (store, loaded) = sqlite::Sqlite::open(path, history)?;
            Ok((Box::new(store), loaded))
        }
    }
}

/// Whether a stored entry is what this person said.
fn is_said_by(bytes: &[u8], me: Option<UserId>) -> bool {
    let said = |entry: Entry| Some(entry.sender) == me && matches!(entry.body, Body::Text(_) | Body::Message(_));
    Entry::from_bytes(bytes).is_ok_and(said)
}

/// Whether two stored entries are one, whatever became of its words since.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let whose = |entry: Entry| (entry.number, entry.time_ms, entry.sender);
    Entry::from_bytes(a).is_ok_and(|a| Entry::from_bytes(b).is_ok_and(|b| whose(a) == whose(b)))
}

/// A post's content as it is stored.
fn content_bytes(content: &Content) -> Vec<u8> {
    codec::encode(content)
}

#[cfg(test)]
mod tests;
