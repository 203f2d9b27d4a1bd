//! Menus: what can be done with a person, a conversation, a message.

use magpie_client::{ContactState, ConversationKind, Kind, UserId};

use super::super::{
    command::{Command, Joining, Look, Person, Want, WithMessage, WithPerson},
    message::Effect,
    state::{Menu, Overlay, State},
    text::{clean, cut},
    words,
};

fn sure(text: impl Into<String>, command: Command) -> Command {
    Command::Sure(text.into(), Box::new(command))
}

fn message(label: &str, what: WithMessage) -> (String, Command) {
    (label.to_owned(), Command::Message(what))
}

impl State {
    fn menu(&mut self, title: String, items: Vec<(String, Command)>) -> Vec<Effect> {
        let at = items.iter().position(|(_, command)| *command != Command::Nothing).unwrap_or(0);
        self.overlays.push(Overlay::Menu(Menu { title, items, at }));
        Vec::new()
    }

    /// What a person shows of themselves, one line each.
    pub(in super::super) fn about_person(&self, user: UserId) -> Vec<String> {
        let mut about = vec![format!("handle     {}", self.names.handle(user))];
        let mut line = |what: &str, text: &str| {
            if !text.trim().is_empty() {
                about.push(format!("{what:<10} {}", clean(text).replace('\n', " ")));
            }
        };
        if let Some(profile) = self.names.profile(user) {
            line("nickname", &profile.nickname);
            line("region", &profile.region);
            line("signature", &profile.signature);
        }
        if let Some(card) = self.names.cards.get(&user) {
            line("remark", &card.remark);
            line("tags", &card.tags.join(", "));
            if card.state == Some(ContactState::Waiting) {
                line("writes", &card.greeting);
            }
            let state = match card.state {
                _ if card.blocked => "blocked: nothing of them comes through",
                Some(ContactState::Waiting) => "asks to talk to you",
                Some(ContactState::Requested) => "asked; no answer yet",
                Some(ContactState::Accepted) if self.online.contains(&user) => "a contact, online",
                Some(ContactState::Accepted) => "a contact",
                None => "",
            };
            line("", state);
        } else if user != self.me {
            line("", "not a contact");
        }
        about
    }

    pub(super) fn person_menu(&mut self, user: UserId) -> Vec<Effect> {
        let effects: Vec<Effect> = self.ask_names(vec![user]).into_iter().collect();
        let with = |label: &str, what| (label.to_owned(), Command::With(Person::Is(user), what));
        let name = self.names.name(user);
        let mut items: Vec<_> = self.about_person(user).into_iter().map(|line| (line, Command::Nothing)).collect();
        let card = self.names.cards.get(&user).cloned();
        let state = card.as_ref().and_then(|card| card.state);
        let blocked = card.as_ref().is_some_and(|card| card.blocked);
        items.push((String::new(), Command::Nothing));
        if user != self.me {
            match state {
                Some(ContactState::Waiting) => {
                    items.push(with("Accept", WithPerson::Accept));
                    items.push(with("Refuse", WithPerson::Refuse));
                }
                Some(ContactState::Accepted) => items.push(with("Write a message", WithPerson::Talk)),
                Some(ContactState::Requested) => items.push(with("Ask again", WithPerson::Talk)),
                None => items.push(with("Ask to be contacts", WithPerson::Talk)),
            }
            if let Some(card) = card.filter(|card| card.state == Some(ContactState::Accepted)) {
                let starred = card.starred;
                items.push(with(if starred { "Take the star off" } else { "Star" }, WithPerson::Star(!starred)));
                items.push(("Remark".into(), Command::Write(Want::Remark(user))));
                items.push(("Tags".into(), Command::Write(Want::Tags(user))));
                items.push(("Delete from contacts".into(), self.forget(user)));
            }
            let block = Command::With(Person::Is(user), WithPerson::Block(!blocked));
            items.push(match blocked {
                true => ("Let through again".into(), block),
                false => ("Block".into(), sure(format!("Block {name}? Nothing of them comes through."), block)),
            });
        }
        items.extend(self.member_items(user));
        self.menu(name, items);
        effects
    }

    fn forget(&self, user: UserId) -> Command {
        let command = Command::With(Person::Is(user), WithPerson::Forget);
        sure(format!("Delete {}? Neither of you can write to the other then.", self.names.name(user)), command)
    }

    /// What can be done with a member of the open group.
    fn member_items(&self, user: UserId) -> Vec<(String, Command)> {
        let Some(talk) = self.talk.as_ref().filter(|talk| talk.id.kind() == Some(ConversationKind::Group)) else {
            return Vec::new();
        };
        let Some(group) = talk.group.as_ref().filter(|_| self.is_admin() && user != self.me) else { return Vec::new() };
        if !talk.members.contains(&user) {
            return Vec::new();
        }
        let name = self.names.name_in(talk.id, user);
        let with = |what| Command::With(Person::Is(user), what);
        let muted = group.muted.iter().any(|(who, until)| *who == user && *until > self.now_ms);
        let mut items = vec![match muted {
            true => ("Group: may write again".to_owned(), with(WithPerson::Mute(0))),
            false => ("Group: mute for an hour".to_owned(), with(WithPerson::Mute(60))),
        }];
        items.push((
            "Group: remove".to_owned(),
            sure(format!("Remove {name} from the group?"), with(WithPerson::Remove)),
        ));
        if group.owner == self.me {
            let is = group.admins.contains(&user);
            let label = if is { "Group: no longer administrator" } else { "Group: make administrator" };
            items.push((label.to_owned(), with(WithPerson::Admin(!is))));
            let transfer = sure(format!("Give the group to {name}?"), with(WithPerson::Transfer));
            items.push(("Group: give it to them".to_owned(), transfer));
        }
        items
    }

    /// The menu of the open conversation.
    pub(super) fn conversation_menu(&mut self) -> Vec<Effect> {
        let Some(talk) = &self.talk else { return Vec::new() };
        let Some(chat) = self.chats.get(&talk.id) else { return Vec::new() };
        let settings = chat.settings.clone();
        let look = |label: &str, look| (label.to_owned(), Command::Look(look));
        let mut items = Vec::new();
        match self.names.other(talk.id).filter(|_| !chat.is_group()) {
            Some(other) => items.push(("About the person".into(), Command::With(Person::Is(other), WithPerson::Card))),
            None => items.extend(self.group_items()),
        }
        items.push(("Send a file".into(), Command::Write(Want::SendFile)));
        items.push(look(if settings.pinned { "Unpin" } else { "Pin to the top" }, Look::Pinned));
        items.push(look(if settings.do_not_disturb { "Disturb again" } else { "Do not disturb" }, Look::Quiet));
        if chat.is_group() {
            items.push(look(if settings.saved { "Take from contacts" } else { "Save to contacts" }, Look::Saved));
        }
        items.push(look("Hide until the next message", Look::Hidden));
        items.push(("Search".into(), Command::Write(Want::Search)));
        items.push((
            "Delete all messages for me".into(),
            sure("Delete all messages here, for you alone?", Command::Clear),
        ));
        if chat.is_group() {
            items.push(("Leave the group".into(), sure("Leave this group?", Command::Leave)));
            let owner = self.talk.as_ref().and_then(|t| t.group.as_ref()).is_some_and(|group| group.owner == self.me);
            if owner {
                items.push(("End the group".into(), sure("End this group for everyone?", Command::Dissolve)));
            }
        }
        self.menu(self.title(chat.id), items)
    }

    fn group_items(&self) -> Vec<(String, Command)> {
        let group = self.talk.as_ref().and_then(|talk| talk.group.as_ref());
        let members = self.talk.as_ref().map_or(0, |talk| talk.members.len());
        let mut items = vec![
            (format!("Members ({members})"), Command::Members),
            ("Invite".to_owned(), Command::PickPeople { invite: true }),
            ("Announcement".to_owned(), Command::Announcement),
            ("My name in this group".to_owned(), Command::Write(Want::Nick)),
            ("Code to join".to_owned(), Command::ShowCode),
            ("Rename".to_owned(), Command::Write(Want::Rename)),
        ];
        let Some(group) = group.filter(|_| self.is_admin()) else { return items };
        items.push(("Write an announcement".to_owned(), Command::Write(Want::Announce)));
        let mute = if group.all_muted { "Let everyone write" } else { "Let only administrators write" };
        items.push((mute.to_owned(), Command::MuteAll(!group.all_muted)));
        if group.join_code == 0 {
            items.push(("Make a code to join".to_owned(), Command::Code(Joining::Anew)));
            return items;
        }
        let void = "Make another code? The one that people have by now is void then.";
        items.push(("New code to join".to_owned(), sure(void, Command::Code(Joining::Anew))));
        let who = if group.join_approval { "Code: let in at once" } else { "Code: administrators let in" };
        items.push((who.to_owned(), Command::Code(Joining::Approval(!group.join_approval))));
        items.push(("No code any more".to_owned(), Command::Code(Joining::Closed)));
        items
    }

    /// The menu of the chosen message.
    pub(super) fn message_menu(&mut self) -> Vec<Effect> {
        let (Some(talk), Some(entry)) = (&self.talk, self.chosen()) else { return Vec::new() };
        let Some(said) = words::message(entry) else { return Vec::new() };
        let mut items =
            vec![message("r  Reply", WithMessage::Quote), ("+  Sign".to_owned(), Command::Write(Want::React))];
        if let Kind::Card(card) = &said.kind {
            items.insert(0, ("Open the card".into(), Command::With(Person::Is(card.user), WithPerson::Card)));
        }
        if !said.kind.blobs().is_empty() {
            items.insert(0, message("s  Save the file", WithMessage::SaveFile(None)));
        }
        if self.may_edit(entry) {
            items.push(message("e  Edit", WithMessage::Edit(None)));
        }
        if self.may_recall(entry) {
            items.push(message("x  Recall", WithMessage::Recall));
        }
        items.push(("d  Delete for me".to_owned(), super::talk_keys::delete_if_sure()));
        items.push(message("f  Keep in favourites", WithMessage::Keep));
        items.push(message("w  Forward", WithMessage::Forward));
        let person = Command::With(Person::Is(entry.sender), WithPerson::Card);
        items.push((format!("About {}", self.names.name_in(talk.id, entry.sender)), person));
        let title = cut(&words::kind(&said.kind), 40);
        self.menu(title, items)
    }
}
