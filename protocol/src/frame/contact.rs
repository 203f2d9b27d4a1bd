//! Finding people and becoming their contact.

use crate::codec::{Decode, Encode};

use super::account::Profile;
use crate::ids::UserId;

/// Who has this handle? Answer: [`Found`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Find {
    pub handle: String,
}

/// What is this person's handle? Answer: [`Found`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Who {
    pub user: UserId,
}

/// The person who was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Found {
    pub user: UserId,
    pub handle: String,
}

/// Asks a person to be a contact. Asking again changes nothing. Answer: `Done`, whether or not the person exists.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestContact {
    pub user: UserId,
    pub greeting: String,
}

/// Accepts a person's request. The direct conversation follows in the inbox. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AcceptContact {
    pub user: UserId,
}

/// Asks for one's contacts after `after`, in order of id. Answer: [`ContactList`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Contacts {
    pub after: UserId,
}

/// A page of contacts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContactList {
    pub contacts: Vec<ContactInfo>,
    /// No more follow.
    pub last: bool,
}

/// One person on a contact list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContactInfo {
    pub user: UserId,
    pub handle: String,
    pub state: ContactState,
}

/// How far two people have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ContactState {
    /// I asked.
    Requested,
    /// They asked.
    Waiting,
    /// Both agreed.
    Accepted,
}

/// All that a person knows of one contact.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContactCard {
    pub user: UserId,
    pub handle: String,
    /// `None` for somebody who is only blocked.
    pub state: Option<ContactState>,
    /// What this person calls them; empty for their own name.
    pub remark: String,
    pub tags: Vec<String>,
    pub starred: bool,
    pub blocked: bool,
    /// With a request that waits: what they wrote, and when it ends, in milliseconds since 1970.
    pub greeting: String,
    pub expires_ms: u64,
}

/// Does not accept a person's request. They are not told. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RefuseContact {
    pub user: UserId,
}

/// Changes what one keeps of a contact: what is `None` stays. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetContact {
    pub user: UserId,
    pub remark: Option<String>,
    pub tags: Option<Vec<String>>,
    pub starred: Option<bool>,
}

/// Lets nothing of a person through any more, or again. Answer: `Done`, when it holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Block {
    pub user: UserId,
    pub on: bool,
}

/// Takes a person off one's contacts: they can no longer write. Answer: `Done`, when it holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteContact {
    pub user: UserId,
}

/// Asks for the cards of contacts after `after`, in order of id. Answer: [`CardList`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cards {
    pub after: UserId,
}

/// A page of cards.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CardList {
    pub cards: Vec<ContactCard>,
    /// No more follow.
    pub last: bool,
}

/// Who has this phone number, and lets themselves be found by it? Answer: [`Found`].
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct FindPhone {
    /// With `+` and country code, digits only.
    pub phone: String,
}

// Phone numbers never reach a log.
impl std::fmt::Debug for FindPhone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FindPhone").finish_non_exhaustive()
    }
}

/// Whose code is this? Answer: [`Found`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FindCode {
    pub user: UserId,
    pub code: u64,
}

/// Shakes the device: who shakes near here at the same moment? Kept nowhere. Answer: [`Shaken`], after about two
/// seconds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Shake {
    /// Where, in whole hundredths of a degree (about a kilometre).
    pub latitude_e2: i32,
    pub longitude_e2: i32,
}

/// Who else shook.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Shaken {
    pub people: Vec<Found>,
}

/// Asks what people show of themselves. Answer: [`ProfileList`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Profiles {
    pub users: Vec<UserId>,
}

/// What those who exist show.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProfileList {
    pub profiles: Vec<Shown>,
}

/// What a person shows of themselves.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Shown {
    pub user: UserId,
    pub handle: String,
    pub profile: Profile,
}
