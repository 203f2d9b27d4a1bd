//! Playing a script: people sign up, groups are made, and each group goes through its steps in order.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use magpie_client::{
    Client, Config, ConversationId, Event, Events, History, Network, NetworkConfig, Posted, StorePlace, TimelineId,
    UserId,
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Speed,
    ledger::Ledger,
    report::{Summary, Times},
    script::{GroupScript, Script, Step},
    server::Server,
};

const PASSWORD: &str = "demonstration";
/// People who sign up at a time.
const SIGN_UPS: usize = 64;
/// How long the last messages may take to arrive.
const SETTLE: Duration = Duration::from_secs(60);

struct Device {
    client: Client,
    id: UserId,
}

struct Stage {
    network: Network,
    /// Where devices connect, spread over all of them.
    addresses: Vec<std::net::SocketAddr>,
    signed_up: AtomicUsize,
    ledger: Mutex<Ledger>,
    bar: ProgressBar,
    speed: Speed,
}

impl Stage {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sign_up(&self, handle: &str) -> anyhow::Result<(Device, Events)> {
        let turn = self.signed_up.fetch_add(1, Ordering::Relaxed) % self.addresses.len();
        let (before, from) = self.addresses.split_at(turn);
        let mut nodes = from.iter().chain(before).copied();
        let mut config = Config::new(nodes.next().context("no node")?);
        config.others = nodes.collect();
        config.history = History::None;
        config.ask_timeout = Duration::from_secs(120);
        let (client, events) = Client::open(&self.network, config, StorePlace::Memory)?;
        let me = client.sign_up(handle, PASSWORD).await.with_context(|| format!("{handle} cannot sign up"))?;
        Ok((Device { client, id: me.user }, events))
    }
}

fn bar(len: u64, what: &'static str) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix:>12} {bar:32} {pos}/{len} {elapsed} {msg}")?;
    Ok(ProgressBar::new(len).with_style(style).with_prefix(what))
}

/// Plays the script on so many nodes of its own and says how it went.
pub(super) async fn play(script: &Script, speed: Speed, nodes: u32) -> anyhow::Result<Summary> {
    let dir = tempfile::Builder::new().prefix("magpie-demo-").tempdir()?;
    let server = Server::start(dir.path(), nodes)?;
    let network = Network::new(NetworkConfig::new(server.ca.clone()))?;
    let stage = Arc::new(Stage {
        network,
        addresses: server.addresses.clone(),
        signed_up: AtomicUsize::new(0),
        ledger: Mutex::new(Ledger::new(script.groups.len())?),
        bar: bar(script.messages(), "talking")?,
        speed,
    });
    let devices = sign_up_all(&stage, script).await?;
    let hosts = open_groups(&stage, script).await?;
    let cpu_before = server.cpu_ms()?;
    let began = Instant::now();
    let mut groups = JoinSet::new();
    for (index, ((host, id), group)) in hosts.into_iter().zip(script.groups.iter().cloned()).enumerate() {
        let player = Player { stage: stage.clone(), devices: devices.clone(), host, id, index, acked: 0, sent: 0 };
        groups.spawn(player.run(group));
    }
    let (mut sent, mut acked) = (0, 0);
    while let Some(played) = groups.join_next().await {
        let (group_sent, group_acked) = played?;
        sent += group_sent;
        acked += group_acked;
    }
    let deadline = Instant::now() + SETTLE;
    while !stage.ledger().is_complete() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let wall_s = began.elapsed().as_secs_f64();
    let cpu_ms = server.cpu_ms()? - cpu_before;
    stage.bar.finish_and_clear();
    let ledger = stage.ledger();
    let totals = ledger.totals();
    let summary = Summary {
        users: devices.len(),
        groups: script.groups.len(),
        sent,
        acked,
        delivered: totals.delivered,
        lost: totals.lost,
        duplicated: totals.duplicated,
        reordered: totals.reordered,
        ack_ms: Times::of(&ledger.ack_us),
        delivery_ms: Times::of(&ledger.delivery_us),
        server_cpu_ms_per_message: cpu_ms / sent.max(1) as f64,
        server_cpu_ms_per_delivery: cpu_ms / totals.delivered.max(1) as f64,
        server_peak_rss_mib: server.peak_rss_kib() / 1024,
        wall_s,
        skipped: script.skipped.clone(),
    };
    drop(ledger);
    server.stop()?;
    Ok(summary)
}

async fn sign_up_all(stage: &Arc<Stage>, script: &Script) -> anyhow::Result<Arc<Vec<Device>>> {
    let progress = bar(script.people.len() as u64, "signing up")?;
    let gate = Arc::new(Semaphore::new(SIGN_UPS));
    let mut signing = JoinSet::new();
    for (person, name) in script.people.iter().cloned().enumerate() {
        let (stage, gate, progress) = (stage.clone(), gate.clone(), progress.clone());
        signing.spawn(async move {
            let _place = gate.acquire().await;
            let (device, events) = stage.sign_up(&name).await?;
            tokio::spawn(watch(stage, person, events));
            progress.inc(1);
            anyhow::Ok((person, device))
        });
    }
    let mut devices = Vec::with_capacity(script.people.len());
    while let Some(signed) = signing.join_next().await {
        devices.push(signed??);
    }
    progress.finish_and_clear();
    devices.sort_by_key(|(person, _)| *person);
    Ok(Arc::new(devices.into_iter().map(|(_, device)| device).collect()))
}

/// Each group has a host, who makes it and invites.
async fn open_groups(stage: &Arc<Stage>, script: &Script) -> anyhow::Result<Vec<(Device, ConversationId)>> {
    let mut hosts = Vec::new();
    for (index, group) in script.groups.iter().enumerate() {
        let (host, mut events) = stage.sign_up(&format!("host-of-{index}")).await?;
        tokio::spawn(async move { while events.next().await.is_some() {} });
        let id = host.client.create_group(&group.title, Vec::new()).await?;
        let mut ledger = stage.ledger();
        ledger.open(index, id);
        // Made, and the host joined.
        ledger.group(index).acked(1, None);
        ledger.group(index).acked(2, None);
        drop(ledger);
        hosts.push((host, id));
    }
    Ok(hosts)
}

/// Writes down what a device sees.
async fn watch(stage: Arc<Stage>, person: usize, mut events: Events) {
    while let Some(event) = events.next().await {
        if let Event::Entry { timeline: TimelineId::Conversation(conversation), entry } = event {
            stage.ledger().saw(person, conversation, &entry);
        }
    }
}

struct Player {
    stage: Arc<Stage>,
    devices: Arc<Vec<Device>>,
    host: Device,
    id: ConversationId,
    index: usize,
    sent: u64,
    acked: u64,
}

impl Player {
    /// Goes through the steps, one after the other; returns how many messages were sent and acknowledged.
    async fn run(mut self, group: GroupScript) -> (u64, u64) {
        let mut minute = 0;
        for (at, step) in group.steps {
            if let Speed::Times(times) = self.stage.speed
                && at > minute
            {
                tokio::time::sleep(Duration::from_secs_f64(f64::from(at - minute) * 60.0 / times)).await;
            }
            minute = minute.max(at);
            match step {
                Step::Join(person) => self.join(person).await,
                Step::Leave(person) => self.leave(person).await,
                Step::Say(person, text) => self.say(person, text).await,
            }
        }
        (self.sent, self.acked)
    }

    async fn join(&mut self, person: usize) {
        let user = self.devices[person].id;
        // Who was here before must have seen the end of it: history begins anew with a membership.
        self.wait_for(person).await;
        self.stage.ledger().group(self.index).sending();
        if let Some(posted) = settled(self.host.client.invite(self.id, user)).await {
            let mut ledger = self.stage.ledger();
            ledger.group(self.index).acked(posted.number, None);
            ledger.group(self.index).joined(person, posted.number);
        }
    }

    async fn wait_for(&self, person: usize) {
        let left = self.stage.ledger().group(self.index).last_left(person);
        let deadline = Instant::now() + SETTLE;
        while self.stage.ledger().last_seen(person, self.index) < left && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn leave(&mut self, person: usize) {
        self.stage.ledger().group(self.index).sending();
        if let Some(posted) = settled(self.devices[person].client.leave(self.id)).await {
            let mut ledger = self.stage.ledger();
            ledger.group(self.index).acked(posted.number, None);
            ledger.group(self.index).left(person, posted.number);
        }
    }

    async fn say(&mut self, person: usize, text: String) {
        self.stage.ledger().group(self.index).sending();
        let began = Instant::now();
        self.sent += 1;
        if let Some(posted) = settled(self.devices[person].client.say(self.id, text.clone())).await {
            let mut ledger = self.stage.ledger();
            ledger.ack_us.saturating_record(began.elapsed().as_micros() as u64);
            self.acked += u64::from(ledger.group(self.index).acked(posted.number, Some(&text)));
        }
        self.stage.bar.inc(1);
    }
}

async fn settled(sending: Result<magpie_client::Sending, magpie_client::Error>) -> Option<Posted> {
    let posted = match sending {
        Ok(sending) => sending.posted().await,
        Err(error) => Err(error),
    };
    match posted {
        Ok(posted) => Some(posted),
        Err(error) => {
            tracing::warn!(%error, "a step was refused");
            None
        }
    }
}
