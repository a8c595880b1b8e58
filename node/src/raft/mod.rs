//! Raft between members: openraft on one side, the ports of `control` on the other.
//!
//! Only this module and `dovetail-raft-store` name openraft.
//!
//! * [`formation`]: how empty disks become a quorum, once;
//! * [`hub`]: what all parts share: the disk's owner, and Raft once it runs;
//! * [`network`]: RPCs out; [`server`]: RPCs in;
//! * [`quorum`]: the `Quorum` port: proposals, reads, the view of the quorum;
//! * [`members`]: who the members are, and changes of it; [`removal`]: being out;
//! * [`transfer`]: leadership given to another voter;
//! * [`peers`]: the `Peers` port: other members, asked directly;
//! * [`audit`]: this member's ledger, for whoever exports or checks it.

pub(crate) mod audit;
pub(crate) mod formation;
pub(crate) mod hub;
pub(crate) mod members;
pub(crate) mod network;
pub(crate) mod peers;
pub(crate) mod quorum;
pub(crate) mod removal;
pub(crate) mod server;
pub(crate) mod transfer;

use std::sync::Arc;

/// Timers of the quorum. A kill is noticed after 300 ms (the lease of a
/// follower) and answered by an election within the next 200 to 300 ms.
pub(crate) const HEARTBEAT_MS: u64 = 60;
pub(crate) const ELECTION_MIN_MS: u64 = 200;
pub(crate) const ELECTION_MAX_MS: u64 = 300;

/// Entries kept behind a raft snapshot, so that a follower catches up by log.
const LOG_KEPT_ENTRIES: u64 = 50_000;

/// openraft's configuration: see `DECISIONS.md` for the timers.
pub(crate) fn config() -> Result<Arc<openraft::Config>, openraft::ConfigError> {
    let config = openraft::Config {
        cluster_name: "dovetail".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        enable_pre_vote: Some(true),
        // Raft snapshots are triggered by the store's own rule.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: LOG_KEPT_ENTRIES,
        replication_lag_threshold: LOG_KEPT_ENTRIES,
        purge_batch_size: 1_024,
        install_snapshot_timeout: 120_000,
        backoff: "50ms 100ms 200ms ...1s".to_owned(),
        ..openraft::Config::default()
    };
    Ok(Arc::new(config.validate()?))
}
