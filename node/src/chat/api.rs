//! Conversations for devices.

use std::sync::Arc;

use futures_util::future::join_all;
use magpie_cluster::{EntityId, Signal, priority};
use magpie_protocol::{
    Answer, ConversationId, ErrorCode, RequestId, TimelineId, UserId, WireError,
    frame::{conversation as wire, hello::Done, sync},
    limits,
};

use super::{
    Query, View,
    command::{Command, Judged, Post},
    reading::Reading,
    state,
};
use crate::{
    account, contact,
    hooks::before::Verdict,
    machine::{self, Outcome, by_shard},
    node::Shared,
    session::{
        Identity,
        outbound::{Outbound, ask_error},
    },
};

/// Signals up to this one say that somebody types, or no longer.
const TYPING_MAX: u16 = 2;

pub(super) fn not_found(field: &str) -> Answer {
    Answer::Refused(WireError::field(ErrorCode::NotFound, field, ""))
}

/// One numbered act in a conversation.
pub(crate) fn post(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity, post: wire::Post) {
    if let wire::Content::Unknown(tag) = post.content {
        let detail = format!("kind {tag} is not known to this node");
        return out.answer(request, Answer::Refused(WireError::field(ErrorCode::Invalid, "content", detail)));
    }
    let before = &shared.hooks.before;
    if !before.waits() && !matches!(post.content, wire::Content::Invite(_)) {
        let verdict = before.look(&post.content);
        return submit(shared, out, request, me, post, verdict);
    }
    // Verdicts may overtake each other, posts may not.
    let (shared, out) = (shared.clone(), out.clone());
    let (done, earlier) = out.take_turn();
    priority::spawn(async move {
        let verdict = match post.content {
            wire::Content::Invite(user) => match unwilling(&shared, me, "user", vec![user]).await {
                Ok(()) => Verdict::Allowed,
                Err(error) if error.code == ErrorCode::NotContacts => Verdict::Refused(error),
                // It is not known: nothing is done, and the device asks again.
                Err(error) => return out.answer(request, Answer::Refused(error)),
            },
            _ => shared.hooks.before.ask(me, &post).await,
        };
        if let Some(earlier) = earlier {
            _ = earlier.await;
        }
        submit(&shared, &out, request, me, post, verdict);
        drop(done);
    });
}

fn submit(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    post: wire::Post,
    verdict: Verdict,
) {
    let Identity { user, device, epoch } = me;
    let wire::Post { conversation, incarnation, number, content } = post;
    let judged = |content: &wire::Content, verdict| {
        let hash = state::hash_of(content);
        Command::Judged(Judged { user, device, epoch, incarnation, number, hash, verdict })
    };
    let command = match verdict {
        Verdict::Allowed => Command::Post(Post { user, device, epoch, incarnation, number, content }),
        Verdict::Masked(masked) => judged(&content, Ok(*masked)),
        Verdict::Refused(error) => judged(&content, Err(error)),
    };
    let entity = EntityId::conversation(conversation);
    shared.submit(entity, machine::Command::Chat(command), out, request, move |outcome| match outcome {
        Outcome::Posted { number, time_ms } => Answer::Posted(wire::Posted { conversation, number, time_ms }),
        _ => Answer::Refused(WireError::new(ErrorCode::Internal)),
    });
}

/// Whether one of these people does not let this one take them into a group. Their own shards decide it when they are to
/// have it on their list; this is said before there is anything to undo.
async fn unwilling(shared: &Shared, me: Identity, field: &'static str, users: Vec<UserId>) -> Result<(), WireError> {
    let now_ms = (shared.clock)();
    let others = users.into_iter().filter(|user| *user != me.user);
    let asked = by_shard(&shared.router, others, |user| user.slot()).into_iter().map(async |(slot, users)| {
        let query = contact::Query::Unwilling { users, by: me.user, now_ms };
        match shared.router.query(slot, machine::Query::Contact(query)).await {
            Ok(machine::View::Contact(contact::View::Unwilling(found))) => Ok(found),
            Ok(_) => Err(WireError::new(ErrorCode::Internal)),
            Err(error) => Err(ask_error(&error)),
        }
    });
    let found = join_all(asked).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    match found.into_iter().flatten().next() {
        Some(user) => Err(WireError::field(ErrorCode::NotContacts, field, format!("{user} is no contact of yours"))),
        None => Ok(()),
    }
}

/// Makes a group.
pub(crate) fn create_group(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    create: wire::CreateGroup,
) {
    if create.members.len() > limits::CREATE_MEMBERS_MAX {
        let detail = format!("{} are named; at most {} are allowed", create.members.len(), limits::CREATE_MEMBERS_MAX);
        let error = WireError::field(ErrorCode::TooLarge, "members", detail).at(limits::CREATE_MEMBERS_MAX);
        return out.answer(request, Answer::Refused(error));
    }
    let texts = vec![("title", create.title.clone())];
    shared.once_shown(out, request, me, texts, move |shared, out| {
        let (shared, out) = (shared.clone(), out.clone());
        priority::spawn(async move { create_if_willing(&shared, &out, request, me, create).await });
    });
}

async fn create_if_willing(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    create: wire::CreateGroup,
) {
    let id = ConversationId::group(me.user, create.nonce);
    // One that is made already is that of a retry, whoever is whose contact by now.
    let heads = Query::Heads { reader: me.user, conversations: vec![id] };
    let made = match shared.router.query(id.slot(), machine::Query::Chat(heads)).await {
        Ok(machine::View::Chat(View::Heads(heads))) => Ok(!heads.is_empty()),
        Ok(_) => Err(WireError::new(ErrorCode::Internal)),
        Err(error) => Err(ask_error(&error)),
    };
    let willing = match made {
        Ok(false) => unwilling(shared, me, "members", create.members.clone()).await,
        made => made.map(|_| ()),
    };
    if let Err(error) = willing {
        return out.answer(request, Answer::Refused(error));
    }
    let command = Command::CreateGroup { creator: me.user, title: create.title, members: create.members };
    let entity = EntityId::conversation(id);
    shared.submit(entity, machine::Command::Chat(command), out, request, |outcome| match outcome {
        Outcome::Created(conversation) => Answer::GroupCreated(wire::GroupCreated { conversation }),
        _ => Answer::Refused(WireError::new(ErrorCode::Internal)),
    });
}

/// The members of a conversation, for one of them.
pub(crate) fn members(shared: &Shared, out: &Arc<Outbound>, request: RequestId, me: Identity, body: &wire::Members) {
    let query = machine::Query::Chat(Query::Members { reader: me.user, conversation: body.conversation });
    shared.read(body.conversation.slot(), query, out, request, |view| match view {
        machine::View::Chat(View::Members(Some(members))) => Some(Answer::MemberList(wire::MemberList {
            title: members.title,
            owner: members.owner,
            members: members.members,
        })),
        machine::View::Chat(View::Members(None)) => Some(not_found("conversation")),
        _ => None,
    });
}

/// A page of a timeline.
pub(crate) fn pull(shared: &Shared, out: &Arc<Outbound>, request: RequestId, me: Identity, pull: &sync::Pull) {
    let timeline: TimelineId = pull.timeline;
    let query = Query::Pull { reader: me.user, timeline, after: pull.after, limit: pull.limit };
    shared.read(timeline.slot(), machine::Query::Chat(query), out, request, move |view| match view {
        machine::View::Chat(View::Page(Some(page))) => {
            Some(Answer::Page(sync::Page { timeline, first: page.first, head: page.head, entries: page.entries }))
        }
        machine::View::Chat(View::Page(None)) => Some(not_found("timeline")),
        _ => None,
    });
}

/// The person has read up to here.
pub(crate) fn mark_read(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: &sync::MarkRead,
) {
    // Nobody has read what is not there: a cursor beyond the head would hide what comes.
    let query = Query::Heads { reader: me.user, conversations: vec![body.conversation] };
    let (shared, out, conversation, number) = (shared.clone(), out.clone(), body.conversation, body.number);
    priority::spawn(async move {
        let head = match shared.router.query(conversation.slot(), machine::Query::Chat(query)).await {
            Ok(machine::View::Chat(View::Heads(heads))) => heads.first().map(|head| head.head),
            Ok(_) => None,
            Err(error) => return out.answer(request, Answer::Refused(ask_error(&error))),
        };
        let Some(head) = head else { return out.answer(request, not_found("conversation")) };
        Reading::note(&shared, me.user, (conversation, number.min(head)), out, request);
    });
}

/// Joins a group by its code.
pub(crate) fn join(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity, body: &wire::Join) {
    let command = machine::Command::Chat(Command::Join { user: me.user, code: body.code });
    let entity = EntityId::conversation(body.conversation);
    shared.submit(entity, command, out, request, |outcome| match outcome {
        Outcome::Joining { joined } => Answer::Joining(wire::Joining { joined }),
        _ => Answer::Refused(WireError::new(ErrorCode::Internal)),
    });
}

/// How a group is run, for one of its members.
pub(crate) fn group(shared: &Shared, out: &Arc<Outbound>, request: RequestId, me: Identity, body: &wire::AskGroup) {
    let query = machine::Query::Chat(Query::Group { reader: me.user, conversation: body.conversation });
    shared.read(body.conversation.slot(), query, out, request, |view| match view {
        machine::View::Chat(View::Group(Some(group))) => Some(Answer::GroupInfo(group)),
        machine::View::Chat(View::Group(None)) => Some(not_found("conversation")),
        _ => None,
    });
}

/// Something passing. Only who follows the conversation is heard in it.
pub(crate) fn signal(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity, body: &wire::Signal) {
    let timeline = TimelineId::Conversation(body.conversation);
    if !shared.watches.is_granted(timeline, me) {
        return out.answer(request, not_found("conversation"));
    }
    let (shared, kind, conversation) = (shared.clone(), body.kind, body.conversation);
    priority::spawn(async move {
        // Who may not write is not heard typing either.
        let may = Query::MayWrite { user: me.user, conversation, now_ms: (shared.clock)() };
        let may = shared.router.query(conversation.slot(), machine::Query::Chat(may)).await;
        let may = matches!(may, Ok(machine::View::Chat(View::MayWrite(true))));
        if may && (kind > TYPING_MAX || account::api::shows_typing(&shared, me.user).await) {
            _ = shared.router.signal(Signal { timeline, user: me.user, kind }).await;
        }
    });
    // It may be lost from here on.
    out.answer(request, Answer::Done(Done));
}
