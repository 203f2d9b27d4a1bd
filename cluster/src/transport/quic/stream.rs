//! One lane's stream: frames in, frames out.

use std::{array, sync::Arc};

use bytes::Bytes;

use super::{
    frames::{FrameError, FrameReader},
    outlet::Outlet,
};
use crate::transport::Lane;

/// Chunks that are fetched from the connection under one lock; each is at most a packet's.
const CHUNKS: usize = 32;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Ended {
    #[error("the connection is gone: {0}")]
    Gone(String),
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] FrameError),
    #[error("the peer is refused: {0}")]
    Refused(String),
    #[error("no answer within {0} ms")]
    TooSlow(u128),
}

/// Whatever else quinn says means that the connection is of no more use.
pub(super) fn gone(error: impl std::error::Error) -> Ended {
    // What the peer gave as its reason stands behind an error that only says that there is one.
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_said = cause.to_string();
        if !why.contains(&cause_said) {
            why = format!("{why}: {cause_said}");
        }
        source = cause.source();
    }
    Ended::Gone(why)
}

/// Frames that arrive.
pub(super) struct FrameSource {
    stream: quinn::RecvStream,
    reader: FrameReader,
    chunks: [Bytes; CHUNKS],
    /// Which of the chunks hold something that was not read.
    unread: std::ops::Range<usize>,
}

impl FrameSource {
    pub(super) fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, reader: FrameReader::default(), chunks: array::from_fn(|_| Bytes::new()), unread: 0..0 }
    }

    /// The next frame. The other side never ends a stream before its connection.
    pub(super) async fn next(&mut self) -> Result<(u64, Bytes), Ended> {
        loop {
            while !self.unread.is_empty() {
                if let Some(frame) = self.reader.feed(&mut self.chunks[self.unread.start])? {
                    return Ok(frame);
                }
                self.chunks[self.unread.start] = Bytes::new();
                self.unread.start += 1;
            }
            let count = self.stream.read_chunks(&mut self.chunks).await.map_err(gone)?;
            self.unread = 0..count.ok_or(FrameError::Unexpected("a stream ended"))?;
        }
    }
}

/// Which stream a packet is filled from first.
pub(super) fn set_priority(stream: &quinn::SendStream, lane: Lane) -> Result<(), Ended> {
    let priority = match lane {
        Lane::Consensus => 2,
        Lane::Requests => 1,
        Lane::Bulk => 0,
    };
    stream.set_priority(priority).map_err(gone)
}

/// Writes what the outlet gathers, each time all of it in one go, until the connection ends.
pub(super) async fn write(outlet: Arc<Outlet>, mut stream: quinn::SendStream) -> Result<(), Ended> {
    loop {
        let mut pieces = outlet.take().await;
        let mut unwritten = &mut pieces[..];
        while !unwritten.is_empty() {
            // What is written makes room at once, long before the last of a batch of long frames is.
            let written = stream.write_chunks(unwritten).await.map_err(gone)?;
            outlet.wrote(written.bytes);
            unwritten = &mut unwritten[written.chunks..];
        }
    }
}
