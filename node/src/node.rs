//! A node put together: storage, gateway, admin, and the order in which they start and stop.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use magpie_cluster::{
    Clock, Ending, Fatal, HintSink, Outside, Part, Storage, StorageError,
    consensus::{Leadership, openraft::HEARD_WITHIN},
    disk::{Disk, os::OsDisk},
    transport::{Transport, quic::Underlay},
};
use magpie_protocol::NodeId;
use tokio::task::JoinHandle;

use crate::{
    Config, Magpie,
    account::{actor::Passwords, jwt::IdentityService, token::TokenKey},
    chat::{actor::Conversations, reading::Reading},
    config::Auth,
    gateway::{self, quic::Listener, tls},
    hooks::{Board, Hooks},
    keys::Keys,
    limits,
    loops::{self, Loops},
    machine::MagpieRouter,
    media::{self, Media},
    overload::{Mailboxes, Overload},
    search::Search,
    session::writer::Writer,
    sessions::Sessions,
    watches::Watches,
};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "the data folder {dir} belongs to node {owner}, and this one is {me}: start it as that one, or choose another folder{}",
        folder::advice(.owner, *.me)
    )]
    Foreign { dir: String, owner: String, me: NodeId },
    #[error(transparent)]
    Media(#[from] media::store::StoreError),
    #[error("the identity service cannot sign people in: {0}")]
    IdentityService(String),
    #[error("the data folder {0} is in use by another process")]
    InUse(String),
}

/// The other nodes of a cluster.
pub struct Others {
    /// This node.
    pub me: NodeId,
    /// Its part in the cluster.
    pub part: Part,
    pub transport: Arc<dyn Transport>,
}

/// The name of a node that is alone.
pub(crate) const ALONE: NodeId = NodeId::new(1, 1);

/// What a node is started with besides its configuration. The defaults are the real things.
pub struct Options {
    pub disk: Arc<dyn Disk>,
    pub clock: Clock,
    /// Called when the node can no longer keep its promises. The default says why and ends the process.
    pub fatal: Fatal,
    /// Keep the state in memory; it is rebuilt at each start.
    pub state_in_memory: bool,
    /// Threads for the log, the checkpoints and the passwords. A simulation has none.
    pub threads: bool,
    /// What devices come in over, where it is not a socket of the system.
    pub underlay: Option<Underlay>,
    /// The other nodes; none for a node that is alone.
    pub others: Option<Others>,
    /// What the build can do; a test may claim that it is a newer one.
    pub level: u32,
    /// How long a leader serves reads after it last heard of a majority. A test puts a bug back with it.
    pub serve_within: Duration,
    /// For tests: while set, hints are lost between shard and sessions.
    pub drop_hints: Arc<AtomicBool>,
}

/// The exit code of a node whose storage, or a socket for devices, failed.
pub const EXIT_FAILED: i32 = 74;
/// The exit code of a node whose build cannot do what the cluster does: it must be upgraded.
pub const EXIT_TOO_OLD: i32 = 76;
/// The exit code of a node that the cluster does not take: it was removed, or what its id had promised is lost.
pub const EXIT_TURNED_AWAY: i32 = 77;

impl Default for Options {
    fn default() -> Self {
        let since = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        Self {
            disk: Arc::new(OsDisk),
            clock: Arc::new(since),
            fatal: Fatal::by_kind(|ending, why| {
                tracing::error!("{why}");
                let (code, then) = match ending {
                    Ending::Failed => (EXIT_FAILED, "start it again when the cause is gone"),
                    Ending::TooOld => (EXIT_TOO_OLD, "nothing is lost: start a newer build on its data folder"),
                    Ending::TurnedAway => (EXIT_TURNED_AWAY, "the cluster goes on without it"),
                };
                tracing::error!("the node ends here; {then}");
                std::process::exit(code);
            }),
            state_in_memory: false,
            threads: true,
            underlay: None,
            others: None,
            level: magpie_cluster::system::LEVEL,
            serve_within: HEARD_WITHIN,
            drop_hints: Arc::default(),
        }
    }
}

/// What sessions share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) router: MagpieRouter,
    pub(crate) sessions: Sessions,
    pub(crate) watches: Arc<Watches>,
    pub(crate) passwords: Passwords,
    /// Who signs people in instead of passwords.
    pub(crate) identity_service: Option<IdentityService>,
    pub(crate) token_key: TokenKey,
    pub(crate) limits: limits::Shared,
    pub(crate) reading: Reading,
    pub(crate) clock: Clock,
    pub(crate) overload: Arc<Overload>,
    pub(crate) hooks: Hooks,
    pub(crate) media: Arc<Media>,
    pub(crate) search: Search,
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    storage: Storage<Magpie>,
    conversations: Arc<Conversations>,
    listener: Listener,
    writers: Vec<Writer>,
    tasks: Vec<JoinHandle<()>>,
    started: Instant,
    ready: Arc<AtomicBool>,
    /// What lives in them ends before the folder is another's.
    loops: Loops,
    _lock: Option<std::fs::File>,
}

/// What a node says of itself.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Status {
    pub agent: String,
    pub ready: bool,
    /// This node, and those that it is connected to.
    pub node: String,
    pub connected: Vec<String>,
    /// What is wrong, of each part that is not as it should be.
    pub problems: Vec<String>,
    pub uptime_s: u64,
    pub sessions: usize,
    pub watched_timelines: usize,
    pub active_conversations: usize,
    pub free_bytes: u64,
    pub shards: Vec<ShardStatus>,
}

/// What a node says of one of its shards.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ShardStatus {
    pub shard: String,
    /// Which node leads it, if that is known, and since which term.
    pub leader: Option<String>,
    pub term: u64,
    /// Whether that is this node.
    pub leads: bool,
    pub applied_index: u64,
    /// How far behind the leader this replica may be, in milliseconds; null when it has not heard of one.
    pub lag_ms: Option<u64>,
    pub quarantined_entities: usize,
    pub problem: Option<String>,
}

impl Node {
    /// Starts a node. Must be called on a `LocalSet`, where its actors then live.
    pub async fn start(config: Config, options: Options) -> Result<Self, NodeError> {
        let dir = &config.node.data_dir;
        let lock = folder::lock(dir)?;
        let disk = folder::claim(dir, options.others.as_ref().map_or(ALONE, |others| others.me))?;
        let keys = Keys::of(&config, options.others.is_some());
        let tls = tls::server_config(&keys, &config.gateway.names)?;
        let token_key = TokenKey::open(&keys.token)?;
        let mailboxes = Arc::new(Mailboxes::default());
        let passwords = Passwords::start(&config.accounts, options.threads, &mailboxes)?;
        let identity_service = match config.accounts.auth {
            Auth::Password => None,
            Auth::Jwt => Some(IdentityService::open(&config.jwt).map_err(NodeError::IdentityService)?),
        };
        let media = Arc::new(Media::open(&config.media, dir, options.others.is_none(), !options.threads)?);
        let mut stored = stored::storage_config(&config, &options, disk);
        let loops = Loops::start(match config.node.loops {
            // A simulation has one thread.
            _ if !options.threads => 1,
            0 => loops::of_use(),
            count => count,
        })?;
        let runtimes = loops.runtimes();
        let listener = Listener::bind(&config.gateway, tls, &tls::reset_key(dir)?, options.underlay, &runtimes)?;
        stored.part.devices = config.gateway.advertised().ok().flatten().or(listener.address().ok());
        let clock = options.clock.clone();
        let transport = options.others.map(|others| others.transport);
        let (disk, fatal) = (options.disk, options.fatal);
        let outside = Outside { disk, clock: clock.clone(), fatal: fatal.clone(), transport, loops: runtimes };
        let storage = Storage::open(&stored, outside, || Magpie).await?;
        let router = storage.router().clone();
        let watches = Arc::new(Watches::new(clock.clone(), options.drop_hints));
        watches.set_router(router.clone());
        let sink: Arc<dyn HintSink> = watches.clone();
        router.set_sink(&sink);
        let search = Search::start(&config.search, dir, options.threads, router.system().clone(), clock.clone())?;
        let receivers = Board::default();
        let (conversations, start_actors) = Conversations::new(
            config.limits.clone(),
            clock.clone(),
            search.clone(),
            mailboxes.clone(),
            receivers.clone(),
        );
        let conversations = Arc::new(conversations);
        router.set_front(conversations.clone());
        let limits = limits::Shared::new(&config.limits);
        let overload = Arc::new(Overload::new(&config.gateway, mailboxes));
        router.set_admission(overload.clone());
        let (hooks, telling) =
            Hooks::start(&config.hooks, options.threads, &router, storage.shards(), &clock, &receivers)?;
        let shared = Arc::new(Shared {
            config,
            router,
            sessions: Sessions::default(),
            watches: watches.clone(),
            passwords,
            identity_service,
            token_key,
            limits,
            reading: Reading::default(),
            clock,
            overload: overload.clone(),
            hooks,
            media: media.clone(),
            search: search.clone(),
        });
        let sweeping = conversations.clone();
        let ready = Arc::new(AtomicBool::new(true));
        let mut tasks = telling;
        tasks.extend([
            tokio::task::spawn_local(start_actors),
            tokio::spawn(drain::shed_sessions(shared.clone())),
            tokio::spawn(chores::run(shared.clone())),
            tokio::spawn(search.keep_clean(storage.shards().to_vec())),
            {
                let (router, clock) = (shared.router.clone(), shared.clock.clone());
                tokio::spawn(async move { media.sweep(router, clock).await })
            },
            tokio::spawn(overload.clone().watch(shared.router.clone())),
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    watches.look_after();
                    sweeping.sweep();
                }
            }),
        ]);
        let writers = gateway::open(&listener, &loops, &shared, &ready, &fatal);
        let counted = shared.clone();
        shared.router.pulse().set_sessions(move || counted.sessions.len());
        let started = Instant::now();
        let lock = Some(lock);
        Ok(Self { shared, storage, conversations, listener, writers, tasks, started, ready, loops, _lock: lock })
    }

    /// Where devices connect.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.address()
    }

    /// What the kernel gave the socket: bytes to receive and to send.
    pub fn socket_buffers(&self) -> (usize, usize) {
        self.listener.buffers
    }

    /// The way to every entity, for what runs in this process.
    pub fn router(&self) -> &MagpieRouter {
        &self.shared.router
    }

    /// Its shards.
    pub fn storage(&self) -> &Storage<Magpie> {
        &self.storage
    }

    /// A view of the node that admin may keep.
    pub fn observer(&self) -> Observer {
        Observer {
            shared: self.shared.clone(),
            shards: self.storage.shards().to_vec(),
            conversations: self.conversations.clone(),
            started: self.started,
            ready: self.ready.clone(),
        }
    }

    /// Stops in order: tell devices to come back later, apply what was accepted, write everything down.
    pub async fn stop(self) -> Result<(), NodeError> {
        self.ready.store(false, Ordering::Relaxed);
        self.listener.refuse_new();
        self.shared.sessions.stopping(1_000);
        let deadline = Instant::now() + Duration::from_secs(3);
        while self.listener.open_connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.conversations.stop();
        self.end_tasks();
        self.listener.close(Duration::from_secs(1)).await;
        self.storage.stop().await?;
        Ok(())
    }

    /// Stops at once and writes nothing more, as a crash would. For tests.
    pub async fn crash(self) {
        self.ready.store(false, Ordering::Relaxed);
        self.end_tasks();
        self.conversations.stop();
        self.storage.crash();
        self.listener.close(Duration::from_millis(100)).await;
    }

    fn end_tasks(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.loops.abort();
        self.writers.iter().for_each(Writer::stop);
        self.shared.search.stop();
    }
}

mod chores;
mod drain;
pub(crate) mod folder;
mod shared;
mod stored;

/// What admin sees of a node. Clones share it.
#[derive(Clone)]
pub struct Observer {
    shared: Arc<Shared>,
    shards: Vec<magpie_cluster::Shard<Magpie>>,
    conversations: Arc<Conversations>,
    started: Instant,
    ready: Arc<AtomicBool>,
}

impl Observer {
    /// The token that admin requests must carry; empty for none.
    pub fn admin_token(&self) -> &str {
        &self.shared.config.admin.token
    }

    /// The way to every entity, and what is known of the cluster.
    pub fn router(&self) -> &MagpieRouter {
        &self.shared.router
    }

    /// The node's clock, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        (self.shared.clock)()
    }

    /// The folder of everything that the node keeps.
    pub fn data_dir(&self) -> &Path {
        &self.shared.config.node.data_dir
    }

    /// What the node says of itself.
    pub fn status(&self) -> Status {
        let mut shards = Vec::new();
        let mut problems = Vec::new();
        for shard in self.shards.iter().filter(|shard| shard.is_hosted()) {
            let problem = shard.health().err();
            problems.extend(problem.iter().map(|p| format!("{}: {p}", shard.id())));
            let Leadership { leader, term, leads } = shard.leadership();
            shards.push(ShardStatus {
                shard: shard.id().to_string(),
                leader: leader.map(|node| node.to_string()),
                term,
                leads,
                applied_index: shard.applied_index(),
                lag_ms: shard.lag().map(|lag| lag.as_millis() as u64),
                quarantined_entities: shard.quarantined(),
                problem,
            });
        }
        match self.shared.router.system().now() {
            None => problems.push("the cluster has not taken this node in yet: see its log".to_owned()),
            Some(system) => {
                let missing = |shard: &&magpie_cluster::Shard<Magpie>| {
                    !shard.is_hosted() && system.holds(self.shared.router.me(), shard.id())
                };
                let missing = self.shards.iter().filter(missing).count();
                if missing > 0 {
                    problems.push(format!("{missing} shards are not started yet"));
                }
            }
        }
        if self.shared.is_draining() {
            problems.push("the node is being drained: it takes no sessions".to_owned());
        }
        if !self.ready.load(Ordering::Relaxed) {
            problems.push("the node takes no devices: it is stopping".to_owned());
        }
        Status {
            agent: crate::AGENT.to_owned(),
            ready: problems.is_empty(),
            node: self.shared.router.me().to_string(),
            connected: self.shared.router.connected().iter().map(ToString::to_string).collect(),
            problems,
            uptime_s: self.started.elapsed().as_secs(),
            sessions: self.shared.sessions.len(),
            watched_timelines: self.shared.watches.len(),
            active_conversations: self.conversations.len(),
            free_bytes: self.shards.first().map_or(0, magpie_cluster::Shard::free_bytes),
            shards,
        }
    }
}
