//! The state machine that shards run: every subsystem's commands and queries, joined.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use magpie_cluster::{
    EntityId, Key, Machine, Record, Router, Store, Tx,
    system::{FIRST_LEVEL, LEVEL},
};
use magpie_protocol::{ConversationId, DeviceId, ErrorCode, ShardId, Slot, UserId, WireError, ids::SLOTS};

use crate::{account, chat, contact, hooks, media, personal, policy, policy::Policy, search, service};

/// The way to every entity.
pub type MagpieRouter = Router<Magpie>;

/// By shard, so that each is asked once: with one of its slots.
pub fn by_shard<T>(
    router: &MagpieRouter,
    all: impl IntoIterator<Item = T>,
    slot: impl Fn(&T) -> Slot,
) -> Vec<(Slot, Vec<T>)> {
    let mut shards: BTreeMap<ShardId, (Slot, Vec<T>)> = BTreeMap::new();
    for one in all {
        let slot = slot(&one);
        shards.entry(router.shard_of(slot).id()).or_insert_with(|| (slot, Vec::new())).1.push(one);
    }
    shards.into_values().collect()
}

/// One slot of each shard.
pub fn one_of_each(router: &MagpieRouter) -> Vec<Slot> {
    by_shard(router, (0..SLOTS).map(Slot::new), |slot| *slot).into_iter().map(|(slot, _)| slot).collect()
}

/// What can be asked of an entity. Variants are append-only: they stand in logs.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Command {
    Account(account::Command),
    Contact(contact::Command),
    Chat(chat::Command),
    /// For tests of the machinery; no wire request leads here.
    Test(TestCommand),
    /// The operator's policy. Asked of any entity of a shard.
    Policy(Policy),
    Personal(personal::Command),
    Service(service::Command),
    Media(media::Command),
}

/// See [`Command::Test`].
#[derive(Clone, Debug, Encode, Decode)]
pub enum TestCommand {
    /// Makes apply panic.
    Panic,
    /// Counts, in the place of what a newer build can do: it belongs to the level after this build's.
    Later,
}

/// What comes back from a command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    Done,
    /// The account is there and its device has a session of this epoch.
    Session {
        user: UserId,
        device: DeviceId,
        epoch: u64,
    },
    /// A try of this password hash was counted; `None` for a handle that nobody has.
    Try(Option<(UserId, String)>),
    Posted {
        number: u64,
        time_ms: u64,
    },
    Created(ConversationId),
    /// Whether a group took somebody in, or has to let them in first.
    Joining {
        joined: bool,
    },
    /// The account that there is now.
    User(UserId),
    Media(Box<media::state::Reply>),
    /// Done, but for these, which are not there.
    Missing(Vec<ConversationId>),
}

/// What a person changes of what is their own.
macro_rules! commands {
    ($($subsystem:ident => $variant:ident;)+) => {
        $(impl From<$subsystem::Command> for Command {
            fn from(command: $subsystem::Command) -> Self {
                Self::$variant(command)
            }
        })+
    };
}

commands! {
    account => Account;
    contact => Contact;
    personal => Personal;
    service => Service;
}

/// What a subsystem replies.
pub type Replied = Result<Outcome, WireError>;

/// What can be read. Like commands and replies it travels between nodes: variants are append-only.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Query {
    Account(account::Query),
    Contact(contact::Query),
    Chat(chat::Query),
    Personal(personal::Query),
    /// Whether the shard knows a policy of this version or a higher one.
    Policy(u64),
    Hooks(hooks::query::Query),
    Service(service::Query),
    Media(media::Query),
    Search(search::Query),
}

/// What a read gives.
#[derive(Clone, Debug, Encode, Decode)]
pub enum View {
    Account(account::View),
    Contact(contact::View),
    Chat(chat::View),
    /// The state could not be read; the shard reports why.
    Failed,
    Personal(personal::View),
    Known,
    Unknown,
    Hooks(hooks::query::View),
    Service(service::View),
    Media(media::View),
    Search(search::View),
}

/// See the module's documentation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Magpie;

/// The tables of the subsystems.
pub mod table {
    use magpie_cluster::state::table::FIRST_FREE;

    pub const HANDLE: u8 = FIRST_FREE;
    pub const USER: u8 = FIRST_FREE + 1;
    pub const DEVICES: u8 = FIRST_FREE + 2;
    pub const LIST: u8 = FIRST_FREE + 3;
    pub const CONTACTS: u8 = FIRST_FREE + 4;
    pub const CONVERSATION: u8 = FIRST_FREE + 5;
    pub const SENDER: u8 = FIRST_FREE + 6;
    pub const RULES: u8 = FIRST_FREE + 7;
    pub const POLICY: u8 = FIRST_FREE + 8;
    pub const BOOK: u8 = FIRST_FREE + 9;
    pub const PERSONAL: u8 = FIRST_FREE + 10;
    pub const SETTINGS: u8 = FIRST_FREE + 11;
    pub const FAVOURITES: u8 = FIRST_FREE + 12;
    pub const FAVOURITE: u8 = FIRST_FREE + 13;
    pub const PHONE: u8 = FIRST_FREE + 14;
    pub const CLOSING: u8 = FIRST_FREE + 15;
    pub const BLOB: u8 = FIRST_FREE + 48;
    pub const BLOBS_DUE: u8 = FIRST_FREE + 49;
    pub const HOLDING: u8 = FIRST_FREE + 50;
    pub const HOLDINGS: u8 = FIRST_FREE + 51;
    pub const SERVICE_KEYS: u8 = FIRST_FREE + 40;
    pub const SERVICE_SENT: u8 = FIRST_FREE + 41;
    pub const DISABLED: u8 = FIRST_FREE + 42;
    pub const INVITATIONS: u8 = FIRST_FREE + 43;
    pub const INVITATION: u8 = FIRST_FREE + 44;
    pub const ANNOUNCEMENTS: u8 = FIRST_FREE + 45;
    pub const TEST: u8 = u8::MAX;
}

/// How often [`TestCommand::Later`] was carried out.
#[derive(Clone, Encode, Decode)]
struct Later(u64);
impl Record for Later {}

fn count_later(tx: &mut Tx<'_>, entity: EntityId) -> Replied {
    let key = Key::new(entity.slot(), table::TEST).u128(entity.bits());
    let number = tx.get::<Later>(&key).map_or(1, |later| later.0 + 1);
    tx.put(key, Later(number));
    Ok(Outcome::Posted { number, time_ms: tx.time_ms() })
}

/// The user that an entity is.
pub fn user_of(entity: EntityId) -> UserId {
    UserId::from_bits((entity.bits() >> 64) as u64)
}

impl Machine for Magpie {
    type Command = Command;
    type Reply = Replied;
    type Query = Query;
    type View = View;

    fn apply(&self, tx: &mut Tx<'_>, entity: EntityId, command: Command) -> Replied {
        match command {
            Command::Account(command) => account::state::apply(tx, entity, command),
            Command::Contact(command) => contact::state::apply(tx, user_of(entity), command),
            Command::Chat(command) => chat::state::apply(tx, ConversationId::from_bits(entity.bits()), command),
            Command::Personal(command) => personal::state::apply(tx, user_of(entity), command),
            Command::Service(command) => service::state::apply(tx, entity, command),
            Command::Policy(policy) => {
                policy::apply(tx, policy);
                Ok(Outcome::Done)
            }
            Command::Media(command) => media::state::apply(tx, entity, command),
            Command::Test(TestCommand::Panic) => panic!("a test asked apply to panic"),
            Command::Test(TestCommand::Later) => count_later(tx, entity),
        }
    }

    fn query(&self, store: &mut Store, query: Query) -> View {
        let view = match query {
            Query::Account(query) => account::state::query(store, query).map(View::Account),
            Query::Contact(query) => contact::state::query(store, query).map(View::Contact),
            Query::Chat(query) => chat::state::query(store, query).map(View::Chat),
            Query::Personal(query) => personal::state::query(store, query).map(View::Personal),
            Query::Policy(version) => {
                policy::is_known(store, version).map(|known| if known { View::Known } else { View::Unknown })
            }
            Query::Hooks(query) => hooks::query::query(store, query).map(View::Hooks),
            Query::Service(query) => service::state::query(store, query).map(View::Service),
            Query::Media(query) => media::state::query(store, query).map(View::Media),
            Query::Search(query) => search::query::query(store, query).map(View::Search),
        };
        view.unwrap_or_else(|error| {
            store.report(error);
            View::Failed
        })
    }

    fn is_fresh(query: &Query) -> bool {
        // A device that was signed out a moment ago gets in nowhere.
        matches!(query, Query::Account(account::Query::Devices(_)))
    }

    fn level_of(command: &Command) -> u32 {
        match command {
            Command::Test(TestCommand::Later) => LEVEL + 1,
            _ => FIRST_LEVEL,
        }
    }

    fn internal(&self) -> Replied {
        Err(WireError::new(ErrorCode::Internal))
    }
}
