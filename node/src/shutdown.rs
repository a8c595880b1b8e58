//! The order in which things end: not ready, leadership handed over, feed and
//! admin drained, then Raft and the disk.

use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::{Drain, Drained};
use dovetail_process::ready::Readiness;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::raft::hub::Hub;
use crate::raft::transfer;

/// How long proxies and operators may take to go elsewhere.
const GRACE: Duration = Duration::from_secs(3);

pub(crate) async fn run(
    hub: &Arc<Hub>,
    readiness: &Readiness,
    drain: Drain,
    stop_serving: oneshot::Sender<()>,
) {
    readiness.register("shutdown").set_not_ready("the member is shutting down");
    hand_over(hub).await;
    let drained = drain.finish(GRACE).await;
    if let Drained::CutOff { jobs } = drained {
        warn!(jobs, "cut off at the end of the grace period");
    }
    if let Some(raft) = hub.raft()
        && let Err(error) = raft.shutdown().await
    {
        warn!(%error, "raft did not end by itself");
    }
    // Dropped or sent, it means the same; the server's connections end with the process.
    let _ = stop_serving.send(());
    info!("member ended");
}

/// Gives the leadership to the voter that has the most of the log.
async fn hand_over(hub: &Arc<Hub>) {
    let Some(raft) = hub.raft() else { return };
    let metrics = raft.metrics().borrow_watched().clone();
    if metrics.state != openraft::ServerState::Leader {
        return;
    }
    let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
    let best = metrics
        .replication
        .iter()
        .flatten()
        .filter(|(id, _)| voters.contains(id) && **id != metrics.id)
        .max_by_key(|(_, matched)| matched.as_ref().map(|id| id.index));
    let Some((&target, _)) = best else { return };
    transfer::leadership(raft, target).await;
}
