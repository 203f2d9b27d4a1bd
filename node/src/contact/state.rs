//! Contacts as durable state: each person's own list, kept in step through the outbox.

use std::sync::Arc;

use bincode::{Decode, Encode};
use magpie_cluster::{EntityId, Key, Record, Store, Tx, state::StateError};
use magpie_protocol::{
    Body, ConversationId, ErrorCode, TimelineId, UserId, WireError, codec,
    entry::{ContactAccepted, ContactRequested},
    frame::contact::{ContactCard, ContactInfo, ContactState},
    limits,
};

use super::{
    book::{Book, Page},
    command::Command,
};
use crate::{
    account,
    chat::{self, check},
    machine::{self, Outcome, Replied, table},
    policy,
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

/// Bytes of cards in one answer.
const CARDS_BYTES_MAX: usize = 48 * 1024;

fn book_key(user: UserId) -> Key {
    Key::new(user.slot(), table::BOOK).u64(user.bits())
}

fn key(user: UserId) -> Key {
    Key::new(user.slot(), table::CONTACTS).u64(user.bits())
}

/// What can be read of contacts.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Query {
    /// Those of this user that come after `after`, at most this many.
    After { user: UserId, after: UserId, limit: usize },
    /// The cards of this user that come after `after`, as many as fit a frame.
    Cards { user: UserId, after: UserId },
    /// Who shakes near here now? With `enter` this person is found by others from now on. Volatile: see `actor`.
    Shake { user: UserId, latitude_e2: i32, longitude_e2: i32, enter: bool },
    /// Which of these people of one shard are not taken into groups by this one?
    Unwilling { users: Vec<UserId>, by: UserId, now_ms: u64 },
}

/// What those reads give.
#[derive(Clone, Debug, Encode, Decode)]
pub enum View {
    Page { contacts: Vec<ContactInfo>, last: bool },
    Cards { cards: Vec<ContactCard>, last: bool },
    Shaken(Vec<UserId>),
    Unwilling(Vec<UserId>),
}

/// One person's contacts while a command is carried out.
struct Own<'a, 't> {
    tx: &'a mut Tx<'t>,
    me: UserId,
    handle: String,
    contacts: Contacts,
    book: Book,
}

/// Carries out a command.
pub fn apply(tx: &mut Tx<'_>, me: UserId, command: Command) -> Replied {
    let unknown = || WireError::new(ErrorCode::NotFound);
    let handle = account::state::user(tx, me).ok_or_else(unknown)?.handle.clone();
    let contacts = tx.get::<Contacts>(&key(me)).map(|c| (*c).clone()).unwrap_or_default();
    let book = tx.get::<Book>(&book_key(me)).map(|b| (*b).clone()).unwrap_or_default();
    let mut own = Own { tx, me, handle, contacts, book };
    match command {
        Command::Request { to, greeting } => own.request(to, greeting)?,
        Command::Requested { from, handle, greeting } => own.requested(from, &handle, greeting),
        Command::Accept { from } => own.accept(from)?,
        Command::Accepted { by, handle } => own.accepted(by, handle),
        Command::Refuse { from } => own.refuse(from)?,
        Command::Set { user, remark, tags, starred } => own.set(user, remark, tags, starred)?,
        Command::Blocked { user, on } => own.blocked(user, on),
        Command::Remove { user } => own.remove(user),
        Command::Gone { user } => own.removed(user),
    }
    own.keep();
    Ok(Outcome::Done)
}

impl Own<'_, '_> {
    fn keep(self) {
        self.tx.put(key(self.me), self.contacts);
        if !self.book.is_empty() || self.tx.get::<Book>(&book_key(self.me)).is_some() {
            self.tx.put(book_key(self.me), self.book);
        }
    }

    fn send(&mut self, to: UserId, command: Command) {
        self.tx.send(EntityId::user(to), &machine::Command::Contact(command));
    }

    /// The person's other devices learn all that is known of a contact now.
    fn note(&mut self, user: UserId) {
        let contact = self.contacts.find(user).ok().map(|at| &self.contacts.0[at]);
        let card = self.book.card(user, contact);
        self.tx.append(TimelineId::Inbox(self.me), user, Body::ContactSet(card), 0, None);
    }

    /// Whether nobody fits any more, also without the requests that have expired.
    fn full(&mut self) -> bool {
        if self.contacts.0.len() >= limits::CONTACTS_MAX {
            let now = self.tx.time_ms();
            let open = |c: &ContactInfo| c.state != ContactState::Accepted;
            let over: Vec<UserId> = (self.contacts.0.iter().filter(|c| open(c)))
                .map(|c| c.user)
                .filter(|user| self.book.page(*user).is_expired(now))
                .collect();
            over.into_iter().for_each(|user| self.removed(user));
        }
        self.contacts.0.len().max(self.book.len()) >= limits::CONTACTS_MAX
    }

    fn request(&mut self, to: UserId, greeting: String) -> Result<(), WireError> {
        if to == self.me {
            return Err(WireError::field(ErrorCode::Invalid, "user", "that is you"));
        }
        if self.book.blocks(to) {
            let detail = "you block this person; unblock them first";
            return Err(WireError::field(ErrorCode::NotAllowed, "user", detail));
        }
        let now = self.tx.time_ms();
        let requested = Command::Requested { from: self.me, handle: self.handle.clone(), greeting };
        match self.contacts.state(to) {
            // They may have taken this person off their contacts: then this asks them anew.
            Some(ContactState::Accepted) => self.send(to, requested),
            Some(ContactState::Requested) if !self.book.page(to).is_expired(now) => {}
            Some(ContactState::Waiting) if !self.book.page(to).is_expired(now) => self.befriend(to),
            None if self.full() => {
                return Err(WireError::field(ErrorCode::LimitReached, "contacts", "").at(limits::CONTACTS_MAX));
            }
            _ => {
                self.contacts.set(to, "", ContactState::Requested);
                self.book.change(to, |page| page.since_ms = now);
                self.send(to, requested);
                self.note(to);
            }
        }
        Ok(())
    }

    fn requested(&mut self, from: UserId, handle: &str, greeting: String) {
        let now = self.tx.time_ms();
        if self.book.blocks(from) {
            return;
        }
        match self.contacts.state(from) {
            // Both asked: that is an answer.
            Some(ContactState::Requested) if !self.book.page(from).is_expired(now) => {
                self.contacts.set(from, handle, ContactState::Waiting);
                self.befriend(from);
            }
            // They took this person off their list, and want them again.
            Some(ContactState::Accepted) => {
                let accepted = Command::Accepted { by: self.me, handle: self.handle.clone() };
                self.send(from, accepted);
                self.open(from);
            }
            Some(ContactState::Waiting) if !self.book.page(from).is_expired(now) => {}
            None if self.full() => {}
            _ => {
                self.contacts.set(from, handle, ContactState::Waiting);
                self.book.change(from, |page| (page.since_ms, page.greeting) = (now, greeting.clone()));
                let body = Body::ContactRequested(ContactRequested { from, handle: handle.to_owned(), greeting });
                self.tx.append(TimelineId::Inbox(self.me), from, body, 0, None);
            }
        }
    }

    fn accept(&mut self, from: UserId) -> Result<(), WireError> {
        match self.contacts.state(from) {
            Some(ContactState::Accepted) => {}
            Some(ContactState::Waiting) if self.book.page(from).is_expired(self.tx.time_ms()) => {
                return Err(WireError::field(ErrorCode::TooLate, "user", "what they asked has expired; ask them"));
            }
            Some(ContactState::Waiting) => self.befriend(from),
            _ => return Err(WireError::field(ErrorCode::NotFound, "user", "has not asked")),
        }
        Ok(())
    }

    fn accepted(&mut self, by: UserId, handle: String) {
        // An answer to what was never asked is none.
        if self.contacts.state(by).is_none_or(|state| state == ContactState::Accepted) {
            return;
        }
        self.contacts.set(by, &handle, ContactState::Accepted);
        self.close_request(by);
        self.note_accepted(by, handle);
        self.open(by);
    }

    /// The direct conversation is there, and this side has the other. From this person's own shard, as is the opposite:
    /// so the later of the two holds.
    fn open(&mut self, other: UserId) {
        let conversation = ConversationId::direct(self.me, other);
        let create = machine::Command::Chat(chat::Command::CreateDirect { a: self.me, b: other });
        self.tx.send(EntityId::conversation(conversation), &create);
    }

    fn remove(&mut self, user: UserId) {
        let conversation = ConversationId::direct(self.me, user);
        if self.contacts.state(user).is_some() {
            let unfriend = machine::Command::Chat(chat::Command::Unfriend { by: self.me });
            self.tx.send(EntityId::conversation(conversation), &unfriend);
        }
        self.removed(user);
    }

    fn close_request(&mut self, user: UserId) {
        self.book.change(user, |page| (page.since_ms, page.greeting) = (0, String::new()));
    }

    fn refuse(&mut self, from: UserId) -> Result<(), WireError> {
        match self.contacts.state(from) {
            Some(ContactState::Waiting) => self.removed(from),
            Some(ContactState::Accepted) => {
                let detail = "is a contact already; delete the contact instead";
                return Err(WireError::field(ErrorCode::AlreadyDone, "user", detail));
            }
            _ => return Err(WireError::field(ErrorCode::NotFound, "user", "has not asked")),
        }
        Ok(())
    }

    fn set(
        &mut self,
        user: UserId,
        remark: Option<String>,
        tags: Option<Vec<String>>,
        starred: Option<bool>,
    ) -> Result<(), WireError> {
        if self.contacts.state(user) != Some(ContactState::Accepted) {
            return Err(WireError::field(ErrorCode::NotFound, "user", "is no contact"));
        }
        if let Some(remark) = &remark {
            check::at_most("remark", remark, limits::NICKNAME_LEN_MAX)?;
        }
        if let Some(tags) = &tags {
            if tags.len() > limits::TAGS_MAX {
                let detail = format!("{} tags; at most {} are allowed", tags.len(), limits::TAGS_MAX);
                return Err(WireError::field(ErrorCode::TooLarge, "tags", detail).at(limits::TAGS_MAX));
            }
            tags.iter().try_for_each(|tag| check::at_most("tags", tag, limits::NICKNAME_LEN_MAX))?;
        }
        let before = self.book.page(user);
        self.book.change(user, |page| {
            page.remark = remark.unwrap_or_else(|| page.remark.clone());
            page.tags = tags.unwrap_or_else(|| page.tags.clone());
            page.starred = starred.unwrap_or(page.starred);
        });
        if self.book.page(user) != before {
            self.note(user);
        }
        Ok(())
    }

    fn blocked(&mut self, user: UserId, on: bool) {
        // The conversation holds the block, whether there is room for it here or not.
        if self.book.blocks(user) == on || (on && self.full()) {
            return;
        }
        self.book.change(user, |page| page.blocked = on);
        if on || self.contacts.state(user).is_some() {
            self.note(user);
        } else {
            self.tx.append(TimelineId::Inbox(self.me), user, Body::ContactRemoved(user), 0, None);
        }
    }

    fn removed(&mut self, user: UserId) {
        let blocked = self.book.blocks(user);
        self.book.change(user, |page| *page = Page { blocked, ..Book::default().page(user) });
        if let Ok(at) = self.contacts.find(user) {
            self.contacts.0.remove(at);
            self.tx.append(TimelineId::Inbox(self.me), user, Body::ContactRemoved(user), 0, None);
            if blocked {
                self.note(user);
            }
        }
    }

    fn note_accepted(&mut self, user: UserId, handle: String) {
        let conversation = ConversationId::direct(self.me, user);
        let body = Body::ContactAccepted(ContactAccepted { user, handle, conversation });
        self.tx.append(TimelineId::Inbox(self.me), user, body, 0, None);
    }

    /// Both agreed.
    fn befriend(&mut self, other: UserId) {
        self.contacts.set(other, "", ContactState::Accepted);
        self.close_request(other);
        let handle = self.contacts.find(other).map(|at| self.contacts.0[at].handle.clone()).unwrap_or_default();
        self.note_accepted(other, handle);
        let accepted = Command::Accepted { by: self.me, handle: self.handle.clone() };
        self.send(other, accepted);
        self.open(other);
    }
}

/// Whether this person lets nothing of another through.
pub fn blocks(tx: &mut Tx<'_>, me: UserId, other: UserId) -> bool {
    tx.get::<Book>(&book_key(me)).is_some_and(|book| book.blocks(other))
}

/// Whom a person lets take them into groups without being asked.
struct Circle {
    contacts: Arc<Contacts>,
    book: Arc<Book>,
    /// Anybody who is not blocked: the operator lets strangers write, or nobody lives here that could be asked.
    open: bool,
}

impl Circle {
    /// A contact, or who was asked to be one: they may have said yes a moment ago.
    fn has(&self, by: UserId, now_ms: u64) -> bool {
        let asked = || !self.book.page(by).is_expired(now_ms);
        let near = match self.contacts.state(by) {
            Some(ContactState::Accepted) => true,
            Some(ContactState::Requested) => asked(),
            _ => false,
        };
        !self.book.blocks(by) && (self.open || near)
    }
}

/// Whether this person lets another take them into a group.
pub fn is_willing(tx: &mut Tx<'_>, me: UserId, by: UserId) -> bool {
    let (contacts, book) = (tx.get(&key(me)).unwrap_or_default(), tx.get(&book_key(me)).unwrap_or_default());
    let open = policy::of(tx).strangers_write || !account::state::is_lived_in(tx, me);
    Circle { contacts, book, open }.has(by, tx.time_ms())
}

fn unwilling(store: &mut Store, users: Vec<UserId>, by: UserId, now_ms: u64) -> Result<Vec<UserId>, StateError> {
    let (strangers, mut found) = (policy::now(store)?.strangers_write, Vec::new());
    for user in users {
        let lives = account::state::lives(store, user)?;
        let (contacts, book) =
            (store.get(&key(user))?.unwrap_or_default(), store.get(&book_key(user))?.unwrap_or_default());
        let circle = Circle { contacts, book, open: strangers || lives == Some(false) };
        if lives.is_none() || !circle.has(by, now_ms) {
            found.push(user);
        }
    }
    Ok(found)
}

/// Of whom this person lets nothing through.
pub fn blocked(tx: &mut Tx<'_>, me: UserId) -> Vec<UserId> {
    tx.get::<Book>(&book_key(me)).map(|book| book.blocked().collect()).unwrap_or_default()
}

/// The account of this person is deleted: nothing of theirs stays, and their contacts learn it.
pub fn purge(tx: &mut Tx<'_>, me: UserId) {
    let contacts = tx.get::<Contacts>(&key(me)).map(|c| (*c).clone()).unwrap_or_default();
    for contact in contacts.0 {
        let gone = machine::Command::Contact(Command::Gone { user: me });
        tx.send(EntityId::user(contact.user), &gone);
    }
    tx.delete(key(me));
    tx.delete(book_key(me));
}

/// Answers a read.
pub fn query(store: &mut Store, query: Query) -> Result<View, StateError> {
    match query {
        Query::After { user, after, limit } => {
            let contacts = store.get::<Contacts>(&key(user))?.map(|c| c.0.clone()).unwrap_or_default();
            let from = contacts.partition_point(|c| c.user <= after);
            let page: Vec<_> = contacts[from..].iter().take(limit).cloned().collect();
            let last = from + page.len() == contacts.len();
            Ok(View::Page { contacts: page, last })
        }
        Query::Cards { user, after } => {
            let contacts = store.get::<Contacts>(&key(user))?.map(|c| (*c).clone()).unwrap_or_default();
            let book = store.get::<Book>(&book_key(user))?.map(|b| (*b).clone()).unwrap_or_default();
            let from = contacts.0.partition_point(|c| c.user <= after);
            let mut people: Vec<UserId> = contacts.0[from..].iter().map(|c| c.user).chain(book.after(after)).collect();
            people.sort_unstable();
            people.dedup();
            let mut cards = Vec::new();
            let mut bytes = 0;
            for person in &people {
                let card = book.card(*person, contacts.find(*person).ok().map(|at| &contacts.0[at]));
                bytes += codec::encode(&card).len();
                if bytes > CARDS_BYTES_MAX {
                    break;
                }
                cards.push(card);
            }
            let last = cards.len() == people.len();
            Ok(View::Cards { cards, last })
        }
        Query::Unwilling { users, by, now_ms } => Ok(View::Unwilling(unwilling(store, users, by, now_ms)?)),
        // Nothing of it is state.
        Query::Shake { .. } => Ok(View::Shaken(Vec::new())),
    }
}
