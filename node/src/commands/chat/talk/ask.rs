//! What the person asks for.

use futures_util::{FutureExt, future::BoxFuture};
use magpie_client::{Body, Content, ConversationId, ConversationInfo, DeviceInfo, Group, Leave};

use super::{
    super::{
        jobs::Done,
        parse::{Command, HELP, Typed},
        people::Who,
        show::{quote, safe},
    },
    Focus, Talk,
};

/// Unread entries that are looked at to count them.
const UNREAD_MAX: u32 = 500;

/// What follows from a line that was typed.
pub(in super::super) enum Next {
    Go,
    /// The next line waits until this is done.
    Wait(BoxFuture<'static, Done>),
    Quit,
}

impl Talk {
    /// A line was typed.
    pub(in super::super) fn on_typed(&mut self, typed: Typed) -> Next {
        match typed {
            Typed::Nothing => Next::Go,
            Typed::Text(text) => {
                self.say(text);
                Next::Go
            }
            Typed::Command(command) => self.on_command(command),
            Typed::Wrong(why) => {
                self.note(format!("* {}", safe(&why)));
                Next::Go
            }
        }
    }

    fn say(&mut self, text: String) {
        match self.focus {
            Focus::Open(id) => {
                let what = quote(&text);
                self.post(id, Content::Text(text), what);
            }
            Focus::Awaiting(user) => {
                let name = self.people.name(user);
                self.note(format!("* not sent: {name} has not accepted yet"));
            }
            Focus::Free | Focus::Closed => {
                self.note("* not sent: no conversation is open (/to NAME, or /list and /open N)");
            }
        }
    }

    fn on_command(&mut self, command: Command) -> Next {
        match command {
            Command::To(name) => self.to(&name),
            Command::Accept(_) | Command::Group { .. } | Command::Devices if !self.online => {
                self.note("* not connected: try again later");
                Next::Go
            }
            Command::Accept(name) => Next::Wait(self.asker().accept(self.people.who(&name)).boxed()),
            Command::Group { title, names } => {
                let members = names.iter().map(|name| self.people.who(name)).collect();
                Next::Wait(self.asker().group(title, members).boxed())
            }
            Command::Devices => Next::Wait(self.asker().devices().boxed()),
            Command::List => self.list(),
            Command::Open(number) => self.open_number(number),
            Command::Help => {
                HELP.lines().for_each(|line| self.out(line));
                Next::Go
            }
            Command::Quit => Next::Quit,
            command => match self.focus {
                Focus::Open(id) => self.on_command_in(id, command),
                _ => {
                    self.note("* no conversation is open (/to NAME, or /list and /open N)");
                    Next::Go
                }
            },
        }
    }

    fn to(&mut self, name: &str) -> Next {
        let who = self.people.who(name);
        if let Who::Known(user, _) = who {
            // So that their answer is met, should it come before the job's end.
            self.focus = Focus::Awaiting(user);
            let conversation = ConversationId::direct(self.me, user);
            if self.conversation(conversation).is_some_and(|known| !known.ended) {
                self.open(conversation);
                return if self.online { Next::Wait(self.asker().again(user).boxed()) } else { Next::Go };
            }
        }
        if !self.online {
            self.focus = Focus::Closed;
            self.note("* not connected: try again later; no conversation is open now");
            return Next::Go;
        }
        Next::Wait(self.asker().to(who).boxed())
    }

    fn on_command_in(&mut self, id: ConversationId, command: Command) -> Next {
        let with_member = |name: &str, act, what| {
            let who = self.people.who(name);
            Next::Wait(self.asker().with_member(id, who, act, what).boxed())
        };
        match command {
            Command::Members if !self.online => self.note("* not connected: try again later"),
            Command::Invite(name) => return with_member(&name, Content::Invite, "/invite"),
            Command::Remove(name) => return with_member(&name, Content::Remove, "/remove"),
            Command::Members => return Next::Wait(self.asker().members(id).boxed()),
            Command::Leave => self.post(id, Content::Leave(Leave), "/leave".to_owned()),
            Command::Rename(title) => {
                let what = format!("/rename {}", quote(&title));
                self.post(id, Content::Rename(title), what);
            }
            Command::History(n) => self.history(id, n),
            _ => {}
        }
        Next::Go
    }

    fn history(&mut self, id: ConversationId, n: u32) {
        let after = self.conversation(id).map_or(0, |known| known.cursor.saturating_sub(u64::from(n)));
        match self.client.history(id, after, n) {
            Ok(entries) => {
                let lines = self.entry_lines(id, &entries, None);
                if lines.is_empty() {
                    self.note("* nothing was said here yet");
                }
                self.lines.extend(lines);
            }
            Err(error) => self.note(format!("* {}", super::show::error(&error))),
        }
    }

    fn list(&mut self) -> Next {
        let known = self.client.conversations();
        let mut lines = Vec::new();
        for (at, id) in self.order.iter().enumerate() {
            let Some(conversation) = known.iter().find(|c| c.id == *id && !c.ended) else { continue };
            let mark = if self.focus == Focus::Open(*id) { '>' } else { ' ' };
            let unread = match self.unread(conversation) {
                0 => String::new(),
                n if conversation.unread > u64::from(UNREAD_MAX) => format!("  ({n}+ unread)"),
                n => format!("  ({n} unread)"),
            };
            lines.push(format!("{mark} {}  {}{unread}", at + 1, self.people.title(*id, &conversation.title)));
        }
        if lines.is_empty() {
            self.note("* no conversations yet: /to NAME asks a person");
        }
        lines.into_iter().for_each(|line| self.out(line));
        Next::Go
    }

    /// Texts of others that this person has not read.
    fn unread(&self, conversation: &ConversationInfo) -> usize {
        let unread = self.client.history(conversation.id, conversation.read, UNREAD_MAX).unwrap_or_default();
        unread.iter().filter(|entry| entry.sender != self.me && matches!(entry.body, Body::Text(_))).count()
    }

    fn open_number(&mut self, number: usize) -> Next {
        let id = number.checked_sub(1).and_then(|at| self.order.get(at)).copied();
        match id.and_then(|id| self.conversation(id)).filter(|known| !known.ended) {
            Some(known) => self.open(known.id),
            None => {
                self.focus = Focus::Closed;
                self.note(format!("* there is no conversation {number} (/list); no conversation is open now"));
            }
        }
        Next::Go
    }

    pub(super) fn list_members(&mut self, group: &Group) {
        let mut names: Vec<_> = group.members.iter().map(|user| (self.people.name(*user), *user)).collect();
        names.sort();
        // A direct conversation has no owner to speak of.
        let owner = (!group.title.is_empty()).then_some(group.owner);
        for (name, user) in names {
            let you = if user == self.me { " (you)" } else { "" };
            let owns = if Some(user) == owner { " (owner)" } else { "" };
            self.out(format!("  {name}{you}{owns}"));
        }
    }

    pub(super) fn list_devices(&mut self, devices: &[DeviceInfo]) {
        for device in devices {
            let this = if self.is_this(device.device) { " (this one)" } else { "" };
            let seen = self.clock.time(device.last_seen_ms);
            self.out(format!("  {}{this}, signed in {seen}", safe(&device.name)));
        }
    }
}
