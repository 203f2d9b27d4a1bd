//! Every frame that the limits allow, and that fits a frame, can be read by the other side.

use bytes::Bytes;
use magpie_protocol::{
    Body, ConversationId, DeviceId, Entry, Frame, Incarnation, RequestId, TimelineId, UserId,
    frame::{Answer, Direction, Request, account::*, contact::*, conversation::*, sync::*},
    limits::*,
};

fn reads_back<T: Direction + PartialEq + std::fmt::Debug>(body: T, what: &str) {
    let frame = Frame::new(RequestId::new(1), body);
    let bytes = frame.to_bytes();
    assert!(bytes.len() - 4 <= FRAME_LEN_MAX, "{what} of {} bytes does not fit a frame", bytes.len() - 4);
    match Frame::<T>::from_bytes(&bytes[4..]) {
        Ok(read) => assert!(read == frame, "{what} reads as another value"),
        Err(e) => panic!("{what} of {} bytes: {e}", bytes.len() - 4),
    }
}

fn user(n: usize) -> UserId {
    UserId::from_bits(u64::MAX - n as u64)
}

#[test]
fn a_full_page_of_entries_of_any_size() {
    let timeline = TimelineId::Conversation(ConversationId::direct(user(1), user(2)));
    for text_len in [0, 1, 30, 60, 90, 100, 105, 110, 200, 250, 251, 1_000, 5_000, TEXT_LEN_MAX] {
        let body = Body::Text("x".repeat(text_len));
        let entry = Entry { number: 1, time_ms: 1, sender: UserId::from_bits(1), body };
        let entry = EntryBytes(Bytes::from(entry.to_bytes()));
        // As many as fit, as a node would cut the page.
        let room = FRAME_LEN_MAX - 64;
        let count = (room / (entry.0.len() + 3)).min(PAGE_ENTRIES_MAX as usize);
        let page = Page { timeline, first: 1, head: u64::MAX, entries: vec![entry; count] };
        reads_back(Answer::Page(page), &format!("a page of {count} texts of {text_len}"));
    }
}

#[test]
fn full_lists() {
    let conversation = ConversationId::from_bits(u128::MAX);
    let head =
        Head { timeline: TimelineId::Conversation(conversation), first: u64::MAX, head: u64::MAX, read: u64::MAX };
    let heads = vec![head; PAGE_HEADS_MAX];
    reads_back(Answer::Heads(Heads { heads: heads.clone(), last: true }), "a full page of heads");
    reads_back(Answer::Behind(Behind { heads }), "a full page of heads behind");

    // Small numbers are short on the wire and no shorter in memory: as many as a frame holds.
    let inbox = Head { timeline: TimelineId::Inbox(UserId::from_bits(0)), first: 1, head: 0, read: 0 };
    let heads = vec![inbox; (FRAME_LEN_MAX - 64) / 5];
    reads_back(Answer::Heads(Heads { heads, last: true }), "a frame of the shortest heads");

    let members: Vec<UserId> = (0..GROUP_MEMBERS_MAX).map(user).collect();
    let title = "t".repeat(TITLE_LEN_MAX);
    let list = MemberList { title: title.clone(), owner: user(0), members: members.clone() };
    reads_back(Answer::MemberList(list), "a full member list");
    reads_back(Request::CreateGroup(CreateGroup { nonce: u128::MAX, title, members }), "the largest new group");
    let members = vec![UserId::from_bits(0); FRAME_LEN_MAX - 64];
    reads_back(
        Request::CreateGroup(CreateGroup { nonce: 0, title: String::new(), members }),
        "a frame of the shortest ids",
    );
}

#[test]
fn full_pages_of_people_and_devices() {
    for (id, handle_len) in [(u64::MAX, HANDLE_LEN_MAX), (u64::MAX, 1), (0, 1)] {
        let user = UserId::from_bits(id);
        let contact = ContactInfo { user, handle: "h".repeat(handle_len), state: ContactState::Accepted };
        let count = (FRAME_LEN_MAX - 64) / (contact.handle.len() + 2 + if id == 0 { 1 } else { 9 });
        let list = ContactList { contacts: vec![contact; count], last: false };
        reads_back(Answer::ContactList(list), &format!("a frame of {count} contacts"));
    }
    let device = DeviceId::from_bits(u64::MAX);
    let info = DeviceInfo { device, name: "n".repeat(DEVICE_NAME_LEN_MAX), last_seen_ms: u64::MAX };
    reads_back(Answer::DeviceList(DeviceList { devices: vec![info; DEVICES_MAX] }), "a full device list");
}

#[test]
fn the_longest_text() {
    for text in ["x".repeat(TEXT_LEN_MAX), "\u{1f426}".repeat(TEXT_LEN_MAX / 4)] {
        let conversation = ConversationId::from_bits(u128::MAX);
        let post = Post {
            conversation,
            incarnation: Incarnation::from_bits(u64::MAX),
            number: u64::MAX,
            content: Content::Text(text.clone()),
        };
        reads_back(Request::Post(post), "the longest text");
        let entry = Entry { number: u64::MAX, time_ms: u64::MAX, sender: user(0), body: Body::Text(text) };
        let entry = EntryBytes(Bytes::from(entry.to_bytes()));
        reads_back(
            Answer::Pushed(Pushed { timeline: TimelineId::Conversation(conversation), entry }),
            "the longest text as a hint",
        );
    }
}
