//! What the person asks for.

use magpie_client::{
    Content, ConversationId, ConversationKind, Dissolve, Edit, Kind, Leave, React, SetConversation, SetPrivacy,
    SetProfile,
};

use super::super::{
    command::{Command, Field, HELP, Look, Privacy, Want, WithMessage},
    editor::Editor,
    message::{Ask, Effect},
    state::{Menu, Overlay, Pane, State, Tab},
    words,
};

impl State {
    /// Does what was asked for.
    pub(in crate::commands::chat::screen) fn run(&mut self, command: Command) -> Vec<Effect> {
        self.forget_said();
        match command {
            Command::With(person, what) => self.with_person(person, what),
            Command::Message(what) => self.with_message(what),
            Command::Write(want) => {
                let draft = self.written_first(&want);
                self.overlays.push(Overlay::Prompt(want, draft));
                Vec::new()
            }
            Command::Sure(text, command) => {
                self.overlays.push(Overlay::Confirm(text, *command));
                Vec::new()
            }
            Command::List => {
                (self.tab, self.pane) = (Tab::Chats, Pane::List);
                Vec::new()
            }
            Command::Open(number) => match number.checked_sub(1).and_then(|at| self.list().get(at).map(|c| c.id)) {
                Some(id) => self.open(id),
                None => self.said(format!("there is no conversation {number}")),
            },
            Command::Goto(id, number) => self.go_to_entry(id, number),
            Command::Older => self.scroll(self.talk_size().1 as isize),
            Command::Search(words) => vec![Effect::Search(words)],
            Command::Help => {
                self.overlays.push(Overlay::Text("Keys and commands".into(), HELP.to_owned(), 0));
                Vec::new()
            }
            Command::Quit => vec![Effect::Quit],
            Command::Nothing => Vec::new(),
            Command::SendFile(path) => self.send_file(path),
            command if is_about_oneself(&command) => self.about_oneself(command),
            command => self.about_group(command),
        }
    }

    /// What was said of what was done before is no word on what is done now; what others write is.
    pub(super) fn forget_said(&mut self) {
        self.notice = self.notice.take().filter(|notice| notice.text.starts_with('✉'));
    }

    /// Says something; nothing follows.
    pub(super) fn said(&mut self, text: impl Into<String>) -> Vec<Effect> {
        self.say(text);
        Vec::new()
    }

    /// Asks the node, if it can be asked now.
    pub(super) fn ask(&mut self, ask: Ask) -> Vec<Effect> {
        if self.is_online() {
            return vec![Effect::Ask(ask)];
        }
        self.said("not connected: try again later")
    }

    /// What stands in a line before anything is written.
    fn written_first(&self, want: &Want) -> Editor {
        let group = self.talk.as_ref().and_then(|talk| talk.group.as_ref());
        Editor::with(match want {
            Want::Remark(user) => self.names.cards.get(user).map(|card| card.remark.clone()).unwrap_or_default(),
            Want::Tags(user) => self.names.cards.get(user).map(|card| card.tags.join(", ")).unwrap_or_default(),
            Want::Announce => group.map(|group| group.announcement.clone()).unwrap_or_default(),
            Want::Rename => group.map(|group| group.title.clone()).unwrap_or_default(),
            Want::Field(Field::Nickname) => self.profile.nickname.clone(),
            Want::Field(Field::Region) => self.profile.region.clone(),
            Want::Field(Field::Signature) => self.profile.signature.clone(),
            Want::Phone => self.account.as_ref().map(|account| account.phone.clone()).unwrap_or_default(),
            Want::SaveFile(name) => name.clone(),
            _ => String::new(),
        })
    }

    fn about_oneself(&mut self, command: Command) -> Vec<Effect> {
        let profile = || SetProfile { nickname: None, avatar: None, region: None, signature: None };
        let ask = match command {
            Command::Find(name) => Ask::Find(name, super::super::command::WithPerson::Card),
            Command::Join(code) => Ask::Join(code),
            Command::Set(Field::Nickname, text) => Ask::SetProfile(SetProfile { nickname: Some(text), ..profile() }),
            Command::Set(Field::Region, text) => Ask::SetProfile(SetProfile { region: Some(text), ..profile() }),
            Command::Set(Field::Signature, text) => Ask::SetProfile(SetProfile { signature: Some(text), ..profile() }),
            Command::Privacy(what, on) => {
                let set = |which| (which == what).then_some(on);
                Ask::SetPrivacy(SetPrivacy {
                    by_phone: set(Privacy::ByPhone),
                    by_handle: set(Privacy::ByHandle),
                    show_typing: set(Privacy::Typing),
                    show_online: set(Privacy::Online),
                })
            }
            Command::Phone(phone) => Ask::Phone(phone),
            Command::MyCode => Ask::MyCode,
            Command::NewCode => Ask::NewCode,
            Command::Devices => Ask::Devices,
            Command::SignOut(device) => Ask::SignOut(device),
            Command::ChangePassword { old, new } => Ask::ChangePassword { old, new },
            Command::CloseAccount(password) => Ask::CloseAccount(password),
            Command::Favourites => Ask::Favourites,
            Command::Unkeep(id) => Ask::Unkeep(id),
            Command::Shake(latitude, longitude) => {
                self.say("shaking…");
                Ask::Shake(latitude, longitude)
            }
            _ => return Vec::new(),
        };
        self.ask(ask)
    }

    fn go_to_entry(&mut self, id: ConversationId, number: u64) -> Vec<Effect> {
        let mut effects = self.open(id);
        if let Some(talk) = self.talk.as_mut().filter(|talk| talk.id == id && number > 0) {
            talk.chosen = Some(number);
            let known = talk.entry(number).is_some();
            if !known {
                effects.retain(|effect| !matches!(effect, Effect::Load { .. }));
                effects.push(Effect::Load { conversation: id, from: number.saturating_sub(50) });
            }
            self.show_chosen();
        }
        effects
    }

    /// How a conversation is shown: switches it.
    pub(super) fn look(&mut self, id: ConversationId, look: Look) -> Vec<Effect> {
        let Some(chat) = self.chats.get(&id) else { return Vec::new() };
        let (now, cursor) = (chat.settings.clone(), chat.cursor);
        let mut set =
            SetConversation { conversation: id, pinned: None, do_not_disturb: None, saved: None, hidden_at: None };
        match look {
            Look::Pinned => set.pinned = Some(!now.pinned),
            Look::Quiet => set.do_not_disturb = Some(!now.do_not_disturb),
            Look::Saved if id.kind() == Some(ConversationKind::Direct) => {
                return self.said("people are in your contacts already");
            }
            Look::Saved => set.saved = Some(!now.saved),
            Look::Hidden => {
                set.hidden_at = Some(cursor);
                self.pane = Pane::List;
            }
        }
        self.ask(Ask::SetConversation(set))
    }

    /// The message that is meant: the chosen one, else the newest that `fits`.
    fn meant_message(&self, fits: impl Fn(&magpie_client::Entry) -> bool) -> Option<u64> {
        let talk = self.talk.as_ref()?;
        let newest = || talk.entries.iter().rev().find(|entry| words::is_message(entry) && fits(entry));
        talk.chosen.or_else(|| newest().map(|entry| entry.number))
    }

    fn with_message(&mut self, what: WithMessage) -> Vec<Effect> {
        let me = self.me;
        let mine = matches!(what, WithMessage::Edit(_) | WithMessage::Recall);
        let file = matches!(what, WithMessage::SaveFile(_));
        let fits = |entry: &magpie_client::Entry| (!mine || entry.sender == me) && (!file || words::has_file(entry));
        let Some(number) = self.meant_message(fits) else {
            return self.said("there is no message to do this with");
        };
        if let Some(entry) = self.chosen() {
            match what {
                WithMessage::Edit(_) if !self.may_edit(entry) => return self.said("only your own words can be edited"),
                WithMessage::Recall if !self.may_recall(entry) => {
                    return self.said("only your own messages can be recalled");
                }
                _ => {}
            }
        }
        let Some(talk) = &mut self.talk else { return Vec::new() };
        let id = talk.id;
        talk.chosen = None;
        match what {
            WithMessage::Quote => {
                talk.quote = Some(number);
                Vec::new()
            }
            WithMessage::React(emoji) => {
                let has = talk.reactions.iter().any(|r| r.number == number && r.user == me && r.emoji == emoji);
                self.post(id, Content::React(React { number, emoji, on: !has }))
            }
            WithMessage::Edit(Some(text)) => self.post(id, Content::Edit(Edit { number, kind: Kind::Text(text) })),
            WithMessage::Edit(None) => match talk.entry(number).and_then(words::message).map(|message| message.kind) {
                Some(Kind::Text(text)) => {
                    talk.editing = Some(number);
                    self.drafts.insert(id, Editor::with(text));
                    Vec::new()
                }
                _ => self.said("only words can be edited"),
            },
            WithMessage::Recall => self.post(id, Content::Recall(number)),
            WithMessage::Delete => self.ask(Ask::Delete { conversation: id, number }),
            WithMessage::Keep => self.ask(Ask::Keep { conversation: id, number }),
            WithMessage::Forward => {
                let item = |chat: &super::Chat| (self.title(chat.id), Command::Forward(id, number, chat.id));
                let items = self.list().into_iter().map(item).collect();
                self.overlays.push(Overlay::Menu(Menu { title: "Forward to".into(), items, at: 0 }));
                Vec::new()
            }
            WithMessage::SaveFile(path) => self.save_file(number, path),
        }
    }

    pub(super) fn forward(&mut self, from: ConversationId, number: u64, to: ConversationId) -> Vec<Effect> {
        let open = self.talk.as_ref().filter(|talk| talk.id == from);
        let Some(message) = open.and_then(|talk| talk.entry(number)).and_then(words::message) else {
            return self.said("that message is gone");
        };
        self.say(format!("forwarded to {}", self.title(to)));
        match message.kind {
            Kind::Text(text) => self.post(to, Content::Text(text)),
            kind if !kind.blobs().is_empty() => {
                self.forward_files(magpie_client::MessageId { conversation: from, number }, to, kind)
            }
            kind => self.post(to, Content::Say(magpie_client::Message::new(kind))),
        }
    }

    fn about_group(&mut self, command: Command) -> Vec<Effect> {
        if let Command::NewGroup { title, people } = command {
            return self.new_group(title, people);
        }
        if let Command::PickPeople { invite: false } = command {
            return self.pick(None);
        }
        let Some(id) = self.talk.as_ref().map(|talk| talk.id) else {
            return self.said("no conversation is open");
        };
        if id.kind() == Some(ConversationKind::Direct) && is_for_groups(&command) {
            return self.said("this is not a group");
        }
        match command {
            Command::PickPeople { .. } => self.pick(Some(id)),
            Command::Rename(title) => self.post(id, Content::Rename(title)),
            Command::Leave => self.post(id, Content::Leave(Leave)),
            Command::Dissolve => self.post(id, Content::Dissolve(Dissolve)),
            Command::Announce(text) => self.post(id, Content::Announce(text)),
            Command::MuteAll(on) => self.post(id, Content::MuteAll(on)),
            Command::Nick(name) => self.post(id, Content::Nickname(name)),
            Command::Members => self.members_menu(),
            Command::GroupMenu => self.conversation_menu(),
            Command::Announcement => self.show_announcement(),
            Command::Code(joining) => self.set_code(id, joining),
            Command::ShowCode => self.show_code(),
            Command::Look(look) => self.look(id, look),
            Command::Forward(from, number, to) => self.forward(from, number, to),
            Command::Clear => {
                let number = self.chats.get(&id).map_or(0, |chat| chat.cursor);
                self.ask(Ask::DeleteUpTo { conversation: id, number })
            }
            _ => Vec::new(),
        }
    }
}

fn is_about_oneself(command: &Command) -> bool {
    matches!(
        command,
        Command::Find(_)
            | Command::Join(_)
            | Command::Set(..)
            | Command::Privacy(..)
            | Command::Phone(_)
            | Command::MyCode
            | Command::NewCode
            | Command::Devices
            | Command::SignOut(_)
            | Command::ChangePassword { .. }
            | Command::CloseAccount(_)
            | Command::Favourites
            | Command::Unkeep(_)
            | Command::Shake(..)
    )
}

fn is_for_groups(command: &Command) -> bool {
    !matches!(command, Command::GroupMenu | Command::Look(_) | Command::Forward(..) | Command::Clear | Command::Members)
}
