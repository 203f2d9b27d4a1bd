//! The driver against quinn's own client, over a socket that can be made to take nothing.

use std::{
    io::IoSliceMut,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::*;
use crate::{gateway::tls, keys::Keys};

const SOON: Duration = Duration::from_secs(10);

/// A socket that takes nothing while it is full.
#[derive(Debug)]
struct Narrow {
    socket: Arc<dyn AsyncUdpSocket>,
    full: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

#[derive(Debug)]
struct NarrowPoller(Arc<Narrow>);

impl Narrow {
    fn empty(&self) {
        self.full.store(false, Ordering::SeqCst);
        self.waiting.lock().unwrap().take().unwrap().wake();
    }
}

impl UdpPoller for NarrowPoller {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.0.full.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        *self.0.waiting.lock().unwrap() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncUdpSocket for Narrow {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(NarrowPoller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        slices: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(context, slices, metas)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A listener, the socket below it, and a client that trusts it.
struct Gate {
    listener: Listener,
    socket: Arc<Narrow>,
    client: quinn::Endpoint,
}

impl Gate {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::in_folder(dir.path());
        let server = tls::server_config(&keys, &[]).unwrap();
        let socket = TokioRuntime.wrap_udp_socket(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let socket = Arc::new(Narrow { socket, full: AtomicBool::new(false), waiting: Mutex::default() });
        let underlay = Underlay { socket: socket.clone(), seed: None };
        let loops = [Handle::current()];
        let listener = Listener::bind(&Gateway::default(), server, &[7; 32], Some(underlay), &loops).unwrap();
        Self { listener, socket, client: client_of(&keys) }
    }

    fn dial(&self) -> quinn::Connecting {
        self.client.connect(self.listener.address().unwrap(), "localhost").unwrap()
    }

    /// The next who calls.
    async fn caller(&self) -> Option<Caller> {
        self.listener.doors()[0].accept().await
    }

    /// A connection, as both sides have it.
    async fn connect(&self) -> (quinn::Connection, Link) {
        let dialled = self.dial();
        let (dialled, link) = tokio::join!(dialled, async { self.caller().await.unwrap().accept().await });
        (dialled.unwrap(), link.unwrap())
    }

    async fn until_open(&self, count: usize) {
        let open = async {
            while self.listener.open_connections() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, open).await.unwrap();
    }
}

/// A client that trusts who has these keys.
fn client_of(keys: &Keys) -> quinn::Endpoint {
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(&keys.devices_ca).unwrap();
    for cert in rustls::pki_types::pem::PemObject::pem_slice_iter(&pem) {
        roots.add(cert.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut trust = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    trust.alpn_protocols = vec![magpie_protocol::ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(trust).unwrap();
    let mut client = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    client.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    client
}

/// A stream that the device opens with a word, as both have it.
async fn stream(device: &quinn::Connection, link: &Link) -> (quinn::SendStream, quinn::RecvStream, MediaStream) {
    let (mut send, recv) = device.open_bi().await.unwrap();
    send.write_all(b"hello").await.unwrap();
    let mut stream = link.media_stream().await.unwrap();
    assert_eq!(stream.read().await.unwrap().unwrap(), &b"hello"[..]);
    (send, recv, stream)
}

#[tokio::test]
async fn what_a_full_socket_did_not_take_is_sent_once_it_takes_more_and_nothing_of_it_is_lost() {
    let gate = Gate::open();
    let (device, link) = gate.connect().await;
    let (_send, mut recv, mut written) = stream(&device, &link).await;
    gate.socket.full.store(true, Ordering::SeqCst);
    let bytes = Bytes::from((0..100_000u32).map(|i| i as u8).collect::<Vec<_>>());
    written.write(bytes.clone()).await.unwrap();
    let blocked = tokio::time::timeout(Duration::from_millis(100), recv.read_chunk(1, true)).await;
    assert!(blocked.is_err(), "the socket let something through");
    gate.socket.empty();
    let mut read = vec![0; bytes.len()];
    tokio::time::timeout(SOON, recv.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(read, bytes);
}

/// What a sign-in is to a connection; how often the node asked then to be told what has arrived.
async fn probes_of_a_sign_in(gate: &Gate) -> u64 {
    let (device, link) = gate.connect().await;
    let (mut send, mut recv, mut session) = stream(&device, &link).await;
    for round in 0..3 {
        if round > 0 {
            send.write_all(b"more").await.unwrap();
            session.read().await.unwrap().unwrap();
        }
        session.write(Bytes::from_static(b"answer")).await.unwrap();
        recv.read_chunk(100, true).await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    link.connection().lock().quic.stats().frame_tx.immediate_ack
}

#[tokio::test]
async fn a_device_has_acknowledged_its_sign_in_before_the_node_asks_for_that() {
    let gate = Gate::open();
    // On a machine that stood still for a moment it may have to ask.
    for _ in 0..3 {
        if probes_of_a_sign_in(&gate).await == 0 {
            return;
        }
    }
    panic!("the node asks each time");
}

#[tokio::test]
async fn a_panic_within_a_connection_ends_that_one_and_no_other() {
    let gate = Gate::open();
    let (_device, broken) = gate.connect().await;
    let (other, link) = gate.connect().await;
    let waiting = tokio::spawn({
        let broken = broken.clone();
        async move { broken.media_stream().await.map(drop) }
    });
    tokio::task::yield_now().await;
    broken.connection().with(|state| {
        state.shield(|_| -> () { panic!("as a packet could make it") });
        state.touch();
    });
    let ended = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert!(matches!(ended, Err(LinkError::Gone(why)) if why.contains("a fault of the node")));
    gate.until_open(1).await;
    let (_send, mut recv, mut written) = stream(&other, &link).await;
    written.write(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(recv.read_chunk(100, true).await.unwrap().unwrap().bytes, &b"still here"[..]);
}

#[tokio::test]
async fn what_is_left_of_a_broken_connection_touches_nobody_who_has_its_place_now() {
    let gate = Gate::open();
    let (device, broken) = gate.connect().await;
    let left = stream(&device, &broken).await;
    broken.connection().with(|state| {
        state.shield(|_| -> () { panic!("as a packet could make it") });
        state.touch();
    });
    gate.until_open(0).await;
    let (other, link) = gate.connect().await;
    assert_eq!(broken.connection().handle, link.connection().handle, "another place: this test tries nothing");
    // Whatever it was, something thinks that it has to send.
    broken.connection().with(|state| state.touch());
    drop((left, broken));
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gate.listener.open_connections(), 1);
    let (_send, mut recv, mut written) = stream(&other, &link).await;
    written.write(Bytes::from_static(b"still here")).await.unwrap();
    let read = tokio::time::timeout(SOON, recv.read_chunk(100, true)).await.unwrap();
    assert_eq!(read.unwrap().unwrap().bytes, &b"still here"[..]);
}

#[tokio::test]
async fn nobody_is_left_waiting_for_a_stream_that_was_given_up() {
    let gate = Gate::open();
    let (device, link) = gate.connect().await;
    for _ in 0..3 {
        let (send, recv, mut given_up) = stream(&device, &link).await;
        assert!(tokio::time::timeout(Duration::from_millis(20), given_up.read()).await.is_err());
        drop((given_up, send, recv));
    }
    assert_eq!(link.connection().lock().waiting(), 0);
}

#[tokio::test]
async fn who_is_not_let_in_is_turned_away_at_once() {
    let gate = Gate::open();
    let (dialled, ()) = tokio::join!(gate.dial(), async { drop(gate.caller().await) });
    let Err(quinn::ConnectionError::ConnectionClosed(close)) = dialled else { panic!("let in") };
    assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
}

#[tokio::test]
async fn a_connection_that_nobody_holds_any_more_is_closed_and_forgotten() {
    let gate = Gate::open();
    let (device, link) = gate.connect().await;
    let held = link.clone();
    drop(link);
    let (_send, mut recv, mut last) = stream(&device, &held).await;
    drop(held);
    // A stream holds it as well.
    last.write(Bytes::from_static(b"here")).await.unwrap();
    assert_eq!(recv.read_chunk(100, true).await.unwrap().unwrap().bytes, &b"here"[..]);
    drop(last);
    let closed = tokio::time::timeout(SOON, device.closed()).await.unwrap();
    assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
    gate.until_open(0).await;
}

#[tokio::test]
async fn when_the_listener_closes_devices_hear_of_it_and_waiting_callers_are_refused() {
    let gate = Gate::open();
    let (device, link) = gate.connect().await;
    let late = gate.dial();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (_, late) = tokio::join!(gate.listener.close(SOON), late);
    assert!(late.is_err(), "let in");
    assert!(matches!(device.closed().await, quinn::ConnectionError::ApplicationClosed(c) if c.reason == "stopping"));
    assert!(link.media_stream().await.is_err());
    assert!(gate.caller().await.is_none());
    assert_eq!(gate.listener.open_connections(), 0);
}

/// A device goes on from another address: its packets come to another of the sockets that share the node's.
#[tokio::test]
async fn a_device_that_comes_to_another_socket_keeps_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::in_folder(dir.path());
    let server = tls::server_config(&keys, &[]).unwrap();
    let config = Gateway { listen: ([127, 0, 0, 1], 0).into(), ..Gateway::default() };
    let loops = vec![Handle::current(); 4];
    let listener = Listener::bind(&config, server, &[7; 32], None, &loops).unwrap();
    let client = client_of(&keys);
    let dialled = client.connect(listener.address().unwrap(), "localhost").unwrap();
    let called = futures_util::future::select_all(listener.doors().iter().map(|door| Box::pin(door.accept())));
    let (device, link) = tokio::join!(dialled, async { called.await.0.unwrap().accept().await.unwrap() });
    let device = device.unwrap();
    let (_send, mut recv, mut written) = stream(&device, &link).await;
    // That all of these come to the first socket has a chance of one in a million.
    for _ in 0..10 {
        client.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        written.write(Bytes::from_static(b"still here")).await.unwrap();
        let read = tokio::time::timeout(SOON, recv.read_chunk(100, true)).await.unwrap();
        assert_eq!(read.unwrap().unwrap().bytes, &b"still here"[..]);
    }
    assert_eq!(listener.open_connections(), 1);
}

/// Sockets that share their address would share it with another node's as well.
#[tokio::test]
async fn several_sockets_do_not_take_an_address_that_another_node_has() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::in_folder(dir.path());
    let bind = |listen: SocketAddr| {
        let server = tls::server_config(&keys, &[]).unwrap();
        let config = Gateway { listen, ..Gateway::default() };
        Listener::bind(&config, server, &[7; 32], None, &vec![Handle::current(); 2])
    };
    let first = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let taken = first.address().unwrap();
    let Err(error) = bind(taken) else { panic!("both have {taken}") };
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}
