//! The ports `Quorum` and `Peers` over openraft, as `node/src/raft` has them, without gRPC.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dovetail_control::ports::{
    AdminClient, Asked, Fence, LedgerStart, Marks, Member, Peers, Proposal, ProposeError, Quorum,
    QuorumView, Slot,
};
use dovetail_proto::convert;
use dovetail_proto::v1 as pb;
use dovetail_raft_store::{Answer, EntryBytes, LeaderId, Ledger, Raft, StoreHandle, TypeConfig};
use dovetail_routing::command::MembersChanged;
use dovetail_routing::entry::{Answered, SCHEMA_VERSION};
use dovetail_routing::state::State;
use dovetail_routing::{Entry, LogIndex};
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, ForwardReason, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::network::Boot;
use super::plan::Sabotage;
use super::world::{CLUSTER, Shared};

const PROPOSE_TIMEOUT: Duration = Duration::from_millis(1_500);
const READ_TIMEOUT: Duration = Duration::from_millis(1_500);
const LEASE_PAUSE: Duration = Duration::from_millis(10);
/// How far the wall clock may run ahead between two entries.
const LEAP_MS: u64 = 5_000;

/// One process's port to the quorum. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SimQuorum {
    pub(crate) world: Shared,
    pub(crate) boot: Boot,
    pub(crate) raft: Raft,
    pub(crate) store: StoreHandle,
    pub(crate) ledger: Ledger,
    pub(crate) state: watch::Receiver<Arc<State>>,
    pub(crate) view: watch::Receiver<QuorumView>,
    /// When an entry was stamped last, and what with.
    pub(crate) stamped: Arc<Mutex<Option<(Instant, u64)>>>,
    /// What this machine's clock is corrected by.
    pub(crate) ahead_ms: Arc<AtomicI64>,
}

impl std::fmt::Debug for SimQuorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimQuorum").field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl SimQuorum {
    fn not_leader(&self) -> ProposeError {
        let leader = self.view.borrow().leader;
        ProposeError::NotLeader { leader: leader.filter(|slot| *slot != self.boot.0) }
    }

    /// This member's wall clock, which is wrong and jumps.
    fn wall_ms(&self) -> u64 {
        let wall = self.world.members().into_iter().find(|member| member.id == self.boot.0);
        let wall = wall.map_or(0, |member| member.wall_ms(&self.world));
        wall.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    fn stamp(&self, takes: bool) -> u64 {
        let mut last = self.stamped.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, wall) = (Instant::now(), self.wall_ms());
        let stamped = match *last {
            None => wall,
            Some((at, stamped)) => {
                let passed = u64::try_from((now - at).as_millis()).unwrap_or(u64::MAX);
                wall.clamp(stamped, stamped.saturating_add(passed).saturating_add(LEAP_MS))
            }
        };
        if takes {
            *last = Some((now, stamped));
        }
        stamped
    }

    async fn write(&self, fence: Fence, bytes: Bytes) -> Result<Answer, ProposeError> {
        let unknown = |reason: String| ProposeError::Unknown { reason };
        loop {
            let (responder, answer) = ProgressResponder::<TypeConfig, _>::complete_only();
            let write = self.raft.write(EntryBytes(bytes.clone()));
            write
                .with_leader(LeaderId { term: fence.term, node_id: fence.node })
                .responder(responder)
                .await
                .map_err(|error| unknown(error.to_string()))?;
            if self.world.plan.is_sabotaged(Sabotage::AckWithoutQuorum) {
                let metrics = self.raft.metrics();
                let index = metrics.borrow_watched().last_log_index.unwrap_or_default();
                let applied = dovetail_routing::Applied::Unchanged;
                return Ok(Answer { index, applied, first_answer: false });
            }
            let answer = answer.await.map_err(|_| unknown("raft has stopped".to_owned()))?;
            match answer {
                Ok(response) => return Ok(response.data),
                Err(ClientWriteError::ForwardToLeader(forward)) => {
                    if forward.reason != ForwardReason::LeaseExpired {
                        return Err(self.not_leader());
                    }
                }
                Err(error) => return Err(unknown(error.to_string())),
            }
            sleep(LEASE_PAUSE).await;
        }
    }
}

impl Quorum for SimQuorum {
    fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    fn view(&self) -> watch::Receiver<QuorumView> {
        self.view.clone()
    }

    async fn propose(&self, fence: Fence, proposal: Proposal) -> Result<Answered, ProposeError> {
        let entry = Entry {
            schema_version: SCHEMA_VERSION,
            leader_time_ms: self.stamp(true),
            actor: proposal.actor,
            request_id: proposal.request_id,
            cause: proposal.cause,
            payload: proposal.payload,
        };
        let bytes = Bytes::from(convert::encode_entry(&entry));
        let answer = timeout(PROPOSE_TIMEOUT, self.write(fence, bytes)).await;
        let answer = answer.map_err(|_| ProposeError::Unknown {
            reason: format!("not applied within {PROPOSE_TIMEOUT:?}"),
        })??;
        let Answer { index, applied, first_answer } = answer;
        Ok(Answered { index: LogIndex(index), applied, first_answer })
    }

    async fn change_members(
        &self,
        _fence: Fence,
        _change: &MembersChanged,
        _order: Option<LogIndex>,
    ) -> Result<bool, ProposeError> {
        Err(ProposeError::Refused { reason: "not simulated".to_owned() })
    }

    async fn read_barrier(&self) -> Result<(), ProposeError> {
        if self.world.plan.is_sabotaged(Sabotage::UnconfirmedRead) {
            let leads = self.view.borrow().fence.is_some();
            return if leads { Ok(()) } else { Err(self.not_leader()) };
        }
        let read = async {
            loop {
                match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                    Ok(_) => return Ok(()),
                    Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))
                        if forward.reason != ForwardReason::LeaseExpired =>
                    {
                        return Err(self.not_leader());
                    }
                    Err(RaftError::Fatal(error)) => {
                        return Err(ProposeError::Refused { reason: error.to_string() });
                    }
                    Err(_) => sleep(LEASE_PAUSE).await,
                }
            }
        };
        timeout(READ_TIMEOUT, read).await.map_err(|_| ProposeError::Refused {
            reason: format!("no quorum answered within {READ_TIMEOUT:?}"),
        })?
    }

    async fn ledger(&self, from: LogIndex, limit: usize) -> Result<Vec<pb::LedgerRow>, String> {
        self.ledger.rows(from.0, limit).map_err(|error| error.to_string())
    }

    async fn backup(&self) -> Result<(LogIndex, Bytes), String> {
        Err("not simulated".to_owned())
    }

    fn leader_time_ms(&self) -> u64 {
        self.stamp(false)
    }

    fn correct_clock(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    async fn ledger_from(&self, _from: LogIndex) -> Result<LedgerStart, String> {
        Err("not simulated".to_owned())
    }

    async fn ledger_check(
        &self,
        _index: Option<u64>,
        _recompute: bool,
    ) -> Result<pb::MemberLedger, String> {
        Err("not simulated".to_owned())
    }

    fn marks(&self) -> Marks {
        let checkpoints = self.store.checkpoints();
        let last = checkpoints.last();
        Marks {
            newest: checkpoints.newest().unwrap_or_default(),
            newest_mark: checkpoints.newest_mark(),
            compared: last.map_or(0, |last| last.held.index),
            checkpoint: last.map_or(0, |last| last.at),
        }
    }

    async fn held(&self, index: u64) -> Result<pb::HeldResponse, String> {
        let held = self.store.checkpoints().held(index).map_err(|error| error.to_string())?;
        Ok(pb::HeldResponse { state: held.state.0.to_vec(), ledger: held.ledger.to_vec() })
    }

    fn diverged(&self) -> Option<String> {
        let diverged = self.store.checkpoints().diverged();
        let diverged = diverged.borrow();
        diverged.as_ref().map(ToString::to_string)
    }

    async fn step_down(&self) {
        self.raft.runtime_config().elect(false);
    }

    fn sign(&self, _message: &[u8]) -> Result<pb::ExportSignature, String> {
        Err("not simulated".to_owned())
    }

    fn leader_silent_ms(&self) -> u64 {
        0
    }
}

/// Publishes the view until Raft ends; returns why it ended.
pub(crate) async fn follow(raft: Raft, slot: Slot, sender: watch::Sender<QuorumView>) -> String {
    let mut metrics = raft.metrics();
    loop {
        let now = metrics.borrow_watched().clone();
        if let Err(fatal) = &now.running_state {
            return fatal.to_string();
        }
        let membership = now.membership_config.membership();
        let leads = now.state == openraft::ServerState::Leader;
        let fence = raft.as_leader().ok().filter(|_| leads).map(|leader| {
            let id = leader.to_committed_leader_id();
            Fence { term: id.term, node: id.node_id }
        });
        let voters: Vec<u64> = membership.voter_ids().collect();
        let members = membership.nodes().map(|(id, node)| Member {
            slot: node.slot,
            address: node.address.clone(),
            incarnation: node.incarnation.clone(),
            voter: voters.contains(id),
        });
        let view = QuorumView {
            cluster_id: CLUSTER.to_owned(),
            this: slot,
            leader: now.current_leader,
            term: now.current_term,
            applied: now.last_applied.map_or(0, |id| id.index),
            fence,
            members: members.collect(),
        };
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

/// The other members, asked over the simulated network.
#[derive(Clone, Debug)]
pub(crate) struct SimPeers {
    pub(crate) world: Shared,
    pub(crate) from: u64,
}

impl SimPeers {
    async fn ask(&self, slot: Slot) -> Result<SimQuorum, String> {
        self.world.pause(1..4).await;
        let cut = [(self.from, slot), (slot, self.from)];
        if cut.into_iter().any(|link| self.world.net.is_cut(link)) {
            std::future::pending::<()>().await;
        }
        let member = self.world.members().into_iter().find(|member| member.id == slot);
        member.and_then(|member| member.quorum()).ok_or_else(|| "connection refused".to_owned())
    }
}

impl Peers for SimPeers {
    async fn local(&self, slot: Slot, _asked: Asked) -> Result<pb::LocalResponse, String> {
        let quorum = self.ask(slot).await?;
        let applied = quorum.view.borrow().applied;
        Ok(pb::LocalResponse { applied, ..pb::LocalResponse::default() })
    }

    async fn ledger_check(
        &self,
        _slot: Slot,
        _index: Option<u64>,
        _recompute: bool,
    ) -> Result<pb::MemberLedger, String> {
        Err("not simulated".to_owned())
    }

    async fn held(&self, slot: Slot, index: u64) -> Result<pb::HeldResponse, String> {
        self.ask(slot).await?.held(index).await
    }

    fn admin(&self, _slot: Slot) -> Result<AdminClient, String> {
        Err("not simulated".to_owned())
    }
}
