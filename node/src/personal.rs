//! What a person sets and keeps for themselves, on all their devices: how conversations are shown, what they deleted
//! for themselves, favourites.

pub mod api;
pub mod command;
pub mod state;

pub use command::Command;
pub use state::{Query, View};
