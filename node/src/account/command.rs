//! What can be asked of an account. Variants and fields are append-only: they stand in logs.

use bincode::{Decode, Encode};
use magpie_protocol::{
    ConversationId, DeviceId, UserId,
    frame::account::{SetPrivacy, SetProfile},
};

/// A device that signs in for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewDevice {
    /// Drawn at random by the node.
    pub device: DeviceId,
    pub public_key: [u8; 32],
    pub name: String,
}

/// See the module's documentation.
#[derive(Clone, Encode, Decode)]
pub enum Command {
    /// Makes an account. Asked of the handle.
    SignUp { handle: String, user: UserId, password_hash: String, device: NewDevice },
    /// Counts a try before the password is verified. Asked of the handle.
    CountTry { handle: String },
    /// Begins a session of a device whose password was right. Asked of the user, as are all that follow.
    SignIn { device: NewDevice },
    /// Begins a session of a device that holds a token and its key.
    Resume { device: DeviceId },
    /// Ends a device's right to begin sessions.
    SignOut { device: DeviceId },
    /// Moves the read cursor of a conversation forward.
    MarkRead { conversation: ConversationId, number: u64 },
    /// A conversation made this person a member.
    List { conversation: ConversationId, title: String, first: u64, by: UserId },
    /// This person is no longer a member.
    Unlist { conversation: ConversationId, last: u64 },
    /// Changes what others see of this person.
    SetProfile(SetProfile),
    /// Changes who finds this person, and what others see them do.
    SetPrivacy(SetPrivacy),
    /// This person has this phone number, which is theirs already; empty for none.
    SetPhone { phone: String },
    /// A new code to be found by, drawn at random by the node.
    NewCode { code: u64 },
    /// Gives the account another password, if it still has the one that was looked at.
    SetPassword { old_hash: String, new_hash: String },
    /// Deletes the account in thirty days.
    Close,
    /// Deletes the account, if its time has come.
    Purge,
    /// Takes a phone number for a person. Asked of the phone number, as are the two that follow.
    ClaimPhone { phone: String, user: UserId, findable: bool },
    /// Gives it back.
    ReleasePhone { phone: String, user: UserId },
    /// Whether the person is found by it.
    PhoneFindable { phone: String, user: UserId, on: bool },
    /// Moves read cursors forward. Asked of the user.
    MarkAll { reads: Vec<(ConversationId, u64)> },
}

impl std::fmt::Debug for Command {
    // Password hashes and keys never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SignUp { .. } => "SignUp",
            Self::CountTry { .. } => "CountTry",
            Self::SignIn { .. } => "SignIn",
            Self::Resume { .. } => "Resume",
            Self::SignOut { .. } => "SignOut",
            Self::MarkRead { .. } => "MarkRead",
            Self::List { .. } => "List",
            Self::Unlist { .. } => "Unlist",
            Self::SetProfile(_) => "SetProfile",
            Self::SetPrivacy(_) => "SetPrivacy",
            Self::SetPhone { .. } => "SetPhone",
            Self::NewCode { .. } => "NewCode",
            Self::SetPassword { .. } => "SetPassword",
            Self::Close => "Close",
            Self::Purge => "Purge",
            Self::ClaimPhone { .. } => "ClaimPhone",
            Self::ReleasePhone { .. } => "ReleasePhone",
            Self::PhoneFindable { .. } => "PhoneFindable",
            Self::MarkAll { .. } => "MarkAll",
        })
    }
}
