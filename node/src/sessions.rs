//! The sessions of this node, by person.

use magpie_protocol::{UserId, frame::hello::ClosingReason};

use crate::{
    registry::Registry,
    session::{Message, SessionHandle},
};

/// See the module's documentation.
#[derive(Default)]
pub struct Sessions(Registry<UserId, Vec<SessionHandle>>);

impl Sessions {
    /// A session began. Older ones of the same device are told that it took over.
    pub fn entered(&self, session: &SessionHandle) {
        metrics::gauge!(crate::metrics::SESSIONS).increment(1);
        let me = session.identity();
        let mut replaced = Vec::new();
        self.0.alter(me.user, Vec::new, |list| {
            for other in list.iter().filter(|other| other.identity().device == me.device) {
                // One that began later may have entered first.
                let older = if other.identity().epoch < me.epoch { other } else { session };
                replaced.push(older.clone());
            }
            list.push(session.clone());
            true
        });
        for old in replaced {
            old.tell(Message::Close { reason: ClosingReason::Replaced, reconnect_after_ms: 0 });
        }
    }

    /// A session ended.
    pub fn left(&self, session: &SessionHandle) {
        metrics::gauge!(crate::metrics::SESSIONS).decrement(1);
        self.0.alter(session.identity().user, Vec::new, |list| {
            list.retain(|other| other != session);
            !list.is_empty()
        });
    }

    /// Tells every session that the node stops.
    pub fn stopping(&self, reconnect_after_ms: u32) {
        self.0.each(|_, list| {
            for session in list {
                session.tell(Message::Close { reason: ClosingReason::Stopping, reconnect_after_ms });
            }
        });
    }

    /// Lets so many go: their devices come back at once, to another node where there is one.
    pub fn let_go(&self, mut count: usize) {
        let mut users = Vec::new();
        self.0.each(|user, _| users.push(*user));
        // By their ids, and not as they happen to lie in memory: what a simulation sees it sees again.
        if count < users.len() {
            users.select_nth_unstable(count);
            users.truncate(count);
        }
        users.sort_unstable();
        for user in users {
            let sessions = self.0.get(&user).unwrap_or_default();
            for session in sessions.iter().take(count) {
                session.tell(Message::Close { reason: ClosingReason::Stopping, reconnect_after_ms: 1 });
                count -= 1;
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let mut all = 0;
        self.0.each(|_, list| all += list.len());
        all
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
