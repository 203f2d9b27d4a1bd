//! Many devices that talk without pause in pairs and groups, and are held to the ledger at the end.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use magpie_client::{ConversationId, Entry, TimelineId, UserId};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;

use crate::{
    Person, Place,
    ledger::{Counts, Ledger},
    people::befriend,
    until,
};

/// Patience for what must come in the end.
const LONG: Duration = Duration::from_secs(120);
/// Sends that each device has open at a time.
const TALKERS: usize = 2;

/// Who is there.
pub struct Shape {
    /// Neighbours 0 and 1, 2 and 3, ... have a conversation of their own.
    pub people: usize,
    /// So many of them have a second device.
    pub second_devices: usize,
    /// Each is a group of these people.
    pub groups: Vec<Range<usize>>,
}

struct Device {
    number: usize,
    person: Person,
    conversations: Vec<ConversationId>,
}

/// See the module.
pub struct Crowd {
    place: Place,
    devices: Vec<Arc<Device>>,
    conversations: Vec<ConversationId>,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    talkers: JoinSet<()>,
}

async fn talk(device: Arc<Device>, ledger: Arc<Ledger>, stop: Arc<AtomicBool>, seed: u64, pause: Duration) {
    let mut rng = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let conversation = device.conversations[rng.random_range(0..device.conversations.len())];
        let filler = if rng.random_ratio(1, 20) { 2000 } else { rng.random_range(0..120) };
        let (id, sending) = ledger.say(device.number, &device.person, conversation, filler);
        ledger.resolve(id, sending.posted().await.map(|posted| posted.number));
        // People pause between messages; without it a crowd would measure this machine's speed.
        tokio::time::sleep(pause.mul_f64(rng.random::<f64>())).await;
    }
}

impl Crowd {
    /// Signs everybody up and in, and makes their conversations.
    pub async fn gather(place: &Place, shape: &Shape) -> Self {
        let mut people = Vec::new();
        for i in 0..shape.people {
            people.push((Person::new(place, &format!("person{i}")).await, Vec::new()));
        }
        let mut conversations = Vec::new();
        for i in (1..shape.people).step_by(2) {
            let conversation = befriend(&people[i - 1].0, &people[i].0).await;
            people[i - 1..=i].iter_mut().for_each(|(_, of)| of.push(conversation));
            conversations.push(conversation);
        }
        for range in &shape.groups {
            let members = people[range.clone()].iter().skip(1).map(|(person, _)| person.id).collect();
            match people[range.start].0.client.create_group("a crowd", members).await {
                Ok(group) => {
                    people[range.clone()].iter_mut().for_each(|(_, of)| of.push(group));
                    conversations.push(group);
                }
                Err(error) => panic!("no group: {error}"),
            }
        }
        for i in 0..shape.second_devices {
            let of = people[i].1.clone();
            people.push((Person::another(place, &format!("person{i}")).await, of));
        }
        let device = |(number, (person, conversations))| Arc::new(Device { number, person, conversations });
        let devices: Vec<_> = people.into_iter().enumerate().map(device).collect();
        for device in &devices {
            let knows = |c: &ConversationId| device.person.client.cursor(TimelineId::Conversation(*c)) >= 3;
            until("everybody knows their conversations", LONG, async || device.conversations.iter().all(knows)).await;
        }
        let (ledger, stop) = (Arc::default(), Arc::default());
        Self { place: place.clone(), devices, conversations, ledger, stop, talkers: JoinSet::new() }
    }

    /// Lets every device send all the time, with pauses of up to this long.
    pub fn talk(&mut self, seed: u64, pause: Duration) {
        assert!(self.talkers.is_empty(), "they are talking already");
        self.stop = Arc::default();
        for device in &self.devices {
            for talker in 0..TALKERS {
                let seed = seed ^ ((device.number * TALKERS + talker) as u64) << 32;
                let (ledger, stop) = (self.ledger.clone(), self.stop.clone());
                self.talkers.spawn(talk(device.clone(), ledger, stop, seed, pause));
            }
        }
    }

    /// What was sent so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The ledger in numbers.
    pub fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    /// Every conversation.
    pub fn conversations(&self) -> &[ConversationId] {
        &self.conversations
    }

    /// Everybody, once for each device.
    pub fn people(&self) -> Vec<UserId> {
        self.devices.iter().map(|device| device.person.id).collect()
    }

    /// Every device's person, and the conversations that the crowd began with and it is in.
    pub fn everybody(&self) -> impl Iterator<Item = (&Person, &[ConversationId])> {
        self.devices.iter().map(|device| (&device.person, device.conversations.as_slice()))
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Waits until so many more sends are acknowledged.
    pub async fn acked_more(&self, more: usize) {
        let before = self.counts().acked;
        let what = format!("{more} more messages are acknowledged");
        until(&what, LONG, async || self.counts().acked >= before + more).await;
    }

    /// Ends the talking and waits until every send is resolved.
    pub async fn fall_silent(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let all = async { while self.talkers.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(LONG, all).await;
        assert!(ended.is_ok(), "sends are still open: {:?}", self.counts());
    }

    /// Panics unless every send was acknowledged and every device, those here and fresh ones, tells the same
    /// story as the ledger. Returns how many texts were delivered.
    pub async fn check(&self) -> usize {
        let counts = self.counts();
        assert_eq!((counts.acked, counts.open), (counts.sends, 0), "{:?}", self.ledger.refusals());
        let mut delivered = 0;
        for device in &self.devices {
            delivered += self.check_device(&device.person, &device.conversations, true).await;
        }
        for device in self.devices.iter().step_by(8) {
            let fresh = Person::another(&self.place, &device.person.name).await;
            self.check_device(&fresh, &device.conversations, false).await;
        }
        delivered
    }

    async fn check_device(&self, person: &Person, conversations: &[ConversationId], events: bool) -> usize {
        let heads = self.ledger.heads();
        let mut delivered = 0;
        for &conversation in conversations {
            let timeline = TimelineId::Conversation(conversation);
            let head = heads.get(&conversation).copied().unwrap_or(0);
            let what = format!("{} holds {conversation} up to {head}", person.name);
            until(&what, LONG, async || person.client.cursor(timeline) >= head).await;
            let entries = history(person, conversation);
            self.ledger.check(conversation, &person.name, &entries);
            delivered += entries.len();
            // Whose app did not keep up was told so, and reads the history instead.
            if events && !person.seen().events.iter().any(|event| event == "Lagged") {
                until(&what, LONG, async || person.entries(conversation).len() >= entries.len()).await;
                assert_eq!(person.entries(conversation), entries, "{}: the events of {conversation}", person.name);
            }
        }
        delivered
    }
}

/// A conversation as a device's store has it.
pub fn history(person: &Person, conversation: ConversationId) -> Vec<Entry> {
    match person.client.history(conversation, 0, u32::MAX) {
        Ok(entries) => entries,
        Err(error) => panic!("{} has no history: {error}", person.name),
    }
}
