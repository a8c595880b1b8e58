//! The types that openraft is instantiated with, and short names for them.

use std::fmt;

use bytes::Bytes;
use dovetail_routing::Applied;

use crate::state_machine::StateMachine;

/// The largest entry that may be proposed, in bytes. The proposer checks it: the
/// log takes what the quorum already agreed on.
pub const ENTRY_BYTES_MAX: usize = 4 * 1_024 * 1_024;

openraft::declare_raft_types!(
    /// What openraft is built over: opaque entries, data for answers.
    pub TypeConfig:
        D = EntryBytes,
        R = Answer,
        NodeId = u64,
        Node = MemberNode,
        AsyncRuntime = openraft::TokioRuntime,
);

/// A leader's whole identity: term and node, never the bare term.
pub type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
/// A place in the log, with the leader that wrote it.
pub type LogId = openraft::LogId<LeaderId>;
/// Whom this member follows, or voted for.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// What a log entry carries.
pub type EntryPayload = openraft::EntryPayload<EntryBytes, u64, MemberNode>;
/// A log entry.
pub type Entry = openraft::Entry<LeaderId, EntryPayload>;
/// The members, voters and learners.
pub type Membership = openraft::Membership<u64, MemberNode>;
/// The members, and where in the log they were set.
pub type StoredMembership = openraft::StoredMembership<LeaderId, u64, MemberNode>;
/// What a raft snapshot covers.
pub type RaftSnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, MemberNode>;
/// The content of a raft snapshot: the bytes of its file, hash and all.
pub type RaftSnapshotData = Bytes;
/// A raft snapshot with what it covers.
pub type RaftSnapshot = openraft::Snapshot<LeaderId, u64, MemberNode, RaftSnapshotData>;
/// The running core.
pub type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// One command of the log: an encoded `dovetail.v1.Entry`.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryBytes(pub Bytes);

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The entry that was applied; for a repeated request, the one that was answered first.
    pub index: u64,
    /// [`Applied::Unchanged`] for blank and membership entries.
    pub applied: Applied,
    /// This request id was answered before, and this is that answer.
    pub first_answer: bool,
}

/// A member as the membership has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberNode {
    /// Its place in `--members`.
    pub slot: u64,
    /// The 128 random bits of its owner marker, in hex: another disk is another member.
    pub incarnation: String,
    /// Where other members and clients reach it, `HOST:PORT`.
    pub address: String,
}

impl fmt::Display for MemberNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} at {}", self.slot, self.address)
    }
}
