//! Contacts in their simplest form: one person asks, the other accepts, and they have a conversation.

pub mod api;
pub mod command;
pub mod state;

pub use command::Command;
pub use state::{Query, View};
