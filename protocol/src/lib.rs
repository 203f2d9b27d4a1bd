//! Magpie's wire: what phones and nodes say to each other, as data.
//!
//! In reading order: [`ids`] name things, [`message`] is what people say, [`entry`] is what a timeline holds,
//! [`frame`] is what travels, [`error`] is how a request is refused, [`retry`] how often it may be asked again, [`codec`] is the one file that knows the byte
//! format.
//!
//! What does not belong here: sockets, tasks, actors, clocks, storage. Nothing in this crate does IO.

pub mod codec;
pub mod entry;
pub mod error;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod message;
pub mod retry;

pub use entry::{Body, Entry};
pub use error::{ErrorCode, Retry, WireError};
pub use frame::{Answer, Frame, Request};
pub use ids::{
    BlobId, ConversationId, ConversationKind, DeviceId, Incarnation, MessageId, NodeId, RequestId, ShardId, Slot,
    TimelineId, UserId,
};
pub use message::{Kind, Message};
pub use retry::RetryBudget;

/// The ALPN under which version 1 of the protocol is offered.
pub const ALPN: &[u8] = b"magpie/1";
/// The oldest wire version that this build still speaks.
pub const VERSION_MIN: u8 = 1;
/// The newest wire version that this build speaks.
pub const VERSION_MAX: u8 = 1;
/// The label under which both sides export keying material that a device key signs.
pub const PROOF_LABEL: &[u8] = b"EXPORTER-magpie-device-proof";
