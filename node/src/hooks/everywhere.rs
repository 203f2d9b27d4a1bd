//! What operators ask of the hooks of all nodes: the leader of each shard follows it, and knows what waits.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use magpie_cluster::AskError;
use magpie_protocol::{ShardId, Slot};

use super::{
    ReceiverStatus,
    query::{Act, Query, View},
};
use crate::machine::{self, MagpieRouter, one_of_each};

/// How the receivers are on the leader of the shard of this slot, after this was done with one of them.
async fn ask(router: &MagpieRouter, slot: Slot, act: Option<(String, Act)>) -> Result<Vec<ReceiverStatus>, AskError> {
    let query = Query::Receivers { shard: router.shard_of(slot).id(), act };
    match router.query(slot, machine::Query::Hooks(query)).await? {
        machine::View::Hooks(View::Receivers(receivers)) => Ok(receivers),
        _ => Err(AskError::Unavailable),
    }
}

/// The same of every shard, each with one of its slots.
async fn ask_all(router: &MagpieRouter) -> Vec<(Slot, Result<Vec<ReceiverStatus>, AskError>)> {
    join_all(one_of_each(router).into_iter().map(async |slot| (slot, ask(router, slot, None).await))).await
}

/// How each receiver is on each node that leads a shard; and the shards of which nobody said anything.
pub async fn status(router: &MagpieRouter) -> (Vec<ReceiverStatus>, Vec<ShardId>) {
    let (mut hooks, mut silent) = (BTreeMap::<(String, String), ReceiverStatus>::new(), Vec::new());
    for (slot, found) in ask_all(router).await {
        match found {
            Err(_) => silent.push(router.shard_of(slot).id()),
            Ok(found) => found.into_iter().for_each(|one| {
                let known = hooks.entry((one.receiver.clone(), one.node.clone()));
                known.and_modify(|known| known.add(&one)).or_insert(one);
            }),
        }
    }
    (hooks.into_values().collect(), silent)
}

/// Has every node that leads a shard do something with its receiver of this name. False where there is none.
///
/// # Errors
/// When the leader of a shard does not answer: the others have done it.
pub async fn act(router: &MagpieRouter, name: &str, act: Act) -> Result<bool, AskError> {
    let (mut nodes, mut failed) = (BTreeMap::new(), None);
    for (slot, found) in ask_all(router).await {
        match found {
            Ok(found) => nodes.extend(found.into_iter().filter(|one| one.receiver == name).map(|one| (one.node, slot))),
            Err(error) => failed = Some(error),
        }
    }
    for slot in nodes.values() {
        ask(router, *slot, Some((name.to_owned(), act))).await?;
    }
    failed.map_or(Ok(!nodes.is_empty()), Err)
}
