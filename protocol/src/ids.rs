//! Names of things. Each is a newtype with a `Display` and a `FromStr` that are each other's inverse.
//!
//! The id of every durable entity begins with twelve bits that are its [`Slot`]; the slot decides the shard.

use std::{fmt, str::FromStr};

use crate::{
    codec::{Decode, Encode},
    coded_as,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// How many slots the id space is cut into.
pub const SLOTS: u16 = 4096;
const SLOT_BITS: u32 = 12;

/// The text was not an id of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind} (expected {form})")]
pub struct ParseIdError {
    text: String,
    kind: &'static str,
    form: &'static str,
}

macro_rules! hex_id {
    ($(#[$meta:meta])* $name:ident($inner:ty), $prefix:literal, $digits:literal, $kind:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
        pub struct $name($inner);
        impl $name {
            /// The id with these bits.
            pub const fn from_bits(bits: $inner) -> Self { Self(bits) }
            /// The bits of the id.
            pub const fn bits(self) -> $inner { self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:0", $digits, "x}"), self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let digits = text.strip_prefix($prefix).unwrap_or_default();
                let lower = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                match <$inner>::from_str_radix(digits, 16) {
                    Ok(bits) if digits.len().to_string() == $digits && lower => Ok(Self(bits)),
                    _ => Err(ParseIdError {
                        text: text.to_owned(), kind: $kind,
                        form: concat!($prefix, " and ", $digits, " lower-case hexadecimal digits"),
                    }),
                }
            }
        }
    };
}

hex_id!(
    /// An account. Its slot is that of its handle, so that both live in one shard.
    UserId(u64), "u", "16", "a user id"
);
hex_id!(
    /// One signed-in device of an account, minted by the server at its first sign-in.
    DeviceId(u64), "d", "16", "a device id"
);
hex_id!(
    /// A client's local store. The high 40 bits are the minute of its making, so that later ones are larger.
    Incarnation(u64), "i", "16", "an incarnation"
);
hex_id!(
    /// A conversation: slot (12 bits), kind (4 bits), then 112 bits of hash.
    ConversationId(u128), "c", "32", "a conversation id"
);

macro_rules! number_id {
    ($(#[$meta:meta])* $name:ident($inner:ty), $prefix:literal, $kind:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
        pub struct $name($inner);
        impl $name {
            /// The id with this number.
            pub const fn new(number: $inner) -> Self { Self(number) }
            /// The number of the id.
            pub const fn get(self) -> $inner { self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, concat!($prefix, "{}"), self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bad = || ParseIdError { text: text.to_owned(), kind: $kind, form: concat!($prefix, " and a number") };
                let digits = text.strip_prefix($prefix).ok_or_else(bad)?;
                let number: $inner = digits.parse().map_err(|_| bad())?;
                if number.to_string() == digits { Ok(Self(number)) } else { Err(bad()) }
            }
        }
    };
}

number_id!(
    /// One of [`SLOTS`] slices of the id space.
    Slot(u16), "slot", "a slot"
);
number_id!(
    /// A set of slots: the unit of replication.
    ShardId(u16), "shard", "a shard id"
);
number_id!(
    /// A request on one connection, chosen by the client; 0 marks a push.
    RequestId(u32), "r", "a request id"
);

impl Slot {
    /// The slot of a piece of text, such as a handle.
    pub fn of_text(text: &str) -> Self {
        Self((xxh3_64(text.as_bytes()) >> (64 - SLOT_BITS)) as u16)
    }
}

impl UserId {
    /// In a list of mentions: everyone. No account has it.
    pub const EVERYONE: Self = Self(u64::MAX);

    /// The user with these random bits in this slot.
    pub fn in_slot(slot: Slot, random: u64) -> Self {
        let low = random & (u64::MAX >> SLOT_BITS);
        Self((u64::from(slot.get() % SLOTS) << (64 - SLOT_BITS)) | low)
    }
    /// The slot that this user lives in.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> (64 - SLOT_BITS)) as u16)
    }
}

impl Incarnation {
    /// A new incarnation, made at this minute since 1970, with these random bits.
    pub fn mint(minute: u64, random: u64) -> Self {
        Self((minute << 24) | (random & 0x00ff_ffff))
    }
}

/// What kind of conversation an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum ConversationKind {
    Direct,
    Group,
}

impl ConversationId {
    const HASH_BITS: u32 = 112;

    fn build(kind: ConversationKind, hash: u128) -> Self {
        let nibble: u128 = match kind {
            ConversationKind::Direct => 1,
            ConversationKind::Group => 2,
        };
        let slot = hash & (0xfff << (128 - SLOT_BITS));
        Self(slot | (nibble << Self::HASH_BITS) | (hash & (u128::MAX >> 16)))
    }

    /// The conversation between two people, whoever asks.
    pub fn direct(a: UserId, b: UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let mut bytes = [0u8; 17];
        bytes[0] = b'd';
        bytes[1..9].copy_from_slice(&low.bits().to_be_bytes());
        bytes[9..].copy_from_slice(&high.bits().to_be_bytes());
        Self::build(ConversationKind::Direct, xxh3_128(&bytes))
    }

    /// The group that `creator` makes under `nonce`; the same nonce is the same group.
    pub fn group(creator: UserId, nonce: u128) -> Self {
        let mut bytes = [0u8; 25];
        bytes[0] = b'g';
        bytes[1..9].copy_from_slice(&creator.bits().to_be_bytes());
        bytes[9..].copy_from_slice(&nonce.to_be_bytes());
        Self::build(ConversationKind::Group, xxh3_128(&bytes))
    }

    /// The kind that the id was built with; `None` for bits that no build makes.
    pub fn kind(self) -> Option<ConversationKind> {
        match (self.0 >> Self::HASH_BITS) & 0xf {
            1 => Some(ConversationKind::Direct),
            2 => Some(ConversationKind::Group),
            _ => None,
        }
    }

    /// The slot that this conversation lives in.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> (128 - SLOT_BITS)) as u16)
    }
}

/// An append-only sequence that devices follow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimelineId {
    /// What is said in a conversation.
    Conversation(ConversationId),
    /// What concerns one person: requests, conversations gained and lost.
    Inbox(UserId),
}

impl TimelineId {
    /// The slot that this timeline lives in: its entity's.
    pub fn slot(self) -> Slot {
        match self {
            Self::Conversation(id) => id.slot(),
            Self::Inbox(user) => user.slot(),
        }
    }
    /// Kind and id as they are stored and sent: one byte and sixteen.
    pub fn to_parts(self) -> (u8, u128) {
        match self {
            Self::Conversation(id) => (1, id.bits()),
            Self::Inbox(user) => (2, u128::from(user.bits()) << 64),
        }
    }
    /// The inverse of [`TimelineId::to_parts`].
    pub fn from_parts(kind: u8, id: u128) -> Option<Self> {
        match kind {
            1 => Some(Self::Conversation(ConversationId(id))),
            2 if id as u64 == 0 => Some(Self::Inbox(UserId((id >> 64) as u64))),
            _ => None,
        }
    }
}

coded_as!(TimelineId, (u8, u128), |id| id.to_parts(), |(kind, id)| TimelineId::from_parts(kind, id));

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conversation(id) => write!(f, "t/{id}"),
            Self::Inbox(user) => write!(f, "t/{user}"),
        }
    }
}

impl fmt::Debug for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TimelineId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let form = "t/ and a conversation id or a user id";
        let bad = || ParseIdError { text: text.to_owned(), kind: "a timeline id", form };
        let rest = text.strip_prefix("t/").ok_or_else(bad)?;
        rest.parse().map(Self::Conversation).or_else(|_| rest.parse().map(Self::Inbox)).map_err(|_| bad())
    }
}

/// One entry of one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct MessageId {
    pub conversation: ConversationId,
    pub number: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.conversation, self.number)
    }
}

impl FromStr for MessageId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad =
            || ParseIdError { text: text.to_owned(), kind: "a message id", form: "a conversation id, # and a number" };
        let (conversation, number) = text.split_once('#').ok_or_else(bad)?;
        let parsed: u64 = number.parse().map_err(|_| bad())?;
        if parsed.to_string() != number {
            return Err(bad());
        }
        Ok(Self { conversation: conversation.parse().map_err(|_| bad())?, number: parsed })
    }
}

/// One `magpie serve` process. A node that lost its disk comes back with a higher generation; no id is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId {
    index: u32,
    generation: u32,
}

impl NodeId {
    /// The node with this place and generation, both counted from 1.
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }
    /// The node whose parts are in this number.
    pub const fn from_bits(bits: u64) -> Self {
        Self { index: (bits >> 32) as u32, generation: bits as u32 }
    }
    /// Both parts in one number, as consensus names its voters.
    pub const fn bits(self) -> u64 {
        ((self.index as u64) << 32) | self.generation as u64
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}.{}", self.index, self.generation)
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad =
            || ParseIdError { text: text.to_owned(), kind: "a node id", form: "n, a number, a dot and a generation" };
        let (index, generation) = text.strip_prefix('n').and_then(|t| t.split_once('.')).ok_or_else(bad)?;
        let id = Self { index: index.parse().map_err(|_| bad())?, generation: generation.parse().map_err(|_| bad())? };
        if id.to_string() == text { Ok(id) } else { Err(bad()) }
    }
}

/// A blob, named by the BLAKE3 hash of its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct BlobId([u8; 32]);

impl BlobId {
    /// The id with this hash.
    pub const fn from_hash(hash: [u8; 32]) -> Self {
        Self(hash)
    }
    /// The hash.
    pub const fn hash(&self) -> &[u8; 32] {
        &self.0
    }
    /// The first half of the hash.
    pub fn bits(&self) -> u128 {
        self.0.first_chunk().map_or(0, |half| u128::from_be_bytes(*half))
    }
    /// The slot that this blob lives in: the first twelve bits of its hash.
    pub fn slot(&self) -> Slot {
        Slot((self.bits() >> (128 - SLOT_BITS)) as u16)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("b")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError {
            text: text.to_owned(),
            kind: "a blob id",
            form: "b and 64 lower-case hexadecimal digits",
        };
        let digits = text.strip_prefix('b').filter(|d| d.len() == 64 && d.is_ascii()).ok_or_else(bad)?;
        let mut hash = [0u8; 32];
        for (i, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        let id = Self(hash);
        if id.to_string() == text { Ok(id) } else { Err(bad()) }
    }
}
