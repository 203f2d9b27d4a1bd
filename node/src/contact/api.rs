//! Contacts for devices.

mod people;

pub(crate) use people::{find_code, find_phone, profiles, shake};

use std::sync::Arc;

use magpie_cluster::EntityId;
use magpie_protocol::{
    Answer, ConversationId, ErrorCode, RequestId, Slot, WireError,
    frame::{contact as wire, hello::Done},
    limits,
};

use super::{Query, View, command::Command};
use crate::{
    account, chat,
    machine::{self},
    node::Shared,
    session::{Identity, outbound::Outbound},
};

/// Contacts in one frame: each takes at most some 50 bytes.
const PAGE: usize = 500;

/// Who has this handle?
pub(crate) fn find(shared: &Shared, out: &Arc<Outbound>, request: RequestId, body: wire::Find) {
    let slot = account::state::slot_of(&body.handle);
    if body.handle.len() > limits::HANDLE_LEN_MAX
        || account::state::canonical(&body.handle).len() > limits::HANDLE_LEN_MAX
    {
        return out.answer(request, Answer::Refused(WireError::field(ErrorCode::NotFound, "handle", "")));
    }
    found(shared, out, request, slot, account::Query::Find(body.handle), "handle");
}

/// What is this person's handle?
pub(crate) fn who(shared: &Shared, out: &Arc<Outbound>, request: RequestId, body: &wire::Who) {
    found(shared, out, request, body.user.slot(), account::Query::Who(body.user), "user");
}

fn found(
    shared: &Shared,
    out: &Arc<Outbound>,
    request: RequestId,
    slot: Slot,
    query: account::Query,
    field: &'static str,
) {
    shared.read(slot, machine::Query::Account(query), out, request, |view| match view {
        machine::View::Account(account::View::Found(Some((user, handle)))) => {
            Some(Answer::Found(wire::Found { user, handle }))
        }
        machine::View::Account(account::View::Found(None)) => {
            Some(Answer::Refused(WireError::field(ErrorCode::NotFound, field, "")))
        }
        _ => None,
    });
}

/// Asks a person to be a contact.
pub(crate) fn request(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::RequestContact,
) {
    if body.greeting.len() > limits::GREETING_LEN_MAX {
        let detail = format!("{} bytes; at most {} are allowed", body.greeting.len(), limits::GREETING_LEN_MAX);
        let error = WireError::field(ErrorCode::TooLarge, "greeting", detail).at(limits::GREETING_LEN_MAX);
        return out.answer(request, Answer::Refused(error));
    }
    let texts = vec![("greeting", body.greeting.clone())];
    shared.once_shown(out, request, me, texts, move |shared, out| {
        shared.own(out, request, me, Command::Request { to: body.user, greeting: body.greeting });
    });
}

/// Accepts what a person asked.
pub(crate) fn accept(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: &wire::AcceptContact,
) {
    let command = machine::Command::Contact(Command::Accept { from: body.user });
    shared.submit(EntityId::user(me.user), command, out, request, |_| Answer::Done(Done));
}

/// A page of contacts.
pub(crate) fn contacts(shared: &Shared, out: &Arc<Outbound>, request: RequestId, me: Identity, body: &wire::Contacts) {
    let query = machine::Query::Contact(Query::After { user: me.user, after: body.after, limit: PAGE });
    shared.read(me.user.slot(), query, out, request, |view| match view {
        machine::View::Contact(View::Page { contacts, last }) => {
            Some(Answer::ContactList(wire::ContactList { contacts, last }))
        }
        _ => None,
    });
}

/// Does not accept what a person asked.
pub(crate) fn refuse(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: &wire::RefuseContact,
) {
    shared.own(out, request, me, Command::Refuse { from: body.user });
}

/// Changes what is kept of a contact.
pub(crate) fn set(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity, body: wire::SetContact) {
    let wire::SetContact { user, remark, tags, starred } = body;
    shared.own(out, request, me, Command::Set { user, remark, tags, starred });
}

/// Lets nothing of a person through, or again. The truth of it is in the direct conversation; the list follows.
pub(crate) fn block(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity, body: &wire::Block) {
    if body.user == me.user {
        return out.answer(request, Answer::Refused(WireError::field(ErrorCode::Invalid, "user", "that is you")));
    }
    let entity = EntityId::conversation(ConversationId::direct(me.user, body.user));
    let command = chat::Command::Block { by: me.user, other: body.user, on: body.on };
    shared.submit(entity, machine::Command::Chat(command), out, request, |_| Answer::Done(Done));
}

/// Takes a person off the contacts; the direct conversation follows.
pub(crate) fn delete(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: &wire::DeleteContact,
) {
    shared.own(out, request, me, Command::Remove { user: body.user });
}

/// A page of cards.
pub(crate) fn cards(shared: &Shared, out: &Arc<Outbound>, request: RequestId, me: Identity, body: &wire::Cards) {
    let query = machine::Query::Contact(Query::Cards { user: me.user, after: body.after });
    shared.read(me.user.slot(), query, out, request, |view| match view {
        machine::View::Contact(View::Cards { cards, last }) => Some(Answer::CardList(wire::CardList { cards, last })),
        _ => None,
    });
}
