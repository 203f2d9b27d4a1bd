//! Contacts for devices.

use std::sync::Arc;

use magpie_cluster::EntityId;
use magpie_protocol::{
    Answer, ErrorCode, RequestId, Slot, WireError,
    frame::{contact as wire, hello::Done},
    limits,
};

use super::{Query, View, command::Command};
use crate::{
    account,
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
    let command = machine::Command::Contact(Command::Request { to: body.user, greeting: body.greeting });
    shared.submit(EntityId::user(me.user), command, out, request, |_| Answer::Done(Done));
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
