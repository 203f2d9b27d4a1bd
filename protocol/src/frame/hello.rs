//! The first frames of a session, and those about the session itself.

use crate::codec::{Decode, Encode};

/// The first frame of a device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// The wire versions that the device speaks.
    pub version_min: u8,
    pub version_max: u8,
    /// Name and version of the program, for the operator.
    pub agent: String,
}

/// The node's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The version that both will speak.
    pub version: u8,
    /// The node's clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// Raised by every restore from a backup: cursors and incarnations of an older one are void.
    pub history_epoch: u64,
    pub agent: String,
}

/// The node is about to close the session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Closing {
    pub reason: ClosingReason,
    /// Reconnect after about this long, in milliseconds.
    pub reconnect_after_ms: u32,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ClosingReason {
    /// The node stops; come back to it or another.
    Stopping,
    /// A newer session of the same device took over.
    Replaced,
    /// The device was signed out: its token is void.
    SignedOut,
    /// The device broke the protocol.
    Protocol,
}

/// Where else the device may go: nodes that take sessions, the first first. Comes before [`Closing`] from a node that stops
/// or is drained, if there are any.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Elsewhere {
    /// Addresses of IP and port, such as `10.0.0.2:4433` or `[fd00::2]:4433`.
    pub servers: Vec<String>,
}

/// A request was carried out and there is nothing more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Done;
