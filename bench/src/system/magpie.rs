//! Magpie, through its SDK.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use magpie_client::{
    Client, Config, ConversationId, Entry, Event, Events, History, Network, NetworkConfig, StorePlace, TimelineId,
    UserId, entry::Body,
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Acknowledged, Everybody, Topology, User, until};
use crate::ledger::Ledger;

pub(crate) const PASSWORD: &str = "load for a node";
/// People who sign up, or rooms that are made, at a time.
const AT_A_TIME: usize = 64;
/// How long a conversation may take to reach its members.
const PATIENCE: Duration = Duration::from_secs(120);

/// The nodes, and what every client of them shares.
#[derive(Clone)]
pub(crate) struct Magpie {
    ca: Vec<u8>,
    /// UDP sockets, which devices use in turn.
    networks: Vec<Network>,
    pub(crate) servers: Vec<SocketAddr>,
}

/// One person with one device.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) client: Client,
    pub(crate) id: UserId,
    pub(crate) handle: String,
    /// How often it has had everything, since it began.
    pub(crate) synced: Arc<AtomicU64>,
}

impl Person {
    /// Breaks the connection; ends when it is back and has everything.
    pub(crate) async fn reconnect(&self, within: Duration) -> anyhow::Result<()> {
        let before = self.synced.load(Ordering::Relaxed);
        self.client.drop_connection();
        let back = until(within, || self.synced.load(Ordering::Relaxed) > before).await;
        ensure!(back, "{} did not come back within {within:?}", self.handle);
        Ok(())
    }
}

struct Member {
    client: Client,
    rooms: HashMap<usize, ConversationId>,
}

impl User for Member {
    fn send(&self, room: usize, text: String) -> Acknowledged {
        let Some(conversation) = self.rooms.get(&room) else {
            return Box::pin(async move { anyhow::bail!("the person is not in room {room}") });
        };
        match self.client.say(*conversation, text) {
            Ok(sending) => Box::pin(async move { sending.posted().await.map(drop).map_err(Into::into) }),
            Err(error) => Box::pin(async move { Err(error.into()) }),
        }
    }

    fn drop_connection(&self) {
        self.client.drop_connection();
    }

    fn device(&self, room: usize) -> Option<(Client, ConversationId)> {
        Some((self.client.clone(), *self.rooms.get(&room)?))
    }
}

/// Runs all of these, so many at a time, and gives their results in order.
pub(crate) async fn all<T: Send + 'static, F>(
    count: usize,
    at_a_time: usize,
    mut work: impl FnMut(usize) -> F,
) -> anyhow::Result<Vec<T>>
where
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let gate = Arc::new(Semaphore::new(at_a_time));
    let mut running = JoinSet::new();
    for index in 0..count {
        let (gate, one) = (gate.clone(), work(index));
        running.spawn(async move {
            let _place = gate.acquire().await;
            anyhow::Ok((index, one.await?))
        });
    }
    let mut done = Vec::with_capacity(count);
    while let Some(one) = running.join_next().await {
        done.push(one??);
    }
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, one)| one).collect())
}

/// Writes down what a client hears; counts how often it had everything.
fn listen(index: usize, mut events: Events, ledger: Ledger) -> Arc<AtomicU64> {
    let synced = Arc::new(AtomicU64::new(0));
    let count = synced.clone();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Event::Entry { timeline: TimelineId::Conversation(_), entry: Entry { body: Body::Text(text), .. } } => {
                    ledger.saw(index, &text)
                }
                Event::Synced => _ = count.fetch_add(1, Ordering::Relaxed),
                _ => {}
            }
        }
    });
    synced
}

impl Magpie {
    /// The nodes at these addresses, whose certificates are signed with this one.
    pub(crate) fn new(servers: Vec<SocketAddr>, ca: Vec<u8>) -> anyhow::Result<Self> {
        ensure!(!servers.is_empty(), "there is no node to connect to");
        let networks = vec![Network::new(NetworkConfig::new(ca.clone()))?];
        Ok(Self { ca, networks, servers })
    }

    /// Lets devices come from so many addresses: a node with several event loops spreads them by that.
    pub(crate) fn spread(&mut self, sockets: usize) -> anyhow::Result<()> {
        while self.networks.len() < sockets {
            self.networks.push(Network::new(NetworkConfig::new(self.ca.clone()))?);
        }
        Ok(())
    }

    /// A device that nobody has signed in on. Devices begin with the nodes in turn, and know all of them.
    pub(crate) fn device(&self, turn: usize) -> anyhow::Result<(Client, Events)> {
        let mut servers = self.servers.clone();
        let count = servers.len();
        servers.rotate_left(turn % count);
        let mut config = Config::new(servers.remove(0));
        config.others = servers;
        config.history = History::None;
        config.ask_timeout = Duration::from_secs(120);
        Ok(Client::open(&self.networks[turn % self.networks.len()], config, StorePlace::Memory)?)
    }

    /// Signs so many people up, under names that no run before used.
    pub(crate) async fn sign_up(&self, count: usize, ledger: &Ledger) -> anyhow::Result<Vec<Person>> {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?.as_micros();
        // Several generators may begin in the same microsecond.
        let run = format!("{now:x}{:x}", std::process::id());
        all(count, AT_A_TIME, |index| {
            let (this, ledger, run) = (self.clone(), ledger.clone(), run.clone());
            async move {
                let (client, events) = this.device(index)?;
                let handle = format!("load-{run}-{index}");
                let me = client.sign_up(&handle, PASSWORD).await?;
                let synced = listen(index, events, ledger);
                Ok(Person { client, id: me.user, handle, synced })
            }
        })
        .await
    }

    /// Makes the rooms; in each, everybody has what was said so far.
    pub(crate) async fn furnish(people: &[Person], rooms: &[Vec<usize>]) -> anyhow::Result<Vec<ConversationId>> {
        all(rooms.len(), AT_A_TIME, |room| {
            let members: Vec<Person> = rooms[room].iter().map(|member| people[*member].clone()).collect();
            async move {
                let conversation = match members.as_slice() {
                    [one, other] => befriend(one, other).await?,
                    [first, others @ ..] => {
                        let others = others.iter().map(|person| person.id).collect();
                        first.client.create_group(&format!("room {room}"), others).await?
                    }
                    [] => anyhow::bail!("room {room} is empty"),
                };
                // It was created, and each of them joined.
                let (timeline, head) = (TimelineId::Conversation(conversation), members.len() as u64 + 1);
                for person in &members {
                    let arrived = until(PATIENCE, || person.client.cursor(timeline) >= head).await;
                    ensure!(arrived, "room {room} did not reach {}", person.handle);
                }
                Ok(conversation)
            }
        })
        .await
    }

    /// Everybody of this topology.
    pub(crate) async fn gather(&self, topology: &Topology, ledger: &Ledger) -> anyhow::Result<Everybody> {
        let people = self.sign_up(topology.users, ledger).await?;
        let conversations = Self::furnish(&people, &topology.rooms).await?;
        let rooms_of = topology.rooms_of();
        let member = |(person, rooms): (Person, Vec<usize>)| -> Arc<dyn User> {
            let rooms = rooms.into_iter().map(|room| (room, conversations[room])).collect();
            Arc::new(Member { client: person.client, rooms })
        };
        Ok(people.into_iter().zip(rooms_of).map(member).collect())
    }
}

async fn befriend(one: &Person, other: &Person) -> anyhow::Result<ConversationId> {
    one.client.request_contact(other.id, "load").await?;
    let mut tries = 0;
    while let Err(error) = other.client.accept_contact(one.id).await {
        tries += 1;
        ensure!(tries < 1000, "a contact request did not arrive: {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(ConversationId::direct(one.id, other.id))
}
