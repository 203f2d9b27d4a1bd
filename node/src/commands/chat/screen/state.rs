//! All that the screen shows, as data. What happens to it is in [`update`](super::update); how it looks in
//! [`view`](super::view). Nothing here knows a terminal, a clock or a network.

use std::collections::{BTreeMap, HashMap, VecDeque};

use magpie_client::{
    Account, ContactState, Content, ConversationId, ConversationKind, ConversationSettings, DeviceId, Entry, GroupInfo,
    Kind, Profile, Reaction, UserId,
};

use super::{
    super::local_time::Zone,
    command::{Command, Want},
    editor::Editor,
    names::Names,
    words,
};

/// The four tabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Chats,
    Contacts,
    Discover,
    Me,
}

impl Tab {
    pub(super) const ALL: [Self; 4] = [Self::Chats, Self::Contacts, Self::Discover, Self::Me];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Chats => "Chats",
            Self::Contacts => "Contacts",
            Self::Discover => "Discover",
            Self::Me => "Me",
        }
    }
}

/// Where keys go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    List,
    Talk,
}

/// How the connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Online,
    Offline(String),
}

/// One line of the list of conversations, as the local store has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chat {
    pub(super) id: ConversationId,
    pub(super) title: String,
    /// The number up to which every entry is here.
    pub(super) cursor: u64,
    pub(super) read: u64,
    pub(super) ended: bool,
    /// The newest entries, in order.
    pub(super) last: Vec<Entry>,
    /// Messages of others that are not read; more than [`UNREAD_MAX`] are not counted.
    pub(super) unread: usize,
    /// One of them mentions this person.
    pub(super) mentioned: bool,
    pub(super) settings: ConversationSettings,
}

/// Unread messages are counted up to here.
pub(super) const UNREAD_MAX: usize = 99;

impl Chat {
    pub(super) fn is_group(&self) -> bool {
        self.id.kind() == Some(ConversationKind::Group)
    }

    /// When something happened here last.
    pub(super) fn time_ms(&self) -> u64 {
        self.last.last().map_or(0, |entry| entry.time_ms)
    }

    /// Whether it is in the list.
    pub(super) fn is_shown(&self) -> bool {
        !self.ended && (self.settings.hidden_at == 0 || self.cursor > self.settings.hidden_at)
    }
}

/// The conversation that is open.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    pub(super) id: ConversationId,
    /// What is loaded of it, in order.
    pub(super) entries: Vec<Entry>,
    pub(super) reactions: Vec<Reaction>,
    /// There is nothing before what is loaded.
    pub(super) at_start: bool,
    /// Lines that lie below what is shown.
    pub(super) scroll: usize,
    /// The message that is chosen.
    pub(super) chosen: Option<u64>,
    /// The message that the next one answers.
    pub(super) quote: Option<u64>,
    /// The message that is being given other words.
    pub(super) editing: Option<u64>,
    /// How the group is run, once the node has said.
    pub(super) group: Option<GroupInfo>,
    pub(super) members: Vec<UserId>,
    /// What came after this entry was new when the conversation was opened.
    pub(super) read_before: u64,
    /// Older entries were asked for.
    pub(super) loading: bool,
}

impl Talk {
    pub(super) fn new(id: ConversationId, read: u64) -> Self {
        Self {
            id,
            entries: Vec::new(),
            reactions: Vec::new(),
            at_start: false,
            scroll: 0,
            chosen: None,
            quote: None,
            editing: None,
            group: None,
            members: Vec::new(),
            read_before: read,
            loading: false,
        }
    }

    pub(super) fn entry(&self, number: u64) -> Option<&Entry> {
        let at = self.entries.binary_search_by_key(&number, |entry| entry.number).ok()?;
        self.entries.get(at)
    }
}

/// Something of one's own that is not in the conversation yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pending {
    pub(super) key: u64,
    pub(super) conversation: ConversationId,
    pub(super) content: Content,
    pub(super) state: Sent,
}

impl Pending {
    /// Why it is not sent, if it is not.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        if let Sent::Refused(refusal) = &self.state { Some(refusal) } else { None }
    }
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Waiting,
    /// It has this number; the entry is about to be here.
    Acknowledged(u64),
    Refused(Refusal),
}

/// Why something is not sent, and where it stands: it can be taken back into the line where one writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: String,
    /// The newest entry when it was refused.
    pub(super) after: u64,
}

/// A file on its way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transfer {
    pub(super) key: u64,
    pub(super) conversation: ConversationId,
    pub(super) name: String,
    /// Where it is on this machine, as it was written.
    pub(super) path: String,
    /// From here to the node; else the other way.
    pub(super) up: bool,
    pub(super) done: u64,
    pub(super) total: u64,
    /// Why it will not be.
    pub(super) failed: Option<Refusal>,
}

/// A choice of several things to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Menu {
    pub(super) title: String,
    /// Each with what follows; those with [`Command::Nothing`] only say something.
    pub(super) items: Vec<(String, Command)>,
    pub(super) at: usize,
}

/// A choice of people.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pick {
    pub(super) title: String,
    pub(super) people: Vec<(UserId, bool)>,
    pub(super) at: usize,
    /// For this group; `None` for a new one.
    pub(super) group: Option<ConversationId>,
}

/// What lies above everything else.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Overlay {
    Menu(Menu),
    Pick(Pick),
    Prompt(Want, Editor),
    Confirm(String, Command),
    /// Something to read: title, text, and how far it is scrolled.
    Text(String, String, usize),
}

/// Something that is said for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) until_ms: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) me: UserId,
    pub(super) handle: String,
    pub(super) device: DeviceId,
    pub(super) server: String,
    pub(super) link: Link,
    /// What was missed is here.
    pub(super) synced: bool,
    pub(super) now_ms: u64,
    pub(super) zone: Zone,
    pub(super) size: (u16, u16),
    pub(super) colour: bool,
    /// The terminal has the keyboard, as far as it says so.
    pub(super) focused: bool,
    pub(super) tab: Tab,
    pub(super) pane: Pane,
    pub(super) names: Names,
    pub(super) chats: BTreeMap<ConversationId, Chat>,
    /// The conversation under the cursor of the list.
    pub(super) chat_at: Option<ConversationId>,
    /// The line under the cursor in each of the other tabs.
    pub(super) line_at: [usize; 4],
    pub(super) talk: Option<Talk>,
    /// What is being written, for each conversation.
    pub(super) drafts: HashMap<ConversationId, Editor>,
    pub(super) pending: Vec<Pending>,
    pub(super) transfers: Vec<Transfer>,
    pub(super) next_key: u64,
    /// Posts that are not resolved, those of earlier runs too.
    pub(super) unresolved: usize,
    pub(super) overlays: Vec<Overlay>,
    pub(super) notice: Option<Notice>,
    /// What the operator said and is not read yet, the oldest first.
    pub(super) words: VecDeque<String>,
    /// Who types where, and until when that is believed.
    pub(super) typing: HashMap<ConversationId, (UserId, u64)>,
    /// When others were last told that this person types.
    pub(super) told_typing_ms: u64,
    pub(super) profile: Profile,
    pub(super) account: Option<Account>,
    /// Contacts that are online and show it.
    pub(super) online: Vec<UserId>,
    /// Until when another Ctrl-C stops.
    pub(super) quit_until_ms: u64,
    /// A conversation to open as soon as it is there.
    pub(super) awaited: Option<ConversationId>,
}

impl State {
    /// Nothing is known yet.
    pub(super) fn new(me: UserId, handle: &str, server: &str) -> Self {
        Self {
            me,
            handle: handle.to_owned(),
            device: DeviceId::default(),
            server: server.to_owned(),
            link: Link::Connecting,
            synced: false,
            now_ms: 0,
            zone: Zone::default(),
            size: (80, 24),
            colour: true,
            focused: true,
            tab: Tab::Chats,
            pane: Pane::List,
            names: Names::of(me, handle),
            chats: BTreeMap::new(),
            chat_at: None,
            line_at: [0; 4],
            talk: None,
            drafts: HashMap::new(),
            pending: Vec::new(),
            transfers: Vec::new(),
            next_key: 1,
            unresolved: 0,
            overlays: Vec::new(),
            notice: None,
            words: VecDeque::new(),
            typing: HashMap::new(),
            told_typing_ms: 0,
            profile: Profile::default(),
            account: None,
            online: Vec::new(),
            quit_until_ms: 0,
            awaited: None,
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.link == Link::Online
    }

    /// What a conversation is called.
    pub(super) fn title(&self, id: ConversationId) -> String {
        self.names.title(id, self.chats.get(&id).map_or("", |chat| &chat.title))
    }

    /// The list of conversations, in the order in which it is shown: pinned ones first, then the newest.
    pub(super) fn list(&self) -> Vec<&Chat> {
        let mut list: Vec<&Chat> = self.chats.values().filter(|chat| chat.is_shown()).collect();
        list.sort_by_key(|chat| (!chat.settings.pinned, std::cmp::Reverse(chat.time_ms()), chat.id));
        list
    }

    /// Messages that are not read, without those of conversations that are not to disturb.
    pub(super) fn unread(&self) -> usize {
        let loud = self.chats.values().filter(|chat| chat.is_shown() && !chat.settings.do_not_disturb);
        loud.map(|chat| chat.unread).sum()
    }

    /// Requests that wait for an answer.
    pub(super) fn requests(&self) -> usize {
        self.names.cards.values().filter(|card| card.state == Some(ContactState::Waiting) && !card.blocked).count()
    }

    /// Whether this person may run the group that is open.
    pub(super) fn is_admin(&self) -> bool {
        let group = self.talk.as_ref().and_then(|talk| talk.group.as_ref());
        group.is_some_and(|group| group.owner == self.me || group.admins.contains(&self.me))
    }

    /// The message that is chosen.
    pub(super) fn chosen(&self) -> Option<&Entry> {
        let talk = self.talk.as_ref()?;
        talk.entry(talk.chosen?)
    }

    /// Whether this person may give a message other words: only their own have any.
    pub(super) fn may_edit(&self, entry: &Entry) -> bool {
        let is_text = words::message(entry).is_some_and(|message| matches!(message.kind, Kind::Text(_)));
        entry.sender == self.me && is_text
    }

    /// Whether this person may recall a message.
    pub(super) fn may_recall(&self, entry: &Entry) -> bool {
        entry.sender == self.me || self.is_admin()
    }

    /// What is being written in the open conversation.
    pub(super) fn draft(&self) -> Option<&Editor> {
        self.drafts.get(&self.talk.as_ref()?.id)
    }

    /// Says something for a while.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        const SAID_MS: u64 = 8_000;
        self.notice = Some(Notice { text: self.names.named(&text.into()), until_ms: self.now_ms + SAID_MS });
    }
}
