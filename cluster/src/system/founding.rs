//! How a node comes to take part: it founds the cluster with the others that the configuration names, or finds one
//! that is there and registers, and from then on holds what the record says.
//!
//! A node that votes must still have what it promised. So the record binds each id to one data folder: the first that
//! comes under it. Another folder under the same id is refused, and so is a second founding: the node with the lowest
//! id founds, once all of those named have said that they know of no cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use magpie_protocol::{NodeId, ShardId, codec};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::{Change, DiskId, Refusal, Registration, SYSTEM_SHARD, System, SystemView};
use crate::{
    Fatal, Machine, Router,
    consensus::ProposeError,
    disk::{Disk, write_whole},
    remote::Request,
    shard::apply::too_high,
    transport::Transport,
};

/// Pause before others are asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// How often a node that waits says so.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How long a node that was removed has to hear of it.
const PARTING: Duration = Duration::from_millis(300);

/// What a node is told of the cluster by its configuration.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Where other nodes reach this one.
    pub address: Option<SocketAddr>,
    /// What fails together with this node.
    pub zone: String,
    /// Where devices reach it.
    pub devices: Option<SocketAddr>,
    /// The nodes that a new cluster begins with, this one among them; of a cluster that is there, some to ask.
    pub nodes: BTreeMap<NodeId, SocketAddr>,
    /// What `magpie admin expect` gave: the node joins a cluster that is there, and founds none.
    pub token: Option<String>,
}

/// Why a node does not take part.
enum Out {
    Refused(Refusal),
    TooOld(String),
    Failed(String),
}

impl From<Refusal> for Out {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a token hashes to.
pub fn token_hash(token: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().unwrap_or([0; 32])
}

/// What a new cluster is told from others by; never 0.
pub fn new_id() -> u64 {
    let mut bytes = [0; 8];
    let drawn = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    debug_assert!(drawn.is_ok(), "the system gives no random numbers");
    u64::from_le_bytes(bytes).max(1)
}

fn file(dir: &Path) -> PathBuf {
    dir.join("cluster")
}

/// What this node knew of the cluster when it last ran.
pub(crate) fn load(disk: &Arc<dyn Disk>, dir: &Path) -> std::io::Result<Option<System>> {
    if !disk.list(dir)?.iter().any(|name| name == "cluster") {
        return Ok(None);
    }
    let bytes = disk.read(&file(dir))?;
    let whole = bytes.split_last_chunk::<8>().filter(|(body, sum)| xxh3_64(body) == u64::from_le_bytes(**sum));
    let system = whole.and_then(|(body, _)| codec::decode_stored(body).ok());
    if system.is_none() {
        tracing::warn!(file = %file(dir).display(), "what was known of the cluster does not check out: asking the others");
    }
    Ok(system)
}

fn save(disk: &Arc<dyn Disk>, dir: &Path, system: &System) -> std::io::Result<()> {
    let mut bytes = codec::encode(system);
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    write_whole(disk, &file(dir), &bytes)
}

/// A node on its way into the cluster, and in it.
pub(crate) struct Taking<M: Machine> {
    pub(crate) router: Router<M>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) part: Part,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) fatal: Fatal,
    /// What this build can do.
    pub(crate) level: u32,
}

impl<M: Machine> Taking<M> {
    fn view(&self) -> &SystemView {
        self.router.system()
    }

    fn me(&self) -> NodeId {
        self.router.me()
    }

    /// Whether the record says that this node, with this data folder, takes part.
    fn is_in(&self, system: &System) -> bool {
        system.nodes.get(&self.me()).is_some_and(|member| member.disk == Some(self.router.disk()))
    }

    /// Takes part, as long as the node runs.
    pub(crate) async fn run(self) {
        let others = self.part.nodes.iter().filter(|(node, _)| **node != self.me());
        self.transport.set_peers(others.map(|(node, address)| (*node, *address)).collect());
        if let Some(known) = self.view().now() {
            self.meet(&known);
        }
        if let Err(refusal) = self.come_in().await {
            return self.end(refusal.into());
        }
        let mut system = self.view().follow();
        let register = self.register();
        tokio::pin!(register);
        let mut registered = false;
        loop {
            let Some(now) = system.borrow_and_update().clone() else { return };
            if let Err(out) = self.follow(&now).await {
                return self.end(out);
            }
            tokio::select! {
                changed = system.changed() => if changed.is_err() { return },
                result = &mut register, if !registered => match result {
                    Ok(()) => registered = true,
                    Err(refusal) => return self.end(refusal.into()),
                },
            }
        }
    }

    fn end(&self, out: Out) {
        match out {
            Out::Refused(refusal @ Refusal::TooOld { .. }) => self.fatal.too_old(&refusal.to_string()),
            Out::Refused(refusal) => self.fatal.turned_away(&refusal.to_string()),
            Out::TooOld(why) => self.fatal.too_old(&why),
            Out::Failed(why) => self.fatal.report(&why),
        }
    }

    /// Returns when the record has this node in it.
    async fn come_in(&self) -> Result<(), Refusal> {
        let mut say = Instant::now() + SAY_EVERY;
        loop {
            if Instant::now() >= say {
                say += SAY_EVERY;
                let connected: Vec<String> = self.router.connected().iter().map(ToString::to_string).collect();
                let wanted: Vec<String> = self.part.nodes.keys().map(ToString::to_string).collect();
                tracing::warn!(
                    ?connected,
                    ?wanted,
                    "waiting for the cluster: a new one begins when all of its nodes are there, one that is there must expect this node (magpie admin expect)"
                );
            }
            match self.view().now() {
                Some(system) if self.is_in(&system) => return Ok(()),
                Some(system) => {
                    self.meet(&system);
                    self.register().await?;
                }
                None => self.found_or_find().await,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Asks the others; founds the cluster when it is this node's turn.
    async fn found_or_find(&self) {
        let others: Vec<NodeId> = self.part.nodes.keys().copied().filter(|node| *node != self.me()).collect();
        let greeted = others.iter().map(|node| async {
            let disk = self.router.ask_node(*node, Request::Greet).await.and_then(|response| response.greeting());
            disk.ok().map(|disk| (*node, disk))
        });
        let mut disks: BTreeMap<NodeId, DiskId> =
            futures_util::future::join_all(greeted).await.into_iter().flatten().collect();
        // Whoever knew a cluster has said so with the answer.
        let first = self.part.nodes.keys().next() == Some(&self.me());
        if self.view().now().is_some() || self.part.token.is_some() || !first {
            return;
        }
        disks.insert(self.me(), self.router.disk());
        if !self.part.nodes.keys().all(|node| disks.contains_key(node)) {
            return;
        }
        let mut system = System::found(new_id(), self.part.nodes.clone(), self.router.shards());
        for (node, member) in &mut system.nodes {
            member.disk = disks.get(node).copied();
        }
        if let Err(error) = save(&self.disk, &self.dir, &system) {
            return self.fatal.report(&format!("the founding of the cluster cannot be written down: {error}"));
        }
        tracing::info!(nodes = system.nodes.len(), shards = system.shards.len(), "a new cluster begins");
        self.view().offer(system);
    }

    /// Tells the cluster that this node has started.
    async fn register(&self) -> Result<(), Refusal> {
        loop {
            let address = self.part.address.or_else(|| Some(self.view().now()?.nodes.get(&self.me())?.address));
            let Some(address) = address else { return Err(Refusal::Unknown(self.me())) };
            let (zone, devices) = (self.part.zone.clone(), self.part.devices);
            let facts = Registration { address, zone, level: self.level, devices };
            let token = self.part.token.as_deref().map(token_hash);
            let register = Change::Register { node: self.me(), disk: self.router.disk(), token, facts };
            match self.router.change(register).await {
                Ok(Ok(())) => return Ok(()),
                // Nobody listens to a node that was removed.
                Err(_) if self.view().now().is_some_and(|now| is_removed(&now, self.me())) => {
                    return Err(Refusal::Removed(self.me()));
                }
                Ok(Err(Refusal::NotFounded)) | Err(_) => tokio::time::sleep(AGAIN).await,
                Ok(Err(refusal)) => return Err(refusal),
            }
        }
    }

    /// Connects to the nodes of the record.
    fn meet(&self, system: &System) {
        let mut peers = system.peers();
        // What this node's own configuration says of an address wins: nodes may be reached differently from here, or
        // have all moved while none could tell. Until the record has this node, only those named there know it.
        let (named, is_in) = (self.part.nodes.iter(), self.is_in(system));
        let named: Vec<_> = named.filter(|(node, _)| !is_in || peers.contains_key(node)).collect();
        peers.extend(named);
        peers.remove(&self.me());
        let removed = system.nodes.iter().filter(|(_, member)| member.standing == super::Standing::Removed);
        self.transport.set_guests(removed.map(|(node, _)| *node).collect());
        self.transport.set_peers(peers);
    }

    /// Does what the record says of this node.
    async fn follow(&self, system: &System) -> Result<(), Out> {
        let me = self.me();
        if is_removed(system, me) {
            return Err(Refusal::Removed(me).into());
        }
        if !self.is_in(system) {
            return Err(Refusal::OtherDisk(me).into());
        }
        if system.level > self.level {
            return Err(Out::TooOld(too_high(&"the cluster", system.level, self.level)));
        }
        if system.shards.len() != usize::from(self.router.shards()) {
            return Err(Out::Failed(format!(
                "the cluster has {} shards, and storage.shards of this node is {}: they must be the same",
                system.shards.len(),
                self.router.shards()
            )));
        }
        self.tell_removed(system).await;
        self.meet(system);
        save(&self.disk, &self.dir, system)
            .map_err(|e| Out::Failed(format!("what is known of the cluster cannot be kept: {e}")))?;
        for shard in self.router.all_shards() {
            let holds = system.holds(me, shard.id());
            if holds && !shard.is_hosted() {
                shard.host().await.map_err(|e| Out::Failed(e.to_string()))?;
                self.found_group(system, shard.id()).await.map_err(|e| Out::Failed(e.to_string()))?;
            } else if !holds && shard.is_hosted() {
                // Meanwhile it may be wanted again, and its leader count on what it has. Once it answers nobody, the
                // record that is in force says so.
                shard.end_group().await;
                self.register().await?;
                if self.view().now().is_some_and(|now| now.holds(me, shard.id())) {
                    shard.host().await.map_err(|e| Out::Failed(e.to_string()))?;
                    continue;
                }
                let left = shard.leave().await;
                left.map_err(|e| Out::Failed(format!("{} cannot be let go: {e}", shard.id())))?;
            }
        }
        Ok(())
    }

    /// Who was removed is told before nobody speaks to it any more.
    async fn tell_removed(&self, system: &System) {
        let removed = system.nodes.iter().filter(|(_, member)| member.standing == super::Standing::Removed);
        let connected = self.router.connected();
        let told: Vec<NodeId> = removed.map(|(node, _)| *node).filter(|node| connected.contains(node)).collect();
        told.iter().for_each(|node| self.router.tell_system(*node, system));
        if !told.is_empty() {
            tokio::time::sleep(PARTING).await;
        }
    }

    /// The founder begins the groups, and writes the record down in shard 0.
    async fn found_group(&self, system: &System, shard: ShardId) -> Result<(), ProposeError> {
        let founder = system.version == 1 && system.nodes.keys().next() == Some(&self.me());
        let Some((group, place)) = self.router.shard(shard).and_then(crate::Shard::group).zip(system.place(shard))
        else {
            return Ok(());
        };
        if !founder || place.replicas.iter().any(|node| !system.nodes.contains_key(node)) {
            return Ok(());
        }
        let voters: BTreeSet<NodeId> = place.replicas.clone();
        group.found(voters).await?;
        if shard == SYSTEM_SHARD {
            let (router, record) = (self.router.clone(), system.clone());
            tokio::spawn(async move {
                while router.change(Change::Found(record.clone())).await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        Ok(())
    }
}

fn is_removed(system: &System, node: NodeId) -> bool {
    system.nodes.get(&node).is_some_and(|member| member.standing == super::Standing::Removed)
}
