//! Invitations: codes that an operator gives out, each good for so many accounts.

use bincode::{Decode, Encode};
use magpie_cluster::{Key as StateKey, Record, Store, Tx, state::StateError};
use magpie_protocol::{ErrorCode, UserId, WireError};
use xxhash_rust::xxh3::xxh3_64;

use super::state::keys_slot;
use crate::machine::{Outcome, Replied, table};

/// Invitations at a time.
pub const INVITATIONS_MAX: usize = 1_000;
/// Accounts that one invitation may be good for.
pub const USES_MAX: u32 = 1_000;

/// What the operator has given out.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Invitation {
    pub code: String,
    /// What it is for, for the operator.
    pub note: String,
    pub uses: u32,
    /// After this it is void, in milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
    pub created_ms: u64,
}

/// An invitation, and who came with it: the hash of the handle, and the account that was to be made.
#[derive(Clone, Encode, Decode)]
struct Held {
    invitation: Invitation,
    used_by: Vec<(u64, UserId)>,
}
impl Record for Held {
    fn heap_bytes(&self) -> usize {
        self.invitation.code.len() + self.invitation.note.len() + self.used_by.len() * 16
    }
}

/// The codes of all.
#[derive(Clone, Default, Encode, Decode)]
struct Codes(Vec<String>);
impl Record for Codes {
    fn heap_bytes(&self) -> usize {
        self.0.iter().map(|code| size_of::<String>() + code.len()).sum()
    }
}

fn codes_key() -> StateKey {
    StateKey::new(keys_slot(), table::INVITATIONS)
}

fn key(code: &str) -> StateKey {
    StateKey::new(keys_slot(), table::INVITATION).bytes(code.as_bytes())
}

fn none() -> WireError {
    WireError::field(ErrorCode::NotFound, "invitation", "there is none of this code")
}

/// Gives one out.
pub(super) fn add(tx: &mut Tx<'_>, invitation: Invitation) -> Replied {
    let mut codes = (*tx.get::<Codes>(&codes_key()).unwrap_or_default()).clone();
    if codes.0.contains(&invitation.code) {
        return Err(WireError::field(ErrorCode::AlreadyDone, "code", "there is an invitation of this code"));
    }
    // Those that are over make room.
    let now = tx.time_ms();
    codes.0.retain(|code| {
        let over = tx.get::<Held>(&key(code)).is_none_or(|held| is_over(&held, now));
        if over {
            tx.delete(key(code));
        }
        !over
    });
    if codes.0.len() >= INVITATIONS_MAX {
        return Err(WireError::field(ErrorCode::LimitReached, "invitations", "revoke some first").at(INVITATIONS_MAX));
    }
    codes.0.push(invitation.code.clone());
    tx.put(codes_key(), codes);
    tx.put(key(&invitation.code), Held { invitation: invitation.clone(), used_by: Vec::new() });
    Ok(Outcome::Done)
}

fn is_over(held: &Held, now_ms: u64) -> bool {
    held.invitation.expires_ms != 0 && held.invitation.expires_ms <= now_ms
}

/// Makes one void.
pub(super) fn revoke(tx: &mut Tx<'_>, code: &str) -> Replied {
    let mut codes = (*tx.get::<Codes>(&codes_key()).unwrap_or_default()).clone();
    let at = codes.0.iter().position(|known| known == code).ok_or_else(none)?;
    codes.0.remove(at);
    tx.put(codes_key(), codes);
    tx.delete(key(code));
    Ok(Outcome::Done)
}

/// Uses one up for this handle, once: of a retry the first counts.
pub(super) fn take(tx: &mut Tx<'_>, code: &str, handle: &str, user: UserId) -> Replied {
    let held = tx.get::<Held>(&key(code)).ok_or_else(none)?;
    let who = xxh3_64(handle.as_bytes());
    if held.used_by.iter().any(|(known, _)| *known == who) {
        return Ok(Outcome::Done);
    }
    if is_over(&held, tx.time_ms()) {
        return Err(WireError::field(ErrorCode::TooLate, "invitation", "it has ended"));
    }
    if held.used_by.len() >= held.invitation.uses as usize {
        let detail = "everybody whom it was for is here";
        return Err(WireError::field(ErrorCode::LimitReached, "invitation", detail).at(held.invitation.uses as usize));
    }
    let mut held = (*held).clone();
    held.used_by.push((who, user));
    tx.put(key(code), held);
    Ok(Outcome::Done)
}

/// Gives that use back, if it was this one's.
pub(super) fn give_back(tx: &mut Tx<'_>, code: &str, handle: &str, user: UserId) -> Replied {
    let mut held = (*tx.get::<Held>(&key(code)).ok_or_else(none)?).clone();
    held.used_by.retain(|used| *used != (xxh3_64(handle.as_bytes()), user));
    tx.put(key(code), held);
    Ok(Outcome::Done)
}

/// All of them, with how many accounts came with each.
pub(super) fn list(store: &mut Store) -> Result<Vec<(Invitation, u32)>, StateError> {
    let codes = store.get::<Codes>(&codes_key())?.unwrap_or_default();
    let mut all = Vec::new();
    for code in &codes.0 {
        if let Some(held) = store.get::<Held>(&key(code))? {
            all.push((held.invitation.clone(), held.used_by.len() as u32));
        }
    }
    Ok(all)
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let (code, note) = ("welcome".to_owned(), "for the choir".to_owned());
    let invitation = Invitation { code: code.clone(), note, uses: 3, expires_ms: 4, created_ms: 5 };
    vec![
        Golden::coded(
            "record.service.invitation",
            &Held { invitation, used_by: vec![(6, UserId::from_bits(1 << 40))] },
        ),
        Golden::coded("record.service.invitations", &Codes(vec![code])),
    ]
}
