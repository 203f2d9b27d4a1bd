//! What can go wrong for an app.

use std::path::PathBuf;

use magpie_protocol::{UserId, WireError};

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused, finally.
    #[error("refused: {0}")]
    Refused(WireError),
    /// No answer in time: it may or may not have happened. Asking again with the same id is safe.
    #[error("the outcome is not known: ask again")]
    Unknown,
    /// The server could not be reached in time; nothing was sent.
    #[error("not connected: {0}")]
    Offline(String),
    /// There is no signed-in session; sign in first.
    #[error("not signed in")]
    NotSignedIn,
    /// This store is signed in already.
    #[error("already signed in as {0}")]
    AlreadySignedIn(UserId),
    /// The store belongs to another account than the one that signed in: use a store of its own.
    #[error("the store belongs to {store}, not to {signed_in}")]
    WrongAccount { store: UserId, signed_in: UserId },
    /// The device was signed out; sign in with the password.
    #[error("this device was signed out")]
    SignedOut,
    /// A newer session of this device took over.
    #[error("a newer session of this device took over")]
    Replaced,
    /// What was to be sent is not acceptable; nothing was stored.
    #[error("{field} is not acceptable: {detail}")]
    Invalid { field: &'static str, detail: String },
    /// A file could not be read or written.
    #[error("file: {0}")]
    File(String),
    /// The local store failed.
    #[error("the local store failed: {0}")]
    Store(String),
    /// Another process, or another client of this one, holds the store.
    #[error("{} is in use by another client", .0.display())]
    StoreInUse(PathBuf),
    /// A socket could not be made.
    #[error("network: {0}")]
    Network(String),
    /// The trust that was given cannot be used.
    #[error("tls: {0}")]
    Tls(String),
    /// The server answered with something else than what was asked.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}
