//! What can go wrong for an app.

use magpie_client::{Error, WireError};

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum ClientError {
    /// The server refused, finally.
    #[error("refused: {code:?} {field} {detail}")]
    Refused {
        /// Why, for a program.
        code: ErrorCode,
        /// The field that was wrong, or empty.
        field: String,
        /// What was wrong, for a person, or empty.
        detail: String,
        /// With a limit, the limit; with `Muted`, until when, in milliseconds since 1970, 0 for no end; else 0.
        number: u64,
        /// How long to wait before asking again, in milliseconds; 0 says nothing.
        retry_after_ms: u32,
    },
    /// No answer in time: it may or may not have happened. Asking again is safe.
    #[error("the outcome is not known: ask again")]
    Unknown,
    /// The server could not be reached in time; nothing was sent.
    #[error("not connected: {detail}")]
    Offline {
        /// Why, for a person.
        detail: String,
    },
    /// There is no signed-in session; sign in first.
    #[error("not signed in")]
    NotSignedIn,
    /// This store is signed in already.
    #[error("already signed in: {detail}")]
    AlreadySignedIn {
        /// As whom, for a person.
        detail: String,
    },
    /// The store belongs to another account than the one that signed in: use a store of its own.
    #[error("the store belongs to another account: {detail}")]
    WrongAccount {
        /// Whose it is, for a person.
        detail: String,
    },
    /// The device was signed out; sign in with the password.
    #[error("this device was signed out")]
    SignedOut,
    /// A newer session of this device took over; `resume` takes it back.
    #[error("a newer session of this device took over")]
    Replaced,
    /// What was asked for is not acceptable; nothing was sent or stored.
    #[error("{field} is not acceptable: {detail}")]
    Invalid {
        /// What is not.
        field: String,
        /// Why, for a person.
        detail: String,
    },
    /// A file could not be read or written.
    #[error("file: {detail}")]
    File {
        /// Which and why, for a person.
        detail: String,
    },
    /// The local store failed, such as for a disk that is full.
    #[error("the local store failed: {detail}")]
    Store {
        /// Why, for a person.
        detail: String,
    },
    /// Another process, or another client of this one, holds the store.
    #[error("the store is in use: {detail}")]
    StoreInUse {
        /// Which, for a person.
        detail: String,
    },
    /// A socket could not be made, a name not be resolved, or the certificate not be used.
    #[error("network: {detail}")]
    Network {
        /// Why, for a person.
        detail: String,
    },
    /// The server answered with something else than what was asked, or this library is too old for what it said.
    #[error("the server broke the protocol: {detail}")]
    Protocol {
        /// How, for a person.
        detail: String,
    },
    /// The client was shut down.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    pub(crate) fn invalid(field: &str, detail: impl std::fmt::Display) -> Self {
        Self::Invalid { field: field.to_owned(), detail: detail.to_string() }
    }
}

impl From<Error> for ClientError {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::Refused(WireError { code, field, detail, number, retry_after_ms }) => {
                Self::Refused { code: code.into(), field, detail, number, retry_after_ms }
            }
            Error::Unknown => Self::Unknown,
            Error::Offline(detail) => Self::Offline { detail },
            Error::NotSignedIn => Self::NotSignedIn,
            Error::AlreadySignedIn(_) => Self::AlreadySignedIn { detail },
            Error::WrongAccount { .. } => Self::WrongAccount { detail },
            Error::SignedOut => Self::SignedOut,
            Error::Replaced => Self::Replaced,
            Error::Invalid { field, detail } => Self::Invalid { field: field.to_owned(), detail },
            Error::File(detail) => Self::File { detail },
            Error::Store(detail) => Self::Store { detail },
            Error::StoreInUse(_) => Self::StoreInUse { detail },
            Error::Network(detail) => Self::Network { detail },
            Error::Tls(_) => Self::Network { detail },
            Error::Protocol(detail) => Self::Protocol { detail },
            Error::Closed => Self::Closed,
            // The SDK may come to know more: what it says of it is there all the same.
            _ => Self::Protocol { detail },
        }
    }
}

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident,)+) => {
        /// Why the server refused: one closed set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, uniffi::Enum)]
        pub enum ErrorCode { $($(#[$meta])* $name,)+ }

        // No catch-all: a code that is new in the protocol must be named here too.
        impl From<magpie_client::ErrorCode> for ErrorCode {
            fn from(code: magpie_client::ErrorCode) -> Self {
                match code { $(magpie_client::ErrorCode::$name => Self::$name,)+ }
            }
        }
    };
}

codes! {
    /// The bytes are no frame.
    BadFrame,
    /// There is no common version of the protocol.
    UnsupportedVersion,
    /// Sign in first.
    NotSignedIn,
    /// Wrong handle or password.
    BadCredentials,
    /// Too many tries: wait.
    TooManyTries,
    /// This handle belongs to somebody else.
    HandleTaken,
    /// A value is not acceptable; `field` names it.
    Invalid,
    /// It does not exist, or the asker may not know that it does.
    NotFound,
    /// Not allowed.
    NotAllowed,
    /// This id was used before with other content.
    IdReused,
    /// Resolved long ago; its answer is no longer kept.
    AlreadyResolved,
    /// An earlier number is missing.
    OutOfOrder,
    /// Too busy: come back later.
    Overloaded,
    /// The node's disk is full; nothing was changed.
    StorageFull,
    /// Not available right now.
    Unavailable,
    /// The outcome is not known.
    Unknown,
    /// An error of the server's.
    Internal,
    /// A newer session of this device took over.
    SessionReplaced,
    /// This device was signed out; sign in with the password.
    SignedOut,
    /// A limit is reached; `number` says which.
    LimitReached,
    /// Too many requests: wait.
    RateLimited,
    /// Too large.
    TooLarge,
    /// The node is stopping.
    ShuttingDown,
    /// That is so already.
    AlreadyDone,
    /// This person takes no messages from you.
    Blocked,
    /// You are not contacts.
    NotContacts,
    /// You may not write here now; `number` says until when.
    Muted,
    /// The time for this is over.
    TooLate,
}
