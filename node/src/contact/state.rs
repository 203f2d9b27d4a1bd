//! Contacts as durable state: each person's own list, kept in step through the outbox.

use bincode::{Decode, Encode};
use magpie_cluster::{EntityId, Key, Record, Store, Tx, state::StateError};
use magpie_protocol::{
    Body, ConversationId, ErrorCode, TimelineId, UserId, WireError,
    entry::{ContactAccepted, ContactRequested},
    frame::contact::{ContactInfo, ContactState},
    limits,
};

use super::command::Command;
use crate::{
    account, chat,
    machine::{self, Outcome, Replied, table},
};

/// Sorted by user.
#[derive(Clone, Default, Encode, Decode)]
struct Contacts(Vec<ContactInfo>);
impl Record for Contacts {}

impl Contacts {
    fn find(&self, user: UserId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&user, |c| c.user)
    }

    fn state(&self, user: UserId) -> Option<ContactState> {
        self.find(user).ok().map(|at| self.0[at].state)
    }

    fn set(&mut self, user: UserId, handle: &str, state: ContactState) {
        match self.find(user) {
            Ok(at) => {
                self.0[at].state = state;
                if !handle.is_empty() {
                    self.0[at].handle = handle.to_owned();
                }
            }
            Err(at) => self.0.insert(at, ContactInfo { user, handle: handle.to_owned(), state }),
        }
    }
}

fn key(user: UserId) -> Key {
    Key::new(user.slot(), table::CONTACTS).u64(user.bits())
}

/// What can be read of contacts.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Query {
    /// Those of this user that come after `after`, at most this many.
    After { user: UserId, after: UserId, limit: usize },
}

/// What those reads give.
#[derive(Clone, Debug, Encode, Decode)]
pub enum View {
    Page { contacts: Vec<ContactInfo>, last: bool },
}

/// Carries out a command.
pub fn apply(tx: &mut Tx<'_>, me: UserId, command: Command) -> Replied {
    let unknown = || WireError::new(ErrorCode::NotFound);
    let my = account::state::user(tx, me).ok_or_else(unknown)?.handle.clone();
    let mut contacts = tx.get::<Contacts>(&key(me)).map(|c| (*c).clone()).unwrap_or_default();
    match command {
        Command::Request { to, greeting } => {
            if to == me {
                return Err(WireError::field(ErrorCode::Invalid, "user", "that is you"));
            }
            match contacts.state(to) {
                Some(ContactState::Accepted | ContactState::Requested) => return Ok(Outcome::Done),
                Some(ContactState::Waiting) => accept(tx, me, &my, to, &mut contacts),
                None if contacts.0.len() >= limits::CONTACTS_MAX => {
                    return Err(WireError::field(ErrorCode::LimitReached, "contacts", "").at(limits::CONTACTS_MAX));
                }
                None => {
                    contacts.set(to, "", ContactState::Requested);
                    send(tx, to, Command::Requested { from: me, handle: my, greeting });
                }
            }
        }
        Command::Requested { from, handle, greeting } => match contacts.state(from) {
            // Both asked: that is an answer.
            Some(ContactState::Requested) => {
                contacts.set(from, &handle, ContactState::Waiting);
                accept(tx, me, &my, from, &mut contacts);
            }
            Some(ContactState::Accepted) => send(tx, from, Command::Accepted { by: me, handle: my }),
            Some(ContactState::Waiting) => return Ok(Outcome::Done),
            None if contacts.0.len() >= limits::CONTACTS_MAX => return Ok(Outcome::Done),
            None => {
                contacts.set(from, &handle, ContactState::Waiting);
                let body = Body::ContactRequested(ContactRequested { from, handle, greeting });
                tx.append(TimelineId::Inbox(me), from, body, 0, None);
            }
        },
        Command::Accept { from } => match contacts.state(from) {
            Some(ContactState::Accepted) => return Ok(Outcome::Done),
            Some(ContactState::Waiting) => accept(tx, me, &my, from, &mut contacts),
            _ => return Err(WireError::field(ErrorCode::NotFound, "user", "has not asked")),
        },
        Command::Accepted { by, handle } => {
            // An answer to what was never asked is none.
            if contacts.state(by).is_none_or(|state| state == ContactState::Accepted) {
                return Ok(Outcome::Done);
            }
            contacts.set(by, &handle, ContactState::Accepted);
            note_accepted(tx, me, by, handle);
        }
    }
    tx.put(key(me), contacts);
    Ok(Outcome::Done)
}

fn send(tx: &mut Tx<'_>, to: UserId, command: Command) {
    tx.send(EntityId::user(to), &machine::Command::Contact(command));
}

fn note_accepted(tx: &mut Tx<'_>, me: UserId, user: UserId, handle: String) {
    let conversation = ConversationId::direct(me, user);
    let body = Body::ContactAccepted(ContactAccepted { user, handle, conversation });
    tx.append(TimelineId::Inbox(me), user, body, 0, None);
}

fn accept(tx: &mut Tx<'_>, me: UserId, my: &str, other: UserId, contacts: &mut Contacts) {
    contacts.set(other, "", ContactState::Accepted);
    let handle = contacts.find(other).map(|at| contacts.0[at].handle.clone()).unwrap_or_default();
    note_accepted(tx, me, other, handle);
    send(tx, other, Command::Accepted { by: me, handle: my.to_owned() });
    let conversation = ConversationId::direct(me, other);
    let create = machine::Command::Chat(chat::Command::CreateDirect { a: me, b: other });
    tx.send(EntityId::conversation(conversation), &create);
}

/// Answers a read.
pub fn query(store: &mut Store, query: Query) -> Result<View, StateError> {
    let Query::After { user, after, limit } = query;
    let contacts = store.get::<Contacts>(&key(user))?.map(|c| c.0.clone()).unwrap_or_default();
    let from = contacts.partition_point(|c| c.user <= after);
    let page: Vec<_> = contacts[from..].iter().take(limit).cloned().collect();
    let last = from + page.len() == contacts.len();
    Ok(View::Page { contacts: page, last })
}
