//! What people say and do in conversations.

use magpie_protocol::{Kind, Message, codec, frame::conversation::*, message::*};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{blob_ref, bytes, number, signed, small, text, user, users};

/// Any kind of message.
pub(crate) fn kind() -> impl Strategy<Value = Kind> {
    select(Kind::TAGS).prop_flat_map(|(tag, name)| match tag {
        11 => forwarded().prop_map(Kind::Forwarded).boxed(),
        _ => plain_of(tag, name),
    })
}

/// Any kind that can be forwarded among others.
pub(crate) fn plain_kind() -> impl Strategy<Value = Kind> {
    let plain: Vec<_> = Kind::TAGS.iter().copied().filter(|(tag, _)| *tag != 11).collect();
    select(plain).prop_flat_map(|(tag, name)| plain_of(tag, name))
}

fn plain_of(tag: u16, name: &str) -> BoxedStrategy<Kind> {
    match tag {
        1 => text().prop_map(Kind::Text).boxed(),
        2 => (blob_ref(), small(), small(), bytes())
            .prop_map(|(blob, width, height, preview)| Kind::Picture(Picture { blob, width, height, preview }))
            .boxed(),
        3 => (blob_ref(), small()).prop_map(|(blob, duration_ms)| Kind::Voice(Voice { blob, duration_ms })).boxed(),
        4 => (blob_ref(), small(), small(), small(), bytes())
            .prop_map(|(blob, duration_ms, width, height, preview)| {
                Kind::Video(Video { blob, duration_ms, width, height, preview })
            })
            .boxed(),
        5 => (blob_ref(), text()).prop_map(|(blob, name)| Kind::File(File { blob, name })).boxed(),
        6 => (signed(), signed(), text(), text())
            .prop_map(|(latitude_e7, longitude_e7, name, address)| {
                Kind::Location(Location { latitude_e7, longitude_e7, name, address })
            })
            .boxed(),
        7 => (user(), text(), text())
            .prop_map(|(user, handle, nickname)| Kind::Card(Card { user, handle, nickname }))
            .boxed(),
        8 => (blob_ref(), text()).prop_map(|(blob, meaning)| Kind::Sticker(Sticker { blob, meaning })).boxed(),
        9 => (text(), text(), text(), bytes())
            .prop_map(|(url, title, summary, preview)| Kind::Link(Link { url, title, summary, preview }))
            .boxed(),
        10 => (text(), bytes()).prop_map(|(name, data)| Kind::Custom(Custom { name, data })).boxed(),
        _ => panic!("kind {name} has no strategy"),
    }
}

fn forwarded() -> impl Strategy<Value = Forwarded> {
    let inner = prop_oneof![plain_kind().prop_map(|kind| codec::encode(&kind)), bytes()];
    let item = (text(), number(), inner).prop_map(|(sender, time_ms, kind)| ForwardedItem { sender, time_ms, kind });
    (text(), vec(item, 0..5)).prop_map(|(title, items)| Forwarded { title, items })
}

/// Any message.
pub(super) fn said() -> impl Strategy<Value = Message> {
    (kind(), number(), users()).prop_map(|(kind, quote, mentions)| Message { kind, quote, mentions })
}

/// Any act in a conversation.
pub(super) fn content() -> impl Strategy<Value = Content> {
    select(Content::TAGS).prop_flat_map(|(tag, name)| content_of(tag, name))
}

fn content_of(tag: u16, name: &str) -> BoxedStrategy<Content> {
    match tag {
        1 => text().prop_map(Content::Text).boxed(),
        2 => user().prop_map(Content::Invite).boxed(),
        3 => user().prop_map(Content::Remove).boxed(),
        4 => Just(Content::Leave(Leave)).boxed(),
        5 => text().prop_map(Content::Rename).boxed(),
        6 => said().prop_map(Content::Say).boxed(),
        7 => number().prop_map(Content::Recall).boxed(),
        8 => (number(), kind()).prop_map(|(number, kind)| Content::Edit(Edit { number, kind })).boxed(),
        9 => (number(), text(), any::<bool>())
            .prop_map(|(number, emoji, on)| Content::React(React { number, emoji, on }))
            .boxed(),
        10 => (user(), any::<bool>()).prop_map(|(user, on)| Content::SetAdmin(SetAdmin { user, on })).boxed(),
        11 => user().prop_map(Content::Transfer).boxed(),
        12 => Just(Content::Dissolve(Dissolve)).boxed(),
        13 => text().prop_map(Content::Announce).boxed(),
        14 => any::<bool>().prop_map(Content::MuteAll).boxed(),
        15 => (user(), number()).prop_map(|(user, for_ms)| Content::Mute(Mute { user, for_ms })).boxed(),
        16 => text().prop_map(Content::Nickname).boxed(),
        17 => {
            (number(), any::<bool>()).prop_map(|(code, approval)| Content::SetJoin(SetJoin { code, approval })).boxed()
        }
        18 => (user(), any::<bool>()).prop_map(|(user, yes)| Content::Admit(Admit { user, yes })).boxed(),
        _ => panic!("content {name} has no strategy"),
    }
}
