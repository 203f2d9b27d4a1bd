//! MQTT 5 over TCP, as much of it as a chat needs: a room is a topic, QoS 1 both ways, and nobody hears itself
//! (the subscription option `no local`).

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    sync::oneshot,
};

use super::{Acknowledged, Everybody, Outbox, Reader, Topology, User, acknowledged, magpie::all, refused};
use crate::ledger::Ledger;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
/// With QoS 1.
const PUBLISH: u8 = 0x32;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
/// The upper half of the first byte says the kind; the lower half, flags.
const KIND: u8 = 0xf0;
/// QoS 1 and no local.
const SUBSCRIPTION: u8 = 0x05;
/// From here on, reason codes are failures.
const FAILURE: u8 = 0x80;
const PACKET_MAX: usize = 1 << 20;

/// A broker.
#[derive(Clone)]
pub(crate) struct Mqtt {
    server: SocketAddr,
}

/// Who waits for which packet id.
#[derive(Default)]
struct Waiting {
    last: u16,
    told: HashMap<u16, oneshot::Sender<()>>,
}

struct Member {
    out: Outbox,
    waiting: Arc<Mutex<Waiting>>,
    _reader: Reader,
}

impl User for Member {
    fn send(&self, room: usize, text: String) -> Acknowledged {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.told.len() >= usize::from(u16::MAX) {
            return refused("65,535 messages are unacknowledged; MQTT knows no more".to_owned());
        }
        let mut id = waiting.last;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            if !waiting.told.contains_key(&id) {
                break;
            }
        }
        waiting.last = id;
        waiting.told.insert(id, tell);
        let mut body = BytesMut::with_capacity(32 + text.len());
        string(&mut body, &topic(room));
        body.put_u16(id);
        body.put_u8(0);
        body.put_slice(text.as_bytes());
        self.out.push(packet(PUBLISH, &body));
        acknowledged(told)
    }
}

fn topic(room: usize) -> String {
    format!("room/{room}")
}

fn string(out: &mut BytesMut, text: &str) {
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + body.len());
    out.put_u8(first);
    let mut left = body.len();
    loop {
        let byte = (left % 128) as u8;
        left /= 128;
        out.put_u8(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
    out.put_slice(body);
    out.freeze()
}

/// Length of a variable byte integer and its value; `None` when more bytes are needed.
fn variable(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((at + 1, value)));
        }
    }
    ensure!(bytes.len() < 4, "a length of more than four bytes");
    Ok(None)
}

/// Takes the first packet out: its first byte and its body.
fn split(buffer: &mut BytesMut) -> anyhow::Result<Option<(u8, Bytes)>> {
    let Some(first) = buffer.first().copied() else { return Ok(None) };
    let Some((bytes, length)) = variable(&buffer[1..])? else { return Ok(None) };
    ensure!(length <= PACKET_MAX, "a packet of {length} bytes");
    if buffer.len() < 1 + bytes + length {
        return Ok(None);
    }
    buffer.advance(1 + bytes);
    Ok(Some((first, buffer.split_to(length).freeze())))
}

struct Packets<R> {
    read: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Packets<R> {
    async fn next(&mut self) -> anyhow::Result<(u8, Bytes)> {
        loop {
            if let Some(packet) = split(&mut self.buffer)? {
                return Ok(packet);
            }
            ensure!(self.read.read_buf(&mut self.buffer).await? > 0, "the broker closed the connection");
        }
    }

    async fn answer(&mut self, kind: u8) -> anyhow::Result<Bytes> {
        let (first, body) = self.next().await?;
        ensure!(first & KIND == kind, "the broker answered with a packet of kind {first:#x}, not {kind:#x}");
        Ok(body)
    }
}

impl Mqtt {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self { server }
    }

    /// Everybody of this topology.
    pub(crate) async fn gather(&self, topology: &Topology, ledger: &Ledger) -> anyhow::Result<Everybody> {
        let rooms_of = topology.rooms_of();
        all(topology.users, 64, |index| {
            let (this, ledger, rooms) = (self.clone(), ledger.clone(), rooms_of[index].clone());
            async move { this.join(index, &rooms, ledger).await }
        })
        .await
    }

    /// Connects and subscribes. The broker keeps no accounts here, so who comes back is one who comes.
    pub(crate) async fn join(&self, index: usize, rooms: &[usize], ledger: Ledger) -> anyhow::Result<Arc<dyn User>> {
        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let out = Outbox::new(write);
        let mut packets = Packets { read, buffer: BytesMut::with_capacity(4096) };
        let mut hello = BytesMut::new();
        string(&mut hello, "MQTT");
        // Version 5, a clean start, no keep-alive, no properties.
        hello.put_slice(&[5, 0x02, 0, 0, 0]);
        string(&mut hello, &format!("user-{index}"));
        out.push(packet(CONNECT, &hello));
        let answer = packets.answer(CONNACK).await?;
        let reason = answer.get(1).copied().context("a short CONNACK")?;
        ensure!(reason == 0, "the broker refused user {index} with {reason:#x}");
        if !rooms.is_empty() {
            let mut topics = BytesMut::from(&[0, 1, 0][..]);
            for room in rooms {
                string(&mut topics, &topic(*room));
                topics.put_u8(SUBSCRIPTION);
            }
            out.push(packet(SUBSCRIBE, &topics));
            let mut answer = packets.answer(SUBACK).await?;
            ensure!(answer.remaining() >= 3, "a short SUBACK");
            answer.advance(2);
            let (bytes, properties) = variable(&answer)?.context("a short SUBACK")?;
            let reasons = answer.get(bytes + properties..).unwrap_or_default();
            let granted = reasons.len() == rooms.len() && reasons.iter().all(|reason| *reason == 1);
            ensure!(granted, "the broker answered the subscriptions of user {index} with {reasons:x?}");
        }
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (told, answers) = (waiting.clone(), out.clone());
        let reader = Reader::spawn(async move {
            while let Ok((first, body)) = packets.next().await {
                if heard(index, first, body, &told, &answers, &ledger).is_err() {
                    break;
                }
            }
            told.lock().unwrap_or_else(PoisonError::into_inner).told.clear();
        });
        Ok(Arc::new(Member { out, waiting, _reader: reader }))
    }
}

/// A packet of a connection that is up.
fn heard(
    index: usize,
    first: u8,
    mut body: Bytes,
    waiting: &Mutex<Waiting>,
    out: &Outbox,
    ledger: &Ledger,
) -> anyhow::Result<()> {
    match first & KIND {
        PUBACK => {
            ensure!(body.remaining() >= 2, "a short PUBACK");
            let id = body.get_u16();
            ensure!(body.first().is_none_or(|reason| *reason < FAILURE), "a message was refused: {body:x?}");
            let tell = waiting.lock().unwrap_or_else(PoisonError::into_inner).told.remove(&id);
            _ = tell.map(|tell| tell.send(()));
        }
        kind if kind == PUBLISH & KIND => {
            ensure!(first & 0x06 == 0x02, "a message with another quality than it was asked for");
            ensure!(body.remaining() >= 2, "a short PUBLISH");
            let topic = usize::from(body.get_u16());
            ensure!(body.remaining() >= topic + 2, "a short PUBLISH");
            body.advance(topic);
            let id = body.get_u16();
            let (bytes, properties) = variable(&body)?.context("a short PUBLISH")?;
            let text = body.get(bytes + properties..).context("a short PUBLISH")?;
            ledger.saw(index, std::str::from_utf8(text)?);
            out.push(packet(PUBACK, &id.to_be_bytes()));
        }
        other => bail!("a packet of kind {other:#x}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back_whole() -> anyhow::Result<()> {
        for length in [0, 1, 127, 128, 20_000] {
            let body = vec![7; length];
            let mut buffer = BytesMut::from(&packet(PUBLISH, &body)[..]);
            let whole = buffer.clone();
            buffer.truncate(whole.len() - 1);
            assert!(split(&mut buffer)?.is_none());
            let mut buffer = whole;
            assert_eq!(split(&mut buffer)?, Some((PUBLISH, Bytes::from(body))));
            assert!(buffer.is_empty());
        }
        Ok(())
    }
}
