//! Connections that peers dialled: their requests and messages in, answers back.

use std::sync::Arc;

use bytes::Bytes;
use magpie_protocol::NodeId;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Shared,
    frames::{self, FrameError},
    link::{CALLS_MAX, close, first_end, node_at},
    outlet::Outlet,
    peers::GREETING_TIME_MAX,
    stream::{Ended, FrameSource, gone, set_priority, write},
};
use crate::transport::{Lane, MESSAGE_LEN_MAX};

/// Strangers that may shake hands at once; more than a cluster has nodes, less than would keep a processor busy long.
const STRANGERS_MAX: usize = 64;
/// No more requests of a lane are read while this many bytes of answers wait for their peer to read them.
const ANSWERS_LEN_MAX: usize = MESSAGE_LEN_MAX;

/// The connection that a peer made last.
#[derive(Default)]
pub(super) struct Accepted {
    connection: Option<quinn::Connection>,
    /// Held by whoever hands the peer's frames on, so that those of an older connection never come after those of a
    /// newer one.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Accepted {
    pub(super) fn close(&self, why: &str) {
        if let Some(connection) = &self.connection {
            close(connection, why);
        }
    }
}

/// Takes who dials, until the endpoint is closed.
pub(super) async fn accept(shared: Arc<Shared>) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = shared.endpoint.accept() => incoming,
            Some(_) = connections.join_next() => continue,
        };
        let Some(incoming) = incoming else { break };
        let Ok(stranger) = strangers.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let shared = shared.clone();
        connections.spawn(async move {
            let address = incoming.remote_address();
            let greeted = tokio::time::timeout(GREETING_TIME_MAX, greet(&shared, incoming)).await;
            drop(stranger);
            match greeted.unwrap_or(Err(Ended::TooSlow(GREETING_TIME_MAX.as_millis()))) {
                Ok((from, connection)) => serve(&shared, from, connection).await,
                Err(reason @ Ended::Refused(_)) => tracing::warn!(%address, %reason, "turned a node away"),
                Err(reason) => tracing::debug!(%address, %reason, "somebody dialled and did not come through"),
            }
        });
    }
    connections.shutdown().await;
}

/// Shakes hands, which only who has a certificate of the cluster's authority comes through, and finds out who it is.
async fn greet(shared: &Shared, incoming: quinn::Incoming) -> Result<(NodeId, quinn::Connection), Ended> {
    let connection = incoming.accept().map_err(gone)?.await.map_err(gone)?;
    let from = node_at(&connection).inspect_err(|why| close(&connection, &why.to_string()))?;
    if !shared.peers().has(from) {
        close(&connection, "you are not among the peers");
        return Err(Ended::Refused(format!("{from} is not among the peers")));
    }
    Ok((from, connection))
}

/// Serves a peer until its connection ends, or it makes another.
async fn serve(shared: &Arc<Shared>, from: NodeId, connection: quinn::Connection) {
    let turn = {
        let mut peers = shared.peers();
        if !peers.has(from) {
            return close(&connection, "you are no longer a peer");
        }
        let accepted = peers.accepted.entry(from).or_default();
        accepted.close("you have made another connection");
        accepted.connection = Some(connection.clone());
        let turn = accepted.turn.clone();
        peers.note_there(from);
        turn
    };
    let _turn = turn.lock().await;
    let mut tasks = JoinSet::new();
    let started = tokio::time::timeout(GREETING_TIME_MAX, start_lanes(shared, from, &connection, &mut tasks)).await;
    let ended = match started.unwrap_or(Err(Ended::TooSlow(GREETING_TIME_MAX.as_millis()))) {
        // What is still unread of a connection that is closed does not count.
        Ok(()) => tokio::select! {
            biased;
            why = connection.closed() => gone(why),
            ended = first_end(&mut tasks) => ended,
        },
        Err(ended) => ended,
    };
    tracing::debug!(%from, reason = %ended, "the connection of a node ended");
    close(&connection, &ended.to_string());
    tasks.shutdown().await;
}

/// Waits for the three streams, and starts a reader and a writer on each.
async fn start_lanes(
    shared: &Arc<Shared>,
    from: NodeId,
    connection: &quinn::Connection,
    tasks: &mut JoinSet<Result<(), Ended>>,
) -> Result<(), Ended> {
    let mut greeted = Vec::with_capacity(Lane::ALL.len());
    for _ in Lane::ALL {
        let (send, receive) = connection.accept_bi().await.map_err(gone)?;
        let mut source = FrameSource::new(receive);
        let (id, payload) = source.next().await?;
        let lane = frames::lane_of_hello(id, &payload)?;
        set_priority(&send, lane)?;
        if greeted.contains(&lane) {
            return Err(FrameError::Unexpected("two streams for one lane").into());
        }
        greeted.push(lane);
        let outlet = Arc::new(Outlet::default());
        _ = outlet.push(0, frames::hello(lane), usize::MAX);
        tasks.spawn(write(outlet.clone(), send));
        tasks.spawn(read(shared.clone(), from, lane, source, outlet));
    }
    Ok(())
}

/// Hands frames on in their order.
async fn read(
    shared: Arc<Shared>,
    from: NodeId,
    lane: Lane,
    mut source: FrameSource,
    outlet: Arc<Outlet>,
) -> Result<(), Ended> {
    let unanswered = Arc::new(Semaphore::new(CALLS_MAX));
    loop {
        let (id, payload) = source.next().await?;
        let Some(service) = shared.service.get() else { continue };
        if id == 0 {
            service.on_message(from, lane, payload);
            continue;
        }
        outlet.below(ANSWERS_LEN_MAX).await;
        // Given back when the answer is given, or will never be.
        let open = unanswered.clone().acquire_owned().await.map_err(gone)?;
        let outlet = outlet.clone();
        let answer = move |answer: Bytes| {
            let _open = open;
            if answer.len() > MESSAGE_LEN_MAX {
                tracing::error!(%from, ?lane, bytes = answer.len(), "an answer is too long and is not sent");
            } else {
                // When the connection has ended, so has the call.
                _ = outlet.push(id, answer, usize::MAX);
            }
        };
        service.on_request(from, lane, payload, Box::new(answer));
    }
}
