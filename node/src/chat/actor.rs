//! What is volatile about conversations, on their shards' leaders, where their commands pass on their way to the open
//! batch: an actor for each active group. Of two people there is nothing to hold but how fast they may go on, which is
//! looked at in passing.

use std::{sync::Arc, time::Duration};

use actix::{
    ActorContext, Addr, Context, Handler, Message as ActixMessage,
    dev::channel::{AddressReceiver, channel},
    prelude::SendError,
};
use magpie_cluster::{AskError, EntityId, Reply, Shard, router::Front};
use magpie_protocol::{ConversationId, ConversationKind};
use tokio::sync::mpsc;

use crate::{
    Magpie,
    config::Limits,
    contact::{self, actor::Shakes},
    hooks::Board,
    limits::{self, Bucket, Rate},
    machine::{Command, Query, Replied, View},
    overload::Mailboxes,
    registry::Registry,
    search::{self, Search},
};

/// What a group's actor is told.
#[derive(ActixMessage)]
#[rtype(result = "()")]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one: a box would be an allocation each")]
pub enum Message {
    /// Pass this on, which was put here at this time.
    Submit { command: Command, reply: Reply<Replied>, at_ms: u64 },
    /// Nothing was said for a while.
    Stop,
}

/// An active group.
pub struct Actor {
    entity: EntityId,
    shard: Shard<Magpie>,
    rate: Rate,
    bucket: Bucket,
    clock: magpie_cluster::Clock,
    mailboxes: Arc<Mailboxes>,
}

impl actix::Actor for Actor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        metrics::gauge!(crate::metrics::CONVERSATION_ACTORS).increment(1);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        metrics::gauge!(crate::metrics::CONVERSATION_ACTORS).decrement(1);
    }
}

impl Handler<Message> for Actor {
    type Result = ();

    fn handle(&mut self, message: Message, context: &mut Context<Self>) {
        match message {
            Message::Submit { command, reply, at_ms } => {
                let now_ms = (self.clock)();
                self.mailboxes.conversations.note(Duration::from_millis(now_ms.saturating_sub(at_ms)));
                match self.bucket.take(self.rate, now_ms) {
                    Ok(()) => self.shard.submit(self.entity, &command, reply),
                    Err(wait) => turn_away(reply, wait),
                }
            }
            Message::Stop => context.stop(),
        }
    }
}

/// Too much is said in a conversation.
fn turn_away(reply: Reply<Replied>, wait: Duration) {
    limits::limited("conversation");
    reply(Err(AskError::Overloaded { retry_after_ms: wait.as_millis().max(1) as u32 }));
}

/// What is held of a conversation in which something was said lately.
struct Active {
    held: Held,
    used_ms: u64,
}

enum Held {
    /// Of two people.
    Bucket(Bucket),
    /// None only while it is being made.
    Group(Option<Addr<Actor>>),
}

impl Active {
    fn stop(&self) {
        if let Held::Group(Some(address)) = &self.held {
            #[expect(clippy::disallowed_methods, reason = "a stop message")]
            address.do_send(Message::Stop);
        }
    }
}

/// Actors that may wait to be started.
const STARTING_MAX: usize = 1024;

/// An actor that is to be started, with the mailbox that it will read.
type Starting = (Actor, AddressReceiver<Actor>);

/// The active conversations of this node. Stands before its shards.
pub struct Conversations {
    active: Registry<ConversationId, Active>,
    limits: Limits,
    clock: magpie_cluster::Clock,
    starting: mpsc::Sender<Starting>,
    shakes: Shakes,
    search: Search,
    mailboxes: Arc<Mailboxes>,
    receivers: Board,
}

impl Conversations {
    /// None yet. The future starts their actors as long as it runs, on a `LocalSet`: other nodes ask from outside of it.
    pub fn new(
        limits: Limits,
        clock: magpie_cluster::Clock,
        search: Search,
        mailboxes: Arc<Mailboxes>,
        receivers: Board,
    ) -> (Self, impl Future<Output = ()>) {
        let (starting, mut to_start) = mpsc::channel::<Starting>(STARTING_MAX);
        let start = async move {
            while let Some((actor, mailbox)) = to_start.recv().await {
                Context::with_receiver(mailbox).run(actor);
            }
        };
        let (active, shakes) = (Registry::default(), Shakes::default());
        (Self { active, limits, clock, starting, shakes, search, mailboxes, receivers }, start)
    }

    fn rate(&self) -> Rate {
        Rate { per_second: self.limits.conversation_rate, burst: self.limits.conversation_burst }
    }

    /// The mailbox takes messages at once, in order, before the actor runs. `None` where too many wait to be started.
    fn start(&self, shard: &Shard<Magpie>, entity: EntityId, now_ms: u64) -> Option<Addr<Actor>> {
        let bucket = Bucket::full(self.rate(), now_ms);
        let (shard, clock, mailboxes) = (shard.clone(), self.clock.clone(), self.mailboxes.clone());
        let actor = Actor { entity, shard, rate: self.rate(), bucket, clock, mailboxes };
        let (sender, mailbox) = channel(self.limits.conversation_mailbox);
        self.starting.try_send((actor, mailbox)).ok()?;
        Some(Addr::new(sender))
    }

    /// One more of two people, if they may.
    fn take(&self, id: ConversationId, now_ms: u64) -> Result<(), Duration> {
        let (rate, mut taken) = (self.rate(), Ok(()));
        let full = || Active { held: Held::Bucket(Bucket::full(rate, now_ms)), used_ms: now_ms };
        self.active.alter(id, full, |active| {
            active.used_ms = now_ms;
            if let Held::Bucket(bucket) = &mut active.held {
                taken = bucket.take(rate, now_ms);
            }
            true
        });
        taken
    }

    /// Passes a command on to a group's actor, which is started where it does not run; what no actor takes comes back.
    fn pass(&self, shard: &Shard<Magpie>, entity: EntityId, message: Message, now_ms: u64) -> Option<Message> {
        let id = ConversationId::from_bits(entity.bits());
        let mut message = Some(message);
        let new = || Active { held: Held::Group(None), used_ms: now_ms };
        // In one look: of two that begin at once, in different loops, both must find the same actor.
        self.active.alter(id, new, |active| {
            active.used_ms = now_ms;
            let Held::Group(address) = &mut active.held else { return true };
            if !address.as_ref().is_some_and(Addr::connected) {
                *address = self.start(shard, entity, now_ms);
            }
            if let Some(address) = address
                && let Some(it) = message.take()
            {
                message = match address.try_send(it) {
                    Ok(()) => None,
                    Err(SendError::Full(it) | SendError::Closed(it)) => Some(it),
                };
            }
            address.is_some()
        });
        message
    }

    /// Stops those in which nothing was said for a while. Called every few seconds.
    pub fn sweep(&self) {
        let now = (self.clock)();
        self.keep(|active| now.saturating_sub(active.used_ms) <= self.limits.conversation_idle_ms);
    }

    /// Stops all.
    pub fn stop(&self) {
        self.keep(|_| false);
    }

    fn keep(&self, keep: impl Fn(&Active) -> bool) {
        self.active.retain(|_, active| {
            let keep = keep(active);
            if !keep {
                active.stop();
            }
            keep
        });
    }

    /// How many are active.
    pub fn len(&self) -> usize {
        self.active.len()
    }

    /// Whether none is active.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }
}

impl Front<Magpie> for Conversations {
    fn view(&self, query: &Query) -> Option<View> {
        match query {
            Query::Contact(contact::Query::Shake { user, latitude_e2, longitude_e2, enter }) => {
                let people = self.shakes.shake(*user, *latitude_e2, *longitude_e2, *enter, (self.clock)());
                Some(View::Contact(contact::View::Shaken(people)))
            }
            Query::Hooks(query) => self.receivers.view(query).map(View::Hooks),
            _ => None,
        }
    }

    fn takes(&self, query: &Query) -> bool {
        matches!(query, Query::Search(query) if search::query::takes_long(query))
    }

    fn answer(&self, shard: &Shard<Magpie>, query: Query, reply: Reply<View>) {
        match query {
            Query::Search(query) => self.search.answer(shard, query, reply),
            other => reply(shard.query(other)),
        }
    }

    fn submit(&self, shard: &Shard<Magpie>, entity: EntityId, command: Command, reply: Reply<Replied>) {
        if !matches!(command, Command::Chat(_)) {
            return shard.submit(entity, &command, reply);
        }
        let id = ConversationId::from_bits(entity.bits());
        let at_ms = (self.clock)();
        if id.kind() == Some(ConversationKind::Direct) {
            return match self.take(id, at_ms) {
                Ok(()) => shard.submit(entity, &command, reply),
                Err(wait) => turn_away(reply, wait),
            };
        }
        let left = self.pass(shard, entity, Message::Submit { command, reply, at_ms }, at_ms);
        if let Some(Message::Submit { reply, .. }) = left {
            reply(Err(AskError::Overloaded { retry_after_ms: 100 }));
        }
    }
}
