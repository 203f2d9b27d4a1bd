//! The SDK for apps in other languages: one library, and sources in Python, Kotlin and Swift that call it.
//!
//! In reading order: [`Config`] says where the servers are, [`Client`] is the handle that an app uses, [`Event`] is what
//! happens to it, [`Entry`] and [`Message`] are what people said, [`ClientError`] is what can go wrong. Each is the
//! SDK's own, in a shape that reads well where there are no generics, borrowed strings or traits: ids are text, acts are
//! awaited until they are in the timeline, whatever can fail throws.
//!
//! What does not belong here: behaviour. What an app in Rust could want as well belongs in `magpie-client`.

#![allow(unsafe_code, reason = "UniFFI's macros write the functions that C calls; nothing is unsafe by hand here")]

#[cfg(feature = "bindgen")]
pub mod bindgen;
mod client;
mod config;
mod entry;
mod error;
mod event;
mod found;
mod ids;
mod message;
mod people;
mod rooms;

pub use client::{Client, Lost, Me, Posted, Progress, Status, Unsent};
pub use config::Config;
pub use entry::{Body, ConversationKind, Entry, Reaction};
pub use error::{ClientError, ErrorCode};
pub use event::Event;
pub use found::{ContactFound, GroupFound, MessageFound, MessagesFound, NamesFound, Place};
pub use message::{BlobRef, ForwardedItem, Kind, Message, everyone};
pub use people::{
    Account, ContactCard, ContactChange, ContactState, Device, Found, Person, PrivacyChange, Profile, ProfileChange,
};
pub use rooms::{
    ConversationChange, ConversationInfo, ConversationSettings, Favourite, Group, MutedMember, Nickname, ReadUpTo,
};

uniffi::setup_scaffolding!("magpie");
