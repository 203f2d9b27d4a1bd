//! Accounts as durable state.

pub mod closing;
pub mod person;
mod reading;

use std::sync::Arc;

use bincode::{Decode, Encode};
use magpie_cluster::{EntityId, Key, Record, Store, Tx, state::StateError};
use magpie_protocol::{
    Body, ConversationId, DeviceId, ErrorCode, Slot, TimelineId, UserId, WireError,
    entry::{ConversationAdded, ConversationEnded, DeviceNamed},
    frame::{account::Account, contact::Shown},
    limits,
};

use super::command::{Command, NewDevice};
use crate::{
    chat, contact,
    hooks::event::note,
    machine::{self, Outcome, Replied, table, user_of},
    service,
};

/// Wrong passwords that are counted before an account is closed to more tries.
pub const TRIES_MAX: u32 = 10;
/// How long a full count keeps it closed, in milliseconds.
pub const TRIES_WINDOW_MS: u64 = 10 * 60 * 1000;

#[derive(Clone, Encode, Decode)]
struct HandleRecord {
    user: UserId,
}
impl Record for HandleRecord {}

/// A person.
#[derive(Clone, Encode, Decode)]
pub struct User {
    /// As it was written at sign-up.
    pub handle: String,
    password_hash: String,
    /// The newest session's.
    epoch: u64,
    tries: u32,
    tries_since_ms: u64,
}
impl Record for User {
    fn heap_bytes(&self) -> usize {
        self.handle.len() + self.password_hash.len()
    }
}

/// A device that may begin sessions.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Device {
    pub device: DeviceId,
    pub public_key: [u8; 32],
    pub name: String,
    /// Of its newest session.
    pub epoch: u64,
    pub last_seen_ms: u64,
}

#[derive(Clone, Default, Encode, Decode)]
struct Devices(Vec<Device>);
impl Record for Devices {
    fn heap_bytes(&self) -> usize {
        self.0.iter().map(|device| size_of::<Device>() + device.name.len()).sum()
    }
}

/// One conversation on a person's list. A copy that follows the conversation through the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Listed {
    pub conversation: ConversationId,
    pub first: u64,
    /// The last entry that this person may read, once they are no longer a member; 0 before.
    pub last: u64,
    /// The read cursor.
    pub read: u64,
}

#[derive(Clone, Default, Encode, Decode)]
struct List(Vec<Listed>);
impl Record for List {
    fn heap_bytes(&self) -> usize {
        self.0.len() * size_of::<Listed>()
    }
}

/// What can be read of accounts.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Query {
    /// Who has this handle?
    Find(String),
    /// What is this person's handle?
    Who(UserId),
    /// The devices that may begin sessions.
    Devices(UserId),
    /// The list of conversations, and the inbox's head.
    List(UserId),
    /// What only this person sees of their account.
    Account(UserId),
    /// What this person shows of themselves.
    Shown(UserId),
    /// Who has this phone number and is found by it?
    Phone(String),
    /// Has this person this code?
    Code { user: UserId, code: u64 },
    /// Accounts of this slot's shard that are to be deleted at this time.
    Due { slot: Slot, now_ms: u64 },
    /// How far has this person read this conversation?
    Read { user: UserId, conversation: ConversationId },
    /// Who has this handle, whether or not they are found by it: of a sign-in.
    Holder(String),
    /// How far have these people of one shard read this conversation?
    ReadBy { users: Vec<UserId>, conversation: ConversationId },
}

/// What those reads give.
#[derive(Clone, Debug, Encode, Decode)]
pub enum View {
    Found(Option<(UserId, String)>),
    Devices(Vec<Device>),
    List {
        listed: Vec<Listed>,
        inbox: u64,
    },
    Account(Option<Account>),
    Shown(Option<Shown>),
    User(Option<UserId>),
    Due(Vec<UserId>),
    Read(Option<u64>),
    /// Without those on whose list it is not.
    ReadBy(Vec<(UserId, u64)>),
}

/// The form of a handle under which it is unique.
pub fn canonical(handle: &str) -> String {
    handle.to_lowercase()
}

/// The slot of a handle, and so of the person who has it.
pub fn slot_of(handle: &str) -> Slot {
    Slot::of_text(&canonical(handle))
}

fn handle_key(handle: &str) -> Key {
    Key::new(slot_of(handle), table::HANDLE).bytes(canonical(handle).as_bytes())
}

fn key(user: UserId, table: u8) -> Key {
    Key::new(user.slot(), table).u64(user.bits())
}

/// The person, if there is one.
pub fn user(tx: &mut Tx<'_>, user: UserId) -> Option<Arc<User>> {
    tx.get(&key(user, table::USER))
}

/// Whether there is such a person.
pub fn exists(store: &mut Store, user: UserId) -> Result<bool, StateError> {
    Ok(store.get::<User>(&key(user, table::USER))?.is_some())
}

/// The people of a slot after this one, in order of their ids, at most so many.
pub fn people_of(tx: &mut Tx<'_>, slot: Slot, after: Option<UserId>, max: usize) -> Vec<UserId> {
    let (all, after) = (Key::new(slot, table::USER), after.map(|user| key(user, table::USER)));
    tx.keys(&all, after.as_ref(), max).iter().map(|key| UserId::from_bits(key.last_u64())).collect()
}

/// Whether anybody ever signed in to the account: services do not.
pub fn is_lived_in(tx: &mut Tx<'_>, me: UserId) -> bool {
    user(tx, me).is_some_and(|user| user.epoch > 0)
}

/// The same, for a read; `None` where there is no such person.
pub fn lives(store: &mut Store, me: UserId) -> Result<Option<bool>, StateError> {
    Ok(store.get::<User>(&key(me, table::USER))?.map(|user| user.epoch > 0))
}

/// Carries out a command.
pub fn apply(tx: &mut Tx<'_>, entity: EntityId, command: Command) -> Replied {
    let me = user_of(entity);
    match command {
        Command::SignUp { handle, user, password_hash, device } => sign_up(tx, handle, user, password_hash, device),
        Command::CountTry { handle } => count_try(tx, &handle),
        Command::SignIn { device } => begin_session(tx, me, device.device, Some(device)),
        Command::Resume { device } => begin_session(tx, me, device, None),
        Command::SignOut { device } => sign_out(tx, me, device),
        Command::MarkRead { conversation, number } => reading::mark_one(tx, me, (conversation, number)),
        Command::MarkAll { reads } => reading::mark(tx, me, &reads),
        Command::List { conversation, title, first, by } => list(tx, me, conversation, title, first, by),
        Command::Unlist { conversation, last } => unlist(tx, me, conversation, last),
        Command::SetProfile(set) => person::set_profile(tx, me, set),
        Command::SetPrivacy(set) => person::set_privacy(tx, me, &set),
        Command::SetPhone { phone } => person::set_phone(tx, me, phone),
        Command::NewCode { code } => person::new_code(tx, me, code),
        Command::SetPassword { old_hash, new_hash } => set_password(tx, me, &old_hash, new_hash),
        Command::Close => closing::close(tx, me),
        Command::Purge => closing::purge(tx, me),
        Command::ClaimPhone { phone, user, findable } => person::claim_phone(tx, &phone, user, findable),
        Command::ReleasePhone { phone, user } => person::release_phone(tx, &phone, user),
        Command::PhoneFindable { phone, user, on } => person::phone_findable(tx, &phone, user, on),
    }
}

fn sign_up(tx: &mut Tx<'_>, handle: String, user: UserId, password_hash: String, device: NewDevice) -> Replied {
    let taken = |field: &str| Err(WireError::field(ErrorCode::HandleTaken, field, format!("{handle:?} is taken")));
    if let Some(holder) = tx.get::<HandleRecord>(&handle_key(&handle)) {
        // A retry of the sign-up that made it, by the same device, gets the answer that was lost.
        let devices = tx.get::<Devices>(&key(holder.user, table::DEVICES)).unwrap_or_default();
        let Some(first) = devices.0.first().filter(|d| d.public_key == device.public_key) else {
            return taken("handle");
        };
        return begin_session(tx, holder.user, first.device, None);
    }
    if tx.get::<User>(&key(user, table::USER)).is_some() {
        return taken("user");
    }
    tx.put(handle_key(&handle), HandleRecord { user });
    let record = User { handle, password_hash, epoch: 1, tries: 0, tries_since_ms: 0 };
    tx.put(key(user, table::USER), record);
    let id = device.device;
    tx.put(key(user, table::DEVICES), Devices(vec![to_device(device, 1, tx.time_ms())]));
    tx.note(TimelineId::Inbox(user), note::USER_CREATED);
    Ok(Outcome::Session { user, device: id, epoch: 1 })
}

/// Makes an account that has no password; or finds the one that was made so.
pub fn make(tx: &mut Tx<'_>, handle: &str, user: UserId) -> Result<UserId, WireError> {
    let taken = |field: &str| WireError::field(ErrorCode::HandleTaken, field, format!("{handle:?} is taken"));
    if let Some(holder) = tx.get::<HandleRecord>(&handle_key(handle)) {
        let there = tx.get::<User>(&key(holder.user, table::USER));
        let same = there.is_some_and(|user| user.password_hash.is_empty());
        return if same { Ok(holder.user) } else { Err(taken("handle")) };
    }
    if tx.get::<User>(&key(user, table::USER)).is_some() {
        return Err(taken("user"));
    }
    tx.put(handle_key(handle), HandleRecord { user });
    let (handle, password_hash) = (handle.to_owned(), String::new());
    tx.put(key(user, table::USER), User { handle, password_hash, epoch: 0, tries: 0, tries_since_ms: 0 });
    tx.note(TimelineId::Inbox(user), note::USER_CREATED);
    Ok(user)
}

/// Signs all devices out.
pub fn sign_out_all(tx: &mut Tx<'_>, me: UserId) -> Result<(), WireError> {
    let devices = tx.get::<Devices>(&key(me, table::DEVICES)).unwrap_or_default();
    devices.0.iter().try_for_each(|device| sign_out(tx, me, device.device).map(drop))
}

fn to_device(new: NewDevice, epoch: u64, now_ms: u64) -> Device {
    Device { device: new.device, public_key: new.public_key, name: new.name, epoch, last_seen_ms: now_ms }
}

fn count_try(tx: &mut Tx<'_>, handle: &str) -> Replied {
    let Some(holder) = tx.get::<HandleRecord>(&handle_key(handle)) else { return Ok(Outcome::Try(None)) };
    let Some(user) = user(tx, holder.user) else { return Ok(Outcome::Try(None)) };
    let mut user = (*user).clone();
    let now = tx.time_ms();
    if now.saturating_sub(user.tries_since_ms) > TRIES_WINDOW_MS {
        (user.tries, user.tries_since_ms) = (0, now);
    }
    if user.tries >= TRIES_MAX {
        let wait = (user.tries_since_ms + TRIES_WINDOW_MS).saturating_sub(now);
        return Err(WireError::after(ErrorCode::TooManyTries, wait as u32));
    }
    user.tries += 1;
    let hash = user.password_hash.clone();
    tx.put(key(holder.user, table::USER), user);
    Ok(Outcome::Try(Some((holder.user, hash))))
}

fn begin_session(tx: &mut Tx<'_>, me: UserId, device: DeviceId, new: Option<NewDevice>) -> Replied {
    let signed_out = || WireError::new(ErrorCode::SignedOut);
    let mut user = (*user(tx, me).ok_or_else(signed_out)?).clone();
    let mut devices = (*tx.get::<Devices>(&key(me, table::DEVICES)).unwrap_or_default()).clone();
    if service::state::is_disabled(tx, me) {
        return Err(WireError::detail(ErrorCode::NotAllowed, "this account is locked"));
    }
    if new.is_some() {
        closing::keep(tx, me)?;
    }
    user.epoch += 1;
    let (epoch, now) = (user.epoch, tx.time_ms());
    let full = devices.0.len() >= limits::DEVICES_MAX;
    let known = devices.0.iter_mut().find(|d| match &new {
        Some(new) => d.public_key == new.public_key,
        None => d.device == device,
    });
    let device = match (known, new) {
        (Some(known), new) => {
            (known.epoch, known.last_seen_ms) = (epoch, now);
            if new.is_some() {
                user.tries = 0;
            }
            known.device
        }
        (None, Some(_)) if full => {
            let detail = format!("{} devices are signed in; sign one of them out first", limits::DEVICES_MAX);
            return Err(WireError::field(ErrorCode::LimitReached, "device", detail).at(limits::DEVICES_MAX));
        }
        (None, Some(new)) => {
            user.tries = 0;
            let named = DeviceNamed { device: new.device, name: new.name.clone() };
            tx.append(TimelineId::Inbox(me), me, Body::DeviceSignedIn(named), 0, None);
            devices.0.push(to_device(new, epoch, now));
            device
        }
        (None, None) => return Err(signed_out()),
    };
    tx.put(key(me, table::USER), user);
    tx.put(key(me, table::DEVICES), devices);
    Ok(Outcome::Session { user: me, device, epoch })
}

/// A retry finds the new password in its place, and that is an answer.
fn set_password(tx: &mut Tx<'_>, me: UserId, old_hash: &str, new_hash: String) -> Replied {
    let mut user = (*user(tx, me).ok_or_else(|| WireError::new(ErrorCode::NotFound))?).clone();
    if user.password_hash != old_hash {
        return Err(WireError::new(ErrorCode::BadCredentials));
    }
    (user.password_hash, user.tries) = (new_hash, 0);
    tx.put(key(me, table::USER), user);
    tx.append(TimelineId::Inbox(me), me, Body::PasswordChanged(tx.time_ms()), 0, None);
    Ok(Outcome::Done)
}

/// The conversation as it stands on this person's list.
pub fn listed(tx: &mut Tx<'_>, me: UserId, conversation: ConversationId) -> Option<Listed> {
    let list = tx.get::<List>(&key(me, table::LIST))?;
    list.0.iter().find(|listed| listed.conversation == conversation).cloned()
}

fn sign_out(tx: &mut Tx<'_>, me: UserId, device: DeviceId) -> Replied {
    let mut devices = (*tx.get::<Devices>(&key(me, table::DEVICES)).unwrap_or_default()).clone();
    let Some(at) = devices.0.iter().position(|d| d.device == device) else { return Ok(Outcome::Done) };
    let gone = devices.0.remove(at);
    tx.put(key(me, table::DEVICES), devices);
    let named = DeviceNamed { device, name: gone.name };
    tx.append(TimelineId::Inbox(me), me, Body::DeviceSignedOut(named), 0, None);
    Ok(Outcome::Done)
}

fn list(tx: &mut Tx<'_>, me: UserId, conversation: ConversationId, title: String, first: u64, by: UserId) -> Replied {
    let mut list = (*tx.get::<List>(&key(me, table::LIST)).unwrap_or_default()).clone();
    let known = list.0.iter().position(|l| l.conversation == conversation);
    if known.is_none() && list.0.len() >= limits::CONVERSATIONS_MAX {
        // What has ended makes room for what begins.
        if let Some(ended) = list.0.iter().position(|l| l.last > 0) {
            list.0.remove(ended);
        }
    }
    let full = known.is_none() && list.0.len() >= limits::CONVERSATIONS_MAX;
    // Nobody is taken into a group by whom they do not know. Contacts are not asked again whether they are some.
    let willing = match by == me || conversation == ConversationId::direct(me, by) {
        true => !contact::state::blocks(tx, me, by),
        false => contact::state::is_willing(tx, me, by),
    };
    if user(tx, me).is_none() || full || !willing {
        // The conversation believes in a member that cannot be one.
        let undo = machine::Command::Chat(chat::Command::Forget { user: me });
        tx.send(EntityId::conversation(conversation), &undo);
        return Err(WireError::new(ErrorCode::NotFound));
    }
    let listed = Listed { conversation, first, last: 0, read: first.saturating_sub(1) };
    match known {
        Some(at) => list.0[at] = Listed { read: list.0[at].read.max(listed.read), ..listed },
        None => list.0.push(listed),
    }
    tx.put(key(me, table::LIST), list);
    let added = ConversationAdded { conversation, title, first, by };
    tx.append(TimelineId::Inbox(me), by, Body::ConversationAdded(added), 0, None);
    Ok(Outcome::Done)
}

fn unlist(tx: &mut Tx<'_>, me: UserId, conversation: ConversationId, last: u64) -> Replied {
    let mut list = (*tx.get::<List>(&key(me, table::LIST)).unwrap_or_default()).clone();
    if let Some(listed) = list.0.iter_mut().find(|l| l.conversation == conversation) {
        listed.last = last;
        tx.put(key(me, table::LIST), list);
        let ended = ConversationEnded { conversation, last };
        tx.append(TimelineId::Inbox(me), me, Body::ConversationEnded(ended), 0, None);
    }
    Ok(Outcome::Done)
}

/// Answers a read.
pub fn query(store: &mut Store, query: Query) -> Result<View, StateError> {
    Ok(match query {
        Query::Find(handle) => {
            let holder = store.get::<HandleRecord>(&handle_key(&handle))?;
            let found = match holder {
                Some(holder) if person::is_found_by_handle(store, holder.user)? => {
                    store.get::<User>(&key(holder.user, table::USER))?.map(|u| (holder.user, u.handle.clone()))
                }
                _ => None,
            };
            View::Found(found)
        }
        Query::Who(user) => {
            View::Found(store.get::<User>(&key(user, table::USER))?.map(|found| (user, found.handle.clone())))
        }
        Query::Devices(user) => {
            let devices = store.get::<Devices>(&key(user, table::DEVICES))?;
            View::Devices(devices.map(|d| d.0.clone()).unwrap_or_default())
        }
        Query::List(user) => {
            let list = store.get::<List>(&key(user, table::LIST))?;
            let inbox = store.head(TimelineId::Inbox(user))?;
            View::List { listed: list.map(|l| l.0.clone()).unwrap_or_default(), inbox }
        }
        Query::Account(user) => View::Account(person::account(store, user)?),
        Query::Shown(user) => View::Shown(person::shown(store, user)?),
        Query::Phone(phone) => View::User(person::by_phone(store, &phone)?),
        Query::Code { user, code } => View::User(person::by_code(store, user, code)?),
        Query::Holder(handle) => View::User(store.get::<HandleRecord>(&handle_key(&handle))?.map(|holder| holder.user)),
        Query::Read { user, conversation } => View::Read(reading::of(store, user, conversation)?),
        Query::ReadBy { users, conversation } => {
            let mut read = Vec::with_capacity(users.len());
            for user in users {
                read.extend(reading::of(store, user, conversation)?.map(|number| (user, number)));
            }
            View::ReadBy(read)
        }
        Query::Due { now_ms, .. } => View::Due(closing::due(store, now_ms)?),
    })
}
