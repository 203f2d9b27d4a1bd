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

/// Alice and bob come, and become contacts; each is where they can talk.
fn sign_up_and_befriend(alice: &Pane<'_>, bob: &Pane<'_>) {
    sign_up(alice, "alice");
    sign_up(bob, "bob");
    alice.press(&["a"]);
    alice.shows(&["Add a contact"]);
    alice.line("bob");
    alice.shows(&["Ask to be contacts"]);
    alice.press(&["Enter"]);
    bob.shows(&["alice would like to talk to you", "(1)"]);
    bob.press(&["F2"]);
    bob.shows(&["new requests"]);
    bob.press(&["Down", "Down", "Down", "Enter"]);
    bob.shows(&["asks to talk to you", "Accept", "Refuse"]);
    bob.press(&["Enter"]);
    bob.shows(&["you can talk now", "│>"]);
    alice.shows(&["bob is a contact now", "│>"]);
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
    sign_up_and_befriend(&alice, &bob);

    // They talk, both ways. Alice waits for nothing else, so that the conversation is open when it is there.
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

/// Runs a command of the operator's; it succeeds.
fn operator(node: &Process, arguments: &[&str]) {
    let admin = node.admin.to_string();
    let done = std::process::Command::new(MAGPIE).args(["admin", "--admin", &admin]).args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_is_refused_is_not_lost_and_no_word_stays_longer_than_it_is_true() {
    if let Err(why) = tmux::available() {
        println!("skipped: {why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Process::try_start(Path::new(MAGPIE), &dir.path().join("node"), &[]).unwrap();
    let tmux = Tmux::new(dir.path());
    let alice = tmux.start("alice", &chat(&node, &dir.path().join("a"), ""), 80, 24);
    let bob = tmux.start("bob", &chat(&node, &dir.path().join("b"), ""), 80, 24);
    sign_up_and_befriend(&alice, &bob);

    // A wrong command is forgotten with the right one.
    alice.line("/group lunch nobodyhere");
    alice.shows(&["nobody can be found as \"nobodyhere\""]);
    alice.line("/group lunch bob");
    alice.shows(&["2 members"]);
    assert!(!alice.screen().contains("nobodyhere"), "{}", alice.screen());

    // What bob says while he may not is kept in its place, and sent later.
    bob.shows(&["alice brought you into lunch"]);
    bob.press(&["Escape"]);
    bob.press(&["Home", "Enter"]);
    bob.shows(&["2 members"]);
    alice.line("/muteall on");
    bob.shows(&["only administrators write"]);
    bob.line("may I say something");
    bob.shows(&["✗ not sent: ", "Ctrl-T takes it"]);
    alice.line("/muteall off");
    alice.line("what was it");
    bob.shows(&["what was it"]);
    bob.press(&["Escape"]);
    bob.press(&["Down", "Enter"]);
    bob.shows_no("may I say something");
    bob.press(&["Escape"]);
    bob.press(&["Up", "Enter"]);
    let screen = bob.shows(&["may I say something", "what was it"]);
    assert!(screen.find("may I say").unwrap() < screen.rfind("what was it").unwrap(), "{screen}");
    bob.press(&["C-t"]);
    bob.shows(&["> may I say something"]);
    bob.press(&["Enter"]);
    alice.shows(&["may I say something"]);

    // Who recalled whose.
    alice.press(&["Up"]);
    alice.shows(&["x recall"]);
    assert!(!alice.screen().contains("e edit"), "what others say cannot be edited");
    alice.press(&["x"]);
    alice.shows(&["you recalled a message of bob"]);
    bob.shows(&["alice recalled your message"]);

    // A code stays the same until another is asked for.
    alice.line("/code new");
    let code = |screen: &str| screen.split_whitespace().find(|word| word.starts_with("magpie:g/")).map(str::to_owned);
    let first = code(&alice.shows(&["magpie:g/", "at once"])).unwrap();
    alice.press(&["Escape"]);
    alice.line("/code approve");
    assert_eq!(code(&alice.shows(&["magpie:g/", "An administrator"])).unwrap(), first);
    alice.press(&["Escape"]);
    alice.shows_no("magpie:g/");
    bob.shows(&["administrator lets them in"]);
    alice.line("/code");
    assert_eq!(code(&alice.shows(&["magpie:g/", "An administrator"])).unwrap(), first);
    alice.press(&["Escape"]);

    // The operator does not take the keys of who writes.
    bob.line("/pin");
    bob.press(&["h", "a"]);
    operator(&node, &["notices", "send", "down at noon"]);
    bob.shows(&["a word from the operator: F5"]);
    bob.press(&["l", "f"]);
    bob.shows(&["> half"]);
    bob.press(&["F5"]);
    bob.shows(&["A word from the operator ", "down at noon"]);
    bob.press(&["Escape"]);
    bob.press(&["C-u"]);

    // Help has an end, and a group can be left without an error.
    bob.line("/help");
    bob.shows(&["Keys and commands"]);
    bob.press(&["NPage", "NPage", "NPage", "NPage", "NPage", "NPage"]);
    bob.shows(&["//...", "/quit"]);
    bob.press(&["Escape"]);
    bob.line("/leave");
    bob.press(&["y"]);
    let left = bob.shows(&["you are no longer in it"]);
    assert!(!left.contains('✗') && !left.contains("members"), "{left}");
    assert_eq!(node.terminate(), 0);
}

#[test]
fn who_needs_an_invitation_is_asked_for_it() {
    if let Err(why) = tmux::available() {
        println!("skipped: {why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let invite = [("MAGPIE_ACCOUNTS_INVITATIONS", "true")];
    let node = Process::try_start(Path::new(MAGPIE), &dir.path().join("node"), &invite).unwrap();
    operator(&node, &["invitations", "create", "--code", "welcome-ann"]);
    let tmux = Tmux::new(dir.path());
    let ann = tmux.start("ann", &chat(&node, &dir.path().join("a"), ""), 80, 24);
    ann.shows(&["Name", "becomes a new account"]);
    ann.line("anne");
    ann.shows(&["Password", "Esc: back"]);
    ann.press(&["Escape"]);
    ann.shows(&["becomes a new account"]);
    ann.press(&["BSpace", "Enter"]);
    ann.shows(&["Name       ann\n", "Password"]);
    ann.line(PASSWORD);
    ann.shows(&["no account \"ann\" with this password", "need an invitation", "Invitation"]);
    ann.line("nonsense");
    ann.shows(&["has this code, or it is used up"]);
    ann.press(&["C-u"]);
    ann.line("welcome-ann");
    ann.shows(&["● online", "No conversations yet"]);
    ann.press(&["q"]);
    ann.shows(&["ended with 0"]);
    // What cannot work under any name is said at once.
    let wrong =
        tmux.start("wrong", &format!("{MAGPIE} chat --server {} --ca /nowhere.pem; read _", node.address), 80, 24);
    wrong.shows(&["/nowhere.pem", "--ca"]);
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
