//! Carries out what [`placement`](super::placement) says, one step at a time, on the leader of shard 0.
//!
//! What it does is written down before it begins: another leader of shard 0 goes on where this one stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use magpie_protocol::{NodeId, ShardId};
use tokio::{sync::Notify, time::Instant};

use super::{
    Change, SYSTEM_SHARD, Standing, System,
    placement::{Seen, Step, lead_out, next_step, plan},
};
use crate::{AskError, Machine, Router, consensus::Reshaping, remote::Request};

/// Pause between two looks; a change under way is looked at as often.
const EVERY: Duration = Duration::from_millis(200);
/// How long nothing moves after a node has become leader of shard 0: it does not know yet who is up.
const SETTLE: Duration = Duration::from_secs(3);

/// How long a lead that was moved by hand stays where it is.
const REST: Duration = Duration::from_secs(600);
/// How often a lead is tried to be handed over before a move goes on without.
const HAND_OVERS_MAX: u32 = 10;

/// What operators say to whoever carries steps out. It is forgotten when another node does.
#[derive(Default)]
pub(crate) struct Wishes {
    resting: Mutex<BTreeMap<ShardId, Instant>>,
    wake: Notify,
}

impl Wishes {
    fn resting(&self) -> MutexGuard<'_, BTreeMap<ShardId, Instant>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lead of a shard is moved by hand.
    pub(crate) fn rest(&self, shard: ShardId) {
        self.resting().insert(shard, Instant::now() + REST);
    }

    /// Everything may be evened out again, at once.
    pub(crate) fn go(&self) {
        self.resting().clear();
        self.wake.notify_one();
    }

    /// Shards whose lead stays.
    pub(crate) fn now(&self) -> BTreeSet<ShardId> {
        let mut resting = self.resting();
        resting.retain(|_, until| Instant::now() < *until);
        resting.keys().copied().collect()
    }
}

impl<M: Machine> Router<M> {
    /// Lets another replica lead a shard, as an operator wishes: it is left there for ten minutes.
    pub async fn lead_by_hand(&self, shard: ShardId, to: NodeId) -> Result<(), AskError> {
        self.at_leader(Request::Lead(shard, to)).await?.done()
    }

    /// What is going to move, as the leader of shard 0 sees it; with `go` it begins at once, and with what was moved by
    /// hand too.
    pub async fn balance(&self, go: bool) -> Result<Vec<Step>, AskError> {
        self.at_leader(Request::Balance(go)).await?.plan()
    }

    /// The answer to that, where shard 0 is led.
    pub(crate) fn plan(&self, go: bool) -> Vec<Step> {
        if go {
            self.wishes().go();
        }
        self.system().now().map_or_else(Vec::new, |system| plan(&system, &self.pulse().seen(self)))
    }
}

/// How often the lead of a shard was not handed over.
type Failures = BTreeMap<ShardId, u32>;

/// The lead leaves a replica that goes before it does. Whether the move may go on.
async fn led_by_one_that_stays<M: Machine>(
    router: &Router<M>,
    system: &System,
    seen: &Seen,
    shard: ShardId,
    failures: &mut Failures,
) -> bool {
    let Some(to): Option<NodeId> = lead_out(system, seen, shard) else { return true };
    let failed = failures.entry(shard).or_default();
    match router.hand_over(shard, to).await {
        Ok(()) => *failed = 0,
        Err(error) => {
            tracing::debug!(%shard, %to, %error, "the lead stays with a replica that goes");
            *failed += 1;
        }
    }
    // Whoever leads when it is let go costs an election, no more.
    *failed == 0 || *failed > HAND_OVERS_MAX
}

/// Runs as long as the node does.
pub(crate) async fn run<M: Machine>(router: Router<M>) {
    let Some(shard) = router.shard(SYSTEM_SHARD).cloned() else { return };
    let mut leadership = shard.follow_leadership();
    while leadership.wait_for(|now| now.leads).await.is_ok() {
        tokio::time::sleep(SETTLE).await;
        // Whoever founded the cluster may have gone before the record was in its place.
        if let Some(first) = router.system().now().filter(|system| system.version == 1) {
            change(&router, Change::Found((*first).clone())).await;
        }
        let mut failures = Failures::new();
        while shard.leadership().leads {
            step(&router, &mut failures).await;
            _ = tokio::time::timeout(EVERY, router.wishes().wake.notified()).await;
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn step<M: Machine>(router: &Router<M>, failures: &mut Failures) {
    let Some(system) = router.system().now() else { return };
    let seen = router.pulse().seen(router);
    for (shard, place) in system.shards.iter().enumerate() {
        let Some(to) = place.becoming.clone() else { continue };
        // Nobody begins to vote who is not there: the shard could decide nothing any more.
        if !to.difference(&place.replicas).all(|node| seen.up.contains(node)) {
            continue;
        }
        let shard = ShardId::new(shard as u16);
        if !led_by_one_that_stays(router, &system, &seen, shard, failures).await {
            continue;
        }
        let reshaped = router.at_leader(Request::Reshape(shard, to.clone())).await;
        if !leads(router) {
            return;
        }
        match reshaped.and_then(|response| response.reshaped()) {
            Ok(Reshaping::Done) => {
                failures.remove(&shard);
                change(router, Change::Moved { shard, replicas: to }).await;
            }
            Ok(Reshaping::Learning { behind }) => tracing::debug!(%shard, behind, "new replicas catch up"),
            Err(error) => tracing::debug!(%shard, %error, "the replicas of a shard do not change yet"),
        }
    }
    match next_step(&system, &seen) {
        Some(Step::Move { shard, to }) => {
            tracing::info!(%shard, to = ?to.iter().map(ToString::to_string).collect::<Vec<_>>(), "replicas move");
            change(router, Change::Move { shard, to }).await;
        }
        Some(Step::Lead { shard, from, to }) => {
            tracing::info!(%shard, %from, %to, "a leader moves");
            if let Err(error) = router.hand_over(shard, to).await {
                tracing::debug!(%shard, %error, "the leader stays");
            }
        }
        None => {
            let part = system.nodes.values().filter(|m| m.standing != Standing::Removed && m.disk.is_some());
            let mine = router.pulse().level();
            let level = part.map(|member| member.level).min().unwrap_or(mine).min(mine);
            if level > system.level {
                change(router, Change::Raise { level }).await;
            }
        }
    }
}

fn leads<M: Machine>(router: &Router<M>) -> bool {
    router.shard(SYSTEM_SHARD).is_some_and(|shard| shard.leadership().leads)
}

async fn change<M: Machine>(router: &Router<M>, change: Change) {
    match router.change(change).await {
        Ok(Ok(())) => {}
        Ok(Err(refusal)) => tracing::warn!(%refusal, "a change of the cluster was refused"),
        Err(error) => tracing::debug!(%error, "a change of the cluster waits"),
    }
}
