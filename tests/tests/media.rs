//! Files are brought, named in messages and fetched, by whoever may and nobody else, through whatever happens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a failure here is a test's failure")]

use std::{path::PathBuf, sync::mpsc, time::Duration};

use magpie_client::{
    BlobId, Body, Client, Content, Error, ErrorCode, MessageId, Progress, SetProfile, StorePlace,
    message::{BlobRef, File, Kind},
};
use magpie_node::Options;
use magpie_protocol::frame::conversation::Edit;
use magpie_tests::{
    InProcess, Person, Place, Process, files_under, from_env,
    media::{TYPE, blob, blob_of, bytes, refusal, share},
    node::test_config,
    people::befriend,
    seed, stop, until,
};

const SOON: Duration = Duration::from_secs(20);
const MB: usize = 1024 * 1024;

fn node() -> (tempfile::TempDir, InProcess, Place) {
    let dir = tempfile::tempdir().unwrap();
    let node = InProcess::start(test_config(&dir.path().join("node")), Options::default());
    let place = Place::new(node.address, node.ca.clone());
    (dir, node, place)
}

/// Files that lie in the media folder of a node.
fn objects(dir: &std::path::Path) -> Vec<PathBuf> {
    files_under(&dir.join("node/media"))
}

#[tokio::test]
async fn a_file_is_brought_named_and_fetched() {
    let (dir, node, place) = node();
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let conversation = befriend(&alice, &bob).await;
    let seed = seed("a_file_is_brought_named_and_fetched");
    // Around the borders of a piece, and of what is read and written in one go.
    for (at, len) in [1, 65_536, 65_537, MB - 1, MB, MB + 1, 3 * MB + 123].into_iter().enumerate() {
        let content = bytes(seed + at as u64, len);
        let from = dir.path().join("from");
        std::fs::write(&from, &content).unwrap();
        let mut seen = Vec::new();
        let named = alice.client.upload_with(from.as_path(), TYPE, |p: Progress| seen.push((p.done, p.total))).await;
        let named = named.unwrap();
        assert_eq!(named, BlobRef { blob: blob(&content), len: len as u64, media_type: TYPE.into() });
        assert!(seen.is_sorted() && seen.last() == Some(&(len as u64, len as u64)), "{seen:?}");
        let message = share(&alice, conversation, &named).await.unwrap();
        bob.has(conversation, message.number, SOON).await;
        let to = dir.path().join("to");
        let mut seen = Vec::new();
        bob.client.download_with(message, &named, &to, |p| seen.push(p.done)).await.unwrap();
        assert_eq!(blob_of(&to), named.blob, "{len} bytes");
        assert!(seen.is_sorted() && seen.last() == Some(&(len as u64)), "{seen:?}");
        // Who sent it may fetch it, too.
        alice.client.download(message, &named, &to).await.unwrap();
    }
    node.stop();
}

/// Brings and fetches `len` bytes; `interrupt` is called at every tenth, both ways.
async fn interrupted(place: &Place, len: usize, mut interrupt: impl FnMut(&Person)) {
    let seed = seed("interrupted");
    let dir = tempfile::tempdir().unwrap();
    let store = |name: &str| StorePlace::File(dir.path().join(name));
    let alice = Person::new_at(place, "alice", store("alice")).await;
    let bob = Person::new_at(place, "bob", store("bob")).await;
    let conversation = befriend(&alice, &bob).await;
    let content = bytes(seed, len);
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::write(&from, &content).unwrap();

    let mut track = Track::default();
    let uploading = alice.client.upload_with(from.as_path(), TYPE, |p| track.step(p, || interrupt(&alice)));
    let named = uploading.await.unwrap();
    track.check(len as u64);
    assert_eq!(named.blob, blob(&content));
    let message = share(&alice, conversation, &named).await.unwrap();

    let mut track = Track::default();
    bob.client.download_with(message, &named, &to, |p| track.step(p, || interrupt(&bob))).await.unwrap();
    track.check(len as u64);
    assert_eq!(blob_of(&to), named.blob);
}

/// How far a transfer was, at each step.
#[derive(Default)]
struct Track {
    tenths: u64,
    last: u64,
    /// How far back each try began from where the one before was.
    lost: Vec<u64>,
    moved: u64,
}

impl Track {
    fn step(&mut self, progress: Progress, interrupt: impl FnOnce()) {
        if progress.done < self.last {
            self.lost.push(self.last - progress.done);
        } else {
            self.moved += progress.done - self.last;
        }
        self.last = progress.done;
        if self.tenths < 9 && progress.done * 10 >= (self.tenths + 1) * progress.total {
            self.tenths += 1;
            interrupt();
        }
    }

    /// All nine interruptions came, and what was there was not sent again: but for what was on its way, and at most the
    /// one piece that a node which ends in the middle of it has not written.
    fn check(&self, len: u64) {
        assert_eq!(self.tenths, 9);
        assert_eq!(self.last, len);
        assert!(self.lost.iter().all(|lost| *lost <= 2 * MB as u64), "{:?}", self.lost);
        println!("{len} bytes: {} moved, sent again {:?}", self.moved, self.lost);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_at_every_tenth_it_goes_on_to_the_same_hash() {
    let (_dir, node, place) = node();
    interrupted(&place, 10 * MB + 7, |person| person.client.drop_connection()).await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_tenth_the_node_goes_on_to_the_same_hash() {
    let dir = tempfile::tempdir().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_magpie-test-node"));
    let process = Process::try_start(program, &dir.path().join("node"), &[]).unwrap();
    let place = Place::new(process.address, process.ca());
    let (kill, kills) = mpsc::channel::<mpsc::Sender<()>>();
    let killer = std::thread::spawn(move || {
        let mut process = process;
        let mut count = 0;
        for killed in kills {
            let parts = process.kill();
            // The transfer goes on only when the process is gone.
            killed.send(()).unwrap();
            process = Process::restart(parts).unwrap();
            count += 1;
        }
        (process.terminate(), count)
    });
    interrupted(&place, from_env("MAGPIE_MEDIA_MB", 20) as usize * MB, |_| {
        let (killed, wait) = mpsc::channel();
        kill.send(killed).unwrap();
        wait.recv().unwrap();
    })
    .await;
    drop(kill);
    assert_eq!(killer.join().unwrap(), (0, 18));
}

#[tokio::test]
async fn who_may_not_see_a_message_gets_nothing_of_what_it_names() {
    let (dir, node, place) = node();
    let mut people = Vec::new();
    for name in ["ann", "ben", "cat", "eve"] {
        people.push(Person::new(&place, name).await);
    }
    let [ann, ben, cat, eve] = &people[..] else { panic!() };
    let group = ann.client.create_group("team", vec![ben.id, cat.id]).await.unwrap();
    let named = ann.client.upload(bytes(1, 5000), TYPE).await.unwrap();
    let message = share(ann, group, &named).await.unwrap();
    let to = dir.path().join("to");
    ben.client.download(message, &named, &to).await.unwrap();
    std::fs::remove_file(&to).unwrap();

    // A stranger; somebody who joined later; one who left before; another message; another blob; no such conversation.
    let nothing = async |who: &Person, message: MessageId, named: &BlobRef, why: &str| {
        let error = refusal(who.client.download(message, named, &to).await);
        assert_eq!(
            (error.code, error.field.as_str(), error.detail.as_str()),
            (ErrorCode::NotFound, "blob", ""),
            "{why}"
        );
        assert!(!to.exists());
        let part = dir.path().join("to.part");
        assert_eq!(std::fs::metadata(&part).map_or(0, |found| found.len()), 0, "{why}");
    };
    nothing(eve, message, &named, "a stranger").await;
    ann.client.invite(group, eve.id).unwrap().posted().await.unwrap();
    nothing(eve, message, &named, "who joined later").await;
    ann.client.remove(group, cat.id).unwrap().posted().await.unwrap();
    let later = share(ann, group, &named).await.unwrap();
    nothing(cat, later, &named, "who was removed before").await;
    cat.client.download(message, &named, &to).await.unwrap();
    std::fs::remove_file(&to).unwrap();
    eve.client.download(later, &named, &to).await.unwrap();
    std::fs::remove_file(&to).unwrap();
    nothing(ben, MessageId { number: 1, ..message }, &named, "a message that names nothing").await;
    nothing(ben, MessageId { number: 0, ..message }, &named, "no message").await;
    nothing(ben, MessageId { number: 99, ..message }, &named, "a message to come").await;
    let other = BlobRef { blob: BlobId::from_hash([9; 32]), ..named.clone() };
    nothing(ben, message, &other, "a blob that it does not name").await;
    let elsewhere = MessageId { conversation: magpie_client::ConversationId::direct(ann.id, eve.id), number: 1 };
    nothing(eve, elsewhere, &named, "a conversation that is not there").await;
    node.stop();
}

#[tokio::test]
async fn a_message_names_only_what_is_there_and_was_shown_to_be_had() {
    let (dir, node, place) = node();
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let eve = Person::new(&place, "eve").await;
    let conversation = befriend(&alice, &bob).await;
    let with_eve = befriend(&alice, &eve).await;
    let named = alice.client.upload(bytes(2, 70_000), TYPE).await.unwrap();
    let refused = async |who: &Person, to, named: &BlobRef, why: &str| {
        let error = refusal(share(who, to, named).await);
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::NotFound, "blob"), "{why}");
    };
    let absent = BlobRef { blob: blob(b"never brought"), len: 13, media_type: TYPE.into() };
    refused(&alice, conversation, &absent, "it was never brought").await;
    refused(&alice, conversation, &BlobRef { len: 70_001, ..named.clone() }, "it has another length").await;
    // Who only knows the hash has not shown to have it: else a hash would be as good as the file.
    refused(&eve, with_eve, &named, "somebody else brought it").await;
    assert_eq!(alice.say(conversation, "the next number is free").await, 4);

    let message = share(&alice, conversation, &named).await.unwrap();
    let error = refusal(eve.client.borrow_blob(message, &named).await);
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::NotFound, "blob"));
    refused(&eve, with_eve, &named, "a message that she may not read").await;
    // Who may read a message that names it may pass it on, without bringing it.
    bob.client.borrow_blob(message, &named).await.unwrap();
    let group = bob.client.create_group("more", vec![eve.id]).await.unwrap();
    let passed = share(&bob, group, &named).await.unwrap();
    let to = dir.path().join("to");
    eve.client.download(passed, &named, &to).await.unwrap();
    assert_eq!(blob_of(&to), named.blob);
    node.stop();
}

#[tokio::test]
async fn two_who_bring_the_same_share_one_copy() {
    let (dir, node, place) = node();
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let conversation = befriend(&alice, &bob).await;
    let content = bytes(3, 3 * MB);
    let both = tokio::join!(alice.client.upload(content.clone(), TYPE), bob.client.upload(content.clone(), TYPE));
    let (named, same) = (both.0.unwrap(), both.1.unwrap());
    assert_eq!(named, same);
    until("one copy is left", SOON, async || objects(dir.path()).len() == 3).await;
    for from in [&alice, &bob] {
        let message = share(from, conversation, &named).await.unwrap();
        let to = dir.path().join("to");
        alice.client.download(message, &named, &to).await.unwrap();
        assert_eq!(blob_of(&to), named.blob);
    }
    // Again, by one who brought it: nothing is sent.
    let mut moved = 0;
    alice
        .client
        .upload_with(content, TYPE, |p| {
            if p.done < p.total {
                moved += 1
            }
        })
        .await
        .unwrap();
    assert_eq!((moved, objects(dir.path()).len()), (0, 3));
    node.stop();
}

#[tokio::test]
async fn a_client_that_closes_gives_up_and_a_file_that_is_not_there_is_no_upload() {
    let (dir, node, place) = node();
    let alice = Person::new(&place, "alice").await;
    let missing = alice.client.upload(dir.path().join("missing"), TYPE).await;
    assert!(matches!(missing, Err(Error::File(_))), "{missing:?}");
    alice.client.close().await;
    let closed = alice.client.upload(bytes(4, 10), TYPE).await;
    assert_eq!(closed, Err(Error::Closed));
    node.stop();
}

#[tokio::test]
async fn a_file_that_was_to_be_sent_without_a_node_is_sent_once_by_the_next_client() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = test_config(&dir.path().join("node"));
    let node = InProcess::start(config.clone(), Options::default());
    config.gateway.listen = node.address;
    let place = Place::new(node.address, node.ca.clone());
    let store = StorePlace::File(dir.path().join("alice"));
    let alice = Person::new_at(&place, "alice", store.clone()).await;
    let bob = Person::new(&place, "bob").await;
    let conversation = befriend(&alice, &bob).await;
    stop(node).await;

    let from = dir.path().join("from");
    std::fs::write(&from, bytes(6, 2 * MB)).unwrap();
    let kind = |blob| Kind::File(File { blob, name: "from".into() });
    let sending = alice.client.send_file(conversation, &from, TYPE, kind).await.unwrap();
    let missing = alice.client.send_file(conversation, dir.path().join("missing"), TYPE, kind).await;
    assert!(matches!(missing, Err(Error::File(_))), "{missing:?}");
    let named = sending.blob().clone();
    alice.client.close().await;
    assert_eq!(sending.posted().await, Err(Error::Closed));
    // Another that vanishes before it is brought.
    let alice = Client::open(&place.network, magpie_client::Config::new(place.server), store.clone()).unwrap().0;
    let gone = dir.path().join("gone");
    std::fs::write(&gone, b"gone").unwrap();
    drop(alice.send_file(conversation, &gone, TYPE, kind).await.unwrap());
    alice.close().await;
    std::fs::remove_file(&gone).unwrap();

    let node = InProcess::start(config, Options::default());
    let alice = Person::back(&place, store.clone()).await;
    let named_in = |person: &Person| {
        let blobs = |entry: magpie_client::Entry| match entry.body {
            Body::Message(said) => said.message.kind.blobs(),
            _ => Vec::new(),
        };
        person.entries(conversation).into_iter().flat_map(blobs).collect::<Vec<_>>()
    };
    until("bob has the file's message", SOON, async || named_in(&bob) == [named.clone()]).await;
    let told = |alice: &Person| alice.seen().events.iter().any(|event| event.starts_with("FileNotSent"));
    until("alice is told of the other", SOON, async || told(&alice)).await;
    // Opened once more, nothing is left to send.
    alice.client.close().await;
    let alice = Person::back(&place, store).await;
    let sending = alice.client.send_file(conversation, &from, TYPE, kind).await.unwrap();
    let again = sending.posted().await.unwrap();
    bob.has(conversation, again.number, SOON).await;
    assert_eq!(named_in(&bob), [named.clone(), named]);
    stop(node).await;
}

/// A node that soon deletes what nobody names.
fn start_collecting() -> (tempfile::TempDir, InProcess) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = test_config(&dir.path().join("node"));
    config.media.unused_keep_s = 2;
    config.media.collect_every_s = 1;
    (dir, InProcess::start(config, Options::default()))
}

#[tokio::test]
async fn what_was_recalled_or_edited_away_is_given_to_nobody_and_goes() {
    let (dir, node) = start_collecting();
    let place = Place::new(node.address, node.ca.clone());
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let conversation = befriend(&alice, &bob).await;
    let to = dir.path().join("to");
    let upload = async |seed| alice.client.upload(bytes(seed, 100_000), TYPE).await.unwrap();
    let (first, second, third) = (upload(1).await, upload(2).await, upload(3).await);
    let recalled = share(&alice, conversation, &first).await.unwrap();
    let edited = share(&alice, conversation, &second).await.unwrap();
    bob.client.download(recalled, &first, &to).await.unwrap();
    bob.client.download(edited, &second, &to).await.unwrap();

    let act = async |content| alice.client.post(conversation, content).unwrap().posted().await.unwrap().number;
    act(Content::Recall(recalled.number)).await;
    let kind = Kind::File(File { blob: third.clone(), name: "another".into() });
    let edit = act(Content::Edit(Edit { number: edited.number, kind })).await;
    for person in [&alice, &bob] {
        for (message, gone) in [(recalled, &first), (edited, &second)] {
            let error = refusal(person.client.download(message, gone, dir.path().join("no")).await);
            assert_eq!((error.code, error.field.as_str()), (ErrorCode::NotFound, "blob"));
        }
        // The message names another file now, and so does the entry that says so.
        for message in [edited, MessageId { number: edit, ..edited }] {
            person.client.download(message, &third, &to).await.unwrap();
            assert_eq!(blob_of(&to), third.blob);
        }
    }
    // An edit to what is not there is refused, too.
    let absent = BlobRef { blob: blob(b"never"), len: 5, media_type: TYPE.into() };
    let kind = Kind::File(File { blob: absent, name: "absent".into() });
    let editing = alice.client.post(conversation, Content::Edit(Edit { number: edited.number, kind })).unwrap();
    assert_eq!(refusal(editing.posted().await).field, "blob");
    until("the two that nobody names any more are deleted", SOON, async || objects(dir.path()).len() == 1).await;
    bob.client.download(edited, &third, &to).await.unwrap();
    node.stop();
}

#[tokio::test]
async fn what_a_favourite_names_is_kept_for_whom_it_is_one() {
    let (dir, node) = start_collecting();
    let place = Place::new(node.address, node.ca.clone());
    let (alice, bob) = (Person::new(&place, "alice").await, Person::new(&place, "bob").await);
    let conversation = befriend(&alice, &bob).await;
    let to = dir.path().join("to");
    let upload = async |seed| alice.client.upload(bytes(seed, 100_000), TYPE).await.unwrap();
    let (kept, other) = (upload(1).await, upload(2).await);
    let messages =
        [share(&alice, conversation, &kept).await.unwrap(), share(&alice, conversation, &other).await.unwrap()];
    bob.has(conversation, messages[1].number, SOON).await;
    bob.client.add_favourite(conversation, messages[0].number).await.unwrap();
    for message in messages {
        alice.client.post(conversation, Content::Recall(message.number)).unwrap().posted().await.unwrap();
    }
    until("the other one is deleted", SOON, async || objects(dir.path()).len() == 1).await;
    bob.client.download(messages[0], &kept, &to).await.unwrap();
    assert_eq!(blob_of(&to), kept.blob);
    let refused = async |who: &Person, message, named| {
        let error = refusal(who.client.download(message, named, dir.path().join("no")).await);
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::NotFound, "blob"));
    };
    refused(&alice, messages[0], &kept).await;
    refused(&bob, messages[1], &kept).await;
    refused(&bob, messages[0], &other).await;
    let favourite = bob.client.favourites().await.unwrap().remove(0);
    bob.client.remove_favourite(favourite.id).await.unwrap();
    refused(&bob, messages[0], &kept).await;
    until("it goes with the favourite", SOON, async || objects(dir.path()).is_empty()).await;
    node.stop();
}

#[tokio::test]
async fn a_picture_of_oneself_is_given_to_anyone_while_one_shows_it() {
    let (dir, node, place) = node();
    let (alice, eve) = (Person::new(&place, "alice").await, Person::new(&place, "eve").await);
    let show = async |avatar: &BlobRef| {
        let profile = SetProfile { nickname: None, avatar: Some(Some(avatar.clone())), region: None, signature: None };
        alice.client.set_profile(profile).await
    };
    let absent = BlobRef { blob: blob(b"never"), len: 5, media_type: "image/png".into() };
    assert_eq!(refusal(show(&absent).await).field, "blob");
    let first = alice.client.upload(bytes(1, 30_000), "image/png").await.unwrap();
    let second = alice.client.upload(bytes(2, 30_000), "image/png").await.unwrap();
    let to = dir.path().join("to");
    let error = refusal(eve.client.download_avatar(alice.id, &first, &to).await);
    assert_eq!((error.code, error.field.as_str()), (ErrorCode::NotFound, "blob"), "she does not show it yet");
    show(&first).await.unwrap();
    eve.client.download_avatar(alice.id, &first, &to).await.unwrap();
    assert_eq!(blob_of(&to), first.blob);
    show(&second).await.unwrap();
    eve.client.download_avatar(alice.id, &second, &to).await.unwrap();
    assert_eq!(refusal(eve.client.download_avatar(alice.id, &first, &to).await).code, ErrorCode::NotFound);
    node.stop();
}
