//! Which nodes watch which timelines of the shard, on its leader.

use std::sync::MutexGuard;

use magpie_protocol::{NodeId, TimelineId};

use super::{Core, Shard, lock};
use crate::{AskError, machine::Machine, watch::Signal};

impl<M: Machine> Shard<M> {
    /// Registers a node's watch of these timelines; a query that is answered after it misses no entry.
    pub fn watch(&self, node: NodeId, timelines: &[TimelineId]) -> Result<(), AskError> {
        self.register(node, timelines).map(drop)
    }

    fn register(&self, node: NodeId, timelines: &[TimelineId]) -> Result<MutexGuard<'_, Core<M>>, AskError> {
        let mut core = lock(&self.0.core);
        // What is registered where it does not lead any more, its next beat forgets.
        core.watches.lead(self.lead()?);
        for timeline in timelines {
            core.watches.watch(node, *timeline);
        }
        Ok(core)
    }

    /// The same for all that it watches, after something went wrong: what it is told from here on is counted from here.
    pub fn rewatch(&self, node: NodeId, timelines: &[TimelineId]) -> Result<(), AskError> {
        // Under one lock: what it is told is of a table that knows these, and comes before every later count.
        let mut core = self.register(node, timelines)?;
        let count = core.watches.count(node, 0);
        self.0.sinks.of(node).on_beat(self.0.id, count);
        drop(core);
        Ok(())
    }

    /// Ends a node's watch of these timelines.
    pub fn unwatch(&self, node: NodeId, timelines: &[TimelineId]) {
        let mut core = lock(&self.0.core);
        for timeline in timelines {
            core.watches.unwatch(node, *timeline);
        }
    }

    /// Those of these timelines that some node watches for its sessions.
    pub fn watched(&self, timelines: &[TimelineId]) -> Result<Vec<TimelineId>, AskError> {
        self.lead()?;
        let core = lock(&self.0.core);
        Ok(timelines.iter().filter(|timeline| core.watches.watchers(timeline).is_some()).copied().collect())
    }

    /// Tells the nodes that watch a timeline of something passing.
    pub fn signal(&self, signal: Signal) -> Result<(), AskError> {
        self.lead()?;
        let watchers = lock(&self.0.core).watches.watchers(&signal.timeline).cloned();
        for node in watchers.iter().flat_map(|nodes| nodes.iter()) {
            self.0.sinks.of(*node).on_signal(signal);
        }
        Ok(())
    }

    /// Those of these timelines that no node watches. Where this replica has not led for long, nodes may not have
    /// registered all that they watch: `Unavailable`.
    pub fn unwatched(&self, timelines: &[TimelineId]) -> Result<Vec<TimelineId>, AskError> {
        let term = self.lead()?;
        let mut core = lock(&self.0.core);
        core.watches.lead(term);
        if !core.watches.is_settled() {
            return Err(AskError::Unavailable);
        }
        Ok(timelines.iter().filter(|timeline| core.watches.watchers(timeline).is_none()).copied().collect())
    }
}
