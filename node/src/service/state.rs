//! What operators and services leave in the state.

use bincode::{Decode, Encode};
use magpie_cluster::{EntityId, Key as StateKey, Record, Store, Tx, state::StateError};
use magpie_protocol::{
    Body, ConversationId, ErrorCode, Slot, TimelineId, UserId, WireError, frame::conversation::Content,
};

use super::{
    announcements::{self, Announcement},
    command::{Command, Send},
    invitations::{self, Invitation},
};
use crate::{
    account, chat,
    hooks::event::note,
    machine::{Outcome, Replied, table, user_of},
};

/// The kind of entity that keys are: there is one of it.
const KEYS_KIND: u8 = 16;
/// Keys at a time.
const KEYS_MAX: usize = 256;
/// Messages of a service that a conversation remembers, and notices that a person's shard does.
const SENT_MAX: usize = 256;

/// Where keys are kept.
pub fn keys_entity() -> EntityId {
    EntityId::new(KEYS_KIND, 0)
}

/// The slot of that.
pub fn keys_slot() -> Slot {
    keys_entity().slot()
}

/// What a server shows when it asks something. The secret itself is nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Key {
    pub id: u64,
    pub name: String,
    /// SHA-256 of what is shown.
    pub hash: [u8; 32],
    pub scopes: Vec<String>,
    /// The account that it sends as, with the scope `send`.
    pub user: Option<UserId>,
    pub created_ms: u64,
}

#[derive(Clone, Default, Encode, Decode)]
struct Keys(Vec<Key>);
impl Record for Keys {
    fn heap_bytes(&self) -> usize {
        self.0.len() * 256
    }
}

/// An account that nobody may sign in to, since when.
#[derive(Clone, Encode, Decode)]
struct Disabled(u64);
impl Record for Disabled {}

/// Ids that were used, with the hash of what was said under them, and the answer.
#[derive(Clone, Default, Encode, Decode)]
struct Sent(Vec<(u128, u64, u64, u64)>);
impl Record for Sent {
    fn heap_bytes(&self) -> usize {
        self.0.len() * 48
    }
}

impl Sent {
    fn find(&self, id: u128, hash: u64) -> Option<Replied> {
        let (_, known, number, time_ms) = *self.0.iter().find(|(known, ..)| *known == id)?;
        let reused = || WireError::field(ErrorCode::IdReused, "content", "this id was used for something else");
        Some(if known == hash { Ok(Outcome::Posted { number, time_ms }) } else { Err(reused()) })
    }

    fn keep(&mut self, id: u128, hash: u64, number: u64, time_ms: u64) {
        if self.0.len() >= SENT_MAX {
            self.0.remove(0);
        }
        self.0.push((id, hash, number, time_ms));
    }
}

/// What can be read.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Query {
    Keys,
    /// Since when nobody may sign in to this account.
    Disabled(UserId),
    /// A conversation, whoever asks.
    Conversation(ConversationId),
    Invitations,
    /// What was said to everybody.
    Announcements,
}

/// What those reads give.
#[derive(Clone, Debug, Encode, Decode)]
pub enum View {
    Keys(Vec<Key>),
    Disabled(Option<u64>),
    Conversation(Option<ConversationView>),
    /// With how many accounts came with each.
    Invitations(Vec<(Invitation, u32)>),
    /// The oldest first.
    Announcements(Vec<Announcement>),
}

/// A conversation, for operators.
#[derive(Clone, Debug, Encode, Decode)]
pub struct ConversationView {
    pub direct: bool,
    pub title: String,
    pub owner: UserId,
    pub members: Vec<UserId>,
    pub head: u64,
    pub dissolved: bool,
}

fn keys_key() -> StateKey {
    StateKey::new(keys_slot(), table::SERVICE_KEYS)
}

fn disabled_key(user: UserId) -> StateKey {
    StateKey::new(user.slot(), table::DISABLED).u64(user.bits())
}

fn sent_key(timeline: TimelineId, user: UserId) -> StateKey {
    let (kind, id) = timeline.to_parts();
    StateKey::new(timeline.slot(), table::SERVICE_SENT).bytes(&[kind]).u128(id).u64(user.bits())
}

/// Carries out a command.
pub fn apply(tx: &mut Tx<'_>, entity: EntityId, command: Command) -> Replied {
    let me = user_of(entity);
    match command {
        Command::MakeAccount { handle, user } => account::state::make(tx, &handle, user).map(Outcome::User),
        Command::SetDisabled { on } => set_disabled(tx, me, on),
        Command::SignOutAll => {
            account::state::user(tx, me).ok_or_else(|| WireError::new(ErrorCode::NotFound))?;
            account::state::sign_out_all(tx, me)?;
            Ok(Outcome::Done)
        }
        Command::Notice { id, text } => notice(tx, me, id, text),
        Command::Dissolve => chat::state::dissolve(tx, ConversationId::from_bits(entity.bits())),
        Command::Send(message) => send(tx, ConversationId::from_bits(entity.bits()), message),
        Command::AddKey(key) => {
            let mut keys = (*tx.get::<Keys>(&keys_key()).unwrap_or_default()).clone();
            if keys.0.iter().any(|known| known.id == key.id || known.name == key.name) {
                return Err(WireError::field(ErrorCode::AlreadyDone, "name", "there is a key of this name"));
            }
            if keys.0.len() >= KEYS_MAX {
                return Err(WireError::field(ErrorCode::LimitReached, "keys", "revoke some first").at(KEYS_MAX));
            }
            keys.0.push(key);
            tx.put(keys_key(), keys);
            Ok(Outcome::Done)
        }
        Command::AddInvitation(invitation) => invitations::add(tx, invitation),
        Command::RevokeInvitation { code } => invitations::revoke(tx, &code),
        Command::UseInvitation { code, handle, user } => invitations::take(tx, &code, &handle, user),
        Command::Announce { id, text } => announcements::begin(tx, id, &text),
        Command::AnnounceIn { id, text, after, last, told } => {
            announcements::go_on(tx, entity.slot(), (id, text), after, last, told)
        }
        Command::Announced { id, told } => announcements::end(tx, id, told),
        Command::ReturnInvitation { code, handle, user } => invitations::give_back(tx, &code, &handle, user),
        Command::RevokeKey { id } => {
            let mut keys = (*tx.get::<Keys>(&keys_key()).unwrap_or_default()).clone();
            let before = keys.0.len();
            keys.0.retain(|key| key.id != id);
            if keys.0.len() == before {
                return Err(WireError::field(ErrorCode::NotFound, "key", ""));
            }
            tx.put(keys_key(), keys);
            Ok(Outcome::Done)
        }
    }
}

fn set_disabled(tx: &mut Tx<'_>, me: UserId, on: bool) -> Replied {
    account::state::user(tx, me).ok_or_else(|| WireError::new(ErrorCode::NotFound))?;
    if is_disabled(tx, me) == on {
        return Ok(Outcome::Done);
    }
    match on {
        true => {
            let now = tx.time_ms();
            tx.put(disabled_key(me), Disabled(now));
            account::state::sign_out_all(tx, me)?;
            tx.note(TimelineId::Inbox(me), note::USER_DISABLED);
        }
        false => {
            tx.delete(disabled_key(me));
            tx.note(TimelineId::Inbox(me), note::USER_ENABLED);
        }
    }
    Ok(Outcome::Done)
}

/// Whether nobody may sign in to this account.
pub fn is_disabled(tx: &mut Tx<'_>, user: UserId) -> bool {
    tx.get::<Disabled>(&disabled_key(user)).is_some()
}

/// The account of this person is deleted: nothing of this stays.
pub fn purge(tx: &mut Tx<'_>, me: UserId) {
    tx.delete(disabled_key(me));
    tx.delete(sent_key(TimelineId::Inbox(me), me));
}

/// Once for each id, as long as that is remembered.
fn once(tx: &mut Tx<'_>, key: StateKey, (id, hash): (u128, u64), act: impl FnOnce(&mut Tx<'_>) -> Replied) -> Replied {
    let sent = tx.get::<Sent>(&key).unwrap_or_default();
    if let Some(known) = sent.find(id, hash) {
        return known;
    }
    let replied = act(tx);
    if let Ok(Outcome::Posted { number, time_ms }) = replied {
        let mut sent = (*sent).clone();
        sent.keep(id, hash, number, time_ms);
        tx.put(key, sent);
    }
    replied
}

fn notice(tx: &mut Tx<'_>, me: UserId, id: u128, text: String) -> Replied {
    account::state::user(tx, me).ok_or_else(|| WireError::new(ErrorCode::NotFound))?;
    let inbox = TimelineId::Inbox(me);
    let hash = chat::state::hash_of(&Content::Text(text.clone()));
    once(tx, sent_key(inbox, me), (id, hash), |tx| {
        let number = tx.append(inbox, UserId::default(), Body::Notice(text), 0, None);
        Ok(Outcome::Posted { number, time_ms: tx.time_ms() })
    })
}

fn send(tx: &mut Tx<'_>, id: ConversationId, message: Send) -> Replied {
    let Send { user, id: nonce, open, content } = message;
    let hash = chat::state::hash_of(&content);
    once(tx, sent_key(TimelineId::Conversation(id), user), (nonce, hash), |tx| {
        if let Some(other) = open {
            chat::state::open_direct(tx, id, user, other)?;
        }
        chat::state::say_for(tx, id, user, content)
    })
}

/// Answers a read.
pub fn query(store: &mut Store, query: Query) -> Result<View, StateError> {
    Ok(match query {
        Query::Keys => View::Keys(store.get::<Keys>(&keys_key())?.map(|keys| keys.0.clone()).unwrap_or_default()),
        Query::Disabled(user) => View::Disabled(store.get::<Disabled>(&disabled_key(user))?.map(|since| since.0)),
        Query::Announcements => View::Announcements(announcements::list(store)?),
        Query::Invitations => View::Invitations(invitations::list(store)?),
        Query::Conversation(id) => {
            let found = chat::state::conversation(store, id)?;
            let head = store.head(TimelineId::Conversation(id))?;
            let dissolved = chat::state::is_dissolved(store, id)?;
            View::Conversation(found.map(|c| ConversationView {
                direct: c.kind == magpie_protocol::ConversationKind::Direct,
                title: c.title.clone(),
                owner: c.owner,
                members: c.active().collect(),
                head,
                dissolved,
            }))
        }
    })
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let (name, scopes, user) = ("shop".to_owned(), vec!["send".to_owned()], Some(UserId::from_bits(1 << 40)));
    let key = Key { id: 1, name, hash: [2; 32], scopes, user, created_ms: 1_700_000_000_000 };
    let mut all = vec![
        Golden::coded("record.service.keys", &Keys(vec![key])),
        Golden::coded("record.service.disabled", &Disabled(1_700_000_000_000)),
        Golden::coded("record.service.sent", &Sent(vec![(1, 2, 3, 4)])),
    ];
    all.extend(invitations::goldens());
    all.extend(announcements::goldens());
    all
}
