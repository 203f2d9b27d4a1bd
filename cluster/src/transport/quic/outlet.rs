//! What waits to be written on one stream.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::frames::Gathered;
use crate::transport::{Lane, MESSAGE_LEN_MAX};

/// Bytes that may wait on a lane. A frame that finds nothing before it always fits.
pub(super) const fn waiting_len_max(lane: Lane) -> usize {
    match lane {
        // Votes and heartbeats are small, and consensus keeps few batches of entries under way: more than two of the
        // longest means that the peer does not read.
        Lane::Consensus => 2 * MESSAGE_LEN_MAX,
        // A second's worth of commands and hints at a rate that one connection does not reach.
        Lane::Requests => 2 * MESSAGE_LEN_MAX,
        // A few chunks of a snapshot keep the stream busy; its sender waits for answers before it sends more.
        Lane::Bulk => 4 * 1024 * 1024,
    }
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    Full,
    Closed,
}

#[derive(Default)]
struct Waiting {
    gathered: Gathered,
    /// Bytes that are gathered, or in the hands of the writer.
    len: usize,
    closed: bool,
}

/// A queue of frames with one writer, who takes all that waits at once.
#[derive(Default)]
pub(super) struct Outlet {
    waiting: Mutex<Waiting>,
    filled: Notify,
    emptied: Notify,
}

impl Outlet {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame, unless this many bytes and more would wait then.
    pub(super) fn push(&self, id: u64, payload: Bytes, len_max: usize) -> Result<(), NotTaken> {
        let cost = Gathered::cost(&payload);
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(NotTaken::Closed);
        }
        if waiting.len > 0 && waiting.len + cost > len_max {
            return Err(NotTaken::Full);
        }
        waiting.len += cost;
        waiting.gathered.push(id, payload);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// All that waits, once something does. It counts as waiting until [`Outlet::wrote`] is told.
    pub(super) async fn take(&self) -> Vec<Bytes> {
        loop {
            let pieces = self.lock().gathered.take();
            if !pieces.is_empty() {
                return pieces;
            }
            self.filled.notified().await;
        }
    }

    /// This many bytes wait no longer.
    pub(super) fn wrote(&self, len: usize) {
        self.lock().len -= len;
        self.emptied.notify_one();
    }

    /// Returns when fewer bytes wait. For one caller at a time.
    pub(super) async fn below(&self, len: usize) {
        while self.lock().len >= len {
            self.emptied.notified().await;
        }
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_full_queue_refuses_until_what_was_taken_is_written() {
        let outlet = Outlet::default();
        let long = Bytes::from(vec![1; 100]);
        assert_eq!(outlet.push(1, long.clone(), 10), Ok(()), "alone it fits");
        assert_eq!(outlet.push(2, Bytes::new(), 10), Err(NotTaken::Full));
        let taken = outlet.take().now_or_never().unwrap();
        assert_eq!(outlet.push(2, Bytes::new(), 10), Err(NotTaken::Full), "the writer still holds it");
        assert!(outlet.below(10).now_or_never().is_none());
        outlet.wrote(taken.iter().map(Bytes::len).sum());
        assert!(outlet.below(10).now_or_never().is_some());
        assert_eq!(outlet.push(2, Bytes::new(), 10), Ok(()));
        outlet.close();
        assert_eq!(outlet.push(3, Bytes::new(), 100), Err(NotTaken::Closed));
    }
}
