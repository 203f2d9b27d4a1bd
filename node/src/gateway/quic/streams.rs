//! What a session reads and writes: frames on its first stream, files on further ones.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream as Requests;
use magpie_protocol::{
    Frame, Request,
    codec::CodecError,
    frame::{FrameReader, MediaAnswer, MediaRequest},
    limits::MEDIA_FRAME_LEN_MAX,
};
use quinn_proto::StreamId;

use super::{Link, LinkError, connection::Wait};
use crate::session::outbound::Outbound;

/// A device that takes nothing of a media stream for so long is let go.
pub const MEDIA_STALL: Duration = Duration::from_secs(30);

/// Media give way to all else on a connection.
const MEDIA_PRIORITY: i32 = -1;
/// Bytes that are read in one go.
const CHUNK_LEN: usize = 64 * 1024;

/// What the device writes: a stream of requests, which ends after the first error. It waits while too much is outstanding
/// or unread by the device.
pub struct FrameSource {
    /// Until the end.
    half: Option<Receiving>,
    reader: FrameReader,
    out: Arc<Outbound>,
}

/// What the device reads.
pub struct FrameSink(Sending);

/// A further stream of a signed-in device: one frame each way, and bytes.
pub struct MediaStream {
    send: Sending,
    recv: Receiving,
}

/// The half of a stream that the device writes. What is not read when it is dropped, the device need not send.
struct Receiving {
    link: Link,
    id: StreamId,
    /// It has ended.
    ended: bool,
}

/// The half of a stream that the device reads. When it is dropped, nothing follows what was written.
struct Sending {
    link: Link,
    id: StreamId,
}

impl Link {
    async fn accept_stream(&self) -> Result<(Sending, Receiving), LinkError> {
        let id = self.connection().until(Wait::Opened, |state| state.accept().map(Ok)).await?;
        Ok((Sending { link: self.clone(), id }, Receiving { link: self.clone(), id, ended: false }))
    }

    /// The session stream, which the device opens.
    pub async fn session_stream(&self, out: Arc<Outbound>) -> Result<(FrameSink, FrameSource), LinkError> {
        let (send, half) = self.accept_stream().await?;
        Ok((FrameSink(send), FrameSource { half: Some(half), reader: FrameReader::default(), out }))
    }

    /// The next media stream, which the device opens.
    pub async fn media_stream(&self) -> Result<MediaStream, LinkError> {
        let (send, recv) = self.accept_stream().await?;
        self.connection()
            .with(|state| state.quic.send_stream(send.id).set_priority(MEDIA_PRIORITY))
            .map_err(super::gone)?;
        Ok(MediaStream { send, recv })
    }
}

impl Receiving {
    /// The next bytes, at most so many; `None` at the end.
    async fn read(&mut self, max: usize) -> Result<Option<Bytes>, LinkError> {
        poll_fn(|context| self.poll_read(context, max)).await
    }

    fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, LinkError>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let id = self.id;
        let read = ready!(self.link.connection().poll(context, Wait::Readable(id), |state| state.read(id, max)));
        self.ended = !matches!(read, Ok(Some(_)));
        Poll::Ready(read)
    }

    fn stop(&mut self, code: u32) {
        if !self.ended {
            self.ended = true;
            self.link.connection().with(|state| state.stop(self.id, code));
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.link.connection().with(|state| state.forget(Wait::Readable(self.id)));
        self.stop(0);
    }
}

impl Sending {
    /// Writes of these what finds room at once; those that did are empty then. Whether all did.
    fn write_now(&self, pieces: &mut [Bytes]) -> Result<bool, LinkError> {
        self.link.connection().with(|state| state.write(self.id, pieces))
    }

    /// Writes all of these.
    async fn write(&self, pieces: &mut [Bytes]) -> Result<(), LinkError> {
        let look = |state: &mut super::connection::State| match state.write(self.id, pieces) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        };
        self.link.connection().until(Wait::Writable(self.id), look).await
    }

    fn finish(&self) -> bool {
        self.link.connection().with(|state| state.finish(self.id))
    }

    fn reset(&self, code: u32) {
        self.link.connection().with(|state| state.reset(self.id, code));
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.link.connection().with(|state| {
            state.forget(Wait::Writable(self.id));
            state.forget(Wait::Taken(self.id));
            state.finish(self.id);
        });
    }
}

impl FrameSource {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Frame<Request>>, LinkError>> {
        let Some(half) = &mut self.half else { return Poll::Ready(Ok(None)) };
        ready!(self.out.poll_ready(context));
        loop {
            if let Some(frame) = self.reader.next_frame()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            match ready!(half.poll_read(context, CHUNK_LEN))? {
                Some(bytes) => self.reader.push(bytes),
                None => return Poll::Ready(Ok(None)),
            }
        }
    }
}

impl Requests for FrameSource {
    type Item = Result<Frame<Request>, LinkError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.poll_frame(context)).transpose();
        if !matches!(next, Some(Ok(_))) {
            (self.half, self.reader) = (None, FrameReader::default());
        }
        Poll::Ready(next)
    }
}

impl FrameSink {
    /// Writes all of these in one go.
    pub async fn write(&mut self, pieces: &mut [Bytes]) -> Result<(), LinkError> {
        self.0.write(pieces).await
    }

    /// The same, as far as that goes at once; `None` when some is left, which is then all that `pieces` holds.
    pub fn write_now(&mut self, pieces: &mut Vec<Bytes>) -> Option<Result<(), LinkError>> {
        match self.0.write_now(pieces) {
            Ok(true) => Some(Ok(())),
            Ok(false) => {
                // Those that were taken are empty now.
                pieces.retain(|piece| !piece.is_empty());
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Says that nothing follows, and waits until the device has everything.
    pub async fn finish(&mut self) {
        if self.0.finish() {
            let id = self.0.id;
            let taken = |state: &mut super::connection::State| state.is_taken(id).then_some(Ok(()));
            _ = self.0.link.connection().until(Wait::Taken(id), taken).await;
        }
    }
}

impl MediaStream {
    /// What the device wants of the stream. Nothing follows before it is answered.
    pub async fn request(&mut self) -> Result<MediaRequest, LinkError> {
        let mut reader = FrameReader::default();
        loop {
            if let Some(len) = reader.announced().filter(|len| *len > MEDIA_FRAME_LEN_MAX) {
                return Err(CodecError::TooLong { len, max: MEDIA_FRAME_LEN_MAX }.into());
            }
            if let Some(frame) = reader.next_frame()? {
                return match reader.waiting() {
                    0 => Ok(frame.body),
                    more => Err(CodecError::Trailing(more).into()),
                };
            }
            match self.recv.read(MEDIA_FRAME_LEN_MAX).await? {
                Some(bytes) => reader.push(bytes),
                None => return Err(LinkError::Gone("the stream ended before its request".into())),
            }
        }
    }

    /// Says how the stream goes on. A device that does not take it within `MEDIA_STALL` is let go.
    pub async fn answer(&mut self, answer: MediaAnswer) -> Result<(), LinkError> {
        let written = tokio::time::timeout(MEDIA_STALL, self.write(Frame::push(answer).to_bytes())).await;
        written.unwrap_or_else(|_| Err(LinkError::Gone("the device took nothing for a while".into())))
    }

    /// The next bytes; `None` at the end.
    pub async fn read(&mut self) -> Result<Option<Bytes>, LinkError> {
        self.recv.read(CHUNK_LEN).await
    }

    /// Writes all of these.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        self.send.write(&mut [bytes]).await
    }

    /// Says that nothing follows, and reads no more.
    pub fn finish(mut self) {
        self.send.finish();
        self.recv.stop(0);
    }

    /// Ends the stream in the middle.
    pub fn reset(mut self) {
        self.send.reset(1);
        self.recv.stop(1);
    }
}
