//! QUIC over turmoil: a socket for quinn whose packets are lost, doubled and held up as [`Nature`] will have it.
//!
//! Every packet carries a number of its own behind its bytes, so that its arrival tells what happened on the way.

use std::{
    collections::HashMap,
    fmt, io,
    io::IoSliceMut,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::sync::mpsc;
use turmoil::net::UdpSocket;

use super::nature::{Fault, Nature};

/// Packets that wait for quinn.
const WAITING_MAX: usize = 4096;
const NUMBER_LEN: usize = size_of::<u64>();

type Packet = (Vec<u8>, SocketAddr);

/// See the module's documentation.
pub struct Socket {
    nature: Nature,
    local: SocketAddr,
    /// None when the host has crashed: whatever still holds this socket then holds nothing.
    socket: Mutex<Option<Arc<UdpSocket>>>,
    arrived: Mutex<mpsc::Receiver<Packet>>,
    sent: Mutex<u64>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.local)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Socket {
    /// Binds a port of the current host. Must be called in its runtime.
    pub async fn bind(nature: &Nature, host: &str, port: u16) -> io::Result<Arc<Self>> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await?);
        let local = SocketAddr::new(turmoil::lookup(host), socket.local_addr()?.port());
        let (tell, arrived) = mpsc::channel(WAITING_MAX);
        tokio::spawn(receive(socket.clone(), nature.clone(), tell));
        // After a restart numbers go on behind those before.
        let sent = Mutex::new(nature.elapsed_ms() << 20);
        let (socket, arrived) = (Mutex::new(Some(socket)), Mutex::new(arrived));
        Ok(Arc::new(Self { nature: nature.clone(), local, socket, arrived, sent }))
    }

    /// Lets the port go. Must be called on its host.
    pub fn close(&self) {
        drop(lock(&self.socket).take());
    }

    fn send(&self, socket: &Arc<UdpSocket>, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let number = {
            let mut sent = lock(&self.sent);
            *sent += 1;
            *sent
        };
        let packet = [bytes, &number.to_be_bytes()].concat();
        for pause in self.nature.fate(self.local, to, bytes.len()) {
            if pause.is_zero() {
                // Nobody there is no error for a datagram.
                _ = socket.try_send_to(&packet, to);
                continue;
            }
            let (packet, socket) = (packet.clone(), Arc::downgrade(socket));
            tokio::spawn(later(pause, packet, socket, to));
        }
        Ok(())
    }
}

async fn later(pause: Duration, packet: Vec<u8>, socket: std::sync::Weak<UdpSocket>, to: SocketAddr) {
    tokio::time::sleep(pause).await;
    if let Some(socket) = socket.upgrade() {
        _ = socket.try_send_to(&packet, to);
    }
}

/// Hands packets on and counts those that came twice or were overtaken.
async fn receive(socket: Arc<UdpSocket>, nature: Nature, tell: mpsc::Sender<Packet>) {
    let mut buffer = vec![0; 65_536];
    let mut seen: HashMap<SocketAddr, (u64, u128)> = HashMap::new();
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let Some((bytes, number)) = buffer[..len].split_last_chunk::<NUMBER_LEN>() else { continue };
        let number = u64::from_be_bytes(*number);
        // The newest number, and which of the 128 up to it have come.
        let (newest, come) = seen.entry(from).or_insert((number, 0));
        if number > *newest {
            *come = come.checked_shl((number - *newest).min(128) as u32).unwrap_or(0);
            *newest = number;
        } else if number < *newest {
            nature.happened(Fault::Reordering);
        }
        let bit = 1u128.checked_shl((*newest - number).min(128) as u32).unwrap_or(0);
        if *come & bit != 0 {
            nature.happened(Fault::Duplication);
        }
        *come |= bit;
        if tell.try_send((bytes.to_vec(), from)).is_err() && tell.is_closed() {
            return;
        }
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let socket = lock(&self.socket).clone().ok_or(io::ErrorKind::NotConnected)?;
        let piece = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        transmit.contents.chunks(piece).try_for_each(|bytes| self.send(&socket, bytes, transmit.destination))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arrived = lock(&self.arrived);
        let mut taken = 0;
        while taken < buffers.len().min(meta.len()) {
            match arrived.poll_recv(cx) {
                Poll::Ready(Some((bytes, addr))) => {
                    let len = bytes.len().min(buffers[taken].len());
                    buffers[taken][..len].copy_from_slice(&bytes[..len]);
                    meta[taken] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                    taken += 1;
                }
                Poll::Ready(None) if taken == 0 => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Poll::Pending if taken == 0 => return Poll::Pending,
                _ => break,
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}
