//! One run of one seed.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    rc::Rc,
    time::Duration,
};

use anyhow::anyhow;
use magpie_node::authority::ClusterAuthority;

use super::{
    check::Leaders,
    disk::Sabotage,
    faults::{Faults, draw},
    nature::{Fault, Nature},
    nodes::{GENERATIONS, NODES, Nodes, id, keys},
    operator,
    people::{self, HEAL_WITHIN, HOST, Outcome, Phase, Stage},
};

/// A run that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(300);

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub seed: u64,
    /// A known bug to put back.
    pub sabotage: Option<Sabotage>,
    /// Without faults.
    pub calm: bool,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Report {
    pub outcome: Outcome,
    /// How often each fault really happened.
    pub faults: BTreeMap<Fault, u64>,
    pub events: Vec<String>,
    /// Of everything that was noted.
    pub events_hash: u64,
    pub packets: u64,
    /// Of every packet: when, from where, to where, how long.
    pub packets_hash: u64,
    pub simulated: Duration,
}

/// Keys for every node; returns the authority that devices trust.
fn make_keys(dir: &Path) -> anyhow::Result<Vec<u8>> {
    let ca = dir.join("ca");
    ClusterAuthority::create(&ca)?;
    let authority = ClusterAuthority::open(&ca)?;
    for (at, generation) in (0..NODES).flat_map(|at| (1..=GENERATIONS).map(move |generation| (at, generation))) {
        authority.issue_node(id(at, generation), 1, &keys(dir, at, generation))?;
    }
    Ok(std::fs::read(ca.join("devices-ca.pem"))?)
}

/// Runs a seed. What breaks a promise panics.
///
/// # Errors
/// When a node does not start, or the run does not come to its end.
pub fn run(setup: Setup) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let ca = make_keys(dir.path())?;
    let nature = Nature::new(setup.seed);
    let nodes = Nodes::new(&nature, setup.seed, dir.path(), setup.sabotage);
    let (stage, outcome) = (Stage::default(), Rc::new(RefCell::new(Outcome::default())));
    let mut sim = turmoil::Builder::new()
        .rng_seed(setup.seed)
        .simulation_duration(LONGEST)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(15))
        .udp_capacity(4096)
        .build();
    for (at, name) in nodes.names().into_iter().enumerate() {
        let nodes = nodes.clone();
        sim.host(name, move || nodes.clone().run(at));
    }
    let talk = {
        let (nature, nodes, stage, outcome) = (nature.clone(), nodes.clone(), stage.clone(), outcome.clone());
        async move {
            *outcome.borrow_mut() = Box::pin(people::live(setup, nature, nodes, stage, ca)).await?;
            Ok(())
        }
    };
    sim.client(HOST, talk);
    let (plan, acts) = if setup.calm { Default::default() } else { (draw(setup.seed), operator::draw(setup.seed)) };
    let planned: Vec<Fault> = plan.iter().map(|episode| episode.fault).chain(acts.clone()).collect();
    let mut faults = Faults::new(setup.seed, plan, &acts, &nature, &nodes);
    let (mut healing_since, mut leaders) = (None, Leaders::default());
    loop {
        nature.advance(1);
        if stage.phase() == Phase::Talking && faults.step(&mut sim) {
            // A calm run talks for a while, too.
            let begun = *healing_since.get_or_insert(nature.elapsed_ms());
            if nature.elapsed_ms() - begun >= if setup.calm { 5_000 } else { 0 } {
                nature.log("the faults are over");
                stage.enter(Phase::Healing);
            }
        }
        for at in 0..NODES {
            let why = nodes.fatal(at).filter(|_| stage.phase() != Phase::Talking);
            assert_eq!(why, None, "n{} ended by itself", at + 1);
        }
        leaders.look(&nodes);
        if sim.step().map_err(|error| anyhow!("{error}"))? {
            break;
        }
    }
    let counts = nature.counts();
    for fault in planned {
        assert!(counts.contains_key(&fault), "this run does not count: {fault} never happened");
    }
    let (events, (packets, packets_hash)) = (nature.events(), nature.packets());
    let mut hasher = DefaultHasher::new();
    events.hash(&mut hasher);
    let simulated = Duration::from_millis(nature.elapsed_ms());
    let outcome = outcome.borrow().clone();
    assert!(outcome.healed_ms <= HEAL_WITHIN.as_millis() as u64);
    Ok(Report { outcome, faults: counts, events_hash: hasher.finish(), events, packets, packets_hash, simulated })
}
