//! Checkpoints: the leader asks what members hold, and writes down what a majority does.
//!
//! A member that finds in its own log that it held something else has diverged: it serves
//! nobody, and does not lead. Without a majority nothing is written, and all serve on: who
//! is right cannot be known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::DrainWatch;
use dovetail_process::ready::Check;
use dovetail_proto::v1 as pb;
use dovetail_routing::{Digest, LogIndex, Payload};
use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::observe::Observe;
use crate::ports::{Fence, Peers, Proposal, Quorum, QuorumView, Slot};
use crate::reconcile::or_drain;
use crate::services::Core;
use crate::soft::SoftProblems;
use crate::telemetry;

/// Between two looks, and so between two checkpoints at least.
const EVERY: Duration = Duration::from_secs(1);
/// The longest wait for a member's word.
const REPORT: Duration = Duration::from_secs(1);
/// The soft problem of members that hold different states, none of them a majority.
const NO_MAJORITY: &str = "checkpoint: no majority";
/// The soft problem of a member that diverged, on that member.
const DIVERGED: &str = "checkpoint: diverged";
/// The soft problems of others that diverged, on the leader; the slot follows.
const OTHER: &str = "checkpoint: member ";

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Without a further entry for so long, the last one is checked too.
    pub idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60) }
    }
}

/// What a member said of an index: state and ledger.
type Report = (Digest, Digest);

/// The job; each member runs it, and only the leader asks and writes.
#[derive(Debug)]
pub struct Checkpointer<Q, P> {
    quorum: Arc<Q>,
    peers: Arc<P>,
    soft: SoftProblems,
    check: Check,
    config: Config,
    /// The newest applied index that was seen, and since when.
    newest: (u64, Instant),
    /// What was written last under this leadership, so that nothing is written twice.
    written: u64,
}

impl<Q: Quorum, P: Peers> Checkpointer<Q, P> {
    /// `check` says whether this member agrees with the quorum.
    pub fn new<D: Observe>(core: &Core<Q, P, D>, check: Check, config: Config) -> Self {
        Self {
            quorum: Arc::clone(&core.quorum),
            peers: Arc::clone(&core.peers),
            soft: core.soft.clone(),
            check,
            config,
            newest: (0, Instant::now()),
            written: 0,
        }
    }

    /// Runs until the drain begins.
    pub async fn run(mut self, drain: DrainWatch) {
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while or_drain(&drain, every.tick()).await.is_some() {
            if or_drain(&drain, self.look()).await.is_none() {
                return;
            }
        }
    }

    async fn look(&mut self) {
        match self.quorum.diverged() {
            None => self.check.set_ok(),
            Some(reason) => {
                self.check.set_not_ready(reason.clone());
                let since = self.quorum.state().borrow().applied_index();
                self.soft.raise(DIVERGED, "checkpoint", reason, since);
                self.quorum.step_down().await;
                return;
            }
        }
        let view = self.quorum.view().borrow().clone();
        let Some(fence) = view.fence else {
            self.forget();
            return;
        };
        if let Some(index) = self.due() {
            self.checkpoint(&view, fence, index).await;
        }
    }

    /// A follower knows nothing of the others.
    fn forget(&mut self) {
        self.soft.clear(NO_MAJORITY);
        self.soft.clear_all(OTHER);
        self.written = 0;
    }

    /// The index that is to be compared now.
    fn due(&mut self) -> Option<u64> {
        let places = self.quorum.marks();
        if places.newest != self.newest.0 {
            self.newest = (places.newest, Instant::now());
        }
        let done = places.compared.max(self.written);
        if let Some(mark) = places.newest_mark.filter(|mark| *mark > done) {
            return Some(mark);
        }
        // A checkpoint's own entry is no change.
        let idle = self.newest.1.elapsed() >= self.config.idle;
        (idle && places.newest > places.checkpoint.max(done)).then_some(places.newest)
    }

    async fn checkpoint(&mut self, view: &QuorumView, fence: Fence, index: u64) {
        let voters: Vec<Slot> =
            view.members.iter().filter(|one| one.voter).map(|one| one.slot).collect();
        let reports = join_all(voters.iter().map(|slot| self.report(view, *slot, index))).await;
        let reports: Vec<(Slot, Report)> = voters
            .iter()
            .zip(reports)
            .filter_map(|(slot, report)| Some((*slot, report?)))
            .collect();
        let mut votes = BTreeMap::<Report, usize>::new();
        for (_, report) in &reports {
            *votes.entry(*report).or_default() += 1;
        }
        let majority = voters.len() / 2 + 1;
        let agreed = votes.iter().find(|(_, count)| **count >= majority).map(|(report, _)| *report);
        let Some(agreed) = agreed else {
            // Members that are behind or away will answer another time.
            if votes.len() > 1 && reports.len() >= majority {
                let reason = format!(
                    "no checkpoint: at index {index} members hold {} different states, none of \
                     them a majority's: compare them with dovetail log verify",
                    votes.len()
                );
                telemetry::checkpoint_without_majority(index);
                self.soft.raise(NO_MAJORITY, "checkpoint", reason, LogIndex(index));
            }
            return;
        };
        self.soft.clear(NO_MAJORITY);
        self.tell_of_others(view, &reports, agreed, index);
        let proposal = Proposal {
            actor: format!("dovetail://member/{}", view.this).into(),
            request_id: "".into(),
            cause: format!("{} of {} members agree", votes[&agreed], voters.len()).into(),
            payload: Payload::Checkpoint {
                index: LogIndex(index),
                state: agreed.0,
                ledger: agreed.1,
            },
        };
        match self.quorum.propose(fence, proposal).await {
            Ok(_) => self.written = index,
            // Whether it was written is seen in the log; else it is due again.
            Err(error) => telemetry::checkpoint_not_written(index, &error),
        }
    }

    fn tell_of_others(
        &self,
        view: &QuorumView,
        reports: &[(Slot, Report)],
        agreed: Report,
        index: u64,
    ) {
        for (slot, report) in reports {
            let key = format!("{OTHER}{slot}");
            if *report == agreed {
                self.soft.clear(&key);
            } else if *slot != view.this {
                let reason = format!(
                    "member {slot} holds another state at index {index} than the majority: it \
                     serves nobody from now on; replace it (dovetail member replace {slot})"
                );
                self.soft.raise(&key, format!("member {slot}"), reason, LogIndex(index));
            }
        }
    }

    async fn report(&self, view: &QuorumView, slot: Slot, index: u64) -> Option<Report> {
        let answer = if slot == view.this {
            self.quorum.held(index).await
        } else {
            timeout(REPORT, self.peers.held(slot, index)).await.ok()?
        };
        let pb::HeldResponse { state, ledger } = answer.ok()?;
        let digest = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).ok().map(Digest);
        Some((digest(state)?, digest(ledger)?))
    }
}

#[cfg(test)]
mod tests;
