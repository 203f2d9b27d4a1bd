//! A device without the SDK: it says what it is told to, so that it can say what no good device would.

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use magpie_client::{ConversationId, Entry, Incarnation, TimelineId, UserId};
use magpie_protocol::{
    ALPN, Answer, Frame, PROOF_LABEL, Request, RequestId, WireError,
    frame::{
        account::{DeviceKey, Resume, SignIn, SignUp, SignedIn},
        conversation::{Content, CreateGroup, Post},
        hello::{ClosingReason, Hello},
        sync::{Head, Page, Pull, Sync},
    },
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{InProcess, people::PASSWORD};

/// How long a raw device waits for an answer before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A socket and the node it leads to.
#[derive(Clone)]
pub struct Net {
    endpoint: quinn::Endpoint,
    server: SocketAddr,
    config: quinn::ClientConfig,
}

impl Net {
    /// A socket of its own, as a good device would have it.
    pub fn new(server: SocketAddr, ca: &[u8]) -> Self {
        let mut transport = quinn::TransportConfig::default();
        // The packet that ends a connection may be lost when many end at once; who speaks is told again.
        transport.keep_alive_interval(Some(Duration::from_secs(2)));
        Self::with(server, ca, ALPN, transport)
    }

    /// The way to a node of this process.
    pub fn to(node: &InProcess) -> Self {
        Self::new(node.address, &node.ca)
    }

    /// The same with another ALPN or other windows.
    pub fn with(server: SocketAddr, ca: &[u8], alpn: &[u8], transport: quinn::TransportConfig) -> Self {
        let endpoint = quinn::Endpoint::client(SocketAddr::from(([0, 0, 0, 0], 0))).expect("a socket");
        Self::over(endpoint, server, ca, alpn, transport)
    }

    /// The same over an endpoint that is there already.
    pub fn over(
        endpoint: quinn::Endpoint,
        server: SocketAddr,
        ca: &[u8],
        alpn: &[u8],
        transport: quinn::TransportConfig,
    ) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.expect("a certificate")).expect("an authority");
        }
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        // It would send early data if it were allowed to.
        tls.enable_early_data = true;
        let quic = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("QUIC over TLS 1.3");
        let mut config = quinn::ClientConfig::new(Arc::new(quic));
        config.transport_config(Arc::new(transport));
        Self { endpoint, server, config }
    }

    /// The way to another node.
    pub fn towards(&self, server: SocketAddr) -> Self {
        Self { server, ..self.clone() }
    }

    /// Begins to connect.
    pub fn connecting(&self) -> quinn::Connecting {
        self.endpoint.connect_with(self.config.clone(), self.server, "localhost").expect("a connection is begun")
    }

    /// A connection without a stream.
    pub async fn connect(&self) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.connecting().await
    }
}

/// A device key.
pub struct Key(Ed25519KeyPair);

impl Key {
    /// The key from this seed.
    pub fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed of 32 bytes"))
    }

    /// The proof of this key for this connection.
    pub fn prove(&self, connection: &quinn::Connection) -> [u8; 64] {
        let mut exported = [0; 32];
        connection.export_keying_material(&mut exported, PROOF_LABEL, b"").expect("keying material");
        self.0.sign(&exported).as_ref().try_into().expect("64 bytes")
    }

    /// What a sign-in says of the device.
    pub fn device(&self, connection: &quinn::Connection) -> DeviceKey {
        let public_key = self.0.public_key().as_ref().try_into().expect("32 bytes");
        DeviceKey { public_key, proof: self.prove(connection), name: "raw".into() }
    }
}

/// One connection with its session stream.
pub struct Raw {
    pub connection: quinn::Connection,
    pub stream: quinn::SendStream,
    recv: quinn::RecvStream,
    buffer: Vec<u8>,
    next_request: u32,
    /// What came and was not asked for, in order.
    pub unasked: VecDeque<Answer>,
    /// Answers that came before somebody waited for them, as bytes.
    early: VecDeque<Vec<u8>>,
}

impl Raw {
    /// Connects and opens the stream; says nothing.
    pub async fn silent(net: &Net) -> Self {
        let connection = net.connect().await.expect("a connection");
        Self::over(connection).await
    }

    /// Opens the stream of a connection.
    pub async fn over(connection: quinn::Connection) -> Self {
        let (stream, recv) = connection.open_bi().await.expect("a stream");
        let (unasked, early) = (VecDeque::new(), VecDeque::new());
        Self { connection, stream, recv, buffer: Vec::new(), next_request: 1, unasked, early }
    }

    /// Connects and says hello.
    pub async fn hello(net: &Net) -> Self {
        Self::welcomed(net).await.0
    }

    /// What the clock of the node says, in milliseconds since 1970.
    pub async fn time_ms(net: &Net) -> u64 {
        Self::welcomed(net).await.1
    }

    async fn welcomed(net: &Net) -> (Self, u64) {
        let mut raw = Self::silent(net).await;
        let hello = Hello { version_min: 1, version_max: 1, agent: "raw".into() };
        match raw.ask(Request::Hello(hello)).await {
            Answer::Welcome(welcome) => (raw, welcome.time_ms),
            answer => panic!("{answer:?}"),
        }
    }

    /// Signs up, with everybody's password.
    pub async fn sign_up(net: &Net, handle: &str, key: &Key) -> (Self, SignedIn) {
        let mut raw = Self::hello(net).await;
        let device = key.device(&raw.connection);
        let request = SignUp { handle: handle.into(), password: PASSWORD.into(), device };
        let me = signed_in(raw.ask(Request::SignUp(request)).await);
        (raw, me)
    }

    /// Signs in, with everybody's password.
    pub async fn sign_in(net: &Net, handle: &str, key: &Key) -> (Self, SignedIn) {
        let mut raw = Self::hello(net).await;
        let answer = raw.try_sign_in(handle, PASSWORD, key).await;
        (raw, signed_in(answer))
    }

    /// Tries a password.
    pub async fn try_sign_in(&mut self, handle: &str, password: &str, key: &Key) -> Answer {
        let device = key.device(&self.connection);
        self.ask(Request::SignIn(SignIn { handle: handle.into(), password: password.into(), device })).await
    }

    /// Comes back with a token.
    pub async fn resume(net: &Net, token: &[u8], key: &Key) -> Result<(Self, SignedIn), WireError> {
        let mut raw = Self::hello(net).await;
        let proof = key.prove(&raw.connection);
        match raw.ask(Request::Resume(Resume { token: token.to_vec(), proof })).await {
            Answer::SignedIn(me) => Ok((raw, me)),
            Answer::Refused(error) => Err(error),
            other => panic!("a sign-in was answered with {other:?}"),
        }
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), quinn::WriteError> {
        self.stream.write_all(bytes).await
    }

    /// Sends a request; returns its id.
    pub async fn send(&mut self, request: Request) -> u32 {
        let id = self.next_request;
        self.next_request += 1;
        self.send_as(id, request).await;
        id
    }

    /// Sends a request under this id.
    pub async fn send_as(&mut self, id: u32, request: Request) {
        let bytes = Frame::new(RequestId::new(id), request).to_bytes();
        self.write(&bytes).await.expect("the node reads");
    }

    /// The next frame's bytes, without their length; `None` when the stream or the connection has ended.
    pub async fn next_bytes(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((len, rest)) = self.buffer.split_first_chunk::<4>() {
                let len = u32::from_le_bytes(*len) as usize;
                if rest.len() >= len {
                    let frame = rest[..len].to_vec();
                    self.buffer.drain(..4 + len);
                    return Some(frame);
                }
            }
            let chunk = self.recv.read_chunk(64 * 1024, true).await.ok()??;
            self.buffer.extend_from_slice(&chunk.bytes);
        }
    }

    /// The next frame, asked for or not; `None` at the end.
    pub async fn next(&mut self) -> Option<Frame<Answer>> {
        let bytes = tokio::time::timeout(PATIENCE, self.next_bytes()).await.expect("the node says something")?;
        Some(Frame::from_bytes(&bytes).expect("a frame of the node's"))
    }

    /// The bytes of the answer to this request, header included.
    pub async fn answer_bytes(&mut self, id: u32) -> Vec<u8> {
        let is_it = |bytes: &[u8]| Frame::<Answer>::from_bytes(bytes).is_ok_and(|f| f.request.get() == id);
        if let Some(at) = self.early.iter().position(|bytes| is_it(bytes)) {
            return self.early.remove(at).expect("it is there");
        }
        loop {
            let bytes = tokio::time::timeout(PATIENCE, self.next_bytes()).await;
            let bytes = bytes.expect("the node answers").expect("the session goes on");
            let frame = Frame::<Answer>::from_bytes(&bytes).expect("a frame of the node's");
            match frame.request.get() {
                0 => self.unasked.push_back(frame.body),
                got if got == id => return bytes,
                _ => self.early.push_back(bytes),
            }
        }
    }

    /// The answer to this request.
    pub async fn answer(&mut self, id: u32) -> Answer {
        let bytes = self.answer_bytes(id).await;
        Frame::from_bytes(&bytes).expect("read before").body
    }

    /// Asks and waits.
    pub async fn ask(&mut self, request: Request) -> Answer {
        let id = self.send(request).await;
        self.answer(id).await
    }

    /// Asks under a fixed id and returns the answer's bytes, so that two answers can be compared.
    pub async fn ask_for_bytes(&mut self, id: u32, request: Request) -> Vec<u8> {
        self.send_as(id, request).await;
        self.answer_bytes(id).await
    }

    /// Asks for what must be refused.
    pub async fn refused(&mut self, request: Request) -> WireError {
        match self.ask(request).await {
            Answer::Refused(error) => error,
            other => panic!("accepted: {other:?}"),
        }
    }

    /// Posts a text; its place in the timeline, or why not.
    pub async fn post(&mut self, conversation: ConversationId, id: (Incarnation, u64), text: &str) -> Posting {
        let post =
            Request::Post(Post { conversation, incarnation: id.0, number: id.1, content: Content::Text(text.into()) });
        posting(self.ask(post).await)
    }

    /// Makes a group.
    pub async fn group(&mut self, nonce: u128, title: &str, members: Vec<UserId>) -> ConversationId {
        match self.ask(Request::CreateGroup(CreateGroup { nonce, title: title.into(), members })).await {
            Answer::GroupCreated(created) => created.conversation,
            other => panic!("no group: {other:?}"),
        }
    }

    /// Does something in a conversation that must work; its place in the timeline.
    pub async fn act(&mut self, conversation: ConversationId, id: (Incarnation, u64), content: Content) -> u64 {
        let post = Post { conversation, incarnation: id.0, number: id.1, content };
        posting(self.ask(Request::Post(post)).await).expect("it is done").0
    }

    /// Follows everything; the heads.
    pub async fn sync(&mut self) -> Vec<Head> {
        let id = self.send(Request::Sync(Sync)).await;
        let mut heads = Vec::new();
        loop {
            match self.answer(id).await {
                Answer::Heads(part) => {
                    heads.extend(part.heads);
                    if part.last {
                        return heads;
                    }
                }
                other => panic!("heads were answered with {other:?}"),
            }
        }
    }

    /// One page of a timeline.
    pub async fn pull(&mut self, timeline: TimelineId, after: u64) -> Result<Page, WireError> {
        match self.ask(Request::Pull(Pull { timeline, after, limit: 500 })).await {
            Answer::Page(page) => Ok(page),
            Answer::Refused(error) => Err(error),
            other => panic!("a pull was answered with {other:?}"),
        }
    }

    /// Writes these bytes again and again for so long, reading all the while; bytes written and read.
    pub async fn flood(&mut self, bytes: &[u8], long: Duration) -> (usize, usize) {
        let (stream, recv) = (&mut self.stream, &mut self.recv);
        let until = tokio::time::Instant::now() + long;
        let (mut written, mut read) = (0, 0);
        let writing = async {
            while stream.write_all(bytes).await.is_ok() {
                written += bytes.len();
            }
        };
        let reading = async {
            while let Ok(Some(chunk)) = recv.read_chunk(64 * 1024, true).await {
                read += chunk.bytes.len();
            }
        };
        _ = tokio::time::timeout_at(until, async { tokio::join!(writing, reading) }).await;
        (written, read)
    }

    /// Reads until the session ends; why the node said that it does, if it did.
    pub async fn ended(&mut self) -> Option<ClosingReason> {
        let mut why = None;
        while let Some(frame) = self.next().await {
            if let Answer::Closing(closing) = frame.body {
                why = Some(closing.reason);
            }
        }
        why
    }
}

/// What a post came to: its number and time, or a refusal.
pub type Posting = Result<(u64, u64), WireError>;

/// What an answer to a post says.
pub fn posting(answer: Answer) -> Posting {
    match answer {
        Answer::Posted(posted) => Ok((posted.number, posted.time_ms)),
        Answer::Refused(error) => Err(error),
        other => panic!("a post was answered with {other:?}"),
    }
}

fn signed_in(answer: Answer) -> SignedIn {
    match answer {
        Answer::SignedIn(me) => me,
        other => panic!("not signed in: {other:?}"),
    }
}

/// The entries of a page, read.
pub fn entries(page: &Page) -> Vec<Entry> {
    page.entries.iter().map(|bytes| Entry::from_bytes(&bytes.0).expect("an entry")).collect()
}
