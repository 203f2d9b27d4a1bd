//! What a node is asked of cuts, and messages of shards that have made some.

use magpie_protocol::{NodeId, ShardId};

use crate::{
    AskError, EntityId, Machine, Shard,
    remote::{Done, Request, RequestOf, Response},
    shard::cut::Through,
};

/// Longest part of a cut that is sent at a time, in bytes.
pub(crate) const CUT_PART_MAX: u64 = 512 * 1024;

/// Hands another shard's messages to this one.
pub(super) fn deliver<M: Machine>(
    shard: &Shard<M>,
    from: (ShardId, u64),
    first: u64,
    messages: Vec<(EntityId, Vec<u8>)>,
    done: Done<M>,
) {
    let response = |through: Through| match through.cut {
        0 => Response::Applied(through.number),
        _ => Response::Through(through),
    };
    shard.deliver(from, first, messages, Box::new(move |result| done(result.map(response))));
}

/// Does what is asked of this shard.
pub(super) fn serve<M: Machine>(me: NodeId, shard: Shard<M>, request: RequestOf<M>, done: Done<M>) {
    match request {
        Request::DeliverCut { from, cut, first, messages, .. } if shard.last_cut() >= cut => {
            deliver(&shard, (from, cut), first, messages, done);
        }
        Request::DeliverCut { from, cut, first, messages, .. } => {
            tokio::spawn(async move {
                match shard.cut(cut).await {
                    Ok(_) => deliver(&shard, (from, cut), first, messages, done),
                    Err(error) => done(Err(error)),
                }
            });
        }
        Request::Cut(_, cut) => {
            tokio::spawn(async move {
                let made = if cut == 0 { shard.next_cut().await } else { shard.cut(cut).await };
                done(made.map(|cut| Response::Cut(cut, me)));
            });
        }
        Request::CutPart { cut, offset, len, .. } => {
            tokio::spawn(async move {
                let part = shard.cut_part(cut, offset, len.min(CUT_PART_MAX)).await;
                done(part.map(|(held, bytes)| Response::CutPart(held, bytes)));
            });
        }
        Request::ForgetCut(_, cut) => {
            shard.forget_cut(cut);
            done(Ok(Response::Done));
        }
        _ => done(Err(AskError::Unavailable)),
    }
}
