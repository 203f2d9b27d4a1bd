//! Taking connections: who may come in, and how fast.

pub mod quic;
pub mod tls;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quic::{Caller, Link, Listener, UnderWay};

use crate::{
    node::Shared,
    session::{self, outbound::Outbound},
};

/// Takes callers until the listener closes. Must run on a `LocalSet`: sessions are actors.
pub(crate) async fn serve(listener: Listener, shared: Arc<Shared>) {
    let connecting = Arc::new(AtomicUsize::new(0));
    while let Some(caller) = listener.accept().await {
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
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            connect(caller, &shared).await;
            drop(begun);
        });
    }
}

/// Shakes hands and starts the session, all within the time that a sign-in may take.
async fn connect(caller: Caller, shared: &Arc<Shared>) {
    let limit = Duration::from_millis(shared.config.gateway.sign_in_timeout_ms);
    let out = Outbound::new(shared.config.gateway.hints_bytes_max, shared.writer.clone());
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
