//! Accounts and devices.

use crate::codec::{Decode, Encode};

use crate::{
    ids::{DeviceId, UserId},
    message::BlobRef,
};

/// Proves that the sender holds a device key: an Ed25519 signature over keying material that both sides export
/// from this very TLS connection ([`PROOF_LABEL`](crate::PROOF_LABEL), empty context, 32 bytes).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceKey {
    pub public_key: [u8; 32],
    pub proof: [u8; 64],
    /// The device's name for its owner.
    pub name: String,
}

/// Makes an account and signs its first device in. Answer: [`SignedIn`].
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SignUp {
    pub handle: String,
    pub password: String,
    pub device: DeviceKey,
}

/// Signs a device in with the password. Answer: [`SignedIn`].
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SignIn {
    pub handle: String,
    pub password: String,
    pub device: DeviceKey,
}

/// Makes an account with an invitation, where the operator asks for one, and signs its first device in. Answer:
/// [`SignedIn`].
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SignUpInvited {
    pub sign_up: SignUp,
    /// The invitation's code, as it was given out.
    pub invitation: String,
}

/// Signs a device in with a token of the operator's own identity service, and makes the account when it is the first.
/// Answer: [`SignedIn`].
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SignInByToken {
    /// A JSON Web Token (RFC 7519), in its compact form.
    pub token: String,
    pub device: DeviceKey,
}

impl std::fmt::Debug for SignUpInvited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignUpInvited").field("handle", &self.sign_up.handle).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SignInByToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignInByToken").finish_non_exhaustive()
    }
}

// Passwords never reach a log, not even through a debug print.
impl std::fmt::Debug for SignUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignUp").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignIn").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// Signs a known device in with its token and its key. Answer: [`SignedIn`].
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Resume {
    /// The token of an earlier [`SignedIn`].
    pub token: Vec<u8>,
    /// The proof of the device key, as in [`DeviceKey`].
    pub proof: [u8; 64],
}

impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resume").finish_non_exhaustive()
    }
}

/// The device is signed in.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SignedIn {
    pub user: UserId,
    pub device: DeviceId,
    /// Grows with every session of this account; an older session of the same device can write nothing.
    pub epoch: u64,
    /// For the next [`Resume`]; replaces the one before.
    pub token: Vec<u8>,
    /// When the token ends, in milliseconds since 1970.
    pub token_expires_ms: u64,
}

impl std::fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedIn").field("user", &self.user).field("device", &self.device).finish_non_exhaustive()
    }
}

/// Signs a device of one's own out: this one, or another. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignOut {
    pub device: DeviceId,
}

/// Asks for one's own devices. Answer: [`DeviceList`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Devices;

/// One's own devices that are signed in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceList {
    pub devices: Vec<DeviceInfo>,
}

/// One device of an account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceInfo {
    pub device: DeviceId,
    pub name: String,
    /// When its newest session began, in milliseconds since 1970.
    pub last_seen_ms: u64,
}

/// What a person shows of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Profile {
    /// The name that others see; empty for the handle.
    pub nickname: String,
    pub avatar: Option<BlobRef>,
    pub region: String,
    /// A line about themselves.
    pub signature: String,
}

/// Changes one's profile: what is `None` stays. Answer: `Done`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SetProfile {
    pub nickname: Option<String>,
    /// `Some(None)` takes it away.
    pub avatar: Option<Option<BlobRef>>,
    pub region: Option<String>,
    pub signature: Option<String>,
}

/// Who may find this person, and what others see. Answer of a change: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetPrivacy {
    /// Whoever knows the phone number finds this person.
    pub by_phone: Option<bool>,
    /// Whoever knows the handle finds this person.
    pub by_handle: Option<bool>,
    /// Others see that this person types.
    pub show_typing: Option<bool>,
    /// Others see that this person is online.
    pub show_online: Option<bool>,
}

/// Sets one's phone number; empty takes it away. Answer: `Done`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SetPhone {
    /// With `+` and country code, digits only.
    pub phone: String,
}

impl std::fmt::Debug for SetPhone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetPhone").finish_non_exhaustive()
    }
}

/// Asks for what only oneself sees of one's account. Answer: [`Account`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AskAccount;

/// One's own account.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Account {
    pub handle: String,
    pub profile: Profile,
    pub phone: String,
    pub by_phone: bool,
    pub by_handle: bool,
    pub show_typing: bool,
    pub show_online: bool,
    /// The code in one's `magpie:u/...` string; 0 before the first was made.
    pub code: u64,
    /// When the account will be deleted, in milliseconds since 1970; 0 when it will not.
    pub closing_ms: u64,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// Makes a new code to be found by; the old one is void. Answer: [`Account`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewCode;

/// Changes the password. The other devices stay signed in unless they are signed out. Answer: `Done`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct ChangePassword {
    pub old: String,
    pub new: String,
}

impl std::fmt::Debug for ChangePassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangePassword").finish_non_exhaustive()
    }
}

/// Deletes the account in thirty days and signs every device out; a sign-in before that keeps it. Answer: `Done`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct CloseAccount {
    pub password: String,
}

impl std::fmt::Debug for CloseAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloseAccount").finish_non_exhaustive()
    }
}

/// Asks which of these contacts are online and show it. Answer: [`OnlineList`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AskOnline {
    pub users: Vec<UserId>,
}

/// Those who are, as far as is known. Kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OnlineList {
    pub users: Vec<UserId>,
}
