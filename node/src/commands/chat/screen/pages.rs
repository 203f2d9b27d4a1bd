//! The lines of Contacts, Discover and Me, each with what Enter does.

use magpie_client::{Account, ContactCard, ContactState, UserId};

use super::{
    command::{Command, Field, Person, Privacy, Want, WithPerson},
    state::{State, Tab},
    text::clean,
};

/// One line of a page.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PageLine {
    pub(super) label: String,
    /// What stands behind it.
    pub(super) value: String,
    pub(super) command: Command,
    /// What the page beside the list shows while the cursor is here.
    pub(super) about: About,
}

impl PageLine {
    /// Whether it only stands above others.
    pub(super) fn is_heading(&self) -> bool {
        self.command == Command::Nothing && self.value.is_empty()
    }
}

/// See [`PageLine::about`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum About {
    Person(UserId),
    Text(String),
}

fn line(label: &str, value: impl Into<String>, command: Command, about: &str) -> PageLine {
    PageLine { label: label.to_owned(), value: value.into(), command, about: About::Text(about.to_owned()) }
}

fn heading(text: &str) -> PageLine {
    line(&format!("── {text}"), "", Command::Nothing, "")
}

/// Whether a contact is shown in a part of the list.
type Belongs<'a> = Box<dyn Fn(&ContactCard) -> bool + 'a>;

impl State {
    /// The lines of a tab; the conversations have a list of their own.
    pub(super) fn lines(&self, tab: Tab) -> Vec<PageLine> {
        match tab {
            Tab::Chats => Vec::new(),
            Tab::Contacts => self.contact_lines(),
            Tab::Discover => discover_lines(),
            Tab::Me => self.my_lines(),
        }
    }

    fn person_line(&self, card: &ContactCard) -> PageLine {
        let mut value = String::new();
        if card.state == Some(ContactState::Accepted) && self.online.contains(&card.user) {
            value.push_str("online ");
        }
        value.push_str(&card.tags.iter().map(|tag| format!("#{}", clean(tag))).collect::<Vec<_>>().join(" "));
        PageLine {
            label: self.names.name(card.user),
            value,
            command: Command::With(Person::Is(card.user), WithPerson::Card),
            about: About::Person(card.user),
        }
    }

    fn contact_lines(&self) -> Vec<PageLine> {
        let add = "Find somebody by their name, by their phone number with + in front if they allow it, or by the \
                   magpie:u/... code that they show you. They are asked, and you can talk once they agree.";
        let mut lines = vec![
            line("＋ Add a contact", "", Command::Write(Want::Add), add),
            line("＋ New group", "", Command::PickPeople { invite: false }, "Choose people with Space, then Enter."),
            line(
                "＋ Join a group",
                "",
                Command::Write(Want::JoinCode),
                "With the magpie:g/... code that a member shows you.",
            ),
        ];
        let mut cards: Vec<&ContactCard> = self.names.cards.values().collect();
        cards.sort_by_cached_key(|card| (self.names.name(card.user).to_lowercase(), card.user));
        let is = |card: &ContactCard, state| card.state == Some(state) && !card.blocked;
        let parts: [(&str, Belongs); 5] = [
            ("new requests", Box::new(|card| is(card, ContactState::Waiting))),
            ("★ starred", Box::new(|card| is(card, ContactState::Accepted) && card.starred)),
            ("contacts", Box::new(|card| is(card, ContactState::Accepted) && !card.starred)),
            ("asked", Box::new(|card| is(card, ContactState::Requested))),
            ("blocked", Box::new(|card| card.blocked)),
        ];
        for (at, (title, belongs)) in parts.iter().enumerate() {
            let people: Vec<_> = cards.iter().filter(|card| belongs(card)).map(|card| self.person_line(card)).collect();
            if !people.is_empty() {
                lines.push(heading(title));
                lines.extend(people);
            }
            if at == 2 {
                lines.extend(self.saved_groups());
            }
        }
        lines
    }

    fn saved_groups(&self) -> Vec<PageLine> {
        let saved = self.chats.values().filter(|chat| chat.settings.saved && !chat.ended);
        let groups: Vec<_> = saved
            .map(|chat| {
                line(
                    &self.title(chat.id),
                    "group",
                    Command::Goto(chat.id, 0),
                    "A group that you saved. Enter opens it.",
                )
            })
            .collect();
        let title = (!groups.is_empty()).then(|| heading("saved groups"));
        title.into_iter().chain(groups).collect()
    }

    fn my_lines(&self) -> Vec<PageLine> {
        let shown = |text: &str| if text.is_empty() { "–".to_owned() } else { clean(text) };
        let phone = self.account.as_ref().map_or_else(|| "?".to_owned(), |account| shown(&account.phone));
        let write = |field| Command::Write(Want::Field(field));
        let handle = "The name that you sign in with, and that people find you by.";
        let number = "Only people who know it find you by it, if you let them.";
        let code = "Who has it finds you. Enter shows it; /newcode makes the old one void.";
        let mut lines = vec![
            line("Handle", self.handle.clone(), Command::Nothing, handle),
            line("Nickname", shown(&self.profile.nickname), write(Field::Nickname), "The name that others see."),
            line("Region", shown(&self.profile.region), write(Field::Region), "Where you are from."),
            line("Signature", shown(&self.profile.signature), write(Field::Signature), "A line about yourself."),
            line("Phone", phone, Command::Write(Want::Phone), number),
            line("My code", "", Command::MyCode, code),
            heading("privacy"),
        ];
        lines.extend(self.privacy_lines());
        let stays = "What this device keeps stays here; you need the password to come back.";
        lines.extend([
            heading("what is yours"),
            line("Favourites", "", Command::Favourites, "Messages that you kept."),
            line("Devices", "", Command::Devices, "Where you are signed in; Enter on one of them signs it out."),
            line("Change password", "", Command::Write(Want::OldPassword), "Other devices stay signed in."),
            line("Sign out here", "", self.sign_out_here(), stays),
            line(
                "Delete account",
                "",
                Command::Write(Want::CloseAccount),
                "In thirty days; a sign-in before that keeps it.",
            ),
            line("Help", "", Command::Help, "All keys and commands."),
        ]);
        lines
    }

    /// What others may find and see; Enter switches it, once the node has said how it is.
    fn privacy_lines(&self) -> Vec<PageLine> {
        type Flag = fn(&Account) -> bool;
        let switches: [(&str, Privacy, Flag, &str); 4] = [
            ("Found by phone", Privacy::ByPhone, |a| a.by_phone, "Who knows your number finds you."),
            ("Found by handle", Privacy::ByHandle, |a| a.by_handle, "Who knows your handle finds you."),
            ("Typing shown", Privacy::Typing, |a| a.show_typing, "Others see that you are writing to them."),
            ("Online shown", Privacy::Online, |a| a.show_online, "Your contacts see that you are online."),
        ];
        let switch = |(label, what, flag, about): (&str, Privacy, Flag, &str)| {
            let now = self.account.as_ref().map(flag);
            let value = now.map_or("?", |on| if on { "on" } else { "off" });
            let command = now.map_or(Command::Nothing, |on| Command::Privacy(what, !on));
            line(label, value, command, &format!("{about} Enter switches it."))
        };
        switches.into_iter().map(switch).collect()
    }

    fn sign_out_here(&self) -> Command {
        let sign_out = Box::new(Command::SignOut(self.device));
        Command::Sure("Sign this device out? You need the password to come back.".into(), sign_out)
    }
}

fn discover_lines() -> Vec<PageLine> {
    let shake = "Who shakes near here at the same moment finds you, and you find them. Where you are is rounded to about \
                 a kilometre, sent once, and kept nowhere.";
    let not_built = |label: &str| line(label, "not built yet", Command::Nothing, "Not built yet.");
    vec![
        line("Shake", "", Command::Write(Want::Place), shake),
        not_built("Moments"),
        not_built("Nearby"),
        not_built("Wallet"),
        not_built("Mini programs"),
    ]
}
