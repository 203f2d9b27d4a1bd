//! What is known while people talk: who is who, where one speaks, what was shown. Lines for the person gather in
//! `lines`; whoever runs the conversation prints them.

mod arrive;
mod ask;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use futures_util::{FutureExt, future::BoxFuture, stream::FuturesUnordered};
use magpie_client::{
    Client, ContactInfo, ContactState, Content, ConversationId, ConversationInfo, ConversationKind, DeviceId, Error,
    Posted, Status, TimelineId, UserId,
};

use super::{
    jobs::{Asker, Done, Then},
    people::People,
    show::{self, Clock, count, quote},
    terminal::Line,
};

pub(super) use ask::Next;

/// Entries taken from the store in one go.
const PAGE: u32 = 200;
/// What a new device shows of a conversation without being asked.
const FRESH_ENTRIES: u64 = 20;
/// Unresolved posts that are named one by one.
const NAMED_MAX: usize = 3;

/// Where plain lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    /// Nowhere yet: the first conversation to come takes it.
    Free,
    Open(ConversationId),
    /// Nowhere until this person agrees.
    Awaiting(UserId),
    /// Nowhere until the person says: lines meant for one conversation must not end up in another.
    Closed,
}

/// A post and what became of it.
pub(super) type Posting = (u64, ConversationId, Result<Posted, Error>);

/// Where the store stood before this run; `None` when this device is new.
pub(super) type Seen = Option<HashMap<TimelineId, u64>>;

/// See the module.
pub(super) struct Talk {
    client: Client,
    me: UserId,
    people: People,
    focus: Focus,
    clock: Clock,
    /// In the order of their numbers for `/open`.
    order: Vec<ConversationId>,
    pub(super) lines: VecDeque<Line>,
    pub(super) postings: FuturesUnordered<BoxFuture<'static, Posting>>,
    /// What is posted and not resolved, in words.
    unresolved: BTreeMap<u64, String>,
    /// Up to where own posts were acknowledged.
    acknowledged: HashMap<ConversationId, u64>,
    /// Up to where each timeline was shown.
    shown: HashMap<TimelineId, u64>,
    /// Timelines with entries that were not shown.
    behind: VecDeque<TimelineId>,
    /// People of whose request the person knows.
    told: HashSet<UserId>,
    /// What was read since the node was told.
    read: BTreeMap<ConversationId, u64>,
    /// People whose handle was asked for.
    asked_names: HashSet<UserId>,
    online: bool,
    was_online: bool,
    /// Lines that are kept were mentioned since the connection was lost.
    told_kept: bool,
    /// All entries come anew, and were shown already.
    resetting: bool,
}

impl Talk {
    /// Nothing is shown yet.
    pub(super) fn new(client: Client, me: UserId, handle: &str, seen: Seen) -> Self {
        let online = client.status() == Status::Online;
        let mut talk = Self {
            people: People::called(me, handle),
            asked_names: HashSet::new(),
            online,
            was_online: online,
            client,
            me,
            clock: Clock::system(),
            focus: Focus::Free,
            order: Vec::new(),
            lines: VecDeque::new(),
            postings: FuturesUnordered::new(),
            unresolved: BTreeMap::new(),
            acknowledged: HashMap::new(),
            shown: HashMap::new(),
            behind: VecDeque::new(),
            told: HashSet::new(),
            read: BTreeMap::new(),
            told_kept: false,
            resetting: false,
        };
        talk.learn_inbox();
        talk.shown = seen.unwrap_or_else(|| talk.as_new_device());
        talk
    }

    /// Begins, with the contacts as far as they could be asked for.
    pub(super) fn begin(&mut self, server: &str, contacts: &[ContactInfo]) {
        self.note(format!("* {} on {server} (/help lists the commands)", self.people.name(self.me)));
        self.on_contacts(contacts);
        let known = self.client.conversations();
        let mut titled: Vec<_> =
            known.iter().filter(|c| !c.ended).map(|c| (self.people.title(c.id, &c.title), c.id)).collect();
        titled.sort();
        self.order = titled.into_iter().map(|(_, id)| id).collect();
        match self.order[..] {
            [] => self.note("* nobody to talk to yet: /to NAME asks a person"),
            [only] => self.open(only),
            _ => self.note(format!("* {}: /list, then /open N", count(self.order.len(), "conversation"))),
        }
        self.all_behind();
    }

    /// Asks in this person's name.
    pub(super) fn asker(&self) -> Asker {
        Asker { client: self.client.clone(), me: self.me }
    }

    fn is_this(&self, device: DeviceId) -> bool {
        self.client.me().is_some_and(|me| me.device == device)
    }

    fn inbox(&self) -> TimelineId {
        TimelineId::Inbox(self.me)
    }

    fn conversation(&self, id: ConversationId) -> Option<ConversationInfo> {
        self.client.conversations().into_iter().find(|conversation| conversation.id == id)
    }

    fn title(&self, id: ConversationId) -> String {
        self.people.title(id, &self.conversation(id).map_or_else(String::new, |known| known.title))
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.lines.push_back(Line::Note(text.into()));
    }

    fn out(&mut self, text: impl Into<String>) {
        self.lines.push_back(Line::Out(text.into()));
    }

    /// Learns the names that the stored inbox holds, even without a connection.
    fn learn_inbox(&mut self) {
        let mut after = 0;
        while let Ok(page) = self.client.timeline_history(self.inbox(), after, PAGE) {
            let Some(last) = page.last() else { return };
            after = last.number;
            page.iter().for_each(|entry| self.people.learn_entry(entry));
        }
    }

    /// A new device shows the last of what is unread, not years.
    fn as_new_device(&self) -> HashMap<TimelineId, u64> {
        let conversations = self.client.conversations().into_iter();
        let from =
            |c: ConversationInfo| (TimelineId::Conversation(c.id), c.cursor.saturating_sub(FRESH_ENTRIES).max(c.read));
        conversations.map(from).chain([(self.inbox(), self.client.cursor(self.inbox()))]).collect()
    }

    fn open(&mut self, id: ConversationId) {
        if self.focus == Focus::Open(id) {
            return;
        }
        self.focus = Focus::Open(id);
        self.mark_read(id);
        let preposition = if id.kind() == Some(ConversationKind::Direct) { "to" } else { "in" };
        self.note(format!("* now talking {preposition} {}", self.title(id)));
    }

    /// Posts, and remembers it in these words until it is resolved.
    fn post(&mut self, conversation: ConversationId, content: Content, what: String) {
        let sending = match self.client.post(conversation, content) {
            Ok(sending) => sending,
            Err(error) => return self.note(format!("* not sent: {what}: {}", show::error(&error))),
        };
        let id = sending.id();
        self.unresolved.insert(id, what);
        self.postings.push(sending.posted().map(move |result| (id, conversation, result)).boxed());
        if !self.online && !std::mem::replace(&mut self.told_kept, true) {
            self.note("* not connected: what you say is kept and sent as soon as possible");
        }
    }

    /// A post is resolved.
    pub(super) fn on_posting(&mut self, (id, conversation, result): Posting) {
        let what = self.unresolved.remove(&id).unwrap_or_default();
        match result {
            Ok(posted) => {
                let number = self.acknowledged.entry(conversation).or_default();
                *number = posted.number.max(*number);
            }
            // The client was closed; whoever closed it says what that means.
            Err(Error::Closed) => {}
            Err(error) => self.note(format!("* refused: {what}: {}", show::error(&error))),
        }
    }

    /// Whether all that was posted is resolved, and shown.
    pub(super) fn is_settled(&self) -> bool {
        let shown = |(id, number): (&ConversationId, &u64)| {
            self.shown.get(&TimelineId::Conversation(*id)).is_some_and(|shown| shown >= number)
        };
        self.unresolved.is_empty() && self.client.unresolved() == 0 && self.acknowledged.iter().all(shown)
    }

    /// Whether the node is about to acknowledge something.
    pub(super) fn is_under_way(&self) -> bool {
        self.online && !self.is_settled()
    }

    /// Says what is not resolved, if anything.
    pub(super) fn tell_unresolved(&mut self) {
        let n = self.client.unresolved();
        if n == 0 {
            return;
        }
        let mut named: Vec<_> = self.unresolved.values().take(NAMED_MAX).cloned().collect();
        if n > named.len() {
            named.push(format!("{} more", n - named.len()));
        }
        self.note(format!("* not acknowledged: {}; kept, and sent when you start again", named.join(", ")));
    }

    fn mark_read(&mut self, id: ConversationId) {
        let shown = self.shown.get(&TimelineId::Conversation(id)).copied().unwrap_or(0);
        if self.conversation(id).is_some_and(|known| !known.ended && known.read < shown) {
            self.read.insert(id, shown);
        }
    }

    /// Whether there was a session in this run.
    pub(super) fn was_online(&self) -> bool {
        self.was_online
    }

    /// What the node is to be told next about what was read.
    pub(super) fn take_read(&mut self) -> Option<(ConversationId, u64)> {
        if self.online { self.read.pop_first() } else { None }
    }

    /// Whether the node is to be told anything about what was read.
    pub(super) fn has_read(&self) -> bool {
        self.online && !self.read.is_empty()
    }

    /// A job is done. Another may follow.
    pub(super) fn on_done(&mut self, done: Done) -> Next {
        done.learned.iter().for_each(|(user, handle)| self.people.learn(*user, handle));
        match done.then {
            Then::Open(conversation) => self.open(conversation),
            Then::Await(user) => {
                let name = self.people.name(user);
                self.focus = Focus::Awaiting(user);
                self.note(format!("* asked {name} to talk; waiting for {name} to accept"));
            }
            Then::Again(user) => {
                let conversation = ConversationId::direct(self.me, user);
                if self.focus != Focus::Open(conversation) {
                    self.open(conversation);
                }
                let name = self.people.name(user);
                self.note(format!("* {name} was no contact of yours, and is asked to be one again"));
            }
            Then::Accepted(user) => self.on_accepted(user),
            Then::Nobody(why) => {
                self.focus = Focus::Closed;
                self.note(format!("* {why}; no conversation is open now"));
            }
            Then::Make(title, members) => return Next::Wait(self.asker().make(title, members).boxed()),
            Then::Post(conversation, content, what) => self.post(conversation, content, what),
            Then::Members(group) => self.list_members(&group),
            Then::Devices(devices) => self.list_devices(&devices),
            Then::Contacts(contacts) => self.on_contacts(&contacts),
            Then::Failed(why) => self.note(format!("* {why}")),
            Then::Nothing => {}
        }
        Next::Go
    }

    fn on_accepted(&mut self, user: UserId) {
        let conversation = ConversationId::direct(self.me, user);
        let name = self.people.name(user);
        match self.focus {
            Focus::Free if self.conversation(conversation).is_none() => self.focus = Focus::Awaiting(user),
            Focus::Free => self.open(conversation),
            Focus::Open(id) if id == conversation => {}
            _ => self.note(format!("* /to {name} talks to {name}")),
        }
    }

    /// Names, and who asked while nobody was here.
    fn on_contacts(&mut self, contacts: &[ContactInfo]) {
        for contact in contacts {
            self.people.learn(contact.user, &contact.handle);
            if contact.state == ContactState::Waiting {
                self.tell_request(contact.user, "");
            } else {
                self.told.insert(contact.user);
            }
        }
    }

    fn tell_request(&mut self, user: UserId, greeting: &str) {
        if !self.told.insert(user) {
            return;
        }
        let name = self.people.name(user);
        let greeting = if greeting.is_empty() { String::new() } else { format!(" ({})", quote(greeting)) };
        self.out(format!("* {name} would like to talk{greeting}: /accept {name}"));
    }
}

#[cfg(test)]
mod tests;
