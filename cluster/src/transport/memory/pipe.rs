//! One lane in one direction.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Requests and messages that may wait. Answers always fit, as each belongs to a request that did.
const ITEMS_MAX: usize = 65_536;

/// How a direction is.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) cut: bool,
    pub(super) paused: bool,
    pub(super) delay: Duration,
    pub(super) lost_share: f64,
    pub(super) seed: u64,
}

/// What travels.
pub(super) enum Item {
    Request(u64, Bytes),
    Message(Bytes),
    Answer(u64, Bytes),
}

struct Queue {
    items: VecDeque<(Instant, Item)>,
    /// How many were pushed ever, from which it follows which are lost.
    pushed: u64,
}

struct Ends {
    queue: Mutex<Queue>,
    filled: Notify,
    state: watch::Receiver<State>,
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item, when its time has come and the direction is not paused.
    async fn next(&self) -> Option<Item> {
        loop {
            let Some((due, item)) = self.lock().items.pop_front() else {
                self.filled.notified().await;
                continue;
            };
            tokio::time::sleep_until(due).await;
            if !self.state.clone().wait_for(|state| !state.paused).await.ok()?.cut {
                return Some(item);
            }
        }
    }
}

/// A queue, and the task that empties it.
pub(super) struct Pipe {
    ends: Arc<Ends>,
    task: JoinHandle<()>,
}

impl Pipe {
    /// Delivers with this what is pushed, one after the other.
    pub(super) fn start(
        runtime: &Handle,
        state: watch::Receiver<State>,
        deliver: impl Fn(Item) + Send + 'static,
    ) -> Self {
        let queue = Mutex::new(Queue { items: VecDeque::new(), pushed: 0 });
        let ends = Arc::new(Ends { queue, filled: Notify::new(), state });
        let theirs = ends.clone();
        let task = runtime.spawn(async move {
            while let Some(item) = theirs.next().await {
                deliver(item);
            }
        });
        Self { ends, task }
    }

    /// Sends an item on its way, on which it may be lost; `false` when too much waits.
    pub(super) fn push(&self, item: Item) -> bool {
        let state = self.ends.state.borrow().clone();
        let mut queue = self.ends.lock();
        if queue.items.len() >= ITEMS_MAX && !matches!(item, Item::Answer(..)) {
            return false;
        }
        queue.pushed += 1;
        let chance = xxh3_64_with_seed(&queue.pushed.to_le_bytes(), state.seed) as f64 / u64::MAX as f64;
        if !state.cut && chance >= state.lost_share {
            queue.items.push_back((Instant::now() + state.delay, item));
            drop(queue);
            self.ends.filled.notify_one();
        }
        true
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.task.abort();
    }
}
