//! The `Quorum` port over openraft: proposals, reads, and the view of the quorum.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dovetail_control::clocks::wall_ms;
use dovetail_control::ports::{
    Fence, LedgerStart, Marks, Member, Proposal, ProposeError, Quorum, QuorumView, Slot,
};
use dovetail_process::tls::Signed;
use dovetail_proto::convert;
use dovetail_proto::v1 as pb;
use dovetail_raft_store::{
    Answer, ENTRY_BYTES_MAX, EntryBytes, LeaderId, Ledger, MemberNode, Raft, TypeConfig,
};
use dovetail_routing::command::MembersChanged;
use dovetail_routing::entry::{Answered, SCHEMA_VERSION};
use dovetail_routing::state::State;
use dovetail_routing::{Entry, LogIndex};
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, ForwardReason, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use tokio::sync::watch;

use super::audit;
use super::hub::Hub;
use super::members;

/// After so long without an answer a proposal's outcome is unknown to the client.
const PROPOSE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a read waits for the quorum.
const READ_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a raft snapshot may take to be written.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before a fresh leader is asked again: its lease begins with the first answers.
const LEASE_PAUSE: Duration = Duration::from_millis(10);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RaftQuorum {
    hub: Arc<Hub>,
    state: watch::Receiver<Arc<State>>,
    view: watch::Receiver<QuorumView>,
    ledger: Ledger,
    clock: Arc<LeaderClock>,
}

impl RaftQuorum {
    pub(crate) fn new(
        hub: Arc<Hub>,
        state: watch::Receiver<Arc<State>>,
        view: watch::Receiver<QuorumView>,
        ledger: Ledger,
    ) -> Self {
        Self { hub, state, view, ledger, clock: Arc::default() }
    }

    fn leader(&self) -> Option<Slot> {
        self.view.borrow().leader
    }

    fn not_leader(&self) -> ProposeError {
        // A refused fence names this very member: such a hint would loop for ever.
        ProposeError::NotLeader { leader: self.leader().filter(|slot| *slot != self.hub.slot) }
    }

    async fn write(&self, raft: &Raft, fence: Fence, bytes: Bytes) -> Result<Answer, ProposeError> {
        loop {
            let (responder, answer) = ProgressResponder::<TypeConfig, _>::complete_only();
            raft.write(EntryBytes(bytes.clone()))
                .with_leader(LeaderId { term: fence.term, node_id: fence.node })
                .responder(responder)
                .await
                .map_err(|error| ProposeError::Unknown { reason: error.to_string() })?;
            let unknown = |reason: String| ProposeError::Unknown { reason };
            let answer = answer.await.map_err(|_| unknown("raft has stopped".to_owned()))?;
            match answer {
                Ok(response) => return Ok(response.data),
                // openraft refuses these before it appends.
                Err(ClientWriteError::ForwardToLeader(forward)) => {
                    if forward.reason != ForwardReason::LeaseExpired {
                        return Err(self.not_leader());
                    }
                }
                Err(error) => return Err(unknown(error.to_string())),
            }
            tokio::time::sleep(LEASE_PAUSE).await;
        }
    }
}

impl Quorum for RaftQuorum {
    fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    fn view(&self) -> watch::Receiver<QuorumView> {
        self.view.clone()
    }

    async fn propose(&self, fence: Fence, proposal: Proposal) -> Result<Answered, ProposeError> {
        let raft = self.hub.raft().ok_or_else(|| self.not_leader())?;
        let entry = Entry {
            schema_version: SCHEMA_VERSION,
            leader_time_ms: self.clock.stamp(),
            actor: proposal.actor,
            request_id: proposal.request_id,
            cause: proposal.cause,
            payload: proposal.payload,
        };
        let bytes = Bytes::from(convert::encode_entry(&entry));
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(ProposeError::Refused {
                reason: format!("the entry has {} bytes, more than {ENTRY_BYTES_MAX}", bytes.len()),
            });
        }
        let answer = tokio::time::timeout(PROPOSE_TIMEOUT, self.write(raft, fence, bytes))
            .await
            .map_err(|_| ProposeError::Unknown {
            reason: format!("not applied within {PROPOSE_TIMEOUT:?}"),
        })??;
        let Answer { index, applied, first_answer } = answer;
        Ok(Answered { index: LogIndex(index), applied, first_answer })
    }

    async fn change_members(
        &self,
        fence: Fence,
        change: &MembersChanged,
        order: Option<LogIndex>,
    ) -> Result<bool, ProposeError> {
        members::change(&self.hub, fence, change, order).await
    }

    async fn read_barrier(&self) -> Result<(), ProposeError> {
        let raft = self.hub.raft().ok_or_else(|| self.not_leader())?;
        let read = async {
            loop {
                match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                    Ok(_) => return Ok(()),
                    Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))
                        if forward.reason != ForwardReason::LeaseExpired =>
                    {
                        return Err(self.not_leader());
                    }
                    Err(RaftError::Fatal(error)) => {
                        return Err(ProposeError::Refused { reason: error.to_string() });
                    }
                    Err(_) => tokio::time::sleep(LEASE_PAUSE).await,
                }
            }
        };
        tokio::time::timeout(READ_TIMEOUT, read).await.map_err(|_| ProposeError::Refused {
            reason: format!("no quorum answered within {READ_TIMEOUT:?}"),
        })?
    }

    async fn ledger(&self, from: LogIndex, limit: usize) -> Result<Vec<pb::LedgerRow>, String> {
        let ledger = self.ledger.clone();
        tokio::task::spawn_blocking(move || ledger.rows(from.0, limit))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| dovetail_process::chain(&error))
    }

    async fn backup(&self) -> Result<(LogIndex, Bytes), String> {
        let raft = self.hub.raft().ok_or("raft has not started")?;
        let applied = raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index);
        raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
        let held = |metrics: &openraft::RaftMetrics<TypeConfig>| {
            metrics.snapshot.is_some_and(|held| held.index >= applied)
        };
        let wait = raft.wait(Some(BACKUP_TIMEOUT)).metrics(held, "a raft snapshot").await;
        let metrics = wait.map_err(|error| error.to_string())?;
        let index = metrics.snapshot.map_or(0, |held| held.index);
        let store = self.hub.store.clone();
        let file = tokio::task::spawn_blocking(move || store.newest_snapshot())
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        Ok((LogIndex(index), file.ok_or("there is no raft snapshot")?))
    }

    fn leader_time_ms(&self) -> u64 {
        self.clock.peek()
    }

    fn correct_clock(&self, ahead_ms: i64) {
        self.clock.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    async fn ledger_from(&self, from: LogIndex) -> Result<LedgerStart, String> {
        let (hub, ledger) = (Arc::clone(&self.hub), self.ledger.clone());
        audit::on_a_thread(move || audit::start(&hub, &ledger, from.0)).await
    }

    async fn ledger_check(
        &self,
        index: Option<u64>,
        recompute: bool,
    ) -> Result<pb::MemberLedger, String> {
        let (hub, ledger) = (Arc::clone(&self.hub), self.ledger.clone());
        audit::on_a_thread(move || audit::check(&hub, &ledger, index, recompute)).await
    }

    fn marks(&self) -> Marks {
        let checkpoints = self.hub.store.checkpoints();
        let last = checkpoints.last();
        Marks {
            newest: checkpoints.newest().unwrap_or_default(),
            newest_mark: checkpoints.newest_mark(),
            compared: last.map_or(0, |last| last.held.index),
            checkpoint: last.map_or(0, |last| last.at),
        }
    }

    async fn held(&self, index: u64) -> Result<pb::HeldResponse, String> {
        let hub = Arc::clone(&self.hub);
        audit::on_a_thread(move || audit::held(&hub, index)).await
    }

    fn diverged(&self) -> Option<String> {
        let diverged = self.hub.store.checkpoints().diverged();
        let diverged = diverged.borrow();
        diverged.as_ref().map(ToString::to_string)
    }

    async fn step_down(&self) {
        let Some(raft) = self.hub.raft() else { return };
        raft.runtime_config().elect(false);
        let to = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let own = self.hub.node_id();
            let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
            let progress = metrics.replication.iter().flatten();
            progress
                .filter(|(id, _)| **id != own && voters.contains(id))
                .max_by_key(|(_, matched)| **matched)
                .map(|(id, _)| *id)
        };
        // Nothing to hand on for a follower: it has no progress of others.
        if let Some(to) = to
            && let Err(error) = raft.trigger().transfer_leader(to).await
        {
            tracing::warn!(%error, "leadership not handed on");
        }
    }

    fn sign(&self, message: &[u8]) -> Result<pb::ExportSignature, String> {
        let Signed { scheme, chain, signature } = self.hub.tls.sign(message)?;
        Ok(pb::ExportSignature { scheme: scheme.into(), chain, signature })
    }

    fn leader_silent_ms(&self) -> u64 {
        let Some(raft) = self.hub.raft() else { return self.hub.leader_silent_ms() };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.running_state.is_ok() && metrics.state == openraft::ServerState::Leader {
            if metrics.membership_config.membership().voter_ids().count() == 1 {
                return 0;
            }
            use openraft::async_runtime::Instant as _;
            // A leader that is cut off has no quorum to answer it. Nothing may borrow the
            // metrics again here, as `as_leader` does: with a writer waiting between the
            // two, reader and writer wait for each other for ever, and Raft with them.
            return metrics
                .last_quorum_acked
                .map_or(0, |at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        self.hub.leader_silent_ms()
    }
}

/// The time that a leader writes into its entries.
///
/// It never goes back, and never leaps ahead of the monotonic clock by more
/// than [`LEAP_MS`]: a clock that is set must not fire a canary's whole schedule.
#[derive(Debug, Default)]
struct LeaderClock {
    /// The last stamp, and when it was given.
    last: Mutex<Option<(Instant, u64)>>,
    /// What this machine's clock is corrected by.
    ahead_ms: AtomicI64,
}

/// How far the wall clock may run ahead between two entries.
const LEAP_MS: u64 = 5_000;

impl LeaderClock {
    fn stamp(&self) -> u64 {
        self.stamp_at(Instant::now(), self.wall_ms())
    }

    /// The stamp that an entry would get now; it takes none.
    fn peek(&self) -> u64 {
        self.peek_at(Instant::now(), self.wall_ms())
    }

    fn wall_ms(&self) -> u64 {
        wall_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    fn stamp_at(&self, now: Instant, wall_ms: u64) -> u64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let stamped = stamp_after(*last, now, wall_ms);
        *last = Some((now, stamped));
        stamped
    }

    fn peek_at(&self, now: Instant, wall_ms: u64) -> u64 {
        stamp_after(*self.last.lock().unwrap_or_else(PoisonError::into_inner), now, wall_ms)
    }
}

fn stamp_after(last: Option<(Instant, u64)>, now: Instant, wall_ms: u64) -> u64 {
    let Some((at, stamped)) = last else { return wall_ms };
    let passed = now.saturating_duration_since(at).as_millis();
    let passed = u64::try_from(passed).unwrap_or(u64::MAX);
    wall_ms.clamp(stamped, stamped.saturating_add(passed).saturating_add(LEAP_MS))
}

/// Follows openraft's metrics and publishes the view until Raft ends.
///
/// Returns why Raft ended: a dead core still says that it leads, so the process must go.
pub(crate) async fn follow(hub: Arc<Hub>, sender: watch::Sender<QuorumView>) -> String {
    let Some(raft) = hub.raft().cloned() else { return "raft has not started".to_owned() };
    let mut metrics = raft.metrics();
    loop {
        let now = metrics.borrow_watched().clone();
        if let Err(fatal) = &now.running_state {
            return fatal.to_string();
        }
        let view = view_of(&hub, &raft, &now);
        sender.send_if_modified(|known| {
            let changed = *known != view;
            if changed {
                *known = view;
            }
            changed
        });
        if metrics.changed().await.is_err() {
            return "raft has stopped".to_owned();
        }
    }
}

fn view_of(hub: &Hub, raft: &Raft, metrics: &openraft::RaftMetrics<TypeConfig>) -> QuorumView {
    let membership = metrics.membership_config.membership();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let nodes: BTreeMap<u64, MemberNode> =
        membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
    let leads = metrics.state == openraft::ServerState::Leader;
    // Ok only says that the last vote is ours; the state above says that the core agrees.
    let fence = raft.as_leader().ok().filter(|_| leads).map(|leader| {
        let id = leader.to_committed_leader_id();
        Fence { term: id.term, node: id.node_id }
    });
    let mut members: Vec<_> = nodes
        .iter()
        .map(|(id, node)| Member {
            slot: node.slot,
            address: node.address.clone(),
            incarnation: node.incarnation.clone(),
            voter: voters.contains(id),
        })
        .collect();
    // Ids of Raft say when a disk was taken in; people count slots.
    members.sort_by_key(|member| member.slot);
    QuorumView {
        cluster_id: hub.owner().cluster_id,
        this: hub.slot,
        leader: metrics.current_leader.and_then(|id| nodes.get(&id)).map(|node| node.slot),
        term: metrics.current_term,
        applied: metrics.last_applied.map_or(0, |id| id.index),
        fence,
        members,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_time_never_goes_back_and_never_leaps() {
        let (clock, start) = (LeaderClock::default(), Instant::now());
        assert_eq!(clock.stamp_at(start, 1_000_000), 1_000_000);
        let second = start + Duration::from_secs(1);
        assert_eq!(clock.stamp_at(second, 900_000), 1_000_000, "set back");
        let third = second + Duration::from_secs(1);
        assert_eq!(clock.peek_at(third, 9_000_000), 1_006_000);
        assert_eq!(clock.peek_at(third, 9_000_000), 1_006_000, "to look takes no time");
        assert_eq!(clock.stamp_at(third, 9_000_000), 1_006_000, "set ahead");
        clock.ahead_ms.store(-60_000, Ordering::Relaxed);
        assert!(clock.wall_ms().abs_diff(wall_ms() - 60_000) < 5_000, "the median's");
    }
}
