//! The commands of the `magpie` binary, one file each. `chat` and `demo` are the only places that know the SDK.

pub mod admin;
pub mod cert;
pub mod chat;
pub mod config;
pub mod demo;
pub mod serve;
