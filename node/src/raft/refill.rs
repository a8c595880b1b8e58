//! Fetches the ledger rows that a raft snapshot jumped over from the other members.
//!
//! A member whose disk was replaced begins with a raft snapshot; what was before it is as
//! much a part of its ledger. Nobody is believed: the store takes only what is proven.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dovetail_control::ports::Slot;
use dovetail_control::soft::SoftProblems;
use dovetail_process::chain;
use dovetail_process::drain::DrainWatch;
use dovetail_raft_store::{Lack, Ledger, Piece, Retention, StoreHandle, Unproven};
use dovetail_routing::LogIndex;
use dovetail_routing::state::State;
use tokio::sync::watch;
use tracing::{info, warn};

use super::hub::Hub;

/// How often it is looked whether something is lacking.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it is waited after members could not give what is lacking.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The problem that rows are lacking and cannot be had now.
const LACKING: &str = "ledger-lacking";

/// Where the others' ledgers are had from.
pub(crate) trait Source: Send + Sync {
    /// The newest of the lacking rows; none when that member does not have them.
    fn rows(&self, slot: Slot, lack: Lack) -> impl Future<Output = Result<Piece, String>> + Send;

    /// The oldest state that its ledger goes on from, as the bytes of its file.
    fn base(&self, slot: Slot) -> impl Future<Output = Result<Option<Bytes>, String>> + Send;
}

/// Members that did not give what they were asked for, each with the disk that it had.
type Accused = BTreeMap<Slot, Option<String>>;

/// The problem that a member sent what is not the quorum's.
fn problem_of(slot: Slot) -> String {
    format!("ledger-of:{slot}")
}

/// What the fetching works with.
pub(crate) struct Refill<S> {
    pub(crate) hub: Arc<Hub>,
    pub(crate) ledger: Ledger,
    pub(crate) source: Arc<S>,
    pub(crate) soft: SoftProblems,
    pub(crate) retention: Retention,
    pub(crate) state: watch::Receiver<Arc<State>>,
}

impl<S: Source> Refill<S> {
    /// Runs until the drain begins.
    pub(crate) async fn run(self, drain: DrainWatch) {
        tokio::select! {
            biased;
            () = drain.begun() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut accused = Accused::new();
        // The run of which all others were asked for a state already.
        let mut asked_state = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // Who has another disk now is not whom the problem is about.
            accused.retain(|slot, incarnation| {
                let same = self.incarnation(*slot) == *incarnation;
                if !same {
                    self.soft.clear(&problem_of(*slot));
                }
                same
            });
            let (Some(lack), Some(others)) = (self.ledger.lacks(), self.others()) else {
                continue;
            };
            info!(first = lack.first, last = lack.last, "rows of the ledger are lacking");
            let mut fetch = Fetch {
                store: &self.hub.store,
                ledger: &self.ledger,
                source: &*self.source,
                soft: &self.soft,
                retention: self.retention,
                others,
                reasons: BTreeMap::new(),
                asked_state: &mut asked_state,
            };
            let done = fetch.run(|| self.state.borrow().leader_time_ms()).await;
            for slot in fetch.reasons.into_keys() {
                accused.insert(slot, self.incarnation(slot));
            }
            if !done {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// That of the newest disk of a member.
    fn incarnation(&self, slot: Slot) -> Option<String> {
        self.hub.nodes_of(slot).pop().map(|(_, node)| node.incarnation)
    }

    /// The other members that the quorum has now; the leader, which has most to do, is last.
    /// `None` while it is not known that this member is one of them.
    fn others(&self) -> Option<Vec<Slot>> {
        use openraft::async_runtime::watch::WatchReceiver as _;
        let raft = self.hub.raft()?;
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.and_then(|id| membership.get_node(&id));
        let leader = leader.map(|node| node.slot);
        let mut slots: BTreeSet<Slot> = membership.nodes().map(|(_, node)| node.slot).collect();
        if !slots.remove(&self.hub.slot) {
            return None;
        }
        let mut others: Vec<Slot> = slots.into_iter().collect();
        others.sort_by_key(|slot| Some(*slot) == leader);
        Some(others)
    }
}

/// One try to get what is lacking.
struct Fetch<'r, S> {
    store: &'r StoreHandle,
    ledger: &'r Ledger,
    source: &'r S,
    soft: &'r SoftProblems,
    retention: Retention,
    others: Vec<Slot>,
    /// Why a member did not give what it was asked for.
    reasons: BTreeMap<Slot, String>,
    /// The first row of the run of which all others were asked for a state.
    asked_state: &'r mut Option<u64>,
}

impl<S: Source> Fetch<'_, S> {
    /// Whether nothing is lacking any more; a problem says why something is.
    async fn run(&mut self, now_ms: impl Fn() -> u64) -> bool {
        let Some(lack) = self.ledger.lacks() else { return true };
        let reasons = match self.everything(now_ms).await {
            Ok(()) if self.reasons.is_empty() => {
                self.soft.clear(LACKING);
                return true;
            }
            Ok(()) => {
                let of = |(slot, reason)| format!("member {slot}: {reason}");
                self.reasons.iter().map(of).collect::<Vec<_>>().join("; ")
            }
            Err(error) => chain(&error),
        };
        let last = self.ledger.lacks().unwrap_or(lack).last;
        let what = "this member's ledger lacks rows up to here";
        self.soft.raise(LACKING, last.to_string(), format!("{what}: {reasons}"), LogIndex(last));
        false
    }

    async fn everything(&mut self, now_ms: impl Fn() -> u64) -> Result<(), Unproven> {
        let mut keeps_older = true;
        while let Some(lack) = self.ledger.lacks() {
            keeps_older = self.store.keeps_older_rows(self.retention, now_ms()).await?;
            if !keeps_older || !self.rows(lack).await? {
                break;
            }
        }
        if self.ledger.lacks().is_none() {
            self.reasons.clear();
            info!(first = self.ledger.newest_run().0, "the ledger lacks no rows any more");
            return Ok(());
        }
        self.base().await?;
        // Whoever did not answer may have older rows.
        if !keeps_older || self.reasons.is_empty() {
            self.reasons.clear();
            self.store.settle_ledger().await?;
            let first = self.ledger.newest_run().0;
            info!(first, keeps_older, "no older rows of the ledger are to be had or to be kept");
        }
        Ok(())
    }

    /// Whether some member gave rows that are lacking.
    async fn rows(&mut self, lack: Lack) -> Result<bool, Unproven> {
        for slot in self.others.clone() {
            if self.reasons.contains_key(&slot) {
                continue;
            }
            match self.source.rows(slot, lack).await {
                Ok(piece) if piece.rows.is_empty() => {}
                Ok(piece) => match self.store.prepend_to_ledger(piece).await {
                    Ok(()) => {
                        self.soft.clear(&problem_of(slot));
                        return Ok(true);
                    }
                    Err(error) => self.refuse(slot, error)?,
                },
                Err(reason) => drop(self.reasons.insert(slot, reason)),
            }
        }
        Ok(false)
    }

    /// An older state, from whoever has one that is of use.
    async fn base(&mut self) -> Result<(), Unproven> {
        let (first, _) = self.ledger.newest_run();
        if !self.ledger.lacks_state() || *self.asked_state == Some(first) {
            return Ok(());
        }
        for slot in self.others.clone() {
            match self.source.base(slot).await {
                Ok(None) => {}
                Ok(Some(base)) => match self.store.take_ledger_base(base).await {
                    Ok(false) => {}
                    Ok(true) => break,
                    Err(error) => self.refuse(slot, error)?,
                },
                Err(reason) => drop(self.reasons.insert(slot, reason)),
            }
        }
        if self.reasons.is_empty() {
            *self.asked_state = Some(first);
        }
        Ok(())
    }

    /// Says that a member sent what is not the quorum's; an error when it is not to blame.
    fn refuse(&mut self, slot: Slot, error: Unproven) -> Result<(), Unproven> {
        let index = match &error {
            Unproven::Rows(broken) => broken.index,
            Unproven::State { index, .. } => *index,
            Unproven::Own { .. } | Unproven::Disk(_) => return Err(error),
        };
        let reason = chain(&error);
        warn!(slot, index, reason, "what a member sent of its ledger was refused");
        let told = format!(
            "member {slot} sent this member what is not the quorum's ledger: {reason} (see \
             `dovetail log verify`)"
        );
        self.soft.raise(&problem_of(slot), index.to_string(), told, LogIndex(index));
        self.reasons.insert(slot, reason);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
