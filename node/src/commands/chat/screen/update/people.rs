//! What is done with people.

use magpie_client::{
    Admit, ContactState, Content, ConversationId, ConversationKind, Kind, Message, Mute, SetAdmin, SetContact, UserId,
    message::Card,
};

use super::super::{
    command::{Person, WithPerson},
    message::{Ask, Effect},
    state::State,
};

impl State {
    /// Does something with a person; who is only named is looked for first.
    pub(super) fn with_person(&mut self, person: Person, what: WithPerson) -> Vec<Effect> {
        let user = match person {
            Person::Is(user) => user,
            Person::Named(name) => match self.names.who(&name) {
                Some(user) => user,
                None => return self.ask(Ask::Find(name, what)),
            },
        };
        match what {
            WithPerson::Talk => self.talk_to(user),
            WithPerson::Card => self.person_menu(user),
            WithPerson::Accept => self.ask(Ask::Accept(user)),
            WithPerson::Refuse => self.ask(Ask::Refuse(user)),
            WithPerson::Remark(text) => self.set_contact(user, |set| set.remark = Some(text)),
            WithPerson::Tags(tags) => self.set_contact(user, |set| set.tags = Some(tags)),
            WithPerson::Star(on) => self.set_contact(user, |set| set.starred = Some(on)),
            WithPerson::Block(on) => self.ask(Ask::Block(user, on)),
            WithPerson::Forget => self.ask(Ask::Forget(user)),
            what => self.with_member(user, what),
        }
    }

    fn set_contact(&mut self, user: UserId, change: impl FnOnce(&mut SetContact)) -> Vec<Effect> {
        let mut set = SetContact { user, remark: None, tags: None, starred: None };
        change(&mut set);
        self.ask(Ask::SetContact(set))
    }

    fn talk_to(&mut self, user: UserId) -> Vec<Effect> {
        if user == self.me {
            return self.said("that is you");
        }
        let id = ConversationId::direct(self.me, user);
        let state = self.names.cards.get(&user).and_then(|card| card.state);
        if state == Some(ContactState::Waiting) {
            return self.ask(Ask::Accept(user));
        }
        let is_here = self.chats.get(&id).is_some_and(|chat| !chat.ended);
        let mut effects = if is_here { self.open(id) } else { Vec::new() };
        // Whoever took the person off their contacts asks them anew.
        if !is_here || state != Some(ContactState::Accepted) {
            effects.extend(self.ask(Ask::Reach(user)));
        }
        effects
    }

    fn with_member(&mut self, user: UserId, what: WithPerson) -> Vec<Effect> {
        let Some(id) = self.talk.as_ref().map(|talk| talk.id) else {
            return self.said("no conversation is open");
        };
        if id.kind() == Some(ConversationKind::Direct) && what != WithPerson::SendCard {
            return self.said("this is not a group");
        }
        let content = match what {
            WithPerson::Invite => Content::Invite(user),
            WithPerson::Remove => Content::Remove(user),
            WithPerson::Admin(on) => Content::SetAdmin(SetAdmin { user, on }),
            WithPerson::Transfer => Content::Transfer(user),
            WithPerson::Mute(minutes) => Content::Mute(Mute { user, for_ms: minutes.saturating_mul(60_000) }),
            WithPerson::Admit(yes) => Content::Admit(Admit { user, yes }),
            WithPerson::SendCard => {
                let handle = self.names.handle(user);
                let nickname = self.names.profile(user).map(|profile| profile.nickname.clone()).unwrap_or_default();
                Content::Say(Message::new(Kind::Card(Card { user, handle, nickname })))
            }
            _ => return Vec::new(),
        };
        self.overlays.clear();
        self.post(id, content)
    }
}
