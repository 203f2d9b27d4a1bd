//! One fixed value of everything that travels, each under the name of its line in the golden file.

use bytes::Bytes;
use magpie_protocol::{
    BlobId, Body, ConversationId, ConversationKind, DeviceId, Entry, ErrorCode, Incarnation, MessageId, NodeId,
    RequestId, ShardId, Slot, TimelineId, UserId, WireError,
    codec::{Decode, Encode},
    entry::{
        ContactAccepted, ContactRequested, ConversationAdded, ConversationEnded, Created, DeviceNamed, Joined, ReadTo,
        Removed,
    },
    frame::{Answer, Request, account::*, contact::*, conversation::*, hello::*, sync::*},
};

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

fn device_key() -> DeviceKey {
    DeviceKey {
        public_key: std::array::from_fn(|i| i as u8),
        proof: std::array::from_fn(|i| 0xff - i as u8),
        name: "phone".into(),
    }
}

fn heads() -> Vec<Head> {
    vec![
        Head { timeline: TimelineId::Conversation(direct()), first: 1, head: 70_000, read: 250 },
        Head { timeline: TimelineId::Inbox(ALICE), first: 1, head: 0, read: 0 },
    ]
}

fn entry_bytes(number: u64) -> EntryBytes {
    let entry = Entry { number, time_ms: TIME_MS, sender: ALICE, body: Body::Text("hello".into()) };
    EntryBytes(Bytes::from(entry.to_bytes()))
}

/// Every content tag.
pub(crate) fn contents() -> Vec<Content> {
    vec![
        Content::Text("hello".into()),
        Content::Invite(BOB),
        Content::Remove(BOB),
        Content::Leave(Leave),
        Content::Rename("the nest".into()),
    ]
}

/// Every body tag.
pub(crate) fn bodies() -> Vec<Body> {
    let conversation = group();
    let device = DeviceNamed { device: PHONE, name: "phone".into() };
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
    ]
}

/// Every request tag; a second of the same tag is named by its number.
pub(crate) fn requests() -> Vec<Request> {
    let (handle, password) = (String::from("alice"), String::from("correct horse"));
    let mut all = vec![
        Request::Hello(Hello { version_min: 1, version_max: 1, agent: "magpie-client/0.1.0".into() }),
        Request::SignUp(SignUp { handle: handle.clone(), password: password.clone(), device: device_key() }),
        Request::SignIn(SignIn { handle, password, device: device_key() }),
        Request::Resume(Resume { token: vec![1, 2, 3, 250, 251, 255], proof: [7; 64] }),
        Request::SignOut(SignOut { device: PHONE }),
        Request::Devices(Devices),
        Request::Find(Find { handle: "bob".into() }),
        Request::RequestContact(RequestContact { user: BOB, greeting: "hi".into() }),
        Request::AcceptContact(AcceptContact { user: ALICE }),
        Request::Contacts(Contacts { after: ALICE }),
        Request::Who(Who { user: BOB }),
        Request::CreateGroup(CreateGroup { nonce: 1 << 127 | 5, title: "the nest".into(), members: vec![ALICE, BOB] }),
        Request::Members(Members { conversation: group() }),
        Request::Sync(Sync),
        Request::Pull(Pull { timeline: TimelineId::Conversation(direct()), after: 300, limit: 500 }),
        Request::Pull(Pull { timeline: TimelineId::Inbox(BOB), after: 0, limit: 1 }),
        Request::MarkRead(MarkRead { conversation: direct(), number: 301 }),
    ];
    let posts = contents().into_iter().zip(1..);
    all.extend(
        posts.map(|(content, number)| {
            Request::Post(Post { conversation: direct(), incarnation: STORE, number, content })
        }),
    );
    all
}

/// Every answer tag.
pub(crate) fn answers() -> Vec<Answer> {
    let timeline = TimelineId::Conversation(direct());
    let contact = |user, handle: &str, state| ContactInfo { user, handle: handle.into(), state };
    let mut all = vec![
        Answer::Welcome(Welcome { version: 1, time_ms: TIME_MS, history_epoch: 3, agent: "magpie/0.1.0".into() }),
        Answer::Done(Done),
        Answer::SignedIn(SignedIn {
            user: ALICE,
            device: PHONE,
            epoch: 2,
            token: vec![9; 20],
            token_expires_ms: TIME_MS + 1,
        }),
        Answer::DeviceList(DeviceList {
            devices: vec![DeviceInfo { device: PHONE, name: "phone".into(), last_seen_ms: TIME_MS }],
        }),
        Answer::Found(Found { user: BOB, handle: "bob".into() }),
        Answer::ContactList(ContactList {
            contacts: vec![
                contact(ALICE, "alice", ContactState::Requested),
                contact(BOB, "bob", ContactState::Waiting),
                contact(BOB, "b", ContactState::Accepted),
            ],
            last: true,
        }),
        Answer::Posted(Posted { conversation: direct(), number: 251, time_ms: TIME_MS }),
        Answer::GroupCreated(GroupCreated { conversation: group() }),
        Answer::MemberList(MemberList { title: "the nest".into(), owner: ALICE, members: vec![ALICE, BOB] }),
        Answer::Heads(Heads { heads: heads(), last: false }),
        Answer::Page(Page { timeline, first: 1, head: 2, entries: vec![entry_bytes(1), entry_bytes(2)] }),
        Answer::Pushed(Pushed { timeline, entry: entry_bytes(3) }),
        Answer::Behind(Behind { heads: heads() }),
    ];
    let reasons = [ClosingReason::Stopping, ClosingReason::Replaced, ClosingReason::SignedOut, ClosingReason::Protocol];
    all.extend(reasons.map(|reason| Answer::Closing(Closing { reason, reconnect_after_ms: 1_000 })));
    all.extend(ErrorCode::ALL.iter().map(|code| Answer::Refused(WireError::new(*code))));
    all.push(Answer::Refused(WireError {
        number: 17,
        retry_after_ms: 70_000,
        ..WireError::field(ErrorCode::OutOfOrder, "number", "expected 17")
    }));
    all
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
        id("BlobId", BlobId::from_hash(std::array::from_fn(|i| (i * 8) as u8))),
    ]
}
