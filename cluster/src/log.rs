//! The consensus log of every shard of a node: one file at a time, one writer, one sync for all that waits.
//!
//! [`format`](mod@format) is the bytes, [`segments`] the files and what recovery makes of them, [`writer`] the thread
//! that writes and syncs, [`shard_log`] what one shard sees: its entries by index, the newest of them in memory, the
//! places of the older ones in [`anchors`].

mod anchors;
pub mod format;
pub mod segments;
pub mod shard_log;
pub mod writer;

pub use format::{Position, Record, RecordKind};
pub use segments::{LogError, LogLimits, Recovered};
pub use shard_log::{LogEntry, ShardLog};
pub use writer::LogWriter;
