//! What a timeline holds: a fixed envelope and a body.

use crate::codec::{Decode, Encode};

use crate::{
    codec::{self, CodecError},
    ids::{ConversationId, ConversationKind, DeviceId, UserId},
    tagged,
};

/// The version byte at the front of every stored and pushed entry.
pub const ENTRY_VERSION: u8 = 1;

/// One entry of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Its place: 1, 2, 3, ... without gaps.
    pub number: u64,
    /// The shard's time when it was applied, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who caused it.
    pub sender: UserId,
    pub body: Body,
}

impl Entry {
    /// The entry as it is stored, pushed and paged: encoded once, shared by all.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::with_scratch(|scratch| {
            scratch.push(ENTRY_VERSION);
            codec::encode_into(self, scratch);
            scratch.to_vec()
        })
    }

    /// The inverse of [`Entry::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        match bytes.split_first() {
            Some((&ENTRY_VERSION, rest)) => codec::decode(rest),
            Some((&version, _)) => Err(CodecError::UnknownVersion(version)),
            None => Err(CodecError::Damaged("an entry of no bytes".into())),
        }
    }
}

tagged! {
    /// What an entry says. Tags below 32 stand in conversations, those from 32 in inboxes.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Body {
        /// A message.
        1 = Text(String),
        /// The conversation began.
        2 = Created(Created),
        /// Somebody became a member.
        3 = Joined(Joined),
        /// Somebody left by themselves.
        4 = Left(UserId),
        /// Somebody was removed.
        5 = Removed(Removed),
        /// The group has a new title.
        6 = Renamed(String),
        /// Somebody would like to be a contact.
        32 = ContactRequested(ContactRequested),
        /// Somebody is a contact from now on.
        33 = ContactAccepted(ContactAccepted),
        /// A conversation is on the list from now on.
        34 = ConversationAdded(ConversationAdded),
        /// A conversation can no longer be followed.
        35 = ConversationEnded(ConversationEnded),
        /// Another device read up to here.
        36 = ReadTo(ReadTo),
        /// A device signed in for the first time.
        37 = DeviceSignedIn(DeviceNamed),
        /// A device was signed out.
        38 = DeviceSignedOut(DeviceNamed),
    }
}

/// See [`Body::Created`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Created {
    pub kind: ConversationKind,
    pub title: String,
}

/// See [`Body::Joined`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Joined {
    pub user: UserId,
    pub by: UserId,
}

/// See [`Body::Removed`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Removed {
    pub user: UserId,
    pub by: UserId,
}

/// See [`Body::ContactRequested`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContactRequested {
    pub from: UserId,
    pub handle: String,
    pub greeting: String,
}

/// See [`Body::ContactAccepted`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContactAccepted {
    pub user: UserId,
    pub handle: String,
    pub conversation: ConversationId,
}

/// See [`Body::ConversationAdded`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ConversationAdded {
    pub conversation: ConversationId,
    pub title: String,
    /// The first entry that this person may read.
    pub first: u64,
    pub by: UserId,
}

/// See [`Body::ConversationEnded`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ConversationEnded {
    pub conversation: ConversationId,
    /// The last entry that this person may read.
    pub last: u64,
}

/// See [`Body::ReadTo`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadTo {
    pub conversation: ConversationId,
    pub number: u64,
}

/// See [`Body::DeviceSignedIn`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceNamed {
    pub device: DeviceId,
    pub name: String,
}
