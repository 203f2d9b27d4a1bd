//! What can be asked of a conversation. Variants and fields are append-only: they stand in logs.

use bincode::{Decode, Encode};
use magpie_protocol::{DeviceId, Incarnation, UserId, WireError, frame::conversation::Content};

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Makes the conversation of two contacts. Asking again changes nothing.
    CreateDirect { a: UserId, b: UserId },
    /// Makes a group, its id derived from its maker and a nonce.
    CreateGroup { creator: UserId, title: String, members: Vec<UserId> },
    /// One numbered act of one member.
    Post(Post),
    /// This member has no account: their own shard says so.
    Forget { user: UserId },
    /// Somebody comes with a group's code.
    Join { user: UserId, code: u64 },
    /// `by` lets nothing of `other` through, or again. Asked of their direct conversation, there or not.
    Block { by: UserId, other: UserId, on: bool },
    /// `by` took the other off their contacts. Asked of their direct conversation, there or not.
    Unfriend { by: UserId },
    /// One numbered act of one member, of which somebody said something before it was submitted.
    Judged(Judged),
    /// The account of this person is deleted: nothing of it stays but what they said.
    Erase { user: UserId },
    /// Nobody can read it any more: nothing of it stays. What lies before `from` named no blobs, or has let them go.
    Clear { from: u64 },
}

/// See [`Command::Judged`]. Of what was refused only the hash is here: nothing of it stays.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Judged {
    pub user: UserId,
    pub device: DeviceId,
    pub epoch: u64,
    pub incarnation: Incarnation,
    pub number: u64,
    /// Of what was sent: a retry is known by it, whatever is said of it then.
    pub hash: u64,
    /// What is to be done instead, or why nothing is.
    pub verdict: Result<Content, WireError>,
}

/// One numbered act.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Post {
    pub user: UserId,
    pub device: DeviceId,
    /// Of the session that it came through.
    pub epoch: u64,
    pub incarnation: Incarnation,
    pub number: u64,
    pub content: Content,
}
