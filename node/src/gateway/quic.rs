//! The one place here that knows quinn: a socket, its connections, and frames over their session streams.
//!
//! Of quinn it takes the protocol (`quinn_proto`) and the socket; the tasks between the two are [`driver`]'s one.

mod connection;
mod driver;
mod ids;
mod shared;
mod streams;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use magpie_cluster::transport::quic::Underlay;
use magpie_protocol::{PROOF_LABEL, codec::CodecError};
use quinn::{IdleTimeout, Runtime, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::{AckFrequencyConfig, Endpoint};
use tokio::{runtime::Handle, task::AbortHandle};

use self::{
    connection::{Connection, Wait},
    driver::Driver,
    ids::ConnectionIds,
    shared::Shared,
};
pub use self::{
    ids::PLACES_MAX,
    streams::{FrameSink, FrameSource, MEDIA_STALL, MediaStream},
};
use crate::config::Gateway;

/// The sockets that devices come in over, all on one address: one for each event loop.
#[derive(Clone)]
pub struct Listener {
    doors: Arc<[Door]>,
    /// What the kernel gave each: bytes to receive and to send.
    pub buffers: (usize, usize),
}

/// One of the sockets.
#[derive(Clone)]
pub struct Door {
    shared: Arc<Shared>,
    _running: Arc<Running>,
}

/// The driver's task, which ends with the last handle to its socket.
struct Running(AbortHandle);

/// Somebody who would like to connect.
pub struct Caller {
    incoming: Option<quinn_proto::Incoming>,
    shared: Arc<Shared>,
}

/// A connection. It ends with the last clone, and with the last of its streams.
#[derive(Clone)]
pub struct Link(Arc<Held>);

struct Held(Arc<Connection>);

/// Why a session's frames ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    #[error("the connection is gone: {0}")]
    Gone(String),
    #[error("the device broke the protocol: {0}")]
    Protocol(#[from] CodecError),
}

fn gone(error: impl std::fmt::Display) -> LinkError {
    LinkError::Gone(error.to_string())
}

/// The time, as the runtime has it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What a stream may have on its way to the node, and the connection before it is signed in, in bytes.
const RECEIVE_WINDOW: u32 = 128 * 1024;
/// Packets that a device may have received before it must acknowledge them, where it would do so for every second one.
/// Its next request then carries most acknowledgements; alone they go after 25 ms. It is what the QUIC extension for that
/// (draft-ietf-quic-ack-frequency) is for; a device without it goes on as before.
///
/// No more than a sign-in takes: in quinn 0.11 an acknowledgement within the handshake stops the timer of those after it,
/// and nothing but this number or a probe of ours, 28 ms later, makes the device send the first of them.
const UNACKNOWLEDGED_MAX: u32 = 4;
/// Callers that may wait to be let in, and bytes that they may have sent.
const CALLERS_MAX: usize = 4096;
const CALLERS_BYTES_MAX: u64 = 16 << 20;
/// What may be on its way to a device, in bytes; for each media stream as much again.
const SEND_WINDOW: u32 = 256 * 1024;

fn transport(config: &Gateway) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(Duration::from_millis(config.idle_timeout_ms)).ok();
    let mut acknowledging = AckFrequencyConfig::default();
    acknowledging.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED_MAX));
    transport
        // One session stream, no more before it is signed in: whatever else is opened waits at the device.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW.into())
        .datagram_receive_buffer_size(None)
        // Probing for larger packets costs every sign-in some, and most messages are shorter than the least.
        .mtu_discovery_config(None)
        .ack_frequency_config(Some(acknowledging))
        .max_idle_timeout(idle);
    transport
}

/// A socket of the system, which shares its address with those that are there, or takes it alone.
fn open_socket(config: &Gateway, listen: SocketAddr, shares: bool) -> io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    socket.set_recv_buffer_size(config.socket_buffer_bytes)?;
    socket.set_send_buffer_size(config.socket_buffer_bytes)?;
    socket.set_reuse_port(shares)?;
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {listen}: {e}"));
    socket.bind(&listen.into()).map_err(named)?;
    Ok(socket)
}

/// So many sockets of the system, and what the kernel gave each.
fn open_sockets(config: &Gateway, count: usize) -> io::Result<(Vec<socket2::Socket>, (usize, usize))> {
    // Alone at first: of two nodes that would share an address neither would notice.
    let first = open_socket(config, config.listen, false)?;
    first.set_reuse_port(count > 1)?;
    // Linux reports twice what it was asked for.
    let buffers = (first.recv_buffer_size()? / 2, first.send_buffer_size()? / 2);
    let listen = first.local_addr()?.as_socket().unwrap_or(config.listen);
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(open_socket(config, listen, true)?);
    }
    Ok((sockets, buffers))
}

impl Listener {
    /// Binds a socket for each of these loops, and drives it there; where another underlay is given, that, in the first.
    /// With the same `reset_key` as before a restart, devices learn at their next packet that their connection is gone.
    pub fn bind(
        config: &Gateway,
        tls: Arc<rustls::ServerConfig>,
        reset_key: &[u8],
        underlay: Option<Underlay>,
        loops: &[Handle],
    ) -> io::Result<Self> {
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::new(transport(config)));
        // Of those who are not let in yet; over all sockets.
        let sockets = if underlay.is_some() { 1 } else { loops.len().max(1) };
        server
            .migration(true)
            .max_incoming(CALLERS_MAX / sockets)
            .incoming_buffer_size(16 * 1024)
            .incoming_buffer_size_total(CALLERS_BYTES_MAX / sockets as u64);
        let server = Arc::new(server);
        let key = Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key));
        let (mut seed, mut sockets) = (None, Vec::new());
        let buffers = match underlay {
            Some(underlay) => {
                seed = underlay.seed;
                sockets.push(underlay.socket);
                (0, 0)
            }
            None => {
                let (opened, buffers) = open_sockets(config, loops.len())?;
                for (socket, runtime) in opened.into_iter().zip(loops) {
                    let _there = runtime.enter();
                    sockets.push(TokioRuntime.wrap_udp_socket(socket.into())?);
                }
                buffers
            }
        };
        let share = |(place, socket): (usize, Arc<dyn quinn::AsyncUdpSocket>)| {
            let mut endpoint = quinn::EndpointConfig::new(key.clone());
            endpoint.rng_seed(seed).cid_generator(move || Box::new(ConnectionIds::new(place)));
            let fragments = socket.may_fragment();
            Shared::new(socket, Endpoint::new(Arc::new(endpoint), Some(server.clone()), !fragments, None))
        };
        let all: Arc<[Arc<Shared>]> = sockets.into_iter().enumerate().map(share).collect();
        let drive = |(place, runtime): (usize, &Handle)| {
            let _there = runtime.enter();
            let running = Running(runtime.spawn(Driver::new(all.clone(), place)).abort_handle());
            Door { shared: all[place].clone(), _running: Arc::new(running) }
        };
        let doors = loops.iter().take(all.len()).enumerate().map(drive).collect();
        Ok(Self { doors, buffers })
    }

    /// Each socket, in the order of the loops.
    pub fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.doors[0].shared.socket().local_addr()
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> usize {
        self.doors.iter().map(|door| door.shared.open()).sum()
    }

    /// Takes no more callers.
    pub fn refuse_new(&self) {
        self.doors.iter().for_each(|door| door.shared.table().endpoint.set_server_config(None));
    }

    /// Closes every connection and waits until their ends are told, no longer than this.
    pub async fn close(&self, wait: Duration) {
        self.doors.iter().for_each(|door| door.shared.close(b"stopping"));
        let idle = async {
            for door in self.doors.iter() {
                door.idle().await;
            }
        };
        if tokio::time::timeout(wait, idle).await.is_err() {
            tracing::debug!("some connections did not hear that the node stops");
        }
    }
}

impl Door {
    /// The next caller; `None` when the listener is closed.
    pub async fn accept(&self) -> Option<Caller> {
        loop {
            let called = self.shared.called.notified();
            {
                let mut table = self.shared.table();
                if let Some(incoming) = table.callers.pop_front() {
                    return Some(Caller { incoming: Some(incoming), shared: self.shared.clone() });
                }
                if table.closed {
                    return None;
                }
            }
            called.await;
        }
    }

    /// Returns when there are no connections.
    async fn idle(&self) {
        loop {
            let idle = self.shared.idle.notified();
            if self.shared.table().is_idle() {
                return;
            }
            idle.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Caller {
    /// Whether the address has proved that it receives what is sent to it.
    pub fn is_validated(&self) -> bool {
        self.incoming.as_ref().is_some_and(quinn_proto::Incoming::remote_address_validated)
    }

    /// Asks the address to prove itself.
    pub fn retry(mut self) {
        if let Some(incoming) = self.incoming.take() {
            self.shared.retry(incoming);
        }
    }

    /// Turns the caller away.
    pub fn refuse(self) {}

    /// Shakes hands.
    pub async fn accept(mut self) -> Result<Link, LinkError> {
        let incoming = self.incoming.take().ok_or_else(|| LinkError::Gone("the caller was answered before".into()))?;
        let link = Link(Arc::new(Held(self.shared.accept(incoming).map_err(gone)?)));
        link.connection().until(Wait::Connected, |state| state.is_connected().then_some(Ok(()))).await?;
        Ok(link)
    }
}

/// Whoever is not let in is turned away.
impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            self.shared.refuse(incoming);
        }
    }
}

impl Link {
    fn connection(&self) -> &Arc<Connection> {
        &self.0.0
    }

    /// Where the device is now.
    pub fn address(&self) -> SocketAddr {
        self.connection().lock().address()
    }

    /// Lets the device open so many media streams beside its session stream, with room for each, so that none of them
    /// takes the session's.
    pub fn allow_media(&self, streams: u32) {
        let times = streams.saturating_add(1);
        self.connection().with(|state| {
            if state.is_broken() {
                return;
            }
            state.quic.set_send_window(u64::from(SEND_WINDOW) * u64::from(times));
            state.quic.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW.saturating_mul(times)));
            state.quic.set_max_concurrent_streams(quinn_proto::Dir::Bi, VarInt::from_u32(times));
            state.touch();
        });
    }

    /// What both sides of this very connection can compute, for a device key to sign.
    pub fn exported(&self) -> Option<[u8; 32]> {
        let mut exported = [0; 32];
        let state = self.connection().lock();
        state.quic.crypto_session().export_keying_material(&mut exported, PROOF_LABEL, b"").ok()?;
        Some(exported)
    }

    /// Ends the connection.
    pub fn close(&self, reason: &str) {
        self.connection().close(reason.as_bytes());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.close(b"");
    }
}

/// Counts what is under way, and forgets it when it ends.
pub struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    /// One more.
    pub fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}
