//! What the parts of a member share: who it is, its disk, and Raft once it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use dovetail_control::ports::Slot;
use dovetail_process::grpc::PeerInfo;
use dovetail_process::identity::Identity;
use dovetail_process::tls::TlsDir;
use dovetail_proto::v1 as pb;
use dovetail_raft_store::{Owner, OwnerHandle, Raft, StoreHandle};
use tonic::Status;

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

    /// Raft's own id of this member: the slot, as at formation.
    pub(crate) fn node_id(&self) -> u64 {
        self.slot
    }

    pub(crate) fn owner(&self) -> Owner {
        self.owner.get()
    }

    /// What this member writes on every message to another.
    pub(crate) fn sender(&self) -> pb::Sender {
        let owner = self.owner();
        pb::Sender { cluster_id: owner.cluster_id, slot: self.slot, incarnation: owner.incarnation }
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
        let known = self.known_incarnation(sender.slot)?;
        (known != sender.incarnation).then(|| {
            format!(
                "member {slot} is incarnation {known}, the disk that calls is {}: dovetail member replace {slot}",
                sender.incarnation,
                slot = sender.slot
            )
        })
    }

    /// The incarnation that the membership holds for a slot.
    pub(crate) fn known_incarnation(&self, slot: Slot) -> Option<String> {
        use openraft::async_runtime::watch::WatchReceiver as _;
        let metrics = self.raft()?.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let known = membership.nodes().find(|(_, node)| node.slot == slot)?.1;
        Some(known.incarnation.clone())
    }

    /// Where a slot is dialled: what the flags say wins over the membership.
    pub(crate) fn address(&self, slot: Slot) -> Option<String> {
        self.members.0.get(&slot).cloned()
    }
}
