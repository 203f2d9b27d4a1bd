//! Nodes over QUIC: the one place here that knows quinn.
//!
//! Every node dials every other one. What it asks and tells goes out over the connection that it dialled, answers come
//! back on the same streams: one stream a lane, open as long as the connection. The scheduler of streams sends the more
//! urgent lane first, flow control keeps a lane that is not read from holding up the others, and what waits is bounded.

mod accept;
mod frames;
mod link;
mod outlet;
mod peers;
mod stream;
mod window;
#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    frames::goldens()
}

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use magpie_protocol::NodeId;
use quinn::{AsyncUdpSocket, IdleTimeout, Runtime, VarInt};
use tokio::{runtime::Handle, task::JoinHandle, time::Instant};

use self::peers::Peers;
use super::{
    Lane, LinkError, MESSAGE_LEN_MAX, Service, Transport,
    tls::{Identity, IdentityError},
};
use crate::consensus::BoxFuture;

/// A peer that says nothing for this long is gone; one that has nothing to say is asked so often that several packets
/// in a row must be lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// What a lane may have under way that its reader has not taken. At 1 Gbit/s it is 2 ms: that long may an urgent frame
/// wait behind a snapshot's bytes that have left. At 10 ms between two sites it still carries 25 MB/s.
const LANE_WINDOW: u32 = 256 * 1024;
/// How many packets may overtake one, and how many round trips it may be late, before it is taken for lost. RFC 9002
/// recommends 3 and 9/8 for paths of which nothing is known; what is sent again for nothing makes a bad network worse.
const OVERTAKEN_MAX: u32 = 32;
const LATE_MAX: f32 = 1.5;
/// Nodes are near each other: whether a first packet is lost shows sooner than after quinn's third of a second.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// A burst of every peer's lanes arrives while the one thread is busy elsewhere.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// How long a stop waits for the peers to hear of it.
const STOP_TIME_MAX: Duration = Duration::from_millis(500);

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot listen for nodes on {address}: {error}; is another process there?")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("the endpoint for nodes does not start: {0}")]
    Endpoint(io::Error),
}

/// What the tasks share.
struct Shared {
    node: NodeId,
    endpoint: quinn::Endpoint,
    client: Mutex<quinn::ClientConfig>,
    service: OnceLock<Arc<dyn Service>>,
    peers: Mutex<Peers>,
    runtime: Handle,
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> quinn::ClientConfig {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends every connection, and the tasks, some of which end later.
    fn end(&self) -> Vec<JoinHandle<()>> {
        let tasks = self.peers().stop();
        self.endpoint.close(VarInt::from_u32(0), b"this node stops");
        tasks
    }
}

/// What QUIC runs over: a socket of the system, or the network of a simulation.
#[derive(Debug, Clone)]
pub struct Underlay {
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// What the endpoint draws from, so that a simulation can be repeated; the system's randomness without.
    pub seed: Option<[u8; 32]>,
}

impl Underlay {
    /// An endpoint over it.
    pub fn endpoint(
        self,
        mut config: quinn::EndpointConfig,
        server: Option<quinn::ServerConfig>,
    ) -> io::Result<quinn::Endpoint> {
        config.rng_seed(self.seed);
        quinn::Endpoint::new_with_abstract_socket(config, server, self.socket, Arc::new(quinn::TokioRuntime))
    }
}

/// A node's end of every link.
pub struct QuicTransport {
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

impl QuicTransport {
    /// Listens for peers here. Must be called in a tokio runtime, which runs its tasks.
    pub fn bind(node: NodeId, listen: SocketAddr, identity: &Identity) -> Result<Self, StartError> {
        identity.check(node)?;
        let socket = open_socket(listen).map_err(|error| StartError::Listen { address: listen, error })?;
        Self::assemble(node, identity, Underlay { socket, seed: None })
    }

    /// The same over an underlay that is given.
    pub fn over(node: NodeId, identity: &Identity, underlay: Underlay) -> Result<Self, StartError> {
        identity.check(node)?;
        Self::assemble(node, identity, underlay)
    }

    fn assemble(node: NodeId, identity: &Identity, underlay: Underlay) -> Result<Self, StartError> {
        // Made from the node's key: peers of the process before this one learn at their next packet that it is gone.
        let reset = identity.secret(b"magpie node stateless reset");
        let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset.as_ref());
        let mut config = quinn::EndpointConfig::new(Arc::new(reset));
        // Not the default, which draws from 2^24, and would not own an id from before a restart.
        config.cid_generator(|| Box::new(quinn_proto::RandomConnectionIdGenerator::default()));
        let server = server_config(identity)?;
        let endpoint = underlay.endpoint(config, Some(server)).map_err(StartError::Endpoint)?;
        let runtime = Handle::current();
        let (client, peers) = (Mutex::new(client_config(identity)?), Mutex::default());
        let shared = Arc::new(Shared { node, endpoint, client, service: OnceLock::new(), peers, runtime });
        let accepting = Mutex::new(Some(shared.runtime.spawn(accept::accept(shared.clone()))));
        Ok(Self { shared, accepting })
    }

    /// Shows this certificate, and trusts this authority, on every connection from now on. Those that stand stay.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), IdentityError> {
        identity.check(self.shared.node)?;
        let (server, client) = (server_config(identity)?, client_config(identity)?);
        self.shared.endpoint.set_server_config(Some(server));
        *self.shared.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }
}

impl Transport for QuicTransport {
    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>) {
        self.shared.peers().set(&self.shared, &peers);
    }

    fn set_guests(&self, guests: BTreeSet<NodeId>) {
        self.shared.peers().guests = guests;
    }

    fn set_service(&self, service: Arc<dyn Service>) {
        if self.shared.service.set(service).is_err() {
            tracing::error!(node = %self.shared.node, "the service of a transport is set twice; the first one stays");
        }
    }

    fn call(&self, to: NodeId, lane: Lane, request: Bytes, within: Duration) -> BoxFuture<Result<Bytes, LinkError>> {
        let deadline = Instant::now() + within;
        let call = self.link(to, &request).and_then(|link| link.call(lane, request));
        Box::pin(async move { call?.answer(deadline, within).await })
    }

    fn tell(&self, to: NodeId, lane: Lane, message: Bytes) {
        if let Err(error) = self.link(to, &message).and_then(|link| link.tell(lane, message)) {
            tracing::trace!(?lane, %error, "a message is lost");
        }
    }

    fn connected(&self) -> Vec<NodeId> {
        self.shared.peers().connected()
    }

    fn stop(&self) -> BoxFuture<()> {
        let shared = self.shared.clone();
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            let mut tasks = shared.end();
            tasks.extend(accepting);
            for task in tasks {
                // It was told to end: that it was cut short is no news.
                _ = task.await;
            }
            if tokio::time::timeout(STOP_TIME_MAX, shared.endpoint.wait_idle()).await.is_err() {
                tracing::debug!("some nodes did not hear that this one stops");
            }
        })
    }
}

impl QuicTransport {
    fn link(&self, to: NodeId, payload: &Bytes) -> Result<Arc<link::Link>, LinkError> {
        let refused = |why: String| LinkError::Refused { to, why };
        if payload.len() > MESSAGE_LEN_MAX {
            return Err(refused(format!("{} bytes are over the limit of {MESSAGE_LEN_MAX}", payload.len())));
        }
        self.shared.peers().link(to).map_err(|why| refused(why.to_owned()))
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        drop(self.shared.end());
    }
}

/// A socket of the system, with buffers as large as it allows.
fn open_socket(listen: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&listen.into())?;
    quinn::TokioRuntime.wrap_udp_socket(socket.into())
}

fn transport_config() -> quinn::TransportConfig {
    let mut config = quinn::TransportConfig::default();
    let lanes = Lane::ALL.len() as u32;
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(lanes))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(LANE_WINDOW))
        // Both are more than all lanes together may use: what one holds is not taken from the others.
        .receive_window(VarInt::from_u32(2 * lanes * LANE_WINDOW))
        .send_window(u64::from(4 * lanes * LANE_WINDOW))
        .initial_rtt(INITIAL_RTT)
        .congestion_controller_factory(Arc::new(window::Floored::default()))
        .packet_threshold(OVERTAKEN_MAX)
        .time_threshold(LATE_MAX)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok());
    config
}

fn server_config(identity: &Identity) -> Result<quinn::ServerConfig, IdentityError> {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(identity.server()?);
    let crypto = crypto.map_err(|e| IdentityError::Tls(e.to_string()))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    // Whoever knows the port may knock, but costs little memory.
    config.max_incoming(256).incoming_buffer_size(16 * 1024).incoming_buffer_size_total(4 << 20);
    config.migration(false).transport_config(Arc::new(transport_config()));
    Ok(config)
}

fn client_config(identity: &Identity) -> Result<quinn::ClientConfig, IdentityError> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(identity.client()?);
    let crypto = crypto.map_err(|e| IdentityError::Tls(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = transport_config();
    // Its answers keep the other side awake too.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0)).keep_alive_interval(Some(KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    Ok(config)
}
