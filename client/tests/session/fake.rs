//! A server of one account and some conversations, in memory, with faults on demand. It checks what the SDK sends.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use magpie_client::*;
use magpie_protocol::{
    Answer, Frame, PROOF_LABEL, Request, RequestId,
    frame::{FrameReader, account, contact, conversation, hello, sync},
};
use quinn::{Endpoint, crypto::rustls::QuicServerConfig};
use tokio::sync::mpsc;

pub const USER: UserId = UserId::from_bits(0xabc);
pub const TOKEN: &[u8] = b"token";

#[derive(Default)]
pub struct World {
    pub taken: HashMap<(Incarnation, ConversationId), Vec<(conversation::Content, conversation::Posted)>>,
    pub timelines: HashMap<TimelineId, Vec<Bytes>>,
    pub key: Option<[u8; 32]>,
    /// Appended entries are not pushed.
    pub mute: bool,
    /// This many posts are carried out, but instead of an answer the connection is cut.
    pub cut_after_post: u32,
    /// This many requests of any kind but hello are refused as overloaded.
    pub overloaded: u32,
    /// The next sign-up is carried out, but instead of an answer the connection is cut.
    pub cut_after_sign_up: bool,
    /// The next sign-up is carried out, but the answer says that its outcome is not known.
    pub doubt_sign_up: bool,
    pub refuse_resume: Option<ErrorCode>,
    pub connections: u32,
    pub outstanding_max: usize,
    pub history_epoch: u64,
    sessions: Vec<mpsc::UnboundedSender<Bytes>>,
}

impl World {
    pub fn push_all(&mut self, answer: Answer) {
        let bytes = Frame::push(answer).to_bytes();
        self.sessions.retain(|session| session.send(bytes.clone()).is_ok());
    }

    pub fn append(&mut self, timeline: TimelineId, body: Body) -> u64 {
        let entries = self.timelines.entry(timeline).or_default();
        let entry = Entry { number: entries.len() as u64 + 1, time_ms: 1, sender: USER, body };
        let bytes = Bytes::from(entry.to_bytes());
        entries.push(bytes.clone());
        if !self.mute {
            self.push_all(Answer::Pushed(sync::Pushed { timeline, entry: sync::EntryBytes(bytes) }));
        }
        entry.number
    }

    /// The timeline ends before this number.
    pub fn forget(&mut self, timeline: TimelineId, from: u64) {
        self.timelines.entry(timeline).or_default().truncate(from as usize - 1);
    }

    pub fn heads(&self) -> Vec<Head> {
        let head = |(id, entries): (&TimelineId, &Vec<Bytes>)| Head {
            timeline: *id,
            first: 1,
            head: entries.len() as u64,
            read: 0,
        };
        self.timelines.iter().map(head).collect()
    }

    pub fn texts(&self, timeline: TimelineId) -> Vec<String> {
        let text = |bytes: &Bytes| match Entry::from_bytes(bytes).unwrap().body {
            Body::Text(text) => text,
            other => format!("{other:?}"),
        };
        self.timelines.get(&timeline).map(|entries| entries.iter().map(text).collect()).unwrap_or_default()
    }

    fn post(&mut self, post: conversation::Post) -> Result<conversation::Posted, WireError> {
        let timeline = TimelineId::Conversation(post.conversation);
        if !self.timelines.contains_key(&timeline) {
            return Err(WireError::new(ErrorCode::NotFound));
        }
        let key = (post.incarnation, post.conversation);
        let taken = self.taken.entry(key).or_default();
        if let Some((content, posted)) = taken.get(post.number as usize - 1) {
            let same = *content == post.content;
            return if same { Ok(posted.clone()) } else { Err(WireError::new(ErrorCode::IdReused)) };
        }
        let expected = taken.len() as u64 + 1;
        if post.number != expected {
            return Err(WireError { number: expected, ..WireError::new(ErrorCode::OutOfOrder) });
        }
        let conversation::Content::Text(text) = &post.content else { panic!() };
        let number = self.append(timeline, Body::Text(text.clone()));
        let posted = conversation::Posted { conversation: post.conversation, number, time_ms: 1 };
        self.taken.entry(key).or_default().push((post.content, posted.clone()));
        Ok(posted)
    }

    fn signed_in(&self) -> Answer {
        let device = DeviceId::from_bits(1);
        Answer::SignedIn(account::SignedIn {
            user: USER,
            device,
            epoch: 1,
            token: TOKEN.to_vec(),
            token_expires_ms: u64::MAX,
        })
    }

    /// `None` cuts the connection.
    fn answer(&mut self, request: Request, material: &[u8; 32]) -> Option<Answer> {
        if self.overloaded > 0 && !matches!(request, Request::Hello(_)) {
            self.overloaded -= 1;
            return Some(Answer::Refused(WireError::after(ErrorCode::Overloaded, 20)));
        }
        let verify = |key: &[u8; 32], proof: &[u8; 64]| {
            let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
            key.verify(material, proof).expect("the device proves its key");
        };
        Some(match request {
            Request::Hello(_) => {
                let agent = "fake".into();
                Answer::Welcome(hello::Welcome { version: 1, time_ms: 1, history_epoch: self.history_epoch, agent })
            }
            Request::SignUp(_) if self.key.is_some() => Answer::Refused(WireError::new(ErrorCode::HandleTaken)),
            Request::SignUp(account::SignUp { device, .. }) | Request::SignIn(account::SignIn { device, .. }) => {
                verify(&device.public_key, &device.proof);
                self.key = Some(device.public_key);
                if std::mem::take(&mut self.cut_after_sign_up) {
                    return None;
                }
                if std::mem::take(&mut self.doubt_sign_up) {
                    return Some(Answer::Refused(WireError::after(ErrorCode::Unknown, 200)));
                }
                self.signed_in()
            }
            Request::Resume(resume) => match self.refuse_resume {
                Some(code) => Answer::Refused(WireError::new(code)),
                None => {
                    assert_eq!(resume.token, TOKEN);
                    verify(&self.key.unwrap(), &resume.proof);
                    self.signed_in()
                }
            },
            Request::Sync(_) => Answer::Heads(sync::Heads { heads: self.heads(), last: true }),
            Request::Pull(pull) => {
                let entries = &self.timelines[&pull.timeline];
                let page = entries.iter().skip(pull.after as usize).take(7);
                Answer::Page(sync::Page {
                    timeline: pull.timeline,
                    first: 1,
                    head: entries.len() as u64,
                    entries: page.cloned().map(sync::EntryBytes).collect(),
                })
            }
            Request::Post(post) => {
                let answer = self.post(post);
                if self.cut_after_post > 0 && answer.is_ok() {
                    self.cut_after_post -= 1;
                    return None;
                }
                answer.map_or_else(Answer::Refused, Answer::Posted)
            }
            // The device is signed out before the answer is there.
            Request::CloseAccount(_) | Request::CreateGroup(_) => {
                let (reason, reconnect_after_ms) = (hello::ClosingReason::SignedOut, 0);
                self.push_all(Answer::Closing(hello::Closing { reason, reconnect_after_ms }));
                Answer::Done(hello::Done)
            }
            Request::Find(find) => Answer::Found(contact::Found { user: USER, handle: find.handle }),
            _ => Answer::Done(hello::Done),
        })
    }
}

pub struct Server {
    pub world: Arc<Mutex<World>>,
    pub address: SocketAddr,
    pub ca_pem: Vec<u8>,
    _endpoint: Endpoint,
}

impl Server {
    pub fn start() -> Self {
        let cert = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(cert.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![magpie_protocol::ALPN.to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let world = Arc::new(Mutex::new(World { history_epoch: 1, ..World::default() }));
        let server = Self {
            world: world.clone(),
            address: endpoint.local_addr().unwrap(),
            ca_pem: cert.cert.pem().into_bytes(),
            _endpoint: endpoint.clone(),
        };
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let world = world.clone();
                tokio::spawn(async move { serve(incoming.await.ok()?, world).await });
            }
        });
        server
    }

    pub fn network(&self) -> Network {
        Network::new(NetworkConfig::new(self.ca_pem.clone())).unwrap()
    }

    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.world.lock().unwrap())
    }
}

async fn serve(connection: quinn::Connection, world: Arc<Mutex<World>>) -> Option<()> {
    let mut material = [0; 32];
    connection.export_keying_material(&mut material, PROOF_LABEL, b"").ok()?;
    let (mut send, mut recv) = connection.accept_bi().await.ok()?;
    let (tx, mut rx) = mpsc::unbounded_channel::<Bytes>();
    world.lock().unwrap().connections += 1;
    let writer = tokio::spawn(async move {
        while let Some(bytes) = rx.recv().await {
            if send.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut reader = FrameReader::default();
    while let Ok(Some(chunk)) = recv.read_chunk(65536, true).await {
        reader.push(chunk.bytes);
        let mut batch = 0;
        while let Some(frame) = reader.next_frame::<Request>().expect("a good frame") {
            batch += 1;
            let mut world = world.lock().unwrap();
            world.outstanding_max = world.outstanding_max.max(batch);
            if matches!(frame.body, Request::Sync(_)) {
                world.sessions.push(tx.clone());
            }
            let Some(answer) = world.answer(frame.body, &material) else {
                connection.close(9u32.into(), b"cut");
                return None;
            };
            let _ = tx.send(Frame::new(RequestId::new(frame.request.get()), answer).to_bytes());
        }
    }
    writer.abort();
    None
}
