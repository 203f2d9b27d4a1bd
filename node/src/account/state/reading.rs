//! Read cursors: how far a person has read, merged by maximum.

use magpie_cluster::{Store, Tx, state::StateError};
use magpie_protocol::{Body, ConversationId, ErrorCode, TimelineId, UserId, WireError, entry::ReadTo};

use super::{List, key};
use crate::machine::{Outcome, Replied, table};

/// Moves one cursor forward.
pub(super) fn mark_one(tx: &mut Tx<'_>, me: UserId, read: (ConversationId, u64)) -> Replied {
    match mark(tx, me, &[read])? {
        Outcome::Missing(_) => Err(WireError::field(ErrorCode::NotFound, "conversation", "")),
        done => Ok(done),
    }
}

/// Moves cursors forward. Conversations that are not on the list are named, and the others are read all the same.
pub(super) fn mark(tx: &mut Tx<'_>, me: UserId, reads: &[(ConversationId, u64)]) -> Replied {
    let before = tx.get::<List>(&key(me, table::LIST)).unwrap_or_default();
    let (mut list, mut moved, mut missing) = ((*before).clone(), false, Vec::new());
    for &(conversation, number) in reads {
        match list.0.iter_mut().find(|l| l.conversation == conversation) {
            None => missing.push(conversation),
            Some(listed) if listed.read >= number => {}
            Some(listed) => {
                (listed.read, moved) = (number, true);
                tx.append(TimelineId::Inbox(me), me, Body::ReadTo(ReadTo { conversation, number }), 0, None);
            }
        }
    }
    if moved {
        tx.put(key(me, table::LIST), list);
    }
    Ok(if missing.is_empty() { Outcome::Done } else { Outcome::Missing(missing) })
}

/// How far this person has read a conversation, if it is on their list.
pub(super) fn of(store: &mut Store, user: UserId, conversation: ConversationId) -> Result<Option<u64>, StateError> {
    let list = store.get::<List>(&key(user, table::LIST))?.unwrap_or_default();
    Ok(list.0.iter().find(|listed| listed.conversation == conversation).map(|listed| listed.read))
}
