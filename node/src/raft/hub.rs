//! What the parts of a member share: who it is, its disk, and Raft once it runs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use dovetail_control::ports::Slot;
use dovetail_process::grpc::PeerInfo;
use dovetail_process::identity::Identity;
use dovetail_process::tls::TlsDir;
use dovetail_proto::v1 as pb;
use dovetail_raft_store::{MemberNode, Owner, OwnerHandle, Raft, StoreHandle};
use tonic::Status;

use super::members::NODE_IDS_FROM;
use crate::args::Members;

/// Who this member is. Cheap to share; lives as long as the process.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) slot: Slot,
    pub(crate) members: Members,
    /// How clients reach this member; the quorum's membership holds it.
    pub(crate) advertised: String,
    pub(crate) tls: TlsDir,
    pub(crate) owner: OwnerHandle,
    pub(crate) store: StoreHandle,
    raft: OnceLock<Raft>,
    started: Instant,
    /// Milliseconds after `started` at which a leader was last heard.
    leader_heard_ms: AtomicU64,
}

impl Hub {
    pub(crate) fn new(
        slot: Slot,
        members: Members,
        advertised: String,
        tls: TlsDir,
        owner: OwnerHandle,
        store: StoreHandle,
    ) -> Arc<Self> {
        Arc::new(Self {
            slot,
            members,
            advertised,
            tls,
            owner,
            store,
            raft: OnceLock::new(),
            started: Instant::now(),
            leader_heard_ms: AtomicU64::new(0),
        })
    }

    /// Raft, once the quorum is formed or this member's disk belongs to one.
    pub(crate) fn raft(&self) -> Option<&Raft> {
        self.raft.get()
    }

    /// Raft starts once; a second start is a bug of the caller.
    pub(crate) fn start(&self, raft: Raft) {
        assert!(self.raft.set(raft).is_ok(), "raft starts once");
    }

    /// It holds a raft snapshot or at least one log entry.
    pub(crate) fn has_data(&self) -> bool {
        self.store.has_data()
    }

    /// Raft's own id of this member: the slot, as at formation, or what the leader gave its
    /// disk that took it in.
    pub(crate) fn node_id(&self) -> u64 {
        match self.owner().node_id {
            0 => self.slot,
            id => id,
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        self.owner.get()
    }

    /// What this member writes on every message to another.
    pub(crate) fn sender(&self) -> pb::Sender {
        let owner = self.owner();
        pb::Sender {
            cluster_id: owner.cluster_id,
            slot: self.slot,
            incarnation: owner.incarnation,
            node_id: self.node_id(),
        }
    }

    /// A leader was heard just now.
    pub(crate) fn hear_leader(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.leader_heard_ms.store(now, Ordering::Relaxed);
    }

    /// How long no leader was heard, in milliseconds.
    pub(crate) fn leader_silent_ms(&self) -> u64 {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        now.saturating_sub(self.leader_heard_ms.load(Ordering::Relaxed))
    }

    /// Whether `sender` is whom its certificate names.
    pub(crate) fn authenticate(
        &self,
        peer: &PeerInfo,
        sender: Option<&pb::Sender>,
    ) -> Result<Slot, Status> {
        let Identity::Member { slot } = peer.identity else {
            return Err(Status::permission_denied(format!(
                "{} may not call Raft: only dovetail://member/* may",
                peer.identity
            )));
        };
        let sender =
            sender.ok_or_else(|| Status::invalid_argument("a message without a sender"))?;
        if sender.slot != slot {
            return Err(Status::permission_denied(format!(
                "the message says member {}, but its certificate is of member {slot}",
                sender.slot
            )));
        }
        Ok(slot)
    }

    /// Whether `sender` is a member of this quorum, on the disk that the quorum knows.
    pub(crate) fn admit(
        &self,
        peer: &PeerInfo,
        sender: Option<&pb::Sender>,
    ) -> Result<&Raft, Status> {
        self.authenticate(peer, sender)?;
        let Some(raft) = self.raft() else {
            return Err(Status::unavailable(format!(
                "member {} has not joined a quorum",
                self.slot
            )));
        };
        if let Some(reason) = sender.and_then(|sender| self.refusal(sender)) {
            return Err(Status::failed_precondition(reason));
        }
        Ok(raft)
    }

    /// Why `sender` is not taken for the member that the quorum knows, if it is not.
    pub(crate) fn refusal(&self, sender: &pb::Sender) -> Option<String> {
        let ours = self.owner().cluster_id;
        if sender.cluster_id != ours {
            return Some(format!(
                "member {} is of quorum {:?}, this one is of {ours:?}",
                sender.slot, sender.cluster_id
            ));
        }
        let known = self.nodes_of(sender.slot);
        if known.iter().any(|(_, node)| node.incarnation == sender.incarnation) {
            return None;
        }
        // A disk that was taken in later than what this member's log tells.
        let (newest, node) = known.last().filter(|(newest, _)| sender.node_id <= *newest)?;
        Some(format!(
            "member {slot} is incarnation {} (node {newest}), the disk that calls is {}: dovetail \
             member replace {slot}",
            node.incarnation,
            sender.incarnation,
            slot = sender.slot
        ))
    }

    /// The disks that the membership holds for a slot, the newest last: two while one is
    /// being replaced.
    pub(crate) fn nodes_of(&self, slot: Slot) -> Vec<(u64, MemberNode)> {
        use openraft::async_runtime::watch::WatchReceiver as _;
        let Some(raft) = self.raft() else { return Vec::new() };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let of_slot = membership.nodes().filter(|(_, node)| node.slot == slot);
        of_slot.map(|(id, node)| (*id, node.clone())).collect()
    }

    /// The slots of all members: those of the flags, and those that were added.
    pub(crate) fn slots(&self) -> BTreeSet<Slot> {
        use openraft::async_runtime::watch::WatchReceiver as _;
        let mut slots: BTreeSet<Slot> = self.members.0.keys().copied().collect();
        if let Some(raft) = self.raft() {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            slots.extend(membership.nodes().map(|(_, node)| node.slot));
        }
        slots
    }

    /// Whether this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        use openraft::async_runtime::watch::WatchReceiver as _;
        let Some(raft) = self.raft() else { return false };
        raft.metrics().borrow_watched().state == openraft::ServerState::Leader
    }

    /// Whether this member leads the quorum of `sender` and has applied that it is none.
    pub(crate) fn has_removed(&self, sender: &pb::Sender) -> bool {
        use openraft::async_runtime::watch::WatchReceiver as _;
        let Some(raft) = self.raft() else { return false };
        if sender.cluster_id.is_empty() || sender.cluster_id != self.owner().cluster_id {
            return false;
        }
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let named_at = metrics.membership_config.log_id().map(|id| id.index);
        let applied = metrics.last_applied.map(|id| id.index);
        let membership = metrics.membership_config.membership();
        metrics.running_state.is_ok()
            && metrics.state == openraft::ServerState::Leader
            && applied >= named_at
            && !membership.nodes().any(|(_, node)| node.incarnation == sender.incarnation)
    }

    /// Where a slot is dialled: its newest disk, else where the flags say.
    pub(crate) fn address(&self, slot: Slot) -> Option<String> {
        match self.nodes_of(slot).pop() {
            Some((id, node)) => Some(self.address_of(id, &node)),
            None => self.members.0.get(&slot).cloned(),
        }
    }

    /// Where a disk is dialled: one that was taken in later where the membership says, any
    /// other where the flags say.
    pub(crate) fn address_of(&self, id: u64, node: &MemberNode) -> String {
        let flags = self.members.0.get(&node.slot).filter(|_| id < NODE_IDS_FROM);
        flags.unwrap_or(&node.address).clone()
    }
}
