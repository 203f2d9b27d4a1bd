//! Keys in the lists, and in what lies above everything.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::super::{
    command::{Command, Look, Want},
    editor::Editor,
    layout::text_box,
    message::Effect,
    pages::PageLine,
    state::{Menu, Overlay, Pane, Pick, State, Tab},
    text::hang,
};

/// How long one Ctrl-C waits for the other.
const QUIT_MS: u64 = 3_000;

/// The line that a key goes to, of so many.
fn moved(key: &KeyEvent, at: usize, len: usize, page: usize) -> Option<usize> {
    let last = len.saturating_sub(1);
    Some(match key.code {
        KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => (at + 1).min(last),
        KeyCode::PageUp => at.saturating_sub(page),
        KeyCode::PageDown => (at + page).min(last),
        KeyCode::Home => 0,
        KeyCode::End => last,
        _ => return None,
    })
}

/// The line of a menu that begins with this key's letter and two blanks.
fn named(menu: &Menu, key: &KeyEvent) -> Option<usize> {
    let KeyCode::Char(c) = key.code else { return None };
    menu.items.iter().position(|(label, _)| label.strip_prefix(c).is_some_and(|rest| rest.starts_with("  ")))
}

/// Keys that change what is being written.
pub(super) fn edit(editor: &mut Editor, key: &KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Backspace if control || key.modifiers.contains(KeyModifiers::ALT) => editor.delete_word(),
        KeyCode::Char('w') if control => editor.delete_word(),
        KeyCode::Char('u') if control => drop(editor.take()),
        KeyCode::Char('a') if control => editor.home(),
        KeyCode::Char('e') if control => editor.end(),
        KeyCode::Char('h') if control => editor.backspace(),
        KeyCode::Backspace => editor.backspace(),
        KeyCode::Delete => editor.delete(),
        KeyCode::Left => editor.left(),
        KeyCode::Right => editor.right(),
        KeyCode::Home => editor.home(),
        KeyCode::End => editor.end(),
        KeyCode::Char(c) if !control && !key.modifiers.contains(KeyModifiers::ALT) => {
            editor.insert(c.encode_utf8(&mut [0; 4]));
        }
        _ => return false,
    }
    true
}

impl State {
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Vec<Effect> {
        if key.kind == KeyEventKind::Release {
            return Vec::new();
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            if self.now_ms < self.quit_until_ms {
                return vec![Effect::Quit];
            }
            self.quit_until_ms = self.now_ms + QUIT_MS;
            self.say("Ctrl-C again stops");
            return Vec::new();
        }
        if let Some(overlay) = self.overlays.pop() {
            return self.on_overlay_key(overlay, &key);
        }
        match key.code {
            KeyCode::F(5) => {
                let word = self.words.pop_front();
                self.overlays.extend(word.map(|text| Overlay::Text("A word from the operator".into(), text, 0)));
                Vec::new()
            }
            KeyCode::F(n @ 1..=4) => self.go_to(Tab::ALL[usize::from(n) - 1]),
            KeyCode::Tab | KeyCode::BackTab => {
                let other = if self.pane == Pane::List { Pane::Talk } else { Pane::List };
                self.pane = if self.tab == Tab::Chats && self.talk.is_some() { other } else { Pane::List };
                Vec::new()
            }
            _ if self.tab == Tab::Chats && self.pane == Pane::Talk => self.on_talk_key(&key),
            _ => self.on_list_key(&key),
        }
    }

    pub(super) fn on_paste(&mut self, text: &str) -> Vec<Effect> {
        if let Some(Overlay::Prompt(_, editor)) = self.overlays.last_mut() {
            editor.insert(&text.replace('\n', " "));
        } else if let Some(talk) = self.talk.as_ref().filter(|_| self.pane == Pane::Talk && self.overlays.is_empty()) {
            self.drafts.entry(talk.id).or_default().insert(text);
        }
        Vec::new()
    }

    fn go_to(&mut self, tab: Tab) -> Vec<Effect> {
        (self.tab, self.pane) = (tab, Pane::List);
        match tab {
            Tab::Contacts => {
                self.names.ask_again();
                let people = self.names.cards.keys().copied().collect();
                self.ask_names(people).into_iter().chain(self.ask_online()).collect()
            }
            Tab::Me if self.is_online() => vec![Effect::Ask(super::Ask::Account)],
            _ => Vec::new(),
        }
    }

    fn on_list_key(&mut self, key: &KeyEvent) -> Vec<Effect> {
        let at = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        match key.code {
            KeyCode::Char(c @ '1'..='4') => return self.go_to(Tab::ALL[c as usize - '1' as usize]),
            KeyCode::Left => return self.go_to(Tab::ALL[at.saturating_sub(1)]),
            KeyCode::Right => return self.go_to(Tab::ALL[(at + 1).min(3)]),
            KeyCode::Char('q') => return vec![Effect::Quit],
            KeyCode::Char('?') => return self.run(Command::Help),
            KeyCode::Char('/') => return self.run(Command::Write(Want::Search)),
            KeyCode::Char('a') => return self.run(Command::Write(Want::Add)),
            KeyCode::Char('n') => return self.run(Command::PickPeople { invite: false }),
            _ => {}
        }
        match self.tab {
            Tab::Chats => self.on_chats_key(key),
            tab => {
                let lines = self.lines(tab);
                let line = self.line_at[at].min(lines.len().saturating_sub(1));
                if let Some(to) = moved(key, line, lines.len(), usize::from(self.size.1 / 2)) {
                    // A heading stands before others, and after the first lines.
                    let is_heading = lines.get(to).is_some_and(PageLine::is_heading);
                    self.line_at[at] = if !is_heading {
                        to
                    } else if to > line {
                        to + 1
                    } else {
                        to - 1
                    };
                    return Vec::new();
                }
                let chosen = matches!(key.code, KeyCode::Enter | KeyCode::Char('m' | ' '));
                match lines.into_iter().nth(line).filter(|_| chosen) {
                    Some(line) => self.run(line.command),
                    None => Vec::new(),
                }
            }
        }
    }

    fn on_chats_key(&mut self, key: &KeyEvent) -> Vec<Effect> {
        let list: Vec<_> = self.list().iter().map(|chat| chat.id).collect();
        let at = list.iter().position(|id| Some(*id) == self.chat_at).unwrap_or(0);
        if let Some(at) = moved(key, at, list.len(), usize::from(self.size.1 / 4)) {
            self.chat_at = list.get(at).copied();
            return Vec::new();
        }
        let Some(id) = list.get(at).copied() else { return Vec::new() };
        match key.code {
            KeyCode::Enter => self.open(id),
            KeyCode::Char('p') => self.look(id, Look::Pinned),
            KeyCode::Char('d') => self.look(id, Look::Quiet),
            KeyCode::Char('s') => self.look(id, Look::Saved),
            KeyCode::Char('h') => self.look(id, Look::Hidden),
            KeyCode::Char('m') => {
                let mut effects = self.open(id);
                effects.extend(self.run(Command::GroupMenu));
                effects
            }
            _ => Vec::new(),
        }
    }

    /// The overlay was taken away; what stays open is put back.
    fn on_overlay_key(&mut self, overlay: Overlay, key: &KeyEvent) -> Vec<Effect> {
        if key.code == KeyCode::Esc {
            return Vec::new();
        }
        match overlay {
            Overlay::Menu(menu) => self.on_menu_key(menu, key),
            Overlay::Pick(pick) => self.on_pick_key(pick, key),
            Overlay::Prompt(want, editor) => self.on_prompt_key(want, editor, key),
            Overlay::Confirm(text, command) => match key.code {
                KeyCode::Char('y' | 'Y') => self.run(command),
                KeyCode::Char('n' | 'N') => Vec::new(),
                _ => {
                    self.overlays.push(Overlay::Confirm(text, command));
                    Vec::new()
                }
            },
            Overlay::Text(title, text, at) => {
                // The last line need not go further up than to the bottom.
                let (columns, rows) = text_box(self.size);
                let lines = (hang(&text, columns).len() + 1).saturating_sub(rows);
                match moved(key, at.min(lines.saturating_sub(1)), lines, usize::from(self.size.1 / 2)) {
                    Some(at) => self.overlays.push(Overlay::Text(title, text, at)),
                    None if matches!(key.code, KeyCode::Enter | KeyCode::Char('q')) => {}
                    None => self.overlays.push(Overlay::Text(title, text, at)),
                }
                Vec::new()
            }
        }
    }

    fn on_menu_key(&mut self, mut menu: Menu, key: &KeyEvent) -> Vec<Effect> {
        if let Some(at) = moved(key, menu.at, menu.items.len(), usize::from(self.size.1 / 2)) {
            menu.at = at;
        } else if let Some(at) = named(&menu, key) {
            return self.run(menu.items[at].1.clone());
        } else if let KeyCode::Enter | KeyCode::Char(' ') = key.code {
            match menu.items.get(menu.at) {
                None | Some((_, Command::Nothing)) => {}
                Some((_, command)) => return self.run(command.clone()),
            }
        }
        self.overlays.push(Overlay::Menu(menu));
        Vec::new()
    }

    fn on_pick_key(&mut self, mut pick: Pick, key: &KeyEvent) -> Vec<Effect> {
        if let Some(at) = moved(key, pick.at, pick.people.len(), usize::from(self.size.1 / 2)) {
            pick.at = at;
        } else if key.code == KeyCode::Char(' ') {
            if let Some((_, chosen)) = pick.people.get_mut(pick.at) {
                *chosen = !*chosen;
            }
        } else if key.code == KeyCode::Enter {
            let chosen: Vec<_> = pick.people.iter().filter(|(_, chosen)| *chosen).map(|(user, _)| *user).collect();
            if !chosen.is_empty() {
                return self.picked(pick.group, chosen);
            }
            self.say("Space chooses a person");
        }
        self.overlays.push(Overlay::Pick(pick));
        Vec::new()
    }

    fn on_prompt_key(&mut self, want: Want, mut editor: Editor, key: &KeyEvent) -> Vec<Effect> {
        if key.code == KeyCode::Enter {
            return match want.command(editor.text().to_owned()) {
                Ok(command) => self.run(command),
                Err(why) => {
                    self.say(why);
                    Vec::new()
                }
            };
        }
        edit(&mut editor, key);
        self.overlays.push(Overlay::Prompt(want, editor));
        Vec::new()
    }
}
