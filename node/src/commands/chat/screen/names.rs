//! Who is called what: one's own remark, else the name in the group, else the person's own, else the handle.

use std::collections::{HashMap, HashSet};

use magpie_client::{Body, ContactCard, ConversationId, ConversationKind, Entry, Profile, Shown, UserId};

use super::text::clean;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    me: UserId,
    handles: HashMap<UserId, String>,
    nicknames: HashMap<UserId, String>,
    profiles: HashMap<UserId, Profile>,
    /// What members are called in their groups.
    in_groups: HashMap<ConversationId, HashMap<UserId, String>>,
    pub(super) cards: HashMap<UserId, ContactCard>,
    /// Who is at the other end of a direct conversation.
    others: HashMap<ConversationId, UserId>,
    /// People whose names were asked for.
    asked: HashSet<UserId>,
}

impl Names {
    /// Knows oneself by this handle.
    pub(super) fn of(me: UserId, handle: &str) -> Self {
        let mut names = Self { me, ..Self::default() };
        names.learn(me, handle);
        names
    }

    /// There is this person; the handle is empty when it is not known.
    pub(super) fn learn(&mut self, user: UserId, handle: &str) {
        if user != self.me {
            self.others.insert(ConversationId::direct(self.me, user), user);
        }
        if !handle.is_empty() {
            self.handles.insert(user, clean(handle).replace('\n', " "));
        }
    }

    pub(super) fn learn_cards(&mut self, cards: Vec<ContactCard>) {
        for card in &cards {
            self.learn(card.user, &card.handle);
        }
        self.cards = cards.into_iter().map(|card| (card.user, card)).collect();
    }

    pub(super) fn learn_profile(&mut self, shown: Shown) {
        self.learn(shown.user, &shown.handle);
        self.nicknames.insert(shown.user, clean(&shown.profile.nickname).replace('\n', " "));
        self.profiles.insert(shown.user, shown.profile);
    }

    pub(super) fn learn_group(&mut self, group: ConversationId, nicknames: &[(UserId, String)]) {
        let named = nicknames.iter().map(|(user, name)| (*user, clean(name).replace('\n', " "))).collect();
        self.in_groups.insert(group, named);
    }

    /// An entry may name somebody.
    pub(super) fn learn_entry(&mut self, conversation: Option<ConversationId>, entry: &Entry) {
        match &entry.body {
            Body::ContactRequested(request) => self.learn(request.from, &request.handle),
            Body::ContactAccepted(accepted) => self.learn(accepted.user, &accepted.handle),
            Body::Joined(joined) => self.learn(joined.user, ""),
            Body::Nicknamed(name) => {
                let group = self.in_groups.entry(conversation.unwrap_or_default()).or_default();
                group.insert(entry.sender, clean(name).replace('\n', " "));
            }
            _ => {}
        }
    }

    /// Of these, whom to ask the node about: each once.
    pub(super) fn unknown(&mut self, users: impl IntoIterator<Item = UserId>) -> Vec<UserId> {
        let people = users.into_iter().filter(|user| *user != UserId::EVERYONE && *user != UserId::default());
        people.filter(|user| self.asked.insert(*user)).collect()
    }

    /// This person may have another name by now.
    pub(super) fn ask_again_about(&mut self, user: UserId) {
        self.asked.remove(&user);
    }

    /// People may have other names by now.
    pub(super) fn ask_again(&mut self) {
        self.asked.clear();
    }

    pub(super) fn profile(&self, user: UserId) -> Option<&Profile> {
        self.profiles.get(&user)
    }

    pub(super) fn handle(&self, user: UserId) -> String {
        self.handles.get(&user).cloned().unwrap_or_else(|| short(user))
    }

    /// What the person is called outside of groups.
    pub(super) fn name(&self, user: UserId) -> String {
        self.called(None, user)
    }

    /// What the person is called in this conversation.
    pub(super) fn name_in(&self, conversation: ConversationId, user: UserId) -> String {
        self.called(Some(conversation), user)
    }

    fn called(&self, conversation: Option<ConversationId>, user: UserId) -> String {
        let remark = self.cards.get(&user).map(|card| clean(&card.remark).replace('\n', " "));
        let group = conversation.and_then(|id| self.in_groups.get(&id)?.get(&user).cloned());
        let given = [remark, group, self.nicknames.get(&user).cloned()];
        given.into_iter().flatten().find(|name| !name.trim().is_empty()).unwrap_or_else(|| self.handle(user))
    }

    /// A text of the node with names for the ids in it.
    pub(super) fn named(&self, text: &str) -> String {
        let word = |word: &str| match word.parse() {
            Ok(user) if user == self.me => "you".to_owned(),
            Ok(user) => self.name(user),
            Err(_) => word.to_owned(),
        };
        text.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    /// Who is at the other end of a direct conversation.
    pub(super) fn other(&self, conversation: ConversationId) -> Option<UserId> {
        self.others.get(&conversation).copied()
    }

    /// What a conversation is called: the other person's name, or the group's title.
    pub(super) fn title(&self, conversation: ConversationId, title: &str) -> String {
        match conversation.kind() {
            Some(ConversationKind::Direct) => {
                self.other(conversation).map_or_else(|| "somebody".to_owned(), |user| self.name(user))
            }
            _ if title.trim().is_empty() => "a group without title".to_owned(),
            _ => clean(title).replace('\n', " "),
        }
    }

    /// Whom somebody means: a handle in any case, else a name that only one person has.
    pub(super) fn who(&self, name: &str) -> Option<UserId> {
        let lower = name.trim().trim_start_matches('@').to_lowercase();
        if let Some((user, _)) = self.handles.iter().find(|(_, handle)| handle.to_lowercase() == lower) {
            return Some(*user);
        }
        let everyone: HashSet<UserId> = self.handles.keys().chain(self.others.values()).copied().collect();
        let mut meant = everyone.into_iter().filter(|user| self.name(*user).to_lowercase() == lower);
        meant.next().filter(|_| meant.next().is_none())
    }
}

/// Some of an id, to tell people apart by. The first three digits say only where the account is kept.
fn short(user: UserId) -> String {
    let id = user.to_string();
    format!("u~{}", &id[id.len().saturating_sub(6)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_comes_before_the_groups_name_before_ones_own_before_the_handle() {
        let (me, bob) = (UserId::from_bits(1), UserId::from_bits(0xabc0_0000_00ab_cdef));
        let group = ConversationId::group(me, 7);
        let mut names = Names::of(me, "alice");
        names.learn(bob, "");
        assert_eq!(names.name(bob), "u~abcdef");
        assert_eq!(names.named(&format!("{bob} is no contact of yours")), "u~abcdef is no contact of yours");
        assert_eq!(names.who("u~abcdef"), Some(bob));
        names.learn(bob, "bob\u{1b}");
        assert_eq!(names.name(bob), "bob\u{fffd}");
        names.learn(bob, "bob");
        let profile = Profile { nickname: "Bobby".into(), ..Profile::default() };
        names.learn_profile(Shown { user: bob, handle: "bob".into(), profile });
        assert_eq!(names.name_in(group, bob), "Bobby");
        names.learn_group(group, &[(bob, "goalkeeper".into())]);
        assert_eq!((names.name_in(group, bob), names.name(bob)), ("goalkeeper".into(), "Bobby".into()));
        let card = ContactCard {
            user: bob,
            handle: "bob".into(),
            state: None,
            remark: "my brother".into(),
            tags: Vec::new(),
            starred: false,
            blocked: false,
            greeting: String::new(),
            expires_ms: 0,
        };
        names.learn_cards(vec![card]);
        assert_eq!(names.name_in(group, bob), "my brother");
        assert_eq!((names.who("BOB"), names.who("My Brother"), names.who("x")), (Some(bob), Some(bob), None));
        assert_eq!(names.title(ConversationId::direct(me, bob), ""), "my brother");
    }
}
