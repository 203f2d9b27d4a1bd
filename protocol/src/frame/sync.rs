//! Following timelines: heads, pages, hints.

use bincode::{
    de::Decoder,
    enc::Encoder,
    error::{DecodeError, EncodeError},
};

use crate::{
    codec::{Decode, Encode},
    ids::{ConversationId, TimelineId},
};

/// Follows everything that this person may follow, and asks where each timeline stands.
/// Answer: one or more [`Heads`], the last of them marked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sync;

/// Where some timelines stand.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Heads {
    pub heads: Vec<Head>,
    /// No more follow.
    pub last: bool,
}

/// Where one timeline stands for this reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    pub timeline: TimelineId,
    /// The lowest number that this reader may pull.
    pub first: u64,
    /// The highest number that this reader may pull; `first - 1` when there is none.
    pub head: u64,
    /// How far this person has read, on any device. Unread is what lies between it and `head`.
    pub read: u64,
}

/// Asks for the entries after `after`. Answer: [`Page`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pull {
    pub timeline: TimelineId,
    pub after: u64,
    /// At most this many; the node may send fewer.
    pub limit: u32,
}

/// Entries in order, without gaps. A page that ends before `head` is followed by another `Pull`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Page {
    pub timeline: TimelineId,
    pub first: u64,
    pub head: u64,
    /// Each an [`Entry`](crate::Entry) in its own versioned form.
    pub entries: Vec<EntryBytes>,
}

/// An entry as it is stored, shared without being decoded on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryBytes(pub bytes::Bytes);

impl Encode for EntryBytes {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0[..].encode(encoder)
    }
}

impl<Context> Decode<Context> for EntryBytes {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self(Vec::<u8>::decode(decoder)?.into()))
    }
}
bincode::impl_borrow_decode!(EntryBytes);

/// A hint: this entry was appended to a timeline that the device follows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pushed {
    pub timeline: TimelineId,
    pub entry: EntryBytes,
}

/// These timelines have moved on without a hint: pull.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Behind {
    pub heads: Vec<Head>,
}

/// This person has read up to here. Merged by maximum. Answer: `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MarkRead {
    pub conversation: ConversationId,
    pub number: u64,
}
