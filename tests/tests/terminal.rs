//! `magpie chat` in a real terminal, as people use it: tmux types, and says what is on the screen.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::path::Path;

use magpie_tests::{
    Process, picture,
    tmux::{self, Pane, Tmux},
};
use unicode_width::UnicodeWidthStr;

const MAGPIE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
const PASSWORD: &str = "correct horse";

/// A shell line that starts the client, and says how it ended and whether the terminal echoes again.
fn chat(node: &Process, store: &Path, more: &str) -> String {
    let (ca, store) = (node.dir.join("dev-ca.pem"), store.display().to_string());
    format!(
        "{MAGPIE} chat --server {} --ca {} --store {store} {more}; \
         echo ended with $?; stty -a | grep -oE ' -?echo ' ; read _",
        node.address,
        ca.display()
    )
}

/// Gives name and password on the screen that asks for them.
fn sign_up(pane: &Pane<'_>, name: &str) {
    pane.shows(&["Name", "becomes a new account"]);
    pane.line(name);
    pane.shows(&["Password"]);
    pane.line(PASSWORD);
    pane.shows(&["● online", "No conversations yet"]);
    assert!(!pane.screen().contains(PASSWORD));
}

/// Where a test may leave pictures of the screen; see docs/testing.md.
fn picture(pane: &Pane<'_>, name: &str, columns: usize) {
    if let Some(dir) = std::env::var_os("MAGPIE_PICTURES") {
        let drawn = picture::svg(&pane.coloured(), columns, |letter| letter.width());
        std::fs::write(Path::new(&dir).join(name), drawn).unwrap();
    }
}

#[test]
fn two_people_live_in_it() {
    if let Err(why) = tmux::available() {
        println!("skipped: {why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Process::try_start(Path::new(MAGPIE), &dir.path().join("node"), &[]).unwrap();
    let tmux = Tmux::new(dir.path());
    let alice = tmux.start("alice", &chat(&node, &dir.path().join("a"), ""), 100, 30);
    let bob = tmux.start("bob", &chat(&node, &dir.path().join("b"), ""), 80, 24);
    sign_up(&alice, "alice");
    sign_up(&bob, "bob");

    // They become contacts.
    alice.press(&["a"]);
    alice.shows(&["Add a contact"]);
    alice.line("bob");
    alice.shows(&["Ask to be contacts"]);
    alice.press(&["Enter"]);
    bob.shows(&["alice would like to talk to you", "(1)"]);
    bob.press(&["F2"]);
    bob.shows(&["new requests"]);
    bob.press(&["Down", "Down", "Down", "Down", "Enter"]);
    bob.shows(&["asks to talk to you", "Accept", "Refuse"]);
    bob.press(&["Enter"]);
    bob.shows(&["you can talk now", "│>"]);

    // They talk, both ways. Alice waits for nothing else, so that the conversation is open when it is there.
    alice.shows(&["bob is a contact now", "│>"]);
    bob.line("hello alice");
    alice.shows(&["hello alice"]);
    alice.line("你好 bob, fine weather 👍");
    bob.shows(&["你好 bob, fine weather 👍"]);
    alice.line("a mistake");
    bob.shows(&["a mistake"]);
    alice.line("/recall");
    bob.shows(&["alice recalled a message"]);
    bob.shows_no("a mistake");
    alice.shows(&["you recalled a message"]);

    // A group, with a name for one person, and a sign.
    alice.line("/group \"lunch club\" bob");
    alice.shows(&["lunch club", "2 members"]);
    alice.line("@bob where do we eat?");
    bob.shows(&["✉ lunch club: alice: @bob where", "[@ you]", "Chats (1)"]);
    bob.press(&["Escape"]);
    bob.press(&["Home", "Enter"]);
    bob.shows(&["lunch club", "2 members", "@bob where do we eat?"]);
    bob.line("/react 👍");
    alice.shows(&["👍 bob"]);
    bob.line("at the lake");
    alice.shows(&["at the lake"]);
    alice.press(&["Up"]);
    alice.shows(&["▶", "r reply"]);
    alice.press(&["r"]);
    alice.line("good, 12:30 then. 到时候见!");
    bob.shows(&["┃ you: at the lake", "到时候见!"]);

    // A file, byte for byte; nothing is saved over something else.
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect();
    let (sent, saved) = (dir.path().join("menu.pdf"), dir.path().join("saved.bin"));
    std::fs::write(&sent, &bytes).unwrap();
    alice.line(&format!("/send {}", sent.display()));
    bob.shows(&["[File menu.pdf, 293.0 KiB]"]);
    bob.line(&format!("/savefile {}", saved.display()));
    bob.shows(&["saved /"]);
    assert!(std::fs::read(&saved).unwrap() == bytes);
    bob.line(&format!("/savefile {}", saved.display()));
    bob.shows(&["is there already"]);
    alice.line("/pin");
    alice.shows_no("contact now");
    picture(&alice, "chat.svg", 100);
    alice.line("/send /nowhere/at/all");
    alice.shows(&["✗ all not sent"]);

    // The node goes and comes: what is said meanwhile is kept, and nobody has to do anything.
    let (code, parts) = node.stop();
    assert_eq!(code, 0);
    alice.shows(&["○ offline"]);
    alice.line("said while the node was away");
    alice.shows(&["waiting for the connection"]);
    let node = Process::restart(parts).unwrap();
    alice.shows(&["● online"]);
    alice.shows_no("waiting for the connection");
    bob.shows(&["said while the node was away"]);

    // Another size, another start, and the way out.
    alice.resize(60, 16);
    alice.shows(&["said while"]);
    bob.press(&["C-c"]);
    bob.shows(&["Ctrl-C again stops"]);
    bob.press(&["C-c"]);
    let ended = bob.shows(&["ended with 0", "echo"]);
    assert!(!ended.contains("-echo") && !ended.contains("lunch club"), "the terminal is as it was:\n{ended}");
    let again = tmux.start("again", &chat(&node, &dir.path().join("b"), "--user bob"), 80, 24);
    again.shows(&["● online", "lunch club"]);
    again.press(&["Enter"]);
    again.shows(&["2 members", "said while the node was away"]);
    again.press(&["Tab"]);
    again.press(&["q"]);
    again.shows(&["ended with 0"]);
    alice.press(&["Escape"]);
    alice.press(&["q"]);
    alice.shows(&["ended with 0"]);
    assert_eq!(node.terminate(), 0);
}

#[test]
fn without_a_screen_or_colours_it_does_without() {
    if let Err(why) = tmux::available() {
        println!("skipped: {why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Process::try_start(Path::new(MAGPIE), &dir.path().join("node"), &[]).unwrap();
    let tmux = Tmux::new(dir.path());
    let command = chat(&node, &dir.path().join("a"), "--user ann");
    let dumb = tmux.start("dumb", &format!("export TERM=dumb MAGPIE_PASSWORD='{PASSWORD}'; {command}"), 80, 24);
    dumb.shows(&["* new account: ann", "nobody to talk to yet"]);
    dumb.line("/quit");
    dumb.shows(&["ended with 0"]);
    let plain = tmux.start("plain", &format!("export NO_COLOR=1; {command}"), 80, 24);
    plain.shows(&["● online", "Chats", "q quit"]);
    let colours = plain.coloured();
    let coloured = colours.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m')).any(|(sequence, _)| {
        sequence.split(';').any(|n| n.parse::<u8>().is_ok_and(|n| (30..=49).contains(&n) && n != 39 && n != 49))
    });
    assert!(!coloured, "{colours:?}");
    plain.press(&["q"]);
    plain.shows(&["ended with 0"]);
    let wrong = tmux.start(
        "wrong",
        &format!("export MAGPIE_PASSWORD=nonsense; {}", chat(&node, &dir.path().join("b"), "--user ann")),
        80,
        24,
    );
    wrong.shows(&["wrong password", "Password"]);
    wrong.press(&["Escape"]);
    wrong.shows(&["ended with 0"]);
    assert_eq!(node.terminate(), 0);
}
