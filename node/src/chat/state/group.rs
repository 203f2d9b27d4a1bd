//! How members run a group: who is in it, who may do what.

use magpie_cluster::RightsChange;
use magpie_protocol::{
    Body, ConversationKind, ErrorCode, UserId, WireError,
    entry::{AdminSet, Dissolved, JoinSet, Joined, Muted, Removed},
    frame::conversation::{Admit, Mute, SetAdmin, SetJoin},
    limits,
};

use super::Room;
use crate::{
    chat::{check, rules::Rules},
    machine::{Outcome, Replied},
};

/// The longest that somebody is muted at a time, in milliseconds.
const MUTE_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;

fn no_member() -> WireError {
    WireError::field(ErrorCode::Invalid, "user", "is no other member")
}

fn already(what: &str) -> WireError {
    WireError::field(ErrorCode::AlreadyDone, "user", what)
}

fn full() -> WireError {
    let detail = format!("a group has at most {} members", limits::GROUP_MEMBERS_MAX);
    WireError::field(ErrorCode::LimitReached, "members", detail).at(limits::GROUP_MEMBERS_MAX)
}

impl Room<'_, '_> {
    fn owner_only(&self) -> Result<(), WireError> {
        if self.conversation.owner == self.me {
            return Ok(());
        }
        Err(WireError::detail(ErrorCode::NotAllowed, "only the owner may do this"))
    }

    fn runners_only(&mut self) -> Result<(), WireError> {
        let rules = self.rules();
        if rules.runs(&self.conversation, self.me) {
            return Ok(());
        }
        Err(WireError::detail(ErrorCode::NotAllowed, "only the owner and administrators may do this"))
    }

    /// Another member, who does not run the group unless its owner asks.
    fn below(&mut self, user: UserId) -> Result<(), WireError> {
        if user == self.me || !self.conversation.is_member(user) {
            return Err(no_member());
        }
        let rules = self.rules();
        if rules.runs(&self.conversation, user) && self.conversation.owner != self.me {
            return Err(WireError::field(ErrorCode::NotAllowed, "user", "runs the group; the owner may do this"));
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, title: String) -> Replied {
        if title.is_empty() || title.len() > limits::TITLE_LEN_MAX {
            let detail = format!("{} bytes; 1 to {} are allowed", title.len(), limits::TITLE_LEN_MAX);
            return Err(WireError::field(ErrorCode::TooLarge, "title", detail).at(limits::TITLE_LEN_MAX));
        }
        self.may_write()?;
        self.change(|conversation| conversation.title = title.clone());
        Ok(self.append(Body::Renamed(title)))
    }

    pub(super) fn invite(&mut self, user: UserId) -> Replied {
        if self.conversation.is_member(user) {
            return Err(already("is a member already"));
        }
        self.may_write()?;
        let rules = self.rules();
        if rules.join_approval && !rules.runs(&self.conversation, self.me) {
            return self.ask_in(user);
        }
        self.take_in(user)
    }

    /// Makes a person a member.
    pub(super) fn take_in(&mut self, user: UserId) -> Replied {
        if self.conversation.is_full() {
            return Err(full());
        }
        // Who asked for it answers for it, whoever lets them in.
        let by = self.rules().asked_for(user).unwrap_or(self.me);
        self.change_rules(|rules| rules.waiting.retain(|(waits, _)| *waits != user));
        let change = Some(RightsChange { user, granted: true });
        let number = self.append_change(Body::Joined(Joined { user, by: self.me }), change);
        self.change(|conversation| conversation.join(user, number, number));
        super::list(self.tx, self.id, &self.conversation.title.clone(), user, number, by);
        Ok(self.at(number))
    }

    /// Notes that a person would like to be let in.
    pub(super) fn ask_in(&mut self, user: UserId) -> Replied {
        let rules = self.rules();
        if rules.asked_for(user).is_some() {
            return Err(already("waits to be let in"));
        }
        if rules.waiting.len() >= limits::WAITING_MAX {
            let detail = format!("{} wait to be let in", rules.waiting.len());
            return Err(WireError::field(ErrorCode::LimitReached, "waiting", detail).at(limits::WAITING_MAX));
        }
        let by = self.me;
        self.change_rules(|rules| rules.waiting.push((user, by)));
        Ok(self.append(Body::JoinAsked(user)))
    }

    pub(super) fn admit(&mut self, admit: Admit) -> Replied {
        self.runners_only()?;
        if self.rules().asked_for(admit.user).is_none() {
            return Err(WireError::field(ErrorCode::NotFound, "user", "does not wait to be let in"));
        }
        if admit.yes {
            return self.take_in(admit.user);
        }
        self.change_rules(|rules| rules.waiting.retain(|(waits, _)| *waits != admit.user));
        Ok(self.append(Body::JoinRefused(admit.user)))
    }

    pub(super) fn remove(&mut self, user: UserId) -> Replied {
        self.runners_only()?;
        self.below(user)?;
        let number = self.end(user, Body::Removed(Removed { user, by: self.me }));
        Ok(self.at(number))
    }

    pub(super) fn leave(&mut self) -> Replied {
        let me = self.me;
        let number = self.end(me, Body::Left(me));
        Ok(self.at(number))
    }

    pub(super) fn end(&mut self, user: UserId, body: Body) -> u64 {
        let number = self.part(user, body);
        super::unlist(self.tx, self.id, user, number);
        number
    }

    /// Somebody is no longer a member; a group whose owner goes has another one.
    pub(super) fn part(&mut self, user: UserId, body: Body) -> u64 {
        let number = self.append_change(body, Some(RightsChange { user, granted: false }));
        let before = self.conversation.owner;
        self.change(|conversation| conversation.leave(user, number));
        let owner = self.conversation.owner;
        self.change_rules(|rules| {
            rules.forget(user);
            rules.set_admin(owner, false);
        });
        if owner != before && self.conversation.kind == ConversationKind::Group {
            self.append(Body::OwnerChanged(owner));
        }
        number
    }

    pub(super) fn set_admin(&mut self, set: &SetAdmin) -> Replied {
        self.owner_only()?;
        if set.user == self.me || !self.conversation.is_member(set.user) {
            return Err(no_member());
        }
        let rules = self.rules();
        if rules.admins.contains(&set.user) == set.on {
            return Err(already(if set.on { "is an administrator already" } else { "is no administrator" }));
        }
        if set.on && rules.admins.len() >= limits::ADMINS_MAX {
            let detail = format!("a group has at most {} administrators", limits::ADMINS_MAX);
            return Err(WireError::field(ErrorCode::LimitReached, "user", detail).at(limits::ADMINS_MAX));
        }
        self.change_rules(|rules| rules.set_admin(set.user, set.on));
        Ok(self.append(Body::AdminSet(AdminSet { user: set.user, on: set.on })))
    }

    pub(super) fn transfer(&mut self, user: UserId) -> Replied {
        self.owner_only()?;
        if user == self.me || !self.conversation.is_member(user) {
            return Err(no_member());
        }
        self.change(|conversation| conversation.owner = user);
        self.change_rules(|rules| rules.set_admin(user, false));
        Ok(self.append(Body::OwnerChanged(user)))
    }

    pub(super) fn dissolve(&mut self) -> Replied {
        self.owner_only()?;
        self.change_rules(Rules::dissolve);
        Ok(self.append(Body::Dissolved(Dissolved)))
    }

    pub(super) fn announce(&mut self, text: String) -> Replied {
        self.runners_only()?;
        check::at_most("announcement", &text, limits::ANNOUNCEMENT_LEN_MAX)?;
        self.change_rules(|rules| rules.announcement = text.clone());
        Ok(self.append(Body::Announced(text)))
    }

    pub(super) fn mute_all(&mut self, on: bool) -> Replied {
        self.runners_only()?;
        if self.rules().all_muted == on {
            return Err(WireError::detail(ErrorCode::AlreadyDone, "nothing changes"));
        }
        self.change_rules(|rules| rules.all_muted = on);
        Ok(self.append(Body::AllMuted(on)))
    }

    pub(super) fn mute(&mut self, mute: &Mute) -> Replied {
        self.runners_only()?;
        self.below(mute.user)?;
        if mute.for_ms > MUTE_MS_MAX {
            let detail = format!("{} ms; at most {MUTE_MS_MAX} are allowed", mute.for_ms);
            return Err(WireError::field(ErrorCode::TooLarge, "for_ms", detail).at(MUTE_MS_MAX as usize));
        }
        let now = self.tx.time_ms();
        let until_ms = if mute.for_ms == 0 { 0 } else { now + mute.for_ms };
        self.change_rules(|rules| rules.mute(mute.user, until_ms, now));
        Ok(self.append(Body::Muted(Muted { user: mute.user, until_ms })))
    }

    pub(super) fn nickname(&mut self, name: String) -> Replied {
        check::at_most("nickname", &name, limits::NICKNAME_LEN_MAX)?;
        self.may_write()?;
        let me = self.me;
        self.change_rules(|rules| rules.set_nickname(me, name.clone()));
        Ok(self.append(Body::Nicknamed(name)))
    }

    pub(super) fn set_join(&mut self, set: &SetJoin) -> Replied {
        self.runners_only()?;
        self.change_rules(|rules| (rules.join_code, rules.join_approval) = (set.code, set.approval));
        Ok(self.append(Body::JoinSet(JoinSet { open: set.code > 0, approval: set.approval })))
    }

    /// A person who is no member comes with a code. Whoever has a wrong one learns nothing.
    pub(super) fn join(&mut self, code: u64) -> Replied {
        let me = self.me;
        let rules = self.rules();
        let closed = rules.dissolved || code == 0 || rules.join_code != code;
        if self.conversation.kind != ConversationKind::Group || (closed && !self.conversation.is_member(me)) {
            return Err(WireError::field(ErrorCode::NotFound, "conversation", ""));
        }
        if self.conversation.is_member(me) {
            return Ok(Outcome::Joining { joined: true });
        }
        if rules.join_approval {
            if rules.asked_for(me).is_none() {
                self.ask_in(me)?;
            }
            return Ok(Outcome::Joining { joined: false });
        }
        self.take_in(me)?;
        Ok(Outcome::Joining { joined: true })
    }
}
