//! Every frame that the limits allow, and that fits a frame, can be read by the other side.

use bytes::Bytes;
use magpie_protocol::{
    BlobId, Body, ConversationId, DeviceId, Entry, Frame, Incarnation, Kind, Message, RequestId, TimelineId, UserId,
    codec,
    entry::Said,
    frame::{Answer, Direction, Request, account::*, contact::*, conversation::*, personal::*, search::*, sync::*},
    limits::*,
    message::{BlobRef, Custom, Forwarded, ForwardedItem},
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

fn line() -> String {
    "l".repeat(LINE_LEN_MAX)
}

#[test]
fn the_longest_profiles() {
    let avatar = BlobRef { blob: BlobId::from_hash([0xff; 32]), len: u64::MAX, media_type: line() };
    let profile = Profile { nickname: line(), avatar: Some(avatar), region: line(), signature: line() };
    let shown = |n| Shown { user: user(n), handle: "h".repeat(HANDLE_LEN_MAX), profile: profile.clone() };
    let profiles = (0..PROFILES_MAX).map(shown).collect();
    reads_back(Answer::ProfileList(ProfileList { profiles }), "as many of the longest profiles as can be asked for");
    let users = (0..PROFILES_MAX).map(user).collect();
    reads_back(Answer::OnlineList(OnlineList { users }), "all that were asked about");
}

#[test]
fn a_full_group() {
    let members = || (0..GROUP_MEMBERS_MAX).map(user);
    reads_back(
        Answer::GroupInfo(GroupInfo {
            title: "t".repeat(TITLE_LEN_MAX),
            owner: user(0),
            admins: members().take(ADMINS_MAX).collect(),
            announcement: "a".repeat(ANNOUNCEMENT_LEN_MAX),
            all_muted: true,
            muted: members().map(|user| (user, u64::MAX)).collect(),
            nicknames: members().map(|user| (user, "n".repeat(NICKNAME_LEN_MAX))).collect(),
            join_code: u64::MAX,
            join_approval: true,
            waiting: members().take(WAITING_MAX).collect(),
            dissolved: true,
        }),
        "a group in which everyone is muted and has a name",
    );
}

#[test]
fn all_that_a_person_keeps() {
    let conversation = ConversationId::from_bits(u128::MAX);
    let settings =
        ConversationSettings { conversation, pinned: true, do_not_disturb: true, saved: true, hidden_at: u64::MAX };
    let conversations = vec![settings; CONVERSATIONS_MAX];
    reads_back(Answer::SettingsList(SettingsList { conversations }), "settings of every conversation");
    let numbers = vec![u64::MAX; HIDE_MAX];
    reads_back(Request::Hide(Hide { conversation, up_to: u64::MAX, numbers }), "as many deleted as can be");

    // Of what comes in pages, the largest one, and as many of the smallest as fit.
    let card = |text: String, tags: usize| ContactCard {
        user: UserId::from_bits(if tags == 0 { 0 } else { u64::MAX }),
        handle: "h".into(),
        state: Some(ContactState::Accepted),
        remark: text.clone(),
        tags: vec![text; tags],
        starred: true,
        blocked: true,
        greeting: String::new(),
        expires_ms: 0,
    };
    for card in [card(line(), TAGS_MAX), card("r".into(), TAGS_MAX), card(String::new(), 0)] {
        let count = (FRAME_LEN_MAX - 64) / codec::encode(&card).len();
        reads_back(Answer::CardList(CardList { cards: vec![card; count], last: true }), "a frame of cards");
    }
    for kind in [longest(), Kind::Text("x".into())] {
        let favourite = Favourite { id: 1, time_ms: 1, conversation, number: 1, sender: UserId::from_bits(1), kind };
        let count = (FRAME_LEN_MAX - 64) / codec::encode(&favourite).len();
        assert!(count > 0);
        let favourites = vec![favourite; count];
        reads_back(Answer::FavouriteList(FavouriteList { favourites, last: true }), "a frame of favourites");
    }
}

/// A kind that leaves no room in a message but for mentions.
fn longest() -> Kind {
    Kind::Custom(Custom { name: line(), data: vec![0xff; MESSAGE_LEN_MAX - LINE_LEN_MAX - 10 * MENTIONS_MAX - 30] })
}

#[test]
fn all_that_a_search_finds() {
    let conversation = ConversationId::from_bits(u128::MAX);
    let place = Place { time_ms: u64::MAX, conversation, number: u64::MAX };
    let words = "w".repeat(SEARCH_WORDS_LEN_MAX);
    let asked = SearchMessages { words, conversation: Some(conversation), before: Some(place) };
    reads_back(Request::SearchMessages(asked), "the longest question");
    let excerpt = "e".repeat(EXCERPT_LEN_MAX);
    let messages = vec![MessageFound { place, sender: user(0), kind: u16::MAX, excerpt }; SEARCH_MESSAGES_MAX];
    let found = MessagesFound { messages, next: Some(place), complete: true };
    reads_back(Answer::MessagesFound(found), "as many messages as are found at a time");
    let contact =
        |n| ContactFound { user: user(n), handle: "h".repeat(HANDLE_LEN_MAX), remark: line(), nickname: line() };
    let group = GroupFound { conversation, title: "t".repeat(TITLE_LEN_MAX) };
    let contacts = (0..SEARCH_NAMES_MAX).map(contact).collect();
    let found = NamesFound { contacts, groups: vec![group; SEARCH_NAMES_MAX], complete: true };
    reads_back(Answer::NamesFound(found), "as many of the longest names as are found at a time");
}

#[test]
fn the_longest_messages() {
    let conversation = ConversationId::from_bits(u128::MAX);
    let small = codec::encode(&Kind::Text("x".repeat(200)));
    let items = vec![ForwardedItem { sender: "s".repeat(20), time_ms: u64::MAX, kind: small }; FORWARDED_MAX];
    // Items that could not be shorter.
    let empty = vec![ForwardedItem { sender: String::new(), time_ms: 0, kind: Vec::new() }; MESSAGE_LEN_MAX / 3 - 200];
    let forwarded = |items| Kind::Forwarded(Forwarded { title: String::new(), items });
    let text = Kind::Text("x".repeat(TEXT_LEN_MAX));
    for kind in [longest(), text, forwarded(items), forwarded(empty)] {
        let message = Message { kind, quote: u64::MAX, mentions: vec![UserId::EVERYONE; MENTIONS_MAX] };
        let len = codec::encode(&message).len();
        assert!(len <= MESSAGE_LEN_MAX, "a message of {len} bytes");
        let content = Content::Say(message.clone());
        let incarnation = Incarnation::from_bits(u64::MAX);
        reads_back(Request::Post(Post { conversation, incarnation, number: u64::MAX, content }), "a long message");
        let body = Body::Message(Said { message, edited: u64::MAX });
        let entry = Entry { number: u64::MAX, time_ms: u64::MAX, sender: user(0), body };
        assert_eq!(Entry::from_bytes(&entry.to_bytes()).as_ref(), Ok(&entry));
        let entry = EntryBytes(Bytes::from(entry.to_bytes()));
        let timeline = TimelineId::Conversation(conversation);
        reads_back(Answer::Pushed(Pushed { timeline, entry }), "a long message as a hint");
    }
}
