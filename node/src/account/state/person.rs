//! What a person shows of themselves, who finds them, and by what.

use std::sync::Arc;

use bincode::{Decode, Encode};
use magpie_cluster::{EntityId, Key, Record, Store, Tx, state::StateError};
use magpie_protocol::{
    BlobId, Body, ErrorCode, Slot, TimelineId, UserId, WireError,
    frame::{
        account::{Account, Profile, SetPrivacy, SetProfile},
        contact::Shown,
    },
    limits,
};

use super::{User, key, user};
use crate::{
    account,
    chat::check,
    machine::{self, Outcome, Replied, table},
    media,
};

/// What a person set of their account. One who set nothing has no record.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Person {
    pub profile: Profile,
    pub phone: String,
    pub by_phone: bool,
    pub by_handle: bool,
    pub show_typing: bool,
    pub show_online: bool,
    /// The code to be found by; 0 before the first.
    pub code: u64,
    /// When the account is deleted, in milliseconds since 1970; 0 when it is not.
    pub closing_ms: u64,
}

impl Default for Person {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            phone: String::new(),
            by_phone: false,
            by_handle: true,
            show_typing: true,
            show_online: false,
            code: 0,
            closing_ms: 0,
        }
    }
}

impl Record for Person {
    fn heap_bytes(&self) -> usize {
        let profile = &self.profile;
        128 + self.phone.len() + profile.nickname.len() + profile.region.len() + profile.signature.len()
    }
}

/// The kind of entity that phone numbers are.
const PHONE_KIND: u8 = 4;

/// Who has a phone number.
#[derive(Clone, Encode, Decode)]
struct PhoneRecord {
    user: UserId,
    findable: bool,
}
impl Record for PhoneRecord {}

/// The slot of a phone number.
pub fn phone_slot(phone: &str) -> Slot {
    Slot::of_text(phone)
}

/// The phone numbers of a slot, as an entity.
pub fn phone_entity(phone: &str) -> EntityId {
    EntityId::new(PHONE_KIND, u128::from(phone_slot(phone).get()) << 116)
}

fn phone_key(phone: &str) -> Key {
    Key::new(phone_slot(phone), table::PHONE).bytes(phone.as_bytes())
}

/// What this person set.
pub fn of(tx: &mut Tx<'_>, me: UserId) -> Arc<Person> {
    tx.get(&key(me, table::PERSONAL)).unwrap_or_default()
}

/// Changes it.
pub fn put(tx: &mut Tx<'_>, me: UserId, person: Person) {
    tx.put(key(me, table::PERSONAL), person);
}

/// Whether this person shows the blob as their picture.
pub fn shows(store: &mut Store, who: UserId, blob: BlobId) -> Result<bool, StateError> {
    let person = store.get::<Person>(&key(who, table::PERSONAL))?;
    Ok(person.is_some_and(|person| person.profile.avatar.as_ref().is_some_and(|avatar| avatar.blob == blob)))
}

fn known(tx: &mut Tx<'_>, me: UserId) -> Result<Person, WireError> {
    user(tx, me).ok_or_else(|| WireError::new(ErrorCode::NotFound))?;
    Ok((*of(tx, me)).clone())
}

pub(super) fn set_profile(tx: &mut Tx<'_>, me: UserId, set: SetProfile) -> Replied {
    let mut person = known(tx, me)?;
    let profile = &mut person.profile;
    let before = profile.clone();
    if let Some(nickname) = set.nickname {
        check::at_most("nickname", &nickname, limits::NICKNAME_LEN_MAX)?;
        profile.nickname = nickname;
    }
    if let Some(region) = set.region {
        check::at_most("region", &region, limits::NICKNAME_LEN_MAX)?;
        profile.region = region;
    }
    if let Some(signature) = set.signature {
        check::at_most("signature", &signature, limits::LINE_LEN_MAX)?;
        profile.signature = signature;
    }
    if let Some(avatar) = set.avatar {
        if let Some(avatar) = &avatar {
            check::at_most("media_type", &avatar.media_type, limits::LINE_LEN_MAX)?;
        }
        profile.avatar = avatar;
    }
    let profile = profile.clone();
    if profile.avatar != before.avatar {
        media::state::claim(tx, me, profile.avatar.as_slice());
        media::state::release(tx, me, before.avatar.as_slice());
    }
    if profile != before {
        put(tx, me, person);
        tx.append(TimelineId::Inbox(me), me, Body::ProfileSet(profile), 0, None);
    }
    Ok(Outcome::Done)
}

pub(super) fn set_privacy(tx: &mut Tx<'_>, me: UserId, set: &SetPrivacy) -> Replied {
    let mut person = known(tx, me)?;
    person.by_handle = set.by_handle.unwrap_or(person.by_handle);
    person.show_typing = set.show_typing.unwrap_or(person.show_typing);
    person.show_online = set.show_online.unwrap_or(person.show_online);
    if let Some(on) = set.by_phone.filter(|on| *on != person.by_phone) {
        person.by_phone = on;
        if !person.phone.is_empty() {
            let phone = person.phone.clone();
            let entity = phone_entity(&phone);
            send(tx, entity, account::Command::PhoneFindable { phone, user: me, on });
        }
    }
    put(tx, me, person);
    Ok(Outcome::Done)
}

fn send(tx: &mut Tx<'_>, to: EntityId, command: account::Command) {
    tx.send(to, &machine::Command::Account(command));
}

/// The number is this person's by now: the node claimed it first. The one before is given back.
pub(super) fn set_phone(tx: &mut Tx<'_>, me: UserId, phone: String) -> Replied {
    let mut person = known(tx, me)?;
    if person.phone == phone {
        return Ok(Outcome::Done);
    }
    let old = std::mem::replace(&mut person.phone, phone.clone());
    let on = person.by_phone;
    put(tx, me, person);
    if !old.is_empty() {
        let entity = phone_entity(&old);
        send(tx, entity, account::Command::ReleasePhone { phone: old, user: me });
    }
    if !phone.is_empty() {
        // The claim may have seen an older wish.
        let entity = phone_entity(&phone);
        send(tx, entity, account::Command::PhoneFindable { phone, user: me, on });
    }
    Ok(Outcome::Done)
}

pub(super) fn claim_phone(tx: &mut Tx<'_>, phone: &str, user: UserId, findable: bool) -> Replied {
    match tx.get::<PhoneRecord>(&phone_key(phone)) {
        Some(held) if held.user != user => {
            Err(WireError::field(ErrorCode::HandleTaken, "phone", "belongs to another account"))
        }
        Some(_) => Ok(Outcome::Done),
        None => {
            tx.put(phone_key(phone), PhoneRecord { user, findable });
            Ok(Outcome::Done)
        }
    }
}

pub(super) fn release_phone(tx: &mut Tx<'_>, phone: &str, user: UserId) -> Replied {
    if tx.get::<PhoneRecord>(&phone_key(phone)).is_some_and(|held| held.user == user) {
        tx.delete(phone_key(phone));
    }
    Ok(Outcome::Done)
}

pub(super) fn phone_findable(tx: &mut Tx<'_>, phone: &str, user: UserId, on: bool) -> Replied {
    if tx.get::<PhoneRecord>(&phone_key(phone)).is_some_and(|held| held.user == user) {
        tx.put(phone_key(phone), PhoneRecord { user, findable: on });
    }
    Ok(Outcome::Done)
}

pub(super) fn new_code(tx: &mut Tx<'_>, me: UserId, code: u64) -> Replied {
    let mut person = known(tx, me)?;
    person.code = code;
    put(tx, me, person);
    Ok(Outcome::Done)
}

fn person(store: &mut Store, user: UserId) -> Result<Arc<Person>, StateError> {
    Ok(store.get::<Person>(&key(user, table::PERSONAL))?.unwrap_or_default())
}

pub(super) fn is_found_by_handle(store: &mut Store, user: UserId) -> Result<bool, StateError> {
    Ok(person(store, user)?.by_handle)
}

pub(super) fn account(store: &mut Store, user: UserId) -> Result<Option<Account>, StateError> {
    let Some(found) = store.get::<User>(&key(user, table::USER))? else { return Ok(None) };
    let person = (*person(store, user)?).clone();
    Ok(Some(Account {
        handle: found.handle.clone(),
        profile: person.profile,
        phone: person.phone,
        by_phone: person.by_phone,
        by_handle: person.by_handle,
        show_typing: person.show_typing,
        show_online: person.show_online,
        code: person.code,
        closing_ms: person.closing_ms,
    }))
}

pub(crate) fn shown(store: &mut Store, user: UserId) -> Result<Option<Shown>, StateError> {
    let Some(found) = store.get::<User>(&key(user, table::USER))? else { return Ok(None) };
    let profile = person(store, user)?.profile.clone();
    Ok(Some(Shown { user, handle: found.handle.clone(), profile }))
}

pub(super) fn by_phone(store: &mut Store, phone: &str) -> Result<Option<UserId>, StateError> {
    let held = store.get::<PhoneRecord>(&phone_key(phone))?;
    Ok(held.filter(|held| held.findable).map(|held| held.user))
}

pub(super) fn by_code(store: &mut Store, user: UserId, code: u64) -> Result<Option<UserId>, StateError> {
    let theirs = person(store, user)?.code;
    Ok((code > 0 && theirs == code).then_some(user))
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let held = PhoneRecord { user: UserId::from_bits(1 << 40), findable: true };
    vec![Golden::coded("record.account.person", &Person::default()), Golden::coded("record.account.phone", &held)]
}
