//! The magpie server: what a node is besides its storage.
//!
//! In reading order: [`node`] puts it together; [`gateway`] takes connections and [`session`] serves each of them;
//! [`machine`] joins the subsystems ([`account`], [`contact`], [`chat`], [`personal`]) into the state machine that shards run;
//! [`watches`] hands hints to sessions; [`hooks`] tell others what happens. Every subsystem has the same rooms: `command` is
//! what can be asked of it
//! as data, `state` the deterministic apply, `actor` what is volatile, `api` client requests in and replies out.
//!
//! What does not belong here: consensus, logs, placement (`cluster`); the wire (`protocol`).

pub mod account;
pub mod admin;
pub mod authority;
pub mod chat;
pub mod cli;
pub mod commands;
pub mod config;
pub mod contact;
pub mod gateway;
#[cfg(test)]
mod golden;
pub mod hooks;
pub mod keys;
pub mod limits;
pub mod log;
mod loops;
pub mod machine;
pub mod media;
pub mod metrics;
pub mod node;
#[cfg(test)]
mod one_shard;
pub mod overload;
pub mod personal;
pub mod policy;
pub mod registry;
pub mod search;
pub mod service;
pub mod session;
pub mod sessions;
pub mod watches;

pub use config::Config;
pub use machine::{Command, Magpie, Outcome, Query, View};
pub use node::{Node, Options};

/// This build, as it introduces itself.
pub const AGENT: &str = concat!("magpie/", env!("CARGO_PKG_VERSION"));
