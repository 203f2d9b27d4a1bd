//! Following timelines on behalf of a device: watch first, then heads.

use std::{collections::BTreeMap, future::Future};

use actix::{ActorFutureExt, AsyncContext, Context, fut::wrap_future};
use futures_util::{FutureExt, future::join_all};
use magpie_cluster::{AskError, priority};
use magpie_protocol::{
    Answer, ConversationId, RequestId, ShardId, TimelineId, UserId, WireError,
    frame::{
        hello::ClosingReason,
        sync::{Behind, Head, Heads},
    },
    limits::PAGE_HEADS_MAX,
};

use super::{SessionHandle, outbound::ask_error};
use crate::{
    account::{self, Listed},
    chat::{self, HeadView},
    machine::{Query, View},
};

/// Where the inbox of a person stands.
fn inbox_head(user: UserId, head: u64) -> Head {
    Head { timeline: TimelineId::Inbox(user), first: 1, head, read: 0 }
}

/// What is done with the heads, once they are there.
type Headed = Box<dyn FnOnce(&mut super::Actor, Result<Vec<Head>, WireError>)>;
/// What a shard answered.
type Viewed = Result<View, AskError>;

fn unavailable<T>(view: Viewed) -> Result<T, WireError> {
    Err(ask_error(&view.err().unwrap_or(AskError::Unavailable)))
}

impl super::Actor {
    /// Goes on with `then` when `work` is done: at once, where it has nothing to wait for.
    fn when<T: 'static>(
        &mut self,
        work: impl Future<Output = T> + 'static,
        context: &mut Context<Self>,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
    ) {
        // What comes of it inherits as well.
        let priority = priority::current();
        let then = move |actor: &mut Self, done, context: &mut Context<Self>| {
            priority::with(priority, || then(actor, done, context));
        };
        let mut work = Box::pin(priority::inherit(work));
        match work.as_mut().now_or_never() {
            Some(done) => then(self, done, context),
            None => {
                _ = context
                    .spawn(wrap_future::<_, Self>(work).map(move |done, actor, context| then(actor, done, context)))
            }
        }
    }

    /// Watches timelines of a shard and then reads.
    fn watch(
        &self,
        shard: ShardId,
        timelines: Vec<TimelineId>,
        query: Query,
    ) -> impl Future<Output = Viewed> + 'static {
        let router = self.shared.router.clone();
        async move { router.watch(shard, timelines, query).await }
    }

    /// Ends the session if its device was signed out. The inbox is watched from the sign-in on, whether or not the
    /// device asks for it: who stole a device need not ask for anything. Watch first, then look.
    pub(super) fn guard(&mut self, context: &mut Context<Self>) {
        let Some(session) = self.handle() else { return };
        let me = session.identity();
        let inbox = TimelineId::Inbox(me.user);
        self.shared.watches.enter(&mut self.watching, inbox, &session);
        let shard = self.shared.router.shard_id_of(inbox);
        let devices = self.watch(shard, vec![inbox], Query::Account(account::Query::Devices(me.user)));
        self.when(devices, context, move |actor, view, _| match view {
            Ok(View::Account(account::View::Devices(devices))) => {
                if !devices.iter().any(|device| device.device == me.device) {
                    actor.close(ClosingReason::SignedOut, 0);
                }
            }
            // The device comes back and is asked again.
            _ => actor.out.close(),
        });
    }

    /// Follows everything, and says where it stands.
    pub(super) fn sync(&mut self, request: RequestId, context: &mut Context<Self>) {
        self.synced = true;
        let answer = move |actor: &mut Self, heads: Result<Vec<Head>, WireError>| match heads {
            Ok(heads) => {
                let mut rest = heads.chunks(PAGE_HEADS_MAX).peekable();
                while let Some(chunk) = rest.next() {
                    let last = rest.peek().is_none();
                    let answer = Answer::Heads(Heads { heads: chunk.to_vec(), last });
                    if last {
                        actor.out.answer(request, answer);
                    } else {
                        actor.out.part(request, answer);
                    }
                }
            }
            Err(error) => actor.out.answer(request, Answer::Refused(error)),
        };
        self.follow_all(context, Box::new(answer));
    }

    /// Something of the inbox was missed: follow what is new, and say where everything stands.
    pub(super) fn relist(&mut self, context: &mut Context<Self>) {
        self.guard(context);
        if self.synced {
            self.follow_all(context, Box::new(Self::push_behind_or_close));
        }
    }

    fn follow_all(&mut self, context: &mut Context<Self>, headed: Headed) {
        let Some(session) = self.handle() else { return };
        let me = session.identity();
        let inbox = TimelineId::Inbox(me.user);
        self.shared.watches.enter(&mut self.watching, inbox, &session);
        let shard = self.shared.router.shard_id_of(inbox);
        let list = self.watch(shard, vec![inbox], Query::Account(account::Query::List(me.user)));
        self.when(list, context, move |actor, view, context| match view {
            Ok(View::Account(account::View::List { listed, inbox: head })) => {
                actor.shared.watches.grant(inbox, &session, 0);
                actor.follow_some(listed, vec![inbox_head(me.user, head)], context, headed);
            }
            other => headed(actor, unavailable(other)),
        });
    }

    /// Watches conversations, one request for all of a shard; their heads go behind `heads`.
    fn follow_some(&mut self, listed: Vec<Listed>, mut heads: Vec<Head>, context: &mut Context<Self>, headed: Headed) {
        let Some(session) = self.handle() else { return };
        let mut by_shard: BTreeMap<ShardId, Vec<Listed>> = BTreeMap::new();
        for listed in listed {
            let timeline = TimelineId::Conversation(listed.conversation);
            if listed.last == 0 {
                self.shared.watches.enter(&mut self.watching, timeline, &session);
            }
            by_shard.entry(self.shared.router.shard_id_of(timeline)).or_default().push(listed);
        }
        let asked = by_shard.into_iter().map(|(shard, listed)| {
            let timelines = listed.iter().map(|l| TimelineId::Conversation(l.conversation)).collect();
            let conversations = listed.iter().map(|l| l.conversation).collect();
            let query = Query::Chat(chat::Query::Heads { reader: session.identity().user, conversations });
            let view = self.watch(shard, timelines, query);
            async move { (listed, view.await) }
        });
        let asked = join_all(asked.collect::<Vec<_>>());
        self.when(asked, context, move |actor, answered, _| {
            for (listed, view) in answered {
                match view {
                    Ok(View::Chat(chat::View::Heads(views))) => {
                        for view in views {
                            actor.settle(&session, &view);
                            let read =
                                listed.iter().find(|l| l.conversation == view.conversation).map_or(0, |l| l.read);
                            heads.push(to_head(&view, read));
                        }
                    }
                    other => return headed(actor, unavailable(other)),
                }
            }
            headed(actor, Ok(heads));
        });
    }

    /// Grants or ends the watch of a conversation as its shard says.
    fn settle(&mut self, session: &SessionHandle, view: &HeadView) {
        let timeline = TimelineId::Conversation(view.conversation);
        if view.follows {
            self.shared.watches.grant(timeline, session, view.rights);
        } else {
            self.shared.watches.leave_one(&mut self.watching, timeline, session);
        }
    }

    /// The person is in this conversation from now on.
    pub(super) fn follow(&mut self, conversation: ConversationId, context: &mut Context<Self>) {
        let listed = Listed { conversation, first: 0, last: 0, read: 0 };
        self.follow_some(vec![listed], Vec::new(), context, Box::new(Self::push_behind_or_close));
    }

    /// The person is no longer in this conversation; what they may still read, the device pulls.
    pub(super) fn unfollow(&mut self, conversation: ConversationId, context: &mut Context<Self>) {
        self.tell_behind(vec![TimelineId::Conversation(conversation)], context);
    }

    /// Tells the device where these timelines stand, so that it pulls.
    pub(super) fn tell_behind(&mut self, timelines: Vec<TimelineId>, context: &mut Context<Self>) {
        let Some(session) = self.handle() else { return };
        let reader = session.identity().user;
        let mut by_shard: BTreeMap<ShardId, Vec<ConversationId>> = BTreeMap::new();
        for timeline in timelines {
            match timeline {
                // The inbox also says which conversations there are.
                TimelineId::Inbox(_) => return self.relist(context),
                TimelineId::Conversation(id) => {
                    by_shard.entry(self.shared.router.shard_id_of(timeline)).or_default().push(id);
                }
            }
        }
        let asked = by_shard.into_iter().map(|(shard, conversations)| {
            self.watch(shard, Vec::new(), Query::Chat(chat::Query::Heads { reader, conversations }))
        });
        let asked = join_all(asked.collect::<Vec<_>>());
        self.when(asked, context, move |actor, answered, _| {
            let mut heads = Vec::new();
            for view in answered {
                let Ok(View::Chat(chat::View::Heads(views))) = view else { return actor.out.close() };
                for view in views {
                    actor.settle(&session, &view);
                    heads.push(to_head(&view, 0));
                }
            }
            actor.push_behind(&heads);
        });
    }

    /// A device that cannot be told comes back and asks for everything.
    fn push_behind_or_close(&mut self, heads: Result<Vec<Head>, WireError>) {
        match heads {
            Ok(heads) => self.push_behind(&heads),
            Err(_) => self.out.close(),
        }
    }

    fn push_behind(&self, heads: &[Head]) {
        for chunk in heads.chunks(PAGE_HEADS_MAX) {
            self.out.push_answer(Answer::Behind(Behind { heads: chunk.to_vec() }));
        }
    }

    fn handle(&self) -> Option<SessionHandle> {
        match &self.state {
            super::State::SignedIn(handle) => Some(handle.clone()),
            _ => None,
        }
    }
}

fn to_head(view: &HeadView, read: u64) -> Head {
    Head { timeline: TimelineId::Conversation(view.conversation), first: view.first, head: view.head, read }
}
