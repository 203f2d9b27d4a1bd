//! Searching: one's own messages, and the names of one's contacts and groups.

use crate::{
    codec::{Decode, Encode},
    ids::{ConversationId, UserId},
};

/// Searches the messages that this person may read. Answer: [`MessagesFound`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SearchMessages {
    /// All of these words; the last one may be the beginning of a word.
    pub words: String,
    /// In this conversation alone; `None` for all that are on the person's list.
    pub conversation: Option<ConversationId>,
    /// Only what is older than this place: `next` of the answer before. `None` for the newest.
    pub before: Option<Place>,
}

/// Where a message stands among all of a person's: later is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Place {
    /// The entry's time, in milliseconds since 1970.
    pub time_ms: u64,
    pub conversation: ConversationId,
    /// The entry's number.
    pub number: u64,
}

/// Messages with all the words, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MessagesFound {
    pub messages: Vec<MessageFound>,
    /// More may follow before this place.
    pub next: Option<Place>,
    /// Everything was looked through down to `next`. If not, the same question finds more a moment later.
    pub complete: bool,
}

/// One message that was found.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MessageFound {
    pub place: Place,
    pub sender: UserId,
    /// The tag of its [`Kind`](crate::Kind); 0 for an announcement.
    pub kind: u16,
    /// Its words around the first that was searched for.
    pub excerpt: String,
}

/// Searches the names of one's contacts and groups. Answer: [`NamesFound`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SearchNames {
    /// Any part of a name.
    pub words: String,
}

/// Contacts by handle, remark, tag or nickname, and groups by title.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NamesFound {
    pub contacts: Vec<ContactFound>,
    pub groups: Vec<GroupFound>,
    /// There are no more than these.
    pub complete: bool,
}

/// One contact whose name was found.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContactFound {
    pub user: UserId,
    pub handle: String,
    pub remark: String,
    pub nickname: String,
}

/// One group whose title was found.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupFound {
    pub conversation: ConversationId,
    pub title: String,
}
