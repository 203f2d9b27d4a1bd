//! Read cursors on their way. People read faster than is worth a write each: a person's first is written at once, and
//! those that follow are merged by maximum and written together, as often as the configuration says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use magpie_cluster::{AskError, EntityId};
use magpie_protocol::{
    Answer, ConversationId, ErrorCode, RequestId, UserId, WireError,
    frame::{conversation as wire, hello::Done},
};

use super::api::not_found;
use crate::{
    account, chat,
    machine::{Command, Outcome, Query, Replied, View, by_shard},
    node::Shared,
    registry::Registry,
    session::{
        Identity,
        outbound::{Outbound, ask_error},
    },
};

/// Who waits for a cursor to be written.
struct Waiter {
    conversation: ConversationId,
    out: Arc<Outbound>,
    request: RequestId,
}

/// What came since the last write.
#[derive(Default)]
struct Pending {
    reads: BTreeMap<ConversationId, u64>,
    waiting: Vec<Waiter>,
}

/// The cursors of the people of this node. Bounded by their devices' open requests.
#[derive(Default)]
pub(crate) struct Reading(Registry<UserId, Pending>);

impl Reading {
    /// Writes a cursor, now or with those that follow; the device is answered when it is durable.
    pub(crate) fn note(
        shared: &Arc<Shared>,
        me: UserId,
        (conversation, number): (ConversationId, u64),
        out: Arc<Outbound>,
        request: RequestId,
    ) {
        let waiter = Waiter { conversation, out, request };
        let mut first = false;
        let start = || {
            first = true;
            Pending::default()
        };
        shared.reading.0.alter(me, start, |pending| {
            let read = pending.reads.entry(conversation).or_default();
            *read = number.max(*read);
            pending.waiting.push(waiter);
            true
        });
        if first {
            tokio::spawn(write_all(shared.clone(), me));
        }
    }

    /// What is to be written; nothing when this person has been silent for a while, and is then forgotten.
    fn take(&self, me: UserId) -> Option<Pending> {
        let mut taken = None;
        self.0.alter(me, Pending::default, |pending| {
            let some = !pending.reads.is_empty();
            taken = some.then(|| std::mem::take(pending));
            some
        });
        taken
    }
}

/// Writes as long as something comes.
async fn write_all(shared: Arc<Shared>, me: UserId) {
    let every = Duration::from_millis(shared.config.limits.read_every_ms);
    while let Some(Pending { reads, waiting }) = shared.reading.take(me) {
        let command = account::Command::MarkAll { reads: reads.into_iter().collect() };
        let done = shared.router.ask(EntityId::user(me), Command::Account(command)).await;
        for waiter in waiting {
            waiter.out.answer(waiter.request, answer(&done, waiter.conversation));
        }
        tokio::time::sleep(every).await;
    }
}

/// How far the others have read, where the operator lets people know.
pub(crate) fn read_by(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: &wire::AskReadBy,
) {
    if !shared.config.policy.show_read {
        let detail = "this server tells nobody what others have read";
        let error = WireError::field(ErrorCode::NotAllowed, "read", detail);
        return out.answer(request, Answer::Refused(error));
    }
    let (router, conversation) = (shared.router.clone(), body.conversation);
    out.answer_with(request, async move {
        let members = chat::Query::Members { reader: me.user, conversation };
        let members = match router.query(conversation.slot(), Query::Chat(members)).await {
            Ok(View::Chat(chat::View::Members(Some(members)))) => members.members,
            Ok(View::Chat(_)) => return Err(WireError::field(ErrorCode::NotFound, "conversation", "")),
            Ok(_) => return Err(WireError::new(ErrorCode::Internal)),
            Err(error) => return Err(ask_error(&error)),
        };
        let others = members.into_iter().filter(|user| *user != me.user);
        let asked = by_shard(&router, others, |user| user.slot()).into_iter().map(async |(slot, users)| {
            let query = Query::Account(account::Query::ReadBy { users, conversation });
            match router.query(slot, query).await {
                Ok(View::Account(account::View::ReadBy(read))) => Ok(read),
                Ok(_) => Err(WireError::new(ErrorCode::Internal)),
                Err(error) => Err(ask_error(&error)),
            }
        });
        let read = join_all(asked).await.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        Ok(Answer::ReadBy(wire::ReadBy { read: read.map(|(user, number)| wire::ReadUpTo { user, number }).collect() }))
    });
}

fn answer(done: &Result<Replied, AskError>, conversation: ConversationId) -> Answer {
    match done {
        Ok(Ok(Outcome::Missing(missing))) if missing.contains(&conversation) => not_found("conversation"),
        Ok(Ok(_)) => Answer::Done(Done),
        Ok(Err(error)) => Answer::Refused(error.clone()),
        Err(error) => Answer::Refused(ask_error(error)),
    }
}
