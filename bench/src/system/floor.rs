//! The physical floor: a relay that does nothing but what the promise asks for. Frames over QUIC, one shared log,
//! fdatasync before the acknowledgement and the delivery; no state, no membership, no retry, no history.
//!
//! A connection says who it is and which rooms it is in; then each frame is `length u32 | room u32 | text`. To a
//! sender, an acknowledgement is a frame of room `ACK` without text.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::{mpsc, oneshot};

use super::{Acknowledged, Everybody, Reader, Topology, User, magpie::all};
use crate::ledger::Ledger;

/// The room of acknowledgements.
pub(crate) const ACK: u32 = u32::MAX;
pub(crate) const ALPN: &[u8] = b"floor/1";
const FRAME_MAX: usize = 64 * 1024;
/// Where quinn's search for larger packets ends.
const MTU: u16 = 1452;

/// A frame.
pub(crate) fn frame(room: u32, text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + text.len());
    out.put_u32_le(4 + text.len() as u32);
    out.put_u32_le(room);
    out.put_slice(text);
    out.freeze()
}

/// Takes frames out of a stream.
pub(crate) struct Frames {
    stream: quinn::RecvStream,
    buffer: BytesMut,
}

impl Frames {
    pub(crate) fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next: its room and text.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<(u32, Bytes)>> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize) {
                ensure!((4..=FRAME_MAX).contains(&length), "a frame of {length} bytes");
                if self.buffer.len() >= 4 + length {
                    let mut frame = self.buffer.split_to(4 + length).freeze().split_off(4);
                    let room = u32::from_le_bytes(frame.split_to(4).as_ref().try_into()?);
                    return Ok(Some((room, frame)));
                }
            }
            match self.stream.read_chunk(64 * 1024, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None => return Ok(None),
            }
        }
    }
}

/// A running floor.
#[derive(Clone)]
pub(crate) struct Floor {
    endpoint: quinn::Endpoint,
    server: SocketAddr,
}

struct Member {
    out: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<Mutex<VecDeque<oneshot::Sender<()>>>>,
    _reader: Reader,
}

impl User for Member {
    fn send(&self, room: usize, text: String) -> Acknowledged {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(tell);
        _ = self.out.send(frame(room as u32, text.as_bytes()));
        Box::pin(async move { told.await.context("the floor closed the connection") })
    }
}

impl Floor {
    /// The floor at this address.
    pub(crate) fn new(server: SocketAddr, ca: &[u8]) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::new(transport()));
        let socket = socket(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let mut endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)?;
        endpoint.set_default_client_config(config);
        Ok(Self { endpoint, server })
    }

    /// Everybody of this topology.
    pub(crate) async fn gather(&self, topology: &Topology, ledger: &Ledger) -> anyhow::Result<Everybody> {
        let rooms_of = topology.rooms_of();
        let members = all(topology.users, 64, |index| {
            let (this, ledger, rooms) = (self.clone(), ledger.clone(), rooms_of[index].clone());
            async move { this.join(index, &rooms, ledger).await }
        });
        members.await
    }

    /// Connects and says hello: the floor knows nobody, so who comes back is one who comes.
    pub(crate) async fn join(&self, index: usize, rooms: &[usize], ledger: Ledger) -> anyhow::Result<Arc<dyn User>> {
        let connection = self.endpoint.connect(self.server, "localhost")?.await?;
        let (mut write, read) = connection.open_bi().await?;
        let mut hello = BytesMut::new();
        rooms.iter().for_each(|room| hello.put_u32_le(*room as u32));
        write.write_all(&frame(ACK, &hello)).await?;
        let (out, mut queued) = mpsc::unbounded_channel::<Bytes>();
        let waiting = Arc::new(Mutex::new(VecDeque::<oneshot::Sender<()>>::new()));
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while queued.recv_many(&mut batch, 64).await > 0 {
                if write.write_all_chunks(&mut batch).await.is_err() {
                    return;
                }
                batch.clear();
            }
        });
        let mut frames = Frames::new(read);
        let told = waiting.clone();
        // The first frame says that the floor knows this connection.
        let hello = frames.next().await?;
        ensure!(hello.is_some(), "the floor closed the connection");
        let reader = Reader::spawn(async move {
            let _connection = connection;
            while let Ok(Some((room, text))) = frames.next().await {
                if room == ACK {
                    let tell = told.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    _ = tell.map(|tell| tell.send(()));
                } else if let Ok(text) = std::str::from_utf8(&text) {
                    ledger.saw(index, text);
                }
            }
            told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Arc::new(Member { out, waiting, _reader: reader }))
    }
}

/// A UDP socket with the buffers that Magpie's have.
pub(crate) fn socket(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket.set_send_buffer_size(4 << 20)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The same on both sides, and close to what Magpie sets.
pub(crate) fn transport() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport
        .keep_alive_interval(Some(std::time::Duration::from_secs(15)))
        .max_idle_timeout(Some(quinn::VarInt::from_u32(45_000).into()))
        // Packets as large as probing would find them on any network, without what probing costs a handshake.
        .initial_mtu(MTU)
        .mtu_discovery_config(None)
        .max_concurrent_uni_streams(0u32.into())
        .max_concurrent_bidi_streams(1u32.into())
        .datagram_receive_buffer_size(None);
    transport
}

/// Which connections hear a room.
pub(crate) type Rooms = HashMap<u32, Vec<usize>>;
