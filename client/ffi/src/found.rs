//! What a search found.

use magpie_client::{self as sdk, ConversationId, UserId};

/// Where a message stands among all of a person's: later is greater.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Place {
    /// The entry's time, in milliseconds since 1970.
    pub time_ms: u64,
    /// Where it was said.
    pub conversation: ConversationId,
    /// Its number there.
    pub number: u64,
}

/// One message that was found.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct MessageFound {
    /// Where it stands.
    pub place: Place,
    /// Who said it.
    pub sender: UserId,
    /// Its words around the first that was searched for.
    pub excerpt: String,
}

/// Messages with all the words, newest first.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct MessagesFound {
    /// A page of them.
    pub messages: Vec<MessageFound>,
    /// More may follow before this place.
    pub next: Option<Place>,
    /// Everything was looked through down to `next`. If not, the same question finds more a moment later.
    pub complete: bool,
}

/// A contact whose name was found.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ContactFound {
    /// Who.
    pub user: UserId,
    /// Their handle.
    pub handle: String,
    /// What oneself calls them, or empty.
    pub remark: String,
    /// What they call themselves, or empty.
    pub nickname: String,
}

/// A group whose title was found.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct GroupFound {
    /// Which.
    pub conversation: ConversationId,
    /// Its title.
    pub title: String,
}

/// Contacts and groups by name.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct NamesFound {
    /// By handle, remark, tag or nickname.
    pub contacts: Vec<ContactFound>,
    /// By title.
    pub groups: Vec<GroupFound>,
    /// There are no more than these.
    pub complete: bool,
}

impl From<sdk::Place> for Place {
    fn from(sdk::Place { time_ms, conversation, number }: sdk::Place) -> Self {
        Self { time_ms, conversation, number }
    }
}

impl From<Place> for sdk::Place {
    fn from(Place { time_ms, conversation, number }: Place) -> Self {
        Self { time_ms, conversation, number }
    }
}

impl From<sdk::MessagesFound> for MessagesFound {
    fn from(sdk::MessagesFound { messages, next, complete }: sdk::MessagesFound) -> Self {
        let message = |found: sdk::MessageFound| MessageFound {
            place: found.place.into(),
            sender: found.sender,
            excerpt: found.excerpt,
        };
        Self { messages: messages.into_iter().map(message).collect(), next: next.map(Place::from), complete }
    }
}

impl From<sdk::NamesFound> for NamesFound {
    fn from(sdk::NamesFound { contacts, groups, complete }: sdk::NamesFound) -> Self {
        let contact =
            |sdk::ContactFound { user, handle, remark, nickname }| ContactFound { user, handle, remark, nickname };
        let group = |sdk::GroupFound { conversation, title }| GroupFound { conversation, title };
        Self {
            contacts: contacts.into_iter().map(contact).collect(),
            groups: groups.into_iter().map(group).collect(),
            complete,
        }
    }
}
