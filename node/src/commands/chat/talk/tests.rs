use super::*;
use magpie_client::{
    Body, Config, Entry, Event, Network, NetworkConfig, StorePlace,
    entry::{ContactAccepted, ContactRequested, ConversationAdded, Joined},
};

use super::super::parse::parse;

const BOB: UserId = UserId::from_bits(2);
const CAROL: UserId = UserId::from_bits(3);

/// Alice, with no node anywhere and an empty store.
fn alice() -> Talk {
    let authority = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let network = Network::new(NetworkConfig::new(authority.cert.der().to_vec())).unwrap();
    let config = Config::new(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
    let (client, _) = Client::open(&network, config, StorePlace::Memory).unwrap();
    Talk::new(client, UserId::from_bits(1), "alice", None)
}

fn inbox(talk: &mut Talk, sender: UserId, body: Body) {
    talk.on_inbox(Entry { number: 1, time_ms: 0, sender, body });
}

fn becomes_contact(talk: &mut Talk, user: UserId, handle: &str) -> ConversationId {
    let conversation = ConversationId::direct(talk.me, user);
    inbox(talk, user, Body::ContactAccepted(ContactAccepted { user, handle: handle.into(), conversation }));
    let added = ConversationAdded { conversation, title: String::new(), first: 1, by: user };
    inbox(talk, user, Body::ConversationAdded(added));
    conversation
}

fn taken(talk: &mut Talk) -> Vec<String> {
    let text = |line| match line {
        Line::Out(text) => format!("out {text}"),
        Line::Note(text) => format!("note {text}"),
    };
    talk.lines.drain(..).map(text).collect()
}

fn typed(talk: &mut Talk, line: &str) -> Vec<String> {
    talk.on_typed(parse(line));
    taken(talk)
}

#[tokio::test]
async fn the_first_to_agree_is_talked_to_and_the_next_is_not() {
    let mut talk = alice();
    let bob = becomes_contact(&mut talk, BOB, "bob");
    assert_eq!(taken(&mut talk), ["out * you and bob can talk now"]);
    assert_eq!(talk.focus, Focus::Open(bob));
    becomes_contact(&mut talk, CAROL, "carol");
    assert_eq!(talk.focus, Focus::Open(bob));
}

#[tokio::test]
async fn while_somebody_is_awaited_nobody_else_is_spoken_to() {
    let mut talk = alice();
    talk.people.learn(CAROL, "carol");
    talk.on_done(Done { learned: Vec::new(), then: Then::Await(CAROL) });
    becomes_contact(&mut talk, BOB, "bob");
    taken(&mut talk);
    assert_eq!(typed(&mut talk, "my dear carol"), ["note * not sent: carol has not accepted yet"]);
    let carol = becomes_contact(&mut talk, CAROL, "carol");
    assert_eq!(talk.focus, Focus::Open(carol));
}

#[tokio::test]
async fn a_name_that_is_wrong_closes_what_was_open() {
    let mut talk = alice();
    becomes_contact(&mut talk, BOB, "bob");
    talk.on_done(Done { learned: Vec::new(), then: Then::Nobody("nobody is called \"carlo\"".into()) });
    taken(&mut talk);
    assert!(typed(&mut talk, "a secret")[0].starts_with("note * not sent: no conversation is open"));
    becomes_contact(&mut talk, CAROL, "carol");
    assert_eq!(talk.focus, Focus::Closed, "what was meant for somebody else must not go there");
    taken(&mut talk);
    assert!(typed(&mut talk, "/open 7")[0].contains("no conversation 7"));
}

#[tokio::test]
async fn a_request_is_told_once_and_harmlessly() {
    let mut talk = alice();
    let request = ContactRequested { from: BOB, handle: "bob".into(), greeting: "hi\u{1b}[2J".into() };
    inbox(&mut talk, BOB, Body::ContactRequested(request.clone()));
    inbox(&mut talk, BOB, Body::ContactRequested(request));
    assert_eq!(taken(&mut talk), ["out * bob would like to talk (\"hi\u{fffd}[2J\"): /accept bob"]);
}

#[tokio::test]
async fn the_operator_is_heard() {
    let mut talk = alice();
    inbox(&mut talk, UserId::default(), Body::Notice("closed\ntonight".into()));
    assert_eq!(taken(&mut talk), ["out * a word from the operator: \"closed⏎tonight\""]);
}

#[tokio::test]
async fn who_was_taken_off_the_contacts_is_asked_and_talked_to() {
    let mut talk = alice();
    let bob = becomes_contact(&mut talk, BOB, "bob");
    talk.focus = Focus::Free;
    taken(&mut talk);
    talk.on_done(Done { learned: Vec::new(), then: Then::Again(BOB) });
    assert_eq!(talk.focus, Focus::Open(bob));
    let said = taken(&mut talk);
    assert!(said.last().unwrap().contains("bob was no contact of yours, and is asked"), "{said:?}");
}

#[tokio::test]
async fn joining_is_told_where_it_is_news() {
    let mut talk = alice();
    talk.people.learn(BOB, "bob");
    let group = ConversationId::group(BOB, 1);
    let joined = |user| Entry { number: 2, time_ms: 0, sender: BOB, body: Body::Joined(Joined { user, by: BOB }) };
    let entries = [joined(BOB), joined(talk.me), joined(CAROL)];
    let line = Line::Out("(team) * u~000003 joined".to_owned());
    assert_eq!(talk.entry_lines(group, &entries, Some("team")), [line]);
    assert_eq!(talk.entry_lines(ConversationId::direct(talk.me, BOB), &entries, None), []);
}

#[tokio::test]
async fn the_connection_is_spoken_of_when_it_changes() {
    let mut talk = alice();
    for event in [Event::Online, Event::Online, Event::Offline { reason: String::new() }, Event::Online] {
        talk.on_event(event).unwrap();
    }
    assert_eq!(taken(&mut talk), ["note * online", "note * connection lost, retrying", "note * back online"]);
    assert!(talk.on_event(Event::Replaced).is_err());
}
