//! What leaves Magpie: notices for people who are away, webhooks, and the question before a message is taken.
//!
//! Push and webhooks follow each shard's feed on its leader ([`runner`]): [`push`] says whom to wake, [`event`] what is
//! told, [`folded`] what is left of it when a receiver is away for too long, [`post`] is how it is sent. [`before`] asks
//! a service, or the list of [`words`], before a message is submitted. [`query`] is what all of it reads of the state,
//! [`everywhere`] what operators ask of all nodes.

pub mod before;
pub mod event;
pub mod everywhere;
pub mod folded;
pub mod post;
pub mod push;
pub mod query;
pub mod runner;
pub mod words;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bincode::{Decode, Encode};
use magpie_cluster::Clock;
use magpie_protocol::{NodeId, ShardId};
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

use crate::{Magpie, config, machine::MagpieRouter};
use before::Before;
use post::{PostConfig, Poster};
use query::Act;
use runner::{Backlog, Runner};

/// What a receiver is for.
#[derive(Debug)]
pub enum Role {
    /// Notices for people who are away.
    Push { preview_chars: usize },
    /// Events of these families.
    Webhook { families: Vec<String> },
}

#[derive(Debug, Default)]
struct Health {
    taken: u64,
    failed: u64,
    dropped: u64,
    failures_in_a_row: u32,
    last_taken: Option<Instant>,
    last_error: Option<(String, u64)>,
}

/// Somebody who is told.
pub struct Receiver {
    /// Its name, also as a follower of shards.
    pub name: &'static str,
    pub role: Role,
    /// Items that may wait in one shard before events are folded.
    pub backlog_max: u64,
    url: String,
    poster: Poster,
    clock: Clock,
    retry_for_ms: u64,
    health: Mutex<Health>,
    kick: Notify,
    drops: AtomicU64,
    backlogs: Vec<Arc<Mutex<Option<Backlog>>>>,
}

impl Receiver {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time.
    pub fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Whether something of this time is told no more.
    pub fn is_over(&self, time_ms: u64) -> bool {
        time_ms.saturating_add(self.retry_for_ms) < self.now_ms()
    }

    /// These were given up.
    pub fn note_dropped(&self, events: u64) {
        self.health().dropped += events;
        metrics::counter!(crate::metrics::HOOKS_DROPPED, "receiver" => self.name).increment(events);
    }

    /// Whether something was taken within this time.
    pub fn took_since(&self, within: Duration) -> bool {
        self.health().last_taken.is_some_and(|at| at.elapsed() < within)
    }

    /// One try. True when the receiver took it.
    pub async fn tell(&self, id: &str, body: Vec<u8>) -> bool {
        let answered = self.poster.post(&self.url, id, self.now_ms() / 1000, body).await;
        let why = match answered {
            Ok(answered) if answered.is_taken() => {
                let mut health = self.health();
                (health.taken, health.failures_in_a_row) = (health.taken + 1, 0);
                health.last_taken = Some(Instant::now());
                drop(health);
                metrics::counter!(crate::metrics::HOOKS_TOLD, "receiver" => self.name).increment(1);
                return true;
            }
            Ok(answered) => format!("status {}", answered.status),
            Err(why) => why,
        };
        metrics::counter!(crate::metrics::HOOKS_FAILED, "receiver" => self.name).increment(1);
        let now = self.now_ms();
        let mut health = self.health();
        (health.failed, health.failures_in_a_row) = (health.failed + 1, health.failures_in_a_row + 1);
        if health.failures_in_a_row == 1 {
            tracing::warn!(
                receiver = self.name,
                error = why,
                "a hook's receiver does not take an event; it is tried again"
            );
        }
        health.last_error = Some((why, now));
        false
    }

    /// Somebody asks for everything to be tried again now.
    pub async fn kicked(&self) {
        self.kick.notified().await;
    }

    /// How often an operator dropped what waits.
    pub fn drops(&self) -> u64 {
        self.drops.load(Ordering::Relaxed)
    }

    /// How it is on this node, with what waits in one of the shards that it leads.
    fn status(&self, node: NodeId, shard: ShardId) -> ReceiverStatus {
        let backlog = self.backlogs.get(usize::from(shard.get()));
        let backlog = backlog.and_then(|backlog| *backlog.lock().unwrap_or_else(PoisonError::into_inner));
        let seen = backlog.unwrap_or_default();
        let health = self.health();
        ReceiverStatus {
            receiver: self.name.to_owned(),
            node: node.to_string(),
            shards: usize::from(backlog.is_some()),
            waiting: seen.waiting,
            collapsed: seen.folded_events,
            collapsed_into: seen.folded_subjects as u64,
            oldest_ms: seen.oldest_ms,
            lost: seen.lost,
            told: health.taken,
            failed: health.failed,
            dropped: health.dropped,
            last_error: health.last_error.as_ref().map(|(why, _)| why.clone()),
            last_error_ms: health.last_error.as_ref().map(|(_, at)| *at),
        }
    }

    /// Tries everything again now, or drops everything that waits, in the shards that this node leads.
    fn act(&self, act: Act) {
        if act == Act::Drop {
            self.drops.fetch_add(1, Ordering::Relaxed);
        }
        self.kick.notify_waiters();
    }
}

/// A receiver, as one node sees it: of the shards that it leads. Fields are append-only: it travels between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
pub struct ReceiverStatus {
    /// `push` or `webhook`.
    pub receiver: String,
    /// Who tells it.
    pub node: String,
    /// Shards that this node follows for it.
    pub shards: usize,
    /// Entries that are not told yet.
    pub waiting: u64,
    /// Events that wait as one for each person, and how many those are.
    pub collapsed: u64,
    pub collapsed_into: u64,
    /// The time of the oldest that waits, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// Entries that were forgotten because too many waited.
    pub lost: u64,
    /// Events that it took, tries that failed, events that were given up after a day.
    pub told: u64,
    pub failed: u64,
    pub dropped: u64,
    pub last_error: Option<String>,
    pub last_error_ms: Option<u64>,
}

impl ReceiverStatus {
    /// Adds what waits in another shard that the same node leads.
    pub fn add(&mut self, other: &Self) {
        self.shards += other.shards;
        self.waiting += other.waiting;
        self.collapsed += other.collapsed;
        self.collapsed_into += other.collapsed_into;
        self.lost += other.lost;
        self.oldest_ms = self.oldest_ms.into_iter().chain(other.oldest_ms).min();
    }
}

/// The receivers of a node, for who asks the leader of a shard. Clones share it.
#[derive(Clone, Default)]
pub struct Board(Arc<OnceLock<(NodeId, Vec<Arc<Receiver>>)>>);

impl Board {
    /// The answer to what is no state.
    pub fn view(&self, query: &query::Query) -> Option<query::View> {
        let query::Query::Receivers { shard, act } = query else { return None };
        let (node, receivers) = self.0.get()?;
        if let Some((name, act)) = act {
            receivers.iter().filter(|receiver| receiver.name == name).for_each(|receiver| receiver.act(*act));
        }
        let all = receivers.iter().map(|receiver| receiver.status(*node, *shard));
        Some(query::View::Receivers(all.collect()))
    }
}

/// The hooks of a node.
pub struct Hooks {
    /// What is asked before a message is taken.
    pub before: Before,
}

/// Tasks of the hooks.
pub type Tasks = Vec<JoinHandle<()>>;

impl Hooks {
    /// Starts what is configured. Without threads nothing is told to anybody.
    pub fn start(
        config: &config::Hooks,
        threads: bool,
        router: &MagpieRouter,
        shards: &[magpie_cluster::Shard<Magpie>],
        clock: &Clock,
        board: &Board,
    ) -> std::io::Result<(Self, Tasks)> {
        let (mut receivers, mut tasks) = (Vec::new(), Tasks::new());
        let (preview_chars, families) = (config.preview_chars, config.webhook_events.clone());
        let wanted = [
            ("push", &config.push_url, Role::Push { preview_chars }),
            ("webhook", &config.webhook_url, Role::Webhook { families }),
        ];
        for (name, url, role) in wanted {
            if url.is_empty() || !threads {
                tasks.extend(shards.iter().map(|shard| tokio::spawn(no_more(shard.clone(), name))));
                continue;
            }
            let post = PostConfig {
                connections: config.connections,
                timeout: Duration::from_millis(config.timeout_ms),
                secrets: config.secrets(),
            };
            let receiver = Arc::new(Receiver {
                name,
                role,
                backlog_max: config.backlog_items,
                url: url.clone(),
                poster: Poster::start(&post, &post::trust(&config.trust)?)?,
                clock: clock.clone(),
                retry_for_ms: config.retry_for_s * 1000,
                health: Mutex::default(),
                kick: Notify::new(),
                drops: AtomicU64::new(0),
                backlogs: shards.iter().map(|_| Arc::default()).collect(),
            });
            for (shard, backlog) in shards.iter().zip(&receiver.backlogs) {
                let (shard, backlog) = (shard.clone(), backlog.clone());
                let runner = Runner { shard, router: router.clone(), receiver: receiver.clone(), backlog };
                tasks.push(tokio::spawn(runner.run()));
            }
            receivers.push(receiver);
        }
        _ = board.0.set((router.me(), receivers));
        Ok((Self { before: Before::start(config, threads, clock)? }, tasks))
    }
}

/// Where nobody is told any more, nothing is fed: each time that this node begins to lead the shard.
async fn no_more(shard: magpie_cluster::Shard<Magpie>, name: &'static str) {
    let mut leadership = shard.follow_leadership();
    while leadership.wait_for(|now| now.leads).await.is_ok() {
        if matches!(shard.cursor(name), Ok(Some(_))) {
            tracing::info!(shard = %shard.id(), receiver = name, "no such hook is configured any more: the shard forgets it");
            _ = shard.unfollow(name).await;
        }
        if leadership.wait_for(|now| !now.leads).await.is_err() {
            return;
        }
    }
}
