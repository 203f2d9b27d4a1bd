//! What comes from the node. Entries are always read from the store, where none is missing; an event only says that
//! there are some.

use magpie_client::{Body, Content, ConversationId, ConversationKind, Entry, Event, TimelineId, UserId, entry};

use super::{
    super::{show, terminal::Line},
    Focus, PAGE, Talk,
};

/// Lines that wait to be printed; beyond this, entries wait in the store.
const LINES_MAX: usize = 256;

/// Lost messages that are shown; the newest.
const LOST_SHOWN: usize = 20;

/// How long a line waits for the names in it.
const NAMES_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// Who is mentioned in an entry.
fn people_in(entry: &Entry) -> Vec<UserId> {
    let mut people = vec![entry.sender];
    match &entry.body {
        Body::Joined(joined) => people.extend([joined.user, joined.by]),
        Body::Removed(removed) => people.extend([removed.user, removed.by]),
        Body::Left(user) => people.push(*user),
        Body::ConversationAdded(added) => people.push(added.by),
        _ => {}
    }
    people
}

impl Talk {
    /// Something happened. An error ends the conversation.
    pub(in super::super) fn on_event(&mut self, event: Event) -> Result<(), &'static str> {
        match event {
            Event::Online => {
                if !std::mem::replace(&mut self.online, true) {
                    self.note(if self.was_online { "* back online" } else { "* online" });
                    self.was_online = true;
                }
                self.told_kept = false;
            }
            Event::Offline { .. } => {
                self.online = false;
                self.note("* connection lost, retrying");
            }
            Event::Synced if std::mem::take(&mut self.resetting) => self.shown = self.as_new_device(),
            Event::Entry { timeline, entry } => {
                let shown = self.shown.get(&timeline).copied().unwrap_or(0);
                if entry.number > shown && !self.behind.contains(&timeline) {
                    self.behind.push_back(timeline);
                }
            }
            Event::Resolved { result: Err(error), content, .. } => {
                let what = match content {
                    Content::Text(text) => format!("{:?}", show::safe(&text)),
                    _ => "a line".to_owned(),
                };
                self.note(format!("* refused: {what} of an earlier run: {}", show::error(&error)));
            }
            Event::Lagged => self.all_behind(),
            Event::HistoryReset => {
                self.resetting = true;
                self.note("* the node was restored from a backup; /history shows what it has");
            }
            Event::HistoryLost { count } => {
                self.note(format!(
                    "* the backup is older than {count} of your messages, which are gone for everybody:"
                ));
                let lost = self.client.lost().unwrap_or_default();
                for (_, entry) in lost.iter().rev().take(LOST_SHOWN).rev() {
                    if let Body::Text(text) = &entry.body {
                        self.note(format!("*   {}", show::safe(text)));
                    }
                }
            }
            Event::StoreFailed { detail } => self.note(format!("* the store fails: {}", show::safe(&detail))),
            Event::SignedOut => return Err("this device was signed out; start again to sign in with the password"),
            Event::Replaced => return Err("the same device signed in again from elsewhere, with a copy of this store"),
            _ => {}
        }
        Ok(())
    }

    /// Whether there are entries to show, and room for their lines.
    pub(in super::super) fn can_show(&self) -> bool {
        !self.resetting && !self.behind.is_empty() && self.lines.len() < LINES_MAX
    }

    /// Asks for the handles of people in what comes next, so that it can be shown with names. Without an answer soon
    /// it is shown without.
    pub(in super::super) async fn learn_names(&mut self) {
        let Some(timeline) = self.behind.front().copied().filter(|_| self.online && self.can_show()) else { return };
        let after = self.shown.get(&timeline).copied().unwrap_or(0);
        let page = self.client.timeline_history(timeline, after, PAGE).unwrap_or_default();
        let mut unknown: Vec<_> = page.iter().flat_map(people_in).filter(|user| !self.people.knows(*user)).collect();
        unknown.retain(|user| self.asked_names.insert(*user));
        let asked = unknown.iter().map(|user| self.client.who(*user));
        if let Ok(found) = tokio::time::timeout(NAMES_WAIT, futures_util::future::join_all(asked)).await {
            found.into_iter().flatten().for_each(|found| self.people.learn(found.user, &found.handle));
        }
    }

    /// Shows what has come, as far as there is room.
    pub(in super::super) fn show_new(&mut self) {
        while self.can_show() {
            let Some(timeline) = self.behind.front().copied() else { return };
            let after = self.shown.get(&timeline).copied().unwrap_or(0);
            let page = match self.client.timeline_history(timeline, after, PAGE) {
                Ok(page) => page,
                Err(error) => {
                    self.note(format!("* {}", show::error(&error)));
                    Vec::new()
                }
            };
            let Some(last) = page.last() else {
                self.behind.pop_front();
                continue;
            };
            self.shown.insert(timeline, last.number);
            match timeline {
                TimelineId::Inbox(_) => page.into_iter().for_each(|entry| self.on_inbox(entry)),
                TimelineId::Conversation(id) => self.show_entries(id, &page),
            }
        }
    }

    /// Every timeline may have something new; the inbox first, for it says who everybody is.
    pub(super) fn all_behind(&mut self) {
        let known = self.client.conversations();
        self.behind.clear();
        self.behind.push_back(self.inbox());
        self.behind.extend(known.iter().map(|conversation| TimelineId::Conversation(conversation.id)));
    }

    fn show_entries(&mut self, id: ConversationId, entries: &[Entry]) {
        let title = (self.focus != Focus::Open(id)).then(|| self.title(id));
        let lines = self.entry_lines(id, entries, title.as_deref());
        self.lines.extend(lines);
        if title.is_none() {
            self.mark_read(id);
        }
    }

    pub(super) fn entry_lines(&mut self, id: ConversationId, entries: &[Entry], title: Option<&str>) -> Vec<Line> {
        entries.iter().for_each(|entry| self.people.learn_entry(entry));
        let me = self.me;
        let direct = id.kind() == Some(ConversationKind::Direct);
        let line = |entry: &Entry| match &entry.body {
            // Goes without saying: that the two are in it, and whoever made a group; the inbox says who added us.
            Body::Joined(joined) if direct || joined.user == joined.by || joined.user == me => None,
            _ => show::entry(entry, &self.people, &self.clock, title).map(Line::Out),
        };
        entries.iter().filter_map(line).collect()
    }

    pub(super) fn on_inbox(&mut self, entry: Entry) {
        self.people.learn_entry(&entry);
        match entry.body {
            Body::ContactRequested(request) => self.tell_request(request.from, &request.greeting),
            Body::ConversationAdded(added) => self.on_added(&added),
            Body::ConversationEnded(ended) if self.is_open_and_over(ended.conversation) => {
                self.focus = Focus::Closed;
                self.note("* no conversation is open now: /list");
            }
            Body::DeviceSignedIn(device) if !self.is_this(device.device) => {
                self.note(format!("* you signed in on another device: {}", show::quote(&device.name)));
            }
            Body::Notice(text) => self.out(format!("* a word from the operator: {}", show::quote(&text))),
            Body::DeviceSignedOut(device) if !self.is_this(device.device) => {
                self.note(format!("* another device of yours was signed out: {}", show::quote(&device.name)));
            }
            _ => {}
        }
    }

    fn is_open_and_over(&self, id: ConversationId) -> bool {
        // By now the person may be in it again.
        self.focus == Focus::Open(id) && self.conversation(id).is_none_or(|known| known.ended)
    }

    fn on_added(&mut self, added: &entry::ConversationAdded) {
        let id = added.conversation;
        let first = self.order.is_empty();
        if !self.order.contains(&id) {
            self.order.push(id);
        }
        let title = self.title(id);
        if id.kind() == Some(ConversationKind::Direct) {
            self.out(format!("* you and {title} can talk now"));
            let awaited = matches!(self.focus, Focus::Awaiting(user) if ConversationId::direct(self.me, user) == id);
            if awaited || self.focus == Focus::Free {
                self.focus = Focus::Open(id);
            }
            return;
        }
        if added.by == self.me {
            self.out(format!("* you made the group {title}"));
        } else {
            let by = self.people.name(added.by);
            self.out(format!("* {by} added you to the group {title}"));
        }
        if first && self.focus == Focus::Free {
            self.open(id);
        }
    }
}
