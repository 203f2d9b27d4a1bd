//! Sessions: one actor for each connected device.

pub mod outbound;
mod requests;
mod sync;

use std::{sync::Arc, time::Duration};

use actix::{Actor as _, ActorContext, Addr, AsyncContext, Context, Handler, Message as ActixMessage, StreamHandler};
use magpie_protocol::{
    Answer, ConversationId, DeviceId, ErrorCode, Frame, Request, TimelineId, UserId, WireError,
    frame::hello::{Closing, ClosingReason},
};

use crate::{
    gateway::quic::{FrameSink, FrameSource, Link, LinkError},
    node::Shared,
    watches::Watching,
};
use outbound::Outbound;

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
    /// Hints of these timelines did not reach the device.
    Behind(Vec<TimelineId>),
    /// Something of the inbox was missed: read the list of conversations again.
    Relist,
}

/// The way to a session. Clones share it.
#[derive(Clone)]
pub struct SessionHandle {
    pub identity: Identity,
    out: Arc<Outbound>,
    address: Addr<Actor>,
}

impl SessionHandle {
    /// Tells the session. One whose mailbox is full cannot keep up: it is ended, and its device comes back.
    pub fn tell(&self, message: Message) {
        if self.address.try_send(message).is_err() {
            self.out.close();
        }
    }

    /// The device's queue.
    pub fn out(&self) -> &Arc<Outbound> {
        &self.out
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
}

impl Actor {
    /// Starts the session of a connection.
    pub(crate) fn begin(shared: Arc<Shared>, link: Link, out: Arc<Outbound>, sink: FrameSink, source: FrameSource) {
        let stall = Duration::from_millis(shared.config.gateway.stall_timeout_ms);
        let mailbox = shared.config.gateway.session_mailbox;
        let (state, watching) = (State::New, Watching::default());
        let actor = Self { shared, link: link.clone(), out: out.clone(), state, watching, synced: false };
        let address = Self::create(|context| {
            context.set_mailbox_capacity(mailbox);
            context.add_stream(source.into_stream());
            actor
        });
        tokio::spawn(write_out(out, sink, link, stall, address));
    }

    fn identity(&self) -> Option<Identity> {
        match &self.state {
            State::SignedIn(handle) => Some(handle.identity),
            _ => None,
        }
    }

    fn close(&self, reason: ClosingReason, reconnect_after_ms: u32) {
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
        }
        self.shared.watches.leave(&mut self.watching, &self.shared.router);
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

    fn handle(&mut self, message: Message, _: &mut Context<Self>) {
        match message {
            Message::Close { reason, reconnect_after_ms } => self.close(reason, reconnect_after_ms),
            Message::Follow(conversation) => self.follow(conversation),
            Message::Unfollow(conversation) => self.unfollow(conversation),
            Message::SignedOut(device) => {
                if self.identity().is_some_and(|me| me.device == device) {
                    self.close(ClosingReason::SignedOut, 0);
                }
            }
            Message::Behind(timelines) => self.tell_behind(timelines),
            Message::Relist => self.relist(),
        }
    }
}

/// Writes what is queued, all of it in one go, until the session ends.
async fn write_out(out: Arc<Outbound>, mut sink: FrameSink, link: Link, stall: Duration, address: Addr<Actor>) {
    loop {
        let mut batch = tokio::select! {
            batch = out.next() => batch,
            () = link.closed() => return,
        };
        if batch.last {
            // Give the device a moment to take what was written.
            _ = tokio::time::timeout(Duration::from_secs(2), sink.finish()).await;
            link.close("closed");
            return;
        }
        let bytes = batch.pieces.iter().map(bytes::Bytes::len).sum();
        if !batch.pieces.is_empty() {
            match tokio::time::timeout(stall, sink.write(&mut batch.pieces)).await {
                Ok(Ok(())) => out.written(bytes),
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::debug!(address = %link.address(), "closing a session that takes nothing");
                    link.close("nothing was taken");
                    return;
                }
            }
        }
        if !batch.behind.is_empty() && address.try_send(Message::Behind(batch.behind)).is_err() {
            out.close();
        }
    }
}
