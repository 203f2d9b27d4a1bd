//! The bytes of every command, reply, query and view, as they stand in logs and travel between nodes, and of every
//! record that they leave, pinned: `tests/golden/v1.txt`.

#[path = "../../cluster/src/golden/file.rs"]
pub(crate) mod file;

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use file::{Golden, every};
use magpie_cluster::{
    EntityId, Key, Store,
    machine::Machine,
    state::{Applied, StateBase, memory::MemoryBase},
    system::LEVEL,
};
use magpie_protocol::{
    ConversationId, DeviceId, ErrorCode, Incarnation, Slot, TimelineId, UserId, WireError, codec,
    frame::{
        contact::{ContactInfo, ContactState},
        conversation::{Content, Leave},
        sync::EntryBytes,
    },
};

use crate::{
    Command, Magpie, Outcome, Query, View,
    account::{self, command::NewDevice},
    chat, contact, hooks,
    machine::{Replied, TestCommand, table},
    media,
    one_shard::{OneShard, Records},
    personal, policy, search, service,
};

fn person(name: &str, n: u64) -> UserId {
    UserId::in_slot(account::state::slot_of(name), n)
}

fn alice() -> UserId {
    person("alice", 0x1234)
}

fn bob() -> UserId {
    person("bob", 0x5678)
}

fn direct() -> ConversationId {
    ConversationId::direct(alice(), bob())
}

fn group() -> ConversationId {
    ConversationId::group(alice(), 9)
}

fn device(n: u64) -> NewDevice {
    NewDevice { device: DeviceId::from_bits(n), public_key: [n as u8; 32], name: format!("phone {n}") }
}

fn sign_up(handle: &str, user: UserId, n: u64) -> account::Command {
    let password_hash = "$argon2id$".to_owned();
    account::Command::SignUp { handle: handle.to_owned(), user, password_hash, device: device(n) }
}

fn post(user: UserId, n: u64, number: u64, content: Content) -> chat::command::Post {
    let incarnation = Incarnation::from_bits(7 << 32);
    chat::command::Post { user, device: DeviceId::from_bits(n), epoch: 1, incarnation, number, content }
}

fn accounts() -> Vec<account::Command> {
    vec![
        sign_up("Alice", alice(), 1),
        account::Command::CountTry { handle: "alice".into() },
        account::Command::SignIn { device: device(2) },
        account::Command::Resume { device: DeviceId::from_bits(2) },
        account::Command::SignOut { device: DeviceId::from_bits(2) },
        account::Command::MarkRead { conversation: direct(), number: 3 },
        account::Command::List { conversation: group(), title: "team".into(), first: 1, by: bob() },
        account::Command::Unlist { conversation: group(), last: 300 },
    ]
}

fn contacts() -> Vec<contact::Command> {
    vec![
        contact::Command::Request { to: bob(), greeting: "hello".into() },
        contact::Command::Requested { from: alice(), handle: "Alice".into(), greeting: "hello".into() },
        contact::Command::Accept { from: alice() },
        contact::Command::Accepted { by: bob(), handle: "bob".into() },
    ]
}

fn chats() -> Vec<chat::Command> {
    vec![
        chat::Command::CreateDirect { a: alice(), b: bob() },
        chat::Command::CreateGroup { creator: alice(), title: "team".into(), members: vec![bob()] },
        chat::Command::Post(post(alice(), 1, 1, Content::Text("hello".into()))),
        chat::Command::Forget { user: bob() },
    ]
}

fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Done,
        Outcome::Session { user: alice(), device: DeviceId::from_bits(1), epoch: 2 },
        Outcome::Try(Some((alice(), "$argon2id$".into()))),
        Outcome::Posted { number: 300, time_ms: 1_700_000_000_000 },
        Outcome::Created(group()),
    ]
}

fn queries() -> (Vec<account::Query>, Vec<contact::Query>, Vec<chat::Query>) {
    let accounts = vec![
        account::Query::Find("alice".into()),
        account::Query::Who(alice()),
        account::Query::Devices(alice()),
        account::Query::List(alice()),
    ];
    let contacts = vec![contact::Query::After { user: alice(), after: UserId::from_bits(0), limit: 100 }];
    let inbox = TimelineId::Inbox(bob());
    let pull = |timeline| chat::Query::Pull { reader: bob(), timeline, after: 0, limit: 100 };
    let chats = vec![
        chat::Query::Heads { reader: bob(), conversations: vec![direct(), group()] },
        chat::Query::Rights { conversation: group(), users: vec![alice(), bob()] },
        pull(TimelineId::Conversation(group())),
        pull(inbox),
        chat::Query::Members { reader: alice(), conversation: group() },
    ];
    (accounts, contacts, chats)
}

fn views() -> Vec<Golden> {
    let listed = account::state::Listed { conversation: group(), first: 1, last: 300, read: 3 };
    let known = account::state::Device {
        device: DeviceId::from_bits(1),
        public_key: [1; 32],
        name: "phone".into(),
        epoch: 2,
        last_seen_ms: 1_700_000_000_000,
    };
    let accounts = vec![
        account::View::Found(Some((alice(), "Alice".into()))),
        account::View::Devices(vec![known]),
        account::View::List { listed: vec![listed], inbox: 4 },
    ];
    let info = ContactInfo { user: bob(), handle: "bob".into(), state: ContactState::Requested };
    let head = chat::state::HeadView { conversation: group(), first: 1, head: 300, follows: true, rights: 2 };
    let page = chat::state::PageView { first: 1, head: 2, entries: vec![EntryBytes(Bytes::from_static(b"entry"))] };
    let members = chat::state::MembersView { title: "team".into(), owner: alice(), members: vec![alice(), bob()] };
    let chats = vec![
        chat::View::Heads(vec![head]),
        chat::View::Rights { members: vec![bob()], rights: 2, head: 300 },
        chat::View::Page(Some(page)),
        chat::View::Members(Some(members)),
    ];
    let contacts = vec![contact::View::Page { contacts: vec![info], last: true }];
    let all = vec![
        View::Account(account::View::Found(None)),
        View::Contact(contacts[0].clone()),
        View::Chat(chat::View::Page(None)),
        View::Failed,
    ];
    let families = [
        every("view.account", accounts),
        every("view.contact", contacts),
        every("view.chat", chats),
        every("view", all),
    ];
    families.into_iter().flatten().collect()
}

fn messages() -> Vec<Golden> {
    let all = vec![
        Command::Account(accounts()[1].clone()),
        Command::Contact(contacts()[0].clone()),
        Command::Chat(chats()[0].clone()),
        Command::Test(TestCommand::Panic),
    ];
    let refused: Replied = Err(WireError::field(ErrorCode::Invalid, "title", "too long"));
    let (of_accounts, of_contacts, of_chats) = queries();
    let of_all = vec![
        Query::Account(of_accounts[0].clone()),
        Query::Contact(of_contacts[0].clone()),
        Query::Chat(of_chats[0].clone()),
    ];
    let families = [
        every("command.account", accounts()),
        every("command.contact", contacts()),
        every("command.chat", chats()),
        every("command.personal", Vec::<personal::Command>::new()),
        every("query.personal", Vec::<personal::Query>::new()),
        every("view.personal", Vec::<personal::View>::new()),
        every("command.service", Vec::<service::Command>::new()),
        every("query.service", Vec::<service::Query>::new()),
        every("view.service", Vec::<service::View>::new()),
        every("command.media", Vec::<media::Command>::new()),
        every("query.media", Vec::<media::Query>::new()),
        every("view.media", Vec::<media::View>::new()),
        every("reply.media", Vec::<media::state::Reply>::new()),
        every("query.hooks", Vec::<hooks::query::Query>::new()),
        every("view.hooks", Vec::<hooks::query::View>::new()),
        media::state::goldens(),
        hooks::folded::goldens(),
        service::state::goldens(),
        personal::state::goldens(),
        account::state::closing::goldens(),
        vec![
            Golden::coded("record.chat.rules", &chat::rules::Rules::default()),
            Golden::coded("record.contact.book", &contact::book::Book::default()),
            Golden::coded("record.policy", &policy::Policy::default()),
        ],
        every("query.search", Vec::<search::Query>::new()),
        every("view.search", Vec::<search::View>::new()),
        every("command.test", vec![TestCommand::Panic, TestCommand::Later]),
        every("command", all),
        every("reply.outcome", outcomes()),
        every::<Replied>("reply", vec![Ok(Outcome::Done), refused]),
        every("query.account", of_accounts),
        every("query.contact", of_contacts),
        every("query.chat", of_chats),
        every("query", of_all),
        views(),
    ];
    families.into_iter().flatten().collect()
}

/// Two people who sign up, get to know each other and talk.
fn story() -> Vec<(EntityId, Command)> {
    let say = |user, n, number, content| Command::Chat(chat::Command::Post(post(user, n, number, content)));
    let (handle, a, b) = (|name| EntityId::handle(Slot::of_text(name)), EntityId::user(alice()), EntityId::user(bob()));
    let (team, two) = (EntityId::conversation(group()), EntityId::conversation(direct()));
    let text = |text: &str| Content::Text(text.to_owned());
    vec![
        (handle("alice"), Command::Account(sign_up("Alice", alice(), 1))),
        (handle("bob"), Command::Account(sign_up("bob", bob(), 3))),
        (handle("alice"), Command::Account(account::Command::CountTry { handle: "alice".into() })),
        (a, Command::Account(account::Command::SignIn { device: device(2) })),
        (a, Command::Contact(contact::Command::Request { to: bob(), greeting: "hello".into() })),
        (b, Command::Contact(contact::Command::Accept { from: alice() })),
        (two, say(alice(), 1, 1, text("is that you?"))),
        (two, say(bob(), 3, 1, text("it is"))),
        (a, Command::Account(account::Command::MarkRead { conversation: direct(), number: 1 })),
        (
            team,
            Command::Chat(chat::Command::CreateGroup { creator: alice(), title: "team".into(), members: vec![bob()] }),
        ),
        (team, say(alice(), 1, 1, text("welcome"))),
        (team, say(alice(), 1, 2, Content::Rename("the team".into()))),
        (team, say(bob(), 3, 1, Content::Leave(Leave {}))),
        (a, Command::Account(account::Command::SignOut { device: DeviceId::from_bits(2) })),
        (EntityId::user(bob()), Command::Test(TestCommand::Panic)),
    ]
}

/// Runs the story on a node of one shard; the records that it leaves.
async fn records() -> Records {
    let one = OneShard::start().await;
    for (entity, command) in story() {
        _ = one.ask(entity, command).await;
    }
    one.records().await
}

/// What everybody can read of the story, as bytes.
fn read(records: Records) -> Vec<u8> {
    let base = MemoryBase::default();
    let writes = records.into_iter().map(|(key, value)| {
        let slot = Slot::new(u16::from_be_bytes([key[0], key[1]]));
        (Key::new(slot, key[2]).bytes(&key[3..]), Some(value))
    });
    base.commit(writes.collect(), &Applied::default()).unwrap();
    let mut store = Store::new(Arc::new(base), 1 << 20);
    let (accounts, contacts, chats) = queries();
    let all = accounts.into_iter().map(Query::Account).chain(contacts.into_iter().map(Query::Contact));
    let all: Vec<Query> = all.chain(chats.into_iter().map(Query::Chat)).collect();
    let mut seen = Vec::new();
    for query in all {
        let view = Magpie.query(&mut store, query);
        assert!(!matches!(view, View::Failed), "a record cannot be read: {:?}", store.fault());
        codec::encode_into(&view, &mut seen);
    }
    seen
}

#[tokio::test]
async fn what_is_stored_and_sent_stays_as_it_is() {
    let mut goldens = messages();
    let records = records().await;
    let tables: std::collections::BTreeSet<u8> = records.iter().map(|(key, _)| key[2]).collect();
    let all =
        [table::HANDLE, table::USER, table::DEVICES, table::LIST, table::CONTACTS, table::CONVERSATION, table::SENDER];
    assert!(all.iter().all(|table| tables.contains(table)), "the story leaves records in {tables:?}");
    let seen = read(records.clone());
    assert!(seen.len() > 500, "the story can be read");
    // Records of whatever version: what can be read of them is what could be.
    let again = move |bytes: &[u8]| {
        let records: Records = codec::decode_stored(bytes).ok()?;
        (read(records) == seen).then(|| bytes.to_vec())
    };
    goldens.push(Golden::new("records", codec::encode(&records), again));
    file::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), LEVEL, &goldens);
}
