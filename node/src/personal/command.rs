//! What a person can change for themselves. Variants and fields are append-only: they stand in logs.

use bincode::{Decode, Encode};
use magpie_protocol::{
    ConversationId, Kind, UserId,
    frame::personal::{Hide, SetConversation},
};

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// How a conversation is shown.
    SetConversation(SetConversation),
    /// Deletes messages for this person.
    Hide(Hide),
    /// Keeps a message as it is now, which the node read for this person.
    AddFavourite { conversation: ConversationId, number: u64, sender: UserId, kind: Kind },
    /// No longer keeps a favourite.
    RemoveFavourite { id: u64 },
}
