//! A person with two conversations, for tests.

use magpie_client::{
    Body, ContactCard, ContactState, ConversationId, ConversationKind, ConversationSettings, Entry, GroupInfo, Kind,
    Message, Posted, Profile, Reaction, UserId,
    entry::{Created, Gone, Joined, Said},
};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    message::{Answer, Effect, Input},
    state::{Chat, Link, State},
    words,
};

pub(super) const ME: UserId = UserId::from_bits(1);
pub(super) const BOB: UserId = UserId::from_bits(2);
pub(super) const CAROL: UserId = UserId::from_bits(3);
/// 1 January 2026, 12:00.
pub(super) const NOON: u64 = 1_767_268_800_000;
const MINUTE: u64 = 60_000;

pub(super) fn direct() -> ConversationId {
    ConversationId::direct(ME, BOB)
}

pub(super) fn group() -> ConversationId {
    ConversationId::group(ME, 7)
}

pub(super) fn entry(number: u64, sender: UserId, body: Body) -> Entry {
    Entry { number, time_ms: NOON + number * MINUTE, sender, body }
}

pub(super) fn text(number: u64, sender: UserId, text: &str) -> Entry {
    entry(number, sender, Body::Text(text.into()))
}

pub(super) fn said(number: u64, sender: UserId, message: Message, edited: u64) -> Entry {
    entry(number, sender, Body::Message(Said { message, edited }))
}

pub(super) fn direct_entries() -> Vec<Entry> {
    let created = Created { kind: ConversationKind::Direct, title: String::new() };
    let mut yesterday = text(4, BOB, "hello from yesterday");
    yesterday.time_ms = NOON - 24 * 60 * MINUTE;
    let quote = Message { quote: 4, ..Message::new(Kind::Text("I am here now".into())) };
    vec![
        Entry { time_ms: yesterday.time_ms, ..entry(1, ME, Body::Created(created)) },
        Entry { time_ms: yesterday.time_ms, ..entry(2, ME, Body::Joined(Joined { user: ME, by: ME })) },
        Entry { time_ms: yesterday.time_ms, ..entry(3, ME, Body::Joined(Joined { user: BOB, by: ME })) },
        yesterday,
        said(5, ME, quote, 0),
        text(6, BOB, "你好，吃了吗？今天天气很好 👍"),
        said(7, BOB, Message::new(Kind::Text("with better words".into())), 8),
        entry(9, BOB, Body::Gone(Gone { recalled: 10 })),
        entry(10, BOB, Body::Recalled(9)),
    ]
}

pub(super) fn group_entries() -> Vec<Entry> {
    let created = Created { kind: ConversationKind::Group, title: "lunch".into() };
    let meant = Message { mentions: vec![ME], ..Message::new(Kind::Text("@alice where do we eat?".into())) };
    vec![
        entry(1, ME, Body::Created(created)),
        entry(2, ME, Body::Joined(Joined { user: CAROL, by: ME })),
        text(3, CAROL, "I am hungry"),
        said(4, CAROL, meant, 0),
    ]
}

pub(super) fn chat(id: ConversationId, title: &str, entries: Vec<Entry>, read: u64) -> Chat {
    let new: Vec<&Entry> =
        entries.iter().filter(|e| e.number > read && e.sender != ME && words::is_message(e)).collect();
    Chat {
        id,
        title: title.into(),
        cursor: entries.last().map_or(0, |e| e.number),
        read,
        ended: false,
        unread: new.len(),
        mentioned: new.iter().any(|e| words::mentions(e, ME)),
        last: entries,
        settings: ConversationSettings {
            conversation: id,
            pinned: false,
            do_not_disturb: false,
            saved: false,
            hidden_at: 0,
        },
    }
}

pub(super) fn card(user: UserId, handle: &str, state: ContactState) -> ContactCard {
    ContactCard {
        user,
        handle: handle.into(),
        state: Some(state),
        remark: String::new(),
        tags: Vec::new(),
        starred: false,
        blocked: false,
        greeting: String::new(),
        expires_ms: 0,
    }
}

pub(super) fn cards() -> Vec<ContactCard> {
    let dave = ContactCard {
        greeting: "we met at the lake".into(),
        ..card(UserId::from_bits(4), "dave", ContactState::Waiting)
    };
    let bob = ContactCard { remark: "Bob B".into(), starred: true, ..card(BOB, "bob", ContactState::Accepted) };
    vec![bob, card(CAROL, "carol", ContactState::Accepted), dave]
}

pub(super) fn lists(chats: Vec<Chat>) -> Input {
    Input::Lists { chats, cards: cards(), profile: Profile::default(), unresolved: 0, earlier: Vec::new() }
}

pub(super) fn chats() -> Vec<Chat> {
    vec![chat(direct(), "", direct_entries(), 10), chat(group(), "lunch", group_entries(), 2)]
}

/// Signed in, with what was missed.
pub(super) fn state() -> State {
    let mut state = State::new(ME, "alice", "127.0.0.1:4433");
    state.on(Input::Tick(NOON + 30 * MINUTE));
    state.on(lists(chats()));
    state.on(Input::Link(Link::Online));
    state.on(Input::Synced);
    state
}

pub(super) fn window(id: ConversationId, entries: Vec<Entry>) -> Input {
    let reactions = match id == direct() {
        true => vec![Reaction { number: 5, user: BOB, emoji: "❤".into() }],
        false => Vec::new(),
    };
    Input::Window { conversation: id, entries, reactions, at_start: true }
}

/// With the conversation with bob open.
pub(super) fn talking() -> State {
    let mut state = state();
    state.open(direct());
    state.on(window(direct(), direct_entries()));
    state
}

/// With the group open, which is one's own.
pub(super) fn grouping() -> State {
    let mut state = state();
    state.open(group());
    state.on(window(group(), group_entries()));
    let info = GroupInfo {
        title: "lunch".into(),
        owner: ME,
        admins: Vec::new(),
        announcement: "at noon".into(),
        all_muted: false,
        muted: Vec::new(),
        nicknames: vec![(CAROL, "the cook".into())],
        join_code: 0,
        join_approval: false,
        waiting: Vec::new(),
        dissolved: false,
    };
    state.on(Input::Answer(Answer::Group { conversation: group(), info, members: vec![ME, BOB, CAROL] }));
    state
}

pub(super) fn press(state: &mut State, code: KeyCode) -> Vec<Effect> {
    state.on(Input::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

pub(super) fn control(state: &mut State, c: char) -> Vec<Effect> {
    state.on(Input::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)))
}

/// Types a line and ends it.
pub(super) fn line(state: &mut State, text: &str) -> Vec<Effect> {
    for c in text.chars() {
        press(state, KeyCode::Char(c));
    }
    press(state, KeyCode::Enter)
}

pub(super) fn posted(number: u64) -> Posted {
    Posted { conversation: direct(), number, time_ms: NOON }
}
