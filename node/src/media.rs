//! Media: blobs named by their hash, uploads that resume, and who may fetch what.
//!
//! The bytes lie in an object store ([`store`]), in pieces, under the blob and the attempt that brought them: nothing
//! that was written there is ever written again, and an attempt has one writer. What is durable state is small: of a
//! blob which attempt holds it, how many messages name it, and until when it is kept without one; of a person what
//! they brought and may name, and how much that is.

pub mod actor;
pub mod api;
pub mod command;
mod download;
pub mod holdings;
pub mod state;
pub mod store;
mod upload;

pub use actor::Media;
pub use command::Command;
pub use state::{Query, View};
