//! The floor's server: see `system::floor`. One event loop, one thread that writes the log.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use tokio::sync::{Notify, mpsc};

use crate::system::floor::{ACK, ALPN, Frames, Rooms, frame, socket, transport};

/// Serves the floor until it is ended.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// UDP address
    #[arg(long)]
    listen: SocketAddr,
    /// Folder of the log and the certificate
    #[arg(long)]
    dir: PathBuf,
}

/// Grown by so much at a time, so that a sync writes no lengths.
const RESERVED: u64 = 64 << 20;

struct Message {
    from: usize,
    frame: Bytes,
    room: u32,
}

/// What waits for the log, and what the log has synced.
#[derive(Default)]
struct Log {
    waiting: Mutex<Vec<Message>>,
    arrived: Condvar,
    synced: Mutex<Vec<Message>>,
    done: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Writes and syncs all that waits, for ever.
    fn run(&self, mut file: File) -> std::io::Result<()> {
        let (mut at, mut reserved, mut bytes) = (0, 0, Vec::new());
        loop {
            let mut waiting = locked(&self.waiting);
            while waiting.is_empty() {
                waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let mut batch = std::mem::take(&mut *waiting);
            drop(waiting);
            bytes.clear();
            batch.iter().for_each(|message| bytes.extend_from_slice(&message.frame));
            at += bytes.len() as u64;
            if at > reserved {
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), reserved, RESERVED)?;
                reserved += RESERVED;
                file.sync_all()?;
            }
            file.write_all(&bytes)?;
            file.sync_data()?;
            locked(&self.synced).append(&mut batch);
            self.done.notify_one();
        }
    }
}

type Out = Rc<std::cell::RefCell<HashMap<usize, mpsc::UnboundedSender<Bytes>>>>;

/// Runs the server.
pub(crate) fn serve(args: &FloorArgs) -> anyhow::Result<()> {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der())
        .map_err(|error| anyhow::anyhow!("a key that is none: {error}"))?;
    // The suite that Magpie chooses, for the same reason.
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.ignore_client_order = true;
    // Tickets as Magpie gives them.
    tls.send_tls13_tickets = 1;
    tls.ticketer = rustls::crypto::ring::Ticketer::new()?;
    let mut config =
        quinn::ServerConfig::with_crypto(Arc::new(quinn::crypto::rustls::QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport()));
    let log = Arc::new(Log::default());
    let file = File::create(args.dir.join("floor.log")).context("cannot make the log")?;
    let writer = log.clone();
    std::thread::Builder::new().name("floor-log".into()).spawn(move || writer.run(file))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint =
            quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(config), socket(args.listen)?, runtime)?;
        std::fs::write(args.dir.join("ca.pem"), key.cert.pem())?;
        let (out, rooms) = (Out::default(), Rc::new(std::cell::RefCell::new(Rooms::new())));
        tokio::task::spawn_local(deliver(log.clone(), out.clone(), rooms.clone()));
        let mut next = 0;
        while let Some(incoming) = endpoint.accept().await {
            let (log, out, rooms, from) = (log.clone(), out.clone(), rooms.clone(), next);
            next += 1;
            tokio::task::spawn_local(async move {
                _ = attend(incoming, from, &log, &out, &rooms).await;
                out.borrow_mut().remove(&from);
            });
        }
        Ok(())
    })
}

/// Hands out what was synced.
async fn deliver(log: Arc<Log>, out: Out, rooms: Rc<std::cell::RefCell<Rooms>>) {
    let ack = frame(ACK, &[]);
    loop {
        log.done.notified().await;
        let batch = std::mem::take(&mut *locked(&log.synced));
        let (out, rooms) = (out.borrow(), rooms.borrow());
        for message in batch {
            _ = out.get(&message.from).map(|out| out.send(ack.clone()));
            for member in rooms.get(&message.room).into_iter().flatten().filter(|member| **member != message.from) {
                _ = out.get(member).map(|out| out.send(message.frame.clone()));
            }
        }
    }
}

async fn attend(
    incoming: quinn::Incoming,
    from: usize,
    log: &Log,
    out: &Out,
    rooms: &Rc<std::cell::RefCell<Rooms>>,
) -> anyhow::Result<()> {
    let connection = tokio::time::timeout(Duration::from_secs(10), incoming).await??;
    let (mut write, read) = connection.accept_bi().await?;
    let mut frames = Frames::new(read);
    let Some((_, hello)) = frames.next().await? else { return Ok(()) };
    let (queue, mut queued) = mpsc::unbounded_channel::<Bytes>();
    for room in hello.chunks_exact(4) {
        let room = u32::from_le_bytes(room.try_into()?);
        rooms.borrow_mut().entry(room).or_default().push(from);
    }
    _ = queue.send(frame(ACK, &[]));
    out.borrow_mut().insert(from, queue);
    tokio::task::spawn_local(async move {
        let mut batch = Vec::new();
        while queued.recv_many(&mut batch, 256).await > 0 {
            if write.write_all_chunks(&mut batch).await.is_err() {
                return;
            }
            batch.clear();
        }
    });
    while let Some((room, text)) = frames.next().await? {
        let message = Message { from, frame: frame(room, &text), room };
        let mut waiting = locked(&log.waiting);
        waiting.push(message);
        let first = waiting.len() == 1;
        drop(waiting);
        if first {
            log.arrived.notify_one();
        }
    }
    Ok(())
}
