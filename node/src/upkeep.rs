//! What keeps a member's disk bounded and whole: raft snapshots, the ledger's retention, and
//! its oldest state.

use std::sync::Arc;
use std::time::Duration;

use dovetail_control::soft::SoftProblems;
use dovetail_process::chain;
use dovetail_process::drain::DrainWatch;
use dovetail_raft_store::Retention;
use dovetail_routing::LogIndex;
use dovetail_routing::state::State;
use tokio::sync::watch;
use tracing::warn;

use crate::raft::hub::Hub;

/// How often it is looked whether a raft snapshot is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the ledger is trimmed: once in so many looks.
const TRIM_LOOKS: u64 = 60;
/// How often the ledger's oldest state is read: once in so many, and first after a minute,
/// when a member that starts has other things done.
const BASE_LOOKS: u64 = 3_600;
/// The problem that the ledger's oldest state is damaged.
const DAMAGED: &str = "ledger-base";

/// What the upkeep works with.
pub(crate) struct Upkeep {
    pub(crate) hub: Arc<Hub>,
    pub(crate) soft: SoftProblems,
    pub(crate) retention: Retention,
    pub(crate) state: watch::Receiver<Arc<State>>,
}

impl Upkeep {
    /// Runs until the drain begins.
    pub(crate) async fn run(self, drain: DrainWatch) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        for look in 0_u64.. {
            tokio::select! {
                biased;
                () = drain.begun() => return,
                _ = looks.tick() => {}
            }
            if let Some(raft) = self.hub.raft().filter(|_| self.hub.store.should_snapshot())
                && let Err(error) = raft.trigger().snapshot().await
            {
                warn!(%error, "raft snapshot not begun");
            }
            if look % BASE_LOOKS == TRIM_LOOKS {
                self.mend_bases().await;
            }
            if look > 0 && look % TRIM_LOOKS == 0 {
                self.trim().await;
                if !self.hub.store.lacks_ledger_state() {
                    self.soft.clear(DAMAGED);
                }
            }
        }
    }

    async fn trim(&self) {
        let now_ms = self.state.borrow().leader_time_ms();
        if let Err(error) = self.hub.store.trim_ledger(self.retention, now_ms).await {
            warn!(error = %chain(&error), "ledger not trimmed");
        }
    }

    async fn mend_bases(&self) {
        let reasons = match self.hub.store.mend_ledger_bases().await {
            Ok(reasons) if reasons.is_empty() => return,
            Ok(reasons) => reasons.join("; "),
            Err(error) => chain(&error),
        };
        let at = LogIndex(self.hub.store.ledger_first());
        let told = format!(
            "history cannot be told from the oldest entry on, until another member gave what is \
             damaged: {reasons}"
        );
        self.soft.raise(DAMAGED, at.0.to_string(), told, at);
    }
}
