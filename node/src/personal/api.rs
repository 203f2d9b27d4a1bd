//! What people keep for themselves, for devices.

use std::sync::Arc;

use magpie_cluster::priority;
use magpie_protocol::{
    Answer, Body, ConversationId, Entry, ErrorCode, Kind, RequestId, TimelineId, WireError, frame::personal as wire,
};

use super::{Command, Query, View};
use crate::{
    chat, machine,
    node::Shared,
    session::{
        Identity,
        outbound::{Outbound, ask_error},
    },
};

/// The newest entry of a conversation that this person may read: nobody sets anything for what is not there yet.
async fn head_of(shared: &Shared, me: Identity, conversation: ConversationId) -> Result<u64, WireError> {
    let query = chat::Query::Heads { reader: me.user, conversations: vec![conversation] };
    match shared.router.query(conversation.slot(), machine::Query::Chat(query)).await {
        Ok(machine::View::Chat(chat::View::Heads(heads))) => {
            heads.first().map(|head| head.head).ok_or_else(|| WireError::field(ErrorCode::NotFound, "conversation", ""))
        }
        Ok(_) => Err(WireError::new(ErrorCode::Internal)),
        Err(error) => Err(ask_error(&error)),
    }
}

/// Asks the person's shard once the conversation has been looked at.
fn after_head(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    conversation: ConversationId,
    command: impl FnOnce(u64) -> Command + Send + 'static,
) {
    let (shared, out) = (shared.clone(), out.clone());
    priority::spawn(async move {
        match head_of(&shared, me, conversation).await {
            Ok(head) => shared.own(&out, request, me, command(head)),
            Err(error) => out.answer(request, Answer::Refused(error)),
        }
    });
}

/// How a conversation is shown.
pub(crate) fn set_conversation(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    mut body: wire::SetConversation,
) {
    if body.hidden_at.is_none() {
        return shared.own(out, request, me, Command::SetConversation(body));
    }
    after_head(shared, out, request, me, body.conversation, move |head| {
        body.hidden_at = body.hidden_at.map(|number| number.min(head));
        Command::SetConversation(body)
    });
}

/// All conversations that are not shown as usual.
pub(crate) fn settings(shared: &Shared, out: &Arc<Outbound>, request: RequestId, me: Identity) {
    let query = machine::Query::Personal(Query::Settings(me.user));
    shared.read(me.user.slot(), query, out, request, |view| match view {
        machine::View::Personal(View::Settings(conversations)) => {
            Some(Answer::SettingsList(wire::SettingsList { conversations }))
        }
        _ => None,
    });
}

/// Deletes messages for oneself.
pub(crate) fn hide(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity, body: wire::Hide) {
    let mut body = body;
    after_head(shared, out, request, me, body.conversation, move |head| {
        body.up_to = body.up_to.min(head);
        body.numbers.retain(|number| *number <= head);
        Command::Hide(body)
    });
}

/// What this person may read of an entry: its sender and what it says, if it is a message.
async fn said(shared: &Shared, me: Identity, body: &wire::AddFavourite) -> Result<Command, WireError> {
    let not_found = || WireError::field(ErrorCode::NotFound, "number", "");
    let (conversation, number) = (body.conversation, body.number);
    let timeline = TimelineId::Conversation(conversation);
    let after = number.checked_sub(1).ok_or_else(not_found)?;
    let query = chat::Query::Pull { reader: me.user, timeline, after, limit: 1 };
    let page = match shared.router.query(conversation.slot(), machine::Query::Chat(query)).await {
        Ok(machine::View::Chat(chat::View::Page(page))) => page,
        Ok(_) => return Err(WireError::new(ErrorCode::Internal)),
        Err(error) => return Err(ask_error(&error)),
    };
    let page = page.ok_or_else(|| WireError::field(ErrorCode::NotFound, "conversation", ""))?;
    let entry = page.entries.first().and_then(|bytes| Entry::from_bytes(&bytes.0).ok());
    // A page begins later where one may not read from there.
    let entry = entry.filter(|entry| entry.number == number).ok_or_else(not_found)?;
    let kind = match entry.body {
        Body::Text(text) => Kind::Text(text),
        Body::Message(said) => said.message.kind,
        _ => return Err(not_found()),
    };
    Ok(Command::AddFavourite { conversation, number, sender: entry.sender, kind })
}

/// Keeps a message.
pub(crate) fn add_favourite(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::AddFavourite,
) {
    let (shared, out) = (shared.clone(), out.clone());
    priority::spawn(async move {
        match said(&shared, me, &body).await {
            Ok(command) => shared.own(&out, request, me, command),
            Err(error) => out.answer(request, Answer::Refused(error)),
        }
    });
}

/// No longer keeps a favourite.
pub(crate) fn remove_favourite(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: &wire::RemoveFavourite,
) {
    shared.own(out, request, me, Command::RemoveFavourite { id: body.id });
}

/// A page of favourites.
pub(crate) fn favourites(
    shared: &Shared,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: &wire::Favourites,
) {
    let query = machine::Query::Personal(Query::Favourites { user: me.user, before: body.before });
    shared.read(me.user.slot(), query, out, request, |view| match view {
        machine::View::Personal(View::Favourites { favourites, last }) => {
            Some(Answer::FavouriteList(wire::FavouriteList { favourites, last }))
        }
        _ => None,
    });
}
