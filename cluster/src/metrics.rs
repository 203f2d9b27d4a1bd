//! Every name that this crate counts under, and what it means.

/// Groups written to the log: each is one write and at most one sync.
pub const LOG_GROUPS: &str = "magpie_cluster_log_groups_total";
/// Bytes written to the log.
pub const LOG_BYTES: &str = "magpie_cluster_log_bytes_total";
/// Commands applied, refused ones included.
pub const COMMANDS_APPLIED: &str = "magpie_cluster_commands_applied_total";
/// Batches applied: each is one consensus entry.
pub const BATCHES_APPLIED: &str = "magpie_cluster_batches_applied_total";
/// Entities that are quarantined because a command made `apply` panic.
pub const ENTITIES_QUARANTINED: &str = "magpie_cluster_entities_quarantined_total";
/// Records that checkpoints wrote to the state store.
pub const CHECKPOINT_RECORDS: &str = "magpie_cluster_checkpoint_records_total";
/// Time that each checkpoint took, off the hot path.
pub const CHECKPOINT_SECONDS: &str = "magpie_cluster_checkpoint_seconds";
/// Bytes of snapshots written.
pub const SNAPSHOT_BYTES: &str = "magpie_cluster_snapshot_bytes_total";
/// Memory for records and timelines in use, of each shard: at most its part of `storage.cache-bytes`.
pub const CACHE_BYTES: &str = "magpie_cluster_cache_bytes";
/// Messages that went from one shard to another.
pub const OUTBOX_DELIVERED: &str = "magpie_cluster_outbox_delivered_total";

/// Reads that were answered by a replica that may be behind its leader.
pub const READS_BEHIND: &str = "magpie_cluster_reads_behind_total";

/// Requests that were not sent to another node because it would have refused them.
pub const REFUSED_EARLY: &str = "magpie_cluster_refused_early_total";
/// Times that a request was not asked of other nodes again, because too much was already.
pub const RETRIES_HELD: &str = "magpie_cluster_retries_held_total";

/// Counts what happens often: the counter is looked up once.
#[macro_export]
macro_rules! count {
    ($name:expr, $by:expr) => {{
        static COUNTER: std::sync::OnceLock<metrics::Counter> = std::sync::OnceLock::new();
        COUNTER.get_or_init(|| metrics::counter!($name)).increment($by);
    }};
}

/// Tells the recorder what the names mean.
pub fn describe() {
    metrics::describe_counter!(LOG_GROUPS, "groups written to the log, one write and at most one sync each");
    metrics::describe_counter!(LOG_BYTES, metrics::Unit::Bytes, "bytes written to the log");
    metrics::describe_counter!(COMMANDS_APPLIED, "commands applied, refused ones included");
    metrics::describe_counter!(BATCHES_APPLIED, "batches applied, one consensus entry each");
    metrics::describe_counter!(ENTITIES_QUARANTINED, "entities quarantined after a panic in apply");
    metrics::describe_counter!(CHECKPOINT_RECORDS, "records written to the state store by checkpoints");
    metrics::describe_histogram!(CHECKPOINT_SECONDS, metrics::Unit::Seconds, "time that each checkpoint took");
    metrics::describe_gauge!(CACHE_BYTES, metrics::Unit::Bytes, "memory for records and timelines in use");
    metrics::describe_counter!(SNAPSHOT_BYTES, metrics::Unit::Bytes, "bytes of snapshots written");
    metrics::describe_counter!(READS_BEHIND, "reads answered by a replica that may be behind its leader");
    metrics::describe_counter!(REFUSED_EARLY, "requests not sent to a node that would have refused them");
    metrics::describe_counter!(RETRIES_HELD, "times that a request was not asked again, because too much was already");
    metrics::describe_counter!(OUTBOX_DELIVERED, "messages delivered from one shard to another");
}
