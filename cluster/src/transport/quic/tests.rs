//! Nodes over 127.0.0.1, with certificates that are made here.

mod delivery;
mod load;
mod outages;
mod trust;

use std::{
    io::IoSliceMut,
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    task::{Context, Poll},
};

use quinn::udp::{RecvMeta, Transmit};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::transport::{Answer, tls::name_of};

const SECOND: Duration = Duration::from_secs(1);

fn node(index: u32) -> NodeId {
    NodeId::new(index, 1)
}

/// Polls this until it holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + 20 * SECOND;
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// PEM of a certificate with these names, and of its key.
    fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn identity_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let (chain, key) = self.issue(names, change);
        Identity::from_pem_unchecked(self.0.pem().as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap()
    }

    fn identity(&self, node: NodeId) -> Identity {
        self.identity_with(&[&name_of(node)], |_| {})
    }
}

/// Keeps messages, and answers each request with what it was; one that begins with a zero it keeps waiting.
#[derive(Default)]
struct Recorder {
    messages: Mutex<Vec<(NodeId, Lane, Bytes)>>,
    requests: Mutex<Vec<(NodeId, Lane, Bytes)>>,
    unanswered: Mutex<Vec<Answer>>,
}

impl Service for Recorder {
    fn on_request(&self, from: NodeId, lane: Lane, request: Bytes, answer: Answer) {
        if lane != Lane::Bulk {
            self.requests.lock().unwrap().push((from, lane, request.clone()));
        }
        if request.first() == Some(&0) {
            self.unanswered.lock().unwrap().push(answer);
        } else {
            answer(request);
        }
    }
    fn on_message(&self, from: NodeId, lane: Lane, message: Bytes) {
        self.messages.lock().unwrap().push((from, lane, message));
    }
}

struct Node {
    id: NodeId,
    transport: QuicTransport,
    service: Arc<Recorder>,
    gag: Arc<Gag>,
}

impl Node {
    /// Starts once the port is free again: the socket of a transport that was stopped closes a moment later.
    async fn restart(id: NodeId, port: u16, identity: &Identity) -> Self {
        until("the port is free", || std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok()).await;
        Self::start(id, port, identity)
    }

    fn start(id: NodeId, port: u16, identity: &Identity) -> Self {
        let gag =
            Arc::new(Gag { socket: open_socket(([127, 0, 0, 1], port).into()).unwrap(), on: AtomicBool::new(false) });
        let transport = QuicTransport::assemble(id, identity, Underlay { socket: gag.clone(), seed: None }).unwrap();
        let service = Arc::new(Recorder::default());
        transport.set_service(service.clone());
        Self { id, transport, service, gag }
    }

    fn port(&self) -> u16 {
        self.transport.address().unwrap().port()
    }

    async fn call(&self, to: NodeId, lane: Lane, request: &[u8]) -> Result<Bytes, LinkError> {
        self.transport.call(to, lane, Bytes::copy_from_slice(request), 10 * SECOND).await
    }
}

/// These nodes under one authority, all connected.
async fn cluster(authority: &Authority, size: u32) -> Vec<Node> {
    let nodes: Vec<Node> = (1..=size).map(|i| Node::start(node(i), 0, &authority.identity(node(i)))).collect();
    introduce(&nodes);
    let all = nodes.len() - 1;
    until("all are connected", || nodes.iter().all(|n| n.transport.connected().len() == all)).await;
    nodes
}

fn introduce(nodes: &[Node]) {
    let peers: BTreeMap<_, _> = nodes.iter().map(|n| (n.id, n.transport.address().unwrap())).collect();
    nodes.iter().for_each(|n| n.transport.set_peers(peers.clone()));
}

/// Stops the nodes; afterwards nothing runs.
async fn stop(nodes: Vec<Node>) {
    for node in &nodes {
        node.transport.stop().await;
        assert_eq!(node.transport.connected(), []);
    }
    drop(nodes);
    let metrics = Handle::current().metrics();
    until("every task has ended", || metrics.num_alive_tasks() == 0).await;
}

/// A socket that can be made to swallow what it should send, as that of a process that is no more.
#[derive(Debug)]
struct Gag {
    socket: Arc<dyn AsyncUdpSocket>,
    on: AtomicBool,
}

impl AsyncUdpSocket for Gag {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn quinn::UdpPoller>> {
        self.socket.clone().create_io_poller()
    }
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.on.load(Ordering::Relaxed) { Ok(()) } else { self.socket.try_send(transmit) }
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }
    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }
    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
