//! What must be done now and then in every shard: the operator's policy offered, accounts deleted whose time has come.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use magpie_cluster::EntityId;
use magpie_protocol::Slot;

use super::Shared;
use crate::{
    account,
    machine::{Command, Query, View, one_of_each},
    policy::Policy,
};

/// How often.
const EVERY: Duration = Duration::from_secs(30);
/// How long a node that has just started waits: its shards must have leaders first.
const AT_FIRST: Duration = Duration::from_secs(1);

/// Runs as long as the node does.
pub(super) async fn run(shared: Arc<Shared>) {
    let slots = one_of_each(&shared.router);
    let offers = slots.iter().map(|slot| offer_when_leading(&shared, *slot));
    tokio::join!(join_all(offers), now_and_then(&shared, &slots));
}

/// Offers the policy to a shard each time that this node begins to lead it: people are not to wait for it.
async fn offer_when_leading(shared: &Shared, slot: Slot) {
    let mut leadership = shared.router.shard_of(slot).follow_leadership();
    while leadership.wait_for(|now| now.leads).await.is_ok() {
        offer_policy(shared, slot).await;
        if leadership.wait_for(|now| !now.leads).await.is_err() {
            return;
        }
    }
}

async fn now_and_then(shared: &Shared, slots: &[Slot]) {
    let mut pause = AT_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = EVERY;
        for slot in slots {
            // Its leader does it; of two that think so one is refused.
            if shared.router.shard_of(*slot).leadership().leads {
                offer_policy(shared, *slot).await;
                delete_accounts(shared, *slot).await;
            }
        }
    }
}

async fn offer_policy(shared: &Shared, slot: Slot) {
    let policy = Policy::from(&shared.config.policy);
    if policy.version > 0 && !matches!(shared.router.query(slot, Query::Policy(policy.version)).await, Ok(View::Known))
    {
        _ = shared.router.ask(EntityId::handle(slot), Command::Policy(policy)).await;
    }
}

async fn delete_accounts(shared: &Shared, slot: Slot) {
    let now_ms = (shared.clock)();
    let due = Query::Account(account::Query::Due { slot, now_ms });
    let Ok(View::Account(account::View::Due(users))) = shared.router.query(slot, due).await else { return };
    for user in users {
        let purged = shared.router.ask(EntityId::user(user), Command::Account(account::Command::Purge)).await;
        tracing::info!(%user, ?purged, "an account was deleted, as its owner asked");
    }
}
