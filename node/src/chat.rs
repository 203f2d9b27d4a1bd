//! Conversations: between two people, and in groups.

pub mod actor;
pub mod api;
pub mod check;
pub mod command;
pub mod members;
pub(crate) mod reading;
pub mod rules;
pub mod sender;
pub mod state;

pub use command::Command;
pub use state::{HeadView, Query, View};
