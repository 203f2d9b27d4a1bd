//! What operators and services can ask. Variants and fields are append-only: they stand in logs.

use bincode::{Decode, Encode};
use magpie_protocol::{UserId, frame::conversation::Content};

use super::{invitations::Invitation, state::Key};

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Makes an account without a password, or finds the one that was made so. Asked of the handle.
    MakeAccount { handle: String, user: UserId },
    /// Lets nobody sign in to the account, and signs its devices out; or lets them in again. Asked of the user.
    SetDisabled { on: bool },
    /// Signs all devices out. Asked of the user.
    SignOutAll,
    /// Says something to a person. The same id says it once. Asked of the user.
    Notice { id: u128, text: String },
    /// Ends a group. Asked of the conversation.
    Dissolve,
    /// A service account says something. Asked of the conversation.
    Send(Send),
    /// Adds a key. Asked of the entity of keys, as is the next.
    AddKey(Key),
    /// Takes a key away.
    RevokeKey { id: u64 },
    /// Gives an invitation out. Asked of the entity of keys, as are those that follow.
    AddInvitation(Invitation),
    /// Makes it void.
    RevokeInvitation { code: String },
    /// Uses it up for a handle; again for the same handle changes nothing.
    UseInvitation { code: String, handle: String, user: UserId },
    /// The handle did not become an account.
    ReturnInvitation { code: String, handle: String, user: UserId },
    /// Says something to everybody. The same id says it once. Asked of the entity of keys.
    Announce { id: u128, text: String },
    /// Says it to the people of a slot after this one, and then to those of the slots up to `last`. Asked of the slot.
    AnnounceIn { id: u128, text: String, after: Option<UserId>, last: u16, told: u64 },
    /// All slots of one chain have heard it. Asked of the entity of keys.
    Announced { id: u128, told: u64 },
}

/// See [`Command::Send`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Send {
    /// The service account.
    pub user: UserId,
    /// Chosen by the service: the same id is the same message.
    pub id: u128,
    /// With whom a direct conversation begins, if it is not there.
    pub open: Option<UserId>,
    pub content: Content,
}
