//! XMPP over TCP, plain or with TLS from the first byte, as much of it as a chat needs: a direct conversation is a
//! message to the other's address and a group is a MUC room. The acknowledgement of a direct message is stream
//! management's (XEP-0198), asked for with each; that of a group's is the room's copy to the sender, since stream
//! management's would come before the room has seen the message. Who is in groups alone goes without stream
//! management: on 500 receivers it doubles what a delivery costs ejabberd.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
};
use tokio_rustls::TlsConnector;

use super::{Acknowledged, Everybody, Outbox, Reader, Topology, User, acknowledged, magpie::all, refused};
use crate::ledger::Ledger;

/// The host of all addresses.
const HOST: &str = "localhost";
const PASSWORD: &str = "load";
const STANZA_MAX: usize = 1 << 20;
/// How long the server may take for one step of a sign-in.
const PATIENCE: Duration = Duration::from_secs(120);
const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";

/// An XMPP server on which anybody may register.
#[derive(Clone)]
pub(crate) struct Xmpp {
    server: SocketAddr,
    tls: Option<TlsConnector>,
}

/// What was sent since stream management began, and who waits for how much of it.
#[derive(Default)]
struct Sent {
    count: u64,
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Who waits for the room's copy, by the number in its id.
    copies: HashMap<u64, oneshot::Sender<()>>,
}

/// What a person writes a room to.
struct Place {
    address: String,
    is_group: bool,
}

struct Member {
    out: Outbox,
    sent: Arc<Mutex<Sent>>,
    rooms: HashMap<usize, Place>,
    _reader: Reader,
}

impl User for Member {
    fn send(&self, room: usize, text: String) -> Acknowledged {
        let Some(Place { address, is_group }) = self.rooms.get(&room) else {
            return refused(format!("the person is not in room {room}"));
        };
        let (tell, told) = oneshot::channel();
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.count += 1;
        let count = sent.count;
        let (kind, ask) = if *is_group { ("groupchat", "") } else { ("chat", "<r xmlns='urn:xmpp:sm:3'/>") };
        if *is_group {
            sent.copies.insert(count, tell);
        } else {
            sent.waiting.push_back((count, tell));
        }
        self.out
            .push(format!("<message to='{address}' type='{kind}' id='m{count}'><body>{text}</body></message>{ask}"));
        acknowledged(told)
    }
}

fn name(index: usize) -> String {
    format!("user{index}")
}

fn group(room: usize) -> String {
    format!("room{room}@conference.{HOST}")
}

/// Base 64, which SASL wants.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().chain(&[0, 0]).take(3).fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        for place in 0..4 {
            out.push(if place > three.len() { '=' } else { char::from(LETTERS[bits >> (18 - 6 * place) & 63]) });
        }
    }
    out
}

/// Takes the children of a stream out of its bytes. It knows no more of XML than what a server that escapes `>` in
/// attributes needs.
#[derive(Default)]
struct Stanzas {
    buffer: BytesMut,
    /// Looked at so far.
    at: usize,
    /// Elements that are open there; one is the stream.
    depth: usize,
}

impl Stanzas {
    /// The next; `None` when more bytes are needed.
    fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let Some(open) = self.buffer[self.at..].iter().position(|byte| *byte == b'<') else {
                self.at = self.buffer.len();
                return Ok(None);
            };
            self.at += open;
            let Some(length) = self.buffer[self.at..].iter().position(|byte| *byte == b'>') else {
                ensure!(self.buffer.len() <= STANZA_MAX, "a stanza of {} bytes", self.buffer.len());
                return Ok(None);
            };
            let tag = &self.buffer[self.at + 1..self.at + length];
            let (closes, empty, declares) = (tag.starts_with(b"/"), tag.ends_with(b"/"), tag.starts_with(b"?"));
            self.at += length + 1;
            if declares {
                continue;
            }
            match (closes, empty) {
                (true, _) => self.depth = self.depth.saturating_sub(1),
                (false, true) => {}
                (false, false) => self.depth += 1,
            }
            ensure!(self.depth > 0, "the server closed the stream");
            if self.depth == 1 {
                let whole = self.buffer.split_to(std::mem::take(&mut self.at)).freeze();
                if closes || empty {
                    return Ok(Some(whole));
                }
            }
        }
    }
}

/// What stands between these two.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(inside, _)| inside)
}

/// One person's stream, as its reader sees it.
struct Session<R> {
    index: usize,
    read: R,
    stanzas: Stanzas,
    out: Outbox,
    sent: Arc<Mutex<Sent>>,
    /// Stanzas that came since stream management began; without it, nothing.
    received: Option<u32>,
    ledger: Ledger,
}

impl<R: AsyncRead + Unpin> Session<R> {
    /// The next stanza, once what stream management asks for is done.
    async fn next(&mut self) -> anyhow::Result<Bytes> {
        loop {
            if let Some(mut stanza) = self.stanzas.next()? {
                let blank = stanza.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                stanza.advance(blank);
                let text = std::str::from_utf8(&stanza)?;
                ensure!(!text.starts_with("<stream:error"), "the server ended the stream: {text}");
                if self.managed(text)? {
                    continue;
                }
                return Ok(stanza);
            }
            let read = self.read.read_buf(&mut self.stanzas.buffer).await?;
            ensure!(read > 0, "the server closed the connection");
        }
    }

    /// Counts a stanza, or answers one of stream management's own.
    fn managed(&mut self, text: &str) -> anyhow::Result<bool> {
        let Some(received) = &mut self.received else { return Ok(false) };
        if text.starts_with("<r ") || text.starts_with("<r/") {
            self.out.push(format!("<a xmlns='urn:xmpp:sm:3' h='{received}'/>"));
        } else if text.starts_with("<a ") {
            let handled = between(text, " h='", "'").context("an acknowledgement without a number")?;
            let handled: u64 = handled.parse()?;
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            while sent.waiting.front().is_some_and(|(count, _)| *count <= handled) {
                _ = sent.waiting.pop_front().map(|(_, tell)| tell.send(()));
            }
        } else {
            *received = received.wrapping_add(1);
            return Ok(false);
        }
        Ok(true)
    }

    /// Passes over everything up to a stanza that is it; what says that something failed is the end.
    async fn until(&mut self, is: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let look = async {
            loop {
                let stanza = self.next().await?;
                let text = std::str::from_utf8(&stanza)?;
                if is(text) {
                    return Ok(());
                }
                let failed = text.contains("type='error'") || text.starts_with("<fail");
                ensure!(!failed, "the server refused {}: {text}", name(self.index));
            }
        };
        tokio::time::timeout(PATIENCE, look).await.context("the server did not answer")?
    }

    /// A stanza that stream management counts.
    fn push(&self, stanza: String) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).count += 1;
        self.out.push(stanza);
    }

    /// Makes the person's account. The stream is open, and nobody has signed in on it.
    async fn register(&mut self) -> anyhow::Result<()> {
        self.out.push(format!(
            "<iq type='set' id='reg'><query xmlns='jabber:iq:register'><username>{}</username>\
             <password>{PASSWORD}</password></query></iq>",
            name(self.index)
        ));
        self.until(|text| text.starts_with("<iq") && (text.contains("type='result'") || text.contains("<conflict")))
            .await
    }

    /// Signs in, after it has registered where it is new, and is there.
    async fn sign_in(&mut self, is_new: bool, manage: bool) -> anyhow::Result<()> {
        let name = name(self.index);
        self.out.push(OPEN);
        self.until(|text| text.starts_with("<stream:features")).await?;
        if is_new {
            self.register().await?;
        }
        let proof = base64(format!("\0{name}\0{PASSWORD}").as_bytes());
        self.out.push(format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{proof}</auth>"));
        self.until(|text| text.starts_with("<success")).await?;
        self.stanzas.depth = 0;
        self.out.push(OPEN);
        self.until(|text| text.starts_with("<stream:features")).await?;
        self.out.push(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>load</resource></bind>\
             </iq>",
        );
        self.until(|text| text.starts_with("<iq") && text.contains("type='result'")).await?;
        if manage {
            self.out.push("<enable xmlns='urn:xmpp:sm:3'/>");
            self.until(|text| text.starts_with("<enabled")).await?;
            self.received = Some(0);
        }
        self.push("<presence/>".to_owned());
        let here = format!("from='{name}@{HOST}/load'");
        self.until(|text| text.starts_with("<presence") && text.contains(&here)).await
    }

    /// Comes into a group; the subject is the last thing that a room tells one who comes in.
    async fn enter(&mut self, room: &str) -> anyhow::Result<()> {
        let name = name(self.index);
        self.push(format!("<presence to='{room}/{name}'><x xmlns='http://jabber.org/protocol/muc'/></presence>"));
        let from = format!("from='{room}");
        self.until(|text| text.starts_with("<message") && text.contains(&from) && text.contains("<subject")).await
    }

    /// Writes down what comes, until the stream ends.
    async fn listen(mut self) {
        let me = format!("/{}", name(self.index));
        while let Ok(stanza) = self.next().await {
            let text = std::str::from_utf8(&stanza).unwrap_or_default();
            if !text.starts_with("<message") || text.contains("type='error'") {
                continue;
            }
            let is_copy = between(text, " from='", "'").is_some_and(|from| from.ends_with(&me));
            if is_copy {
                let number = between(text, " id='m", "'").and_then(|number| number.parse::<u64>().ok());
                let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                _ = number.and_then(|number| sent.copies.remove(&number)).map(|tell| tell.send(()));
            } else {
                _ = between(text, "<body>", "</body>").map(|text| self.ledger.saw(self.index, text));
            }
        }
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.waiting.clear();
        sent.copies.clear();
    }
}

impl Xmpp {
    /// The server at this address; with TLS if it has a certificate.
    pub(crate) fn new(server: SocketAddr, certificate: Option<CertificateDer<'static>>) -> anyhow::Result<Self> {
        let tls = certificate.map(|certificate| {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(certificate)?;
            let config =
                rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                    .with_protocol_versions(&[&rustls::version::TLS13])?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            anyhow::Ok(TlsConnector::from(Arc::new(config)))
        });
        Ok(Self { server, tls: tls.transpose()? })
    }

    /// Everybody of this topology.
    pub(crate) async fn gather(&self, topology: &Topology, ledger: &Ledger) -> anyhow::Result<Everybody> {
        let rooms_of = topology.rooms_of();
        all(topology.users, 64, |index| {
            let place = |room: &usize| {
                let place = match topology.rooms[*room].as_slice() {
                    [one, other] => {
                        let other = if *one == index { *other } else { *one };
                        Place { address: format!("{}@{HOST}", name(other)), is_group: false }
                    }
                    _ => Place { address: group(*room), is_group: true },
                };
                (*room, place)
            };
            let rooms = rooms_of[index].iter().map(place).collect();
            let (this, ledger) = (self.clone(), ledger.clone());
            async move { this.connect(Person { index, is_new: true, rooms }, ledger).await }
        })
        .await
    }

    /// One who has an account comes back, to no group.
    pub(crate) async fn sign_in(&self, index: usize, ledger: Ledger) -> anyhow::Result<Arc<dyn User>> {
        self.connect(Person { index, is_new: false, rooms: HashMap::new() }, ledger).await
    }

    async fn connect(&self, person: Person, ledger: Ledger) -> anyhow::Result<Arc<dyn User>> {
        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => {
                let (read, write) = stream.into_split();
                join(person, read, write, ledger).await
            }
            Some(tls) => {
                let stream = tls.connect(ServerName::try_from(HOST)?, stream).await?;
                let (read, write) = tokio::io::split(stream);
                join(person, read, write, ledger).await
            }
        }
    }
}

/// One who connects.
struct Person {
    index: usize,
    /// Has no account yet.
    is_new: bool,
    rooms: HashMap<usize, Place>,
}

async fn join(
    Person { index, is_new, rooms }: Person,
    read: impl AsyncRead + Unpin + Send + 'static,
    write: impl AsyncWrite + Unpin + Send + 'static,
    ledger: Ledger,
) -> anyhow::Result<Arc<dyn User>> {
    let (out, sent) = (Outbox::new(write), Arc::<Mutex<Sent>>::default());
    let stanzas = Stanzas::default();
    let mut session = Session { index, read, stanzas, out: out.clone(), sent: sent.clone(), received: None, ledger };
    let manage = rooms.is_empty() || rooms.values().any(|place| !place.is_group);
    session.sign_in(is_new, manage).await.with_context(|| format!("{} cannot sign in", name(index)))?;
    for place in rooms.values().filter(|place| place.is_group) {
        session.enter(&place.address).await?;
    }
    Ok(Arc::new(Member { out, sent, rooms, _reader: Reader::spawn(session.listen()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_come_apart_at_any_cut() -> anyhow::Result<()> {
        let parts = [" <a h='1'/>", "<message from='x'><body>1 2</body><x/></message>", "<iq><q><z/></q></iq>"];
        let text = format!("<?xml version='1.0'?><stream:stream id='1'>{}", parts.concat());
        for cut in 0..text.len() {
            let (mut stanzas, mut seen) = (Stanzas::default(), Vec::new());
            for piece in [&text[..cut], &text[cut..]] {
                stanzas.buffer.extend_from_slice(piece.as_bytes());
                while let Some(stanza) = stanzas.next()? {
                    seen.push(stanza);
                }
            }
            assert_eq!(seen, parts, "cut at {cut}");
        }
        Ok(())
    }

    #[test]
    fn base64_is_padded() {
        assert_eq!(base64(b"\0user1\0load"), "AHVzZXIxAGxvYWQ=");
        assert_eq!(base64(b"ab"), "YWI=");
        assert_eq!(base64(b"abc"), "YWJj");
    }
}
