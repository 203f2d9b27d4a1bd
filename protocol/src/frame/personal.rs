//! What a person sets and keeps for themselves, on all their devices.

use crate::{
    codec::{Decode, Encode},
    ids::{ConversationId, UserId},
    message::Kind,
};

/// How a person wants one conversation to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ConversationSettings {
    pub conversation: ConversationId,
    /// Above the others.
    pub pinned: bool,
    /// No notice of new messages, but of those that mention the person.
    pub do_not_disturb: bool,
    /// Among the contacts, for groups.
    pub saved: bool,
    /// Not in the list until there is an entry above this number; 0 to show it.
    pub hidden_at: u64,
}

/// Changes some of the [`ConversationSettings`]: what is `None` stays. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetConversation {
    pub conversation: ConversationId,
    pub pinned: Option<bool>,
    pub do_not_disturb: Option<bool>,
    pub saved: Option<bool>,
    pub hidden_at: Option<u64>,
}

/// Asks for all [`ConversationSettings`] that are not the usual. Answer: [`SettingsList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Settings;

/// What a person set.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SettingsList {
    pub conversations: Vec<ConversationSettings>,
}

/// Deletes messages for oneself, on all one's devices; others keep them. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hide {
    pub conversation: ConversationId,
    /// All entries up to this one; 0 for none.
    pub up_to: u64,
    /// And these.
    pub numbers: Vec<u64>,
}

/// Something that a person keeps, as it was when they kept it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Favourite {
    /// Counts up from 1 for each person.
    pub id: u64,
    pub time_ms: u64,
    /// Where it was said, and by whom.
    pub conversation: ConversationId,
    pub number: u64,
    pub sender: UserId,
    pub kind: Kind,
}

/// Keeps a message. Keeping the same one again changes nothing. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AddFavourite {
    pub conversation: ConversationId,
    pub number: u64,
}

/// No longer keeps the favourite with this id. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RemoveFavourite {
    pub id: u64,
}

/// Asks for favourites with ids below `before` (0 for the newest), newest first. Answer: [`FavouriteList`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Favourites {
    pub before: u64,
}

/// A page of favourites.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FavouriteList {
    pub favourites: Vec<Favourite>,
    /// No more follow.
    pub last: bool,
}
