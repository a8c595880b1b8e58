//! How openraft is set up: the product's timers, which a simulation runs with too.

use std::sync::Arc;

/// Timers of the quorum. A kill is noticed after 300 ms (the lease of a
/// follower) and answered by an election within the next 200 to 300 ms.
pub const HEARTBEAT_MS: u64 = 60;
pub const ELECTION_MIN_MS: u64 = 200;
pub const ELECTION_MAX_MS: u64 = 300;

/// Entries kept behind a raft snapshot, so that a follower catches up by log.
pub const LOG_KEPT_ENTRIES: u64 = 50_000;

/// openraft's configuration, with so many entries kept behind a raft snapshot: see
/// `DECISIONS.md` for the timers. An error is a combination that openraft refuses.
pub fn raft_config(kept_entries: u64) -> Result<Arc<openraft::Config>, openraft::ConfigError> {
    let config = openraft::Config {
        cluster_name: "dovetail".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        enable_pre_vote: Some(true),
        // A leader whose power went may have lost entries that a quorum without it has
        // committed. If it went on in its old term, it would write others under their ids.
        enable_leader_restore: Some(false),
        // Raft snapshots are triggered by the store's own rule.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: kept_entries,
        replication_lag_threshold: LOG_KEPT_ENTRIES,
        // In batches, but not so large ones that more is kept than was asked for.
        purge_batch_size: kept_entries.clamp(1, 1_024),
        install_snapshot_timeout: 120_000,
        backoff: "50ms 100ms 200ms ...1s".to_owned(),
        ..openraft::Config::default()
    };
    Ok(Arc::new(config.validate()?))
}
