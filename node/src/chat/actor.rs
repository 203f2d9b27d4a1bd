//! What is volatile about conversations: an actor for each active one, on its shard's leader, through which its
//! commands pass on their way to the open batch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::{
    ActorContext, Addr, Context, Handler, Message as ActixMessage,
    dev::channel::{AddressReceiver, channel},
    prelude::SendError,
};
use magpie_cluster::{AskError, EntityId, Reply, Shard, router::Front};
use magpie_protocol::ConversationId;
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

/// What a conversation actor is told.
#[derive(ActixMessage)]
#[rtype(result = "()")]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one: a box would be an allocation each")]
pub enum Message {
    /// Pass this on, which was put here at this time.
    Submit { command: Command, reply: Reply<Replied>, at_ms: u64 },
    /// Nothing was said for a while.
    Stop,
}

/// An active conversation.
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
                    Err(wait) => {
                        limits::limited("conversation");
                        reply(Err(AskError::Overloaded { retry_after_ms: wait.as_millis().max(1) as u32 }));
                    }
                }
            }
            Message::Stop => context.stop(),
        }
    }
}

#[derive(Clone)]
struct Active {
    address: Addr<Actor>,
    used_ms: Arc<AtomicU64>,
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

    /// The mailbox takes messages at once, in order, before the actor runs. `None` where too many wait to be started.
    fn start(&self, shard: &Shard<Magpie>, entity: EntityId, now_ms: u64) -> Option<Active> {
        let rate = Rate { per_second: self.limits.conversation_rate, burst: self.limits.conversation_burst };
        let bucket = Bucket::full(rate, now_ms);
        let (shard, clock, mailboxes) = (shard.clone(), self.clock.clone(), self.mailboxes.clone());
        let actor = Actor { entity, shard, rate, bucket, clock, mailboxes };
        let (sender, mailbox) = channel(self.limits.conversation_mailbox);
        self.starting.try_send((actor, mailbox)).ok()?;
        Some(Active { address: Addr::new(sender), used_ms: Arc::new(AtomicU64::new(now_ms)) })
    }

    /// Stops those in which nothing was said for a while. Called every few seconds.
    pub fn sweep(&self) {
        let now = (self.clock)();
        self.active.retain(|_, active| {
            let idle = now.saturating_sub(active.used_ms.load(Ordering::Relaxed)) > self.limits.conversation_idle_ms;
            if idle {
                #[expect(clippy::disallowed_methods, reason = "a stop message")]
                active.address.do_send(Message::Stop);
            }
            !idle
        });
    }

    /// Stops all.
    pub fn stop(&self) {
        self.active.retain(|_, active| {
            #[expect(clippy::disallowed_methods, reason = "a stop message")]
            active.address.do_send(Message::Stop);
            false
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
        let now = (self.clock)();
        let mut message = Some(Message::Submit { command, reply, at_ms: now });
        let refuse = |message| {
            if let Message::Submit { reply, .. } = message {
                reply(Err(AskError::Overloaded { retry_after_ms: 100 }));
            }
        };
        let mut pass = |active: &Active| {
            let Some(message) = message.take() else { return };
            active.used_ms.store(now, Ordering::Relaxed);
            if let Err(SendError::Full(message) | SendError::Closed(message)) = active.address.try_send(message) {
                refuse(message);
            }
        };
        let passed = self.active.look(&id, |active| active.address.connected().then(|| pass(active)));
        if passed.flatten().is_some() {
            return;
        }
        match self.start(shard, entity, now) {
            Some(active) => {
                pass(&active);
                self.active.insert(id, active);
            }
            None => message.into_iter().for_each(refuse),
        }
    }
}
