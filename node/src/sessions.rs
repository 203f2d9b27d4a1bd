//! The sessions of this node, by person.

use std::sync::Arc;

use magpie_protocol::{UserId, frame::hello::ClosingReason};

use crate::{
    registry::Registry,
    session::{Message, SessionHandle},
};

/// See the module's documentation.
#[derive(Default)]
pub struct Sessions(Registry<UserId, Arc<Vec<SessionHandle>>>);

fn same(a: &SessionHandle, b: &SessionHandle) -> bool {
    Arc::ptr_eq(a.out(), b.out())
}

impl Sessions {
    /// A session began. Older ones of the same device are told that it took over.
    pub fn entered(&self, session: &SessionHandle) {
        metrics::gauge!(crate::metrics::SESSIONS).increment(1);
        let replaced = self.0.update(session.identity.user, |list| {
            let mut list = list.map(|l| (*l).clone()).unwrap_or_default();
            let is_old = |other: &SessionHandle| {
                other.identity.device == session.identity.device && other.identity.epoch < session.identity.epoch
            };
            let mut replaced: Vec<_> = list.iter().filter(|other| is_old(other)).cloned().collect();
            let is_newer = |other: &SessionHandle| {
                other.identity.device == session.identity.device && other.identity.epoch > session.identity.epoch
            };
            // One that began later may have entered first.
            if list.iter().any(is_newer) {
                replaced.push(session.clone());
            }
            list.push(session.clone());
            (Some(Arc::new(list)), replaced)
        });
        for old in replaced {
            old.tell(Message::Close { reason: ClosingReason::Replaced, reconnect_after_ms: 0 });
        }
    }

    /// A session ended.
    pub fn left(&self, session: &SessionHandle) {
        metrics::gauge!(crate::metrics::SESSIONS).decrement(1);
        self.0.update(session.identity.user, |list| {
            let mut list = list.map(|l| (*l).clone()).unwrap_or_default();
            list.retain(|other| !same(other, session));
            ((!list.is_empty()).then(|| Arc::new(list)), ())
        });
    }

    /// Tells every session that the node stops.
    pub fn stopping(&self, reconnect_after_ms: u32) {
        for session in self.0.values().iter().flat_map(|list| list.iter()) {
            session.tell(Message::Close { reason: ClosingReason::Stopping, reconnect_after_ms });
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.values().iter().map(|list| list.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
