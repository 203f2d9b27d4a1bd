//! The byte format, behind two functions each way, so that it can be exchanged.
//!
//! bincode 2.0.1, "standard" configuration: little endian, variable-length integers, lengths before
//! sequences. Three rules keep hostile bytes harmless: a limit on what decoding may claim, no recursive and no
//! zero-sized types in what is decoded, and every byte consumed.

use std::cell::RefCell;

pub use bincode::{Decode, Encode};
use bincode::{
    config::{Configuration, Limit, LittleEndian, Varint},
    de::{Decoder, read::Reader},
    error::DecodeError,
};

use crate::limits::FRAME_LEN_MAX;

/// Longest stored value that [`decode_stored`] accepts, in bytes.
pub const STORED_LEN_MAX: usize = 16 * 1024 * 1024;

/// The limit counts what values take in memory, and a value can be short on the wire and long there: a head of
/// five bytes takes 64. With this factor every list of the wire that fits a frame can be read.
const CLAIM_PER_BYTE: usize = 16;
const WIRE_CLAIM_MAX: usize = FRAME_LEN_MAX * CLAIM_PER_BYTE;
const STORED_CLAIM_MAX: usize = STORED_LEN_MAX * CLAIM_PER_BYTE;

type Bounded<const N: usize> = Configuration<LittleEndian, Varint, Limit<N>>;

fn wire() -> Bounded<WIRE_CLAIM_MAX> {
    bincode::config::standard().with_limit::<WIRE_CLAIM_MAX>()
}

fn stored() -> Bounded<STORED_CLAIM_MAX> {
    bincode::config::standard().with_limit::<STORED_CLAIM_MAX>()
}

/// Why bytes were not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    #[error("{len} bytes are longer than the limit of {max}")]
    TooLong { len: usize, max: usize },
    #[error("{0} bytes are left over after the value")]
    Trailing(usize),
    #[error("version {0} is not spoken here")]
    UnknownVersion(u8),
    #[error("the value is damaged: {0}")]
    Damaged(String),
}

/// Appends `value` to `out`. Encoding our own types cannot fail; a failure is a bug and says so.
pub fn encode_into<T: Encode>(value: &T, out: &mut Vec<u8>) {
    let written = bincode::encode_into_std_write(value, out, bincode::config::standard());
    debug_assert!(written.is_ok(), "a value of our own did not encode");
}

/// `value` as bytes, in one allocation of their length.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    with_scratch(|scratch| {
        encode_into(value, scratch);
        scratch.to_vec()
    })
}

/// A scratch buffer larger than this is given back.
const SCRATCH_KEPT: usize = 64 * 1024;
/// Values within values within values: so many buffers are kept.
const SCRATCHES_KEPT: usize = 4;

/// Lends a buffer that is empty and has room, so that encoding into it does not grow it step by step. Values within
/// values get a buffer of their own.
pub fn with_scratch<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    thread_local! { static SCRATCHES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) }; }
    let kept = SCRATCHES.with_borrow_mut(Vec::pop);
    let mut scratch = kept.unwrap_or_else(|| Vec::with_capacity(1024));
    let result = work(&mut scratch);
    if scratch.capacity() <= SCRATCH_KEPT {
        scratch.clear();
        SCRATCHES.with_borrow_mut(|kept| {
            if kept.len() < SCRATCHES_KEPT {
                kept.push(scratch)
            }
        });
    }
    result
}

/// One value from the wire: all of `bytes`, at most [`FRAME_LEN_MAX`] of them.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > FRAME_LEN_MAX {
        return Err(CodecError::TooLong { len: bytes.len(), max: FRAME_LEN_MAX });
    }
    whole(bincode::decode_from_slice(bytes, wire()), bytes.len())
}

/// One value that this node stored itself: all of `bytes`, at most [`STORED_LEN_MAX`] of them.
pub fn decode_stored<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > STORED_LEN_MAX {
        return Err(CodecError::TooLong { len: bytes.len(), max: STORED_LEN_MAX });
    }
    whole(bincode::decode_from_slice(bytes, stored()), bytes.len())
}

/// The payload of a [`tagged!`](crate::tagged) value: one that is short enough for the wire may claim no more than
/// the wire allows, because it may have come from there.
pub fn decode_payload<T: Decode<()>>(payload: &[u8]) -> Result<T, CodecError> {
    if payload.len() <= FRAME_LEN_MAX { decode(payload) } else { decode_stored(payload) }
}

/// A length and so many bytes, read in place where the decoder has them in memory.
pub fn read_payload<D: Decoder, T>(
    decoder: &mut D,
    read: impl FnOnce(&[u8]) -> Result<T, CodecError>,
) -> Result<T, DecodeError> {
    let damaged = |e: CodecError| DecodeError::OtherString(e.to_string());
    let length = u64::decode(decoder)?;
    let length = usize::try_from(length).map_err(|_| DecodeError::OutsideUsizeRange(length))?;
    decoder.claim_container_read::<u8>(length)?;
    let reader = decoder.reader();
    if let Some(payload) = reader.peek_read(length) {
        let value = read(payload).map_err(damaged)?;
        reader.consume(length);
        return Ok(value);
    }
    let mut payload = vec![0; length];
    reader.read(&mut payload)?;
    read(&payload).map_err(damaged)
}

/// One stored value from the front of `bytes`, and how many bytes it took.
pub fn decode_prefix<T: Decode<()>>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    bincode::decode_from_slice(bytes, stored()).map_err(|e| CodecError::Damaged(e.to_string()))
}

fn whole<T>(result: Result<(T, usize), DecodeError>, len: usize) -> Result<T, CodecError> {
    match result {
        Ok((value, used)) if used == len => Ok(value),
        Ok((_, used)) => Err(CodecError::Trailing(len - used)),
        Err(e) => Err(CodecError::Damaged(e.to_string())),
    }
}

/// Gives a type the byte format of another: `coded_as!(Type, Repr, |value| repr, |repr| Option<Type>)`.
#[macro_export]
macro_rules! coded_as {
    ($name:ty, $repr:ty, $to:expr, $from:expr) => {
        impl ::bincode::Encode for $name {
            fn encode<E: ::bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), ::bincode::error::EncodeError> {
                let to: fn(&$name) -> $repr = $to;
                ::bincode::Encode::encode(&to(self), encoder)
            }
        }
        impl<Context> ::bincode::Decode<Context> for $name {
            fn decode<D: ::bincode::de::Decoder<Context = Context>>(
                decoder: &mut D,
            ) -> Result<Self, ::bincode::error::DecodeError> {
                let from: fn($repr) -> Option<$name> = $from;
                from(<$repr as ::bincode::Decode<Context>>::decode(decoder)?)
                    .ok_or(::bincode::error::DecodeError::Other(concat!("no such ", stringify!($name))))
            }
        }
        ::bincode::impl_borrow_decode!($name);
    };
}

/// Declares an enum whose variants carry explicit, append-only tags. A variant travels as its tag (`u16`)
/// and its length-prefixed payload, so that an older reader can step over what it does not know: it gets
/// `Unknown(tag)`.
#[macro_export]
macro_rules! tagged {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $tag:literal = $variant:ident($payload:ty),)+ }) => {
        $(#[$meta])*
        pub enum $name {
            $($(#[$vmeta])* $variant($payload),)+
            /// A tag of a newer version, stepped over.
            Unknown(u16),
        }
        impl $name {
            /// The tag of this variant on the wire and on disk.
            pub fn tag(&self) -> u16 {
                match self { $(Self::$variant(_) => $tag,)+ Self::Unknown(tag) => *tag }
            }
            /// Every tag in use, for the tests that keep them append-only.
            pub const TAGS: &'static [(u16, &'static str)] = &[$(($tag, stringify!($variant)),)+];
        }
        impl ::bincode::Encode for $name {
            fn encode<E: ::bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), ::bincode::error::EncodeError> {
                $crate::codec::with_scratch(|payload| {
                    match self {
                        $(Self::$variant(value) => $crate::codec::encode_into(value, payload),)+
                        Self::Unknown(_) => {}
                    }
                    ::bincode::Encode::encode(&self.tag(), encoder)?;
                    ::bincode::Encode::encode(payload.as_slice(), encoder)
                })
            }
        }
        impl<Context> ::bincode::Decode<Context> for $name {
            fn decode<D: ::bincode::de::Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, ::bincode::error::DecodeError> {
                let tag = <u16 as ::bincode::Decode<Context>>::decode(decoder)?;
                $crate::codec::read_payload(decoder, |payload| {
                    Ok(match tag {
                        $($tag => Self::$variant($crate::codec::decode_payload(payload)?),)+
                        other => Self::Unknown(other),
                    })
                })
            }
        }
        ::bincode::impl_borrow_decode!($name);
    };
}
