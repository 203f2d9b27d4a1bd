//! How a client behaves.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// What any number of clients share: see [`Network`](crate::Network).
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The certificate authority that signs servers, as PEM (or one certificate as DER).
    pub ca_pem: Vec<u8>,
    /// Where sockets are bound; default `0.0.0.0:0`, any port.
    pub bind: SocketAddr,
    /// The name that the server's certificate must bear; default `localhost`.
    pub server_name: String,
    /// How many UDP sockets the clients are spread over; default 1, right for a phone.
    pub sockets: usize,
    /// Kernel buffers of each socket, each way, in bytes; default 4 MiB. The kernel may grant less.
    pub socket_buffer_bytes: usize,
}

impl NetworkConfig {
    /// The defaults, trusting this certificate authority.
    pub fn new(ca_pem: impl Into<Vec<u8>>) -> Self {
        Self {
            ca_pem: ca_pem.into(),
            bind: SocketAddr::from(([0, 0, 0, 0], 0)),
            server_name: "localhost".into(),
            sockets: 1,
            socket_buffer_bytes: 4 * 1024 * 1024,
        }
    }
}

/// What is kept of the entries that arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum History {
    /// Every entry is in the store, to be read with [`Client::history`](crate::Client::history). An app that does
    /// not read its events gets [`Event::Lagged`](crate::Event::Lagged) and reads the history instead.
    #[default]
    All,
    /// Entries go to the event stream and nowhere else; while nobody reads it, nothing more is read from the server.
    None,
}

/// Where a client keeps what must outlive a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// An SQLite file, made if it is not there; `<file>.lock` beside it keeps other processes out.
    File(PathBuf),
    /// Nowhere: everything ends with the client.
    Memory,
}

/// Where there are others, one node is not waited for longer than this.
const CONNECT_ELSEWHERE: Duration = Duration::from_secs(2);

/// One client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The node to connect to.
    pub server: SocketAddr,
    /// Other nodes of its cluster: when a connection is lost or does not come about, the next one is tried.
    pub others: Vec<SocketAddr>,
    /// Name and version of the program, for the operator; default this SDK's.
    pub agent: String,
    /// The device's name for its owner, at most [`DEVICE_NAME_LEN_MAX`](crate::limits::DEVICE_NAME_LEN_MAX) bytes.
    pub device_name: String,
    /// What is kept of entries; default all.
    pub history: History,
    /// A request without answer for this long means that the connection is lost; default 10 s.
    pub request_timeout: Duration,
    /// Where there are others: a connection over which nothing comes back for this long, while datagrams go out, is
    /// lost; default 400 ms, and eight round trips on a slow path. A node that lives is not left for taking its time.
    pub silence_timeout: Duration,
    /// How long one call (find, sign in, ...) may take over all its tries; default 30 s.
    pub ask_timeout: Duration,
    /// Events that wait for the app; default 1,024.
    pub events_max: usize,
}

impl Config {
    /// The defaults, for this server.
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            others: Vec::new(),
            agent: concat!("magpie-client/", env!("CARGO_PKG_VERSION")).into(),
            device_name: "a device".into(),
            history: History::All,
            request_timeout: Duration::from_secs(10),
            silence_timeout: Duration::from_millis(400),
            ask_timeout: Duration::from_secs(30),
            events_max: 1024,
        }
    }

    /// The node whose turn it is, after so many connections that were lost.
    pub(crate) fn server_at(&self, turn: usize) -> SocketAddr {
        match turn % (1 + self.others.len()) {
            0 => self.server,
            at => self.others[at - 1],
        }
    }

    /// How long a node may say nothing at all, if there are others.
    pub(crate) fn silence_patience(&self) -> Option<Duration> {
        (!self.others.is_empty()).then_some(self.silence_timeout)
    }

    /// How long a connection may take to come about.
    pub(crate) fn connect_patience(&self) -> Duration {
        if self.others.is_empty() { self.request_timeout } else { self.request_timeout.min(CONNECT_ELSEWHERE) }
    }
}
