//! What can be asked of a person's contacts. Variants and fields are append-only: they stand in logs.

use bincode::{Decode, Encode};
use magpie_protocol::UserId;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// This person would like `to` to be a contact.
    Request { to: UserId, greeting: String },
    /// `from` would like this person to be a contact.
    Requested { from: UserId, handle: String, greeting: String },
    /// This person accepts what `from` asked.
    Accept { from: UserId },
    /// `by` accepted what this person asked.
    Accepted { by: UserId, handle: String },
    /// This person does not accept what `from` asked.
    Refuse { from: UserId },
    /// Changes what this person keeps of a contact.
    Set { user: UserId, remark: Option<String>, tags: Option<Vec<String>>, starred: Option<bool> },
    /// The direct conversation holds a block by this person, or no longer.
    Blocked { user: UserId, on: bool },
    /// This person takes `user` off their contacts.
    Remove { user: UserId },
    /// This person's account is no more: `user` had them as a contact.
    Gone { user: UserId },
}
