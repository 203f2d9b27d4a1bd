//! A client's task: from goal to connection to session, again and again, until the client is closed.

mod handshake;
mod link;
mod online;
pub(crate) mod outgoing;
pub(crate) mod sync;

use std::{sync::Arc, time::Duration};

use magpie_protocol::{
    WireError,
    frame::hello::{Closing, ClosingReason},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    Error, Event, Network, Status, backoff,
    shared::{Goal, Shared, State},
    store::mint_incarnation,
};
use link::{Link, LinkError};

/// How a connection ended, and what follows.
#[derive(Debug)]
enum End {
    /// Gone: connect again, soon.
    Lost(String),
    /// Connect again when the server wants it.
    Later { reason: String, after_ms: u32 },
    /// The local store failed: connect again when it may be well.
    Store(Error),
    /// There is no goal any more.
    Rest,
}

impl<E: Into<Error>> From<E> for End {
    fn from(e: E) -> Self {
        Self::Store(e.into())
    }
}

/// Drives one client until it is closed.
pub(crate) async fn run(shared: Arc<Shared>, network: Network) {
    let (mut attempt, mut turn) = (0, 0);
    loop {
        {
            let mut state = shared.lock();
            if state.closing {
                break;
            }
            state.drop_connection = false;
            if !matches!(state.goal, Goal::Rest) {
                state.status = Status::Connecting;
            }
        }
        if matches!(shared.lock().goal, Goal::Rest) {
            attempt = 0;
            shared.wake.notified().await;
            continue;
        }
        let end = connection(&shared, &network, &mut attempt, turn).await;
        shared.lock().server = None;
        if matches!(end, End::Lost(_) | End::Later { .. }) {
            turn = turn.wrapping_add(1);
        }
        if let Some(pause) = conclude(&shared, end, attempt) {
            attempt = attempt.saturating_add(1);
            rest(&shared, pause).await;
        }
    }
    finish(&shared);
}

async fn connection(shared: &Shared, network: &Network, attempt: &mut u32, turn: usize) -> End {
    let elsewhere = shared.lock().elsewhere.pop_front();
    let server = elsewhere.unwrap_or_else(|| shared.config.server_at(turn));
    let opened = interruptible(shared, Link::open(network, &shared.config, server)).await;
    let (mut link, welcome) = match opened {
        None => return End::Lost("no session in time".into()),
        Some(Err(LinkError::Lost(reason))) => return End::Lost(reason),
        Some(Err(LinkError::Refused(error))) => return handshake::on_refused(shared, error),
        Some(Err(LinkError::Closing(closing))) => return on_closing(shared, closing),
        Some(Ok(opened)) => opened,
    };
    shared.lock().server = Some(link.server());
    match begin(shared, welcome.history_epoch) {
        Ok(true) => {}
        // Whatever it has was lost: of its own, or of the cluster that it was part of before that was restored.
        Ok(false) => return End::Later { reason: "the node serves a history that is over".into(), after_ms: 1_000 },
        Err(e) => return End::Store(e),
    }
    match interruptible(shared, handshake::sign_in(shared, &mut link)).await {
        None => End::Lost("no session in time".into()),
        Some(Err(end)) => end,
        Some(Ok(())) => {
            shared.media.send_replace(Some(link.connection()));
            let end = online::serve(shared, link, attempt).await;
            shared.media.send_replace(None);
            let mut state = shared.lock();
            state.sync.on_lost();
            let moved = state.outgoing.on_lost();
            let kept = state.keep_base().is_ok() && moved.iter().all(|row| state.store.put_lane(row).is_ok());
            if !kept {
                state.store_suspect = true;
            }
            end
        }
    }
}

/// Runs `work` unless the client is closed, told to drop its connection, or out of time, before it is done.
async fn interruptible<T>(shared: &Shared, work: impl Future<Output = T>) -> Option<T> {
    let deadline = match &shared.lock().goal {
        Goal::Auth(auth) => Some(auth.deadline),
        Goal::Rest | Goal::Resume(_) => None,
    };
    let mut late = std::pin::pin!(async {
        match deadline {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    });
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = &mut late => return None,
            () = shared.wake.notified() => {
                let state = shared.lock();
                if state.closing || state.drop_connection {
                    return None;
                }
            }
        }
    }
}

/// Before a session is signed in: the store agrees with memory, and both with the server's history. `false` when that is
/// older than one that is known.
fn begin(shared: &Shared, history_epoch: u64) -> Result<bool, Error> {
    let mut state = shared.lock();
    let state = &mut *state;
    if state.store_suspect {
        state.outgoing.rows().iter().try_for_each(|row| state.store.put_lane(row))?;
        let marks: Vec<_> = state.sync.marks().map(|(id, mark)| (id, mark.clone())).collect();
        let stored = state.store.timelines()?;
        // The memory store has no marks of its own; it also never fails.
        if !stored.is_empty() || marks.is_empty() {
            state.sync = sync::Sync::new(stored);
        }
        state.store_suspect = false;
    }
    let known = state.identity.history_epoch;
    if history_epoch <= known {
        return Ok(history_epoch == known);
    }
    state.identity.history_epoch = history_epoch;
    if known > 0 {
        state.identity.incarnation = mint_incarnation();
        state.store.start_over(state.identity.user)?;
        state.sync = sync::Sync::default();
        let moved = state.outgoing.start_over(state.identity.incarnation);
        moved.iter().try_for_each(|row| state.store.put_lane(row))?;
        state.identity.incarnation = state.outgoing.base();
        shared.emit(Event::HistoryReset);
    }
    state.store.put_identity(&state.identity)?;
    Ok(true)
}

fn on_closing(shared: &Shared, closing: Closing) -> End {
    match closing.reason {
        ClosingReason::Stopping => End::Later { reason: "the node stops".into(), after_ms: closing.reconnect_after_ms },
        ClosingReason::Protocol => End::Later {
            reason: "the node says that this client broke the protocol".into(),
            after_ms: closing.reconnect_after_ms.max(1_000),
        },
        ClosingReason::Replaced => {
            stop(&mut shared.lock(), Status::Replaced, &Error::Replaced);
            shared.emit(Event::Replaced);
            End::Rest
        }
        ClosingReason::SignedOut => signed_out(shared),
    }
}

fn signed_out(shared: &Shared) -> End {
    let mut state = shared.lock();
    state.identity.token.clear();
    let identity = state.identity.clone();
    if let Err(e) = state.store.put_identity(&identity) {
        tracing::warn!(error = %Error::from(e), "the token could not be forgotten");
    }
    stop(&mut state, Status::SignedOut, &Error::SignedOut);
    drop(state);
    shared.emit(Event::SignedOut);
    End::Rest
}

/// Gives up the goal; who waited for it, or for an answer, learns why. Posts stay.
fn stop(state: &mut State, status: Status, why: &Error) {
    state.status = status;
    match std::mem::replace(&mut state.goal, Goal::Rest) {
        Goal::Rest => {}
        Goal::Auth(auth) => {
            let _ = auth.reply.send(Err(why.clone()));
        }
        Goal::Resume(waiters) => waiters.into_iter().for_each(|waiter| {
            let _ = waiter.send(Err(why.clone()));
        }),
    }
    state.asks.drain(..).for_each(|ask| {
        let _ = ask.reply.send(Err(why.clone()));
    });
}

/// Tells the app how a connection ended. Returns how long to wait before the next; `None` when there is no goal.
fn conclude(shared: &Shared, end: End, attempt: u32) -> Option<Duration> {
    let (reason, pause) = match end {
        End::Rest => return None,
        End::Lost(reason) => (reason, backoff::CONNECT.jittered(attempt)),
        End::Later { reason, after_ms } => (reason, backoff::CONNECT.after_refusal(attempt, after_ms)),
        End::Store(e) => {
            shared.lock().store_suspect = true;
            shared.emit(Event::StoreFailed { detail: e.to_string() });
            (e.to_string(), backoff::CONNECT.after_refusal(attempt, 1_000))
        }
    };
    let mut state = shared.lock();
    let was_online = state.status == Status::Online;
    if state.status != Status::Closed {
        state.status = Status::Connecting;
    }
    let mut pause = pause;
    if let Goal::Auth(auth) = &mut state.goal {
        let left = auth.deadline.saturating_duration_since(Instant::now());
        let hopeless = reason.contains("invalid peer certificate");
        // The last connection is cut by the deadline; what ended those before says more.
        if !left.is_zero() || auth.last_reason.is_none() {
            auth.last_reason = Some(reason.clone());
        }
        if left.is_zero() || hopeless || auth.reply.is_closed() {
            let known = auth.last_reason.clone().unwrap_or_default();
            let why = match auth.uncertain || auth.asked {
                true => Error::Unknown,
                false if hopeless => Error::Tls(known),
                false => Error::Offline(known),
            };
            stop(&mut state, Status::Offline, &why);
            return None;
        }
        pause = pause.min(left);
    }
    drop(state);
    tracing::debug!(reason, ?pause, "connection ended");
    if was_online {
        shared.emit(Event::Offline { reason });
    }
    Some(pause)
}

/// Waits out a pause, unless the client is closed.
async fn rest(shared: &Shared, pause: Duration) {
    let until = Instant::now() + pause;
    loop {
        tokio::select! {
            () = sleep_until(until) => return,
            () = shared.wake.notified() => {
                let state = shared.lock();
                if state.closing || matches!(state.goal, Goal::Rest) {
                    return;
                }
            }
        }
    }
}

fn finish(shared: &Shared) {
    let mut state = shared.lock();
    stop(&mut state, Status::Closed, &Error::Closed);
    state.outgoing.abandon();
    let closed = state.store.close();
    drop(state);
    if let Err(e) = closed {
        tracing::warn!(error = %Error::from(e), "the store did not close well");
    }
    shared.events.close();
    shared.ended.send_replace(true);
}

/// Whether a refusal ends the session's token.
fn ends_token(error: &WireError) -> bool {
    use magpie_protocol::ErrorCode::{BadCredentials, NotSignedIn, SignedOut};
    matches!(error.code, SignedOut | BadCredentials | NotSignedIn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clients_task_is_small() {
        let cert = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let network = Network::new(crate::NetworkConfig::new(cert.cert.der().to_vec())).unwrap();
        let config = crate::Config::new(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        let queue = Arc::new(crate::events::EventQueue::new(8, config.history));
        let (store, loaded) = crate::store::open(&crate::StorePlace::Memory, config.history).unwrap();
        let state = State {
            store,
            sync: sync::Sync::default(),
            outgoing: outgoing::Outgoing::new(loaded.identity.incarnation, Vec::new()),
            identity: loaded.identity,
            asks: std::collections::VecDeque::new(),
            goal: Goal::Rest,
            status: Status::Offline,
            elsewhere: std::collections::VecDeque::new(),
            server: None,
            sendings: 0,
            retries: backoff::retries(),
            store_suspect: false,
            closing: true,
            drop_connection: false,
        };
        let shared = Arc::new(Shared::new(state, queue, config));
        let task = run(shared.clone(), network);
        let len = size_of_val(&task) + size_of::<Shared>();
        assert!(len < 8 * 1024, "{len} bytes");
        task.await;
        assert_eq!(shared.lock().status, Status::Closed);
    }
}
