//! One's own account, and other people.

use magpie_client::{self as sdk, DeviceId, UserId};

use crate::BlobRef;

/// A person who was found.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Found {
    /// Who.
    pub user: UserId,
    /// Their handle.
    pub handle: String,
}

/// What a person shows of themselves.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Profile {
    /// The name that others see; empty for the handle.
    pub nickname: String,
    /// Their picture: `download_avatar` fetches it.
    pub avatar: Option<BlobRef>,
    /// Where they are from.
    pub region: String,
    /// A line about themselves.
    pub signature: String,
}

/// Somebody, and what they show.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Person {
    /// Who.
    pub user: UserId,
    /// Their handle.
    pub handle: String,
    /// What they show.
    pub profile: Profile,
}

/// A change of one's profile: what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct ProfileChange {
    /// The name that others see; empty for the handle.
    #[uniffi(default = None)]
    pub nickname: Option<String>,
    /// What `upload` returned.
    #[uniffi(default = None)]
    pub avatar: Option<BlobRef>,
    /// Takes the picture away.
    #[uniffi(default = false)]
    pub no_avatar: bool,
    /// Where one is from.
    #[uniffi(default = None)]
    pub region: Option<String>,
    /// A line about oneself.
    #[uniffi(default = None)]
    pub signature: Option<String>,
}

/// A change of who finds this person, and of what others see them do: what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct PrivacyChange {
    /// Whoever knows the phone number finds this person.
    #[uniffi(default = None)]
    pub by_phone: Option<bool>,
    /// Whoever knows the handle finds this person.
    #[uniffi(default = None)]
    pub by_handle: Option<bool>,
    /// Others see that this person types.
    #[uniffi(default = None)]
    pub show_typing: Option<bool>,
    /// Others see that this person is online.
    #[uniffi(default = None)]
    pub show_online: Option<bool>,
}

/// What only oneself sees of one's account.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Account {
    /// The handle.
    pub handle: String,
    /// What others see.
    pub profile: Profile,
    /// The phone number, as `+` and digits; empty for none.
    pub phone: String,
    /// Whoever knows the phone number finds this person.
    pub by_phone: bool,
    /// Whoever knows the handle finds this person.
    pub by_handle: bool,
    /// Others see that this person types.
    pub show_typing: bool,
    /// Others see that this person is online.
    pub show_online: bool,
    /// When the account will be deleted, in milliseconds since 1970; 0 when it will not.
    pub closing_ms: u64,
}

/// One device that is signed in.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Device {
    /// Which.
    pub device: DeviceId,
    /// What it is called.
    pub name: String,
    /// When its newest session began, in milliseconds since 1970.
    pub last_seen_ms: u64,
}

/// How far two people have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum ContactState {
    /// I asked.
    Requested,
    /// They asked.
    Waiting,
    /// Both agreed.
    Accepted,
}

/// All that a person knows of one contact.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ContactCard {
    /// Who.
    pub user: UserId,
    /// Their handle.
    pub handle: String,
    /// None for somebody who is only blocked.
    pub state: Option<ContactState>,
    /// What this person calls them; empty for their own name.
    pub remark: String,
    /// Words to find them by.
    pub tags: Vec<String>,
    /// Above the others.
    pub starred: bool,
    /// Nothing of theirs comes through.
    pub blocked: bool,
    /// With a request that waits, what they wrote.
    pub greeting: String,
    /// With a request that waits, when it ends, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// A change of what one keeps of a contact: what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct ContactChange {
    /// What one calls them; empty for their own name.
    #[uniffi(default = None)]
    pub remark: Option<String>,
    /// Words to find them by.
    #[uniffi(default = None)]
    pub tags: Option<Vec<String>>,
    /// Above the others.
    #[uniffi(default = None)]
    pub starred: Option<bool>,
}

impl From<sdk::Found> for Found {
    fn from(sdk::Found { user, handle }: sdk::Found) -> Self {
        Self { user, handle }
    }
}

impl From<sdk::Profile> for Profile {
    fn from(sdk::Profile { nickname, avatar, region, signature }: sdk::Profile) -> Self {
        Self { nickname, avatar: avatar.map(BlobRef::from), region, signature }
    }
}

impl From<sdk::Shown> for Person {
    fn from(sdk::Shown { user, handle, profile }: sdk::Shown) -> Self {
        Self { user, handle, profile: profile.into() }
    }
}

impl From<ProfileChange> for sdk::SetProfile {
    fn from(ProfileChange { nickname, avatar, no_avatar, region, signature }: ProfileChange) -> Self {
        let avatar = if no_avatar { Some(None) } else { avatar.map(|blob| Some(blob.into())) };
        Self { nickname, avatar, region, signature }
    }
}

impl From<PrivacyChange> for sdk::SetPrivacy {
    fn from(PrivacyChange { by_phone, by_handle, show_typing, show_online }: PrivacyChange) -> Self {
        Self { by_phone, by_handle, show_typing, show_online }
    }
}

impl From<sdk::Account> for Account {
    fn from(account: sdk::Account) -> Self {
        let sdk::Account { handle, profile, phone, by_phone, by_handle, show_typing, show_online, closing_ms, .. } =
            account;
        Self { handle, profile: profile.into(), phone, by_phone, by_handle, show_typing, show_online, closing_ms }
    }
}

impl From<sdk::DeviceInfo> for Device {
    fn from(sdk::DeviceInfo { device, name, last_seen_ms }: sdk::DeviceInfo) -> Self {
        Self { device, name, last_seen_ms }
    }
}

impl From<sdk::ContactState> for ContactState {
    fn from(state: sdk::ContactState) -> Self {
        match state {
            sdk::ContactState::Requested => Self::Requested,
            sdk::ContactState::Waiting => Self::Waiting,
            sdk::ContactState::Accepted => Self::Accepted,
        }
    }
}

impl From<sdk::ContactCard> for ContactCard {
    fn from(card: sdk::ContactCard) -> Self {
        let sdk::ContactCard { user, handle, state, remark, tags, starred, blocked, greeting, expires_ms } = card;
        let state = state.map(ContactState::from);
        Self { user, handle, state, remark, tags, starred, blocked, greeting, expires_ms }
    }
}
