//! What happens to the screen, and what follows from it for the world.

use magpie_client::{
    Account, ContactCard, Content, ConversationId, DeviceId, DeviceInfo, Entry, Favourite, Found, GroupCode, GroupInfo,
    Kind, MessageFound, MessageId, Posted, Profile, Reaction, SetContact, SetConversation, SetPrivacy, SetProfile,
    Shown, UserId, message::BlobRef,
};
use ratatui::crossterm::event::KeyEvent;

use super::{
    command::WithPerson,
    state::{Chat, Link},
};

/// Something happened.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Key(KeyEvent),
    Paste(String),
    Resize(u16, u16),
    Focus(bool),
    /// The clock, about once a second.
    Tick(u64),
    Link(Link),
    Synced,
    /// All conversations, contacts and settings as the store has them.
    Lists {
        chats: Vec<Chat>,
        cards: Vec<ContactCard>,
        profile: Profile,
        unresolved: usize,
        /// What an earlier run posted and is not in its conversation yet.
        earlier: Vec<(ConversationId, Content)>,
    },
    /// What is loaded of a conversation.
    Window {
        conversation: ConversationId,
        entries: Vec<Entry>,
        reactions: Vec<Reaction>,
        at_start: bool,
    },
    /// An entry is new, in a conversation or in the inbox.
    Arrived {
        conversation: Option<ConversationId>,
        entry: Entry,
    },
    Signalled {
        conversation: ConversationId,
        user: UserId,
        kind: u16,
    },
    /// A post of this run is resolved.
    Posted {
        key: u64,
        result: Result<Posted, String>,
    },
    /// What an earlier run posted is refused.
    NotSent {
        conversation: ConversationId,
        content: Content,
        why: String,
    },
    /// A file is so far, in bytes.
    Progress {
        key: u64,
        done: u64,
        total: u64,
    },
    /// It is there, and this says so, or it will not be.
    Transferred {
        key: u64,
        result: Result<String, String>,
    },
    Answer(Answer),
    /// Something to say.
    Say(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    Post {
        key: u64,
        conversation: ConversationId,
        content: Content,
    },
    Ask(Ask),
    /// Read the conversation from the store, from this entry on.
    Load {
        conversation: ConversationId,
        from: u64,
    },
    MarkRead {
        conversation: ConversationId,
        number: u64,
    },
    Typing(ConversationId),
    SendFile {
        key: u64,
        conversation: ConversationId,
        path: String,
    },
    SaveFile {
        key: u64,
        message: MessageId,
        blob: BlobRef,
        path: String,
    },
    /// Look for these words in what is stored.
    Search(String),
    /// Have the lists read from the store again.
    Refresh,
    Bell,
    Quit,
}

/// A question to the node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    /// Who has this name, number or code; then do this.
    Find(String, WithPerson),
    Reach(UserId),
    Accept(UserId),
    Refuse(UserId),
    SetContact(SetContact),
    Block(UserId, bool),
    Forget(UserId),
    CreateGroup(String, Vec<UserId>),
    /// The people of a group who have names only, then the group.
    FindAll {
        title: String,
        known: Vec<UserId>,
        names: Vec<String>,
    },
    Join(GroupCode),
    /// This code to join by, 0 for none any more, or another than before.
    SetCode {
        conversation: ConversationId,
        code: Option<u64>,
        approval: bool,
    },
    Group(ConversationId),
    Profiles(Vec<UserId>),
    Online(Vec<UserId>),
    SetConversation(SetConversation),
    Delete {
        conversation: ConversationId,
        number: u64,
    },
    DeleteUpTo {
        conversation: ConversationId,
        number: u64,
    },
    /// A message that names files, to another conversation.
    Forward {
        from: MessageId,
        to: ConversationId,
        kind: Kind,
    },
    Keep {
        conversation: ConversationId,
        number: u64,
    },
    Unkeep(u64),
    Favourites,
    Account,
    SetProfile(SetProfile),
    SetPrivacy(SetPrivacy),
    Phone(String),
    MyCode,
    NewCode,
    ChangePassword {
        old: String,
        new: String,
    },
    Devices,
    SignOut(DeviceId),
    CloseAccount(String),
    Shake(i32, i32),
}

/// What came out of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// It is done; this says so, or says why not.
    Said(String),
    Found(Found, WithPerson),
    /// They were asked, or are a contact already.
    Reached {
        user: UserId,
        asked: bool,
    },
    Accepted(UserId),
    Made {
        conversation: ConversationId,
        learned: Vec<Found>,
    },
    Joined {
        conversation: ConversationId,
        joined: bool,
    },
    Group {
        conversation: ConversationId,
        info: GroupInfo,
        members: Vec<UserId>,
    },
    /// One is not in this conversation any more.
    Outside(ConversationId),
    Profiles(Vec<Shown>),
    Online(Vec<UserId>),
    Account(Account),
    /// Show this: a title and a text.
    Show(String, String),
    Devices(Vec<DeviceInfo>),
    Favourites(Vec<Favourite>),
    Shaken(Vec<Found>),
    /// Entries with the words that were looked for, newest first; whether there may be more; and what the server says.
    Hits {
        words: String,
        hits: Vec<(ConversationId, Entry)>,
        more: bool,
        far: Box<Far>,
    },
}

/// What the server found, besides what this device has; nothing while it is not reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Far {
    pub(super) messages: Vec<MessageFound>,
    pub(super) contacts: Vec<UserId>,
    pub(super) groups: Vec<ConversationId>,
    /// It has not looked through everything yet.
    pub(super) unfinished: bool,
}
