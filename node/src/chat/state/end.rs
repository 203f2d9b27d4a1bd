//! What is left of people whose accounts are deleted, and of conversations that nobody can read any more.

use magpie_cluster::{EntityId, Key, Tx};
use magpie_protocol::{Body, ConversationId, Entry, TimelineId, UserId};

use super::{Conversation, Rules, forget, key, rules, rules_key, sender_key};
use crate::{
    chat::Command,
    machine::{self, Outcome, Replied, table},
    media,
};

/// Entries that one command looks through, and records that it removes.
const AT_ONCE: u64 = 256;

/// Nothing of a person stays but what they said. A conversation that nobody else was in goes with them.
pub(super) fn erase(tx: &mut Tx<'_>, id: ConversationId, user: UserId) -> Replied {
    forget(tx, id, user)?;
    tx.delete(sender_key(id, user));
    let mut rules = (*rules(tx, id)).clone();
    rules.erase(user);
    match rules == Rules::default() {
        true => tx.delete(rules_key(id)),
        false => tx.put(rules_key(id), rules),
    }
    let Some(conversation) = tx.get::<Conversation>(&key(id)) else { return Ok(Outcome::Done) };
    let mut conversation = (*conversation).clone();
    conversation.erase(user);
    let empty = conversation.is_empty();
    tx.put(key(id), conversation);
    if empty { clear(tx, id, 1) } else { Ok(Outcome::Done) }
}

/// Nobody can read it any more: lets go of the blobs that messages named, a part at a time, and then of everything.
pub(super) fn clear(tx: &mut Tx<'_>, id: ConversationId, from: u64) -> Replied {
    if tx.get::<Conversation>(&key(id)).is_none_or(|conversation| !conversation.is_empty()) {
        return Ok(Outcome::Done);
    }
    let timeline = TimelineId::Conversation(id);
    let (next, head) = (from.saturating_add(AT_ONCE), tx.head(timeline));
    for number in from..next.min(head + 1) {
        if let Some(Entry { sender, body: Body::Message(said), .. }) = tx.entry(timeline, number) {
            media::state::release(tx, sender, &said.message.kind.blobs());
        }
    }
    // Of people who left long ago.
    let senders = Key::new(id.slot(), table::SENDER).u128(id.bits());
    let some = tx.keys(&senders, None, AT_ONCE as usize);
    some.iter().for_each(|sender| tx.delete(*sender));
    if next <= head || some.len() == AT_ONCE as usize {
        let go_on = machine::Command::Chat(Command::Clear { from: next });
        tx.send(EntityId::conversation(id), &go_on);
        return Ok(Outcome::Done);
    }
    tx.erase(timeline);
    tx.delete(rules_key(id));
    tx.delete(key(id));
    Ok(Outcome::Done)
}
