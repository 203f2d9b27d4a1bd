//! What stands in a conversation, or in one's own inbox.

use magpie_client::{ConversationId, DeviceId, UserId, entry};

use crate::{ContactCard, ConversationSettings, Favourite, Kind, Message, Profile};

/// One entry of a conversation or of the inbox.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Entry {
    /// Its place: 1, 2, 3, ... without gaps.
    pub number: u64,
    /// The server's time when it was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who caused it.
    pub sender: UserId,
    /// The words of a message, for a list or a notice; empty where there are none.
    pub words: String,
    /// What it says.
    pub body: Body,
}

/// What an entry says. Up to `JoinRefused` they stand in conversations, the others in one's inbox.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Body {
    /// A message.
    Message {
        /// What it says now.
        message: Message,
        /// The number of the entry that gave it its present words; 0 when it is as it was sent.
        edited: u64,
    },
    /// The conversation began.
    Created {
        /// Of two, or a group.
        kind: ConversationKind,
        /// The group's title.
        title: String,
    },
    /// Somebody became a member.
    Joined {
        /// Who.
        user: UserId,
        /// Through whom.
        by: UserId,
    },
    /// Somebody left by themselves.
    Left {
        /// Who.
        user: UserId,
    },
    /// Somebody was removed.
    Removed {
        /// Who.
        user: UserId,
        /// By whom.
        by: UserId,
    },
    /// The group has a new title.
    Renamed {
        /// What it is called now.
        title: String,
    },
    /// A message stood here that was recalled.
    Gone {
        /// The number of the entry that says so.
        recalled: u64,
    },
    /// A message was recalled.
    Recalled {
        /// Its number.
        number: u64,
    },
    /// A message was edited.
    Edited {
        /// Its number.
        number: u64,
        /// What it says now; none once it was edited again, or recalled.
        kind: Option<Kind>,
    },
    /// Somebody's sign on a message.
    Reacted {
        /// Its number.
        number: u64,
        /// The sign.
        emoji: String,
        /// False when it was taken back.
        on: bool,
    },
    /// Somebody became an administrator, or is none any more.
    AdminSet {
        /// Who.
        user: UserId,
        /// True when they became one.
        on: bool,
    },
    /// The group belongs to somebody else from now on.
    OwnerChanged {
        /// To whom.
        user: UserId,
    },
    /// The group is no more: nobody can write, what was said stays readable.
    Dissolved,
    /// What every member should know.
    Announced {
        /// What; empty when it was taken down.
        text: String,
    },
    /// From now on only administrators write, or everyone again.
    AllMuted {
        /// True when only administrators write.
        on: bool,
    },
    /// Somebody may not write for a while, or may again.
    Muted {
        /// Who.
        user: UserId,
        /// Until when, in milliseconds since 1970; 0 when they may write again.
        until_ms: u64,
    },
    /// The sender is called this in the group from now on.
    Nicknamed {
        /// The name; empty for their own.
        name: String,
    },
    /// How people may join by themselves from now on.
    JoinSet {
        /// Who has the code may come.
        open: bool,
        /// An administrator lets them in, or not.
        approval: bool,
    },
    /// Somebody asks to be let in.
    JoinAsked {
        /// Who.
        user: UserId,
    },
    /// Somebody was not let in.
    JoinRefused {
        /// Who.
        user: UserId,
    },
    /// Somebody would like to be a contact.
    ContactRequested {
        /// Who.
        user: UserId,
        /// Their handle.
        handle: String,
        /// What they wrote.
        greeting: String,
    },
    /// Somebody is a contact from now on.
    ContactAccepted {
        /// Who.
        user: UserId,
        /// Their handle.
        handle: String,
        /// The conversation with them.
        conversation: ConversationId,
    },
    /// A conversation is on the list from now on.
    ConversationAdded {
        /// Which.
        conversation: ConversationId,
        /// A group's title.
        title: String,
        /// The first entry that this person may read.
        first: u64,
        /// Through whom.
        by: UserId,
    },
    /// A conversation can no longer be followed.
    ConversationEnded {
        /// Which.
        conversation: ConversationId,
        /// The last entry that this person may read.
        last: u64,
    },
    /// A device of one's own read up to here.
    ReadTo {
        /// Where.
        conversation: ConversationId,
        /// The number of the newest entry that was read.
        number: u64,
    },
    /// A device signed in for the first time.
    DeviceSignedIn {
        /// Which.
        device: DeviceId,
        /// What it is called.
        name: String,
    },
    /// A device was signed out.
    DeviceSignedOut {
        /// Which.
        device: DeviceId,
        /// What it is called.
        name: String,
    },
    /// All that is known of one contact from now on.
    ContactSet {
        /// That.
        card: ContactCard,
    },
    /// Somebody is no longer a contact, nor about to be one.
    ContactRemoved {
        /// Who.
        user: UserId,
    },
    /// How this person wants a conversation to be shown from now on.
    ConversationSet {
        /// That.
        settings: ConversationSettings,
    },
    /// What this person shows of themselves from now on.
    ProfileSet {
        /// That.
        profile: Profile,
    },
    /// This person deleted messages for themselves.
    Hidden {
        /// Where.
        conversation: ConversationId,
        /// All entries up to this one; 0 for none.
        up_to: u64,
        /// And these.
        numbers: Vec<u64>,
    },
    /// This person keeps something.
    FavouriteAdded {
        /// What.
        favourite: Favourite,
    },
    /// This person no longer keeps a favourite.
    FavouriteRemoved {
        /// Which.
        id: u64,
    },
    /// The password was changed.
    PasswordChanged {
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
    /// The account will be deleted, or will not after all.
    Closing {
        /// When, in milliseconds since 1970; 0 when it will not.
        at_ms: u64,
    },
    /// The operator says something.
    Notice {
        /// What.
        text: String,
    },
    /// Of a newer version than this library.
    Unknown {
        /// The number of the body in the protocol.
        tag: u16,
    },
}

/// What kind of conversation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum ConversationKind {
    /// Of two people.
    Direct,
    /// A group.
    Group,
}

/// A sign that stands on a message.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Reaction {
    /// The entry that it stands on.
    pub number: u64,
    /// Whose it is.
    pub user: UserId,
    /// The sign.
    pub emoji: String,
}

impl From<magpie_client::Reaction> for Reaction {
    fn from(magpie_client::Reaction { number, user, emoji }: magpie_client::Reaction) -> Self {
        Self { number, user, emoji }
    }
}

impl From<magpie_client::ConversationKind> for ConversationKind {
    fn from(kind: magpie_client::ConversationKind) -> Self {
        match kind {
            magpie_client::ConversationKind::Direct => Self::Direct,
            magpie_client::ConversationKind::Group => Self::Group,
        }
    }
}

impl From<entry::Entry> for Entry {
    fn from(entry::Entry { number, time_ms, sender, body }: entry::Entry) -> Self {
        let words = match &body {
            entry::Body::Text(text) => text.clone(),
            entry::Body::Message(said) => said.message.kind.words(),
            _ => String::new(),
        };
        Self { number, time_ms, sender, words, body: body.into() }
    }
}

impl From<entry::Body> for Body {
    fn from(body: entry::Body) -> Self {
        use entry::Body as Stored;
        match body {
            Stored::Text(text) => Self::Message { message: Message::text(text), edited: 0 },
            Stored::Created(it) => Self::Created { kind: it.kind.into(), title: it.title },
            Stored::Joined(it) => Self::Joined { user: it.user, by: it.by },
            Stored::Left(user) => Self::Left { user },
            Stored::Removed(it) => Self::Removed { user: it.user, by: it.by },
            Stored::Renamed(title) => Self::Renamed { title },
            Stored::Message(it) => Self::Message { message: it.message.into(), edited: it.edited },
            Stored::Gone(it) => Self::Gone { recalled: it.recalled },
            Stored::Recalled(number) => Self::Recalled { number },
            Stored::Edited(it) => Self::Edited { number: it.number, kind: it.kind.map(Kind::from) },
            Stored::Reacted(it) => Self::Reacted { number: it.number, emoji: it.emoji, on: it.on },
            Stored::AdminSet(it) => Self::AdminSet { user: it.user, on: it.on },
            Stored::OwnerChanged(user) => Self::OwnerChanged { user },
            Stored::Dissolved(_) => Self::Dissolved,
            Stored::Announced(text) => Self::Announced { text },
            Stored::AllMuted(on) => Self::AllMuted { on },
            Stored::Muted(it) => Self::Muted { user: it.user, until_ms: it.until_ms },
            Stored::Nicknamed(name) => Self::Nicknamed { name },
            Stored::JoinSet(it) => Self::JoinSet { open: it.open, approval: it.approval },
            Stored::JoinAsked(user) => Self::JoinAsked { user },
            Stored::JoinRefused(user) => Self::JoinRefused { user },
            personal => Self::of_inbox(personal),
        }
    }
}

impl Body {
    fn of_inbox(body: entry::Body) -> Self {
        use entry::Body as Stored;
        match body {
            Stored::ContactRequested(it) => {
                Self::ContactRequested { user: it.from, handle: it.handle, greeting: it.greeting }
            }
            Stored::ContactAccepted(it) => {
                Self::ContactAccepted { user: it.user, handle: it.handle, conversation: it.conversation }
            }
            Stored::ConversationAdded(it) => {
                let entry::ConversationAdded { conversation, title, first, by } = it;
                Self::ConversationAdded { conversation, title, first, by }
            }
            Stored::ConversationEnded(it) => Self::ConversationEnded { conversation: it.conversation, last: it.last },
            Stored::ReadTo(it) => Self::ReadTo { conversation: it.conversation, number: it.number },
            Stored::DeviceSignedIn(it) => Self::DeviceSignedIn { device: it.device, name: it.name },
            Stored::DeviceSignedOut(it) => Self::DeviceSignedOut { device: it.device, name: it.name },
            Stored::ContactSet(card) => Self::ContactSet { card: card.into() },
            Stored::ContactRemoved(user) => Self::ContactRemoved { user },
            Stored::ConversationSet(settings) => Self::ConversationSet { settings: settings.into() },
            Stored::ProfileSet(profile) => Self::ProfileSet { profile: profile.into() },
            Stored::Hidden(it) => Self::Hidden { conversation: it.conversation, up_to: it.up_to, numbers: it.numbers },
            Stored::FavouriteAdded(favourite) => Self::FavouriteAdded { favourite: favourite.into() },
            Stored::FavouriteRemoved(id) => Self::FavouriteRemoved { id },
            Stored::PasswordChanged(at_ms) => Self::PasswordChanged { at_ms },
            Stored::Closing(at_ms) => Self::Closing { at_ms },
            Stored::Notice(text) => Self::Notice { text },
            Stored::Unknown(tag) => Self::Unknown { tag },
            // Those of conversations were taken above; one that is new in the protocol is of a newer version here.
            _ => Self::Unknown { tag: 0 },
        }
    }
}
