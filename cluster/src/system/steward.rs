//! Carries out what [`placement`](super::placement) says, one step at a time, on the leader of shard 0.
//!
//! What it does is written down before it begins: another leader of shard 0 goes on where this one stopped.

use std::time::Duration;

use magpie_protocol::ShardId;

use super::{
    Change, SYSTEM_SHARD, Standing,
    placement::{Step, next_step},
};
use crate::{Machine, Router, consensus::Reshaping, remote::Request};

/// Pause between two looks; a change under way is looked at as often.
const EVERY: Duration = Duration::from_millis(200);
/// How long nothing moves after a node has become leader of shard 0: it does not know yet who is up.
const SETTLE: Duration = Duration::from_secs(3);

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
        while shard.leadership().leads {
            step(&router).await;
            tokio::time::sleep(EVERY).await;
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn step<M: Machine>(router: &Router<M>) {
    let Some(system) = router.system().now() else { return };
    let seen = router.pulse().seen(router);
    for (shard, place) in system.shards.iter().enumerate() {
        let Some(to) = place.becoming.clone() else { continue };
        // Nobody begins to vote who is not there: the shard could decide nothing any more.
        if !to.difference(&place.replicas).all(|node| seen.up.contains(node)) {
            continue;
        }
        let shard = ShardId::new(shard as u16);
        let reshaped = router.at_leader(Request::Reshape(shard, to.clone())).await;
        if !leads(router) {
            return;
        }
        match reshaped.and_then(|response| response.reshaped()) {
            Ok(Reshaping::Done) => change(router, Change::Moved { shard, replicas: to }).await,
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
