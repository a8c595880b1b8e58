//! The protobuf form of openraft's values, for the disk and for the wire.
//!
//! Field numbers are never reused: logs of older builds are read with this.

use bytes::Bytes;

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct LogId {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) node: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) index: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Vote {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) node: u64,
    #[prost(bool, tag = "3")]
    pub(crate) committed: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Member {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) slot: u64,
    #[prost(string, tag = "3")]
    pub(crate) incarnation: String,
    #[prost(string, tag = "4")]
    pub(crate) address: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Voters {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Membership {
    /// One set of voters, or two while a change is joint.
    #[prost(message, repeated, tag = "1")]
    pub(crate) configs: Vec<Voters>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) members: Vec<Member>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Entry {
    #[prost(message, optional, tag = "1")]
    pub(crate) log_id: Option<LogId>,
    #[prost(oneof = "Payload", tags = "2, 3, 4")]
    pub(crate) payload: Option<Payload>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub(crate) enum Payload {
    #[prost(message, tag = "2")]
    Blank(Empty),
    #[prost(bytes = "bytes", tag = "3")]
    Normal(Bytes),
    #[prost(message, tag = "4")]
    Membership(Membership),
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct AppendRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    pub(crate) previous: Option<LogId>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) entries: Vec<Entry>,
    #[prost(message, optional, tag = "4")]
    pub(crate) committed: Option<LogId>,
}

/// The answer to an append, of a stream or alone.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct AppendAnswer {
    #[prost(oneof = "Appended", tags = "1, 2, 3, 4, 5")]
    pub(crate) answer: Option<Appended>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub(crate) enum Appended {
    /// Everything was taken.
    #[prost(message, tag = "1")]
    All(Empty),
    /// Taken up to here.
    #[prost(message, tag = "2")]
    UpTo(MaybeLogId),
    /// What the request follows on is not in the log.
    #[prost(message, tag = "3")]
    Conflict(Empty),
    /// This log id is not in the log.
    #[prost(message, tag = "4")]
    ConflictAt(LogId),
    #[prost(message, tag = "5")]
    HigherVote(Vote),
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct MaybeLogId {
    #[prost(message, optional, tag = "1")]
    pub(crate) log_id: Option<LogId>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct VoteRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    pub(crate) last: Option<LogId>,
    #[prost(bool, tag = "3")]
    pub(crate) leadership_transfer: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct VoteResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
    #[prost(bool, tag = "2")]
    pub(crate) granted: bool,
    #[prost(message, optional, tag = "3")]
    pub(crate) last: Option<LogId>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct TransferRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) from: Option<Vote>,
    #[prost(uint64, tag = "2")]
    pub(crate) to: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) last: Option<LogId>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct TransferResponse {
    #[prost(oneof = "Transfer", tags = "1, 2, 3")]
    pub(crate) answer: Option<Transfer>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub(crate) enum Transfer {
    #[prost(message, tag = "1")]
    Accepted(Empty),
    #[prost(message, tag = "2")]
    VoteChanged(VoteChanged),
    #[prost(message, tag = "3")]
    LogNotFlushed(LogNotFlushed),
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct VoteChanged {
    #[prost(message, optional, tag = "1")]
    pub(crate) expected: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    pub(crate) actual: Option<Vote>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct LogNotFlushed {
    #[prost(message, optional, tag = "1")]
    pub(crate) expected: Option<LogId>,
    #[prost(message, optional, tag = "2")]
    pub(crate) actual: Option<LogId>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct SnapshotMeta {
    #[prost(message, optional, tag = "1")]
    pub(crate) last: Option<LogId>,
    #[prost(message, optional, tag = "2")]
    pub(crate) membership_at: Option<LogId>,
    #[prost(message, optional, tag = "3")]
    pub(crate) membership: Option<Membership>,
}

/// What precedes the content of a raft snapshot on the wire.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct InstallHeader {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    pub(crate) meta: Option<SnapshotMeta>,
    #[prost(uint64, tag = "3")]
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct InstallAnswer {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
}

/// The header of a raft snapshot's file.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct RaftSnapshotHeader {
    #[prost(message, optional, tag = "1")]
    pub(crate) meta: Option<SnapshotMeta>,
    #[prost(string, tag = "2")]
    pub(crate) cluster_id: String,
    /// The ledger's hash at the snapshot's last entry.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) ledger_hash: Vec<u8>,
    #[prost(uint64, tag = "4")]
    pub(crate) body_bytes: u64,
}

/// The owner marker's content.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Owner {
    #[prost(string, tag = "1")]
    pub(crate) cluster_id: String,
    #[prost(uint64, tag = "2")]
    pub(crate) slot: u64,
    #[prost(string, tag = "3")]
    pub(crate) incarnation: String,
    #[prost(bool, tag = "4")]
    pub(crate) founder: bool,
    #[prost(string, repeated, tag = "5")]
    pub(crate) ancestors: Vec<String>,
    #[prost(uint64, tag = "6")]
    pub(crate) node_id: u64,
}

/// A place in the ledger: everything up to `index`, hashed to `hash`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LedgerMark {
    #[prost(uint64, tag = "1")]
    pub(crate) index: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) hash: Vec<u8>,
    /// Bytes of all rows ever written up to here.
    #[prost(uint64, tag = "3")]
    pub(crate) bytes: u64,
}

/// A run of rows without a gap: `base` is what its first row follows on.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LedgerSegment {
    /// Absent where the ledger begins.
    #[prost(message, optional, tag = "1")]
    pub(crate) base: Option<LedgerMark>,
    #[prost(message, optional, tag = "2")]
    pub(crate) head: Option<LedgerMark>,
    /// The rows before were jumped over, and may be had from another member.
    #[prost(bool, tag = "3")]
    pub(crate) jumped: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LedgerSegments {
    /// Oldest first; all but the newest are closed.
    #[prost(message, repeated, tag = "1")]
    pub(crate) segments: Vec<LedgerSegment>,
}
