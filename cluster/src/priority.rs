//! How important the request is that a task works for. It is a plain number, 0 the most important, whose meaning is its
//! giver's; what the task asks of other nodes inherits it, and they may refuse what is less important than they let in.
//!
//! What has no priority is the cluster's own: it is never refused for its sake.

use std::future::Future;

use tokio::task::JoinHandle;

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
