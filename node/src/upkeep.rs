//! What keeps a member's disk bounded: raft snapshots, and the ledger's retention.

use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::DrainWatch;
use dovetail_raft_store::Retention;
use dovetail_routing::state::State;
use tokio::sync::watch;
use tracing::warn;

use crate::raft::hub::Hub;

/// How often it is looked whether a raft snapshot is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the ledger is trimmed: once in so many looks.
const TRIM_LOOKS: u64 = 60;

/// Runs until the drain begins.
pub(crate) async fn run(
    hub: Arc<Hub>,
    retention: Retention,
    state: watch::Receiver<Arc<State>>,
    drain: DrainWatch,
) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    for look in 1_u64.. {
        tokio::select! {
            biased;
            () = drain.begun() => return,
            _ = looks.tick() => {}
        }
        if let Some(raft) = hub.raft().filter(|_| hub.store.should_snapshot())
            && let Err(error) = raft.trigger().snapshot().await
        {
            warn!(%error, "raft snapshot not begun");
        }
        if look % TRIM_LOOKS == 0 {
            let now_ms = state.borrow().leader_time_ms();
            let trimmed = hub.store.trim_ledger(retention, now_ms).await;
            if let Err(error) = trimmed {
                warn!(error = %dovetail_process::chain(&error), "ledger not trimmed");
            }
        }
    }
}
