//! What is said on a media stream before and after its bytes.
//!
//! A signed-in device opens further bidirectional streams. On each it asks for one thing with one frame of
//! [`MediaRequest`](super::MediaRequest), no longer than [`MEDIA_FRAME_LEN_MAX`](crate::limits::MEDIA_FRAME_LEN_MAX);
//! the node says how it goes on with a frame of [`MediaAnswer`](super::MediaAnswer). The bytes of the blob follow as
//! they are, in no frame. The request id of both is 0.

use crate::codec::{Decode, Encode};

use crate::ids::{BlobId, MessageId, UserId};

/// Brings a blob, so that one may name it in a message. Answer: [`Go`], then the device sends all bytes from that
/// offset on and ends its side, then [`Stored`]; or [`Stored`] at once where nothing need be sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Upload {
    pub blob: BlobId,
    /// Its length, in bytes.
    pub len: u64,
    /// Its media type, such as `image/jpeg`.
    pub media_type: String,
    /// A message that this person may read and that names the blob: then nothing need be sent.
    pub from: Option<MessageId>,
}

/// The bytes from this offset on are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Go {
    pub offset: u64,
}

/// The whole blob is there, durable, and this person may name it in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stored;

/// Fetches a blob that a message names, or part of it. Answer: [`Sending`] and then the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Download {
    /// The message: who may not read it gets nothing.
    pub message: MessageId,
    pub blob: BlobId,
    /// Where to begin, in bytes.
    pub offset: u64,
    /// How many bytes at most; 0 for all.
    pub len: u64,
}

/// Fetches what a person shows as their picture. Answer: [`Sending`] and then the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DownloadAvatar {
    pub user: UserId,
    pub blob: BlobId,
    /// Where to begin, in bytes.
    pub offset: u64,
    /// How many bytes at most; 0 for all.
    pub len: u64,
}

/// So many bytes follow, and then the node ends its side.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sending {
    /// Length of the whole blob, in bytes.
    pub blob_len: u64,
    /// Bytes that follow.
    pub len: u64,
}
