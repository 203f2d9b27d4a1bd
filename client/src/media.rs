//! Media: files brought to the node and fetched from it, on streams of their own, over as many connections as it takes.

mod download;
mod link;
pub(crate) mod queue;
mod source;
mod upload;

use std::time::Duration;

use magpie_protocol::{Retry, WireError};

pub use queue::SendingFile;
pub use source::Source;

use crate::{
    Error, Status, backoff,
    shared::{Goal, Shared},
};
use link::MediaLink;

/// Bytes that are read or written in one go.
const CHUNK_LEN: usize = 64 * 1024;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that are there, those of earlier tries too.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Why one try of a transfer ended.
#[derive(Debug)]
enum Failure {
    /// The connection, or the stream.
    Lost(String),
    Refused(WireError),
    /// Trying again is of no use.
    Final(Error),
}

impl Failure {
    fn lost(reason: impl std::fmt::Display) -> Self {
        Self::Lost(reason.to_string())
    }
}

impl Shared {
    /// The connection of the session, once there is one. Who is patient waits also while nobody tries to connect.
    async fn media_link(&self, patient: bool) -> Result<MediaLink, Error> {
        let mut way = self.media.subscribe();
        loop {
            if let Some(connection) = way.borrow_and_update().clone() {
                return Ok(MediaLink::new(connection, self.config.request_timeout));
            }
            {
                let state = self.lock();
                if state.closing {
                    return Err(Error::Closed);
                }
                if !patient && matches!(state.goal, Goal::Rest) {
                    return Err(match state.status {
                        Status::Replaced => Error::Replaced,
                        Status::SignedOut => Error::SignedOut,
                        _ => Error::NotSignedIn,
                    });
                }
            }
            // Who stops trying to connect says so nowhere but in the state.
            _ = tokio::time::timeout(Duration::from_millis(500), way.changed()).await;
        }
    }
}

/// Tries of one transfer, over as many connections as it takes. No closure: what waits in here must be able to run in a
/// task.
struct Tries<'a> {
    shared: &'a Shared,
    patient: bool,
    attempt: u32,
}

impl<'a> Tries<'a> {
    fn new(shared: &'a Shared, patient: bool) -> Self {
        Self { shared, patient, attempt: 0 }
    }

    /// The connection for the next try.
    async fn link(&self) -> Result<MediaLink, Error> {
        self.shared.media_link(self.patient).await
    }

    /// What a try came to: the result, once it is done or refused for good; else a pause. After a try that got `further`
    /// than those before the pauses begin anew.
    async fn after<T>(&mut self, further: bool, result: Result<T, Failure>) -> Result<Option<T>, Error> {
        if further {
            self.attempt = 0;
        }
        let pause = match result {
            Ok(done) => return Ok(Some(done)),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Refused(error)) if error.code.retry() == Retry::SameId => {
                backoff::CONNECT.after_refusal(self.attempt, error.retry_after_ms)
            }
            Err(Failure::Refused(error)) => return Err(Error::Refused(error)),
            Err(Failure::Lost(reason)) => {
                tracing::debug!(reason, "a transfer was interrupted");
                backoff::CONNECT.jittered(self.attempt)
            }
        };
        self.attempt = self.attempt.saturating_add(1);
        tokio::time::sleep(pause).await;
        Ok(None)
    }
}

/// Runs what waits for a disk on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}
