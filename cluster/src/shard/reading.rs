//! Fresh reads: what they answer was true after they were asked, whoever leads meanwhile.
//!
//! The leader asks a majority whether it still leads and applies what was committed until then. One such round is for
//! all reads that wait when it begins.

use std::{mem, sync::Mutex, time::Duration};

use tokio::sync::{Notify, oneshot};

use super::{Core, Shard, lock};
use crate::{AskError, consensus::ProposeError, machine::Machine};

/// Reads that wait for a round.
#[derive(Default)]
pub(crate) struct Waiting {
    reads: Mutex<Vec<oneshot::Sender<Result<(), AskError>>>>,
    ready: Notify,
}

impl<M: Machine> Shard<M> {
    /// Returns when a read from what is applied here is fresh.
    async fn freshen(&self) -> Result<(), AskError> {
        self.lead()?;
        let (done, fresh) = oneshot::channel();
        lock(&self.0.reading.reads).push(done);
        self.0.reading.ready.notify_one();
        fresh.await.unwrap_or(Err(AskError::Unavailable))
    }

    /// Answers a read from the leader's applied state.
    pub fn query(&self, query: M::Query) -> Result<M::View, AskError> {
        self.look_if(query, || self.lead().map(drop))
    }

    /// Answers a read from what this replica has applied, which may lag behind the leader.
    pub fn look(&self, query: M::Query) -> Result<M::View, AskError> {
        self.look_if(query, || Ok(()))
    }

    fn look_if(&self, query: M::Query, may: impl FnOnce() -> Result<(), AskError>) -> Result<M::View, AskError> {
        let mut core = lock(&self.0.core);
        // Not before: the lock may have been waited for.
        may()?;
        self.0.check(&core)?;
        let Core { store, machine, .. } = &mut *core;
        let view = machine.query(store, query);
        let fault = core.store.fault().map(ToString::to_string);
        drop(core);
        match fault {
            Some(fault) => Err(self.0.state_failed(&fault)),
            None => Ok(view),
        }
    }

    /// Whether this read must be fresh, and that is not so by itself.
    pub(crate) fn wants_fresh(&self, query: &M::Query) -> bool {
        self.0.node.transport.is_some() && M::is_fresh(query)
    }

    /// Answers a read that must be fresh.
    pub(crate) async fn query_fresh(&self, query: M::Query) -> Result<M::View, AskError> {
        self.freshen().await?;
        self.query(query)
    }

    /// How far behind its leader this replica may be; `None` when it does not know. A leader is not behind itself.
    pub fn lag(&self) -> Option<Duration> {
        if self.leadership().leads {
            return Some(Duration::ZERO);
        }
        if self.is_hosted() { self.0.followed.lag(self.applied_index()) } else { None }
    }

    /// Answers a read that may be behind by so much, and says by how much it may be; `None` where this replica cannot.
    pub(crate) fn query_behind(&self, query: M::Query, by: Duration) -> Option<Result<(M::View, Duration), AskError>> {
        let lag = self.lag().filter(|lag| *lag <= by)?;
        Some(self.look(query).map(|view| (view, lag)))
    }

    /// Makes rounds as long as the shard runs.
    pub(crate) async fn serve_reads(self) {
        loop {
            let reads = mem::take(&mut *lock(&self.0.reading.reads));
            if reads.is_empty() {
                self.0.reading.ready.notified().await;
                continue;
            }
            let result = match self.group() {
                Some(group) => group.read_index().await.map(drop).map_err(|error| match error {
                    ProposeError::NotLeader | ProposeError::LostLead => AskError::NotLeader { leader: None },
                    ProposeError::Stopped(_) => AskError::Unavailable,
                }),
                None => Err(AskError::NotLeader { leader: None }),
            };
            reads.into_iter().for_each(|read| _ = read.send(result.clone()));
        }
    }
}
