//! One fixed value of everything that travels, each under the name of its line in the golden file.

mod answers;
mod bodies;
mod media;
mod messages;
mod requests;
mod search;

use magpie_protocol::{
    BlobId, ConversationId, DeviceId, Incarnation, MessageId, NodeId, RequestId, ShardId, Slot, TimelineId, UserId,
    codec::{Decode, Encode},
    frame::{
        account::Profile,
        contact::{ContactCard, ContactState},
        personal::{ConversationSettings, Favourite},
    },
    message::BlobRef,
};

pub(crate) use answers::answers;
pub(crate) use bodies::bodies;
pub(crate) use media::{media_answers, media_requests};
pub(crate) use messages::{contents, kinds};
pub(crate) use requests::requests;

pub(crate) const ALICE: UserId = UserId::from_bits(0x0123_4567_89ab_cdef);
pub(crate) const BOB: UserId = UserId::from_bits(0xfedc_ba98_7654_3210);
pub(crate) const PHONE: DeviceId = DeviceId::from_bits(0x00d0_0000_0000_0001);
pub(crate) const STORE: Incarnation = Incarnation::from_bits(0x0001_c6b2_9aab_cdef);
/// 2026-11-01, in milliseconds.
pub(crate) const TIME_MS: u64 = 1_793_491_200_000;

pub(crate) fn direct() -> ConversationId {
    ConversationId::direct(ALICE, BOB)
}

pub(crate) fn group() -> ConversationId {
    ConversationId::group(ALICE, 0x0123_4567_89ab_cdef_0011_2233_4455_6677)
}

pub(crate) fn blob() -> BlobId {
    BlobId::from_hash(std::array::from_fn(|i| (i * 8) as u8))
}

fn blob_ref(media_type: &str) -> BlobRef {
    BlobRef { blob: blob(), len: 70_000, media_type: media_type.into() }
}

fn profile() -> Profile {
    Profile {
        nickname: "Alice".into(),
        avatar: Some(blob_ref("image/webp")),
        region: "Bergen".into(),
        signature: "up early".into(),
    }
}

fn card() -> ContactCard {
    ContactCard {
        user: BOB,
        handle: "bob".into(),
        state: Some(ContactState::Accepted),
        remark: "Bob next door".into(),
        tags: vec!["birds".into(), "work".into()],
        starred: true,
        blocked: false,
        greeting: String::new(),
        expires_ms: 0,
    }
}

/// Somebody who waits, and somebody who is only blocked.
fn more_cards() -> [ContactCard; 2] {
    let bare = ContactCard {
        user: ALICE,
        handle: "alice".into(),
        state: Some(ContactState::Waiting),
        remark: String::new(),
        tags: Vec::new(),
        starred: false,
        blocked: false,
        greeting: "hi".into(),
        expires_ms: TIME_MS + 604_800_000,
    };
    let blocked = ContactCard { state: None, blocked: true, greeting: String::new(), expires_ms: 0, ..bare.clone() };
    [bare, blocked]
}

fn settings() -> ConversationSettings {
    ConversationSettings { conversation: group(), pinned: true, do_not_disturb: false, saved: true, hidden_at: 251 }
}

fn favourite() -> Favourite {
    Favourite {
        id: 7,
        time_ms: TIME_MS,
        conversation: direct(),
        number: 300,
        sender: BOB,
        kind: magpie_protocol::Kind::Text("remember this".into()),
    }
}

/// Reads an id from its text and from its bytes, and gives the text of each.
pub(crate) type ReadId = fn(&str, &[u8]) -> Option<(String, String)>;

/// What is done with each id: its name, its text and its bytes.
pub(crate) struct IdSample {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) read: ReadId,
}

fn id<T: ToString + std::str::FromStr + Encode + Decode<()>>(name: &'static str, id: T) -> IdSample {
    IdSample {
        name,
        text: id.to_string(),
        bytes: magpie_protocol::codec::encode(&id),
        read: |text, bytes| {
            let from_text: T = text.parse().ok()?;
            let from_bytes: T = magpie_protocol::codec::decode(bytes).ok()?;
            Some((from_text.to_string(), from_bytes.to_string()))
        },
    }
}

/// Every id.
pub(crate) fn ids() -> Vec<IdSample> {
    vec![
        id("UserId", ALICE),
        id("UserId.zero", UserId::default()),
        id("UserId.in_slot", UserId::in_slot(Slot::new(4095), u64::MAX)),
        id("DeviceId", PHONE),
        id("Incarnation", STORE),
        id("Incarnation.mint", Incarnation::mint(29_891_520, 0x1234_5678)),
        id("ConversationId.direct", direct()),
        id("ConversationId.direct_reversed", ConversationId::direct(BOB, ALICE)),
        id("ConversationId.group", group()),
        id("Slot", Slot::new(4095)),
        id("Slot.of_text", Slot::of_text("alice")),
        id("ShardId", ShardId::new(7)),
        id("RequestId", RequestId::new(u32::MAX)),
        id("TimelineId.conversation", TimelineId::Conversation(direct())),
        id("TimelineId.inbox", TimelineId::Inbox(ALICE)),
        id("MessageId", MessageId { conversation: direct(), number: 42 }),
        id("NodeId", NodeId::new(3, 2)),
        id("BlobId", blob()),
    ]
}
