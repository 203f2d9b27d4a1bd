//! What operators do while things go wrong: nodes join, are drained, take part again and are removed for ever, replicas
//! and leads move. A node that was removed comes again, if it does, as the next generation of its id, on an empty disk.

use std::{
    cell::Cell,
    collections::{BTreeSet, VecDeque},
    rc::Rc,
};

use magpie_cluster::system::{Change, Standing, System, founding::token_hash};
use magpie_protocol::{NodeId, ShardId};
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use turmoil::Sim;

use super::{
    nature::{Fault, Nature},
    nodes::{FOUNDERS, GENERATIONS, Joining, NODES, Nodes, SHARDS, Task},
};

/// What has not come to pass is asked again after this long: whoever was asked may be gone.
const AGAIN_MS: u64 = 1_500;
/// What takes so long will not come to pass.
const LONGEST_MS: u64 = 120_000;
/// Replicas of a shard.
const REPLICAS: usize = 3;

/// What a seed has in store: only what can be done when it is its turn.
pub fn draw(seed: u64) -> Vec<Fault> {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x6f70_6572_6174);
    let (mut active, mut draining, mut spare, mut joined) = (FOUNDERS, 0, NODES - FOUNDERS, 0);
    let mut plan = Vec::new();
    for _ in 0..rng.random_range(3..7) {
        let mut can = vec![Fault::Lead];
        if spare > 0 && joined + 1 < usize::from(GENERATIONS) {
            can.extend([Fault::Join; 3]);
        }
        if active > REPLICAS {
            can.extend([Fault::Move, Fault::Move, Fault::Drain, Fault::Drain]);
        }
        if draining > 0 {
            can.extend([Fault::Resume, Fault::Remove, Fault::Remove]);
        }
        let act = can.choose(&mut rng).copied().unwrap_or(Fault::Lead);
        match act {
            Fault::Join => (active, spare, joined) = (active + 1, spare - 1, joined + 1),
            Fault::Drain => (active, draining) = (active - 1, draining + 1),
            Fault::Resume => (active, draining) = (active + 1, draining - 1),
            Fault::Remove => (draining, spare) = (draining - 1, spare + 1),
            _ => {}
        }
        plan.push(act);
    }
    plan
}

/// What is being done.
struct Doing {
    act: Fault,
    /// The node that it is about.
    at: usize,
    shard: ShardId,
    to: BTreeSet<NodeId>,
    since_ms: u64,
    asked_ms: Option<u64>,
    /// Whoever was asked said that it is done.
    said: Rc<Cell<bool>>,
}

/// See the module's documentation.
pub struct Operator {
    rng: StdRng,
    nature: Nature,
    nodes: Nodes,
    waiting: VecDeque<Fault>,
    next_ms: u64,
    doing: Option<Doing>,
}

impl Operator {
    /// Does this, one after the other.
    pub fn new(seed: u64, plan: &[Fault], nature: &Nature, nodes: &Nodes) -> Self {
        let rng = StdRng::seed_from_u64(seed ^ 0x0064_6f69_6e67);
        let waiting = plan.iter().copied().collect();
        Self { rng, nature: nature.clone(), nodes: nodes.clone(), waiting, next_ms: 500, doing: None }
    }

    /// Does what is due, so many milliseconds after the beginning. True when all is done.
    pub fn step(&mut self, sim: &mut Sim<'_>, now: u64) -> bool {
        let Some(system) = self.nodes.system() else { return false };
        if self.doing.is_none() && now >= self.next_ms {
            let Some(act) = self.waiting.pop_front() else { return true };
            let (at, shard, to, said) = (0, ShardId::new(0), BTreeSet::new(), Rc::default());
            self.doing = Some(Doing { act, at, shard, to, since_ms: now, asked_ms: None, said });
        }
        let Some(mut doing) = self.doing.take() else { return false };
        if doing.asked_ms.is_some() && self.is_done(sim, &system, &doing) {
            self.nature.happened(doing.act);
            self.nature.log(format_args!("{} is done", doing.act));
            self.next_ms = now + self.rng.random_range(300..2_500);
            return false;
        }
        let long = now - doing.since_ms;
        let all = || self.nature.events().join("\n");
        assert!(long < LONGEST_MS, "{} of {} is not done after {long} ms\n{system:?}\n{}", doing.act, doing.at, all());
        if doing.asked_ms.is_none_or(|asked| now >= asked + AGAIN_MS) {
            let first = doing.asked_ms.is_none();
            if self.ask(&system, &mut doing, first).is_some() {
                doing.asked_ms = Some(now);
            }
        }
        self.doing = Some(doing);
        false
    }

    fn any<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.choose(&mut self.rng).copied()
    }

    /// Places of the nodes that stand so.
    fn standing(&self, system: &System, standing: Standing) -> Vec<usize> {
        let stands = |at: &usize| {
            let member = system.nodes.get(&self.nodes.id(*at));
            member.is_some_and(|member| member.standing == standing && member.disk.is_some())
        };
        (0..NODES).filter(stands).collect()
    }

    /// Asks a node that is up; none when that is not possible now.
    fn ask(&mut self, system: &System, doing: &mut Doing, first: bool) -> Option<()> {
        let up: Vec<usize> = (0..NODES).filter(|at| self.nodes.router(*at).is_some()).collect();
        let active = self.standing(system, Standing::Active);
        let task = match doing.act {
            Fault::Join => {
                if first {
                    doing.at = (0..NODES).find(|at| !self.nodes.host(*at).on.get())?;
                }
                let node = self.nodes.id(doing.at);
                Task::Change(Change::Expect {
                    node,
                    address: self.nodes.address(doing.at),
                    token: token_hash(&node.to_string()),
                })
            }
            Fault::Drain | Fault::Resume | Fault::Remove => {
                let (from, standing) = match doing.act {
                    Fault::Drain => (active.clone(), Standing::Draining),
                    Fault::Resume => (self.standing(system, Standing::Draining), Standing::Active),
                    _ => (self.standing(system, Standing::Draining), Standing::Removed),
                };
                if first {
                    doing.at = self.any(&from)?;
                    self.nodes.host(doing.at).leaving.set(standing == Standing::Removed);
                }
                Task::Change(Change::Stand { node: self.nodes.id(doing.at), standing })
            }
            Fault::Move => {
                doing.shard = ShardId::new(self.rng.random_range(0..SHARDS));
                let mut nodes: Vec<NodeId> = active.iter().map(|at| self.nodes.id(*at)).collect();
                nodes.shuffle(&mut self.rng);
                doing.to = nodes.into_iter().take(REPLICAS).collect();
                let place = system.place(doing.shard)?;
                if place.becoming.is_some() || place.replicas == doing.to || doing.to.len() < REPLICAS {
                    return None;
                }
                Task::Change(Change::Move { shard: doing.shard, to: doing.to.clone() })
            }
            _ => {
                doing.shard = ShardId::new(self.rng.random_range(0..SHARDS));
                let leader = self.nodes.leader(doing.shard).map(|at| self.nodes.id(at))?;
                let others: Vec<NodeId> =
                    system.place(doing.shard)?.replicas.iter().copied().filter(|node| *node != leader).collect();
                Task::Lead { shard: doing.shard, to: self.any(&others)?, done: doing.said.clone() }
            }
        };
        let through = self.any(&up)?;
        self.nature.log(format_args!("n{} is asked: {task:?}", through + 1));
        self.nodes.host(through).tasks.borrow_mut().push_back(task);
        Some(())
    }

    fn is_done(&self, sim: &mut Sim<'_>, system: &System, doing: &Doing) -> bool {
        let (at, node) = (doing.at, self.nodes.id(doing.at));
        let member = system.nodes.get(&node);
        let stands = |standing| member.is_some_and(|member| member.standing == standing);
        match doing.act {
            Fault::Join => {
                let host = self.nodes.host(at);
                if member.is_some() && !host.on.get() {
                    let active = system.active().map(|(node, member)| (node, member.address)).collect();
                    *host.joining.borrow_mut() = Some(Joining { token: node.to_string(), nodes: active });
                    host.on.set(true);
                    self.nature.log(format_args!("{node} comes"));
                    sim.bounce(host.name.as_str());
                }
                member.is_some_and(|member| member.disk.is_some()) && self.nodes.router(at).is_some()
            }
            Fault::Drain => stands(Standing::Draining) && system.held_by(node) == 0,
            Fault::Resume => stands(Standing::Active),
            Fault::Remove => {
                // It must hear of it, whether it was up or comes back later.
                let told = self.nodes.fatal(at).is_some_and(|why| why.contains("was removed"));
                if stands(Standing::Removed) && told {
                    self.nature.log(format_args!("{node} is gone"));
                    sim.crash(self.nodes.host(at).name.as_str());
                    self.nodes.retire(at);
                    return true;
                }
                false
            }
            Fault::Move => {
                let place = system.place(doing.shard);
                place.is_some_and(|place| place.replicas == doing.to && place.becoming.is_none())
            }
            _ => doing.said.get(),
        }
    }
}
