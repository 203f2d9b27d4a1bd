//! What can be asked of a blob, and of a person about blobs. Variants and fields are append-only: they stand in logs.

use bincode::{Decode, Encode};
use magpie_protocol::{BlobId, UserId};

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// To a blob: an upload of it begins. Reply: the person's other attempts, which this one may go on from.
    Begin { blob: BlobId, user: UserId, attempt: u64, keep_ms: u64 },
    /// To a blob: nobody writes to these attempts any more; what they hold may be deleted.
    Abandon { blob: BlobId, attempts: Vec<u64> },
    /// To a blob: the attempt holds all of it, durable, and its hash is right.
    Complete { blob: BlobId, user: UserId, attempt: u64, len: u64, keep_ms: u64 },
    /// To a blob: it is about to be named.
    Touch { blob: BlobId, keep_ms: u64 },
    /// To a blob: a message names it from now on, ...
    Claim { blob: BlobId },
    /// ... or no longer.
    Release { blob: BlobId },
    /// To a blob: let go of what nobody needs. Reply: the attempts whose pieces may be deleted.
    Collect { blob: BlobId, keep_ms: u64 },
    /// To a blob: the pieces of these attempts are deleted.
    Collected { blob: BlobId, attempts: Vec<u64> },
    /// To a person: keep room for a blob.
    Reserve { blob: BlobId, len: u64, quota: u64, keep_ms: u64 },
    /// To a person: they have shown that they have it, or may read a message that names it.
    Hold { blob: BlobId, len: u64, quota: u64, keep_ms: u64 },
    /// To a person: a message of theirs names it from now on, ...
    Used { blob: BlobId, len: u64 },
    /// ... or no longer.
    Unused { blob: BlobId },
}

impl Command {
    /// The blob that it is about.
    pub fn blob(&self) -> BlobId {
        match self {
            Self::Begin { blob, .. }
            | Self::Abandon { blob, .. }
            | Self::Complete { blob, .. }
            | Self::Touch { blob, .. }
            | Self::Claim { blob }
            | Self::Release { blob }
            | Self::Collect { blob, .. }
            | Self::Collected { blob, .. }
            | Self::Reserve { blob, .. }
            | Self::Hold { blob, .. }
            | Self::Used { blob, .. }
            | Self::Unused { blob } => *blob,
        }
    }
}
