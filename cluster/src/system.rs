//! What a cluster knows of itself: its nodes, and which of them hold which shard.
//!
//! Shard 0 keeps it as a record; changes are items of its batches, like commands. Every node has a copy
//! ([`SystemView`]) whose version travels with each request between nodes: who is behind gets the newer one with the
//! answer. [`placement`] says what should change next, [`steward`] carries it out.

pub mod founding;
pub mod placement;
pub mod pulse;
pub(crate) mod steward;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bincode::{Decode, Encode};
use magpie_protocol::{NodeId, ShardId};
use tokio::sync::watch;

use crate::state::{
    Key, Record,
    key::{SHARD_SLOT, table},
};

/// The shard that keeps the record.
pub const SYSTEM_SHARD: ShardId = ShardId::new(0);
/// What this build can do. It grows with every change of what `apply` does or of what nodes say to each other. A
/// cluster is at the level that all of its nodes can do, each shard at the one that its log says.
pub const LEVEL: u32 = 3;
/// What every build can do.
pub const FIRST_LEVEL: u32 = 1;
/// From this level on a shard can make its part of a backup.
pub const BACKUP_LEVEL: u32 = 2;
/// From this level on requests carry their priority from node to node.
pub const PRIORITY_LEVEL: u32 = 3;

/// Drawn when a data folder is made: a node whose folder is another one has lost what it promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct DiskId(pub u128);

/// Where a node stands with the cluster. Tags are append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Standing {
    /// It takes replicas, leaders and sessions.
    Active,
    /// It gives them away and takes no more.
    Draining,
    /// It is gone for ever: its id is never used again.
    Removed,
}

/// A node as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// Where other nodes reach it.
    pub address: SocketAddr,
    /// What fails together: replicas of a shard are kept in different zones where there are enough.
    pub zone: String,
    pub standing: Standing,
    /// Its data folder; none before it first came.
    pub disk: Option<DiskId>,
    /// Whoever comes first under this id must know what hashes to this.
    pub token: Option<[u8; 32]>,
    /// What its build can do, as it said when it last started.
    pub level: u32,
    /// Where devices reach it, as it said when it last started.
    pub devices: Option<SocketAddr>,
}

/// Where a shard is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    pub replicas: BTreeSet<NodeId>,
    /// What they are to become; none when they are as they should be.
    pub becoming: Option<BTreeSet<NodeId>>,
}

impl Place {
    /// The nodes that hold the shard, or are about to.
    pub fn holders(&self) -> BTreeSet<NodeId> {
        self.replicas.iter().chain(self.becoming.iter().flatten()).copied().collect()
    }
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct System {
    /// Drawn when the cluster was founded: a record of another one is not taken.
    pub id: u64,
    /// Grows with every change.
    pub version: u64,
    /// What every node can do: behaviour beyond it waits until all are upgraded.
    pub level: u32,
    /// Raised when a backup is restored.
    pub epoch: u64,
    /// How many replicas a shard should have.
    pub replicas: u8,
    pub nodes: BTreeMap<NodeId, Member>,
    pub shards: Vec<Place>,
}

impl Record for System {}

pub(crate) fn key() -> Key {
    Key::new(SHARD_SLOT, table::SYSTEM)
}

/// What can be asked of the record. Tags are append-only: they stand in logs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// The record of a new cluster; nothing where there is one.
    Found(System),
    /// A node may come under this id, to this address, knowing what hashes to this.
    Expect { node: NodeId, address: SocketAddr, token: [u8; 32] },
    /// A node has started, with this data folder.
    Register { node: NodeId, disk: DiskId, token: Option<[u8; 32]>, facts: Registration },
    /// A shard's replicas are to become these.
    Move { shard: ShardId, to: BTreeSet<NodeId> },
    /// They are these.
    Moved { shard: ShardId, replicas: BTreeSet<NodeId> },
    /// A node gives away what it has, or takes part again.
    Stand { node: NodeId, standing: Standing },
    /// Every node can do this much.
    Raise { level: u32 },
    /// A shard should have so many replicas.
    Want { replicas: u8 },
}

/// What a node says of itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Registration {
    pub address: SocketAddr,
    pub zone: String,
    pub level: u32,
    pub devices: Option<SocketAddr>,
}

/// Why a change is refused. Tags are append-only.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("there is no record of the cluster yet; try again in a moment")]
    NotFounded,
    #[error(
        "the cluster does not know {0}: say on a node of it `magpie admin expect {0}@ADDRESS`, and start this one with what that prints"
    )]
    Unknown(NodeId),
    #[error("the id {0} is taken already; ids are never used twice: take the next generation, or another number")]
    Taken(NodeId),
    #[error(
        "{0} is known with another data folder than this one: what that one promised is lost. Come as a new node: `magpie admin expect` the next generation of the id, make it a certificate of its own, delete this data folder (it says that it is {0}'s, and holds nothing that is needed), and start with what expect printed"
    )]
    OtherDisk(NodeId),
    #[error("the token is not the one that `magpie admin expect` gave for {0}")]
    WrongToken(NodeId),
    #[error(
        "{0} was removed from the cluster, and its id is never used again. To come back: `magpie admin expect` the next generation of the id, make it a certificate of its own, delete this data folder, and start with what expect printed"
    )]
    Removed(NodeId),
    #[error("{0} still holds {1} replicas: `magpie admin drain {0}` first, and wait until it says that it is done")]
    StillHolds(NodeId, usize),
    #[error("a cluster needs at least one active node besides {0}")]
    Last(NodeId),
    #[error("{0} does not exist")]
    NoShard(ShardId),
    #[error("{0} is on its way somewhere else already; moving it back to where its replicas are ends that")]
    Moving(ShardId),
    #[error("{node} cannot take {shard}: it is not an active node of the cluster")]
    NotActive { node: NodeId, shard: ShardId },
    #[error("this build can do level {can}, the cluster is at {at}: upgrade this node first")]
    TooOld { can: u32, at: u32 },
    #[error("{0} can do only level {1}")]
    NotYet(NodeId, u32),
    #[error("a shard can have 1, 3 or 5 replicas, not {0}: an even number survives no more than one less")]
    Even(u8),
    #[error("{0} replicas need as many active nodes, and there are {1}")]
    TooFew(u8, usize),
    #[error("the cluster has no node {0}: `magpie admin nodes` lists them")]
    NoNode(NodeId),
    #[error("{0} is where {1} is already")]
    AddressTaken(SocketAddr, NodeId),
    #[error("{0} is no address that others could reach: it needs the node's own IP address and a port")]
    NoAddress(SocketAddr),
}

impl System {
    /// A new cluster of these nodes, each of which holds every shard.
    pub fn found(id: u64, nodes: BTreeMap<NodeId, SocketAddr>, shards: u16) -> Self {
        let all: BTreeSet<NodeId> = nodes.keys().copied().collect();
        let member = |address| Member {
            address,
            zone: String::new(),
            standing: Standing::Active,
            disk: None,
            token: None,
            // Until it says what it can do, and until all have.
            level: FIRST_LEVEL,
            devices: None,
        };
        Self {
            id,
            version: 1,
            level: FIRST_LEVEL,
            epoch: 1,
            replicas: all.len().min(usize::from(u8::MAX)) as u8,
            nodes: nodes.into_iter().map(|(node, address)| (node, member(address))).collect(),
            shards: vec![Place { replicas: all, becoming: None }; usize::from(shards)],
        }
    }

    /// Where a shard is.
    pub fn place(&self, shard: ShardId) -> Option<&Place> {
        self.shards.get(usize::from(shard.get()))
    }

    /// Whether this node holds this shard, or is about to.
    pub fn holds(&self, node: NodeId, shard: ShardId) -> bool {
        let place = self.place(shard);
        place.is_some_and(|p| p.replicas.contains(&node) || p.becoming.as_ref().is_some_and(|to| to.contains(&node)))
    }

    /// How many shards a node holds, or is about to.
    pub fn held_by(&self, node: NodeId) -> usize {
        self.shards.iter().filter(|place| place.holders().contains(&node)).count()
    }

    /// The nodes that take part, with where they are.
    pub fn peers(&self) -> BTreeMap<NodeId, SocketAddr> {
        let part = self.nodes.iter().filter(|(_, member)| member.standing != Standing::Removed);
        part.map(|(node, member)| (*node, member.address)).collect()
    }

    /// The nodes that take replicas.
    pub fn active(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.nodes.iter().filter(|(_, m)| m.standing == Standing::Active && m.disk.is_some()).map(|(n, m)| (*n, m))
    }

    /// The record after a change; the same where it changes nothing.
    pub fn changed(&self, change: Change) -> Result<Self, Refusal> {
        let mut next = self.clone();
        match change {
            Change::Found(_) => {}
            Change::Expect { node, address, token } => next.expect(node, address, token)?,
            Change::Register { node, disk, token, facts } => next.register(node, disk, token, facts)?,
            Change::Move { shard, to } => next.start_move(shard, to)?,
            Change::Moved { shard, replicas } => {
                let place = next.place_mut(shard)?;
                // Whoever says so late, of a move that is over, says nothing.
                if place.becoming.as_ref() == Some(&replicas) {
                    (place.replicas, place.becoming) = (replicas, None);
                }
            }
            Change::Stand { node, standing } => next.stand(node, standing)?,
            Change::Raise { level } => next.raise(level)?,
            Change::Want { replicas } => match (replicas, self.active().count()) {
                (1 | 3 | 5, nodes) if nodes >= usize::from(replicas) => next.replicas = replicas,
                (1 | 3 | 5, nodes) => return Err(Refusal::TooFew(replicas, nodes)),
                _ => return Err(Refusal::Even(replicas)),
            },
        }
        if next != *self {
            next.version += 1;
        }
        Ok(next)
    }

    fn place_mut(&mut self, shard: ShardId) -> Result<&mut Place, Refusal> {
        self.shards.get_mut(usize::from(shard.get())).ok_or(Refusal::NoShard(shard))
    }

    fn expect(&mut self, node: NodeId, address: SocketAddr, token: [u8; 32]) -> Result<(), Refusal> {
        if self.nodes.get(&node).is_some_and(|known| known.disk.is_some() || known.standing == Standing::Removed) {
            return Err(Refusal::Taken(node));
        }
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(Refusal::NoAddress(address));
        }
        let mut others = self.nodes.iter().filter(|(n, m)| **n != node && m.standing != Standing::Removed);
        if let Some((other, _)) = others.find(|(_, member)| member.address == address) {
            return Err(Refusal::AddressTaken(address, *other));
        }
        let (zone, standing, level) = (String::new(), Standing::Active, self.level);
        let member = Member { address, zone, standing, disk: None, token: Some(token), level, devices: None };
        self.nodes.insert(node, member);
        Ok(())
    }

    fn register(
        &mut self,
        node: NodeId,
        disk: DiskId,
        token: Option<[u8; 32]>,
        facts: Registration,
    ) -> Result<(), Refusal> {
        let at = self.level;
        let member = self.nodes.get_mut(&node).ok_or(Refusal::Unknown(node))?;
        if member.standing == Standing::Removed {
            return Err(Refusal::Removed(node));
        }
        match member.disk {
            Some(known) if known != disk => return Err(Refusal::OtherDisk(node)),
            None if member.token.is_some() && member.token != token => return Err(Refusal::WrongToken(node)),
            _ => {}
        }
        if facts.level < at {
            return Err(Refusal::TooOld { can: facts.level, at });
        }
        member.disk = Some(disk);
        member.token = None;
        (member.address, member.zone, member.level, member.devices) =
            (facts.address, facts.zone, facts.level, facts.devices);
        Ok(())
    }

    fn start_move(&mut self, shard: ShardId, to: BTreeSet<NodeId>) -> Result<(), Refusal> {
        let place = self.place(shard).ok_or(Refusal::NoShard(shard))?;
        match &place.becoming {
            // Back to where it was: what had begun to learn is let go.
            Some(_) if to == place.replicas => {
                self.place_mut(shard)?.becoming = Some(to);
                return Ok(());
            }
            Some(becoming) if *becoming != to => return Err(Refusal::Moving(shard)),
            _ => {}
        }
        let active: BTreeSet<NodeId> = self.active().map(|(node, _)| node).collect();
        // What holds it already may keep it, whatever its standing.
        if let Some(&node) = to.iter().find(|node| !active.contains(node) && !place.replicas.contains(node)) {
            return Err(Refusal::NotActive { node, shard });
        }
        let same = place.replicas == to || to.is_empty();
        self.place_mut(shard)?.becoming = (!same).then_some(to);
        Ok(())
    }

    fn stand(&mut self, node: NodeId, standing: Standing) -> Result<(), Refusal> {
        let others = self.active().filter(|(other, _)| *other != node).count();
        let held = self.held_by(node);
        let member = self.nodes.get_mut(&node).ok_or(Refusal::NoNode(node))?;
        if standing == Standing::Removed && member.disk.is_none() {
            // It never came: its id is free again.
            self.nodes.remove(&node);
            return Ok(());
        }
        match standing {
            _ if member.standing == Standing::Removed && standing != Standing::Removed => {
                return Err(Refusal::Removed(node));
            }
            Standing::Draining | Standing::Removed if others == 0 => return Err(Refusal::Last(node)),
            Standing::Removed if held > 0 => return Err(Refusal::StillHolds(node, held)),
            _ => member.standing = standing,
        }
        Ok(())
    }

    fn raise(&mut self, level: u32) -> Result<(), Refusal> {
        let part =
            self.nodes.iter().filter(|(_, member)| member.standing != Standing::Removed && member.disk.is_some());
        if let Some((node, member)) = part.into_iter().find(|(_, member)| member.level < level) {
            return Err(Refusal::NotYet(*node, member.level));
        }
        self.level = self.level.max(level);
        Ok(())
    }
}

/// A node's copy of the record. Clones share it.
#[derive(Clone, Default)]
pub struct SystemView(Arc<View>);

struct View {
    id: AtomicU64,
    version: AtomicU64,
    newest: watch::Sender<Option<Arc<System>>>,
}

impl Default for View {
    fn default() -> Self {
        Self { id: AtomicU64::new(0), version: AtomicU64::new(0), newest: watch::channel(None).0 }
    }
}

impl SystemView {
    /// The version of the copy; 0 where there is none.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Relaxed)
    }

    /// The copy.
    pub fn now(&self) -> Option<Arc<System>> {
        self.0.newest.borrow().clone()
    }

    /// The copy and every newer one.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<System>>> {
        self.0.newest.subscribe()
    }

    /// Which cluster it is of; 0 where there is none.
    pub fn id(&self) -> u64 {
        self.0.id.load(Ordering::Relaxed)
    }

    /// Takes a newer one of the same cluster.
    pub fn offer(&self, system: System) {
        self.0.newest.send_if_modified(|newest| {
            let newer = newest.as_ref().is_none_or(|have| have.version < system.version && have.id == system.id);
            if newer {
                self.0.id.store(system.id, Ordering::Relaxed);
                self.0.version.store(system.version, Ordering::Relaxed);
                *newest = Some(Arc::new(system));
            }
            newer
        });
    }
}

#[cfg(test)]
mod tests;
