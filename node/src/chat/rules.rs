//! How a conversation is run: who may do what in it.

use bincode::{Decode, Encode};
use magpie_cluster::Record;
use magpie_protocol::{ConversationKind, ErrorCode, UserId, WireError};

use super::members::Conversation;

/// The rules of one conversation. One that never set any has no record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Rules {
    pub admins: Vec<UserId>,
    pub announcement: String,
    pub all_muted: bool,
    /// Who may not write, and until when, in milliseconds since 1970.
    pub muted: Vec<(UserId, u64)>,
    pub nicknames: Vec<(UserId, String)>,
    /// Who knows it may join; 0 for nobody.
    pub join_code: u64,
    pub join_approval: bool,
    /// Who is to be let in, and who asked for it: they themselves or a member; the first first.
    pub waiting: Vec<(UserId, UserId)>,
    pub dissolved: bool,
    /// Of a direct conversation: who lets nothing of the other through.
    pub blocked_by: Vec<UserId>,
    /// Of a direct conversation: who took the other off their contacts.
    pub deleted_by: Vec<UserId>,
}

impl Record for Rules {
    fn heap_bytes(&self) -> usize {
        let names: usize = self.nicknames.iter().map(|(_, name)| name.len() + 32).sum();
        64 + self.announcement.len() + names + 16 * (self.muted.len() + self.admins.len() + self.waiting.len())
    }
}

fn set<T: PartialEq>(list: &mut Vec<T>, value: T, on: bool) {
    list.retain(|there| *there != value);
    if on {
        list.push(value);
    }
}

impl Rules {
    /// Whether this member runs the group: its owner, or an administrator.
    pub fn runs(&self, conversation: &Conversation, user: UserId) -> bool {
        conversation.owner == user || self.admins.contains(&user)
    }

    /// Makes somebody an administrator, or no longer.
    pub fn set_admin(&mut self, user: UserId, on: bool) {
        set(&mut self.admins, user, on);
    }

    /// One side of a direct conversation blocks the other, or no longer.
    pub fn set_block(&mut self, by: UserId, on: bool) {
        set(&mut self.blocked_by, by, on);
    }

    /// One side of a direct conversation took the other off their contacts, or has them again.
    pub fn set_deleted(&mut self, by: UserId, on: bool) {
        set(&mut self.deleted_by, by, on);
    }

    /// Somebody may not write until then; 0 ends it. What is over at `now_ms` is forgotten.
    pub fn mute(&mut self, user: UserId, until_ms: u64, now_ms: u64) {
        self.muted.retain(|(there, until)| *there != user && *until > now_ms);
        if until_ms > now_ms {
            self.muted.push((user, until_ms));
        }
    }

    /// What a member is called in the group; empty for their own name.
    pub fn set_nickname(&mut self, user: UserId, name: String) {
        self.nicknames.retain(|(there, _)| *there != user);
        if !name.is_empty() {
            self.nicknames.push((user, name));
        }
    }

    /// Somebody is no longer a member: nothing of them stays.
    pub fn forget(&mut self, user: UserId) {
        self.set_admin(user, false);
        self.set_nickname(user, String::new());
        self.muted.retain(|(there, _)| *there != user);
        self.waiting.retain(|(there, _)| *there != user);
    }

    /// Somebody's account is deleted.
    pub fn erase(&mut self, user: UserId) {
        self.forget(user);
        self.set_block(user, false);
        self.set_deleted(user, false);
        // Who was asked in by them waits on their own account.
        self.waiting.iter_mut().filter(|(_, by)| *by == user).for_each(|(waits, by)| *by = *waits);
    }

    /// Nobody can write any more.
    pub fn dissolve(&mut self) {
        self.dissolved = true;
        self.join_code = 0;
        self.waiting.clear();
    }

    /// Who asked for somebody to be let in, if anybody did.
    pub fn asked_for(&self, user: UserId) -> Option<UserId> {
        self.waiting.iter().find(|(there, _)| *there == user).map(|(_, by)| *by)
    }

    /// Whether anything can still be done in it but leaving.
    ///
    /// # Errors
    /// That the group was dissolved.
    pub fn is_there(&self) -> Result<(), WireError> {
        if self.dissolved {
            return Err(WireError::detail(ErrorCode::NotAllowed, "this group was dissolved"));
        }
        Ok(())
    }

    /// Whether a member may write now.
    ///
    /// # Errors
    /// Why not, in words that tell nothing that they may not know.
    pub fn may_write(
        &self,
        conversation: &Conversation,
        me: UserId,
        now_ms: u64,
        strangers: bool,
    ) -> Result<(), WireError> {
        if conversation.kind == ConversationKind::Direct {
            if self.blocked_by.contains(&me) {
                return Err(WireError::detail(ErrorCode::NotAllowed, "you block this person; unblock them first"));
            }
            if !self.blocked_by.is_empty() {
                return Err(WireError::new(ErrorCode::Blocked));
            }
            // The other's account may be no more.
            let alone = conversation.active().count() < 2;
            if alone || (!self.deleted_by.is_empty() && !strangers) {
                return Err(WireError::new(ErrorCode::NotContacts));
            }
            return Ok(());
        }
        self.is_there()?;
        if self.runs(conversation, me) {
            return Ok(());
        }
        if self.all_muted {
            return Err(WireError::detail(ErrorCode::Muted, "only administrators write here now"));
        }
        match self.muted.iter().find(|(user, until)| *user == me && *until > now_ms) {
            Some((_, until)) => Err(WireError { number: *until, ..WireError::new(ErrorCode::Muted) }),
            None => Ok(()),
        }
    }
}
