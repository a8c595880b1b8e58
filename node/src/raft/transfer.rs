//! Leadership given to another voter, without an election's pause.

use std::time::{Duration, Instant};

use dovetail_raft_store::{ELECTION_MAX_MS, Raft};
use openraft::async_runtime::watch::WatchReceiver as _;
use tracing::{info, warn};

/// A transfer has no abort: after this the others elect a leader by themselves.
const TRANSFER_TIMEOUT: Duration = Duration::from_millis(2 * ELECTION_MAX_MS);

/// Hands over to a voter, and says whether it leads now.
pub(crate) async fn leadership(raft: &Raft, target: u64) -> bool {
    let begun = Instant::now();
    if let Err(error) = raft.trigger().transfer_leader(target).await {
        warn!(%error, "leadership not handed over");
        return false;
    }
    let mut metrics = raft.metrics();
    let handed = tokio::time::timeout(TRANSFER_TIMEOUT, async {
        while metrics.borrow_watched().current_leader != Some(target) {
            if metrics.changed().await.is_err() {
                return false;
            }
        }
        true
    });
    match handed.await {
        Ok(true) => {
            info!(to = target, took = ?begun.elapsed(), "leadership handed over");
            true
        }
        Ok(false) => false,
        Err(_) => {
            warn!(to = target, "no new leader in time: the others elect one");
            false
        }
    }
}
