//! UDP sockets and TLS trust. The one file that configures quinn and rustls.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use magpie_protocol::ALPN;
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig,
    VarInt, crypto::rustls::QuicClientConfig,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{Error, NetworkConfig};

const KEEP_ALIVE: Duration = Duration::from_secs(15);
const IDLE_TIMEOUT_MS: u32 = 45_000;
pub(crate) const RECEIVE_WINDOW: u32 = 512 * 1024;
const STREAM_RECEIVE_WINDOW: u32 = 256 * 1024;

/// UDP sockets and TLS trust, shared by any number of clients in a process: a phone has one, a load test shares
/// it among thousands. Cloning shares.
#[derive(Clone, Debug)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoints: Vec<Endpoint>,
    next: AtomicUsize,
    tls: ClientConfig,
    server_name: String,
    bind: SocketAddr,
    socket_buffer_bytes: usize,
}

impl Network {
    /// Binds the sockets. Must be called inside a tokio runtime, which then drives them.
    ///
    /// # Errors
    /// [`Error::Tls`] when the authority cannot be read, [`Error::Network`] when a socket cannot be bound.
    pub fn new(config: NetworkConfig) -> Result<Self, Error> {
        let tls = client_config(&config.ca_pem)?;
        let network = |e: std::io::Error| Error::Network(format!("cannot bind {}: {e}", config.bind));
        let mut endpoints = Vec::with_capacity(config.sockets.max(1));
        for _ in 0..config.sockets.max(1) {
            let socket = bind(config.bind, config.socket_buffer_bytes).map_err(network)?;
            let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime));
            endpoints.push(endpoint.map_err(network)?);
        }
        Ok(Self::made(endpoints, tls, config))
    }

    fn made(endpoints: Vec<Endpoint>, tls: ClientConfig, config: NetworkConfig) -> Self {
        let NetworkConfig { server_name, bind, socket_buffer_bytes, .. } = config;
        Self(Arc::new(Inner { endpoints, next: AtomicUsize::new(0), tls, server_name, bind, socket_buffer_bytes }))
    }

    /// The device has another address from now on, such as of another radio network: its connections go on over new
    /// sockets, and nothing is lost or said twice. Call it when the system says that the network changed.
    ///
    /// # Errors
    /// [`Error::Network`] when a socket cannot be bound; what was there goes on.
    pub fn rebind(&self) -> Result<(), Error> {
        let Inner { endpoints, bind: address, socket_buffer_bytes, .. } = &*self.0;
        let network = |e: std::io::Error| Error::Network(format!("cannot bind {address}: {e}"));
        for endpoint in endpoints {
            let socket = bind(*address, *socket_buffer_bytes).map_err(network)?;
            endpoint.rebind(socket).map_err(network)?;
        }
        Ok(())
    }

    /// The same over one socket that is given, such as one of a simulated network; `seed` is what the endpoint draws
    /// from, so that a run can be repeated. Nothing is bound.
    ///
    /// # Errors
    /// [`Error::Tls`] when the authority cannot be read, [`Error::Network`] when the socket is of no use.
    pub fn over(config: NetworkConfig, socket: Arc<dyn AsyncUdpSocket>, seed: [u8; 32]) -> Result<Self, Error> {
        let tls = client_config(&config.ca_pem)?;
        let mut endpoint = EndpointConfig::default();
        endpoint.rng_seed(Some(seed));
        let endpoint = Endpoint::new_with_abstract_socket(endpoint, None, socket, Arc::new(TokioRuntime));
        let endpoints = vec![endpoint.map_err(|e| Error::Network(e.to_string()))?];
        Ok(Self::made(endpoints, tls, config))
    }

    /// Waits until every connection over these sockets has said goodbye; call it after closing the clients.
    pub async fn drained(&self) {
        for endpoint in &self.0.endpoints {
            endpoint.wait_idle().await;
        }
    }

    /// A QUIC connection to `server`, on the socket whose turn it is.
    pub(crate) async fn connect(&self, server: SocketAddr) -> Result<Connection, String> {
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed) % self.0.endpoints.len();
        let connecting = self.0.endpoints[turn].connect_with(self.0.tls.clone(), server, &self.0.server_name);
        connecting.map_err(|e| e.to_string())?.await.map_err(|e| e.to_string())
    }
}

fn bind(address: SocketAddr, buffer_bytes: usize) -> std::io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    // The kernel caps these; less than asked for is no error.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn client_config(ca: &[u8]) -> Result<ClientConfig, Error> {
    let tls = |e: &dyn std::fmt::Display| Error::Tls(e.to_string());
    let mut roots = RootCertStore::empty();
    if ca.starts_with(&[0x30]) {
        roots.add(CertificateDer::from(ca.to_vec())).map_err(|e| tls(&e))?;
    } else {
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.map_err(|e| tls(&e))?).map_err(|e| tls(&e))?;
        }
    }
    if roots.is_empty() {
        return Err(Error::Tls("no certificate in the given authority".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| tls(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let quic = QuicClientConfig::try_from(config).map_err(|e| tls(&e))?;
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        // The node does the same: most messages fit the least size of packet.
        .mtu_discovery_config(None);
    let mut client = ClientConfig::new(Arc::new(quic));
    client.transport_config(Arc::new(transport));
    Ok(client)
}
