//! What an entry changes in what the store holds already: messages recalled, edited or deleted, signs, and the records
//! that stand in the inbox. Pure; the stores carry it out in the transaction that adds the entry.

use magpie_protocol::{
    Body, Entry, TimelineId, UserId, codec,
    entry::{Edited, Gone, Said},
    frame::{
        account::Profile,
        contact::{ContactCard, ContactState},
        personal::{ConversationSettings, Favourite},
    },
    message::{Kind, Message},
};

/// What a kept record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Topic {
    /// A [`ContactCard`], by user.
    Card = 1,
    /// [`ConversationSettings`], by conversation.
    Settings = 2,
    /// A [`Favourite`], by id.
    Favourite = 3,
    /// One's own [`Profile`].
    Profile = 4,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Put {
        topic: Topic,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        topic: Topic,
        key: Vec<u8>,
    },
    /// Of the card of a user, if there is one: how far the two have come.
    Befriend {
        user: UserId,
        card: ContactCard,
    },
    /// An entry of the same timeline reads otherwise from now on.
    Rewrite {
        number: u64,
        how: Rewrite,
    },
    /// Entries of a conversation are deleted here, whether they are there or still come.
    Hide {
        timeline: TimelineId,
        up_to: u64,
        numbers: Vec<u64>,
    },
    /// A sign on an entry of the same timeline.
    React {
        number: u64,
        user: UserId,
        emoji: String,
        on: bool,
    },
}

/// How an entry reads from now on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rewrite {
    Gone {
        recalled: u64,
    },
    Edited {
        kind: Kind,
        edited: u64,
    },
    /// It edited another, which has newer words.
    Spent,
}

fn key(user: UserId) -> Vec<u8> {
    user.bits().to_be_bytes().to_vec()
}

fn put<T: codec::Encode>(topic: Topic, key: Vec<u8>, value: &T) -> Vec<Change> {
    vec![Change::Put { topic, key, value: codec::encode(value) }]
}

/// What this entry changes besides being there.
pub(crate) fn changes(timeline: TimelineId, entry: &Entry) -> Vec<Change> {
    match (&timeline, &entry.body) {
        (TimelineId::Conversation(_), Body::Recalled(number)) => {
            vec![Change::Rewrite { number: *number, how: Rewrite::Gone { recalled: entry.number } }]
        }
        (TimelineId::Conversation(_), Body::Edited(Edited { number, kind: Some(kind) })) => {
            let how = Rewrite::Edited { kind: kind.clone(), edited: entry.number };
            vec![Change::Rewrite { number: *number, how }]
        }
        (TimelineId::Conversation(_), Body::Reacted(reacted)) => {
            let (number, user, emoji, on) = (reacted.number, entry.sender, reacted.emoji.clone(), reacted.on);
            vec![Change::React { number, user, emoji, on }]
        }
        (TimelineId::Inbox(_), body) => of_inbox(body, entry.time_ms),
        _ => Vec::new(),
    }
}

fn card(user: UserId, handle: &str, state: ContactState, greeting: &str) -> ContactCard {
    ContactCard {
        user,
        handle: handle.to_owned(),
        state: Some(state),
        remark: String::new(),
        tags: Vec::new(),
        starred: false,
        blocked: false,
        greeting: greeting.to_owned(),
        expires_ms: 0,
    }
}

/// How long a request waits for an answer, in milliseconds; see docs/protocol.md.
const REQUEST_MS: u64 = 7 * 24 * 3_600 * 1_000;

fn of_inbox(body: &Body, time_ms: u64) -> Vec<Change> {
    match body {
        Body::ContactRequested(asked) => {
            let mut card = card(asked.from, &asked.handle, ContactState::Waiting, &asked.greeting);
            card.expires_ms = time_ms + REQUEST_MS;
            vec![Change::Befriend { user: asked.from, card }]
        }
        Body::ContactAccepted(accepted) => {
            let card = card(accepted.user, &accepted.handle, ContactState::Accepted, "");
            vec![Change::Befriend { user: accepted.user, card }]
        }
        Body::ContactSet(card) => put(Topic::Card, key(card.user), card),
        Body::ContactRemoved(user) => vec![Change::Delete { topic: Topic::Card, key: key(*user) }],
        Body::ConversationSet(set) => put(Topic::Settings, set.conversation.bits().to_be_bytes().to_vec(), set),
        Body::FavouriteAdded(kept) => put(Topic::Favourite, kept.id.to_be_bytes().to_vec(), kept),
        Body::FavouriteRemoved(id) => {
            vec![Change::Delete { topic: Topic::Favourite, key: id.to_be_bytes().to_vec() }]
        }
        Body::ProfileSet(profile) => put(Topic::Profile, Vec::new(), profile),
        Body::Hidden(hidden) => vec![Change::Hide {
            timeline: TimelineId::Conversation(hidden.conversation),
            up_to: hidden.up_to,
            numbers: hidden.numbers.clone(),
        }],
        _ => Vec::new(),
    }
}

/// The card with how far the two have come now, and what else was kept of the person.
pub(crate) fn befriended(before: Option<&[u8]>, now: &ContactCard) -> ContactCard {
    match before.and_then(|bytes| codec::decode_stored::<ContactCard>(bytes).ok()) {
        Some(before) => ContactCard {
            handle: if now.handle.is_empty() { before.handle } else { now.handle.clone() },
            state: now.state,
            greeting: now.greeting.clone(),
            expires_ms: now.expires_ms,
            ..before
        },
        None => now.clone(),
    }
}

/// The entry as it reads now, and the number of the one that edited it before, whose words are spent.
pub(crate) fn rewrite(bytes: &[u8], how: &Rewrite) -> Option<(Vec<u8>, Option<u64>)> {
    let mut entry = Entry::from_bytes(bytes).ok()?;
    let (message, edited) = match &entry.body {
        Body::Text(text) => (Some(Message::new(Kind::Text(text.clone()))), 0),
        Body::Message(said) => (Some(said.message.clone()), said.edited),
        _ => (None, 0),
    };
    entry.body = match (how, message) {
        (Rewrite::Gone { recalled }, Some(_)) => Body::Gone(Gone { recalled: *recalled }),
        (Rewrite::Edited { kind, edited: now }, Some(message)) if edited < *now => {
            Body::Message(Said { message: Message { kind: kind.clone(), ..message }, edited: *now })
        }
        (Rewrite::Spent, None) => match entry.body {
            Body::Edited(edited) => Body::Edited(Edited { kind: None, ..edited }),
            _ => return None,
        },
        _ => return None,
    };
    Some((entry.to_bytes(), Some(edited).filter(|edited| *edited > 0)))
}

/// A kept record, read.
pub(crate) fn read<T: codec::Decode<()>>(bytes: &[u8]) -> Option<T> {
    codec::decode_stored(bytes).ok()
}

/// Types of kept records, so that a topic is read as what it is.
pub(crate) trait Kept: codec::Decode<()> {
    const TOPIC: Topic;
}

impl Kept for ContactCard {
    const TOPIC: Topic = Topic::Card;
}
impl Kept for ConversationSettings {
    const TOPIC: Topic = Topic::Settings;
}
impl Kept for Favourite {
    const TOPIC: Topic = Topic::Favourite;
}
impl Kept for Profile {
    const TOPIC: Topic = Topic::Profile;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, body: Body) -> Entry {
        Entry { number, time_ms: 9, sender: UserId::from_bits(1), body }
    }

    fn body(bytes: &[u8]) -> Body {
        Entry::from_bytes(bytes).unwrap().body
    }

    #[test]
    fn an_edit_gives_new_words_once_and_a_recall_takes_them() {
        let said = entry(3, Body::Text("first".into())).to_bytes();
        let kind = |text: &str| Kind::Text(text.into());
        let (second, spent) = rewrite(&said, &Rewrite::Edited { kind: kind("second"), edited: 5 }).unwrap();
        assert_eq!(spent, None);
        let Body::Message(now) = body(&second) else { panic!() };
        assert_eq!((now.message.kind, now.edited), (kind("second"), 5));
        // The entry that a device pulled late has the newer words already.
        assert!(rewrite(&second, &Rewrite::Edited { kind: kind("second"), edited: 5 }).is_none());
        let (third, spent) = rewrite(&second, &Rewrite::Edited { kind: kind("third"), edited: 8 }).unwrap();
        assert_eq!(spent, Some(5));
        let (gone, spent) = rewrite(&third, &Rewrite::Gone { recalled: 9 }).unwrap();
        assert_eq!((body(&gone), spent), (Body::Gone(Gone { recalled: 9 }), Some(8)));
        assert!(rewrite(&gone, &Rewrite::Edited { kind: kind("late"), edited: 10 }).is_none());
        let edit = entry(5, Body::Edited(Edited { number: 3, kind: Some(kind("second")) })).to_bytes();
        let (spent, _) = rewrite(&edit, &Rewrite::Spent).unwrap();
        assert_eq!(body(&spent), Body::Edited(Edited { number: 3, kind: None }));
    }

    #[test]
    fn what_is_kept_of_a_person_outlives_a_new_state() {
        let kept =
            ContactCard { remark: "boss".into(), ..card(UserId::from_bits(7), "x", ContactState::Waiting, "hi") };
        let now = befriended(Some(&codec::encode(&kept)), &card(UserId::from_bits(7), "", ContactState::Accepted, ""));
        assert_eq!((now.remark.as_str(), now.handle.as_str(), now.state), ("boss", "x", Some(ContactState::Accepted)));
    }
}
