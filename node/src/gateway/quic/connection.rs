//! A connection, as the driver and those who use it share it.

use std::{
    future::poll_fn,
    mem,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use quinn_proto::{
    ConnectionError, ConnectionHandle, Dir, Event, FinishError, ReadError, StreamEvent, StreamId, TransportError,
    TransportErrorCode, VarInt, WriteError,
};
use smallvec::SmallVec;

use super::{LinkError, gone, now, shared::Shared};

/// What may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Connected,
    /// A stream that the device opens.
    Opened,
    /// Bytes, or the end, of a stream.
    Readable(StreamId),
    /// Room for bytes in a stream.
    Writable(StreamId),
    /// The device has everything of a stream, or wants no more.
    Taken(StreamId),
}

/// See the module's documentation.
pub(super) struct Connection {
    pub(super) handle: ConnectionHandle,
    driver: Arc<Shared>,
    state: Mutex<State>,
}

/// What the connection's lock guards.
pub(super) struct State {
    pub(super) quic: quinn_proto::Connection,
    connected: bool,
    /// Why nothing comes or goes any more.
    ended: Option<ConnectionError>,
    /// Something went wrong within it.
    broken: bool,
    /// The driver is done with it; its handle may be another's by now.
    pub(super) gone: bool,
    /// Something may be there to send, which the driver has not seen.
    touched: bool,
    /// It is on the driver's list.
    pub(super) listed: bool,
    /// Its entry in the driver's timers.
    pub(super) timer: Option<Instant>,
    waiting: SmallVec<[(Wait, Waker); 2]>,
}

impl Connection {
    pub(super) fn new(handle: ConnectionHandle, quic: quinn_proto::Connection, driver: Arc<Shared>) -> Arc<Self> {
        let waiting = SmallVec::new();
        let state = State {
            quic,
            connected: false,
            ended: None,
            broken: false,
            gone: false,
            touched: false,
            listed: false,
            timer: None,
            waiting,
        };
        Arc::new(Self { handle, driver, state: Mutex::new(state) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with it, and lets the driver know where that left something to send.
    pub(super) fn with<T>(self: &Arc<Self>, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let done = work(&mut state);
        if mem::take(&mut state.touched) && !state.gone && !mem::replace(&mut state.listed, true) {
            drop(state);
            self.driver.add(self.clone());
        }
        done
    }

    /// Looks now, and again whenever `wait` came, until there is something, or the connection has ended.
    pub(super) async fn until<T>(
        self: &Arc<Self>,
        wait: Wait,
        mut look: impl FnMut(&mut State) -> Option<Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        poll_fn(|context| self.poll(context, wait, &mut look)).await
    }

    /// The same for who is a future itself.
    pub(super) fn poll<T>(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        wait: Wait,
        look: impl FnOnce(&mut State) -> Option<Result<T, LinkError>>,
    ) -> Poll<Result<T, LinkError>> {
        self.with(|state| {
            if let Some(found) = look(state) {
                return Poll::Ready(found);
            }
            if let Some(error) = &state.ended {
                return Poll::Ready(Err(gone(error)));
            }
            state.wait(wait, context.waker());
            Poll::Pending
        })
    }

    /// Ends it. Whoever waits for something of it hears of it now, the device with the next packet.
    pub(super) fn close(self: &Arc<Self>, reason: &[u8]) {
        self.with(|state| {
            if state.ended.is_none() {
                state.quic.close(now(), VarInt::from_u32(0), Bytes::copy_from_slice(reason));
                state.end(ConnectionError::LocallyClosed);
                state.touched = true;
            }
        });
    }
}

impl State {
    /// Something was done that may leave something to send.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// Does what a packet or a timer brings about. A panic in it ends this connection, and no other.
    pub(super) fn shield<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| work(self))).ok();
        if done.is_none() {
            self.broken = true;
            let (code, reason) = (TransportErrorCode::INTERNAL_ERROR, "a fault of the node".to_owned());
            self.end(TransportError { code, frame: None, reason }.into());
        }
        done
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    fn wait(&mut self, wait: Wait, waker: &Waker) {
        match self.waiting.iter_mut().find(|(of, _)| *of == wait) {
            Some((_, by)) => by.clone_from(waker),
            None => self.waiting.push((wait, waker.clone())),
        }
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Nobody waits for that any more.
    pub(super) fn forget(&mut self, wait: Wait) {
        self.waiting.retain(|(of, _)| *of != wait);
    }

    fn came(&mut self, wait: Wait) {
        if let Some(at) = self.waiting.iter().position(|(of, _)| *of == wait) {
            self.waiting.swap_remove(at).1.wake();
        }
    }

    /// Nothing comes or goes any more.
    pub(super) fn end(&mut self, reason: ConnectionError) {
        self.ended.get_or_insert(reason);
        self.waiting.drain(..).for_each(|(_, waker)| waker.wake());
    }

    /// Wakes those who wait for what happened.
    pub(super) fn hear(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.came(Wait::Connected);
            }
            Event::ConnectionLost { reason } => self.end(reason),
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => self.came(Wait::Opened),
            Event::Stream(StreamEvent::Readable { id }) => self.came(Wait::Readable(id)),
            Event::Stream(StreamEvent::Writable { id }) => self.came(Wait::Writable(id)),
            Event::Stream(StreamEvent::Finished { id }) => self.came(Wait::Taken(id)),
            Event::Stream(StreamEvent::Stopped { id, .. }) => {
                self.came(Wait::Writable(id));
                self.came(Wait::Taken(id));
            }
            Event::Stream(StreamEvent::Opened { .. } | StreamEvent::Available { .. })
            | Event::HandshakeDataReady
            | Event::DatagramReceived
            | Event::DatagramsUnblocked => {}
        }
    }

    /// The next stream that the device opened.
    pub(super) fn accept(&mut self) -> Option<StreamId> {
        if self.broken {
            return None;
        }
        let id = self.quic.streams().accept(Dir::Bi)?;
        // It may open another one.
        self.touched = true;
        Some(id)
    }

    /// The next bytes of a stream, at most so many; `Ok(None)` at its end. Nothing when there is nothing yet.
    pub(super) fn read(&mut self, id: StreamId, max: usize) -> Option<Result<Option<Bytes>, LinkError>> {
        if self.broken {
            return None;
        }
        let mut stream = self.quic.recv_stream(id);
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(error) => return Some(Err(gone(error))),
        };
        let read = match chunks.next(max) {
            Ok(chunk) => Some(Ok(chunk.map(|chunk| chunk.bytes))),
            Err(ReadError::Blocked) => None,
            Err(error) => Some(Err(gone(error))),
        };
        self.touched |= chunks.finalize().should_transmit();
        read
    }

    /// Writes of these what finds room; those that did are empty then. Whether all did.
    pub(super) fn write(&mut self, id: StreamId, mut pieces: &mut [Bytes]) -> Result<bool, LinkError> {
        if let Some(error) = &self.ended {
            return Err(gone(error));
        }
        while !pieces.is_empty() {
            match self.quic.send_stream(id).write_chunks(pieces) {
                Ok(written) => {
                    self.touched = true;
                    pieces = &mut pieces[written.chunks..];
                }
                Err(WriteError::Blocked) => return Ok(false),
                Err(error) => return Err(gone(error)),
            }
        }
        Ok(true)
    }

    /// Says that nothing follows. Whether that could be said.
    pub(super) fn finish(&mut self, id: StreamId) -> bool {
        if self.ended.is_some() {
            return false;
        }
        self.touched = true;
        let finished = self.quic.send_stream(id).finish();
        if let Err(FinishError::Stopped(code)) = finished {
            _ = self.quic.send_stream(id).reset(code);
        }
        finished.is_ok()
    }

    /// Whether the device has everything of a stream, or wants no more of it.
    pub(super) fn is_taken(&mut self, id: StreamId) -> bool {
        self.broken || !matches!(self.quic.send_stream(id).stopped(), Ok(None))
    }

    /// Gives up what was not sent of a stream.
    pub(super) fn reset(&mut self, id: StreamId, code: u32) {
        if self.ended.is_some() {
            return;
        }
        self.touched = true;
        _ = self.quic.send_stream(id).reset(VarInt::from_u32(code));
    }

    /// Reads no more of a stream.
    pub(super) fn stop(&mut self, id: StreamId, code: u32) {
        if self.ended.is_some() {
            return;
        }
        self.touched = true;
        _ = self.quic.recv_stream(id).stop(VarInt::from_u32(code));
    }
}
