//! Taking connections: who may come in, and how fast.

pub mod quic;
pub mod tls;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use magpie_cluster::Fatal;
use quic::{Caller, Door, Link, Listener, UnderWay};

use crate::{
    loops::Loops,
    node::Shared,
    session::{self, outbound::Outbound, writer::Writer},
};

/// A socket for devices, in its event loop.
struct Gate {
    door: Door,
    listener: Listener,
    /// Those who shake hands, at any of the sockets.
    connecting: Arc<AtomicUsize>,
    writer: Writer,
}

/// Takes callers in each loop, and writes to those who were let in, until the listener closes and the writers, which it
/// returns, are stopped. A socket that fails before ends the node: its devices would reach nobody any more.
pub(crate) fn open(
    listener: &Listener,
    loops: &Loops,
    shared: &Arc<Shared>,
    ready: &Arc<AtomicBool>,
    fatal: &Fatal,
) -> Vec<Writer> {
    let connecting = Arc::<AtomicUsize>::default();
    let open = |(at, door): (usize, &Door)| {
        let writer = Writer::default();
        let (door, listener, connecting) = (door.clone(), listener.clone(), connecting.clone());
        let gate = Gate { door, listener, connecting, writer: writer.clone() };
        let (shared, ready, fatal) = (shared.clone(), ready.clone(), fatal.clone());
        let (writing, overload) = (writer.clone(), shared.overload.clone());
        loops.begin(at, || writing.run());
        loops.begin(at, || overload.look_at_actors());
        loops.begin(at, move || async move {
            serve(gate, shared).await;
            if ready.swap(false, Ordering::Relaxed) {
                fatal.report("a socket for devices failed (see the log before this)");
            }
        });
        writer
    };
    listener.doors().iter().enumerate().map(open).collect()
}

/// Takes callers until the listener closes. Must run on a `LocalSet`: sessions are actors.
async fn serve(gate: Gate, shared: Arc<Shared>) {
    let Gate { door, listener, connecting, writer } = gate;
    while let Some(caller) = door.accept().await {
        let config = &shared.config.gateway;
        if listener.open_connections() >= config.connections_max || shared.is_draining() {
            caller.refuse();
            continue;
        }
        if connecting.load(Ordering::Relaxed) >= config.retry_above && !caller.is_validated() {
            caller.retry();
            continue;
        }
        let begun = UnderWay::begin(&connecting);
        let (shared, writer) = (shared.clone(), writer.clone());
        tokio::task::spawn_local(async move {
            connect(caller, writer, &shared).await;
            drop(begun);
        });
    }
}

/// Shakes hands and starts the session, all within the time that a sign-in may take.
async fn connect(caller: Caller, writer: Writer, shared: &Arc<Shared>) {
    let limit = Duration::from_millis(shared.config.gateway.sign_in_timeout_ms);
    let out = Outbound::new(shared.config.gateway.hints_bytes_max, writer);
    let mut link: Option<Link> = None;
    let opened = tokio::time::timeout(limit, async {
        let link = link.insert(caller.accept().await?);
        link.session_stream(out.clone()).await
    });
    match (opened.await, link) {
        (Ok(Ok((sink, source))), Some(link)) => {
            metrics::counter!(crate::metrics::CONNECTIONS).increment(1);
            session::Actor::begin(shared.clone(), link, out, sink, source);
        }
        (Ok(Err(error)), _) => tracing::debug!(%error, "a connection did not come about"),
        (_, Some(link)) => link.close("no session stream was opened in time"),
        (_, None) => {}
    }
}
