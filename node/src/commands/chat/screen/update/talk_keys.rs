//! Keys in a conversation.

use magpie_client::{Content, Kind, Message, UserId, limits::TEXT_LEN_MAX};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    super::{
        command::{Command, Typed, Want, WithMessage, parse},
        message::Effect,
        rows,
        state::{Pane, State},
        words,
    },
    keys::edit,
};

/// How often others are told that this person types, at most.
const TYPING_EVERY_MS: u64 = 4_000;

/// Deleting a message for oneself, with a question before it.
pub(super) fn delete_if_sure() -> Command {
    Command::Sure("Delete this message, for you alone?".to_owned(), Box::new(Command::Message(WithMessage::Delete)))
}

impl State {
    pub(super) fn on_talk_key(&mut self, key: &KeyEvent) -> Vec<Effect> {
        let page = self.talk_size().1.saturating_sub(2).max(1);
        match key.code {
            KeyCode::PageUp => return self.scroll(page as isize),
            KeyCode::PageDown => return self.scroll(-(page as isize)),
            _ => {}
        }
        if self.talk.as_ref().is_some_and(|talk| talk.chosen.is_some()) {
            return self.on_chosen_key(key);
        }
        let Some(id) = self.talk.as_ref().map(|talk| talk.id) else { return Vec::new() };
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let newline = key.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::SHIFT);
        let draft = self.drafts.entry(id).or_default();
        match key.code {
            KeyCode::Enter if newline => draft.insert("\n"),
            KeyCode::Char('j') if control => draft.insert("\n"),
            KeyCode::Enter => return self.submit(),
            KeyCode::Char('o') if control => return self.run(Command::GroupMenu),
            KeyCode::Char('t') if control => return self.take_back(),
            KeyCode::Char('r') if control => return self.run(Command::Write(Want::Search)),
            KeyCode::Up if draft.is_empty() => return self.choose(-1),
            KeyCode::End if draft.is_empty() => return self.scroll(isize::MIN / 2),
            KeyCode::Esc => self.escape(),
            _ if edit(draft, key) => return self.on_typed_some(),
            _ => {}
        }
        Vec::new()
    }

    fn escape(&mut self) {
        let Some(talk) = &mut self.talk else { return };
        if talk.editing.take().is_some() {
            self.drafts.remove(&talk.id);
        } else if talk.quote.take().is_none() {
            self.pane = Pane::List;
        }
    }

    fn on_typed_some(&mut self) -> Vec<Effect> {
        let Some((id, draft)) = self.talk.as_ref().map(|talk| talk.id).zip(self.draft()) else { return Vec::new() };
        let silent = draft.is_empty() || draft.text().starts_with('/') || !self.is_online();
        if silent || self.now_ms < self.told_typing_ms + TYPING_EVERY_MS {
            return Vec::new();
        }
        self.told_typing_ms = self.now_ms;
        vec![Effect::Typing(id)]
    }

    /// Scrolls by so many lines, up where positive.
    pub(super) fn scroll(&mut self, by: isize) -> Vec<Effect> {
        let (columns, height) = self.talk_size();
        let most = rows::rows(self, columns).len().saturating_sub(height);
        let Some(talk) = &mut self.talk else { return Vec::new() };
        talk.scroll = talk.scroll.saturating_add_signed(by).min(most);
        let near = talk.scroll + height >= most;
        let first = talk.entries.first().map_or(0, |entry| entry.number);
        if by > 0 && near && !talk.at_start && !talk.loading && first > 0 {
            talk.loading = true;
            return vec![Effect::Load { conversation: talk.id, from: first.saturating_sub(super::PAGE) }];
        }
        self.mark_read()
    }

    /// Goes to the next message that can be chosen, up or down.
    fn choose(&mut self, by: i32) -> Vec<Effect> {
        let lowest = self.lowest_in_sight();
        let Some(talk) = &mut self.talk else { return Vec::new() };
        let can: Vec<u64> = talk.entries.iter().filter(|e| words::is_message(e)).map(|e| e.number).collect();
        let at = talk.chosen.and_then(|number| can.binary_search(&number).ok());
        talk.chosen = match (at, by < 0) {
            (None, _) => can.iter().rev().find(|number| **number <= lowest).copied(),
            (Some(0), true) => can.first().copied(),
            (Some(at), true) => can.get(at - 1).copied(),
            (Some(at), false) => can.get(at + 1).copied(),
        };
        if talk.chosen.is_none() {
            talk.scroll = 0;
        }
        let wants_more = at == Some(0) && by < 0;
        self.show_chosen();
        if wants_more { self.scroll(1) } else { Vec::new() }
    }

    /// The last entry that is shown now.
    fn lowest_in_sight(&self) -> u64 {
        let rows = rows::rows(self, self.talk_size().0);
        let to = rows.len().saturating_sub(self.talk.as_ref().map_or(0, |talk| talk.scroll));
        rows[..to].iter().rev().find_map(|row| row.number).unwrap_or(u64::MAX)
    }

    /// Scrolls so that the chosen message is in sight.
    pub(super) fn show_chosen(&mut self) {
        let (columns, height) = self.talk_size();
        let rows = rows::rows(self, columns);
        let Some(talk) = &mut self.talk else { return };
        let Some(number) = talk.chosen else { return };
        let is = |row: &rows::Row| row.number == Some(number);
        let (Some(first), Some(last)) = (rows.iter().position(is), rows.iter().rposition(is)) else { return };
        let (below_last, below_first) = (rows.len() - 1 - last, rows.len() - first);
        talk.scroll = talk.scroll.min(below_last).max(below_first.saturating_sub(height));
    }

    fn on_chosen_key(&mut self, key: &KeyEvent) -> Vec<Effect> {
        let what = match key.code {
            KeyCode::Up | KeyCode::Char('k') => return self.choose(-1),
            KeyCode::Down | KeyCode::Char('j') => return self.choose(1),
            KeyCode::Enter | KeyCode::Char('m') => return self.message_menu(),
            KeyCode::Char('+') => return self.run(Command::Write(Want::React)),
            KeyCode::Char('r') => WithMessage::Quote,
            KeyCode::Char('e') => WithMessage::Edit(None),
            KeyCode::Char('x') => WithMessage::Recall,
            KeyCode::Char('d') => return self.run(delete_if_sure()),
            KeyCode::Char('f') => WithMessage::Keep,
            KeyCode::Char('w') => WithMessage::Forward,
            KeyCode::Char('s') => WithMessage::SaveFile(None),
            KeyCode::Esc | KeyCode::End => {
                if let Some(talk) = &mut self.talk {
                    (talk.chosen, talk.scroll) = (None, 0);
                }
                return Vec::new();
            }
            _ => return Vec::new(),
        };
        self.run(Command::Message(what))
    }

    /// The person is done writing.
    fn submit(&mut self) -> Vec<Effect> {
        let Some(talk) = &self.talk else { return Vec::new() };
        let id = talk.id;
        self.forget_said();
        let Some(draft) = self.drafts.get_mut(&id) else { return Vec::new() };
        let text = match parse(draft.text()) {
            Typed::Nothing => return Vec::new(),
            Typed::Wrong(why) => {
                self.say(why);
                return Vec::new();
            }
            Typed::Command(command) => {
                draft.take();
                return self.run(command);
            }
            Typed::Text(text) => text,
        };
        if text.len() > TEXT_LEN_MAX {
            self.say(format!("too long: {} bytes, {TEXT_LEN_MAX} can be sent at once; it is still here", text.len()));
            return Vec::new();
        }
        if self.chats.get(&id).is_none_or(|chat| chat.ended) {
            self.say("you are no longer in this conversation");
            return Vec::new();
        }
        draft.take();
        self.told_typing_ms = 0;
        let mentions = self.meant(&text);
        let Some(talk) = &mut self.talk else { return Vec::new() };
        talk.scroll = 0;
        talk.read_before = 0;
        if let Some(number) = talk.editing.take() {
            return self.post(id, Content::Edit(magpie_client::Edit { number, kind: Kind::Text(text) }));
        }
        let quote = talk.quote.take().unwrap_or(0);
        if quote == 0 && mentions.is_empty() {
            return self.post(id, Content::Text(text));
        }
        self.post(id, Content::Say(Message { kind: Kind::Text(text), quote, mentions }))
    }

    /// Who is meant by `@name` in a text to a group.
    fn meant(&self, text: &str) -> Vec<UserId> {
        let Some(talk) = self.talk.as_ref().filter(|talk| !talk.members.is_empty()) else { return Vec::new() };
        let lower = text.to_lowercase();
        let ends = |rest: &str| rest.chars().next().is_none_or(|c| !c.is_alphanumeric());
        let stands = |name: &str| {
            let name = format!("@{}", name.to_lowercase());
            lower.match_indices(&name).any(|(at, found)| ends(&lower[at + found.len()..]))
        };
        if stands("all") && self.is_admin() {
            return vec![UserId::EVERYONE];
        }
        let meant = talk.members.iter().filter(|user| {
            **user != self.me && (stands(&self.names.name_in(talk.id, **user)) || stands(&self.names.handle(**user)))
        });
        meant.copied().take(magpie_client::limits::MENTIONS_MAX).collect()
    }
}
