//! What a socket's driver and those who use its connections share.

use std::{
    collections::VecDeque,
    mem,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::Instant,
};

use bytes::BytesMut;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{self, EcnCodepoint},
};
use quinn_proto::{ConnectionError, DatagramEvent, Endpoint, Incoming, Transmit};
use tokio::sync::Notify;

use super::{
    connection::{Connection, State},
    ids, now,
};

/// Datagrams from other sockets that may wait; more are lost, as on the way.
const PASSED_MAX: usize = 1024;

/// What the driver and those who use its connections share. Locks are taken in this order: table, a connection, ready.
pub(super) struct Shared {
    socket: Arc<dyn AsyncUdpSocket>,
    table: Mutex<Table>,
    ready: Mutex<Ready>,
    /// As many connections as the endpoint has, for those who do not wait for the table.
    open: AtomicUsize,
    pub(super) called: Notify,
    pub(super) idle: Notify,
}

/// Who there is.
pub(super) struct Table {
    pub(super) endpoint: Endpoint,
    /// By handle.
    pub(super) connections: Vec<Option<Arc<Connection>>>,
    /// Those who wait to be let in.
    pub(super) callers: VecDeque<Incoming>,
    /// Nobody is let in any more.
    pub(super) closed: bool,
    /// The driver has ended.
    pub(super) lost: bool,
}

/// A datagram, and where it came from.
pub(super) struct Arrived {
    pub(super) from: SocketAddr,
    pub(super) to: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: BytesMut,
}

/// What waits for the driver.
#[derive(Default)]
pub(super) struct Ready {
    /// Connections to be looked at.
    pub(super) list: Vec<Arc<Connection>>,
    /// Datagrams that came to another socket.
    pub(super) passed: Vec<Arrived>,
    /// Set while the driver sleeps.
    pub(super) driver: Option<Waker>,
}

impl Shared {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, endpoint: Endpoint) -> Arc<Self> {
        let table = Table { endpoint, connections: Vec::new(), callers: VecDeque::new(), closed: false, lost: false };
        Arc::new(Self {
            socket,
            table: Mutex::new(table),
            ready: Mutex::default(),
            open: AtomicUsize::new(0),
            called: Notify::new(),
            idle: Notify::new(),
        })
    }

    pub(super) fn socket(&self) -> &dyn AsyncUdpSocket {
        &*self.socket
    }

    pub(super) fn poller(&self) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Notes how many there are.
    pub(super) fn count(&self, table: &Table) {
        self.open.store(table.endpoint.open_connections(), Ordering::Relaxed);
    }

    /// Puts a connection on the list; the caller has marked it so.
    pub(super) fn add(&self, connection: Arc<Connection>) {
        self.put(|ready| ready.list.push(connection));
    }

    /// Takes a datagram that came to another socket.
    pub(super) fn pass(&self, arrived: Arrived) {
        self.put(|ready| {
            if ready.passed.len() < PASSED_MAX {
                ready.passed.push(arrived);
            }
        });
    }

    fn put(&self, put: impl FnOnce(&mut Ready)) {
        let mut ready = self.ready();
        put(&mut ready);
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
                self.count(&table);
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

/// As the socket takes it.
pub(super) fn datagram<'a>(transmit: &Transmit, bytes: &'a [u8]) -> udp::Transmit<'a> {
    udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
        contents: &bytes[..transmit.size],
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    }
}

/// Whose socket a datagram should have come to: the system sends those of a device to one socket by the device's
/// address, and that may change.
pub(super) fn of_another<'a>(all: &'a [Arc<Shared>], mine: &Arc<Shared>, datagram: &[u8]) -> Option<&'a Arc<Shared>> {
    if all.len() == 1 {
        return None;
    }
    all.get(ids::place_of(datagram)?).filter(|other| !Arc::ptr_eq(other, mine))
}

/// Hands a datagram to whom it is for.
pub(super) fn take(shared: &Shared, table: &mut Table, arrived: Arrived, now: Instant) {
    let Arrived { from, to, ecn, bytes: datagram } = arrived;
    let ecn = ecn.and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
    let mut bytes = Vec::new();
    match table.endpoint.handle(now, from, to, ecn, datagram, &mut bytes) {
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
