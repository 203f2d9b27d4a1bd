//! Writing to conversations.

use crate::codec::{Decode, Encode};

use crate::{
    ids::{ConversationId, Incarnation, UserId},
    message::{Kind, Message},
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
        /// Says something that is more than plain text.
        6 = Say(Message),
        /// Takes a message back: one's own for a while, an administrator's any in a group.
        7 = Recall(u64),
        /// Gives a message of one's own other words, for a while.
        8 = Edit(Edit),
        /// Puts a sign on a message, or takes it off.
        9 = React(React),
        /// Makes somebody an administrator, or no longer; the owner may.
        10 = SetAdmin(SetAdmin),
        /// Gives the group to another member; the owner may.
        11 = Transfer(UserId),
        /// Ends the group; the owner may.
        12 = Dissolve(Dissolve),
        /// What every member should know; empty to take it down. Administrators may.
        13 = Announce(String),
        /// Only administrators may write, or everyone again. Administrators may.
        14 = MuteAll(bool),
        /// Somebody may not write for a while. Administrators may.
        15 = Mute(Mute),
        /// What one is called in this group; empty for one's own name.
        16 = Nickname(String),
        /// How people may join by themselves. Administrators may.
        17 = SetJoin(SetJoin),
        /// Lets somebody in who asked, or not. Administrators may.
        18 = Admit(Admit),
    }
}

/// See [`Content::Edit`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Edit {
    /// The entry to change.
    pub number: u64,
    pub kind: Kind,
}

/// See [`Content::React`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct React {
    /// The entry that it stands on.
    pub number: u64,
    pub emoji: String,
    pub on: bool,
}

/// See [`Content::SetAdmin`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetAdmin {
    pub user: UserId,
    pub on: bool,
}

/// See [`Content::Dissolve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Dissolve;

/// See [`Content::Mute`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Mute {
    pub user: UserId,
    /// For how long, in milliseconds; 0 ends it.
    pub for_ms: u64,
}

/// See [`Content::SetJoin`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetJoin {
    /// Who knows it may come; 0 for nobody. Drawn at random by the device; a new one makes the old one void.
    pub code: u64,
    /// An administrator has to let them in.
    pub approval: bool,
}

/// See [`Content::Admit`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Admit {
    pub user: UserId,
    pub yes: bool,
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

/// Joins a group by its code. Answer: [`Joining`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Join {
    pub conversation: ConversationId,
    pub code: u64,
}

/// What became of a [`Join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Joining {
    /// One is a member; else an administrator has to let one in.
    pub joined: bool,
}

/// Asks how a group is run. Answer: [`GroupInfo`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AskGroup {
    pub conversation: ConversationId,
}

/// How a group is run, for one of its members.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupInfo {
    pub title: String,
    pub owner: UserId,
    pub admins: Vec<UserId>,
    pub announcement: String,
    pub all_muted: bool,
    /// Until when, in milliseconds since 1970.
    pub muted: Vec<(UserId, u64)>,
    pub nicknames: Vec<(UserId, String)>,
    /// The code to join by, for who may pass it on; 0 where there is none.
    pub join_code: u64,
    pub join_approval: bool,
    /// Who waits to be let in; for administrators.
    pub waiting: Vec<UserId>,
    pub dissolved: bool,
}

/// Something passing, such as that one is typing. It may be lost, and is kept nowhere. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Signal {
    pub conversation: ConversationId,
    /// 1: typing; 2: no longer typing. Others are the app's.
    pub kind: u16,
}

/// Asks how far the other members have read, where the operator lets people know. Answer: [`ReadBy`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AskReadBy {
    pub conversation: ConversationId,
}

/// How far members have read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadBy {
    pub read: Vec<ReadUpTo>,
}

/// How far one person has read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReadUpTo {
    pub user: UserId,
    /// The newest entry that they have read; what came before they joined counts.
    pub number: u64,
}

/// A hint that somebody in a conversation sent a [`Signal`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Signalled {
    pub conversation: ConversationId,
    pub user: UserId,
    pub kind: u16,
}
