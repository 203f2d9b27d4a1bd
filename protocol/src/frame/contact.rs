//! Finding people and becoming their contact.

use crate::codec::{Decode, Encode};

use crate::ids::UserId;

/// Who has this handle? Answer: [`Found`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Find {
    pub handle: String,
}

/// What is this person's handle? Answer: [`Found`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Who {
    pub user: UserId,
}

/// The person who was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Found {
    pub user: UserId,
    pub handle: String,
}

/// Asks a person to be a contact. Asking again changes nothing. Answer: `Done`, whether or not the person exists.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestContact {
    pub user: UserId,
    pub greeting: String,
}

/// Accepts a person's request. The direct conversation follows in the inbox. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AcceptContact {
    pub user: UserId,
}

/// Asks for one's contacts after `after`, in order of id. Answer: [`ContactList`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Contacts {
    pub after: UserId,
}

/// A page of contacts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContactList {
    pub contacts: Vec<ContactInfo>,
    /// No more follow.
    pub last: bool,
}

/// One person on a contact list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContactInfo {
    pub user: UserId,
    pub handle: String,
    pub state: ContactState,
}

/// How far two people have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ContactState {
    /// I asked.
    Requested,
    /// They asked.
    Waiting,
    /// Both agreed.
    Accepted,
}
