//! The one file that knows quinn: an endpoint, its connections, and frames over their session streams.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, Stream};
use magpie_cluster::transport::quic::Underlay;
use magpie_protocol::{
    Frame, PROOF_LABEL, Request,
    codec::CodecError,
    frame::{FrameReader, MediaAnswer, MediaRequest},
    limits::MEDIA_FRAME_LEN_MAX,
};
use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::{config::Gateway, session::outbound::Outbound};

/// The listening socket.
#[derive(Clone)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    /// What the kernel gave the socket: bytes to receive and to send.
    pub buffers: (usize, usize),
}

/// Somebody who would like to connect.
pub struct Caller(quinn::Incoming);

/// A connection of which nothing is known yet.
#[derive(Clone)]
pub struct Link(quinn::Connection);

/// What the device writes.
pub struct FrameSource {
    stream: quinn::RecvStream,
    reader: FrameReader,
    out: Arc<Outbound>,
}

/// What the device reads.
pub struct FrameSink(quinn::SendStream);

/// A further stream of a signed-in device: one frame each way, and bytes.
pub struct MediaStream {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

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

/// A device that takes nothing of a media stream for so long is let go.
pub const MEDIA_STALL: Duration = Duration::from_secs(30);

/// What a stream may have on its way to the node, and the connection before it is signed in, in bytes.
const RECEIVE_WINDOW: u32 = 128 * 1024;
/// What may be on its way to a device, in bytes; for each media stream as much again.
const SEND_WINDOW: u32 = 256 * 1024;
/// Media give way to all else on a connection.
const MEDIA_PRIORITY: i32 = -1;
/// Bytes of media that are read in one go.
const MEDIA_CHUNK_LEN: usize = 64 * 1024;

fn transport(config: &Gateway) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(Duration::from_millis(config.idle_timeout_ms)).ok();
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
        .max_idle_timeout(idle);
    transport
}

/// A socket of the system, and what the kernel gave it.
fn open_socket(config: &Gateway) -> io::Result<(socket2::Socket, (usize, usize))> {
    let domain = socket2::Domain::for_address(config.listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    socket.set_recv_buffer_size(config.socket_buffer_bytes)?;
    socket.set_send_buffer_size(config.socket_buffer_bytes)?;
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {}: {e}", config.listen));
    socket.bind(&config.listen.into()).map_err(named)?;
    // Linux reports twice what it was asked for.
    let buffers = (socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2);
    Ok((socket, buffers))
}

impl Listener {
    /// Binds the socket, unless another underlay is given. Must be called in a tokio runtime. With the same
    /// `reset_key` as before a restart, devices learn at their next packet that their connection is gone.
    pub fn bind(
        config: &Gateway,
        tls: Arc<rustls::ServerConfig>,
        reset_key: &[u8],
        underlay: Option<Underlay>,
    ) -> io::Result<Self> {
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::new(transport(config)));
        server.migration(true).max_incoming(4096).incoming_buffer_size(16 * 1024).incoming_buffer_size_total(16 << 20);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
        let mut endpoint = quinn::EndpointConfig::new(Arc::new(key));
        // Not the default, which draws from 2^24: with 1,000 connections of some ids each, one Retry in a few thousand
        // would hand out an id that is taken, and its caller would wait in vain. Nor would it own an id from before a
        // restart, and say nothing to the device that still uses it.
        endpoint.cid_generator(|| Box::new(quinn_proto::RandomConnectionIdGenerator::default()));
        if let Some(underlay) = underlay {
            return Ok(Self { endpoint: underlay.endpoint(endpoint, Some(server))?, buffers: (0, 0) });
        }
        let (socket, buffers) = open_socket(config)?;
        let (socket, runtime) = (super::socket::wrap(socket.into())?, Arc::new(quinn::TokioRuntime));
        let endpoint = quinn::Endpoint::new_with_abstract_socket(endpoint, Some(server), socket, runtime)?;
        Ok(Self { endpoint, buffers })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next caller; `None` when the listener is closed.
    pub async fn accept(&self) -> Option<Caller> {
        self.endpoint.accept().await.map(Caller)
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Takes no more callers.
    pub fn refuse_new(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Closes every connection and waits until their ends are told, no longer than this.
    pub async fn close(&self, wait: Duration) {
        self.endpoint.close(VarInt::from_u32(0), b"stopping");
        if tokio::time::timeout(wait, self.endpoint.wait_idle()).await.is_err() {
            tracing::debug!("some connections did not hear that the node stops");
        }
    }
}

impl Caller {
    /// Whether the address has proved that it receives what is sent to it.
    pub fn is_validated(&self) -> bool {
        self.0.remote_address_validated()
    }

    /// Asks the address to prove itself.
    pub fn retry(self) {
        if let Err(error) = self.0.retry() {
            error.into_incoming().refuse();
        }
    }

    /// Turns the caller away.
    pub fn refuse(self) {
        self.0.refuse();
    }

    /// Shakes hands.
    pub async fn accept(self) -> Result<Link, LinkError> {
        Ok(Link(self.0.accept().map_err(gone)?.await.map_err(gone)?))
    }
}

impl Link {
    /// Where the device is now.
    pub fn address(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// The session stream, which the device opens.
    pub async fn session_stream(&self, out: Arc<Outbound>) -> Result<(FrameSink, FrameSource), LinkError> {
        let (send, stream) = self.0.accept_bi().await.map_err(gone)?;
        Ok((FrameSink(send), FrameSource { stream, reader: FrameReader::default(), out }))
    }

    /// Lets the device open so many media streams beside its session stream, with room for each, so that none of them
    /// takes the session's.
    pub fn allow_media(&self, streams: u32) {
        let times = streams.saturating_add(1);
        self.0.set_send_window(u64::from(SEND_WINDOW) * u64::from(times));
        self.0.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW.saturating_mul(times)));
        self.0.set_max_concurrent_bi_streams(VarInt::from_u32(times));
    }

    /// The next media stream, which the device opens.
    pub async fn media_stream(&self) -> Result<MediaStream, LinkError> {
        let (send, recv) = self.0.accept_bi().await.map_err(gone)?;
        send.set_priority(MEDIA_PRIORITY).map_err(gone)?;
        Ok(MediaStream { send, recv })
    }

    /// What both sides of this very connection can compute, for a device key to sign.
    pub fn exported(&self) -> Option<[u8; 32]> {
        let mut exported = [0; 32];
        self.0.export_keying_material(&mut exported, PROOF_LABEL, b"").ok()?;
        Some(exported)
    }

    /// Ends the connection.
    pub fn close(&self, reason: &str) {
        self.0.close(VarInt::from_u32(0), reason.as_bytes());
    }

    /// Returns when the connection has ended.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl FrameSource {
    /// The next request; `None` at the end. Waits while too much is outstanding or unread by the device.
    async fn next(&mut self) -> Result<Option<Frame<Request>>, LinkError> {
        self.out.ready_for_request().await;
        loop {
            if let Some(frame) = self.reader.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(64 * 1024, true).await.map_err(gone)? {
                Some(chunk) => self.reader.push(&chunk.bytes),
                None => return Ok(None),
            }
        }
    }

    /// The requests as a stream, which ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Frame<Request>, LinkError>> {
        futures_util::stream::unfold(Some(self), async |source| {
            let mut source = source?;
            match source.next().await {
                Ok(Some(frame)) => Some((Ok(frame), Some(source))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

impl FrameSink {
    /// Writes all of these in one go.
    pub async fn write(&mut self, pieces: &mut [Bytes]) -> Result<(), LinkError> {
        self.0.write_all_chunks(pieces).await.map_err(gone)
    }

    /// The same, as far as that goes at once; `None` when some is left, which is then all that `pieces` holds.
    pub fn write_now(&mut self, pieces: &mut Vec<Bytes>) -> Option<Result<(), LinkError>> {
        let written = self.0.write_all_chunks(pieces).now_or_never();
        if written.is_none() {
            // Those that were taken are empty now.
            pieces.retain(|piece| !piece.is_empty());
        }
        Some(written?.map_err(gone))
    }

    /// Says that nothing follows, and waits until the device has everything.
    pub async fn finish(&mut self) {
        if self.0.finish().is_ok() {
            _ = self.0.stopped().await;
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
            match self.recv.read_chunk(MEDIA_FRAME_LEN_MAX, true).await.map_err(gone)? {
                Some(chunk) => reader.push(&chunk.bytes),
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
        Ok(self.recv.read_chunk(MEDIA_CHUNK_LEN, true).await.map_err(gone)?.map(|chunk| chunk.bytes))
    }

    /// Writes all of these.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        self.send.write_chunk(bytes).await.map_err(gone)
    }

    /// Says that nothing follows, and reads no more.
    pub fn finish(mut self) {
        _ = self.send.finish();
        _ = self.recv.stop(VarInt::from_u32(0));
    }

    /// Ends the stream in the middle.
    pub fn reset(mut self) {
        _ = self.send.reset(VarInt::from_u32(1));
        _ = self.recv.stop(VarInt::from_u32(1));
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
