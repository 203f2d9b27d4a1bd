//! What an operator says to everybody: a notice in each inbox.
//!
//! The slots are cut into chains. A command tells some people of one slot, and sends itself on through the outbox, to the
//! next people or to the next slot: so that no command is large, and that it goes on after whatever befalls nodes.

use bincode::{Decode, Encode};
use magpie_cluster::{EntityId, Key as StateKey, Record, Store, Tx, state::StateError};
use magpie_protocol::{Body, ErrorCode, Slot, TimelineId, UserId, WireError, ids::SLOTS};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    command::Command,
    state::{keys_entity, keys_slot},
};
use crate::{
    account,
    machine::{self, Outcome, Replied, table},
};

/// People that one command tells.
const AT_ONCE: usize = 128;
/// Slots of a chain.
const CHAIN: u16 = 64;
/// Announcements under way at a time, and those that are remembered.
const UNDER_WAY_MAX: usize = 8;
const KEPT_MAX: usize = 64;

/// What was said to everybody, without the words.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Announcement {
    pub id: u128,
    hash: u64,
    pub begun_ms: u64,
    /// When all had it, in milliseconds since 1970; 0 before.
    pub done_ms: u64,
    /// People in whose inbox it is, as far as chains have said so.
    pub told: u64,
    /// Chains that go on.
    pub chains: u32,
}

#[derive(Clone, Default, Encode, Decode)]
struct Announcements(Vec<Announcement>);
impl Record for Announcements {
    fn heap_bytes(&self) -> usize {
        self.0.len() * size_of::<Announcement>()
    }
}

fn key() -> StateKey {
    StateKey::new(keys_slot(), table::ANNOUNCEMENTS)
}

fn send(tx: &mut Tx<'_>, to: EntityId, command: Command) {
    tx.send(to, &machine::Command::Service(command));
}

/// Begins one.
pub(super) fn begin(tx: &mut Tx<'_>, id: u128, text: &str) -> Replied {
    let mut all = (*tx.get::<Announcements>(&key()).unwrap_or_default()).clone();
    let hash = xxh3_64(text.as_bytes());
    if let Some(known) = all.0.iter().find(|known| known.id == id) {
        let reused = || WireError::field(ErrorCode::IdReused, "text", "this id was used for something else");
        return if known.hash == hash { Ok(Outcome::Done) } else { Err(reused()) };
    }
    let under_way = all.0.iter().filter(|known| known.done_ms == 0).count();
    if under_way >= UNDER_WAY_MAX {
        let detail = format!("{under_way} are on their way; wait until one has reached everybody");
        return Err(WireError::field(ErrorCode::LimitReached, "text", detail).at(UNDER_WAY_MAX));
    }
    if all.0.len() >= KEPT_MAX
        && let Some(oldest) = all.0.iter().position(|known| known.done_ms > 0)
    {
        all.0.remove(oldest);
    }
    let (begun_ms, chains) = (tx.time_ms(), u32::from(SLOTS / CHAIN));
    all.0.push(Announcement { id, hash, begun_ms, done_ms: 0, told: 0, chains });
    tx.put(key(), all);
    for first in (0..SLOTS).step_by(usize::from(CHAIN)) {
        let chain = Command::AnnounceIn { id, text: text.to_owned(), after: None, last: first + CHAIN - 1, told: 0 };
        send(tx, EntityId::handle(Slot::new(first)), chain);
    }
    Ok(Outcome::Done)
}

/// Tells some people of a slot, and goes on.
pub(super) fn go_on(
    tx: &mut Tx<'_>,
    slot: Slot,
    (id, text): (u128, String),
    after: Option<UserId>,
    last: u16,
    mut told: u64,
) -> Replied {
    let people = account::state::people_of(tx, slot, after, AT_ONCE);
    for user in &people {
        if account::state::is_lived_in(tx, *user) {
            tx.append(TimelineId::Inbox(*user), UserId::default(), Body::Notice(text.clone()), 0, None);
            told += 1;
        }
    }
    let (to, next) = match people.last().filter(|_| people.len() == AT_ONCE) {
        Some(user) => (slot, Command::AnnounceIn { id, text, after: Some(*user), last, told }),
        None if slot.get() < last => {
            (Slot::new(slot.get() + 1), Command::AnnounceIn { id, text, after: None, last, told })
        }
        None => {
            send(tx, keys_entity(), Command::Announced { id, told });
            return Ok(Outcome::Done);
        }
    };
    send(tx, EntityId::handle(to), next);
    Ok(Outcome::Done)
}

/// A chain has come to its end.
pub(super) fn end(tx: &mut Tx<'_>, id: u128, told: u64) -> Replied {
    let mut all = (*tx.get::<Announcements>(&key()).unwrap_or_default()).clone();
    let now = tx.time_ms();
    if let Some(known) = all.0.iter_mut().find(|known| known.id == id) {
        known.told += told;
        known.chains = known.chains.saturating_sub(1);
        if known.chains == 0 {
            known.done_ms = now;
        }
        tx.put(key(), all);
    }
    Ok(Outcome::Done)
}

/// Those that are remembered, the oldest first.
pub(super) fn list(store: &mut Store) -> Result<Vec<Announcement>, StateError> {
    Ok(store.get::<Announcements>(&key())?.map(|all| all.0.clone()).unwrap_or_default())
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let one = Announcement { id: 1, hash: 2, begun_ms: 3, done_ms: 4, told: 5, chains: 6 };
    vec![Golden::coded("record.service.announcements", &Announcements(vec![one]))]
}

#[cfg(test)]
mod tests {
    use magpie_protocol::DeviceId;

    use super::*;
    use crate::{
        account::command::NewDevice,
        one_shard::OneShard,
        service::{Query, View},
    };

    async fn person(shard: &OneShard, slot: Slot, n: u64) -> UserId {
        let (user, handle) = (UserId::in_slot(slot, n), format!("p{}-{n}", slot.get()));
        let device = NewDevice { device: DeviceId::from_bits(n), public_key: [1; 32], name: "phone".into() };
        let sign_up = account::Command::SignUp { handle, user, password_hash: "x".into(), device };
        shard.hurry(EntityId::handle(slot), sign_up).await.unwrap();
        user
    }

    async fn notices(shard: &OneShard, user: UserId) -> u64 {
        let query = machine::Query::Account(account::Query::List(user));
        let machine::View::Account(account::View::List { inbox, .. }) = shard.read(user.slot(), query).await else {
            panic!("no list");
        };
        inbox
    }

    async fn known(shard: &OneShard) -> Vec<Announcement> {
        match shard.read(keys_slot(), machine::Query::Service(Query::Announcements)).await {
            machine::View::Service(View::Announcements(all)) => all,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn everybody_hears_it_once_a_part_at_a_time() {
        let shard = OneShard::start().await;
        let mut people = Vec::new();
        // More in one slot than one command tells, the first and the last of all, and of a chain.
        for n in 1..=300 {
            people.push(person(&shard, Slot::new(70), n).await);
        }
        for slot in [0, 63, 64, 4095] {
            people.push(person(&shard, Slot::new(slot), 7).await);
        }
        let service = UserId::in_slot(Slot::new(9), 1);
        let make = Command::MakeAccount { handle: "shop".into(), user: service };
        shard.hurry(EntityId::handle(Slot::new(9)), make).await.unwrap();
        let say = |id, text: &str| Command::Announce { id, text: text.to_owned() };
        shard.ask(keys_entity(), say(1, "we move house")).await.unwrap();
        shard.ask(keys_entity(), say(1, "we move house")).await.unwrap();
        let other = shard.ask(keys_entity(), say(1, "we do not")).await.unwrap_err();
        assert_eq!(other.code, ErrorCode::IdReused);
        for user in &people {
            assert_eq!(notices(&shard, *user).await, 1, "{user}");
        }
        assert_eq!(notices(&shard, service).await, 0, "nobody is there");
        let all = known(&shard).await;
        assert_eq!((all.len(), all[0].told, all[0].chains), (1, people.len() as u64, 0));
        assert!(all[0].done_ms > 0);
        shard.ask(keys_entity(), say(2, "we are here")).await.unwrap();
        assert_eq!(notices(&shard, people[0]).await, 2);
    }

    #[tokio::test]
    async fn no_more_go_on_at_a_time_than_are_allowed() {
        let shard = OneShard::start().await;
        let mut refused = 0;
        for id in 0..20 {
            let said = shard.hurry(keys_entity(), Command::Announce { id, text: "again".into() }).await;
            refused += usize::from(said.is_err_and(|error| error.code == ErrorCode::LimitReached));
        }
        assert!((1..=12).contains(&refused), "{refused}");
    }
}
