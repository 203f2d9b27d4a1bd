//! What people keep for themselves, for devices.

use std::sync::Arc;

use magpie_cluster::EntityId;
use magpie_protocol::{
    Answer, Body, Entry, ErrorCode, Kind, RequestId, TimelineId, WireError,
    frame::{hello::Done, personal as wire},
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

fn own(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity, command: Command) {
    let command = machine::Command::Personal(command);
    shared.submit(EntityId::user(me.user), command, out, request, |_| Answer::Done(Done));
}

/// How a conversation is shown.
pub(crate) fn set_conversation(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::SetConversation,
) {
    own(shared, out, request, me, Command::SetConversation(body));
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
    own(shared, out, request, me, Command::Hide(body));
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
    tokio::spawn(async move {
        match said(&shared, me, &body).await {
            Ok(command) => own(&shared, &out, request, me, command),
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
    own(shared, out, request, me, Command::RemoveFavourite { id: body.id });
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
