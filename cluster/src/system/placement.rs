//! What should change next: a pure function of the record, and of what is known of the nodes, to one safe step.
//!
//! Replicas of a shard go to different zones where there are enough, replicas and leaders are spread evenly, and
//! nothing moves that need not. A step changes one shard; no other begins before it is done.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use magpie_protocol::{NodeId, ShardId};

use super::{Standing, System};

/// What is known of the nodes right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Nodes that answer.
    pub up: BTreeSet<NodeId>,
    /// Nodes that have not answered for so long that their replicas are made anew elsewhere.
    pub lost: BTreeSet<NodeId>,
    /// Nodes that should not lead now: their clock is off, or their disk is full.
    pub unfit: BTreeSet<NodeId>,
    pub leaders: BTreeMap<ShardId, NodeId>,
    /// Shards whose lead was moved by hand lately: it stays where it is, unless its node should not lead.
    pub resting: BTreeSet<ShardId>,
    /// Replicas that lack so much that commands would wait for them.
    pub lagging: BTreeSet<(ShardId, NodeId)>,
}

/// One safe step.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Step {
    /// Let the replicas of a shard become these: learn, catch up, vote, and only then let go of another.
    Move { shard: ShardId, to: BTreeSet<NodeId> },
    /// Let another replica lead.
    Lead { shard: ShardId, from: NodeId, to: NodeId },
}

/// Steps that a plan has at most.
const PLAN_MAX: usize = 256;

/// The steps to come, as far as is known now.
pub fn plan(system: &System, seen: &Seen) -> Vec<Step> {
    let (mut system, mut seen, mut steps) = (system.clone(), seen.clone(), Vec::new());
    while let Some(step) = next_step(&system, &seen).filter(|_| steps.len() < PLAN_MAX) {
        match &step {
            Step::Move { shard, to } => {
                let Some(place) = system.shards.get_mut(usize::from(shard.get())) else { break };
                (place.replicas, place.becoming) = (to.clone(), None);
            }
            Step::Lead { shard, to, .. } => _ = seen.leaders.insert(*shard, *to),
        }
        steps.push(step);
    }
    steps
}

/// Who should lead a shard whose leader holds no replica when its move is over, before the move goes on.
pub fn lead_out(system: &System, seen: &Seen, shard: ShardId) -> Option<NodeId> {
    let place = system.place(shard)?;
    let (to, leader) = (place.becoming.as_ref()?, seen.leaders.get(&shard)?);
    if to.contains(leader) {
        return None;
    }
    let staying: BTreeSet<NodeId> = place.replicas.intersection(to).copied().collect();
    Placement { system, seen }.lighter(shard, &staying, usize::MAX)
}

/// The next step; none when all is as it should be, or when nothing can be done.
pub fn next_step(system: &System, seen: &Seen) -> Option<Step> {
    let view = Placement { system, seen };
    if system.shards.iter().any(|place| place.becoming.is_some()) {
        // A node that is drained gives its leaders away all the while.
        return view.lead_away().or_else(|| view.call_off());
    }
    view.lead_away()
        .or_else(|| view.replace())
        .or_else(|| view.resize())
        .or_else(|| view.even())
        .or_else(|| view.lead())
}

struct Placement<'a> {
    system: &'a System,
    seen: &'a Seen,
}

impl Placement<'_> {
    fn shards(&self) -> impl Iterator<Item = (ShardId, &BTreeSet<NodeId>)> {
        self.system.shards.iter().enumerate().map(|(i, place)| (ShardId::new(i as u16), &place.replicas))
    }

    /// Nodes that may be given a replica.
    fn takers(&self) -> Vec<NodeId> {
        let up = self.system.active().map(|(node, _)| node).filter(|node| self.seen.up.contains(node));
        up.collect()
    }

    fn zone(&self, node: NodeId) -> &str {
        self.system.nodes.get(&node).map_or("", |member| &member.zone)
    }

    /// How many of these are in the zone of that one. Nodes without a zone are each in one of their own.
    fn beside(&self, replicas: &BTreeSet<NodeId>, node: NodeId) -> usize {
        let zone = self.zone(node);
        replicas.iter().filter(|other| **other != node && !zone.is_empty() && self.zone(**other) == zone).count()
    }

    fn leaves(&self, node: NodeId) -> bool {
        let standing = self.system.nodes.get(&node).map(|member| member.standing);
        standing != Some(Standing::Active) || self.seen.lost.contains(&node)
    }

    /// A step there, if those before can take it and those after can go on: most of both are up.
    fn step(&self, shard: ShardId, replicas: &BTreeSet<NodeId>, to: BTreeSet<NodeId>) -> Option<Step> {
        let alive = |of: &BTreeSet<NodeId>| of.intersection(&self.seen.up).count() > of.len() / 2;
        (to != *replicas && alive(replicas) && alive(&to)).then_some(Step::Move { shard, to })
    }

    /// The best node to add to these replicas: another zone, then the fewest replicas.
    fn to_add(&self, replicas: &BTreeSet<NodeId>) -> Option<NodeId> {
        let free = self.takers().into_iter().filter(|node| !replicas.contains(node));
        free.min_by_key(|node| (self.beside(replicas, *node), self.system.held_by(*node), *node))
    }

    /// The replica to let go of first: of a node that leaves, of a zone that has several, of the fullest node.
    fn to_drop(&self, replicas: &BTreeSet<NodeId>) -> Option<NodeId> {
        let weight =
            |node: &NodeId| (self.leaves(*node), self.beside(replicas, *node), self.system.held_by(*node), *node);
        replicas.iter().copied().max_by_key(weight)
    }

    /// A move to a node that is lost will never be done.
    fn call_off(&self) -> Option<Step> {
        self.system.shards.iter().enumerate().find_map(|(i, place)| {
            let coming = place.becoming.as_ref()?.difference(&place.replicas);
            let lost = coming.into_iter().any(|node| self.seen.lost.contains(node));
            lost.then(|| Step::Move { shard: ShardId::new(i as u16), to: place.replicas.clone() })
        })
    }

    /// Replicas on nodes that leave go elsewhere.
    fn replace(&self) -> Option<Step> {
        self.shards().find_map(|(shard, replicas)| {
            let leaving = replicas.iter().copied().find(|node| self.leaves(*node))?;
            let mut rest = replicas.clone();
            rest.remove(&leaving);
            match self.to_add(replicas) {
                Some(node) => _ = rest.insert(node),
                // Nobody can take its place: it stays, and may come back.
                None if rest.len() < usize::from(self.system.replicas) => return None,
                None => {}
            }
            self.step(shard, replicas, rest)
        })
    }

    /// Shards get as many replicas as they should have, an odd number of them.
    fn resize(&self) -> Option<Step> {
        let wanted = usize::from(self.system.replicas);
        self.shards().find_map(|(shard, replicas)| {
            let mut to = replicas.clone();
            if replicas.len() < wanted {
                while to.len() < wanted {
                    let Some(node) = self.to_add(&to) else { break };
                    to.insert(node);
                }
                // Two replicas survive no more than one does.
                if to.len() % 2 == 0 {
                    let added = to.iter().copied().find(|node| !replicas.contains(node));
                    added.map(|node| to.remove(&node));
                }
            } else {
                while to.len() > wanted {
                    let Some(node) = self.to_drop(&to) else { break };
                    to.remove(&node);
                }
            }
            self.step(shard, replicas, to)
        })
    }

    /// One replica from the fullest node to the emptiest, where that evens them out and crowds no zone.
    fn even(&self) -> Option<Step> {
        let takers = self.takers();
        let emptiest = takers.iter().copied().min_by_key(|node| (self.system.held_by(*node), *node))?;
        let mut fuller = takers;
        fuller.retain(|node| self.system.held_by(*node) >= self.system.held_by(emptiest) + 2);
        fuller.sort_by_key(|node| std::cmp::Reverse(self.system.held_by(*node)));
        fuller.into_iter().find_map(|full| {
            self.shards().find_map(|(shard, replicas)| {
                if !replicas.contains(&full) || replicas.contains(&emptiest) {
                    return None;
                }
                let mut to = replicas.clone();
                to.remove(&full);
                if self.beside(&to, emptiest) > self.beside(&to, full) {
                    return None;
                }
                to.insert(emptiest);
                self.step(shard, replicas, to)
            })
        })
    }

    fn may_lead(&self, node: NodeId) -> bool {
        self.seen.up.contains(&node) && !self.leaves(node) && !self.seen.unfit.contains(&node)
    }

    fn leads(&self, node: NodeId) -> usize {
        self.seen.leaders.values().filter(|leader| **leader == node).count()
    }

    fn lighter(&self, shard: ShardId, replicas: &BTreeSet<NodeId>, than: usize) -> Option<NodeId> {
        let able = replicas.iter().copied().filter(|node| self.may_lead(*node) && self.leads(*node) < than);
        let able = able.filter(|node| !self.seen.lagging.contains(&(shard, *node)));
        able.min_by_key(|node| (self.leads(*node), *node))
    }

    /// Leaders leave nodes that should not lead.
    fn lead_away(&self) -> Option<Step> {
        self.shards().find_map(|(shard, replicas)| {
            let from = *self.seen.leaders.get(&shard)?;
            if !self.seen.up.contains(&from) || self.may_lead(from) {
                return None;
            }
            Some(Step::Lead { shard, from, to: self.lighter(shard, replicas, usize::MAX)? })
        })
    }

    /// One leader from the node that has the most of them to one that has two less.
    fn lead(&self) -> Option<Step> {
        let shards = self.shards().filter(|(shard, _)| !self.seen.resting.contains(shard));
        let steps = shards.filter_map(|(shard, replicas)| {
            let from = *self.seen.leaders.get(&shard)?;
            let to = self.lighter(shard, replicas, self.leads(from).checked_sub(1)?)?;
            Some((self.leads(from) - self.leads(to), Step::Lead { shard, from, to }))
        });
        steps.max_by_key(|(gain, _)| *gain).map(|(_, step)| step)
    }
}
