//! What operators and the servers of an app do: keys, invitations, locked accounts, notices, messages of service accounts.
//!
//! It has no rooms for devices: what leads here is the admin HTTP.

pub mod announcements;
pub mod command;
pub mod invitations;
pub mod state;

pub use command::Command;
pub use state::{Query, View};
