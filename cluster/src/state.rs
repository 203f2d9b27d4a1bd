//! The state of a shard: records by key and timelines by number, in memory over a state store.
//!
//! [`Store`] is what reads are served from, [`Tx`] the staged writes of one command, [`base`] what lies below
//! memory. Between checkpoints the base is a fixed view; a checkpoint folds what changed since and writes it off
//! the hot path.

pub mod base;
mod chain;
mod entries;
pub mod key;
pub mod layers;
pub mod memory;
mod runs;
pub mod sled;
pub mod store;
pub mod tx;

#[cfg(test)]
mod tests;

pub use base::{Applied, StateBase, StateError};
pub use key::{Key, Record, table};
pub use store::{Frozen, Store, TimelineView};
pub use tx::Tx;
