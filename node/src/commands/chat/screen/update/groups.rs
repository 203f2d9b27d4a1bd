//! Groups: made, joined by people, and what they say of themselves.

use magpie_client::{ContactState, ConversationId, ConversationKind, GroupCode, UserId};

use super::super::{
    command::{Command, Joining, Person, Want},
    message::{Ask, Effect},
    state::{Menu, Overlay, Pick, State},
    text::clean,
};

impl State {
    pub(super) fn new_group(&mut self, title: String, people: Vec<Person>) -> Vec<Effect> {
        let (mut known, mut names) = (Vec::new(), Vec::new());
        for person in people {
            match person {
                Person::Is(user) => known.push(user),
                Person::Named(name) => match self.names.who(&name) {
                    Some(user) => known.push(user),
                    None => names.push(name),
                },
            }
        }
        let ask = if names.is_empty() { Ask::CreateGroup(title, known) } else { Ask::FindAll { title, known, names } };
        self.ask(ask)
    }

    /// Lets people be chosen, for this group or for a new one.
    pub(super) fn pick(&mut self, group: Option<ConversationId>) -> Vec<Effect> {
        let members = self.talk.as_ref().filter(|talk| Some(talk.id) == group).map(|talk| talk.members.clone());
        let members = members.unwrap_or_default();
        let accepted = self.names.cards.values().filter(|card| card.state == Some(ContactState::Accepted));
        let mut people: Vec<UserId> =
            accepted.filter(|card| !card.blocked && !members.contains(&card.user)).map(|card| card.user).collect();
        people.sort_by_cached_key(|user| self.names.name(*user).to_lowercase());
        if people.is_empty() {
            return self.said("there are no contacts to choose from: a adds one");
        }
        let title = if group.is_some() { "Bring into the group" } else { "Who should be in the new group?" };
        let people = people.into_iter().map(|user| (user, false)).collect();
        self.overlays.push(Overlay::Pick(Pick { title: title.into(), people, at: 0, group }));
        Vec::new()
    }

    pub(super) fn picked(&mut self, group: Option<ConversationId>, people: Vec<UserId>) -> Vec<Effect> {
        match group {
            None => self.run(Command::Write(Want::GroupTitle(people))),
            Some(id) => {
                let invite = |user| magpie_client::Content::Invite(user);
                people.into_iter().flat_map(|user| self.post(id, invite(user))).collect()
            }
        }
    }

    pub(super) fn members_menu(&mut self) -> Vec<Effect> {
        let Some(talk) = &self.talk else { return Vec::new() };
        if talk.id.kind() == Some(ConversationKind::Direct) {
            return self.said("this is not a group");
        }
        if self.chats.get(&talk.id).is_none_or(|chat| chat.ended) {
            return self.said("you are no longer in this conversation");
        }
        if talk.members.is_empty() {
            return self.ask(Ask::Group(talk.id));
        }
        let (id, group) = (talk.id, talk.group.as_ref());
        let rank = |user: UserId| match group {
            Some(group) if group.owner == user => 0,
            Some(group) if group.admins.contains(&user) => 1,
            _ => 2,
        };
        let mut members = talk.members.clone();
        members.sort_by_cached_key(|user| (rank(*user), self.names.name_in(id, *user).to_lowercase()));
        let item = |user: &UserId| {
            let role = ["  owner", "  administrator", ""][rank(*user)];
            let muted = group.is_some_and(|g| g.muted.iter().any(|(who, until)| who == user && *until > self.now_ms));
            let muted = if muted { "  muted" } else { "" };
            let you = if *user == self.me { " (you)" } else { "" };
            let label = format!("{}{you}{role}{muted}", self.names.name_in(id, *user));
            (label, Command::With(Person::Is(*user), super::super::command::WithPerson::Card))
        };
        let mut items: Vec<_> = members.iter().map(item).collect();
        let waiting = group.map(|group| group.waiting.clone()).unwrap_or_default();
        for user in waiting {
            use super::super::command::WithPerson::Admit;
            let name = self.names.name(user);
            items.push((format!("let {name} in"), Command::With(Person::Is(user), Admit(true))));
            items.push((format!("do not let {name} in"), Command::With(Person::Is(user), Admit(false))));
        }
        let title = format!("{} members", members.len());
        self.overlays.push(Overlay::Menu(Menu { title, items, at: 0 }));
        Vec::new()
    }

    pub(super) fn show_announcement(&mut self) -> Vec<Effect> {
        let text = self.talk.as_ref().and_then(|talk| Some(clean(&talk.group.as_ref()?.announcement)));
        match text.filter(|text| !text.is_empty()) {
            Some(text) => {
                self.overlays.push(Overlay::Text("Announcement".into(), text, 0));
                Vec::new()
            }
            None => self.said("there is no announcement"),
        }
    }

    /// Changes who may come by the group's code; the code stays where it need not be another.
    pub(super) fn set_code(&mut self, id: ConversationId, joining: Joining) -> Vec<Effect> {
        let Some(group) = self.talk.as_ref().and_then(|talk| talk.group.as_ref()) else {
            return self.said("the node has not said yet how this group is run; try again");
        };
        let (code, approval) = match joining {
            Joining::Anew => (None, group.join_approval),
            Joining::Approval(on) => ((group.join_code != 0).then_some(group.join_code), on),
            Joining::Closed => (Some(0), false),
        };
        self.ask(Ask::SetCode { conversation: id, code, approval })
    }

    pub(super) fn show_code(&mut self) -> Vec<Effect> {
        let Some(talk) = &self.talk else { return Vec::new() };
        let code = talk.group.as_ref().map_or(0, |group| group.join_code);
        if code == 0 {
            return match self.is_admin() {
                true => self.said("this group has no code: /code new makes one"),
                false => self.said("this group has no code that you may pass on; administrators make one"),
            };
        }
        let approval = talk.group.as_ref().is_some_and(|group| group.join_approval);
        let text = about_code(GroupCode { conversation: talk.id, code }, approval);
        self.overlays.push(Overlay::Text("The group's code".into(), text, 0));
        Vec::new()
    }
}

/// A group's code, and what it is good for.
pub(in super::super) fn about_code(code: GroupCode, approval: bool) -> String {
    let how = if approval { "An administrator lets them in." } else { "They are in at once." };
    format!("{code}\n\nWho has this code joins with /join, or in Contacts under \"Join a group\". {how}")
}
