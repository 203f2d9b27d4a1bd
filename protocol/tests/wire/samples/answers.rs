//! What nodes answer, and say unasked.

use bytes::Bytes;
use magpie_protocol::{
    Answer, Body, Entry, ErrorCode, TimelineId, WireError,
    frame::{account::*, contact::*, conversation::*, hello::*, personal::*, sync::*},
};

use super::{ALICE, BOB, PHONE, TIME_MS, card, direct, favourite, group, more_cards, profile, settings};

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

/// Every answer tag.
pub(crate) fn answers() -> Vec<Answer> {
    let timeline = TimelineId::Conversation(direct());
    let contact = |user, handle: &str, state| ContactInfo { user, handle: handle.into(), state };
    let mut all = vec![
        Answer::Welcome(Welcome { version: 1, time_ms: TIME_MS, history_epoch: 3, agent: "magpie/0.1.0".into() }),
        Answer::Done(Done),
        Answer::Elsewhere(Elsewhere { servers: vec!["10.0.0.2:4433".into()] }),
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
        Answer::Account(Account {
            handle: "alice".into(),
            profile: profile(),
            phone: "+4712345678".into(),
            by_phone: false,
            by_handle: true,
            show_typing: true,
            show_online: false,
            code: 0x0123_4567_89ab_cdef,
            closing_ms: 0,
        }),
        Answer::OnlineList(OnlineList { users: vec![BOB] }),
        Answer::CardList(CardList { cards: [vec![card()], more_cards().to_vec()].concat(), last: true }),
        Answer::ProfileList(ProfileList {
            profiles: vec![
                Shown { user: ALICE, handle: "alice".into(), profile: profile() },
                Shown { user: BOB, handle: "bob".into(), profile: Profile::default() },
            ],
        }),
        Answer::Shaken(Shaken { people: vec![Found { user: BOB, handle: "bob".into() }] }),
        Answer::Joining(Joining { joined: false }),
        Answer::GroupInfo(GroupInfo {
            title: "the nest".into(),
            owner: ALICE,
            admins: vec![BOB],
            announcement: "seed at eight".into(),
            all_muted: false,
            muted: vec![(BOB, TIME_MS)],
            nicknames: vec![(ALICE, "Al".into()), (BOB, "Bo".into())],
            join_code: 0xfeed_face_cafe_beef,
            join_approval: true,
            waiting: vec![BOB],
            dissolved: false,
        }),
        Answer::Signalled(Signalled { conversation: direct(), user: BOB, kind: 300 }),
        Answer::ReadBy(ReadBy { read: vec![ReadUpTo { user: ALICE, number: 301 }] }),
        Answer::SettingsList(SettingsList { conversations: vec![settings()] }),
        Answer::FavouriteList(FavouriteList { favourites: vec![favourite()], last: false }),
    ];
    all.extend(super::search::answers());
    let reasons = [ClosingReason::Stopping, ClosingReason::Replaced, ClosingReason::SignedOut, ClosingReason::Protocol];
    all.extend(reasons.map(|reason| Answer::Closing(Closing { reason, reconnect_after_ms: 1_000 })));
    // The full one has a place in the file before the codes that came later.
    let (first, later) = ErrorCode::ALL.split_at(24);
    all.extend(first.iter().map(|code| Answer::Refused(WireError::new(*code))));
    all.push(Answer::Refused(WireError {
        number: 17,
        retry_after_ms: 70_000,
        ..WireError::field(ErrorCode::OutOfOrder, "number", "expected 17")
    }));
    all.extend(later.iter().map(|code| Answer::Refused(WireError::new(*code))));
    all
}
