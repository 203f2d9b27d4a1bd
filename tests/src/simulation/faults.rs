//! The plan of faults of a seed, and carrying it out.

use magpie_protocol::ShardId;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use turmoil::Sim;

use super::{
    nature::{Fault, Nature},
    nodes::{NODES, Nodes, SHARDS},
    operator::Operator,
    people::HOST as PEOPLE,
};

/// A fault that has not happened by its end goes on for so long more, and then the run does not count.
const GRACE_MS: u64 = 5_000;

/// What befalls the links of a node, one at a time.
const LINKS: [Fault; 3] = [Fault::Stall, Fault::Partition, Fault::OneWay];
/// A fault waits for so long while no node is up.
const LATER_MS: u64 = 500;
/// Faults of a run that may befall nobody at first.
const AGAIN_MAX: u32 = 3;

/// One fault, in milliseconds since the faults begin.
#[derive(Debug, Clone)]
pub struct Episode {
    pub fault: Fault,
    pub from_ms: u64,
    pub to_ms: u64,
}

/// What a seed has in store: faults of one lane follow each other, lanes overlap.
pub fn draw(seed: u64) -> Vec<Episode> {
    let mut rng = StdRng::seed_from_u64(seed);
    let ends = [Fault::Crash, Fault::Blackout, Fault::DiskError];
    let network = [Fault::Loss, Fault::Delay, Fault::Duplication];
    let within = [Fault::SlowDisk, Fault::ClockSkew];
    let mut plan = Vec::new();
    for (kinds, take, long) in
        [(&ends[..], 3, 500..4_000), (&LINKS, 3, 500..4_000), (&network, 2, 2_000..5_000), (&within, 2, 2_000..6_000)]
    {
        // Some twice, some not at all.
        let mut kinds: Vec<Fault> = kinds.iter().chain(kinds).copied().collect();
        kinds.shuffle(&mut rng);
        let mut at = 0;
        for fault in kinds.into_iter().take(take) {
            let from_ms = at + rng.random_range(500..3_500);
            let to_ms = from_ms + rng.random_range(long.clone());
            plan.push(Episode { fault, from_ms, to_ms });
            at = to_ms;
        }
    }
    plan.sort_by_key(|episode| episode.from_ms);
    plan
}

/// An episode that is under way.
struct Running {
    episode: Episode,
    /// The node that it befell.
    at: usize,
    /// How often the fault had happened before.
    before: u64,
    /// From whom to whom nothing gets.
    cuts: Vec<(String, String)>,
}

/// See the module's documentation.
pub struct Faults {
    rng: StdRng,
    nature: Nature,
    nodes: Nodes,
    begin_ms: Option<u64>,
    waiting: Vec<Episode>,
    running: Vec<Running>,
    /// When a node that is down comes up again.
    up_at_ms: [Option<u64>; NODES],
    /// Whose disk was told to fail since it came up.
    failing: [bool; NODES],
    /// Faults that befell nobody, and were let befall another node.
    again: u32,
    operator: Operator,
}

impl Faults {
    /// This plan for these nodes, and what operators do meanwhile.
    pub fn new(seed: u64, plan: Vec<Episode>, acts: &[Fault], nature: &Nature, nodes: &Nodes) -> Self {
        let operator = Operator::new(seed, acts, nature, nodes);
        let rng = StdRng::seed_from_u64(seed ^ 0x6661_756c_7473);
        let (nature, nodes) = (nature.clone(), nodes.clone());
        let (running, up_at_ms, failing) = (Vec::new(), [None; NODES], [false; NODES]);
        Self { rng, nature, nodes, begin_ms: None, waiting: plan, running, up_at_ms, failing, again: 0, operator }
    }

    /// Does what is due; to be called between the steps of the simulation. True when all is over and every node up.
    pub fn step(&mut self, sim: &mut Sim<'_>) -> bool {
        let now = self.nature.elapsed_ms();
        let begin = *self.begin_ms.get_or_insert(now);
        self.look_for_ended(sim, now);
        for at in 0..NODES {
            if self.up_at_ms[at].is_some_and(|due| due <= now) {
                self.up_at_ms[at] = None;
                self.nature.log(format_args!("{} starts", self.nodes.host(at).name));
                sim.bounce(self.nodes.host(at).name.as_str());
            }
        }
        while self.waiting.first().is_some_and(|episode| begin + episode.from_ms <= now) {
            let mut episode = self.waiting.remove(0);
            let links_are_hit = self.running.iter().any(|r| LINKS.contains(&r.episode.fault));
            let is_up = (0..NODES).any(|at| self.nodes.router(at).is_some());
            if is_up && !(links_are_hit && LINKS.contains(&episode.fault)) {
                self.begin(sim, episode, now);
            } else {
                // Nobody is there to be hit, or what it would end is not over.
                episode.from_ms += LATER_MS;
                episode.to_ms += LATER_MS;
                self.waiting.push(episode);
                self.waiting.sort_by_key(|episode| episode.from_ms);
            }
        }
        self.insist();
        for i in (0..self.running.len()).rev() {
            let Running { episode, before, .. } = &self.running[i];
            let end = begin + episode.to_ms;
            let happened = self.nature.count(episode.fault) > *before;
            if end <= now && (happened || end + GRACE_MS <= now) {
                let all = || self.nature.events().join("\n");
                let again = !happened && self.again < AGAIN_MAX;
                assert!(happened || again, "this run does not count: {} never happened\n{}", episode.fault, all());
                let running = self.running.remove(i);
                self.end(sim, &running);
                if again {
                    // A node that was down, or did nothing of the kind: another one, then.
                    self.again += 1;
                    let (from_ms, long) = (now - begin, running.episode.to_ms - running.episode.from_ms);
                    self.waiting.push(Episode { from_ms, to_ms: from_ms + long, ..running.episode });
                    self.waiting.sort_by_key(|episode| episode.from_ms);
                    continue;
                }
                if running.episode.fault == Fault::DiskError && self.failing[running.at] {
                    self.crash(sim, running.at, now + 1_000);
                }
            }
        }
        let done = self.operator.step(sim, now - begin);
        done && self.waiting.is_empty() && self.running.is_empty() && self.up_at_ms.iter().all(Option::is_none)
    }

    /// A crash heals a disk that was to fail, and did not yet.
    fn insist(&mut self) {
        for Running { episode, at, before, .. } in &self.running {
            let happened = self.nature.count(episode.fault) > *before;
            if episode.fault == Fault::DiskError && !happened && self.nodes.router(*at).is_some() {
                self.nodes.host(*at).disk.fail();
                self.failing[*at] = true;
            }
        }
    }

    /// A node whose disk failed ends its process; one that ends for another reason is a bug.
    fn look_for_ended(&mut self, sim: &mut Sim<'_>, now: u64) {
        for at in 0..NODES {
            let Some(why) = self.nodes.fatal(at) else { continue };
            if self.nodes.host(at).leaving.get() && why.contains("was removed") {
                continue;
            }
            let name = self.nodes.host(at).name.clone();
            assert!(self.failing[at], "{name} ended by itself: {why}");
            self.nature.log(format_args!("{name} ends"));
            self.crash(sim, at, now + 1_000);
        }
    }

    /// The node that is hit: often one that leads.
    fn victim(&mut self) -> usize {
        let leader = self.nodes.leader(ShardId::new(self.rng.random_range(0..SHARDS)));
        let any = self.rng.random_range(0..NODES);
        let at = if self.rng.random_ratio(3, 5) { leader.unwrap_or(any) } else { any };
        let holds = |at: &usize| {
            let system = self.nodes.system();
            self.nodes.router(*at).is_some() && system.is_some_and(|system| system.held_by(self.nodes.id(*at)) > 0)
        };
        let up = |at: &usize| self.nodes.router(*at).is_some();
        let all: Vec<usize> = (at..at + NODES).map(|at| at % NODES).collect();
        // What befalls a node that holds nothing befalls nobody.
        all.iter().copied().find(holds).or_else(|| all.iter().copied().find(up)).unwrap_or(at)
    }

    fn crash(&mut self, sim: &mut Sim<'_>, at: usize, up_at_ms: u64) {
        let name = self.nodes.host(at).name.clone();
        self.nature.log(format_args!("{name} crashes"));
        sim.crash(name.as_str());
        let torn = if self.rng.random_bool(0.5) { 0 } else { self.rng.random_range(0..200) };
        self.nodes.crashed(at, torn);
        self.failing[at] = false;
        self.up_at_ms[at] = Some(up_at_ms);
    }

    fn begin(&mut self, sim: &mut Sim<'_>, episode: Episode, now: u64) {
        let (fault, before, at) = (episode.fault, self.nature.count(episode.fault), self.victim());
        let (name, long) = (self.nodes.host(at).name.clone(), episode.to_ms - episode.from_ms);
        self.nature.log(format_args!("{fault} at {name} for {long} ms"));
        let mut cuts = Vec::new();
        match fault {
            Fault::Crash => self.crash(sim, at, now + long),
            Fault::Blackout => {
                for at in 0..NODES {
                    let later = self.rng.random_range(0..1_000);
                    self.crash(sim, at, now + long / 2 + later);
                }
                self.nature.happened(Fault::Blackout);
            }
            Fault::Partition | Fault::OneWay => cuts = self.cut(sim, fault, &name),
            Fault::Stall => {
                self.others(&name).iter().for_each(|other| sim.hold(name.as_str(), other.as_str()));
                self.nature.hold(sim.lookup(name.as_str()), true);
            }
            Fault::SlowDisk => self.nodes.host(at).disk.slow_down(self.rng.random_range(20..300)),
            Fault::ClockSkew => {
                let skew = self.rng.random_range(200..5_000) * if self.rng.random_bool(0.5) { 1 } else { -1 };
                self.nodes.host(at).skew_ms.store(skew, std::sync::atomic::Ordering::Relaxed);
            }
            Fault::Loss | Fault::Delay | Fault::Duplication => {
                let of_a_thousand = self.rng.random_range(20..150);
                self.weather(fault, of_a_thousand);
            }
            // A disk fails as soon as its node is up.
            Fault::DiskError | Fault::Restart | Fault::Reordering => {}
            // The operator's part.
            Fault::Join | Fault::Drain | Fault::Resume | Fault::Remove | Fault::Move | Fault::Lead => {}
        }
        self.running.push(Running { episode, at, before, cuts });
    }

    fn end(&mut self, sim: &mut Sim<'_>, running: &Running) {
        let (fault, name) = (running.episode.fault, self.nodes.host(running.at).name.clone());
        self.nature.log(format_args!("{fault} at {name} is over"));
        match fault {
            Fault::Partition | Fault::OneWay => {
                for (from, to) in &running.cuts {
                    sim.repair_oneway(from.as_str(), to.as_str());
                    self.nature.cut(sim.lookup(from.as_str()), sim.lookup(to.as_str()), false);
                }
            }
            Fault::Stall => {
                self.nature.hold(sim.lookup(name.as_str()), false);
                self.others(&name).iter().for_each(|other| sim.release(name.as_str(), other.as_str()));
            }
            Fault::SlowDisk => self.nodes.host(running.at).disk.slow_down(0),
            Fault::ClockSkew => self.nodes.host(running.at).skew_ms.store(0, std::sync::atomic::Ordering::Relaxed),
            Fault::Loss | Fault::Delay | Fault::Duplication => self.weather(fault, 0),
            Fault::Crash | Fault::Blackout | Fault::DiskError | Fault::Restart | Fault::Reordering => {}
            Fault::Join | Fault::Drain | Fault::Resume | Fault::Remove | Fault::Move | Fault::Lead => {}
        }
    }

    fn weather(&self, fault: Fault, of_a_thousand: u32) {
        self.nature.change_weather(|weather| match fault {
            Fault::Loss => weather.lost = of_a_thousand,
            Fault::Delay => weather.delayed = of_a_thousand,
            _ => weather.doubled = of_a_thousand,
        });
    }

    fn others(&self, name: &str) -> Vec<String> {
        let all = self.nodes.names().into_iter().chain([PEOPLE.to_owned()]);
        all.filter(|other| other != name).collect()
    }

    /// Cuts a node off: from the other nodes, or from everybody; both ways, or one.
    fn cut(&mut self, sim: &Sim<'_>, fault: Fault, name: &str) -> Vec<(String, String)> {
        let with_people = self.rng.random_bool(0.5);
        let (out, mut cuts) = (self.rng.random_bool(0.5), Vec::new());
        for other in self.others(name).into_iter().filter(|other| with_people || other != PEOPLE) {
            if fault == Fault::Partition || out {
                cuts.push((name.to_owned(), other.clone()));
            }
            if fault == Fault::Partition || !out {
                cuts.push((other, name.to_owned()));
            }
        }
        for (from, to) in &cuts {
            sim.partition_oneway(from.as_str(), to.as_str());
            self.nature.cut(sim.lookup(from.as_str()), sim.lookup(to.as_str()), true);
        }
        cuts
    }
}
