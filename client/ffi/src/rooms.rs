//! Conversations: what this device knows of them, how groups are run, what a person keeps of them.

use magpie_client::{self as sdk, ConversationId, UserId};

use crate::Kind;

/// One conversation, as far as this device knows.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ConversationInfo {
    /// Its id.
    pub id: ConversationId,
    /// A group's title; empty without a history.
    pub title: String,
    /// The number of the first entry that this person may read.
    pub first: u64,
    /// The highest number known to exist.
    pub head: u64,
    /// The number up to which this device has every entry.
    pub cursor: u64,
    /// The number up to which this person has read, on any device.
    pub read: u64,
    /// How many entries lie between what was read and `head`.
    pub unread: u64,
    /// It can no longer be followed.
    pub ended: bool,
}

/// How far a member has read.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ReadUpTo {
    /// Who.
    pub user: UserId,
    /// The newest entry that they have read.
    pub number: u64,
}

impl From<sdk::ReadUpTo> for ReadUpTo {
    fn from(sdk::ReadUpTo { user, number }: sdk::ReadUpTo) -> Self {
        Self { user, number }
    }
}

/// How a group is run, and who is in it.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Group {
    /// Its title.
    pub title: String,
    /// Whose it is.
    pub owner: UserId,
    /// Who runs it besides the owner.
    pub admins: Vec<UserId>,
    /// Everyone who is in it, the owner too.
    pub members: Vec<UserId>,
    /// What every member should know, or empty.
    pub announcement: String,
    /// Only administrators may write.
    pub all_muted: bool,
    /// Who may not write for now.
    pub muted: Vec<MutedMember>,
    /// Who is called something else in it.
    pub nicknames: Vec<Nickname>,
    /// The text to join by, such as for a QR picture, for who may pass it on.
    pub join_code: Option<String>,
    /// An administrator has to let in who has the code.
    pub join_approval: bool,
    /// Who waits to be let in; for administrators.
    pub waiting: Vec<UserId>,
    /// It is no more.
    pub dissolved: bool,
}

/// Who may not write for now.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct MutedMember {
    /// Who.
    pub user: UserId,
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
}

/// What somebody is called in a group.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Nickname {
    /// Who.
    pub user: UserId,
    /// What.
    pub name: String,
}

/// How a person wants one conversation to be shown.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ConversationSettings {
    /// Which.
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

/// A change of how a conversation is shown: what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct ConversationChange {
    /// Above the others.
    #[uniffi(default = None)]
    pub pinned: Option<bool>,
    /// No notice of new messages, but of those that mention the person.
    #[uniffi(default = None)]
    pub do_not_disturb: Option<bool>,
    /// Among the contacts, for groups.
    #[uniffi(default = None)]
    pub saved: Option<bool>,
    /// Not in the list until there is an entry above this number; 0 to show it.
    #[uniffi(default = None)]
    pub hidden_at: Option<u64>,
}

/// Something that a person keeps, as it was when they kept it.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Favourite {
    /// Counts up from 1 for each person.
    pub id: u64,
    /// When it was said, in milliseconds since 1970.
    pub time_ms: u64,
    /// Where it was said.
    pub conversation: ConversationId,
    /// Its number there.
    pub number: u64,
    /// By whom.
    pub sender: UserId,
    /// What.
    pub kind: Kind,
}

impl From<sdk::ConversationInfo> for ConversationInfo {
    fn from(info: sdk::ConversationInfo) -> Self {
        let sdk::ConversationInfo { id, title, first, head, cursor, read, unread, ended, .. } = info;
        Self { id, title, first, head, cursor, read, unread, ended }
    }
}

impl Group {
    pub(crate) fn new(conversation: ConversationId, info: sdk::GroupInfo, members: Vec<UserId>) -> Self {
        let code = (info.join_code != 0).then_some(sdk::GroupCode { conversation, code: info.join_code });
        Self {
            title: info.title,
            owner: info.owner,
            admins: info.admins,
            members,
            announcement: info.announcement,
            all_muted: info.all_muted,
            muted: info.muted.into_iter().map(|(user, until_ms)| MutedMember { user, until_ms }).collect(),
            nicknames: info.nicknames.into_iter().map(|(user, name)| Nickname { user, name }).collect(),
            join_code: code.map(|code| code.to_string()),
            join_approval: info.join_approval,
            waiting: info.waiting,
            dissolved: info.dissolved,
        }
    }
}

impl From<sdk::ConversationSettings> for ConversationSettings {
    fn from(settings: sdk::ConversationSettings) -> Self {
        let sdk::ConversationSettings { conversation, pinned, do_not_disturb, saved, hidden_at } = settings;
        Self { conversation, pinned, do_not_disturb, saved, hidden_at }
    }
}

impl ConversationChange {
    pub(crate) fn of(self, conversation: ConversationId) -> sdk::SetConversation {
        let Self { pinned, do_not_disturb, saved, hidden_at } = self;
        sdk::SetConversation { conversation, pinned, do_not_disturb, saved, hidden_at }
    }
}

impl From<sdk::Favourite> for Favourite {
    fn from(sdk::Favourite { id, time_ms, conversation, number, sender, kind }: sdk::Favourite) -> Self {
        Self { id, time_ms, conversation, number, sender, kind: kind.into() }
    }
}
