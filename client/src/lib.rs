//! The SDK that an app links to talk to Magpie: connect, sign in, send, sync, keep a local store.
//!
//! In reading order: [`Network`] holds sockets and trust, [`Config`] says how one client behaves, [`Client`] is the
//! handle that an app uses, [`Events`] is what happens to it, [`Error`] is what can go wrong. Behind them one task per
//! client (`session`) keeps a connection and drives two pure machines: `session::sync` decides what to accept
//! and what to pull, `session::outgoing` numbers and resends what is posted. `store` keeps what must outlive the process.
//!
//! What does not belong here: anything of the server's (`cluster`, `node`), user interfaces, and load generation.

mod backoff;
mod client;
mod config;
mod error;
mod events;
mod fold;
mod media;
mod network;
mod session;
mod shared;
mod store;

pub use client::{Client, ConversationInfo, Group, GroupCode, Me, Sending, Status, UserCode};
pub use config::{Config, History, NetworkConfig, StorePlace};
pub use error::Error;
pub use events::{Event, Events};
pub use media::{Progress, SendingFile, Source};
pub use network::Network;
pub use store::Reaction;

pub use magpie_protocol::{
    BlobId, Body, ConversationId, ConversationKind, DeviceId, Entry, ErrorCode, Incarnation, MessageId, Retry,
    TimelineId, UserId, WireError, entry,
    frame::{
        account::{Account, DeviceInfo, Profile, SetPrivacy, SetProfile},
        contact::{ContactCard, ContactInfo, ContactState, Found, SetContact, Shown},
        conversation::{
            Admit, Content, Dissolve, Edit, GroupInfo, Leave, Mute, Posted, React, ReadUpTo, SetAdmin, SetJoin,
        },
        personal::{ConversationSettings, Favourite, SetConversation},
        search::{ContactFound, GroupFound, MessageFound, MessagesFound, NamesFound, Place},
        sync::Head,
    },
    ids, limits, message,
    message::{Kind, Message},
};
