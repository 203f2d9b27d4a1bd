//! A node's storage put together: disk, log, state, shards, and what runs beside them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use magpie_protocol::{NodeId, ShardId};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    Clock, Fatal, Router, ShardMap,
    consensus::{Pace, ProposeError, SnapshotFile},
    disk::Disk,
    log::{LogError, LogLimits, LogWriter, Recovered, ShardLog, segments::Segments},
    machine::Machine,
    remote::{Host, Remote, RemoteSink},
    router::RouterParts,
    shard::{NodeParts, Shard, ShardLimits, ShardParts, apply::too_high, cut, hosting},
    snapshot::{self, SnapshotError},
    state::{StateBase, StateError, Store, memory::MemoryBase, sled::SledDb},
    system::{
        Change, DiskId, Registration, SYSTEM_SHARD, System, SystemView,
        founding::{self, Part, Taking},
        pulse::Pulse,
        steward,
    },
    transport::Transport,
    work::Background,
};

/// Where and how a node stores.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// The folder of log, snapshots and state.
    pub dir: PathBuf,
    /// This node.
    pub node: NodeId,
    /// Drawn when its data folder was made.
    pub disk: DiskId,
    /// Its part in a cluster.
    pub part: Part,
    /// A node that is silent for this long is given up: its replicas are made anew elsewhere.
    pub lost_after: Duration,
    /// How often the replicas of a shard are compared.
    pub audit_every: Duration,
    /// Bytes a second, at most, that this node sends to replicas that were away.
    pub catch_up_bytes: u64,
    /// How long a leader serves reads after it last heard of a majority: less than it takes to elect another. Only a
    /// test of tests says something else.
    pub serve_within: Duration,
    /// What this build can do: [`system::LEVEL`](crate::system::LEVEL). Only a test says something else.
    pub level: u32,
    /// How many shards; fixed when the cluster is created.
    pub shards: u16,
    /// Keep the state in memory instead of sled; it is rebuilt at each start.
    pub state_in_memory: bool,
    /// Write the log and the checkpoints on threads of their own. A simulation has none: there each write is done,
    /// and durable, before the call returns.
    pub threads: bool,
    /// sled's own cache, in bytes.
    pub sled_cache_bytes: u64,
    pub log: LogLimits,
    pub shard: ShardLimits,
}

/// What a node's storage is given from outside.
pub struct Outside {
    pub disk: Arc<dyn Disk>,
    pub clock: Clock,
    pub fatal: Fatal,
    /// The way to the other nodes; none for a node that is alone.
    pub transport: Option<Arc<dyn Transport>>,
    /// Where shards run: each in one of these, in turn. None where all of them run where storage is opened.
    pub loops: Vec<Handle>,
}

/// Why storage does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("{0}")]
    Consensus(#[from] ProposeError),
    #[error("{0}")]
    Inconsistent(String),
    #[error("{0}")]
    TooOld(String),
}

/// A node's storage, running.
pub struct Storage<M: Machine> {
    router: Router<M>,
    shards: Vec<Shard<M>>,
    writer: LogWriter,
    background: Background,
    sled: Option<SledDb>,
    transport: Option<Arc<dyn Transport>>,
    tasks: Vec<JoinHandle<()>>,
}

impl<M: Machine> Storage<M> {
    /// Opens everything and recovers. A node that is alone returns when every shard leads and has applied its log; one
    /// of several, which needs the way to the others, at once. Must be called in a tokio runtime, where its tasks then
    /// live.
    pub async fn open(config: &StorageConfig, outside: Outside, machine: impl Fn() -> M) -> Result<Self, StorageError> {
        let Outside { disk, clock, fatal, transport, mut loops } = outside;
        if loops.is_empty() {
            loops.push(Handle::current());
        }
        let log_dir = config.dir.join("log");
        let snapshot_dir = config.dir.join("snapshots");
        let (segments, mut found) = Segments::open(disk.clone(), &log_dir, config.log)?;
        let (writer, background) = match config.threads {
            true => (LogWriter::start(segments, fatal.clone())?, Background::start()?),
            false => (LogWriter::inline(segments, fatal.clone())?, Background::inline()),
        };
        let sled = match config.state_in_memory {
            true => None,
            false => Some(SledDb::open(&config.dir.join("state"), config.sled_cache_bytes)?),
        };
        let map = ShardMap::even(config.shards);
        disk.create_dir(&snapshot_dir)?;
        cut::forget_all(&disk, &snapshot_dir)?;
        let system = SystemView::default();
        if let Some(known) = founding::load(&disk, &config.dir)? {
            if known.level > config.level {
                return Err(StorageError::TooOld(too_high(&"the cluster", known.level, config.level)));
            }
            system.offer(known);
        }
        let node = NodeParts {
            clock: clock.clone(),
            fatal: fatal.clone(),
            background: background.clone(),
            disk: disk.clone(),
            snapshot_dir: snapshot_dir.clone(),
            transport: transport.clone(),
            level: config.level,
            serve_within: config.serve_within,
            astray: Arc::default(),
            pace: Pace::new(config.catch_up_bytes),
        };
        let mut shards = Vec::new();
        for id in (0..config.shards).map(ShardId::new) {
            let recovered = found.remove(&id).unwrap_or_default();
            let base: Arc<dyn StateBase> = match &sled {
                Some(db) => Arc::new(db.shard(id)?),
                None => Arc::new(MemoryBase::default()),
            };
            let leaving = hosting::was_leaving(&disk, &snapshot_dir, id)?;
            if leaving {
                hosting::wipe(&disk, &snapshot_dir, id, &*base)?;
            }
            let snapshot = if leaving { None } else { restore(&disk, &snapshot_dir, id, &recovered, &*base)? };
            let log = ShardLog::new(id, disk.clone(), log_dir.clone(), writer.clone(), recovered);
            if leaving {
                let (done, forgotten) = tokio::sync::oneshot::channel();
                hosting::forget(&log, Box::new(move || _ = done.send(())));
                forgotten.await.map_err(std::io::Error::other)?;
                hosting::has_left(&disk, &snapshot_dir, id)?;
            }
            shards.push(Shard::new(ShardParts {
                id,
                me: config.node,
                map: map.clone(),
                limits: config.shard,
                machine: machine(),
                store: Store::new(base, config.shard.cache_bytes),
                log,
                system: system.clone(),
                snapshot,
                node: node.clone(),
                runtime: loops[usize::from(id.get()) % loops.len()].clone(),
            })?);
        }
        if let Some((shard, _)) = found.into_iter().find(|(_, r)| !r.entries.is_empty()) {
            let what = format!("the log holds entries of {shard}, but the configuration says {} shards", config.shards);
            return Err(StorageError::Inconsistent(what));
        }
        let pulse = Pulse::new(clock, node.astray, config);
        let router = Router::new(RouterParts {
            me: config.node,
            map,
            shards: shards.clone(),
            remote: transport.clone().map(|transport| Remote::new(transport, system.clone())),
            system,
            disk: config.disk,
            pulse: pulse.clone(),
        });
        let mut tasks = Vec::new();
        for shard in &shards {
            tasks.push(shard.spawn(shard.clone().drive()));
            tasks.push(shard.spawn(shard.clone().deliver_outbox(router.clone())));
            tasks.push(shard.spawn(shard.clone().keep_checkpoints()));
            tasks.push(shard.spawn(shard.clone().watch_leader()));
            tasks.push(shard.spawn(shard.clone().serve_reads()));
            tasks.push(shard.spawn(shard.clone().keep_audits()));
            tasks.push(shard.spawn(shard.clone().keep_level()));
        }
        for (first, runtime) in loops.iter().enumerate() {
            // Where they are applied: what is counted has been handed on then.
            let beating: Vec<_> = shards.iter().skip(first).step_by(loops.len()).cloned().collect();
            tasks.push(runtime.spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    beating.iter().for_each(Shard::beat);
                    beating.iter().for_each(Shard::forget_old_cut);
                }
            }));
        }
        match &transport {
            Some(transport) => {
                for shard in &shards {
                    let transport = transport.clone();
                    shard.0.sinks.set_elsewhere(move |node| Arc::new(RemoteSink::new(transport.clone(), node)));
                }
                transport.set_service(Arc::new(Host::new(router.clone())));
                let (router, transport, part) = (router.clone(), transport.clone(), config.part.clone());
                let (dir, level) = (config.dir.clone(), config.level);
                let taking = Taking { router: router.clone(), transport, part, disk, dir, fatal, level };
                tasks.push(tokio::spawn(taking.run()));
                tasks.push(tokio::spawn(pulse.run(router.clone())));
                tasks.push(tokio::spawn(steward::run(router)));
            }
            None => begin_alone(&router, config.part.address).await?,
        }
        Ok(Self { router, shards, writer, background, sled, transport, tasks })
    }

    /// The way to every entity.
    pub fn router(&self) -> &Router<M> {
        &self.router
    }

    /// Every shard.
    pub fn shards(&self) -> &[Shard<M>] {
        &self.shards
    }

    /// Refuses new commands, applies what was accepted, writes everything down, and stops what runs.
    pub async fn stop(self) -> Result<(), StorageError> {
        // At once: without the other replicas each takes as long as it may.
        join_all(self.shards.iter().map(|shard| shard.spawn(shard.clone().drain()))).await;
        if let Some(transport) = &self.transport {
            transport.stop().await;
        }
        self.tasks.iter().for_each(JoinHandle::abort);
        // One may be in the middle of something, in another loop.
        join_all(self.tasks).await;
        self.background.stop();
        for shard in &self.shards {
            shard.checkpoint_now();
        }
        self.writer.stop();
        if let Some(sled) = &self.sled {
            sled.close()?;
        }
        self.shards.iter().for_each(Shard::let_go);
        Ok(())
    }

    /// Stops what runs without writing anything more, as a crash would. For tests.
    pub fn crash(self) {
        for task in &self.tasks {
            task.abort();
        }
        for shard in &self.shards {
            shard.spawn(shard.end_group());
        }
        if let Some(transport) = self.transport {
            tokio::spawn(async move { transport.stop().await });
        }
        self.background.stop();
        self.writer.stop();
        self.shards.iter().for_each(Shard::let_go);
    }
}

/// Leads every shard, with everything applied that the log holds.
async fn begin_alone<M: Machine>(router: &Router<M>, address: Option<SocketAddr>) -> Result<(), StorageError> {
    let me = router.me();
    for shard in router.all_shards() {
        shard.host().await?;
    }
    let groups: Vec<_> = router.all_shards().iter().filter_map(Shard::group).collect();
    let begun = groups.iter().map(async |group| {
        match group.members().voters.len() {
            0 => group.found([me].into()).await,
            // There is nobody to wait for.
            1 => group.stand().await,
            others => Err(ProposeError::Stopped(format!(
                "it has {others} replicas, and this node is started without a way to the others: section [cluster]"
            ))),
        }
    });
    futures_util::future::try_join_all(begun).await?;
    for (shard, group) in router.all_shards().iter().zip(&groups) {
        shard.lead_at_last(&**group).await?;
    }
    if router.system().now().is_none() {
        let address = address.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let mut system = System::found(founding::new_id(), BTreeMap::from([(me, address)]), router.shards());
        system.nodes.values_mut().for_each(|member| member.disk = Some(router.disk()));
        let founded = router.at_leader(crate::remote::Request::Change(SYSTEM_SHARD, Change::Found(system)));
        founded.await.map_err(|error| StorageError::Inconsistent(error.to_string()))?;
    }
    raise_alone(router).await
}

/// What this build can do is what the whole cluster can.
async fn raise_alone<M: Machine>(router: &Router<M>) -> Result<(), StorageError> {
    let (me, level) = (router.me(), router.pulse().level());
    let Some(system) = router.system().now() else { return Ok(()) };
    if system.level > level {
        return Err(StorageError::TooOld(too_high(&"the cluster", system.level, level)));
    }
    let Some(member) = system.nodes.get(&me).filter(|_| system.level < level) else { return Ok(()) };
    let (address, zone, devices) = (member.address, member.zone.clone(), member.devices);
    let facts = Registration { address, zone, level, devices };
    for change in [Change::Register { node: me, disk: router.disk(), token: None, facts }, Change::Raise { level }] {
        let changed = router.change(change).await.map_err(|error| StorageError::Inconsistent(error.to_string()))?;
        if let Err(refusal) = changed {
            tracing::warn!(%refusal, "the feature level stays as it is");
        }
    }
    Ok(())
}

/// Brings a shard's base to where the log can take over: as it is, from a snapshot, or empty. Returns the newest
/// snapshot.
fn restore(
    disk: &Arc<dyn Disk>,
    dir: &std::path::Path,
    shard: ShardId,
    log: &Recovered,
    base: &dyn StateBase,
) -> Result<Option<SnapshotFile>, StorageError> {
    let purged = log.purged.map_or(0, |p| p.index);
    let last = log.entries.last().map_or(purged, |(p, _)| p.index);
    let first = log.entries.first().map_or(purged + 1, |(p, _)| p.index);
    let newest = match snapshot::list(disk, dir, shard)?.pop() {
        Some((_, path)) => Some(SnapshotFile { applied: snapshot::read_meta(disk, &path)?, path }),
        None => None,
    };
    let held = base.applied().index();
    let received = newest.as_ref().map_or(0, |file| file.applied.index());
    // A snapshot of another replica may reach beyond this one's log.
    if held > last.max(received) {
        return Err(StorageError::Inconsistent(format!(
            "{shard}: the state holds entry {held}, but the log ends at {last}: acknowledged entries are missing from \
             the log. Nothing is served: restore the log, or remove the data folder and rejoin under a new node id"
        )));
    }
    if first > purged + 1 {
        return Err(StorageError::Inconsistent(format!(
            "{shard}: the log begins at {first}, but ends its gap at {purged}"
        )));
    }
    if held >= purged && held >= received {
        return Ok(newest);
    }
    match &newest {
        Some(file) if received >= purged => {
            tracing::info!(%shard, index = received, "rebuilding the state from its snapshot and the log");
            snapshot::load(disk, &file.path, base)?;
            Ok(newest)
        }
        _ => Err(StorageError::Inconsistent(format!(
            "{shard}: the log begins behind entry {purged}, but there is no snapshot that reaches it in {}",
            dir.display()
        ))),
    }
}
