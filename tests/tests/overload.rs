//! A node to which more comes than it can serve. Its disk is slow, so that it can serve a batch each time and no more,
//! on whatever machine this runs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use magpie_client::{Body, ConversationId, ErrorCode, Incarnation, TimelineId};
use magpie_node::Options;
use magpie_protocol::{
    Answer, Request,
    frame::{
        conversation::{Content, Post},
        personal::AddFavourite,
    },
};
use magpie_tests::{
    InProcess,
    faulty::FaultyDisk,
    node::test_config,
    raw::{Key, Net, Raw, entries},
};
use tokio::time::{MissedTickBehavior, interval};

/// People, each with a device and a group of their own: the share of them that is turned away is as fine as that.
const PEOPLE: u8 = 48;
/// What the disk takes for a sync.
const SYNC: Duration = Duration::from_millis(50);
/// Sixteen of them fill a batch.
const TEXT_LEN: usize = 4 * 1024;
/// The node finds out what it can serve, ...
const UNTIL_KNOWN: Duration = Duration::from_secs(5);
/// ... and then it is counted.
const COUNTED: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Chat,
    /// Less important, and as much work.
    Favourite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Served,
    /// With when to come back, in milliseconds.
    Refused(u32),
}

struct Asked {
    kind: Kind,
    at: Instant,
    took: Duration,
    fate: Fate,
}

struct Device {
    raw: Raw,
    group: ConversationId,
    next: u64,
    /// What was acknowledged: its number and the first of what it says.
    acked: BTreeMap<u64, u64>,
    done: Vec<Asked>,
    waiting: BTreeMap<u32, (Kind, Instant, u64)>,
}

impl Device {
    async fn new(net: &Net, at: u8) -> Self {
        let (mut raw, _) = Raw::sign_up(net, &format!("person-{at}"), &Key::new(at)).await;
        let group = raw.group(u128::from(at), "alone", Vec::new()).await;
        let mut device =
            Self { raw, group, next: 1, acked: BTreeMap::new(), done: Vec::new(), waiting: BTreeMap::new() };
        // What they will keep again and again.
        device.ask(Kind::Chat).await;
        device.answered().await;
        device
    }

    /// Each under an incarnation of its own, so that none waits for one that was refused.
    async fn ask(&mut self, kind: Kind) {
        let (conversation, n) = (self.group, self.next);
        self.next += 1;
        let text = format!("{n:016} {}", "x".repeat(TEXT_LEN - 17));
        let request = match kind {
            Kind::Chat => Request::Post(Post {
                conversation,
                incarnation: Incarnation::from_bits(n << 24),
                number: 1,
                content: Content::Text(text),
            }),
            Kind::Favourite => {
                let number = *self.acked.keys().next().unwrap();
                Request::AddFavourite(AddFavourite { conversation, number })
            }
        };
        let at = Instant::now();
        let id = self.raw.send(request).await;
        self.waiting.insert(id, (kind, at, n));
    }

    /// Waits for an answer, whichever comes.
    async fn answered(&mut self) {
        let frame = self.raw.next().await.unwrap();
        let Some((kind, at, n)) = self.waiting.remove(&frame.request.get()) else { return };
        let fate = match frame.body {
            Answer::Posted(posted) => {
                assert_eq!(self.acked.insert(posted.number, n), None, "a number is given once");
                Fate::Served
            }
            Answer::Refused(error) if error.code == ErrorCode::Overloaded => Fate::Refused(error.retry_after_ms),
            Answer::Refused(error) => panic!("{error:?}"),
            _ => Fate::Served,
        };
        self.done.push(Asked { kind, at, took: at.elapsed(), fate });
    }

    /// Asks as fast as answers come, one at a time.
    async fn in_turn(mut self, until: Instant) -> Self {
        while Instant::now() < until {
            self.ask(Kind::Chat).await;
            while !self.waiting.is_empty() {
                self.answered().await;
            }
        }
        self
    }

    /// Asks so often, answered or not; of ten requests so many are chat.
    async fn at_a_rate(mut self, every: Duration, chat_of_ten: u64, until: Instant) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < until || !self.waiting.is_empty() {
            tokio::select! {
                _ = ticks.tick(), if Instant::now() < until => {
                    let kind = if self.next * 7 % 10 < chat_of_ten { Kind::Chat } else { Kind::Favourite };
                    self.ask(kind).await;
                }
                () = self.answered(), if !self.waiting.is_empty() => {}
            }
        }
        self
    }
}

async fn each<F: Future<Output = Device> + Send + 'static>(
    devices: Vec<Device>,
    work: impl Fn(usize, Device) -> F,
) -> Vec<Device> {
    let tasks: Vec<_> = devices.into_iter().enumerate().map(|(at, device)| tokio::spawn(work(at, device))).collect();
    let mut devices = Vec::new();
    for task in tasks {
        devices.push(task.await.unwrap());
    }
    devices
}

/// What came of what was asked since this moment.
struct Account {
    asked: Vec<Asked>,
    /// Served meanwhile, whenever it was asked.
    served: usize,
    long: Duration,
}

impl Account {
    fn take(devices: &mut [Device], since: Instant, long: Duration) -> Self {
        let mut asked: Vec<Asked> = devices.iter_mut().flat_map(|device| device.done.drain(..)).collect();
        let meanwhile = since..since + long;
        let served = |asked: &&Asked| asked.fate == Fate::Served && meanwhile.contains(&(asked.at + asked.took));
        let served = asked.iter().filter(served).count();
        asked.retain(|asked| asked.at >= since);
        Self { asked, served, long }
    }

    fn count(&self, of: impl Fn(&Asked) -> bool) -> usize {
        self.asked.iter().filter(|asked| of(asked)).count()
    }

    /// Served a second.
    fn rate(&self) -> f64 {
        self.served as f64 / self.long.as_secs_f64()
    }

    /// The share of this kind that was served.
    fn share(&self, kind: Kind) -> f64 {
        let served = self.count(|asked| asked.kind == kind && asked.fate == Fate::Served);
        served as f64 / self.count(|asked| asked.kind == kind).max(1) as f64
    }

    /// How long all but one in a hundred of those took that have this fate.
    fn p99(&self, served: bool) -> Duration {
        let of = self.asked.iter().filter(|asked| (asked.fate == Fate::Served) == served);
        let mut took: Vec<Duration> = of.map(|asked| asked.took).collect();
        took.sort_unstable();
        took.get((took.len() * 99 / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: {} asked, {:.0} served a second, p99 {:?}; refused p99 {:?}; chat {:.2}, favourites {:.2}",
            self.asked.len(),
            self.rate(),
            self.p99(true),
            self.p99(false),
            self.share(Kind::Chat),
            self.share(Kind::Favourite),
        );
    }
}

/// Everything that was acknowledged is there, as it was said.
async fn nothing_is_lost(net: &Net, devices: &[Device]) {
    for (at, device) in devices.iter().enumerate() {
        let (mut raw, _) = Raw::sign_in(net, &format!("person-{at}"), &Key::new(at as u8)).await;
        let (mut said, mut after) = (BTreeMap::new(), 0);
        loop {
            let page = raw.pull(TimelineId::Conversation(device.group), after).await.unwrap();
            let Some(last) = entries(&page).last().map(|entry| entry.number) else { break };
            after = last;
            said.extend(entries(&page).into_iter().filter_map(|entry| match entry.body {
                Body::Text(text) => Some((entry.number, text[..16].parse::<u64>().unwrap())),
                _ => None,
            }));
        }
        let lost = device.acked.iter().find(|(number, n)| said.get(number) != Some(n));
        assert_eq!(lost, None, "person {at}");
    }
}

#[tokio::test]
async fn a_node_to_which_too_much_comes_serves_nearly_what_it_can_and_the_important_first() {
    let dir = tempfile::tempdir().unwrap();
    let config = || {
        let mut config = test_config(dir.path());
        config.storage.shards = 1;
        config.gateway.overload_window_ms = 100;
        // Nothing else is to be synced meanwhile.
        config.storage.log_segment_bytes = 64 << 20;
        config.storage.snapshot_bytes_min = 256 << 20;
        config.storage.checkpoint_ms = 60_000;
        config.storage.checkpoint_bytes = 256 << 20;
        config
    };
    let disk = FaultyDisk::new(-1, -1);
    let node = InProcess::start(config(), Options { disk: Arc::new(disk.clone()), ..Options::default() });
    let net = Net::to(&node);
    let mut devices = Vec::new();
    for at in 0..PEOPLE {
        devices.push(Device::new(&net, at).await);
    }
    disk.slow_down(SYNC);

    // Two batches' worth at any moment: as much as it can serve, and nothing has to wait for long.
    let (began, long) = (Instant::now(), Duration::from_secs(2));
    let (busy, idle) = {
        let idle = devices.split_off(32);
        (devices, idle)
    };
    let mut devices = each(busy, |_, device| device.in_turn(began + long)).await;
    devices.extend(idle);
    let account = Account::take(&mut devices, began, long);
    account.print("as much as it can serve");
    let capacity = account.rate();
    assert_eq!(account.count(|asked| asked.fate != Fate::Served), 0, "nothing is turned away without need");

    // Two and a half times as much, a quarter of it chat.
    let every = Duration::from_secs_f64(f64::from(PEOPLE) / (2.5 * capacity));
    let (began, until) = (Instant::now(), Instant::now() + UNTIL_KNOWN + COUNTED);
    let mut devices = each(devices, |_, device| device.at_a_rate(every, 3, until)).await;
    let account = Account::take(&mut devices, began + UNTIL_KNOWN, COUNTED);
    account.print("two and a half times as much");
    let offered = account.asked.len() as f64 / COUNTED.as_secs_f64();
    assert!(offered > 2.0 * capacity, "{offered:.0} a second are not too many for {capacity:.0}");
    assert!(account.rate() > 0.7 * capacity, "{:.0} a second of {capacity:.0} that it can serve", account.rate());
    assert!(account.p99(true) < Duration::from_secs(2), "what is let in is served soon: {:?}", account.p99(true));
    assert!(account.p99(false) < Duration::from_millis(500), "who is refused knows at once: {:?}", account.p99(false));
    let (chat, favourites) = (account.share(Kind::Chat), account.share(Kind::Favourite));
    assert!(
        chat > 0.7 && favourites < 0.5 * chat,
        "chat comes first: {chat:.2} of it, {favourites:.2} of the less important"
    );
    let times = account.asked.iter().filter_map(|asked| match asked.fate {
        Fate::Refused(after_ms) => Some(after_ms),
        Fate::Served => None,
    });
    assert!(times.into_iter().all(|after_ms| (500..=5_000).contains(&after_ms)), "each is told when to come back");

    // When it is over, everybody is let in again.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (began, long) = (Instant::now(), Duration::from_secs(1));
    let every = Duration::from_secs_f64(f64::from(PEOPLE) / (0.5 * capacity));
    let mut devices = each(devices, |_, device| device.at_a_rate(every, 5, began + long)).await;
    let account = Account::take(&mut devices, began, long);
    account.print("half of what it can serve");
    assert_eq!(account.count(|asked| asked.fate != Fate::Served), 0, "nobody is turned away any more");

    let acked: usize = devices.iter().map(|device| device.acked.len()).sum();
    node.crash();
    let node = InProcess::start(config(), Options::default());
    nothing_is_lost(&Net::to(&node), &devices).await;
    println!("{acked} acknowledged messages are there");
    node.stop();
}
