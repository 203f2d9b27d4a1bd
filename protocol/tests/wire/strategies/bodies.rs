//! What entries say.

use magpie_protocol::{Body, ConversationKind, entry::*};
use proptest::{collection::vec, option::of, prelude::*, sample::select};

use super::{card, conversation, device, favourite, kind, messages::said, number, profile, settings, text, user};

/// Any body.
pub(crate) fn body() -> impl Strategy<Value = Body> {
    select(Body::TAGS).prop_flat_map(|(tag, name)| body_of(tag, name))
}

fn body_of(tag: u16, name: &str) -> BoxedStrategy<Body> {
    let pair = (user(), user());
    match tag {
        1 => text().prop_map(Body::Text).boxed(),
        2 => (select(vec![ConversationKind::Direct, ConversationKind::Group]), text())
            .prop_map(|(kind, title)| Body::Created(Created { kind, title }))
            .boxed(),
        3 => pair.prop_map(|(user, by)| Body::Joined(Joined { user, by })).boxed(),
        4 => user().prop_map(Body::Left).boxed(),
        5 => pair.prop_map(|(user, by)| Body::Removed(Removed { user, by })).boxed(),
        6 => text().prop_map(Body::Renamed).boxed(),
        7..=11 => message_of(tag),
        12 => (user(), any::<bool>()).prop_map(|(user, on)| Body::AdminSet(AdminSet { user, on })).boxed(),
        13 => user().prop_map(Body::OwnerChanged).boxed(),
        14 => Just(Body::Dissolved(Dissolved)).boxed(),
        15 => text().prop_map(Body::Announced).boxed(),
        16 => any::<bool>().prop_map(Body::AllMuted).boxed(),
        17 => (user(), number()).prop_map(|(user, until_ms)| Body::Muted(Muted { user, until_ms })).boxed(),
        18 => text().prop_map(Body::Nicknamed).boxed(),
        19 => any::<[bool; 2]>().prop_map(|[open, approval]| Body::JoinSet(JoinSet { open, approval })).boxed(),
        20 => user().prop_map(Body::JoinAsked).boxed(),
        21 => user().prop_map(Body::JoinRefused).boxed(),
        32..=48 => inbox_of(tag, name),
        _ => panic!("body {name} has no strategy"),
    }
}

fn message_of(tag: u16) -> BoxedStrategy<Body> {
    match tag {
        7 => (said(), number()).prop_map(|(message, edited)| Body::Message(Said { message, edited })).boxed(),
        8 => number().prop_map(|recalled| Body::Gone(Gone { recalled })).boxed(),
        9 => number().prop_map(Body::Recalled).boxed(),
        10 => (number(), of(kind())).prop_map(|(number, kind)| Body::Edited(Edited { number, kind })).boxed(),
        _ => (number(), text(), any::<bool>())
            .prop_map(|(number, emoji, on)| Body::Reacted(Reacted { number, emoji, on }))
            .boxed(),
    }
}

fn inbox_of(tag: u16, name: &str) -> BoxedStrategy<Body> {
    let named = (device(), text()).prop_map(|(device, name)| DeviceNamed { device, name });
    match tag {
        32 => (user(), text(), text())
            .prop_map(|(from, handle, greeting)| Body::ContactRequested(ContactRequested { from, handle, greeting }))
            .boxed(),
        33 => (user(), text(), conversation())
            .prop_map(|(user, handle, conversation)| {
                Body::ContactAccepted(ContactAccepted { user, handle, conversation })
            })
            .boxed(),
        34 => (conversation(), text(), number(), user())
            .prop_map(|(conversation, title, first, by)| {
                Body::ConversationAdded(ConversationAdded { conversation, title, first, by })
            })
            .boxed(),
        35 => (conversation(), number())
            .prop_map(|(conversation, last)| Body::ConversationEnded(ConversationEnded { conversation, last }))
            .boxed(),
        36 => (conversation(), number())
            .prop_map(|(conversation, number)| Body::ReadTo(ReadTo { conversation, number }))
            .boxed(),
        37 => named.prop_map(Body::DeviceSignedIn).boxed(),
        38 => named.prop_map(Body::DeviceSignedOut).boxed(),
        39 => card().prop_map(Body::ContactSet).boxed(),
        40 => user().prop_map(Body::ContactRemoved).boxed(),
        41 => settings().prop_map(Body::ConversationSet).boxed(),
        42 => profile().prop_map(Body::ProfileSet).boxed(),
        43 => (conversation(), number(), vec(number(), 0..20))
            .prop_map(|(conversation, up_to, numbers)| Body::Hidden(Hidden { conversation, up_to, numbers }))
            .boxed(),
        44 => favourite().prop_map(Body::FavouriteAdded).boxed(),
        45 => number().prop_map(Body::FavouriteRemoved).boxed(),
        46 => number().prop_map(Body::PasswordChanged).boxed(),
        47 => number().prop_map(Body::Closing).boxed(),
        48 => text().prop_map(Body::Notice).boxed(),
        _ => panic!("body {name} has no strategy"),
    }
}
