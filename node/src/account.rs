//! Accounts, their devices and sessions, and the list of conversations that each person has.

pub mod actor;
pub mod api;
pub mod command;
pub mod jwt;
pub mod state;
pub mod token;

pub use command::{Command, NewDevice};
pub use state::{Device, Listed, Query, View};
