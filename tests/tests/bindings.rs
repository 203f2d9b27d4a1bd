//! The SDK in other languages: a person who speaks Python talks with one who speaks Rust; the sources in Kotlin and Swift
//! are there and hold the same. What compiles those is on no machine that this runs on, so their text alone is looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use magpie_client::{
    Body, ConversationId, Entry, Kind, Message, MessageId, Source, TimelineId, UserId,
    message::{File, Location},
};
use magpie_client_ffi::bindgen;
use magpie_tests::{Company, Person, files_under, stop, until};
use serde_json::Value;
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(30);

/// Python, or why there is none.
fn python() -> Option<&'static str> {
    match Command::new("python3").arg("--version").output() {
        Ok(output) if output.status.success() => Some("python3"),
        other => {
            println!("SKIPPED: there is no python3 to run the bindings with: {other:?}");
            assert!(std::env::var_os("CI").is_none(), "where CI runs it must be there");
            None
        }
    }
}

/// The sources of all languages, made as the command makes them.
fn sources(dir: &Path) {
    bindgen::write(&bindgen::library().unwrap(), dir).unwrap();
}

/// A program in Python that uses the bindings. Killed when it is dropped.
struct Program {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Program {
    fn start(python: &str, bindings: &Path, script: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(python)
            // What is not awaited, and what blocks a loop, is told on standard error.
            .args(["-X", "dev", "-B"])
            .arg(script)
            .args(arguments)
            .env("PYTHONPATH", bindings.join("python"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        Self { child, lines }
    }

    /// The next line that it says.
    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(SOON, self.lines.recv()).await.expect("it says nothing more");
        line.expect("it ended; what went wrong stands above")
    }

    /// The next line, which must be of this.
    async fn told(&mut self, what: &str) -> Value {
        let line = self.line().await;
        let told: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(told["what"], what, "{line}");
        told
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for its end, which must be a good one.
    async fn end(mut self) {
        assert_eq!(tokio::time::timeout(SOON, self.lines.recv()).await.expect("it does not end"), None);
        until("it ended", SOON, async || self.child.try_wait().unwrap().is_some()).await;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn text<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &Value) -> T {
    value.as_str().unwrap().parse().unwrap()
}

/// The first entry of the conversation that `pick` picks, waited for.
async fn find(person: &Person, what: &str, conversation: ConversationId, pick: impl Fn(&Entry) -> bool) -> Entry {
    let found = || person.entries(conversation).into_iter().find(|entry| pick(entry));
    until(&format!("{} sees {what}", person.name), SOON, async || found().is_some()).await;
    found().unwrap()
}

async fn hears(person: &Person, conversation: ConversationId, words: &str) -> u64 {
    find(person, words, conversation, |entry| entry.body == Body::Text(words.into())).await.number
}

/// Accepts the contact that Petra asks for.
async fn accept(rosa: &Person, petra: UserId) {
    let from = rosa
        .inbox("a request", |body| match body {
            Body::ContactRequested(request) => Some((request.from, request.greeting.clone())),
            _ => None,
        })
        .await;
    assert_eq!(from, (petra, "from Python".into()));
    rosa.client.accept_contact(petra).await.unwrap();
}

/// What Petra does in `talk` of the script, seen from here, and answered.
async fn talk(rosa: &Person, petra: UserId, direct: ConversationId, dir: &Path) {
    let first = hears(rosa, direct, "hello from Python, 你好 🐦").await;
    rosa.say(direct, "hello from Rust, 你好 🦀").await;
    let edited = find(rosa, "an edit", direct, |entry| matches!(entry.body, Body::Edited(_))).await;
    let Body::Edited(edited) = edited.body else { unreachable!() };
    assert_eq!((edited.number, edited.kind), (first, Some(Kind::Text("hello again from Python".into()))));
    let signed = find(rosa, "a sign", direct, |entry| matches!(entry.body, Body::Reacted(_))).await;
    assert!(matches!(&signed.body, Body::Reacted(sign) if sign.number == first && sign.emoji == "👍" && sign.on));
    find(rosa, "a recall", direct, |entry| matches!(entry.body, Body::Recalled(_))).await;

    let said = |entry: &Entry| match &entry.body {
        Body::Message(said) => Some(said.message.clone()),
        _ => None,
    };
    let is = |entry: &Entry, of: fn(&Kind) -> bool| said(entry).is_some_and(|message| of(&message.kind));
    let place = find(rosa, "a place", direct, |entry| is(entry, |kind| matches!(kind, Kind::Location(_)))).await;
    let expected = Location {
        latitude_e7: -338_567_844,
        longitude_e7: 1_512_152_967,
        name: "Opera".into(),
        address: "Sydney".into(),
    };
    let expected = Message { kind: Kind::Location(expected), quote: first, mentions: vec![rosa.id] };
    assert_eq!((place.sender, said(&place)), (petra, Some(expected)));

    let picture = find(rosa, "a picture", direct, |entry| is(entry, |kind| matches!(kind, Kind::Picture(_)))).await;
    let Some(Message { kind: Kind::Picture(shown), .. }) = said(&picture) else { unreachable!() };
    assert_eq!((shown.width, shown.height, shown.preview.as_slice()), (8, 9, [0, 255].as_slice()));
    let (from, to) = (MessageId { conversation: direct, number: picture.number }, dir.join("picture"));
    rosa.client.download(from, &shown.blob, &to).await.unwrap();
    assert_eq!(fs::read(&to).unwrap(), (0..=255).cycle().take(256_000).collect::<Vec<u8>>());

    hears(rosa, direct, "queued").await;
    rosa.act(rosa.client.react(direct, first, "🎶", true)).await.unwrap();
    let notes = rosa.client.upload(Source::from(b"notes".repeat(5000)), "text/plain").await.unwrap();
    let blob = notes.blob;
    let notes = Message::new(Kind::File(File { blob: notes, name: "notes.txt".into() }));
    rosa.act(rosa.client.send(direct, notes)).await.unwrap();
    let back = |entry: &Entry| {
        let named = said(entry).map(|message| message.kind);
        matches!(named, Some(Kind::File(file)) if file.name == "fetched" && file.blob.blob == blob)
    };
    find(rosa, "the file that Petra fetched", direct, back).await;
}

/// What somebody's store holds, as the script tells it.
fn kept(person: &Person, conversation: ConversationId) -> Value {
    let words = |body: &Body| match body {
        Body::Text(text) => text.clone(),
        Body::Message(said) => said.message.kind.words(),
        _ => String::new(),
    };
    let history = person.client.history(conversation, 0, 1000).unwrap();
    let row = |entry: &Entry| serde_json::json!([entry.number, entry.sender.to_string(), words(&entry.body)]);
    history.iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_and_rust_talk() {
    let Some(python) = python() else { return };
    let company = Company::new(&["rosa", "sten"], |_| ()).await;
    let [rosa, sten] = &company.people[..] else { unreachable!() };
    let dir = tempfile::tempdir().unwrap();
    let bindings = dir.path().join("bindings");
    sources(&bindings);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/chat.py");
    let (server, ca) = (company.node.address.to_string(), company.dir.path().join("dev-ca.pem"));
    let arguments = [&server, ca.to_str().unwrap(), dir.path().to_str().unwrap()];
    let mut petra = Program::start(python, &bindings, &script, &arguments);

    let id: UserId = text(&petra.told("signed up").await["user"]);
    let refusal = petra.told("refusal").await;
    assert_eq!(refusal["code"], "NOT_FOUND");
    assert_eq!(refusal["retry_after_ms"], 0);
    accept(rosa, id).await;
    let direct = text(&petra.told("contacts").await["conversation"]);
    assert_eq!(direct, ConversationId::direct(id, rosa.id));
    talk(rosa, id, direct, dir.path()).await;

    let group = rosa
        .inbox("a group", |body| match body {
            Body::ConversationAdded(added) if added.title == "Both languages" => Some(added.conversation),
            _ => None,
        })
        .await;
    hears(rosa, group, "hello, group").await;
    rosa.say(group, "Rust in the group").await;
    assert_eq!(group, text(&petra.told("group").await["conversation"]));
    find(rosa, "the announcement", group, |entry| entry.body == Body::Announced("read me".into())).await;

    petra.told("away").await;
    rosa.say(direct, "while you were away").await;
    petra.say("come back");
    hears(rosa, direct, "I am back").await;
    let history = petra.told("history").await;
    assert_eq!(history["direct"], kept(rosa, direct));
    assert_eq!(history["group"], kept(rosa, group));
    rosa.assert_in_order(direct);
    rosa.assert_in_order(group);
    petra.told("closed").await;
    petra.end().await;

    // Nothing of what was refused came through.
    assert!(sten.seen().entries.keys().all(|timeline| matches!(timeline, TimelineId::Inbox(_))));
    let Company { node, people, .. } = company;
    drop(people);
    stop(node).await;
}

/// The fenced blocks of a language in docs/bindings.md.
fn samples(language: &str) -> Vec<String> {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bindings.md")).unwrap();
    let fence = format!("```{language}\n");
    docs.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_chat_of_the_docs_is_what_runs() {
    let Some(python) = python() else { return };
    let [sample] = &samples("python")[..] else { panic!("docs/bindings.md has one chat in Python") };
    let company = Company::new(&["rosa"], |_| ()).await;
    let [rosa] = &company.people[..] else { unreachable!() };
    let dir = tempfile::tempdir().unwrap();
    let (bindings, script) = (dir.path().join("bindings"), dir.path().join("first.py"));
    sources(&bindings);
    fs::write(&script, sample).unwrap();
    let (server, ca) = (company.node.address.to_string(), company.dir.path().join("dev-ca.pem"));
    let store = dir.path().join("store");
    for turn in ["one", "another"] {
        let arguments = [&server, ca.to_str().unwrap(), store.to_str().unwrap(), "petra", "rosa"];
        let mut petra = Program::start(python, &bindings, &script, &arguments);
        let asked = |body: &Body| match body {
            Body::ContactRequested(request) if request.handle == "petra" => Some(request.from),
            _ => None,
        };
        let id = rosa.inbox("Petra's request", asked).await;
        // In the second turn they are contacts already.
        if turn == "one" {
            rosa.client.accept_contact(id).await.unwrap();
        }
        let direct = ConversationId::direct(id, rosa.id);
        until("they can talk", SOON, async || rosa.client.members(direct).await.is_ok()).await;
        rosa.say(direct, turn).await;
        assert_eq!(petra.line().await, format!("rosa: {turn}"));
        hears(rosa, direct, &format!("you said {turn}")).await;
        petra.end().await;
    }
    let Company { node, people, .. } = company;
    drop(people);
    stop(node).await;
}

/// The one file that ends so.
fn only(dir: &Path, end: &str) -> String {
    let files: Vec<PathBuf> =
        files_under(dir).into_iter().filter(|path| path.to_string_lossy().ends_with(end)).collect();
    assert_eq!(files.len(), 1, "{end} in {}: {files:?}", dir.display());
    fs::read_to_string(&files[0]).unwrap()
}

#[test]
fn kotlin_and_swift_hold_what_python_does() {
    let dir = tempfile::tempdir().unwrap();
    sources(dir.path());
    let python = only(&dir.path().join("python"), "magpie.py");
    let kotlin = only(&dir.path().join("kotlin"), "magpie.kt");
    let swift = only(&dir.path().join("swift"), "magpie.swift");
    let header = only(&dir.path().join("swift"), "magpieFFI.h");
    only(&dir.path().join("swift"), ".modulemap");
    let methods =
        ["sign_up", "next_event", "send_text", "create_group", "history_before", "known_contacts", "shutdown"];
    for method in methods {
        let mut words = method.split('_');
        let first = words.next().unwrap().to_owned();
        let camel = words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..]);
        assert!(python.contains(&format!("def {method}(self")), "Python has no {method}");
        assert!(kotlin.contains(&format!("fun `{camel}`(")), "Kotlin has no {camel}");
        assert!(swift.contains(&format!("func {camel}(")), "Swift has no {camel}");
        assert!(header.contains(&format!("_client_{method}(")), "the header for Swift has no {method}");
    }
    assert!(kotlin.contains("suspend fun `sendText`(") && swift.contains("async throws  -> Posted"));
    for what in ["BlobRef", "Entry", "Event", "Message", "Posted"] {
        assert!(kotlin.contains(&format!("class {what}")) && python.contains(&format!("class {what}")), "{what}");
        assert!(["struct", "enum"].iter().any(|kind| swift.contains(&format!("public {kind} {what}"))), "{what}");
    }
    assert!(kotlin.contains("sealed class ClientException") && swift.contains("enum ClientError"));
    for (language, source) in [("Python", &python), ("Kotlin", &kotlin), ("Swift", &swift)] {
        assert!(source.contains("Puts a sign on a message, or takes it off."), "no docs in {language}");
    }
}
