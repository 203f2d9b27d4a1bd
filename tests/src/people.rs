//! People to talk: the real SDK, with what each device saw.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use magpie_client::{
    Client, Config, ConversationId, Entry, Error, Event, Me, Network, NetworkConfig, Sending, StorePlace, TimelineId,
    UserId, WireError, entry::Body,
};

use crate::until;

/// The password of everybody.
pub const PASSWORD: &str = "correct horse";

/// A node to connect to.
#[derive(Clone)]
pub struct Place {
    pub network: Network,
    pub server: SocketAddr,
    /// Other nodes of its cluster.
    pub others: Vec<SocketAddr>,
    /// How long devices wait for an answer before they take the connection for lost.
    pub request_timeout: Duration,
}

impl Place {
    /// The node at this address, trusted by this certificate.
    pub fn new(server: SocketAddr, ca: Vec<u8>) -> Self {
        match Network::new(NetworkConfig::new(ca)) {
            Ok(network) => {
                let (others, request_timeout) = (Vec::new(), Config::new(server).request_timeout);
                Self { network, server, others, request_timeout }
            }
            Err(error) => panic!("no network: {error}"),
        }
    }
}

/// What a device saw: of each timeline its entries in the order of their coming.
#[derive(Default)]
pub struct Seen {
    pub entries: BTreeMap<TimelineId, Vec<Entry>>,
    pub events: Vec<String>,
}

/// One device of one person.
pub struct Person {
    pub client: Client,
    pub id: UserId,
    pub name: String,
    seen: Arc<Mutex<Seen>>,
}

impl Person {
    fn open(place: &Place, store: StorePlace) -> (Client, Arc<Mutex<Seen>>) {
        let mut config = Config::new(place.server);
        config.request_timeout = place.request_timeout;
        config.others.clone_from(&place.others);
        let (client, mut events) = match Client::open(&place.network, config, store) {
            Ok(opened) => opened,
            Err(error) => panic!("the store does not open: {error}"),
        };
        let seen = Arc::new(Mutex::new(Seen::default()));
        let noted = seen.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Event::Entry { timeline, entry } => seen.entries.entry(timeline).or_default().push(entry),
                    other => seen.events.push(format!("{other:?}")),
                }
            }
        });
        (client, seen)
    }

    /// A device that signs in as this does, with a store in memory.
    pub async fn by(place: &Place, enter: impl AsyncFnOnce(&Client) -> Result<Me, Error>) -> Result<Self, Error> {
        let (client, seen) = Self::open(place, StorePlace::Memory);
        let me = enter(&client).await?;
        Ok(Self { client, id: me.user, name: me.handle, seen })
    }

    /// Signs a new person up, with a store in memory.
    pub async fn new(place: &Place, name: &str) -> Self {
        Self::new_at(place, name, StorePlace::Memory).await
    }

    /// Signs a new person up, with this store.
    pub async fn new_at(place: &Place, name: &str, store: StorePlace) -> Self {
        let (client, seen) = Self::open(place, store);
        match client.sign_up(name, PASSWORD).await {
            Ok(me) => Self { client, id: me.user, name: name.to_owned(), seen },
            Err(error) => panic!("{name} cannot sign up: {error}"),
        }
    }

    /// Signs another device of a person in.
    pub async fn another(place: &Place, name: &str) -> Self {
        Self::another_at(place, name, StorePlace::Memory).await
    }

    /// Signs another device of a person in, with this store.
    pub async fn another_at(place: &Place, name: &str, store: StorePlace) -> Self {
        let (client, seen) = Self::open(place, store);
        match client.sign_in(name, PASSWORD).await {
            Ok(me) => Self { client, id: me.user, name: name.to_owned(), seen },
            Err(error) => panic!("{name} cannot sign in: {error}"),
        }
    }

    /// Opens a store again and resumes with its token.
    pub async fn back(place: &Place, store: StorePlace) -> Self {
        let (client, seen) = Self::open(place, store);
        match client.resume().await {
            Ok(me) => Self { client, id: me.user, name: me.handle, seen },
            Err(error) => panic!("cannot resume: {error}"),
        }
    }

    /// What the device saw so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries of a conversation that the device saw.
    pub fn entries(&self, conversation: ConversationId) -> Vec<Entry> {
        self.seen().entries.get(&TimelineId::Conversation(conversation)).cloned().unwrap_or_default()
    }

    /// The texts among them, in order.
    pub fn texts(&self, conversation: ConversationId) -> Vec<String> {
        let text = |entry: Entry| match entry.body {
            Body::Text(text) => Some(text),
            _ => None,
        };
        self.entries(conversation).into_iter().filter_map(text).collect()
    }

    /// Says something and waits for the acknowledgement; returns its number.
    pub async fn say(&self, conversation: ConversationId, text: &str) -> u64 {
        let sent = match self.client.say(conversation, text) {
            Ok(sending) => sending.posted().await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(posted) => posted.number,
            Err(error) => panic!("{} cannot say {text:?}: {error}", self.name),
        }
    }

    /// Does something in a conversation and waits for the outcome.
    pub async fn act(&self, sending: Result<Sending, magpie_client::Error>) -> Result<u64, WireError> {
        match sending {
            Ok(sending) => match sending.posted().await {
                Ok(posted) => Ok(posted.number),
                Err(magpie_client::Error::Refused(error)) => Err(error),
                Err(error) => panic!("{}: {error}", self.name),
            },
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    /// The last entries of the inbox that `pick` picks, waited for.
    pub async fn inbox<T>(&self, what: &str, pick: impl Fn(&Body) -> Option<T>) -> T {
        let inbox = TimelineId::Inbox(self.id);
        let found = std::cell::Cell::new(None);
        let what = format!("{} finds {what} in the inbox", self.name);
        until(&what, Duration::from_secs(10), async || {
            let entries = self.seen().entries.get(&inbox).cloned().unwrap_or_default();
            let picked = entries.iter().rev().find_map(|entry| pick(&entry.body));
            let there = picked.is_some();
            found.set(picked);
            there
        })
        .await;
        match found.take() {
            Some(found) => found,
            None => panic!("{what}"),
        }
    }

    /// Waits until the device holds the conversation up to this number.
    pub async fn has(&self, conversation: ConversationId, number: u64, within: Duration) {
        let what = format!("{} has {conversation} up to {number}", self.name);
        let timeline = TimelineId::Conversation(conversation);
        until(&what, within, async || self.client.cursor(timeline) >= number).await;
        until(&what, within, async || self.entries(conversation).last().is_some_and(|e| e.number >= number)).await;
    }

    /// Panics unless the device saw each of its entries once, in order, without gaps after the first.
    pub fn assert_in_order(&self, conversation: ConversationId) {
        let numbers: Vec<u64> = self.entries(conversation).iter().map(|e| e.number).collect();
        let ordered = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
        assert!(ordered, "{}: entries are not once and in order: {numbers:?}", self.name);
    }
}

/// Makes two people contacts; returns their conversation, on which both devices are.
pub async fn befriend(a: &Person, b: &Person) -> ConversationId {
    let asked = a.client.request_contact(b.id, "hello").await;
    assert!(asked.is_ok(), "{asked:?}");
    until("the request is accepted", Duration::from_secs(20), async || b.client.accept_contact(a.id).await.is_ok())
        .await;
    let conversation = ConversationId::direct(a.id, b.id);
    a.has(conversation, 3, Duration::from_secs(20)).await;
    b.has(conversation, 3, Duration::from_secs(20)).await;
    conversation
}
