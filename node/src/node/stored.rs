//! What storage is started with.

use std::time::Duration;

use magpie_cluster::{DiskId, Part, ShardLimits, StorageConfig, log::LogLimits};

use super::{ALONE, Options};
use crate::Config;

/// As configured.
pub(super) fn storage_config(config: &Config, options: &Options, disk: DiskId) -> StorageConfig {
    let storage = &config.storage;
    StorageConfig {
        dir: config.node.data_dir.clone(),
        node: options.others.as_ref().map_or(ALONE, |others| others.me),
        disk,
        part: options.others.as_ref().map_or(Part::default(), |others| others.part.clone()),
        lost_after: Duration::from_secs(config.cluster.replace_after_s),
        audit_every: Duration::from_secs(config.cluster.audit_every_s),
        catch_up_bytes: config.cluster.catch_up_mb_per_s.saturating_mul(1_000_000),
        level: options.level,
        serve_within: options.serve_within,
        shards: storage.shards,
        state_in_memory: options.state_in_memory,
        threads: options.threads,
        sled_cache_bytes: storage.state_cache_bytes,
        log: LogLimits { segment_bytes: storage.log_segment_bytes, reserve_bytes: storage.log_reserve_bytes },
        shard: ShardLimits {
            checkpoint_bytes: storage.checkpoint_bytes,
            checkpoint_ms: storage.checkpoint_ms,
            snapshot_bytes_min: storage.snapshot_bytes_min,
            snapshot_age_ms: storage.snapshot_age_s * 1_000,
            cache_bytes: storage.cache_bytes / usize::from(storage.shards),
            ..ShardLimits::default()
        },
    }
}
