use magpie_protocol::{
    BlobId, DeviceId, Incarnation, Kind, Message, Slot,
    frame::{
        account::SetProfile,
        conversation::{Admit, Content, Leave, SetJoin},
        personal::{Hide, SetConversation},
    },
    message::{BlobRef, File},
};

use super::*;
use crate::{
    account::{command::NewDevice, state::slot_of},
    machine::Command,
    one_shard::{OneShard, Records},
    service,
};

fn person(name: &str) -> UserId {
    UserId::in_slot(slot_of(name), 0x0123_4567_89ab ^ u64::from(name.as_bytes()[0]))
}

fn blob(n: u8) -> BlobRef {
    BlobRef { blob: BlobId::from_hash([n; 32]), len: 9, media_type: "text/plain".into() }
}

struct Town(OneShard);

impl Town {
    async fn person(&self, name: &str) -> UserId {
        let (user, handle) = (person(name), name.to_owned());
        let device = NewDevice {
            device: DeviceId::from_bits(user.bits()),
            public_key: [name.as_bytes()[0]; 32],
            name: "phone".into(),
        };
        let sign_up = account::Command::SignUp { handle, user, password_hash: format!("secret of {name}"), device };
        self.0.ask(EntityId::handle(Slot::of_text(name)), sign_up).await.unwrap();
        user
    }

    async fn own(&self, user: UserId, command: impl Into<Command>) {
        self.0.ask(EntityId::user(user), command).await.unwrap();
    }

    async fn befriend(&self, a: UserId, b: UserId) -> ConversationId {
        self.own(a, contact::Command::Request { to: b, greeting: "it is me".into() }).await;
        self.own(b, contact::Command::Accept { from: a }).await;
        ConversationId::direct(a, b)
    }

    async fn group(&self, creator: UserId, nonce: u128, members: Vec<UserId>) -> ConversationId {
        let id = ConversationId::group(creator, nonce);
        let create = chat::Command::CreateGroup { creator, title: "a group".into(), members };
        self.0.ask(EntityId::conversation(id), Command::Chat(create)).await.unwrap();
        id
    }

    async fn act(&self, user: UserId, id: ConversationId, number: u64, content: Content) {
        let (device, incarnation) = (DeviceId::from_bits(user.bits()), Incarnation::from_bits(7 << 32));
        let post = chat::command::Post { user, device, epoch: 1, incarnation, number, content };
        self.0.ask(EntityId::conversation(id), Command::Chat(chat::Command::Post(post))).await.unwrap();
    }

    async fn close(&self, user: UserId) {
        self.own(user, account::Command::Close).await;
        self.0.pass(CLOSING_MS + 1).await;
        self.own(user, account::Command::Purge).await;
    }
}

fn file(n: u8) -> Content {
    Content::Say(Message::new(Kind::File(File { blob: blob(n), name: "a file".into() })))
}

/// The tables of the records that name a person, in their key or in what they hold.
fn naming(records: &Records, user: UserId) -> BTreeSet<u8> {
    let (in_key, in_value) = (user.bits().to_be_bytes(), user.bits().to_le_bytes());
    let has = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    let naming = records.iter().filter(|(key, value)| has(key, &in_key) || has(value, &in_value));
    naming.map(|(key, _)| key[2]).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_an_account_that_was_deleted_but_what_was_said_to_others() {
    let town = Town(OneShard::start().await);
    let (ann, ben, cat) = (town.person("ann").await, town.person("ben").await, town.person("cat").await);
    let eve = town.person("eve").await;
    let phone = "+4912345".to_owned();
    let claim = account::Command::ClaimPhone { phone: phone.clone(), user: ann, findable: true };
    town.0.ask(person::phone_entity(&phone), claim).await.unwrap();
    town.own(ann, account::Command::SetPhone { phone }).await;
    let set = SetProfile { nickname: Some("Annie".into()), avatar: Some(Some(blob(1))), region: None, signature: None };
    town.own(ann, account::Command::SetProfile(set)).await;
    let two = town.befriend(ann, ben).await;
    town.befriend(ben, cat).await;
    town.own(eve, contact::Command::Request { to: ann, greeting: "me too".into() }).await;
    town.own(ann, service::Command::Notice { id: 7, text: "a word of the operator's".into() }).await;
    let block = chat::Command::Block { by: ann, other: cat, on: true };
    town.0.ask(EntityId::conversation(ConversationId::direct(ann, cat)), Command::Chat(block)).await.unwrap();
    town.act(ann, two, 1, file(2)).await;
    // A group that she is in, one that she left, one into which she asked somebody in, and one that nobody else is in.
    let groups = [town.group(ben, 1, vec![ann, cat]).await, town.group(ben, 2, vec![ann]).await];
    let (asked, alone) = (town.group(ben, 3, vec![ann]).await, town.group(ann, 4, vec![]).await);
    town.act(ann, groups[0], 1, Content::Nickname("the first".into())).await;
    town.act(ann, groups[1], 1, Content::Leave(Leave {})).await;
    town.act(ben, asked, 1, Content::SetJoin(SetJoin { code: 5, approval: true })).await;
    town.act(ann, asked, 1, Content::Invite(cat)).await;
    town.act(ann, alone, 1, file(3)).await;
    let set =
        SetConversation { conversation: two, pinned: Some(true), do_not_disturb: None, saved: None, hidden_at: None };
    town.own(ann, personal::Command::SetConversation(set)).await;
    town.own(ann, personal::Command::Hide(Hide { conversation: two, up_to: 1, numbers: vec![] })).await;
    let Content::Say(kept) = file(4) else { panic!("no message") };
    let keep = |number| {
        let kind = kept.kind.clone();
        Command::from(personal::Command::AddFavourite { conversation: two, number, sender: ben, kind })
    };
    // More than one command erases.
    for number in 1..400 {
        town.0.hurry(EntityId::user(ann), keep(number)).await.unwrap();
    }
    for n in 0..600u64 {
        let hash = *blake3::hash(&n.to_be_bytes()).as_bytes();
        let hold =
            media::Command::Hold { blob: BlobId::from_hash(hash), len: 1, quota: u64::MAX, keep_ms: u64::MAX / 2 };
        town.0.hurry(EntityId::user(ann), Command::Media(hold)).await.unwrap();
    }
    town.own(ann, service::Command::SetDisabled { on: true }).await;
    town.close(ann).await;
    // What arrives late leaves nothing.
    let late = media::Command::Used { blob: blob(9).blob, len: 9 };
    assert!(town.0.ask(EntityId::user(ann), Command::Media(late)).await.is_err());

    town.act(ben, asked, 2, Content::Admit(Admit { user: cat, yes: true })).await;
    let records = town.0.records().await;
    let entries = magpie_cluster::state::table::TIMELINE;
    assert_eq!(naming(&records, ann), BTreeSet::from([entries]), "the tables that name her");
    assert!(naming(&records, ben).len() > 5);
    // Entries of others' timelines are theirs; of her own there are none, nor of the group that she was alone in.
    let kept =
        |timeline: TimelineId| records.iter().filter(|(key, _)| key.starts_with(&Key::timeline(timeline))).count();
    let of = |id| kept(TimelineId::Conversation(id));
    assert_eq!((kept(TimelineId::Inbox(ann)), of(alone)), (0, 0));
    assert!(kept(TimelineId::Inbox(ben)) > 0 && of(two) > 0);
    let claimed = |n: u8| records.iter().any(|(key, _)| key[2] == table::BLOB && key.ends_with(&[n; 32]));
    assert_eq!([1, 3, 4].map(claimed), [false; 3], "her picture, a message that nobody reads, her favourites");
    assert!(claimed(2), "a message");
}

#[tokio::test]
async fn whoever_says_so_nobody_is_taken_into_a_group_by_a_stranger() {
    let town = Town(OneShard::start().await);
    let (ann, ben, eve) = (town.person("ann").await, town.person("ben").await, town.person("eve").await);
    town.befriend(ann, ben).await;
    // Asked, and not answered yet: that is a yes of the one who asked.
    let cat = town.person("cat").await;
    town.own(cat, contact::Command::Request { to: ann, greeting: "hello".into() }).await;
    let shop = person("shop");
    let make = service::Command::MakeAccount { handle: "shop".into(), user: shop };
    town.0.ask(EntityId::handle(shop.slot()), make).await.unwrap();
    // The commands themselves, past what a node looks at first.
    let team = town.group(ann, 1, vec![ben, cat, eve, shop]).await;
    let members = async |id: ConversationId| {
        let query = chat::Query::Members { reader: ann, conversation: id };
        match town.0.read(id.slot(), machine::Query::Chat(query)).await {
            machine::View::Chat(chat::View::Members(Some(view))) => BTreeSet::from_iter(view.members),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(members(team).await, BTreeSet::from([ann, ben, cat, shop]));
    town.act(ann, team, 1, Content::Invite(eve)).await;
    assert!(!members(team).await.contains(&eve));
    let lists = async |user: UserId| match town
        .0
        .read(user.slot(), machine::Query::Account(account::Query::List(user)))
        .await
    {
        machine::View::Account(account::View::List { listed, .. }) => listed.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((lists(eve).await, lists(cat).await), (0, 1));
    town.act(ann, team, 2, Content::SetJoin(SetJoin { code: 5, approval: false })).await;
    let join = chat::Command::Join { user: eve, code: 5 };
    town.0.ask(EntityId::conversation(team), Command::Chat(join)).await.unwrap();
    assert!(members(team).await.contains(&eve), "by her own will");
    // The operator lets strangers in.
    let open = crate::policy::Policy { version: 1, strangers_write: true, ..Default::default() };
    town.0.ask(EntityId::handle(Slot::new(0)), Command::Policy(open)).await.unwrap();
    let others = town.group(ann, 2, vec![eve]).await;
    assert_eq!(members(others).await, BTreeSet::from([ann, eve]));
}
