//! The task that drives every connection of a socket: one, where quinn's own would be one each.
//!
//! It takes datagrams in batches, hands them to their connections, and then looks once at each connection that something
//! happened to or that somebody wrote to: sends what it has to send, wakes who waits, notes when it is due again. So a
//! packet costs no wake-up of its own, and an idle connection holds neither a task, a channel nor a buffer.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use quinn::{
    UdpPoller,
    udp::{BATCH_SIZE, RecvMeta},
};
use quinn_proto::{ConnectionError, EndpointEvent, Transmit, VarInt};
use smallvec::SmallVec;
use tokio::time::Sleep;

use super::{
    connection::{Connection, State},
    now,
    shared::{Arrived, Shared, Table, datagram, of_another, take},
    timers::Timers,
};

/// Datagrams that are taken before connections get their turn.
const RECEIVED_MAX: usize = 64;
/// Connections that are looked at before datagrams are taken, and other tasks run, again.
const SERVED_MAX: usize = 256;
/// Datagrams that a connection sends before others get their turn.
const SENT_MAX: usize = 20;
/// Datagrams of one connection that go in one call.
const SEGMENTS_MAX: usize = 10;
/// Longest datagram that is taken.
const DATAGRAM_LEN_MAX: usize = 64 * 1024;

/// See the module's documentation.
pub(super) struct Driver {
    shared: Arc<Shared>,
    /// Of every socket on the address, this one among them: their connections' ids name them by their place here.
    all: Arc<[Arc<Shared>]>,
    poller: Pin<Box<dyn UdpPoller>>,
    received: Box<[u8]>,
    metas: Box<[RecvMeta]>,
    /// What is being sent, of whichever connection.
    bytes: Vec<u8>,
    /// What the socket did not take; it is in `bytes`.
    blocked: Option<Transmit>,
    timers: Timers,
    sleep: Pin<Box<Sleep>>,
    round: Vec<Arc<Connection>>,
}

/// What is left of a connection's turn.
enum Turn {
    Done,
    /// It has more to send.
    More,
    /// It is gone.
    Drained,
    /// It is gone, and the endpoint does not know.
    Broken,
}

impl Driver {
    /// Of the socket in this place among all on the address. Must be called in the runtime that it will run in.
    pub(super) fn new(all: Arc<[Arc<Shared>]>, place: usize) -> Self {
        let shared = all[place].clone();
        let socket = shared.socket();
        let longest = shared.table().endpoint.config().get_max_udp_payload_size().min(DATAGRAM_LEN_MAX as u64) as usize;
        let received = vec![0; longest * socket.max_receive_segments() * BATCH_SIZE].into();
        let poller = shared.poller();
        Self {
            shared,
            all,
            poller,
            received,
            metas: vec![RecvMeta::default(); BATCH_SIZE].into(),
            bytes: Vec::new(),
            blocked: None,
            timers: Timers::default(),
            sleep: Box::pin(tokio::time::sleep_until(tokio::time::Instant::now())),
            round: Vec::new(),
        }
    }

    /// Takes what has come. Whether there may be more.
    fn receive(&mut self, context: &mut Context<'_>, table: &mut Table, now: Instant) -> io::Result<bool> {
        let slice_len = self.received.len() / BATCH_SIZE;
        let mut slices: SmallVec<[IoSliceMut<'_>; BATCH_SIZE]> =
            self.received.chunks_mut(slice_len).map(IoSliceMut::new).collect();
        let mut received = 0;
        while received < RECEIVED_MAX {
            let messages = match self.shared.socket().poll_recv(context, &mut slices, &mut self.metas) {
                Poll::Ready(Ok(messages)) => messages,
                // Anybody could have sent that.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(false),
            };
            received += messages;
            for (meta, slice) in self.metas.iter().zip(&slices).take(messages) {
                let mut bytes = BytesMut::from(&slice[..meta.len]);
                while !bytes.is_empty() {
                    let datagram = bytes.split_to(meta.stride.min(bytes.len()));
                    let arrived = Arrived { from: meta.addr, to: meta.dst_ip, ecn: meta.ecn, bytes: datagram };
                    match of_another(&self.all, &self.shared, &arrived.bytes) {
                        Some(other) => other.pass(arrived),
                        None => take(&self.shared, table, arrived, now),
                    }
                }
            }
        }
        Ok(true)
    }

    /// Lets those know whose time has come.
    fn expire(&mut self, table: &Table, now: Instant) {
        while let Some(handle) = self.timers.due(now) {
            let Some(connection) = table.connections.get(handle).and_then(Option::as_ref) else { continue };
            connection.with(|state| {
                state.timer = None;
                match state.quic.poll_timeout() {
                    Some(deadline) if deadline <= now => {
                        state.shield(|state| state.quic.handle_timeout(now));
                        state.touch();
                    }
                    later => self.timers.set(connection.handle, &mut state.timer, later),
                }
            });
        }
    }

    /// Sends what `bytes` holds. When the socket does not take it, it is kept, and the task woken when it does.
    fn send(&mut self, context: &mut Context<'_>, transmit: Transmit) -> bool {
        loop {
            let error = match self.shared.socket().try_send(&datagram(&transmit, &self.bytes)) {
                Ok(()) => return true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.poller.as_mut().poll_writable(context) {
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(error)) => error,
                        Poll::Pending => {
                            self.blocked = Some(transmit);
                            return false;
                        }
                    }
                }
                Err(error) => error,
            };
            // As if it had been lost on the way: it is sent again, or the connection ends when nothing arrives.
            tracing::debug!(%error, to = %transmit.destination, "a datagram was not sent");
            return true;
        }
    }

    /// Looks at all that are on the list. Whether some of them have more to do.
    fn serve(&mut self, context: &mut Context<'_>, table: &mut Table, now: Instant) -> bool {
        if let Some(transmit) = self.blocked.take()
            && !self.send(context, transmit)
        {
            return false;
        }
        let mut round = mem::take(&mut self.round);
        mem::swap(&mut round, &mut self.shared.ready().list);
        let (mut more, mut served) = (false, 0);
        while served < round.len().min(SERVED_MAX) && self.blocked.is_none() {
            let connection = &round[served];
            served += 1;
            let mut state = connection.lock();
            state.listed = false;
            let turn = state.shield(|state| self.turn(context, table, connection, state, now));
            match turn.unwrap_or(Turn::Broken) {
                Turn::Done => {}
                Turn::More => {
                    more = true;
                    state.listed = true;
                    self.shared.ready().list.push(connection.clone());
                }
                turn @ (Turn::Drained | Turn::Broken) => {
                    if let Turn::Broken = turn {
                        _ = table.endpoint.handle_event(connection.handle, EndpointEvent::drained());
                    }
                    state.gone = true;
                    self.timers.remove(connection.handle, &mut state.timer);
                    table.connections[connection.handle.0] = None;
                    self.shared.count(table);
                    if table.is_idle() {
                        self.shared.idle.notify_waiters();
                    }
                }
            }
        }
        if served < round.len() {
            // They come first next time.
            let rest = round.split_off(served);
            let newer = mem::replace(&mut self.shared.ready().list, rest);
            self.shared.ready().list.extend(newer);
            more = true;
        }
        round.clear();
        self.round = round;
        more && self.blocked.is_none()
    }

    fn turn(
        &mut self,
        context: &mut Context<'_>,
        table: &mut Table,
        connection: &Connection,
        state: &mut State,
        now: Instant,
    ) -> Turn {
        let mut sent = 0;
        let mut turn = Turn::Done;
        // The socket learns by trying what its interface can do.
        let segments = self.shared.socket().max_transmit_segments().min(SEGMENTS_MAX);
        if state.is_broken() {
            return Turn::Broken;
        }
        loop {
            while let Turn::Done = turn {
                self.bytes.clear();
                self.bytes.reserve(state.quic.current_mtu().into());
                let Some(transmit) = state.quic.poll_transmit(now, segments, &mut self.bytes) else { break };
                sent += transmit.segment_size.map_or(1, |len| transmit.size.div_ceil(len));
                if !self.send(context, transmit) || sent >= SENT_MAX {
                    turn = Turn::More;
                }
            }
            let mut again = false;
            while let Some(event) = state.quic.poll_endpoint_events() {
                if event.is_drained() {
                    turn = Turn::Drained;
                }
                if let Some(event) = table.endpoint.handle_event(connection.handle, event) {
                    state.quic.handle_event(event);
                    again = true;
                }
            }
            while let Some(event) = state.quic.poll() {
                state.hear(event);
            }
            match state.quic.poll_timeout() {
                _ if matches!(turn, Turn::Drained) => return turn,
                Some(deadline) if deadline <= now => {
                    state.quic.handle_timeout(now);
                    again = true;
                }
                deadline => self.timers.set(connection.handle, &mut state.timer, deadline),
            }
            if !again {
                return turn;
            }
        }
    }

    /// Whether the next connection's time has come; if not, the task is woken when it has.
    fn is_due(&mut self, context: &mut Context<'_>) -> bool {
        let Some(next) = self.timers.next() else { return false };
        let next = tokio::time::Instant::from_std(next);
        if self.sleep.deadline() != next {
            self.sleep.as_mut().reset(next);
        }
        self.sleep.as_mut().poll(context).is_ready()
    }
}

impl Future for Driver {
    type Output = ();

    /// Ends when the socket fails.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let shared = this.shared.clone();
        // It looks at what waits before it sleeps again.
        let passed = {
            let mut ready = shared.ready();
            ready.driver = None;
            mem::take(&mut ready.passed)
        };
        let mut table = shared.table();
        let now = now();
        passed.into_iter().for_each(|arrived| take(&shared, &mut table, arrived, now));
        let more = match this.receive(context, &mut table, now) {
            Ok(more) => more,
            Err(error) => {
                tracing::error!(%error, "the socket for devices failed: nothing more is received from them");
                return Poll::Ready(());
            }
        };
        this.expire(&table, now);
        let more = this.serve(context, &mut table, now) || more;
        drop(table);
        let more = more || this.is_due(context);
        let mut ready = shared.ready();
        if more || !ready.passed.is_empty() || (this.blocked.is_none() && !ready.list.is_empty()) {
            context.waker().wake_by_ref();
        } else {
            ready.driver = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        table.closed = true;
        table.lost = true;
        for caller in mem::take(&mut table.callers) {
            table.endpoint.ignore(caller);
        }
        for connection in mem::take(&mut table.connections).into_iter().flatten() {
            let mut state = connection.lock();
            state.gone = true;
            state.quic.close(now(), VarInt::from_u32(0), Bytes::new());
            state.end(ConnectionError::LocallyClosed);
        }
        let mut ready = self.shared.ready();
        ready.list.clear();
        ready.passed.clear();
        drop(ready);
        self.shared.called.notify_waiters();
        self.shared.idle.notify_waiters();
    }
}
