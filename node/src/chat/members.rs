//! Who is in a conversation, and which entries each may read.

use bincode::{Decode, Encode};
use magpie_cluster::Record;
use magpie_protocol::{ConversationKind, UserId, limits::GROUP_MEMBERS_MAX};

/// People who left that a conversation remembers, so that they may read what they were there for.
const PAST_MEMBERS_MAX: usize = 1_500;

/// A member, or somebody who was one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    pub user: UserId,
    /// The first entry that they may read.
    pub joined: u64,
    /// The last, once they are no longer a member; 0 before.
    pub left: u64,
}

/// A conversation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Conversation {
    pub kind: ConversationKind,
    pub title: String,
    pub creator: UserId,
    /// Of what it was made from, to tell a retry from another use of its id.
    pub made_from: u64,
    pub owner: UserId,
    /// The number of the last entry that changed who is a member.
    pub rights: u64,
    active: u32,
    /// Sorted by user.
    members: Vec<Member>,
}
impl Record for Conversation {
    fn heap_bytes(&self) -> usize {
        self.title.len() + self.members.len() * size_of::<Member>()
    }
}

impl Conversation {
    /// A conversation that nobody is in yet.
    pub fn new(kind: ConversationKind, title: String, creator: UserId, made_from: u64) -> Self {
        Self { kind, title, creator, made_from, owner: creator, rights: 0, active: 0, members: Vec::new() }
    }

    fn find(&self, user: UserId) -> Result<usize, usize> {
        self.members.binary_search_by_key(&user, |m| m.user)
    }

    /// The member, or who was one.
    pub fn member(&self, user: UserId) -> Option<&Member> {
        self.find(user).ok().map(|at| &self.members[at])
    }

    /// Whether they are a member now.
    pub fn is_member(&self, user: UserId) -> bool {
        self.member(user).is_some_and(|m| m.left == 0)
    }

    /// Everyone who is a member now.
    pub fn active(&self) -> impl Iterator<Item = UserId> + '_ {
        self.members.iter().filter(|m| m.left == 0).map(|m| m.user)
    }

    /// The same, each with the first entry that they may read.
    pub fn active_since(&self) -> impl Iterator<Item = (UserId, u64)> + '_ {
        self.members.iter().filter(|m| m.left == 0).map(|m| (m.user, m.joined))
    }

    /// Whether another member fits.
    pub fn is_full(&self) -> bool {
        self.active as usize >= GROUP_MEMBERS_MAX
    }

    /// The entries that this person may read: from, and up to; `None` for a stranger.
    pub fn range(&self, user: UserId, head: u64) -> Option<(u64, u64)> {
        let member = self.member(user)?;
        Some((member.joined, if member.left == 0 { head } else { member.left }))
    }

    /// Makes a person a member who may read from `first`, by the entry `number`.
    pub fn join(&mut self, user: UserId, first: u64, number: u64) {
        match self.find(user) {
            Ok(at) => self.members[at] = Member { user, joined: first, left: 0 },
            Err(at) => self.members.insert(at, Member { user, joined: first, left: 0 }),
        }
        self.active += 1;
        self.rights = number;
    }

    /// Forgets that somebody was a member.
    pub fn erase(&mut self, user: UserId) {
        self.members.retain(|member| member.user != user || member.left == 0);
        if self.creator == user {
            self.creator = UserId::default();
        }
    }

    /// Whether nobody is or was in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Ends a membership with the entry `number`, the last that the person may read.
    pub fn leave(&mut self, user: UserId, number: u64) {
        let Ok(at) = self.find(user) else { return };
        self.members[at].left = number;
        self.active -= 1;
        self.rights = number;
        if self.owner == user
            && let Some(heir) = self.members.iter().filter(|m| m.left == 0).min_by_key(|m| (m.joined, m.user))
        {
            self.owner = heir.user;
        }
        if self.members.len() - self.active as usize > PAST_MEMBERS_MAX
            && let Some(oldest) =
                (0..self.members.len()).filter(|&i| self.members[i].left > 0).min_by_key(|&i| self.members[i].left)
        {
            self.members.remove(oldest);
        }
    }
}
