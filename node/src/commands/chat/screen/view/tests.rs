use magpie_client::{Content, UserId};
use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyCode, style::Color};

use super::*;
use crate::commands::chat::screen::{
    message::{Answer, Effect, Input},
    sample::{self, BOB, direct, grouping, line, press, state, talking},
    state::{Refusal, Sent},
};

fn terminal(state: &mut State, width: u16, height: u16) -> Terminal<TestBackend> {
    state.on(Input::Resize(width, height));
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    terminal
}

/// The screen as text, a line each.
fn shown(state: &mut State, width: u16, height: u16) -> String {
    let terminal = terminal(state, width, height);
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            text.push_str(symbol);
            x += u16::try_from(super::width(symbol).max(1)).unwrap();
        }
        text.push('\n');
    }
    text
}

fn has(screen: &str, texts: &[&str]) {
    for text in texts {
        assert!(screen.contains(text), "{text:?} is not in\n{screen}");
    }
}

/// Both sizes that every view is looked at in.
fn both(state: &mut State, texts: &[&str]) {
    for (width, height) in [(80, 24), (120, 40)] {
        let screen = shown(state, width, height);
        has(&screen, texts);
        for line in screen.lines() {
            assert_eq!(super::width(line), usize::from(width), "{line:?}");
        }
    }
}

#[test]
fn the_list_says_who_what_when_and_how_much() {
    let mut state = state();
    both(
        &mut state,
        &[
            " Chats (2)",
            "Contacts (1)",
            "alice ● online",
            "Bob B",
            "12:10",
            "Bob B recalled a mes",
            "lunch",
            "[@ you] carol: @a",
            "q quit",
        ],
    );
    state.chats.get_mut(&sample::group()).unwrap().settings.do_not_disturb = true;
    both(&mut state, &[" Chats  ", "z 2"]);
    state.on(Input::Signalled { conversation: direct(), user: BOB, kind: 1 });
    both(&mut state, &["Bob B is typing…"]);
}

#[test]
fn a_conversation_shows_days_names_quotes_signs_edits_and_recalls() {
    let mut state = talking();
    state.on(Input::Resize(80, 40));
    both(&mut state, &["── the beginning ──"].map(|_| "you can talk now"));
    let parts = [
        "── 31 Dec 2025 ──",
        "── 1 Jan 2026 ──",
        "┃ Bob B: hello from yesterday",
        "I am here now",
        "❤ Bob B",
        "你好，吃了吗？今天天气很好 👍",
        "with better words",
        "edited",
        "Bob B recalled a message",
        "Enter send",
    ];
    both(&mut state, &parts);
}

#[test]
fn a_group_shows_its_names_what_is_new_and_how_many_are_in_it() {
    let mut state = grouping();
    both(&mut state, &["lunch", "3 members", "the cook  12:03", "── new ──", "you brought the cook in"]);
}

#[test]
fn who_left_a_group_sees_that_and_no_error() {
    let mut state = grouping();
    let left = sample::entry(5, sample::ME, magpie_client::Body::Left(sample::ME));
    state.on(Input::Arrived { conversation: Some(sample::group()), entry: left });
    let effects = state.on(Input::Answer(Answer::Outside(sample::group())));
    assert_eq!((effects, state.notice.clone()), (vec![Effect::Refresh], None));
    state.chats.get_mut(&sample::group()).unwrap().ended = true;
    both(&mut state, &["you are no longer in it"]);
    assert!(!shown(&mut state, 80, 24).contains("members"));
}

#[test]
fn a_word_from_the_operator_waits_until_it_is_asked_for() {
    let mut state = talking();
    "half".chars().for_each(|c| drop(press(&mut state, KeyCode::Char(c))));
    let word = sample::entry(1, UserId::default(), magpie_client::Body::Notice("down at noon".into()));
    assert_eq!(state.on(Input::Arrived { conversation: None, entry: word }), [Effect::Bell]);
    both(&mut state, &["a word from the operator: F5 shows it"]);
    " a line".chars().for_each(|c| drop(press(&mut state, KeyCode::Char(c))));
    assert_eq!(state.draft().unwrap().text(), "half a line");
    press(&mut state, KeyCode::F(5));
    both(&mut state, &["┌ A word from the operator ┐", "down at noon"]);
    press(&mut state, KeyCode::Esc);
    assert!(!shown(&mut state, 80, 24).contains("operator"));
    assert_eq!(state.draft().unwrap().text(), "half a line");
}

#[test]
fn long_messages_of_one_person_stand_apart_and_short_ones_together() {
    let mut state = state();
    state.open(direct());
    let entries = ["one", "two", "three\nlines\nlong", "four"];
    let entries = entries.iter().zip(11..).map(|(text, n)| sample::text(n, BOB, text)).collect();
    state.on(sample::window(direct(), entries));
    let screen = shown(&mut state, 80, 24);
    let line = |text: &str| screen.lines().position(|line| line.contains(text)).unwrap();
    assert_eq!(line("two") - line("one"), 1, "{screen}");
    assert_eq!(line("three") - line("two"), 2, "{screen}");
    assert_eq!(line("four") - line("long"), 2, "{screen}");
}

#[test]
fn what_is_on_its_way_or_refused_says_so() {
    let mut state = talking();
    line(&mut state, "first");
    both(&mut state, &["first", "sending"]);
    state.on(Input::Link(Link::Offline("no answer".into())));
    both(&mut state, &["waiting for the connection", "○ offline"]);
    state.pending[0].state = Sent::Refused(Refusal { why: "you are not contacts".into(), after: 10 });
    both(&mut state, &["✗ not sent: you are not contacts"]);
    press(&mut state, KeyCode::Esc);
    both(&mut state, &["✗ first"]);
    state.chats.get_mut(&direct()).unwrap().cursor = 12;
    assert!(!shown(&mut state, 80, 24).contains("✗ first"), "what came later is shown in the list");
    state.notice = None;
    both(&mut state, &["no connection to 127.0.0.1:4433, trying again: no answer"]);
}

#[test]
fn every_tab_and_every_box_fits() {
    let mut state = grouping();
    press(&mut state, KeyCode::F(2));
    both(&mut state, &["＋ Add a contact", "new requests", "dave", "★ starred", "carol"]);
    press(&mut state, KeyCode::F(3));
    both(&mut state, &["Shake", "Moments", "not built yet"]);
    press(&mut state, KeyCode::F(4));
    both(&mut state, &["Nickname", "Change password", "Devices", "Found by phone"]);
    press(&mut state, KeyCode::Char('?'));
    both(&mut state, &["Keys and commands", "Ctrl-C twice"]);
    press(&mut state, KeyCode::Esc);
    state.open(sample::group());
    line(&mut state, "/menu");
    both(&mut state, &["Members (3)", "Write an announcement", "End the group"]);
    press(&mut state, KeyCode::Esc);
    line(&mut state, "/members");
    both(&mut state, &["alice (you)  owner", "the cook"]);
    press(&mut state, KeyCode::Esc);
    line(&mut state, "/password");
    "secret".chars().for_each(|c| drop(press(&mut state, KeyCode::Char(c))));
    both(&mut state, &["Your password now", "••••••"]);
    assert!(!shown(&mut state, 80, 24).contains("secret"));
}

#[test]
fn help_can_be_read_to_its_end_by_every_key() {
    for (width, height) in [(80, 24), (100, 40), (40, 12)] {
        for (key, times) in [(KeyCode::End, 1), (KeyCode::PageDown, 30), (KeyCode::Down, 300)] {
            let mut state = state();
            state.on(Input::Resize(width, height));
            press(&mut state, KeyCode::Char('?'));
            (0..times).for_each(|_| drop(press(&mut state, key)));
            let screen = shown(&mut state, width, height);
            has(&screen, &["//...", "/quit"]);
            assert!(!screen.contains("│ 2 3 4"), "{screen}");
            press(&mut state, KeyCode::Up);
            assert!(!shown(&mut state, width, height).contains("//..."), "and not beyond it");
        }
    }
}

#[test]
fn a_small_window_shows_one_thing_at_a_time_and_a_tiny_one_does_not_break() {
    let mut state = talking();
    let screen = shown(&mut state, 40, 20);
    assert!(screen.contains("with better words") && !screen.contains("lunch"), "{screen}");
    press(&mut state, KeyCode::Esc);
    let screen = shown(&mut state, 40, 20);
    assert!(screen.contains("lunch") && !screen.contains("with better words"), "{screen}");
    press(&mut state, KeyCode::Tab);
    line(&mut state, &"a long line ".repeat(40));
    "x\u{301}👩‍👩‍👧你".chars().for_each(|c| drop(press(&mut state, KeyCode::Char(c))));
    for overlay in [0, 1] {
        for width in 1..70 {
            for height in 1..14 {
                shown(&mut state, width, height);
            }
        }
        if overlay == 0 {
            state.run(super::super::command::Command::Help);
        }
    }
}

#[test]
fn without_colours_there_are_none_and_the_cursor_is_still_seen() {
    let mut state = talking();
    state.colour = false;
    press(&mut state, KeyCode::Up);
    state.say("a notice");
    let terminal = terminal(&mut state, 80, 24);
    let buffer = terminal.backend().buffer();
    assert!(buffer.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    let text: String = buffer.content().iter().map(|cell| cell.symbol()).collect();
    assert!(text.contains("▶ with better words"));
    let reversed = |cell: &&ratatui::buffer::Cell| cell.modifier.contains(ratatui::style::Modifier::REVERSED);
    assert!(buffer.content().iter().filter(reversed).count() > 10);
}

#[test]
fn what_others_write_does_nothing_to_the_terminal() {
    let mut state = talking();
    let mut entries = sample::direct_entries();
    entries.push(sample::text(11, BOB, "a\u{1b}[2Jb\u{9b}\u{202e}c"));
    state.on(sample::window(direct(), entries));
    let screen = shown(&mut state, 80, 24);
    assert!(!screen.chars().any(|c| c != '\n' && c.is_control()) && !screen.contains('\u{202e}'), "{screen}");
    let sent = state.pending.iter().any(|pending| matches!(pending.content, Content::Recall(_)));
    assert!(!sent);
}
