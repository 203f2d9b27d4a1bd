//! What people say and do in conversations.

use magpie_protocol::{
    Kind, Message, UserId, codec,
    frame::conversation::{Admit, Content, Dissolve, Edit, Leave, Mute, React, SetAdmin, SetJoin},
    message::*,
};

use super::{BOB, TIME_MS, blob_ref};

/// Every kind of message.
pub(crate) fn kinds() -> Vec<Kind> {
    let item = |sender: &str, kind: &Kind| ForwardedItem {
        sender: sender.into(),
        time_ms: TIME_MS,
        kind: codec::encode(kind),
    };
    let picture =
        Picture { blob: blob_ref("image/jpeg"), width: 1_920, height: 1_080, preview: vec![0xff, 0xd8, 0xff] };
    let items = vec![item("Ann", &Kind::Text("hello".into())), item("Bob", &Kind::Picture(picture.clone()))];
    vec![
        Kind::Text("h\u{e9}llo \u{1f426}".into()),
        Kind::Picture(picture),
        Kind::Voice(Voice { blob: blob_ref("audio/ogg"), duration_ms: 60_000 }),
        Kind::Video(Video {
            blob: blob_ref("video/mp4"),
            duration_ms: 70_000,
            width: 0,
            height: 0,
            preview: Vec::new(),
        }),
        Kind::File(File { blob: blob_ref("application/pdf"), name: "plan.pdf".into() }),
        Kind::Location(Location {
            latitude_e7: 603_929_900,
            longitude_e7: -53_242_500,
            name: "the nest".into(),
            address: "Bryggen 1".into(),
        }),
        Kind::Card(Card { user: BOB, handle: "bob".into(), nickname: "Bob".into() }),
        Kind::Sticker(Sticker { blob: blob_ref("image/webp"), meaning: "a magpie waves".into() }),
        Kind::Link(Link {
            url: "https://example.com/".into(),
            title: "Example".into(),
            summary: "a page".into(),
            preview: vec![1, 2, 3],
        }),
        Kind::Custom(Custom { name: "com.example.poll".into(), data: vec![0, 250, 251, 255] }),
        Kind::Forwarded(Forwarded { title: "Chat of Ann and Bob".into(), items }),
    ]
}

/// Every content tag; a second of the same tag is named by its number.
pub(crate) fn contents() -> Vec<Content> {
    let quote =
        Message { quote: 249, mentions: vec![BOB, UserId::EVERYONE], ..Message::new(Kind::Text("you?".into())) };
    let mut all = vec![
        Content::Text("hello".into()),
        Content::Invite(BOB),
        Content::Remove(BOB),
        Content::Leave(Leave),
        Content::Rename("the nest".into()),
        Content::Say(quote),
        Content::Recall(250),
        Content::Edit(Edit { number: 250, kind: Kind::Text("other words".into()) }),
        Content::React(React { number: 250, emoji: "\u{1f426}".into(), on: true }),
        Content::SetAdmin(SetAdmin { user: BOB, on: true }),
        Content::Transfer(BOB),
        Content::Dissolve(Dissolve),
        Content::Announce("seed at eight".into()),
        Content::MuteAll(true),
        Content::Mute(Mute { user: BOB, for_ms: 86_400_000 }),
        Content::Nickname("Al".into()),
        Content::SetJoin(SetJoin { code: 0xfeed_face_cafe_beef, approval: true }),
        Content::Admit(Admit { user: BOB, yes: false }),
    ];
    // And every kind in a message of its own.
    all.extend(kinds().into_iter().map(|kind| Content::Say(Message::new(kind))));
    all
}
