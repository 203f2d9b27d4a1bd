//! How important the request is that a task works for. It is a plain number, 0 the most important, whose meaning is its
//! giver's; what the task asks of other nodes inherits it, and they may refuse what is less important than they let in.
//!
//! What has no priority is the cluster's own: it is never refused for its sake.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use magpie_protocol::NodeId;
use tokio::{task::JoinHandle, time::Instant};

/// How long it counts what a node said that it lets in. Every node is asked how it is once a second.
const LEVEL_TIME_MAX: Duration = Duration::from_secs(4);

tokio::task_local! {
    static PRIORITY: Option<u16>;
}

/// Who says what is let in. Calls must be short: they come with each request of another node.
pub trait Admission: Send + Sync + 'static {
    /// Whether a request of this priority, from another node, is let in. It is counted.
    fn admit(&self, priority: u16) -> bool;
    /// The last priority that is let in: others are told with every answer.
    fn level(&self) -> u16;
    /// When somebody may come back, in milliseconds, whose request is of this priority where this is the last that is
    /// let in.
    fn retry_after_ms(&self, priority: u16, level: u16) -> u32;
}

/// The priority that what is asked here inherits.
pub fn current() -> Option<u16> {
    PRIORITY.try_with(|priority| *priority).ok().flatten()
}

/// What is done and begun meanwhile has this priority.
pub fn with<T>(priority: Option<u16>, work: impl FnOnce() -> T) -> T {
    PRIORITY.sync_scope(priority, work)
}

/// The same work with the priority that there is now, wherever it is polled.
pub fn inherit<F: Future>(work: F) -> impl Future<Output = F::Output> {
    PRIORITY.scope(current(), work)
}

/// A task that inherits the priority that there is now.
pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(inherit(work))
}

/// What each of the other nodes lets in, as it said with its last answer.
#[derive(Debug, Default)]
pub(crate) struct Levels(RwLock<BTreeMap<NodeId, (u16, Instant)>>);

impl Levels {
    fn said(&self, node: NodeId) -> Option<(u16, Instant)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }

    /// A node has answered.
    pub(crate) fn note(&self, node: NodeId, level: u16) {
        if self.said(node).is_none_or(|(before, at)| before != level || at.elapsed() > LEVEL_TIME_MAX / 4) {
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert(node, (level, Instant::now()));
        }
    }

    /// The last priority that a node lets in; all, if it has said nothing for long.
    pub(crate) fn of(&self, node: NodeId) -> u16 {
        let said = self.said(node).filter(|(_, at)| at.elapsed() < LEVEL_TIME_MAX);
        said.map_or(u16::MAX, |(level, _)| level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_node_said_counts_until_it_has_been_silent_for_long() {
        let (levels, node) = (Levels::default(), NodeId::new(1, 1));
        assert_eq!(levels.of(node), u16::MAX, "nothing is known");
        for _ in 0..10 {
            levels.note(node, 7);
            tokio::time::advance(LEVEL_TIME_MAX / 2).await;
            assert_eq!(levels.of(node), 7, "it says so again and again");
        }
        tokio::time::advance(LEVEL_TIME_MAX / 2).await;
        assert_eq!(levels.of(node), u16::MAX);
        levels.note(node, 9);
        assert_eq!(levels.of(node), 9);
    }
}
