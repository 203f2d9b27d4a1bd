//! What entries say.

use magpie_protocol::{Body, ConversationKind, Kind, Message, UserId, entry::*};

use super::{ALICE, BOB, PHONE, TIME_MS, card, direct, favourite, group, profile, settings};

/// Every body tag; a second of the same tag is named by its number.
pub(crate) fn bodies() -> Vec<Body> {
    let conversation = group();
    let device = DeviceNamed { device: PHONE, name: "phone".into() };
    let quote =
        Message { quote: 249, mentions: vec![BOB, UserId::EVERYONE], ..Message::new(Kind::Text("you?".into())) };
    vec![
        Body::Text("h\u{e9}llo \u{1f426}".into()),
        Body::Created(Created { kind: ConversationKind::Group, title: "the nest".into() }),
        Body::Joined(Joined { user: BOB, by: ALICE }),
        Body::Left(BOB),
        Body::Removed(Removed { user: BOB, by: ALICE }),
        Body::Renamed("the tree".into()),
        Body::ContactRequested(ContactRequested { from: ALICE, handle: "alice".into(), greeting: "hi".into() }),
        Body::ContactAccepted(ContactAccepted { user: BOB, handle: "bob".into(), conversation: direct() }),
        Body::ConversationAdded(ConversationAdded { conversation, title: "the nest".into(), first: 251, by: ALICE }),
        Body::ConversationEnded(ConversationEnded { conversation, last: 65_536 }),
        Body::ReadTo(ReadTo { conversation, number: 4_294_967_296 }),
        Body::DeviceSignedIn(device.clone()),
        Body::DeviceSignedOut(device),
        Body::Message(Said { message: quote, edited: 0 }),
        Body::Message(Said { message: Message::new(Kind::Text("other words".into())), edited: 251 }),
        Body::Gone(Gone { recalled: 252 }),
        Body::Recalled(250),
        Body::Edited(Edited { number: 250, kind: Some(Kind::Text("other words".into())) }),
        Body::Edited(Edited { number: 250, kind: None }),
        Body::Reacted(Reacted { number: 250, emoji: "\u{1f426}".into(), on: true }),
        Body::AdminSet(AdminSet { user: BOB, on: true }),
        Body::OwnerChanged(BOB),
        Body::Dissolved(Dissolved),
        Body::Announced("seed at eight".into()),
        Body::AllMuted(true),
        Body::Muted(Muted { user: BOB, until_ms: TIME_MS }),
        Body::Nicknamed("Al".into()),
        Body::JoinSet(JoinSet { open: true, approval: false }),
        Body::JoinAsked(BOB),
        Body::JoinRefused(BOB),
        Body::ContactSet(card()),
        Body::ContactRemoved(BOB),
        Body::ConversationSet(settings()),
        Body::ProfileSet(profile()),
        Body::Hidden(Hidden { conversation, up_to: 250, numbers: vec![251, 65_536] }),
        Body::FavouriteAdded(favourite()),
        Body::FavouriteRemoved(7),
        Body::PasswordChanged(TIME_MS),
        Body::Closing(TIME_MS),
        Body::Notice("we are moving house".into()),
    ]
}
