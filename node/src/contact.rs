//! Contacts: one person asks, the other accepts, and they have a conversation; what each keeps of the other; blocks.

pub mod actor;
pub mod api;
pub mod book;
pub mod command;
pub mod state;

pub use command::Command;
pub use state::{Query, View};
