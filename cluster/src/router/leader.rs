//! Who leads a shard, and asking there.

use std::{
    sync::{MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use magpie_protocol::{NodeId, RetryBudget, ShardId};
use tokio::{sync::watch, time::Instant};

use crate::{
    AskError, Machine, Router, Shard,
    consensus::Leadership,
    priority,
    remote::{Remote, Request, RequestOf, ResponseOf, request_level},
};

/// How long a request waits for a shard to have a leader, after one was lost.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);
/// How long a node that holds no replica of a shard waits for the answer of its leader.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// How long it waits before it looks again, if no change is told.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Nodes to which one request may be sent on because they are said to lead. Beyond that it is asked again, and again.
const REDIRECTS_MAX: u32 = 3;

/// Whom a request was sent to.
#[derive(Default)]
struct Tries {
    sent: u32,
    /// So often to another node than before, which was said to lead.
    redirected: u32,
    last: Option<NodeId>,
    /// The last try was asking again.
    again: bool,
}

impl Tries {
    /// Whether a request may be sent there: always for the first time, and to who is newly known to lead; else as often
    /// as retries are left.
    fn may_go(&mut self, to: NodeId, is_known: bool, retry: impl FnOnce() -> bool) -> bool {
        let redirected = is_known && self.last != Some(to) && self.redirected < REDIRECTS_MAX;
        self.again = self.sent > 0 && !redirected;
        if self.again && !retry() {
            metrics::counter!(crate::metrics::RETRIES_HELD).increment(1);
            return false;
        }
        self.sent += 1;
        self.redirected += u32::from(redirected);
        self.last = Some(to);
        true
    }
}

impl<M: Machine> Router<M> {
    /// Who leads a shard, as far as this node knows.
    pub fn leader_of(&self, shard: &Shard<M>) -> Option<NodeId> {
        let Leadership { leader, leads, .. } = shard.leadership();
        if leads {
            return Some(self.0.me);
        }
        let told = || self.0.leaders.get(usize::from(shard.id().get())).map(|leader| leader.load(Ordering::Relaxed));
        leader.or_else(|| told().filter(|bits| *bits != 0).map(NodeId::from_bits))
    }

    fn note_leader(&self, shard: ShardId, leader: Option<NodeId>) {
        if let Some(known) = self.0.leaders.get(usize::from(shard.get())) {
            known.store(leader.map_or(0, NodeId::bits), Ordering::Relaxed);
        }
    }

    /// Whom to ask of a shard whose leader is not known: its replicas in turn.
    fn anyone(&self, shard: &Shard<M>, turn: usize) -> Option<NodeId> {
        let system = self.0.system.now()?;
        let replicas = system.place(shard.id())?.replicas.iter().filter(|node| **node != self.0.me);
        let replicas: Vec<NodeId> = replicas.copied().collect();
        replicas.get(turn % replicas.len().max(1)).copied()
    }

    fn retries(&self) -> MutexGuard<'_, RetryBudget> {
        self.0.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what the other node would refuse.
    fn is_let_in(&self, remote: &Remote<M>, there: NodeId) -> Result<(), AskError> {
        let Some(priority) = priority::current() else { return Ok(()) };
        match remote.level_of(there) {
            level if priority > level => {
                metrics::counter!(crate::metrics::REFUSED_EARLY).increment(1);
                Err(self.refusal(priority, level))
            }
            _ => Ok(()),
        }
    }

    /// Asks the leader of a shard, here or there. Where nothing happened, because it leads no longer or was not
    /// reached, whoever leads next is asked; where the outcome is not known, the caller is told.
    pub(crate) async fn at_leader(&self, request: RequestOf<M>) -> Result<ResponseOf<M>, AskError> {
        let deadline = Instant::now() + LEADERLESS_MAX;
        // An older build could not even read it. Nobody but itself is asked by a node that knows of no cluster yet.
        let (needs, at) = (request_level::<M>(&request), self.0.system.now().map_or(u32::MAX, |system| system.level));
        if needs > at {
            return Err(AskError::NotYet { needs });
        }
        let shard = request.shard().and_then(|shard| self.shard(shard)).ok_or(AskError::Unavailable)?;
        let mut changes = shard.follow_leadership();
        let (mut told, mut turn, mut tries) = (None, 0, Tries::default());
        loop {
            changes.mark_unchanged();
            let leads = shard.leadership().leads;
            let known = told.take().or(self.leader_of(shard));
            let leader = known.or_else(|| self.anyone(shard, turn));
            turn += 1;
            let there = self.0.remote.as_ref().zip(leader).filter(|(_, leader)| *leader != self.0.me);
            let result = match there {
                _ if leads => Some(self.here(request.clone()).await),
                Some((remote, leader)) => {
                    self.is_let_in(remote, leader)?;
                    match tries.may_go(leader, known.is_some(), || self.retries().take(Instant::now().into_std())) {
                        true => Some(self.there((remote, leader), shard, &request, &mut changes).await),
                        false => None,
                    }
                }
                None => Some(Err(AskError::NotLeader { leader: None })),
            };
            match result {
                // Others look for the leader meanwhile, and what they find is known to all.
                None => {}
                Some(Err(AskError::NotLeader { leader })) => {
                    told = leader.filter(|node| *node != self.0.me);
                    self.note_leader(shard.id(), told);
                }
                Some(result) => {
                    if !leads && result.is_ok() {
                        self.retries().served(tries.again);
                    }
                    // One that does not answer is not taken for the leader because of that.
                    if !matches!(result, Err(AskError::Unknown)) {
                        self.note_leader(shard.id(), leader);
                    }
                    return result;
                }
            }
            if Instant::now() >= deadline {
                return Err(AskError::Unavailable);
            }
            // Whoever was named is asked at once.
            if told.is_none() {
                _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Asks another node, as long as it may be the leader.
    async fn there(
        &self,
        (remote, leader): (&Remote<M>, NodeId),
        shard: &Shard<M>,
        request: &RequestOf<M>,
        changes: &mut watch::Receiver<Leadership>,
    ) -> Result<ResponseOf<M>, AskError> {
        tokio::select! {
            result = remote.call(leader, request) => result,
            // It will hardly answer. What may be asked twice is asked again; of the rest the outcome is unknown.
            _ = changes.wait_for(|now| now.leader.is_some_and(|next| next != leader)) => match request {
                Request::Submit(..) => Err(AskError::Unknown),
                _ => Err(AskError::NotLeader { leader: None }),
            },
            // Without a replica here nobody tells of another leader: others are asked next time.
            () = tokio::time::sleep(SILENT_MAX), if !shard.is_hosted() => match request {
                Request::Submit(..) => {
                    self.note_leader(shard.id(), None);
                    Err(AskError::Unknown)
                }
                _ => Err(AskError::NotLeader { leader: None }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::new(1, 1);
    const B: NodeId = NodeId::new(2, 1);

    #[test]
    fn following_a_leader_that_is_named_is_free_and_asking_again_is_not() {
        let (none, one) = (|| false, || true);
        let mut tries = Tries::default();
        assert!(tries.may_go(A, true, none) && !tries.again, "the first time");
        assert!(!tries.may_go(A, true, none), "the same again");
        assert!(tries.may_go(A, true, one) && tries.again);
        assert!(tries.may_go(B, true, none) && !tries.again, "another is named");
        assert!(!tries.may_go(A, false, none), "a guess");
        // Two that name each other.
        let free = (0..20).filter(|turn| tries.may_go(if turn % 2 == 0 { A } else { B }, true, none)).count();
        assert!(free <= 1, "{free}");
        let mut tries = Tries::default();
        assert!(tries.may_go(A, false, none), "nobody is known: the first guess is free");
        assert!(!tries.may_go(B, false, none));
        assert!(tries.may_go(B, true, none), "until one is");
    }
}
