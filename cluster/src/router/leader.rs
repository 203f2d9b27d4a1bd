//! Who leads a shard, and asking there.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use magpie_protocol::{NodeId, ShardId};
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

    /// Whether a request may be sent there: always for the first time, and to who is newly known to lead; else as often
    /// as retries are left.
    fn may_send(&self, tries: &mut Tries, to: NodeId, is_known: bool) -> bool {
        let redirected = is_known && tries.last != Some(to) && tries.redirected < REDIRECTS_MAX;
        tries.again = tries.sent > 0 && !redirected;
        if tries.again && !self.retries().take(Instant::now().into_std()) {
            metrics::counter!(crate::metrics::RETRIES_HELD).increment(1);
            return false;
        }
        tries.sent += 1;
        tries.redirected += u32::from(redirected);
        tries.last = Some(to);
        true
    }

    fn retries(&self) -> std::sync::MutexGuard<'_, magpie_protocol::RetryBudget> {
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
                    match self.may_send(&mut tries, leader, known.is_some()) {
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
