//! Who is called what. Handles come from contacts, from finds and from the inbox; of others only the id is known.

use std::collections::HashMap;

use magpie_client::{Body, ConversationId, ConversationKind, Entry, UserId};

use super::show::safe;

/// See the module.
#[derive(Debug)]
pub(super) struct People {
    me: UserId,
    names: HashMap<UserId, String>,
    /// Who is at the other end of a direct conversation.
    others: HashMap<ConversationId, UserId>,
}

/// A person who was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Known(UserId, String),
    /// The node may know this handle.
    Unknown(String),
}

impl People {
    /// Knows oneself by this handle.
    pub(super) fn called(me: UserId, handle: &str) -> Self {
        Self { me, names: HashMap::from([(me, handle.to_owned())]), others: HashMap::new() }
    }

    /// There is this person; the handle is empty when it is not known.
    pub(super) fn learn(&mut self, user: UserId, handle: &str) {
        self.others.insert(ConversationId::direct(self.me, user), user);
        if !handle.is_empty() {
            self.names.insert(user, handle.to_owned());
        }
    }

    /// An entry may name somebody.
    pub(super) fn learn_entry(&mut self, entry: &Entry) {
        match &entry.body {
            Body::ContactRequested(request) => self.learn(request.from, &request.handle),
            Body::ContactAccepted(accepted) => self.learn(accepted.user, &accepted.handle),
            Body::Joined(joined) => self.learn(joined.user, ""),
            _ => {}
        }
    }

    /// Whether the person's handle is known.
    pub(super) fn knows(&self, user: UserId) -> bool {
        self.names.contains_key(&user)
    }

    /// The person's handle, fit to be printed; else some of the id.
    pub(super) fn name(&self, user: UserId) -> String {
        self.names.get(&user).map_or_else(|| short(user), |handle| safe(handle))
    }

    /// Whom somebody means by a name: a handle in any case, or an id as [`name`](Self::name) shows it.
    pub(super) fn who(&self, name: &str) -> Who {
        let lower = name.to_lowercase();
        let named = self.names.iter().find(|(_, handle)| handle.to_lowercase() == lower);
        if let Some((user, handle)) = named {
            return Who::Known(*user, handle.clone());
        }
        let mut shown = self.others.values().filter(|user| !self.names.contains_key(user) && short(**user) == lower);
        match (shown.next(), shown.next()) {
            (Some(user), None) => Who::Known(*user, lower),
            _ => Who::Unknown(name.to_owned()),
        }
    }

    /// What a conversation is called: the other person's name, or the group's title.
    pub(super) fn title(&self, conversation: ConversationId, title: &str) -> String {
        match conversation.kind() {
            Some(ConversationKind::Direct) => {
                self.others.get(&conversation).map_or_else(|| "somebody".to_owned(), |user| self.name(*user))
            }
            _ if title.is_empty() => "a group without title".to_owned(),
            _ => safe(title),
        }
    }
}

/// Some of an id, to tell people apart by. The first three digits say only where the account is kept.
fn short(user: UserId) -> String {
    let id = user.to_string();
    format!("u~{}", &id[id.len() - 6..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_called_by_their_handle_once_it_is_known() {
        let mut people = People::called(UserId::from_bits(1), "alice");
        let bob = UserId::from_bits(0xabc0_0000_00ab_cdef);
        people.learn(bob, "");
        assert_eq!(people.name(bob), "u~abcdef");
        assert_eq!(people.who("u~abcdef"), Who::Known(bob, "u~abcdef".into()));
        people.learn(bob, "Bob");
        people.learn(bob, "");
        assert_eq!(people.name(bob), "Bob");
        assert_eq!(people.who("BOB"), Who::Known(bob, "Bob".into()));
        assert_eq!(people.who("u~abcdef"), Who::Unknown("u~abcdef".into()));
        assert_eq!(people.who("carol"), Who::Unknown("carol".into()));
    }

    #[test]
    fn the_other_end_of_a_direct_conversation_is_known_by_the_ids() {
        let mut people = People::called(UserId::from_bits(1), "alice");
        let bob = UserId::from_bits(2);
        people.learn(bob, "bob\u{1b}[2J");
        assert_eq!(people.others[&ConversationId::direct(bob, UserId::from_bits(1))], bob);
        assert_eq!(people.name(bob), "bob\u{fffd}[2J");
    }
}
