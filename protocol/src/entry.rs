//! What a timeline holds: a fixed envelope and a body.

use crate::codec::{Decode, Encode};

use crate::{
    codec::{self, CodecError},
    frame::{
        account::Profile,
        contact::ContactCard,
        personal::{ConversationSettings, Favourite},
    },
    ids::{ConversationId, ConversationKind, DeviceId, UserId},
    message::{Kind, Message},
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
        self.with_bytes(<[u8]>::to_vec)
    }

    /// What `work` makes of these bytes, which are lent.
    pub fn with_bytes<R>(&self, work: impl FnOnce(&[u8]) -> R) -> R {
        codec::with_scratch(|scratch| {
            scratch.push(ENTRY_VERSION);
            codec::encode_into(self, scratch);
            work(scratch)
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
        /// A message that is more than plain text, or that was edited.
        7 = Message(Said),
        /// A message stood here that was recalled.
        8 = Gone(Gone),
        /// A message was recalled.
        9 = Recalled(u64),
        /// A message was edited.
        10 = Edited(Edited),
        /// Somebody's sign on a message.
        11 = Reacted(Reacted),
        /// Somebody became, or is no longer, an administrator.
        12 = AdminSet(AdminSet),
        /// The group belongs to somebody else from now on.
        13 = OwnerChanged(UserId),
        /// The group is no more: nobody can write, what was said stays readable.
        14 = Dissolved(Dissolved),
        /// What every member should know.
        15 = Announced(String),
        /// From now on only administrators write, or everyone again.
        16 = AllMuted(bool),
        /// Somebody may not write for a while, or may again.
        17 = Muted(Muted),
        /// The sender is called this in the group from now on; empty for their own name.
        18 = Nicknamed(String),
        /// How people may join by themselves from now on.
        19 = JoinSet(JoinSet),
        /// Somebody asks to be let in.
        20 = JoinAsked(UserId),
        /// Somebody was not let in.
        21 = JoinRefused(UserId),
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
        /// All that is known of one contact from now on.
        39 = ContactSet(ContactCard),
        /// Somebody is no longer a contact, nor about to be one.
        40 = ContactRemoved(UserId),
        /// How this person wants a conversation to be shown from now on.
        41 = ConversationSet(ConversationSettings),
        /// What this person shows of themselves from now on.
        42 = ProfileSet(Profile),
        /// This person deleted these messages for themselves.
        43 = Hidden(Hidden),
        /// This person keeps something.
        44 = FavouriteAdded(Favourite),
        /// This person no longer keeps the favourite with this id.
        45 = FavouriteRemoved(u64),
        /// The password was changed, at this time in milliseconds since 1970.
        46 = PasswordChanged(u64),
        /// The account will be deleted at this time, in milliseconds since 1970; 0 when it will not.
        47 = Closing(u64),
        /// The operator says something.
        48 = Notice(String),
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

/// See [`Body::Message`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Said {
    pub message: Message,
    /// The number of the [`Body::Edited`] that gave it its present words; 0 when it is as it was sent.
    pub edited: u64,
}

/// See [`Body::Gone`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Gone {
    /// The number of the [`Body::Recalled`] that says so.
    pub recalled: u64,
}

/// See [`Body::Edited`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Edited {
    /// The entry that was edited.
    pub number: u64,
    /// What it says now; `None` once it was edited again, or recalled.
    pub kind: Option<Kind>,
}

/// See [`Body::Reacted`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reacted {
    pub number: u64,
    pub emoji: String,
    /// False when it was taken back.
    pub on: bool,
}

/// See [`Body::AdminSet`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AdminSet {
    pub user: UserId,
    pub on: bool,
}

/// See [`Body::Dissolved`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Dissolved;

/// See [`Body::Muted`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Muted {
    pub user: UserId,
    /// Until when, in milliseconds since 1970; 0 when they may write again.
    pub until_ms: u64,
}

/// See [`Body::JoinSet`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JoinSet {
    /// Who has the code may come.
    pub open: bool,
    /// An administrator lets them in, or not.
    pub approval: bool,
}

/// See [`Body::Hidden`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hidden {
    pub conversation: ConversationId,
    /// All entries up to this one; 0 for none.
    pub up_to: u64,
    /// And these.
    pub numbers: Vec<u64>,
}
