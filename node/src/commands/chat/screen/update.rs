//! What an input does to the state, and what is to be done because of it. Pure: the same state and input give the same.

mod answers;
mod commands;
mod files;
mod groups;
mod keys;
mod menus;
mod people;
mod refused;
mod talk_keys;

pub(super) use groups::about_code;

use magpie_client::{Body, ContactState, Content, ConversationId, ConversationKind, Entry, UserId};

use super::{
    layout::Places,
    message::{Ask, Effect, Input},
    rows,
    state::{Chat, Link, Pane, Pending, Refusal, Sent, State, Tab, Talk},
    words,
};

/// Entries that are loaded at a time.
const PAGE: u64 = 200;
/// More than this is let go of once one is at the newest again.
const KEPT_MAX: usize = 600;
/// Words from the operator that wait to be read, the newest.
const WORDS_MAX: usize = 20;
/// How long "somebody types" is believed.
const TYPING_MS: u64 = 6_000;

impl State {
    /// Something happened. Returns what is to be done.
    pub(super) fn on(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Key(key) => self.on_key(key),
            Input::Paste(text) => self.on_paste(&text),
            Input::Resize(width, height) => {
                self.size = (width, height);
                self.keep_scroll();
                Vec::new()
            }
            Input::Focus(focused) => {
                self.focused = focused;
                Vec::new()
            }
            Input::Tick(now_ms) => self.on_tick(now_ms),
            Input::Link(link) => self.on_link(link),
            Input::Synced => {
                self.synced = true;
                Vec::new()
            }
            Input::Lists { chats, cards, profile, unresolved, earlier } => {
                self.keep_earlier(earlier);
                self.names.learn_cards(cards);
                (self.profile, self.unresolved) = (profile, unresolved);
                self.on_chats(chats)
            }
            Input::Window { conversation, entries, reactions, at_start } => {
                self.on_window(conversation, entries, reactions, at_start)
            }
            Input::Arrived { conversation, entry } => self.on_arrived(conversation, &entry),
            Input::Signalled { conversation, user, kind } => {
                match kind {
                    1 if user != self.me => drop(self.typing.insert(conversation, (user, self.now_ms + TYPING_MS))),
                    2 => drop(self.typing.remove(&conversation)),
                    _ => {}
                }
                Vec::new()
            }
            Input::Posted { key, result } => {
                self.on_posted(key, result);
                Vec::new()
            }
            Input::NotSent { conversation, content, why } => {
                self.on_not_sent(conversation, content, why);
                Vec::new()
            }
            Input::Progress { key, done, total } => {
                if let Some(transfer) = self.transfers.iter_mut().find(|transfer| transfer.key == key) {
                    (transfer.done, transfer.total) = (done, total);
                }
                Vec::new()
            }
            Input::Transferred { key, result } => {
                self.on_transferred(key, result);
                Vec::new()
            }
            Input::Answer(answer) => self.on_answer(answer),
            Input::Say(text) => {
                self.say(text);
                Vec::new()
            }
        }
    }

    fn on_tick(&mut self, now_ms: u64) -> Vec<Effect> {
        self.now_ms = now_ms;
        self.typing.retain(|_, (_, until)| *until > now_ms);
        if self.notice.as_ref().is_some_and(|notice| notice.until_ms <= now_ms) {
            self.notice = None;
        }
        self.mark_read()
    }

    fn on_link(&mut self, link: Link) -> Vec<Effect> {
        let was = self.is_online();
        self.link = link;
        if !self.is_online() {
            self.synced = false;
            return Vec::new();
        }
        if was {
            return Vec::new();
        }
        self.notice = self.notice.take().filter(|notice| !notice.text.starts_with("not connected"));
        self.names.ask_again();
        let mut effects = vec![Effect::Ask(Ask::Account), Effect::Refresh];
        effects.extend(self.ask_names(self.names.cards.keys().copied().collect()));
        effects.extend(self.ask_online());
        effects.extend(self.ask_group());
        effects
    }

    fn ask_names(&mut self, users: Vec<UserId>) -> Option<Effect> {
        if !self.is_online() {
            return None;
        }
        let unknown = self.names.unknown(users);
        (!unknown.is_empty()).then_some(Effect::Ask(Ask::Profiles(unknown)))
    }

    fn ask_online(&self) -> Option<Effect> {
        let accepted = self.names.cards.values().filter(|card| card.state == Some(ContactState::Accepted));
        let users: Vec<UserId> = accepted.map(|card| card.user).take(500).collect();
        (self.is_online() && !users.is_empty()).then_some(Effect::Ask(Ask::Online(users)))
    }

    fn ask_group(&self) -> Option<Effect> {
        let talk = self.talk.as_ref().filter(|talk| talk.id.kind() == Some(ConversationKind::Group))?;
        let there = self.chats.get(&talk.id).is_some_and(|chat| !chat.ended);
        (self.is_online() && there).then_some(Effect::Ask(Ask::Group(talk.id)))
    }

    fn on_chats(&mut self, chats: Vec<Chat>) -> Vec<Effect> {
        let mut people = Vec::new();
        for chat in &chats {
            for entry in &chat.last {
                self.names.learn_entry(Some(chat.id), entry);
                people.extend(words::people(entry));
            }
            people.extend(self.names.other(chat.id));
        }
        let before = std::mem::take(&mut self.chats);
        self.chats = chats.into_iter().map(|chat| (chat.id, chat)).collect();
        for chat in self.chats.values_mut() {
            // What was read just now is told to the node a little later.
            if let Some(before) = before.get(&chat.id).filter(|before| before.read > chat.read) {
                chat.read = before.read;
                let new = |e: &&Entry| e.number > before.read && e.sender != self.me && words::is_message(e);
                chat.unread = chat.last.iter().filter(new).count();
                chat.mentioned = chat.last.iter().filter(new).any(|entry| words::mentions(entry, self.me));
            }
        }
        let mut effects: Vec<Effect> = self.ask_names(people).into_iter().collect();
        if self.chat_at.is_none_or(|at| self.chats.get(&at).is_none_or(|chat| !chat.is_shown())) {
            self.chat_at = self.list().first().map(|chat| chat.id);
        }
        if let Some(awaited) = self.awaited.filter(|id| self.chats.get(id).is_some_and(|chat| !chat.ended)) {
            effects.extend(self.open(awaited));
            return effects;
        }
        effects.extend(self.reload());
        effects
    }

    /// Has the open conversation read from the store again.
    fn reload(&self) -> Option<Effect> {
        let talk = self.talk.as_ref()?;
        let cursor = self.chats.get(&talk.id)?.cursor;
        let many = talk.entries.len() >= KEPT_MAX && talk.scroll == 0 && talk.chosen.is_none();
        let from = match talk.entries.first() {
            _ if many => cursor.saturating_sub(PAGE),
            Some(_) if talk.at_start => 0,
            Some(first) => first.number,
            None => cursor.saturating_sub(PAGE),
        };
        Some(Effect::Load { conversation: talk.id, from })
    }

    /// Opens a conversation.
    pub(super) fn open(&mut self, id: ConversationId) -> Vec<Effect> {
        self.awaited = None;
        (self.tab, self.pane) = (Tab::Chats, Pane::Talk);
        self.overlays.clear();
        let Some(chat) = self.chats.get(&id) else {
            self.say("this conversation is not on this device");
            self.pane = Pane::List;
            return Vec::new();
        };
        // It may be about what is before one's eyes now.
        self.notice = self.notice.take().filter(|notice| !notice.text.starts_with('✉'));
        self.chat_at = Some(id);
        if self.talk.as_ref().is_some_and(|talk| talk.id == id) {
            return self.mark_read();
        }
        let unread = chat.unread > 0;
        let mut talk = Talk::new(id, if unread { chat.read } else { 0 });
        talk.entries = chat.last.clone();
        let from = chat.cursor.saturating_sub(PAGE).min(if unread { chat.read } else { u64::MAX });
        self.talk = Some(talk);
        let mut effects = vec![Effect::Load { conversation: id, from }];
        if let Some(other) = self.names.other(id) {
            self.names.ask_again_about(other);
            effects.extend(self.ask_names(vec![other]));
        }
        effects.extend(self.ask_group());
        effects.extend(self.ask_online());
        effects
    }

    fn on_window(
        &mut self,
        id: ConversationId,
        entries: Vec<Entry>,
        reactions: Vec<magpie_client::Reaction>,
        at_start: bool,
    ) -> Vec<Effect> {
        for entry in &entries {
            self.names.learn_entry(Some(id), entry);
        }
        let (columns, _) = self.talk_size();
        let Some(talk) = self.talk.as_mut().filter(|talk| talk.id == id) else { return Vec::new() };
        let last = talk.entries.last().map_or(0, |entry| entry.number);
        let scrolled = talk.scroll > 0 && last > 0;
        let sought = talk.chosen.is_some_and(|number| talk.entry(number).is_none());
        (talk.entries, talk.reactions, talk.at_start, talk.loading) = (entries, reactions, at_start, false);
        if talk.chosen.is_some_and(|number| talk.entry(number).is_none()) {
            talk.chosen = None;
        }
        let newest = talk.entries.last().map_or(0, |entry| entry.number);
        let mut people: Vec<UserId> = talk.entries.iter().flat_map(words::people).collect();
        people.sort_unstable();
        people.dedup();
        self.pending.retain(|pending| {
            pending.conversation != id || !matches!(pending.state, Sent::Acknowledged(number) if number <= newest)
        });
        if scrolled {
            // What is being read stays where it is.
            let below = rows::rows(self, columns).iter().filter(|row| row.number.is_some_and(|n| n > last)).count();
            if let Some(talk) = &mut self.talk {
                talk.scroll += below;
            }
        }
        if sought {
            self.show_chosen();
        }
        let mut effects: Vec<Effect> = self.ask_names(people).into_iter().collect();
        effects.extend(self.mark_read());
        effects
    }

    /// Columns and rows of what was said.
    pub(super) fn talk_size(&self) -> (usize, usize) {
        let places = Places::of(self);
        let entries = places.talk(self).entries;
        (usize::from(entries.width), usize::from(entries.height))
    }

    /// Keeps the scrolling within what there is.
    fn keep_scroll(&mut self) {
        let (columns, height) = self.talk_size();
        let most = rows::rows(self, columns).len().saturating_sub(height);
        if let Some(talk) = &mut self.talk {
            talk.scroll = talk.scroll.min(most);
        }
    }

    /// Whether the newest of this conversation is before the person's eyes.
    fn is_looked_at(&self, id: ConversationId) -> bool {
        let open = self.talk.as_ref().is_some_and(|talk| talk.id == id && talk.scroll == 0);
        open && self.focused && self.tab == Tab::Chats && self.pane == Pane::Talk
    }

    fn mark_read(&mut self) -> Vec<Effect> {
        let Some(talk) = &self.talk else { return Vec::new() };
        let (id, number) = (talk.id, talk.entries.last().map_or(0, |entry| entry.number));
        if !self.is_looked_at(id) {
            return Vec::new();
        }
        let Some(chat) = self.chats.get_mut(&id).filter(|chat| !chat.ended && chat.read < number) else {
            return Vec::new();
        };
        (chat.read, chat.unread, chat.mentioned) = (number, 0, false);
        vec![Effect::MarkRead { conversation: id, number }]
    }

    fn on_arrived(&mut self, conversation: Option<ConversationId>, entry: &Entry) -> Vec<Effect> {
        self.names.learn_entry(conversation, entry);
        let Some(id) = conversation else { return self.on_inbox(entry) };
        if self.typing.get(&id).is_some_and(|(user, _)| *user == entry.sender) {
            self.typing.remove(&id);
        }
        let mut effects = Vec::new();
        let about_group = !words::is_message(entry) && !matches!(entry.body, Body::Reacted(_) | Body::Edited(_));
        if about_group && self.talk.as_ref().is_some_and(|talk| talk.id == id) {
            effects.extend(self.ask_group());
        }
        if !self.synced || entry.sender == self.me || !words::is_message(entry) || self.is_looked_at(id) {
            return effects;
        }
        let quiet = self.chats.get(&id).is_some_and(|chat| chat.settings.do_not_disturb);
        if quiet && !words::mentions(entry, self.me) {
            return effects;
        }
        if let Some(text) = words::summary(entry, &[], id, self) {
            let title = self.title(id);
            self.say(format!("✉ {title}: {text}"));
        }
        effects.push(Effect::Bell);
        effects
    }

    fn on_inbox(&mut self, entry: &Entry) -> Vec<Effect> {
        // The operator's words wait to be read, however long ago they came.
        if !self.synced && !matches!(entry.body, Body::Notice(_)) {
            return Vec::new();
        }
        let text = match &entry.body {
            Body::ContactRequested(request) => {
                format!("{} would like to talk to you: F2, or /accept {0}", self.names.handle(request.from))
            }
            Body::ContactAccepted(accepted) => format!("{} is a contact now", self.names.name(accepted.user)),
            Body::ConversationAdded(added)
                if added.by != self.me && added.conversation.kind() == Some(ConversationKind::Group) =>
            {
                format!("{} brought you into {}", self.names.name(added.by), super::text::clean(&added.title))
            }
            Body::DeviceSignedIn(device) if device.device != self.device => {
                format!("you signed in on another device: {}", super::text::clean(&device.name))
            }
            Body::Notice(text) => {
                // It waits to be asked for: who writes something is not to be interrupted.
                self.words.push_back(super::text::clean(text));
                self.words.drain(..self.words.len().saturating_sub(WORDS_MAX));
                return vec![Effect::Bell];
            }
            Body::PasswordChanged(_) => "your password was changed".to_owned(),
            Body::Closing(at) if *at > 0 => "your account will be deleted in 30 days; a sign-in keeps it".to_owned(),
            _ => return Vec::new(),
        };
        self.say(text);
        vec![Effect::Bell]
    }

    /// Posts something; it is shown as waiting until it is in the conversation.
    pub(super) fn post(&mut self, conversation: ConversationId, content: Content) -> Vec<Effect> {
        let key = self.next_key;
        self.next_key += 1;
        self.pending.push(Pending { key, conversation, content: content.clone(), state: Sent::Waiting });
        if !self.is_online() {
            self.say("not connected: it is kept, and sent as soon as possible");
        }
        vec![Effect::Post { key, conversation, content }]
    }

    /// What an earlier run posted is shown as waiting too, before what came after it.
    fn keep_earlier(&mut self, earlier: Vec<(ConversationId, Content)>) {
        self.pending.retain(|pending| pending.key > 0);
        let waiting = |(conversation, content)| Pending { key: 0, conversation, content, state: Sent::Waiting };
        self.pending.splice(0..0, earlier.into_iter().map(waiting));
    }

    /// It stays like one of this run: others of an earlier run are there as long as they wait.
    fn on_not_sent(&mut self, conversation: ConversationId, content: Content, why: String) {
        let waits = |own: &Pending| own.key == 0 && own.conversation == conversation && own.content == content;
        let at = self.pending.iter().position(waits);
        at.map(|at| self.pending.remove(at));
        let key = self.next_key;
        self.next_key += 1;
        self.pending.insert(at.unwrap_or(0), Pending { key, conversation, content, state: Sent::Waiting });
        self.on_posted(key, Err(why));
    }

    fn on_posted(&mut self, key: u64, result: Result<magpie_client::Posted, String>) {
        let Some(at) = self.pending.iter().position(|pending| pending.key == key) else { return };
        let after = self.newest(self.pending[at].conversation);
        let pending = &mut self.pending[at];
        let here = self.talk.as_ref().filter(|talk| talk.id == pending.conversation);
        let newest = here.and_then(|talk| talk.entries.last()).map_or(0, |entry| entry.number);
        let is_message = rows::said(pending).is_some();
        match result {
            Ok(posted) if is_message && here.is_some() && posted.number > newest => {
                pending.state = Sent::Acknowledged(posted.number);
            }
            Ok(_) => drop(self.pending.remove(at)),
            Err(why) if is_message => {
                let why = self.names.named(&why);
                pending.state = Sent::Refused(Refusal { why: why.clone(), after });
                let title = self.title(self.pending[at].conversation);
                self.forget_refused();
                self.say(format!("✗ not sent to {title}: {why}"));
            }
            Err(why) => {
                self.pending.remove(at);
                self.say(format!("✗ refused: {why}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
