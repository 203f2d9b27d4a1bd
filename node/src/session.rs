//! Sessions: one actor for each connected device.

pub mod outbound;
mod requests;
mod sync;
pub mod writer;

use std::{
    collections::BTreeSet,
    mem::take,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix::{Actor as _, ActorContext, Addr, AsyncContext, Context, Handler, Message as ActixMessage, StreamHandler};
use magpie_protocol::{
    Answer, ConversationId, DeviceId, ErrorCode, Frame, Request, TimelineId, UserId, WireError,
    frame::hello::{Closing, ClosingReason, Elsewhere},
};

use crate::{
    gateway::quic::{FrameSink, FrameSource, Link, LinkError},
    limits::Bucket,
    node::Shared,
    watches::Watching,
};
use outbound::Outbound;
use writer::Destination;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    pub device: DeviceId,
    pub epoch: u64,
}

/// What a session is told.
#[derive(Debug, ActixMessage)]
#[rtype(result = "()")]
pub enum Message {
    /// End, and tell the device why and when to come back.
    Close { reason: ClosingReason, reconnect_after_ms: u32 },
    /// The person became a member of this conversation.
    Follow(ConversationId),
    /// The person is no longer a member of it.
    Unfollow(ConversationId),
    /// This device of the person was signed out.
    SignedOut(DeviceId),
    /// Hints of these timelines did not find room in the device's queue.
    Behind(Vec<TimelineId>),
    /// Hints did not reach the device: [`SessionHandle::missed`] has of which timelines.
    Missed,
    /// Something of the inbox was missed: read the list of conversations again.
    Relist,
}

/// The way to a session. Clones share it.
#[derive(Clone)]
pub struct SessionHandle(Arc<Session>);

struct Session {
    identity: Identity,
    out: Arc<Outbound>,
    address: Addr<Actor>,
    missed: Mutex<BTreeSet<TimelineId>>,
}

impl SessionHandle {
    fn new(identity: Identity, out: Arc<Outbound>, address: Addr<Actor>) -> Self {
        Self(Arc::new(Session { identity, out, address, missed: Mutex::default() }))
    }

    /// Who is at the other end.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// Tells the session. One whose mailbox is full cannot keep up: it is ended, and its device comes back.
    pub fn tell(&self, message: Message) {
        if self.0.address.try_send(message).is_err() {
            self.0.out.close();
        }
    }

    /// Hints of these timelines did not reach the device. The session is told once of all that come before it looks.
    pub fn missed(&self, timelines: impl IntoIterator<Item = TimelineId>) {
        let mut missed = self.lock_missed();
        let told = !missed.is_empty();
        missed.extend(timelines);
        let tell = !told && !missed.is_empty();
        drop(missed);
        if tell {
            self.tell(Message::Missed);
        }
    }

    fn take_missed(&self) -> Vec<TimelineId> {
        take(&mut *self.lock_missed()).into_iter().collect()
    }

    fn lock_missed(&self) -> MutexGuard<'_, BTreeSet<TimelineId>> {
        self.0.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device's queue.
    pub fn out(&self) -> &Arc<Outbound> {
        &self.0.out
    }
}

/// Handles are equal when they lead to the same session.
impl PartialEq for SessionHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SessionHandle {}

impl std::hash::Hash for SessionHandle {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// How far the session is.
pub(crate) enum State {
    /// Nothing was said.
    New,
    /// Both agreed on a version.
    Greeted,
    /// A sign-in is being worked on.
    SigningIn,
    SignedIn(SessionHandle),
}

/// See the module's documentation.
pub struct Actor {
    shared: Arc<Shared>,
    link: Link,
    out: Arc<Outbound>,
    state: State,
    watching: Watching,
    /// The device asked to follow everything.
    synced: bool,
    /// What the device may still ask.
    bucket: Bucket,
}

impl Actor {
    /// Starts the session of a connection.
    pub(crate) fn begin(shared: Arc<Shared>, link: Link, out: Arc<Outbound>, sink: FrameSink, source: FrameSource) {
        let stall = Duration::from_millis(shared.config.gateway.stall_timeout_ms);
        let mailbox = shared.config.gateway.session_mailbox;
        let (state, watching) = (State::New, Watching::default());
        let bucket = Bucket::full(shared.limits.requests, (shared.clock)());
        let actor = Self { shared, link: link.clone(), out: out.clone(), state, watching, synced: false, bucket };
        let address = Self::create(|context| {
            context.set_mailbox_capacity(mailbox);
            context.add_stream(source);
            actor
        });
        out.begin(Box::new(Destination { sink, link, address, stall }));
    }

    fn identity(&self) -> Option<Identity> {
        match &self.state {
            State::SignedIn(handle) => Some(handle.identity()),
            _ => None,
        }
    }

    fn close(&self, reason: ClosingReason, reconnect_after_ms: u32) {
        let servers = match (reason, self.identity()) {
            (ClosingReason::Stopping, Some(me)) => self.shared.elsewhere(me.user),
            _ => Vec::new(),
        };
        if !servers.is_empty() {
            self.out.push_answer(Answer::Elsewhere(Elsewhere { servers }));
        }
        self.out.push_answer(Answer::Closing(Closing { reason, reconnect_after_ms }));
        self.out.close();
    }
}

impl actix::Actor for Actor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let limit = Duration::from_millis(self.shared.config.gateway.sign_in_timeout_ms);
        context.run_later(limit, |actor, _| {
            if actor.identity().is_none() {
                actor.out.close();
            }
        });
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.out.close();
        if let State::SignedIn(handle) = &self.state {
            self.shared.sessions.left(handle);
            self.shared.watches.leave(&mut self.watching, handle);
        }
    }
}

impl StreamHandler<Result<Frame<Request>, LinkError>> for Actor {
    fn handle(&mut self, frame: Result<Frame<Request>, LinkError>, context: &mut Context<Self>) {
        match frame {
            // Whoever was told that the session ends may still write: a device that was signed out, for instance.
            Ok(_) if self.out.is_closed() => {}
            Ok(frame) => self.request(frame, context),
            Err(LinkError::Protocol(error)) => {
                metrics::counter!(crate::metrics::PROTOCOL_ERRORS).increment(1);
                tracing::debug!(address = %self.link.address(), %error, "closing a session that broke the protocol");
                self.out.push_answer(Answer::Refused(WireError::detail(ErrorCode::BadFrame, error.to_string())));
                self.close(ClosingReason::Protocol, 0);
            }
            Err(error @ LinkError::Gone(_)) => tracing::trace!(%error, "a session's stream ended"),
        }
    }

    fn finished(&mut self, context: &mut Context<Self>) {
        context.stop();
    }
}

impl Handler<Message> for Actor {
    type Result = ();

    fn handle(&mut self, message: Message, context: &mut Context<Self>) {
        match message {
            Message::Close { reason, reconnect_after_ms } => self.close(reason, reconnect_after_ms),
            Message::Follow(conversation) => self.follow(conversation, context),
            Message::Unfollow(conversation) => self.unfollow(conversation, context),
            Message::SignedOut(device) => {
                if self.identity().is_some_and(|me| me.device == device) {
                    self.close(ClosingReason::SignedOut, 0);
                }
            }
            Message::Behind(timelines) => self.tell_behind(timelines, context),
            Message::Missed => {
                if let State::SignedIn(handle) = &self.state {
                    self.tell_behind(handle.take_missed(), context);
                }
            }
            Message::Relist => self.relist(context),
        }
    }
}
