//! Accounts and devices.

use crate::codec::{Decode, Encode};

use crate::ids::{DeviceId, UserId};

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
