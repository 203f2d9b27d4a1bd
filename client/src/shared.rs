//! What a client's handle and its task share, behind one lock that is never held across an await.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use magpie_protocol::{Answer, Request, RetryBudget};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};

use crate::{
    Config, Error, Event, Me, Status,
    events::EventQueue,
    session::{outgoing::Outgoing, sync::Sync},
    store::{Identity, Store},
};

/// A request of the app's, to be asked until it is answered or nobody waits any more.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) request: Request,
    pub(crate) attempts: u32,
    pub(crate) not_before: Option<Instant>,
    pub(crate) reply: oneshot::Sender<Result<Answer, Error>>,
}

/// What proves who signs in.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// A sign-up.
    New {
        password: String,
        invitation: Option<String>,
    },
    Password(String),
    /// Of the operator's identity service.
    Token(String),
}

/// A sign-up or sign-in under way. Not `Debug`: it holds a password.
pub(crate) struct Auth {
    /// Empty where only the token says it.
    pub(crate) handle: String,
    pub(crate) credentials: Credentials,
    /// It was sent, and not answered.
    pub(crate) asked: bool,
    /// An earlier try may have succeeded without our knowing.
    pub(crate) uncertain: bool,
    /// Why the last connection did not come about.
    pub(crate) last_reason: Option<String>,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Me, Error>>,
}

/// What the task works towards.
pub(crate) enum Goal {
    /// Nothing: no connection.
    Rest,
    Auth(Auth),
    /// A session with the stored token, for as long as it takes.
    Resume(Vec<oneshot::Sender<Result<Me, Error>>>),
}

/// See the module.
pub(crate) struct State {
    pub(crate) store: Box<dyn Store>,
    pub(crate) identity: Identity,
    pub(crate) sync: Sync,
    pub(crate) outgoing: Outgoing,
    pub(crate) asks: VecDeque<Ask>,
    pub(crate) goal: Goal,
    pub(crate) status: Status,
    /// Where the last node said that this device may go: each is tried once.
    pub(crate) elsewhere: VecDeque<SocketAddr>,
    /// The node that a connection stands to.
    pub(crate) server: Option<SocketAddr>,
    pub(crate) sendings: u64,
    /// How often what a node refused for now may be asked again.
    pub(crate) retries: RetryBudget,
    /// A write failed: the store may hold less than memory does.
    pub(crate) store_suspect: bool,
    /// The client is to stop.
    pub(crate) closing: bool,
    /// The connection is to be dropped without a goodbye.
    pub(crate) drop_connection: bool,
}

impl State {
    /// Who is signed in, or was.
    pub(crate) fn me(&self) -> Option<Me> {
        let identity = &self.identity;
        identity.user.map(|user| Me { user, device: identity.device, handle: identity.handle.clone() })
    }

    /// Why nothing is asked of a node; `None` while there is one to ask, or will be.
    pub(crate) fn why_rest(&self) -> Option<Error> {
        matches!(self.goal, Goal::Rest).then_some(match self.status {
            Status::Replaced => Error::Replaced,
            Status::SignedOut => Error::SignedOut,
            _ => Error::NotSignedIn,
        })
    }

    /// Keeps the incarnation of lanes to come, if it changed.
    pub(crate) fn keep_base(&mut self) -> Result<(), Error> {
        if self.identity.incarnation != self.outgoing.base() {
            self.identity.incarnation = self.outgoing.base();
            self.store.put_identity(&self.identity)?;
        }
        Ok(())
    }
}

/// See the module.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// There is something to do.
    pub(crate) wake: Notify,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) config: Config,
    /// The connection of a session that is signed in, for media.
    pub(crate) media: watch::Sender<Option<quinn::Connection>>,
    /// True once the task has ended.
    pub(crate) ended: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(state: State, events: Arc<EventQueue>, config: Config) -> Self {
        Self {
            state: Mutex::new(state),
            wake: Notify::new(),
            events,
            config,
            media: watch::Sender::default(),
            ended: watch::Sender::new(false),
        }
    }

    /// The state. A panic elsewhere does not make it unusable: each change is complete before the next.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn emit(&self, event: Event) {
        self.events.emit(event);
    }
}
