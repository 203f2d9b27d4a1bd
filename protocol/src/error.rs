//! How a request is refused: one closed set of codes, each with what a client may do next.

use std::fmt;

use crate::{
    codec::{Decode, Encode},
    coded_as,
};

/// Whether asking again is safe, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The answer is final: the same request gets the same answer.
    Never,
    /// The outcome is unknown or passing: the same request with the same id is safe, after a pause.
    SameId,
    /// Sign in again first, then the same request with the same id.
    SignIn,
}

macro_rules! codes {
    ($($(#[$meta:meta])* $tag:literal = $name:ident, $retry:ident, $text:literal;)+) => {
        /// Why a request was refused. Tags are append-only.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode { $($(#[$meta])* $name = $tag,)+ }
        impl ErrorCode {
            /// Every code, for documentation and tests.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)+];
            /// The code with this tag.
            pub fn from_tag(tag: u16) -> Option<Self> { match tag { $($tag => Some(Self::$name),)+ _ => None } }
            /// Whether asking again is safe.
            pub fn retry(self) -> Retry { match self { $(Self::$name => Retry::$retry,)+ } }
            /// What it means, for a person.
            pub fn describe(self) -> &'static str { match self { $(Self::$name => $text,)+ } }
        }
    };
}

codes! {
    /// The bytes are no frame.
    1 = BadFrame, Never, "the frame could not be read";
    2 = UnsupportedVersion, Never, "no common protocol version";
    3 = NotSignedIn, SignIn, "sign in first";
    4 = BadCredentials, Never, "wrong handle or password";
    5 = TooManyTries, SameId, "too many tries, wait";
    6 = HandleTaken, Never, "this handle belongs to somebody else";
    /// `field` names what is wrong.
    7 = Invalid, Never, "a value is not acceptable";
    /// It does not exist, or the asker may not know that it does.
    8 = NotFound, Never, "no such thing here";
    9 = NotAllowed, Never, "not allowed";
    /// The same id came before with other content; `field` names it.
    10 = IdReused, Never, "this id was used before with other content";
    11 = AlreadyResolved, Never, "resolved long ago; its answer is no longer kept";
    /// `number` is the one that is expected next.
    12 = OutOfOrder, SameId, "an earlier number is missing";
    13 = Overloaded, SameId, "too busy, come back later";
    14 = StorageFull, SameId, "the node's disk is full; nothing was changed";
    15 = Unavailable, SameId, "not available right now";
    /// Ask again with the same id to learn it.
    16 = Unknown, SameId, "the outcome is not known";
    17 = Internal, Never, "an error of ours; it was reported";
    18 = SessionReplaced, SignIn, "a newer session of this device took over";
    19 = SignedOut, Never, "this device was signed out; sign in with the password";
    20 = LimitReached, Never, "a limit is reached";
    21 = RateLimited, SameId, "too many requests, wait";
    22 = TooLarge, Never, "too large";
    23 = ShuttingDown, SameId, "the node is stopping, reconnect";
    24 = AlreadyDone, Never, "that is so already";
    25 = Blocked, Never, "this person takes no messages from you";
    26 = NotContacts, Never, "you are not contacts";
    /// `number` says until when, in milliseconds since 1970; 0 for no end.
    27 = Muted, Never, "you may not write here now";
    28 = TooLate, Never, "the time for this is over";
}

// A code of a newer version reads as Internal: final, and nothing is assumed of it.
coded_as!(ErrorCode, u16, |code| *code as u16, |tag| Some(ErrorCode::from_tag(tag).unwrap_or(ErrorCode::Internal)));

/// A refusal as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub struct WireError {
    pub code: ErrorCode,
    /// The field that was wrong, or empty.
    pub field: String,
    /// What was wrong with it, for a person, or empty.
    pub detail: String,
    /// With `OutOfOrder`, the number expected next; with a limit, the limit; with `Muted`, until when.
    pub number: u64,
    /// How long to wait before asking again, in milliseconds; 0 says nothing.
    pub retry_after_ms: u32,
}

impl WireError {
    /// A refusal with this code alone.
    pub fn new(code: ErrorCode) -> Self {
        Self { code, field: String::new(), detail: String::new(), number: 0, retry_after_ms: 0 }
    }
    /// `field` was wrong, and why.
    pub fn field(code: ErrorCode, field: &str, detail: impl Into<String>) -> Self {
        Self { field: field.to_owned(), detail: detail.into(), ..Self::new(code) }
    }
    /// With an explanation.
    pub fn detail(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..Self::new(code) }
    }
    /// With the limit that was passed, or the number that is expected.
    pub fn at(self, number: usize) -> Self {
        Self { number: number as u64, ..self }
    }
    /// Come back after this long.
    pub fn after(code: ErrorCode, retry_after_ms: u32) -> Self {
        Self { retry_after_ms, ..Self::new(code) }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.describe())?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if self.code == ErrorCode::OutOfOrder {
            write!(f, ": expected {}", self.number)?;
        }
        if self.retry_after_ms > 0 {
            write!(f, " (retry after {} ms)", self.retry_after_ms)?;
        }
        Ok(())
    }
}
