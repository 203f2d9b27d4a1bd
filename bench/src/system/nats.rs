//! NATS over TCP, as much of it as a chat needs: a room is a subject that a JetStream stream keeps. An
//! acknowledgement is the stream's; a delivery comes through a core subscription, as in any NATS chat, so it does
//! not wait for the stream to have the message.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    sync::oneshot,
};

use super::{Acknowledged, Everybody, Outbox, Reader, Topology, User, acknowledged, magpie::all};
use crate::ledger::Ledger;

const LINE_MAX: usize = 64 * 1024;
const PAYLOAD_MAX: usize = 1 << 20;
/// Nobody hears itself; nothing is confirmed line by line.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false,\"echo\":false,\
                       \"lang\":\"rust\",\"version\":\"0\",\"protocol\":1}\r\n";
/// All rooms in one stream, in files, for ever.
const STREAM: &str = "{\"name\":\"CHAT\",\"subjects\":[\"room.*\"],\"storage\":\"file\",\"retention\":\"limits\",\
                      \"discard\":\"old\",\"max_consumers\":-1,\"max_msgs\":-1,\"max_bytes\":-1,\"max_age\":0,\
                      \"max_msg_size\":-1,\"num_replicas\":1}";
/// The subscription to answers; rooms have the others.
const ANSWERS: u64 = 1;

/// A NATS server with JetStream.
#[derive(Clone)]
pub(crate) struct Nats {
    server: SocketAddr,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>;

struct Member {
    index: usize,
    out: Outbox,
    next: AtomicU64,
    waiting: Waiting,
    _reader: Reader,
}

impl User for Member {
    fn send(&self, room: usize, text: String) -> Acknowledged {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        waiting.insert(number, tell);
        self.out.push(publish(&format!("room.{room}"), &answers(self.index, number), &text));
        acknowledged(told)
    }
}

/// Where a person's answers go.
fn answers(index: usize, number: u64) -> String {
    format!("_INBOX.{index}.{number}")
}

fn publish(subject: &str, reply: &str, text: &str) -> String {
    format!("PUB {subject} {reply} {}\r\n{text}\r\n", text.len())
}

/// What a server says.
#[derive(Debug, PartialEq)]
enum Said {
    Info,
    Ping,
    Pong,
    Ok,
    Message { subject: String, subscription: u64, payload: Bytes },
}

/// Takes the first thing said out.
fn split(buffer: &mut BytesMut) -> anyhow::Result<Option<Said>> {
    let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") else {
        ensure!(buffer.len() <= LINE_MAX, "a line of {} bytes", buffer.len());
        return Ok(None);
    };
    let line = std::str::from_utf8(&buffer[..end])?;
    let mut words = line.split(' ');
    let said = match words.next().unwrap_or_default() {
        "MSG" => {
            let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
            let (subject, subscription, length) = match words.as_slice() {
                [subject, subscription, length] | [subject, subscription, _, length] => (subject, subscription, length),
                _ => bail!("the server said {line:?}"),
            };
            let (subscription, length) = (subscription.parse()?, length.parse::<usize>()?);
            ensure!(length <= PAYLOAD_MAX, "a message of {length} bytes");
            if buffer.len() < end + 2 + length + 2 {
                return Ok(None);
            }
            let subject = (*subject).to_owned();
            buffer.advance(end + 2);
            let payload = buffer.split_to(length).freeze();
            buffer.advance(2);
            return Ok(Some(Said::Message { subject, subscription, payload }));
        }
        "INFO" => Said::Info,
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "+OK" => Said::Ok,
        _ => bail!("the server said {line:?}"),
    };
    buffer.advance(end + 2);
    Ok(Some(said))
}

struct Connection<R> {
    read: R,
    buffer: BytesMut,
    out: Outbox,
}

impl<R: AsyncRead + Unpin> Connection<R> {
    /// The next thing said that is no matter of the connection alone.
    async fn next(&mut self) -> anyhow::Result<Said> {
        loop {
            match split(&mut self.buffer)? {
                Some(Said::Ping) => self.out.push("PONG\r\n"),
                Some(Said::Info | Said::Ok) => {}
                Some(said) => return Ok(said),
                None => {
                    ensure!(self.read.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
                }
            }
        }
    }
}

/// The stream's answer, unless it is a refusal.
fn accepted(payload: &[u8]) -> anyhow::Result<serde_json::Value> {
    let answer: serde_json::Value =
        serde_json::from_slice(payload).context("an answer of JetStream that is no JSON")?;
    ensure!(answer.get("error").is_none(), "JetStream refused: {answer}");
    Ok(answer)
}

impl Nats {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self { server }
    }

    /// Everybody of this topology.
    pub(crate) async fn gather(&self, topology: &Topology, ledger: &Ledger) -> anyhow::Result<Everybody> {
        self.make_stream().await?;
        let rooms_of = topology.rooms_of();
        all(topology.users, 64, |index| {
            let (this, ledger, rooms) = (self.clone(), ledger.clone(), rooms_of[index].clone());
            async move { this.join(index, &rooms, ledger).await }
        })
        .await
    }

    /// Connects, subscribes, and ends when the server has done both.
    async fn connect(
        &self,
        name: &str,
        rooms: &[usize],
    ) -> anyhow::Result<Connection<impl AsyncRead + Unpin + Send + 'static>> {
        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let mut connection = Connection { read, buffer: BytesMut::with_capacity(4096), out: Outbox::new(write) };
        let mut hello = format!("{CONNECT}SUB _INBOX.{name}.* {ANSWERS}\r\n");
        for (place, room) in rooms.iter().enumerate() {
            hello += &format!("SUB room.{room} {}\r\n", ANSWERS + 1 + place as u64);
        }
        connection.out.push(hello + "PING\r\n");
        ensure!(matches!(connection.next().await?, Said::Pong), "the server did not take the connection");
        Ok(connection)
    }

    async fn make_stream(&self) -> anyhow::Result<()> {
        let mut connection = self.connect("maker", &[]).await?;
        connection.out.push(publish("$JS.API.STREAM.CREATE.CHAT", "_INBOX.maker.1", STREAM));
        let Said::Message { payload, .. } = connection.next().await? else { bail!("no answer about the stream") };
        accepted(&payload).map(drop)
    }

    /// Connects and subscribes. The server keeps no accounts here, so who comes back is one who comes.
    pub(crate) async fn join(&self, index: usize, rooms: &[usize], ledger: Ledger) -> anyhow::Result<Arc<dyn User>> {
        let mut connection = self.connect(&index.to_string(), rooms).await?;
        let (out, waiting) = (connection.out.clone(), Waiting::default());
        let told = waiting.clone();
        let reader = Reader::spawn(async move {
            while let Ok(said) = connection.next().await {
                let Said::Message { subject, subscription, payload } = said else { continue };
                if subscription == ANSWERS {
                    // A message without its number in the stream was not kept; its sender hears of no success.
                    let kept = accepted(&payload).is_ok_and(|answer| answer.get("seq").is_some());
                    let number = subject.rsplit('.').next().and_then(|number| number.parse().ok());
                    let tell = number
                        .and_then(|number: u64| told.lock().unwrap_or_else(PoisonError::into_inner).remove(&number));
                    _ = tell.filter(|_| kept).map(|tell| tell.send(()));
                } else if let Ok(text) = std::str::from_utf8(&payload) {
                    ledger.saw(index, text);
                }
            }
            told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Arc::new(Member { index, out, next: AtomicU64::new(1), waiting, _reader: reader }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_apart() -> anyhow::Result<()> {
        let text = b"INFO {}\r\nPING\r\nMSG room.4 2 5\r\na\r\nbc\r\nMSG x 1 reply 0\r\n\r\nMSG room.4 2 5\r\nab";
        let mut buffer = BytesMut::from(&text[..]);
        assert_eq!(split(&mut buffer)?, Some(Said::Info));
        assert_eq!(split(&mut buffer)?, Some(Said::Ping));
        let payload = Bytes::from_static(b"a\r\nbc");
        assert_eq!(split(&mut buffer)?, Some(Said::Message { subject: "room.4".into(), subscription: 2, payload }));
        let empty = Said::Message { subject: "x".into(), subscription: 1, payload: Bytes::new() };
        assert_eq!(split(&mut buffer)?, Some(empty));
        assert_eq!(split(&mut buffer)?, None);
        assert!(split(&mut BytesMut::from(&b"-ERR 'no'\r\n"[..])).is_err());
        Ok(())
    }
}
