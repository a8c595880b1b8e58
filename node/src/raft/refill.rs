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
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(lack) = self.ledger.lacks().filter(|_| self.hub.raft().is_some()) else {
                continue;
            };
            info!(first = lack.first, last = lack.last, "rows of the ledger are lacking");
            let mut fetch = Fetch {
                store: &self.hub.store,
                ledger: &self.ledger,
                source: &*self.source,
                soft: &self.soft,
                retention: self.retention,
                others: self.others(),
                reasons: BTreeMap::new(),
            };
            if !fetch.run(|| self.state.borrow().leader_time_ms()).await {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// The other members that the quorum has now; the leader, which has most to do, is last.
    fn others(&self) -> Vec<Slot> {
        use openraft::async_runtime::watch::WatchReceiver as _;
        let Some(raft) = self.hub.raft() else { return Vec::new() };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.and_then(|id| membership.get_node(&id));
        let leader = leader.map(|node| node.slot);
        let slots: BTreeSet<Slot> = membership
            .nodes()
            .map(|(_, node)| node.slot)
            .filter(|slot| *slot != self.hub.slot)
            .collect();
        let mut others: Vec<Slot> = slots.into_iter().collect();
        others.sort_by_key(|slot| Some(*slot) == leader);
        others
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
        while let Some(lack) = self.ledger.lacks() {
            if self.store.is_ledger_full(self.retention, now_ms()).await? {
                self.reasons.clear();
                return self.settle("what is older is past what is kept").await;
            }
            if !self.rows(lack).await? {
                break;
            }
        }
        if self.ledger.lacks().is_none() {
            self.reasons.clear();
            info!(first = self.ledger.newest_run().0, "the ledger lacks no rows any more");
            return Ok(());
        }
        // Whoever did not answer may have older ones.
        if self.reasons.is_empty() {
            self.base().await?;
        }
        if self.reasons.is_empty() {
            self.settle("no member has older rows").await?;
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
                    Ok(()) => return Ok(true),
                    Err(error) => self.refuse(slot, error)?,
                },
                Err(reason) => drop(self.reasons.insert(slot, reason)),
            }
        }
        Ok(false)
    }

    /// The state before the oldest row that could be had.
    async fn base(&mut self) -> Result<(), Unproven> {
        if !self.ledger.lacks_state() {
            return Ok(());
        }
        for slot in self.others.clone() {
            match self.source.base(slot).await {
                Ok(None) => {}
                Ok(Some(base)) => match self.store.take_ledger_base(base).await {
                    Ok(false) => {}
                    Ok(true) => {
                        self.reasons.clear();
                        return Ok(());
                    }
                    Err(error) => self.refuse(slot, error)?,
                },
                Err(reason) => drop(self.reasons.insert(slot, reason)),
            }
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
        self.soft.raise(&format!("ledger-of:{slot}"), index.to_string(), told, LogIndex(index));
        self.reasons.insert(slot, reason);
        Ok(())
    }

    async fn settle(&self, why: &str) -> Result<(), Unproven> {
        self.store.settle_ledger().await?;
        info!(first = self.ledger.newest_run().0, why, "no more of the ledger is fetched");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
