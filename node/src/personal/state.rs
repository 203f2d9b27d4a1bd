//! What people keep for themselves, as durable state.

use bincode::{Decode, Encode};
use magpie_cluster::{Key, Record, Store, Tx, state::StateError};
use magpie_protocol::{
    BlobId, Body, ConversationId, ErrorCode, MessageId, TimelineId, UserId, WireError, codec,
    entry::Hidden,
    frame::personal::{ConversationSettings, Favourite, Hide, SetConversation},
    limits,
};

use super::command::Command;
use crate::{
    account,
    machine::{Outcome, Replied, table},
    media,
};

/// Bytes of favourites in one answer.
const FAVOURITES_BYTES_MAX: usize = 48 * 1024;
/// Favourites of a deleted account that one command erases.
const PURGED_AT_ONCE: usize = 256;

/// Of conversations that are not shown as usual.
#[derive(Clone, Default, Encode, Decode)]
struct Settings(Vec<ConversationSettings>);
impl Record for Settings {
    fn heap_bytes(&self) -> usize {
        self.0.len() * size_of::<ConversationSettings>()
    }
}

/// Which favourites there are: `(id, conversation, number)`, in order of id.
#[derive(Clone, Default, Encode, Decode)]
struct Kept {
    newest: u64,
    items: Vec<(u64, ConversationId, u64)>,
}
impl Record for Kept {
    fn heap_bytes(&self) -> usize {
        self.items.len() * size_of::<(u64, ConversationId, u64)>()
    }
}

#[derive(Clone, Encode, Decode)]
struct Item(Favourite);
impl Record for Item {}

fn key(user: UserId, table: u8) -> Key {
    Key::new(user.slot(), table).u64(user.bits())
}

/// What can be read.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Query {
    /// How this person wants conversations to be shown, where it is not the usual.
    Settings(UserId),
    /// Favourites with ids below `before` (0 for the newest), newest first, as many as fit a frame.
    Favourites { user: UserId, before: u64 },
}

/// What those reads give.
#[derive(Clone, Debug, Encode, Decode)]
pub enum View {
    Settings(Vec<ConversationSettings>),
    Favourites { favourites: Vec<Favourite>, last: bool },
}

/// Whether this person wants to hear of nothing in this conversation but what mentions them.
pub fn do_not_disturb(store: &mut Store, user: UserId, conversation: ConversationId) -> Result<bool, StateError> {
    let settings = store.get::<Settings>(&key(user, table::SETTINGS))?;
    Ok(settings.is_some_and(|all| all.0.iter().any(|one| one.conversation == conversation && one.do_not_disturb)))
}

/// Carries out a command.
pub fn apply(tx: &mut Tx<'_>, me: UserId, command: Command) -> Replied {
    match command {
        Command::SetConversation(set) => set_conversation(tx, me, &set),
        Command::Hide(hide) => self::hide(tx, me, hide),
        Command::AddFavourite { conversation, number, sender, kind } => {
            let favourite = Favourite { id: 0, time_ms: tx.time_ms(), conversation, number, sender, kind };
            add_favourite(tx, me, favourite)
        }
        Command::RemoveFavourite { id } => remove_favourite(tx, me, id),
    }
}

fn on_list(tx: &mut Tx<'_>, me: UserId, conversation: ConversationId) -> Result<(), WireError> {
    let listed = account::state::listed(tx, me, conversation);
    listed.map(|_| ()).ok_or_else(|| WireError::field(ErrorCode::NotFound, "conversation", ""))
}

fn usual(conversation: ConversationId) -> ConversationSettings {
    ConversationSettings { conversation, pinned: false, do_not_disturb: false, saved: false, hidden_at: 0 }
}

fn set_conversation(tx: &mut Tx<'_>, me: UserId, set: &SetConversation) -> Replied {
    on_list(tx, me, set.conversation)?;
    let mut settings = (*tx.get::<Settings>(&key(me, table::SETTINGS)).unwrap_or_default()).clone();
    let at = settings.0.iter().position(|there| there.conversation == set.conversation);
    let before = at.map_or_else(|| usual(set.conversation), |at| settings.0[at].clone());
    let after = ConversationSettings {
        conversation: set.conversation,
        pinned: set.pinned.unwrap_or(before.pinned),
        do_not_disturb: set.do_not_disturb.unwrap_or(before.do_not_disturb),
        saved: set.saved.unwrap_or(before.saved),
        hidden_at: set.hidden_at.unwrap_or(before.hidden_at),
    };
    if after == before {
        return Ok(Outcome::Done);
    }
    match (at, after == usual(set.conversation)) {
        (Some(at), true) => _ = settings.0.remove(at),
        (Some(at), false) => settings.0[at] = after.clone(),
        (None, _) => settings.0.push(after.clone()),
    }
    tx.put(key(me, table::SETTINGS), settings);
    tx.append(TimelineId::Inbox(me), me, Body::ConversationSet(after), 0, None);
    Ok(Outcome::Done)
}

fn hide(tx: &mut Tx<'_>, me: UserId, hide: Hide) -> Replied {
    on_list(tx, me, hide.conversation)?;
    if hide.numbers.len() > limits::HIDE_MAX {
        let detail = format!("{} numbers; at most {} are allowed", hide.numbers.len(), limits::HIDE_MAX);
        return Err(WireError::field(ErrorCode::TooLarge, "numbers", detail).at(limits::HIDE_MAX));
    }
    if hide.numbers.is_empty() && hide.up_to == 0 {
        return Err(WireError::field(ErrorCode::Invalid, "numbers", "nothing is to be deleted"));
    }
    let Hide { conversation, up_to, numbers } = hide;
    tx.append(TimelineId::Inbox(me), me, Body::Hidden(Hidden { conversation, up_to, numbers }), 0, None);
    Ok(Outcome::Done)
}

fn add_favourite(tx: &mut Tx<'_>, me: UserId, mut favourite: Favourite) -> Replied {
    on_list(tx, me, favourite.conversation)?;
    let mut kept = (*tx.get::<Kept>(&key(me, table::FAVOURITES)).unwrap_or_default()).clone();
    let same = |(_, c, n): &(u64, ConversationId, u64)| (*c, *n) == (favourite.conversation, favourite.number);
    if kept.items.iter().any(same) {
        return Ok(Outcome::Done);
    }
    if kept.items.len() >= limits::FAVOURITES_MAX {
        let detail = format!("{} are kept; remove some first", kept.items.len());
        return Err(WireError::field(ErrorCode::LimitReached, "favourites", detail).at(limits::FAVOURITES_MAX));
    }
    kept.newest += 1;
    favourite.id = kept.newest;
    kept.items.push((favourite.id, favourite.conversation, favourite.number));
    tx.put(key(me, table::FAVOURITES), kept);
    // It is kept with what it names, whatever becomes of the message.
    media::state::claim(tx, me, &favourite.kind.blobs());
    tx.append(TimelineId::Inbox(me), me, Body::FavouriteAdded(favourite.clone()), 0, None);
    tx.put(key(me, table::FAVOURITE).u64(favourite.id), Item(favourite));
    Ok(Outcome::Done)
}

fn remove_favourite(tx: &mut Tx<'_>, me: UserId, id: u64) -> Replied {
    let mut kept = (*tx.get::<Kept>(&key(me, table::FAVOURITES)).unwrap_or_default()).clone();
    let Some(at) = kept.items.iter().position(|(there, _, _)| *there == id) else { return Ok(Outcome::Done) };
    kept.items.remove(at);
    tx.put(key(me, table::FAVOURITES), kept);
    if let Some(item) = tx.get::<Item>(&key(me, table::FAVOURITE).u64(id)) {
        media::state::release(tx, me, &item.0.kind.blobs());
    }
    tx.delete(key(me, table::FAVOURITE).u64(id));
    tx.append(TimelineId::Inbox(me), me, Body::FavouriteRemoved(id), 0, None);
    Ok(Outcome::Done)
}

/// Whether a favourite of this person is this message and names the blob.
pub fn keeps(store: &mut Store, user: UserId, message: MessageId, blob: BlobId) -> Result<bool, StateError> {
    let kept = store.get::<Kept>(&key(user, table::FAVOURITES))?.unwrap_or_default();
    let same = |(_, c, n): &&(u64, ConversationId, u64)| (*c, *n) == (message.conversation, message.number);
    let Some((id, _, _)) = kept.items.iter().find(same) else { return Ok(false) };
    let item = store.get::<Item>(&key(user, table::FAVOURITE).u64(*id))?;
    Ok(item.is_some_and(|item| item.0.kind.blobs().iter().any(|named| named.blob == blob)))
}

/// The account of this person is deleted: nothing of this stays. Erases a part, and says whether there is more.
pub fn purge(tx: &mut Tx<'_>, me: UserId) -> bool {
    tx.delete(key(me, table::SETTINGS));
    let mut kept = (*tx.get::<Kept>(&key(me, table::FAVOURITES)).unwrap_or_default()).clone();
    let rest = kept.items.split_off(kept.items.len().min(PURGED_AT_ONCE));
    for (id, _, _) in std::mem::replace(&mut kept.items, rest) {
        let item = key(me, table::FAVOURITE).u64(id);
        if let Some(favourite) = tx.get::<Item>(&item) {
            media::state::let_go(tx, &favourite.0.kind.blobs());
        }
        tx.delete(item);
    }
    let more = !kept.items.is_empty();
    if more {
        tx.put(key(me, table::FAVOURITES), kept)
    } else {
        tx.delete(key(me, table::FAVOURITES))
    }
    more
}

/// Answers a read.
pub fn query(store: &mut Store, query: Query) -> Result<View, StateError> {
    match query {
        Query::Settings(user) => {
            let settings = store.get::<Settings>(&key(user, table::SETTINGS))?;
            Ok(View::Settings(settings.map(|s| s.0.clone()).unwrap_or_default()))
        }
        Query::Favourites { user, before } => {
            let kept = store.get::<Kept>(&key(user, table::FAVOURITES))?.map(|k| k.items.clone()).unwrap_or_default();
            let ids: Vec<u64> = kept.iter().rev().map(|k| k.0).filter(|id| before == 0 || *id < before).collect();
            let (mut favourites, mut bytes) = (Vec::new(), 0);
            for id in &ids {
                let Some(item) = store.get::<Item>(&key(user, table::FAVOURITE).u64(*id))? else { continue };
                bytes += codec::encode(&item.0).len();
                if bytes > FAVOURITES_BYTES_MAX && !favourites.is_empty() {
                    break;
                }
                favourites.push(item.0.clone());
            }
            let last = favourites.last().is_none_or(|f| ids.last() == Some(&f.id));
            Ok(View::Favourites { favourites, last })
        }
    }
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let (conversation, user) = (ConversationId::from_bits(7), UserId::from_bits(1 << 40));
    let kind = magpie_protocol::Kind::Text("to be kept".into());
    let favourite = Favourite { id: 1, time_ms: 2, conversation, number: 3, sender: user, kind };
    vec![
        Golden::coded("record.personal.settings", &Settings(vec![usual(conversation)])),
        Golden::coded("record.personal.kept", &Kept { newest: 4, items: vec![(1, conversation, 3)] }),
        Golden::coded("record.personal.favourite", &Item(favourite)),
    ]
}
