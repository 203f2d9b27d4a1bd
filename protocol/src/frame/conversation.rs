//! Writing to conversations.

use crate::codec::{Decode, Encode};

use crate::{
    ids::{ConversationId, Incarnation, UserId},
    tagged,
};

/// One numbered act in a conversation. Answer: [`Posted`], the same for every retry.
///
/// `(incarnation, conversation, number)` is the id: numbers count 1, 2, 3, ... in each conversation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Post {
    pub conversation: ConversationId,
    pub incarnation: Incarnation,
    pub number: u64,
    pub content: Content,
}

tagged! {
    /// What is done in a conversation.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Content {
        /// Says something.
        1 = Text(String),
        /// Makes somebody a member of a group.
        2 = Invite(UserId),
        /// Removes a member; the owner may.
        3 = Remove(UserId),
        /// Leaves the group.
        4 = Leave(Leave),
        /// Gives the group a new title.
        5 = Rename(String),
    }
}

/// Leaves the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leave;

/// The act is in the timeline, durable, under this number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Posted {
    pub conversation: ConversationId,
    /// The entry's number in the timeline.
    pub number: u64,
    pub time_ms: u64,
}

/// Makes a group. The same nonce by the same person is the same group. Answer: [`GroupCreated`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreateGroup {
    pub nonce: u128,
    pub title: String,
    /// Who is in it from the start, besides its maker.
    pub members: Vec<UserId>,
}

/// The group is there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupCreated {
    pub conversation: ConversationId,
}

/// Asks for the members of a conversation. Answer: [`MemberList`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Members {
    pub conversation: ConversationId,
}

/// Everyone who is a member now.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberList {
    pub title: String,
    pub owner: UserId,
    pub members: Vec<UserId>,
}
