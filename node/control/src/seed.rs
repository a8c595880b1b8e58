//! A file's cluster keys become the cluster's configuration (decision 9).

use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::DrainWatch;
use dovetail_routing::entry::{Applied, ClusterConfig, Command, Payload};
use tokio::time::sleep;

use crate::ports::{Fence, Proposal, Quorum, Slot};
use crate::reconcile::{fence_ended, fence_gained};
use crate::soft::SoftProblems;
use crate::telemetry;

/// The soft problem of a configuration that cannot be put in force.
const PROBLEM: &str = "configuration: seed";
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Proposes a file's configuration while this member leads: when the log has none,
/// or when the one in force was seeded from another file.
#[derive(Debug)]
pub struct Seeder<Q> {
    quorum: Arc<Q>,
    config: ClusterConfig,
    actor: Arc<str>,
    soft: SoftProblems,
}

impl<Q: Quorum> Seeder<Q> {
    /// Seeds the `config` that the file of member `slot` holds.
    pub fn new(quorum: Arc<Q>, config: ClusterConfig, slot: Slot, soft: SoftProblems) -> Self {
        Self { quorum, config, actor: format!("dovetail://member/{slot}").into(), soft }
    }

    /// Runs until the drain begins.
    pub async fn run(self, drain: DrainWatch) {
        let mut view = self.quorum.view();
        while let Some(fence) = fence_gained(&mut view, &drain).await {
            tokio::select! {
                biased;
                () = drain.begun() => return,
                () = fence_ended(&mut view, fence) => {}
                () = self.seed(fence) => fence_ended(&mut view, fence).await,
            }
            self.soft.clear(PROBLEM);
        }
    }

    async fn seed(&self, fence: Fence) {
        let mut pause = PAUSE;
        while !self.attempt(fence).await {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Whether there is nothing more to do.
    async fn attempt(&self, fence: Fence) -> bool {
        if self.quorum.read_barrier().await.is_err() {
            return false;
        }
        let state = Arc::clone(&self.quorum.state().borrow());
        if let Some(known) = state.config() {
            if known.source == self.config.source {
                return true;
            }
            telemetry::configuration_differs(self.config.source, known.source);
        }
        let proposal = Proposal {
            actor: Arc::clone(&self.actor),
            // Unlike that of any earlier attempt: a file may go back to what it was.
            request_id: format!("seed-{}-{}", self.config.source, state.applied_index()).into(),
            cause: "seeded from --config".into(),
            payload: Payload::Command(Command::ApplyConfig(self.config.clone())),
        };
        match self.quorum.propose(fence, proposal).await {
            Ok((index, Applied::Rejected(rejection))) => {
                telemetry::proposal_rejected(index, &rejection);
                let reason = format!("the configuration of --config was refused: {rejection}");
                self.soft.raise(PROBLEM, "--config", reason, index);
                // The same would be refused again.
                true
            }
            Ok((index, _)) => {
                telemetry::configuration_seeded(index);
                true
            }
            Err(error) => {
                telemetry::proposal_failed(&error);
                false
            }
        }
    }
}
