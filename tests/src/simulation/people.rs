//! The host on which every device lives: people talk through the SDK, make groups, and are asked in the end.

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use std::{cell::Cell, rc::Rc, time::Duration};

use magpie_client::{ConversationId, Error, Network, NetworkConfig};
use magpie_protocol::ShardId;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    check,
    nature::Nature,
    network::Socket,
    nodes::{Nodes, SHARDS, endpoint_seed},
    repeater::Repeater,
    run::Setup,
};
use crate::{
    Place,
    crowd::{Crowd, Shape},
    until,
};

/// The name of the host.
pub const HOST: &str = "people";
/// How long after the last fault everything must be well again.
pub const HEAL_WITHIN: Duration = Duration::from_secs(45);
const PATIENCE: Duration = Duration::from_secs(30);
const PEOPLE: usize = 6;

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// People sign up and meet; nothing goes wrong yet.
    Gathering,
    /// They talk while faults come and go.
    Talking,
    /// The faults are over.
    Healing,
}

/// What the people's host and the simulation share.
#[derive(Clone)]
pub struct Stage(Rc<Cell<Phase>>);

impl Default for Stage {
    fn default() -> Self {
        Self(Rc::new(Cell::new(Phase::Gathering)))
    }
}

impl Stage {
    /// How far the run is.
    pub fn phase(&self) -> Phase {
        self.0.get()
    }

    /// The run goes on to this.
    pub fn enter(&self, phase: Phase) {
        self.0.set(phase);
    }
}

/// What a run came to, as the people have it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub acknowledged: usize,
    pub delivered: usize,
    pub groups: usize,
    /// Numbers that were asked about again.
    pub repeated: usize,
    /// Reads that did not show what had been acknowledged before they began.
    pub stale_reads: u64,
    /// How long after the last fault every send was answered.
    pub healed_ms: u64,
}

/// A group that was made while things went wrong, and who is in it, by place in the crowd.
pub struct Founded {
    pub conversation: ConversationId,
    pub members: Vec<usize>,
    /// Who was removed again, and the number of the entry that says so.
    pub removed: Option<(usize, u64)>,
}

/// Everything that people do in a run.
pub async fn live(setup: Setup, nature: Nature, nodes: Nodes, stage: Stage, ca: Vec<u8>) -> turmoil::Result<Outcome> {
    let servers = Nodes::devices_addresses();
    let led = async || (0..SHARDS).all(|shard| nodes.leader(ShardId::new(shard)).is_some());
    until("every shard has a leader", PATIENCE, led).await;
    nature.log("every shard has a leader");
    let socket = Socket::bind(&nature, HOST, 0).await?;
    let network = Network::over(NetworkConfig::new(ca.clone()), socket, endpoint_seed(setup.seed, b"people"))?;
    let request_timeout = Duration::from_secs(1);
    let place = Place { network, server: servers[0], others: servers[1..].to_vec(), request_timeout };
    let shape = Shape { people: PEOPLE, second_devices: 1, groups: vec![0..4, 0..PEOPLE] };
    let mut crowd = Box::pin(Crowd::gather(&place, &shape)).await;
    let mut repeater = Box::pin(Repeater::begin(&setup, &nature, &servers, &ca)).await?;
    nature.log("everybody is here");
    stage.enter(Phase::Talking);
    crowd.talk(setup.seed, Duration::from_millis(400));
    let (founded, ()) = tokio::join!(Box::pin(found(&setup, &crowd, &stage)), Box::pin(repeater.go_on(&stage)));
    let healing = tokio::time::Instant::now();
    let silent = tokio::time::timeout(HEAL_WITHIN, crowd.fall_silent()).await;
    assert!(silent.is_ok(), "not healed within {HEAL_WITHIN:?}: {:?}", crowd.counts());
    let healed_ms = healing.elapsed().as_millis() as u64;
    nature.log(format_args!("healed: {:?}", crowd.counts()));
    let delivered = Box::pin(crowd.check()).await;
    Box::pin(check::lists(&crowd, &founded)).await;
    Box::pin(check::those_who_stayed(&crowd, &founded)).await;
    check::nothing_foreign(&crowd, &founded);
    Box::pin(repeater.check(&crowd)).await;
    Box::pin(check::replicas(&nodes, &crowd, &founded, &nature)).await;
    for line in crowd.ledger().lines() {
        nature.log(line);
    }
    let acknowledged = crowd.counts().acked;
    let (repeated, stale_reads) = repeater.counts();
    Ok(Outcome { acknowledged, delivered, groups: founded.len(), repeated, stale_reads, healed_ms })
}

/// Makes groups as long as things go wrong.
async fn found(setup: &Setup, crowd: &Crowd, stage: &Stage) -> Vec<Founded> {
    let mut rng = StdRng::seed_from_u64(setup.seed ^ 0x0066_6f75_6e64);
    let mut founded = Vec::new();
    while stage.phase() == Phase::Talking {
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..1_500))).await;
        let mut members: Vec<usize> = (0..PEOPLE).collect();
        members.shuffle(&mut rng);
        members.truncate(3);
        let person = |at: usize| crowd.everybody().nth(at).map(|(person, _)| person);
        let Some(founder) = person(members[0]) else { continue };
        let others: Vec<_> = members[1..].iter().filter_map(|at| Some(person(*at)?.id)).collect();
        let (nonce, title) = (rng.random(), format!("group {}", founded.len()));
        let conversation = loop {
            match founder.client.create_group_once(nonce, &title, others.clone()).await {
                Ok(conversation) => break conversation,
                Err(Error::Refused(error)) => panic!("{title} was refused: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let mut removed = None;
        if rng.random_bool(0.5) {
            let (gone, founder) = (members[2], &founder.client);
            let sent = founder.remove(conversation, others[1]).expect("it is numbered").posted().await;
            removed = Some((gone, sent.expect("an owner may remove").number));
            let after = founder.say(conversation, "now that we are alone").expect("it is numbered").posted().await;
            after.expect("a member may speak");
        }
        founded.push(Founded { conversation, members, removed });
    }
    founded
}
