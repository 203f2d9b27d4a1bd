//! The end of an account: thirty days to change one's mind, and then nothing of it stays.

use std::collections::BTreeSet;

use bincode::{Decode, Encode};
use magpie_cluster::{
    EntityId, Key, Record, Store, Tx,
    state::{StateError, key::SHARD_SLOT},
};
use magpie_protocol::{Body, ConversationId, ErrorCode, TimelineId, UserId, WireError};

use super::{Devices, HandleRecord, List, handle_key, key, person, user};
use crate::{
    account, chat, contact,
    hooks::event::note,
    machine::{self, Outcome, Replied, table},
    media, personal, service,
};

/// How long an account that is to be deleted can still be kept, in milliseconds.
pub const CLOSING_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Accounts that one answer names.
const DUE_MAX: usize = 100;

/// The accounts of a shard that are to be deleted, and when.
#[derive(Clone, Default, Encode, Decode)]
struct Closing(Vec<(u64, UserId)>);
impl Record for Closing {
    fn heap_bytes(&self) -> usize {
        self.0.len() * 16
    }
}

fn closing_key() -> Key {
    Key::new(SHARD_SLOT, table::CLOSING)
}

fn set(tx: &mut Tx<'_>, me: UserId, at_ms: u64) {
    let mut person = (*person::of(tx, me)).clone();
    person.closing_ms = at_ms;
    person::put(tx, me, person);
    strike(tx, me, at_ms);
    tx.append(TimelineId::Inbox(me), me, Body::Closing(at_ms), 0, None);
}

fn strike(tx: &mut Tx<'_>, me: UserId, at_ms: u64) {
    let mut closing = (*tx.get::<Closing>(&closing_key()).unwrap_or_default()).clone();
    closing.0.retain(|(_, user)| *user != me);
    if at_ms > 0 {
        closing.0.push((at_ms, me));
    }
    tx.put(closing_key(), closing);
}

/// Deletes the account in thirty days and signs every device out.
pub(super) fn close(tx: &mut Tx<'_>, me: UserId) -> Replied {
    user(tx, me).ok_or_else(|| WireError::new(ErrorCode::NotFound))?;
    if person::of(tx, me).closing_ms == 0 {
        let at_ms = tx.time_ms() + CLOSING_MS;
        set(tx, me, at_ms);
    }
    let devices = tx.get::<Devices>(&key(me, table::DEVICES)).unwrap_or_default();
    for device in &devices.0 {
        super::sign_out(tx, me, device.device)?;
    }
    Ok(Outcome::Done)
}

/// Somebody signed in with the password: an account that was to be deleted stays, unless its time is over.
pub(super) fn keep(tx: &mut Tx<'_>, me: UserId) -> Result<(), WireError> {
    match person::of(tx, me).closing_ms {
        0 => Ok(()),
        at_ms if at_ms <= tx.time_ms() => Err(WireError::new(ErrorCode::BadCredentials)),
        _ => {
            set(tx, me, 0);
            Ok(())
        }
    }
}

/// Deletes the account, if its time has come.
pub(super) fn purge(tx: &mut Tx<'_>, me: UserId) -> Replied {
    let person = person::of(tx, me);
    let Some(user) = user(tx, me) else {
        erase_rest(tx, me);
        return Ok(Outcome::Done);
    };
    if person.closing_ms == 0 || person.closing_ms > tx.time_ms() {
        return Err(WireError::detail(ErrorCode::NotAllowed, "the account is not to be deleted yet"));
    }
    if !person.phone.is_empty() {
        let release = account::Command::ReleasePhone { phone: person.phone.clone(), user: me };
        tx.send(person::phone_entity(&person.phone), &machine::Command::Account(release));
    }
    let list = tx.get::<List>(&key(me, table::LIST)).unwrap_or_default();
    let listed = list.0.iter().map(|listed| listed.conversation);
    // A block stands in a conversation that need not be on the list.
    let blocked = contact::state::blocked(tx, me).into_iter().map(|other| ConversationId::direct(me, other));
    for conversation in listed.chain(blocked).collect::<BTreeSet<_>>() {
        let erase = machine::Command::Chat(chat::Command::Erase { user: me });
        tx.send(EntityId::conversation(conversation), &erase);
    }
    media::state::let_go(tx, person.profile.avatar.as_slice());
    contact::state::purge(tx, me);
    // The handle is free again, if it is still this person's.
    if tx.get::<HandleRecord>(&handle_key(&user.handle)).is_some_and(|holder| holder.user == me) {
        tx.delete(handle_key(&user.handle));
    }
    for table in [table::USER, table::DEVICES, table::LIST, table::PERSONAL] {
        tx.delete(key(me, table));
    }
    service::state::purge(tx, me);
    strike(tx, me, 0);
    tx.erase(TimelineId::Inbox(me));
    tx.note(TimelineId::Inbox(me), note::USER_DELETED);
    erase_rest(tx, me);
    Ok(Outcome::Done)
}

/// Erases what there may be much of, a part at a time: until nothing is left, the same is asked again.
fn erase_rest(tx: &mut Tx<'_>, me: UserId) {
    if media::state::forget(tx, me) | personal::state::purge(tx, me) {
        tx.send(EntityId::user(me), &machine::Command::Account(account::Command::Purge));
    }
}

pub(super) fn due(store: &mut Store, now_ms: u64) -> Result<Vec<UserId>, StateError> {
    let closing = store.get::<Closing>(&closing_key())?.unwrap_or_default();
    Ok(closing.0.iter().filter(|(at_ms, _)| *at_ms <= now_ms).map(|(_, user)| *user).take(DUE_MAX).collect())
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let mut all = vec![Golden::coded("record.account.closing", &Closing(vec![(5, UserId::from_bits(1 << 40))]))];
    all.extend(person::goldens());
    all
}

#[cfg(test)]
mod tests;
