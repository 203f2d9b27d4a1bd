//! The shard's feature level: up to where its replicas, builds of different ages perhaps, behave alike.
//!
//! It is part of the state, raised by an item of a batch, so that each replica changes its ways at the same entry. The
//! leader raises it when the record of the cluster says that every node can do more.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::sync::oneshot;

use super::{Shard, Waiter};
use crate::{AskError, machine::Machine};

/// Pause before the shard's level is looked at again.
const AGAIN: Duration = Duration::from_millis(500);

impl<M: Machine> Shard<M> {
    /// The shard's feature level.
    pub fn level(&self) -> u32 {
        self.0.level.load(Ordering::Relaxed)
    }

    /// Whether the shard is at this feature level: what needs a higher one is not proposed.
    pub(super) fn reaches(&self, needs: u32) -> Result<(), AskError> {
        if needs > self.level() { Err(AskError::NotYet { needs }) } else { Ok(()) }
    }

    /// Raises the shard to what the whole cluster can do, each time that this grows while this replica leads.
    pub(crate) async fn keep_level(self) {
        let (mut system, mut leadership) = (self.0.system.follow(), self.follow_leadership());
        loop {
            let level = system.borrow_and_update().as_ref().map_or(0, |system| system.level);
            if level <= self.level() {
                if system.changed().await.is_err() {
                    return;
                }
            } else if self.lead().is_ok() && self.admit().is_ok() {
                let (done, raised) = oneshot::channel();
                let reply = Box::new(move |result| drop(done.send(result)));
                self.enqueue(|builder| builder.level(level), Waiter::Delivered(reply));
                if !matches!(raised.await, Ok(Ok(_))) {
                    tokio::time::sleep(AGAIN).await;
                }
            } else {
                _ = tokio::time::timeout(AGAIN, leadership.changed()).await;
            }
        }
    }
}
