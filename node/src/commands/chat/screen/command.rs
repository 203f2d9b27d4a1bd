//! What can be asked for: by a key, from a menu, or as `/command` in the line where one writes.

mod parse;

use magpie_client::{ConversationId, DeviceId, GroupCode, UserId};

pub(super) use parse::{HELP, Typed, parse};

/// Somebody who is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Person {
    Is(UserId),
    /// By a name that was typed, a phone number, or a code.
    Named(String),
}

/// A line of one's own profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Nickname,
    Region,
    Signature,
}

/// What others may see or find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privacy {
    ByPhone,
    ByHandle,
    Typing,
    Online,
}

/// What is done about a group's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    /// Another code, which makes the one before void.
    Anew,
    /// An administrator lets in who has it; or they are in at once. The code stays.
    Approval(bool),
    Closed,
}

/// How a conversation is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Pinned,
    Quiet,
    Saved,
    Hidden,
}

/// What is done with a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WithPerson {
    /// Talk to them; who does not know us yet is asked first.
    Talk,
    /// Show what they show of themselves, and what can be done.
    Card,
    Accept,
    Refuse,
    Remark(String),
    Tags(Vec<String>),
    Star(bool),
    Block(bool),
    Forget,
    Invite,
    Remove,
    Admin(bool),
    Transfer,
    /// For so many minutes; 0 ends it.
    Mute(u64),
    Admit(bool),
    SendCard,
}

/// What is done with the message that is chosen, else the newest that it makes sense for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WithMessage {
    Quote,
    React(String),
    Edit(Option<String>),
    Recall,
    Delete,
    Keep,
    Forward,
    SaveFile(Option<String>),
}

/// Something to write in a line of its own first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Add,
    Search,
    GroupTitle(Vec<UserId>),
    Remark(UserId),
    Tags(UserId),
    Announce,
    Rename,
    Nick,
    React,
    Field(Field),
    Phone,
    OldPassword,
    NewPassword(String),
    AgainPassword(String, String),
    CloseAccount,
    JoinCode,
    Place,
    SendFile,
    SaveFile(String),
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    With(Person, WithPerson),
    Message(WithMessage),
    Write(Want),
    /// Asks whether to do it.
    Sure(String, Box<Command>),
    NewGroup {
        title: String,
        people: Vec<Person>,
    },
    /// Choose people for a new group, or for this one.
    PickPeople {
        invite: bool,
    },
    Rename(String),
    Leave,
    Members,
    GroupMenu,
    Announce(String),
    Announcement,
    MuteAll(bool),
    Dissolve,
    Nick(String),
    /// How people come into the group by a code.
    Code(Joining),
    ShowCode,
    Join(GroupCode),
    List,
    /// The conversation with this number in the list.
    Open(usize),
    Goto(ConversationId, u64),
    Look(Look),
    Forward(ConversationId, u64, ConversationId),
    Clear,
    Older,
    Search(String),
    Find(String),
    Set(Field, String),
    Privacy(Privacy, bool),
    Phone(String),
    MyCode,
    NewCode,
    Devices,
    SignOut(DeviceId),
    ChangePassword {
        old: String,
        new: String,
    },
    CloseAccount(String),
    Favourites,
    Unkeep(u64),
    Shake(i32, i32),
    SendFile(String),
    Help,
    Quit,
    /// A line of a menu that only says something.
    Nothing,
}

impl Want {
    /// What the line asks for, and what stands in it at first where that is known to it.
    pub(super) fn title(&self) -> &'static str {
        match self {
            Self::Add => "Add a contact: their name, +phone number, or magpie:u/... code",
            Self::Search => "Search messages and people",
            Self::GroupTitle(_) => "What should the group be called?",
            Self::Remark(_) => "What do you call them? (empty: their own name)",
            Self::Tags(_) => "Tags, with commas between",
            Self::Announce => "Announcement to all members (empty takes it down)",
            Self::Rename => "New title of the group",
            Self::Nick => "Your name in this group (empty: your own)",
            Self::React => "A sign for this message, such as 👍 or ❤ (the same again takes it off)",
            Self::Field(Field::Nickname) => "The name that others see (empty: your handle)",
            Self::Field(Field::Region) => "Where you are from",
            Self::Field(Field::Signature) => "A line about yourself",
            Self::Phone => "Phone number with + and country code (empty takes it away)",
            Self::OldPassword => "Your password now",
            Self::NewPassword(_) => "The new password",
            Self::AgainPassword(..) => "The new password again",
            Self::CloseAccount => "Your password, to delete the account in 30 days",
            Self::JoinCode => "The group's magpie:g/... code",
            Self::SendFile => "Which file should be sent? (a path on this machine)",
            Self::SaveFile(_) => "Save it as",
            Self::Place => "Where are you? Latitude and longitude, such as 52.52 13.41",
        }
    }

    /// Whether what is typed is not to be shown.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self, Self::OldPassword | Self::NewPassword(_) | Self::AgainPassword(..) | Self::CloseAccount)
    }

    /// What follows from what was written.
    pub(super) fn command(self, text: String) -> Result<Command, String> {
        let line = text.trim().to_owned();
        let with = |user, what| Command::With(Person::Is(user), what);
        let needed = |line: &str| if line.is_empty() { Err("nothing was written".to_owned()) } else { Ok(()) };
        Ok(match self {
            Self::Add => {
                needed(&line)?;
                Command::Find(line)
            }
            Self::Search => {
                needed(&line)?;
                Command::Search(line)
            }
            Self::GroupTitle(people) => {
                needed(&line)?;
                Command::NewGroup { title: line, people: people.into_iter().map(Person::Is).collect() }
            }
            Self::Remark(user) => with(user, WithPerson::Remark(line)),
            Self::Tags(user) => with(user, WithPerson::Tags(parse::tags(&line))),
            Self::Announce => Command::Announce(line),
            Self::Rename => {
                needed(&line)?;
                Command::Rename(line)
            }
            Self::Nick => Command::Nick(line),
            Self::React => {
                needed(&line)?;
                Command::Message(WithMessage::React(line))
            }
            Self::Field(field) => Command::Set(field, line),
            Self::Phone => Command::Phone(line),
            Self::OldPassword => Command::Write(Self::NewPassword(text)),
            Self::NewPassword(old) => Command::Write(Self::AgainPassword(old, text)),
            Self::AgainPassword(old, new) if new == text => Command::ChangePassword { old, new },
            Self::AgainPassword(..) => return Err("the two are not the same; nothing was changed".to_owned()),
            Self::CloseAccount => Command::CloseAccount(text),
            Self::JoinCode => Command::Join(line.parse().map_err(|e| format!("{e}"))?),
            Self::SendFile => {
                needed(&line)?;
                Command::SendFile(line)
            }
            Self::SaveFile(_) => {
                needed(&line)?;
                Command::Message(WithMessage::SaveFile(Some(line)))
            }
            Self::Place => parse::place(&line)?,
        })
    }
}
