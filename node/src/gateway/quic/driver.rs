//! The task that drives every connection of a socket: one, where quinn's own would be one each.
//!
//! It takes datagrams in batches, hands them to their connections, and then looks once at each connection that something
//! happened to or that somebody wrote to: sends what it has to send, wakes who waits, notes when it is due again. So a
//! packet costs no wake-up of its own, and an idle connection holds neither a task, a channel nor a buffer.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSliceMut},
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{self, BATCH_SIZE, EcnCodepoint, RecvMeta},
};
use quinn_proto::{ConnectionError, DatagramEvent, Endpoint, EndpointEvent, Incoming, Transmit, VarInt};
use smallvec::SmallVec;
use tokio::{sync::Notify, time::Sleep};

use super::{
    connection::{Connection, State},
    now,
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

/// What the driver and those who use its connections share. Locks are taken in this order: table, a connection, ready.
pub(super) struct Shared {
    socket: Arc<dyn AsyncUdpSocket>,
    table: Mutex<Table>,
    ready: Mutex<Ready>,
    pub(super) called: Notify,
    pub(super) idle: Notify,
}

/// Who there is.
pub(super) struct Table {
    pub(super) endpoint: Endpoint,
    /// By handle.
    connections: Vec<Option<Arc<Connection>>>,
    /// Those who wait to be let in.
    pub(super) callers: VecDeque<Incoming>,
    /// Nobody is let in any more.
    pub(super) closed: bool,
    /// The driver has ended.
    pub(super) lost: bool,
}

/// Connections to be looked at.
#[derive(Default)]
struct Ready {
    list: Vec<Arc<Connection>>,
    /// Set while the driver sleeps.
    driver: Option<Waker>,
}

/// See the module's documentation.
pub(super) struct Driver {
    shared: Arc<Shared>,
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

impl Shared {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, endpoint: Endpoint) -> Arc<Self> {
        let table = Table { endpoint, connections: Vec::new(), callers: VecDeque::new(), closed: false, lost: false };
        Arc::new(Self {
            socket,
            table: Mutex::new(table),
            ready: Mutex::default(),
            called: Notify::new(),
            idle: Notify::new(),
        })
    }

    pub(super) fn socket(&self) -> &dyn AsyncUdpSocket {
        &*self.socket
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a connection on the list; the caller has marked it so.
    pub(super) fn add(&self, connection: Arc<Connection>) {
        let mut ready = self.ready();
        ready.list.push(connection);
        let driver = ready.driver.take();
        drop(ready);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Sends what needs no connection. What the socket does not take is lost, as on the way.
    pub(super) fn respond(&self, transmit: &Transmit, bytes: &[u8]) {
        if let Err(error) = self.socket.try_send(&datagram(transmit, bytes)) {
            tracing::debug!(%error, to = %transmit.destination, "a response was not sent");
        }
    }

    /// Lets a caller in.
    pub(super) fn accept(self: &Arc<Self>, caller: Incoming) -> Result<Arc<Connection>, ConnectionError> {
        let mut bytes = Vec::new();
        let mut table = self.table();
        if table.lost {
            table.endpoint.ignore(caller);
            return Err(ConnectionError::LocallyClosed);
        }
        if table.closed {
            let transmit = table.endpoint.refuse(caller, &mut bytes);
            self.respond(&transmit, &bytes);
            return Err(ConnectionError::LocallyClosed);
        }
        match table.endpoint.accept(caller, now(), &mut bytes, None) {
            Ok((handle, quic)) => {
                let connection = Connection::new(handle, quic, self.clone());
                if table.connections.len() <= handle.0 {
                    table.connections.resize(handle.0 + 1, None);
                }
                table.connections[handle.0] = Some(connection.clone());
                connection.with(State::touch);
                Ok(connection)
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(&transmit, &bytes);
                }
                Err(error.cause)
            }
        }
    }

    /// Asks a caller for a proof of its address.
    pub(super) fn retry(&self, caller: Incoming) {
        let mut bytes = Vec::new();
        let mut table = self.table();
        let transmit = match table.endpoint.retry(caller, &mut bytes) {
            Ok(transmit) => transmit,
            Err(error) => table.endpoint.refuse(error.into_incoming(), &mut bytes),
        };
        self.respond(&transmit, &bytes);
    }

    /// Turns a caller away.
    pub(super) fn refuse(&self, caller: Incoming) {
        let mut bytes = Vec::new();
        let transmit = self.table().endpoint.refuse(caller, &mut bytes);
        self.respond(&transmit, &bytes);
    }

    /// Ends every connection, and lets nobody in any more.
    pub(super) fn close(&self, reason: &[u8]) {
        let mut table = self.table();
        table.closed = true;
        let callers = mem::take(&mut table.callers);
        let open: Vec<_> = table.connections.iter().flatten().cloned().collect();
        drop(table);
        callers.into_iter().for_each(|caller| self.refuse(caller));
        open.iter().for_each(|connection| connection.close(reason));
        self.called.notify_waiters();
    }
}

impl Table {
    pub(super) fn is_idle(&self) -> bool {
        self.lost || self.endpoint.open_connections() == 0
    }
}

fn datagram<'a>(transmit: &Transmit, bytes: &'a [u8]) -> udp::Transmit<'a> {
    udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
        contents: &bytes[..transmit.size],
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    }
}

impl Driver {
    /// Must be called in a tokio runtime.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let socket = &shared.socket;
        let longest = shared.table().endpoint.config().get_max_udp_payload_size().min(DATAGRAM_LEN_MAX as u64) as usize;
        let received = vec![0; longest * socket.max_receive_segments() * BATCH_SIZE].into();
        let poller = socket.clone().create_io_poller();
        Self {
            shared,
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
            let messages = match self.shared.socket.poll_recv(context, &mut slices, &mut self.metas) {
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
                    take(&self.shared, table, meta, datagram, now);
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
            let error = match self.shared.socket.try_send(&datagram(&transmit, &self.bytes)) {
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
        let segments = self.shared.socket.max_transmit_segments().min(SEGMENTS_MAX);
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

/// Hands a datagram to whom it is for.
fn take(shared: &Shared, table: &mut Table, meta: &RecvMeta, datagram: BytesMut, now: Instant) {
    let ecn = meta.ecn.and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
    let mut bytes = Vec::new();
    match table.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut bytes) {
        Some(DatagramEvent::ConnectionEvent(handle, event)) => {
            if let Some(connection) = table.connections.get(handle.0).and_then(Option::as_ref) {
                connection.with(|state| {
                    state.shield(|state| state.quic.handle_event(event));
                    state.touch();
                });
            }
        }
        Some(DatagramEvent::NewConnection(caller)) if table.closed => {
            let transmit = table.endpoint.refuse(caller, &mut bytes);
            shared.respond(&transmit, &bytes);
        }
        Some(DatagramEvent::NewConnection(caller)) => {
            table.callers.push_back(caller);
            shared.called.notify_one();
        }
        Some(DatagramEvent::Response(transmit)) => shared.respond(&transmit, &bytes),
        None => {}
    }
}

impl Future for Driver {
    type Output = ();

    /// Ends when the socket fails.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let shared = this.shared.clone();
        // It looks at the list before it sleeps again.
        shared.ready().driver = None;
        let mut table = shared.table();
        let now = now();
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
        if more || (this.blocked.is_none() && !ready.list.is_empty()) {
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
        self.shared.ready().list.clear();
        self.shared.called.notify_waiters();
        self.shared.idle.notify_waiters();
    }
}
