//! openraft's values to bytes and back, for the disk and for the wire alike.
//!
//! openraft promises no stable encoding of its own, so this one is ours. Decoding
//! never panics: bytes of a peer or of a disk give a value or an [`InvalidBytes`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};

use crate::types::{
    Entry, EntryBytes, EntryPayload, LeaderId, LogId, MemberNode, Membership, RaftSnapshotMeta,
    StoredMembership, TypeConfig, Vote,
};

pub(crate) mod messages;

use messages as pb;

/// Bytes that are not the value that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBytes {
    #[error("{what}: not protobuf of this form")]
    Protobuf {
        what: &'static str,
        #[source]
        error: prost::DecodeError,
    },
    #[error("{what}: {reason}")]
    Content { what: &'static str, reason: String },
}

/// Of the disk, such bytes are damage.
impl From<InvalidBytes> for std::io::Error {
    fn from(error: InvalidBytes) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

fn content(what: &'static str, reason: impl Into<String>) -> InvalidBytes {
    InvalidBytes::Content { what, reason: reason.into() }
}

pub(crate) fn decode<M: prost::Message + Default>(
    what: &'static str,
    bytes: impl bytes::Buf,
) -> Result<M, InvalidBytes> {
    M::decode(bytes).map_err(|error| InvalidBytes::Protobuf { what, error })
}

fn required<T>(
    what: &'static str,
    field: &'static str,
    value: Option<T>,
) -> Result<T, InvalidBytes> {
    value.ok_or_else(|| content(what, format!("{field} is missing")))
}

fn encoded(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

impl From<LogId> for pb::LogId {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<pb::LogId> for LogId {
    fn from(id: pb::LogId) -> Self {
        Self::new(LeaderId { term: id.term, node_id: id.node }, id.index)
    }
}

impl From<Vote> for pb::Vote {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<pb::Vote> for Vote {
    fn from(vote: pb::Vote) -> Self {
        Self {
            leader_id: LeaderId { term: vote.term, node_id: vote.node },
            committed: vote.committed,
        }
    }
}

impl From<&Membership> for pb::Membership {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: membership
                .get_joint_config()
                .iter()
                .map(|voters| pb::Voters { ids: voters.iter().copied().collect() })
                .collect(),
            members: membership
                .nodes()
                .map(|(id, node)| pb::Member {
                    id: *id,
                    slot: node.slot,
                    incarnation: node.incarnation.clone(),
                    address: node.address.clone(),
                })
                .collect(),
        }
    }
}

impl TryFrom<pb::Membership> for Membership {
    type Error = InvalidBytes;

    fn try_from(membership: pb::Membership) -> Result<Self, InvalidBytes> {
        let nodes: BTreeMap<u64, MemberNode> = membership
            .members
            .into_iter()
            .map(|member| {
                let node = MemberNode {
                    slot: member.slot,
                    incarnation: member.incarnation,
                    address: member.address,
                };
                (member.id, node)
            })
            .collect();
        let configs: Vec<BTreeSet<u64>> =
            membership.configs.into_iter().map(|voters| voters.ids.into_iter().collect()).collect();
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Self::default());
        }
        Self::new(configs, nodes).map_err(|error| content("membership", error.to_string()))
    }
}

impl From<&Entry> for pb::Entry {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => pb::Payload::Blank(pb::Empty {}),
            EntryPayload::Normal(data) => pb::Payload::Normal(data.0.clone()),
            EntryPayload::Membership(membership) => pb::Payload::Membership(membership.into()),
        };
        Self { log_id: Some(entry.log_id.into()), payload: Some(payload) }
    }
}

impl TryFrom<pb::Entry> for Entry {
    type Error = InvalidBytes;

    fn try_from(entry: pb::Entry) -> Result<Self, InvalidBytes> {
        let log_id = required("log entry", "log id", entry.log_id)?.into();
        let payload = match required("log entry", "payload", entry.payload)? {
            pb::Payload::Blank(_) => EntryPayload::Blank,
            pb::Payload::Normal(bytes) => EntryPayload::Normal(EntryBytes(bytes)),
            pb::Payload::Membership(membership) => EntryPayload::Membership(membership.try_into()?),
        };
        Ok(Self { log_id, payload })
    }
}

impl From<&RaftSnapshotMeta> for pb::SnapshotMeta {
    fn from(meta: &RaftSnapshotMeta) -> Self {
        Self {
            last: meta.last_log_id.map(Into::into),
            membership_at: meta.last_membership.log_id().map(Into::into),
            membership: Some(meta.last_membership.membership().into()),
        }
    }
}

impl TryFrom<pb::SnapshotMeta> for RaftSnapshotMeta {
    type Error = InvalidBytes;

    fn try_from(meta: pb::SnapshotMeta) -> Result<Self, InvalidBytes> {
        let membership = required("raft snapshot", "membership", meta.membership)?.try_into()?;
        Ok(Self {
            last_log_id: meta.last.map(Into::into),
            last_membership: StoredMembership::new(meta.membership_at.map(Into::into), membership),
        })
    }
}

/// An entry as it lies in the log.
pub fn encode_entry(entry: &Entry) -> Bytes {
    encoded(&pb::Entry::from(entry))
}

/// The reverse of [`encode_entry`].
pub fn decode_entry(bytes: impl bytes::Buf) -> Result<Entry, InvalidBytes> {
    decode::<pb::Entry>("log entry", bytes)?.try_into()
}

/// A vote as it lies on the disk.
pub fn encode_vote(vote: &Vote) -> Bytes {
    encoded(&pb::Vote::from(*vote))
}

/// The reverse of [`encode_vote`].
pub fn decode_vote(bytes: impl bytes::Buf) -> Result<Vote, InvalidBytes> {
    decode::<pb::Vote>("vote", bytes).map(Into::into)
}

/// A log id as it lies on the disk.
pub fn encode_log_id(id: &LogId) -> Bytes {
    encoded(&pb::LogId::from(*id))
}

/// The reverse of [`encode_log_id`].
pub fn decode_log_id(bytes: impl bytes::Buf) -> Result<LogId, InvalidBytes> {
    decode::<pb::LogId>("log id", bytes).map(Into::into)
}

/// A membership alone.
pub fn encode_membership(membership: &Membership) -> Bytes {
    encoded(&pb::Membership::from(membership))
}

/// The reverse of [`encode_membership`].
pub fn decode_membership(bytes: impl bytes::Buf) -> Result<Membership, InvalidBytes> {
    decode::<pb::Membership>("membership", bytes)?.try_into()
}

/// An append request.
pub fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> Bytes {
    encoded(&pb::AppendRequest {
        vote: Some(request.vote.into()),
        previous: request.prev_log_id.map(Into::into),
        entries: request.entries.iter().map(Into::into).collect(),
        committed: request.leader_commit.map(Into::into),
    })
}

/// The reverse of [`encode_append`]; given [`Bytes`], entries share them.
pub fn decode_append(
    bytes: impl bytes::Buf,
) -> Result<AppendEntriesRequest<TypeConfig>, InvalidBytes> {
    const WHAT: &str = "append request";
    let request: pb::AppendRequest = decode(WHAT, bytes)?;
    Ok(AppendEntriesRequest {
        vote: required(WHAT, "vote", request.vote)?.into(),
        prev_log_id: request.previous.map(Into::into),
        entries: request.entries.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?,
        leader_commit: request.committed.map(Into::into),
    })
}

fn append_answer(answer: pb::Appended) -> Bytes {
    encoded(&pb::AppendAnswer { answer: Some(answer) })
}

/// The answer to an append that was made alone.
pub fn encode_append_response(response: &AppendEntriesResponse<TypeConfig>) -> Bytes {
    append_answer(match response {
        AppendEntriesResponse::Success => pb::Appended::All(pb::Empty {}),
        AppendEntriesResponse::PartialSuccess(id) => {
            pb::Appended::UpTo(pb::MaybeLogId { log_id: id.map(Into::into) })
        }
        AppendEntriesResponse::Conflict => pb::Appended::Conflict(pb::Empty {}),
        AppendEntriesResponse::HigherVote(vote) => pb::Appended::HigherVote((*vote).into()),
    })
}

/// The reverse of [`encode_append_response`].
pub fn decode_append_response(
    bytes: impl bytes::Buf,
) -> Result<AppendEntriesResponse<TypeConfig>, InvalidBytes> {
    const WHAT: &str = "append answer";
    let answer: pb::AppendAnswer = decode(WHAT, bytes)?;
    Ok(match required(WHAT, "answer", answer.answer)? {
        pb::Appended::All(_) => AppendEntriesResponse::Success,
        pb::Appended::UpTo(id) => AppendEntriesResponse::PartialSuccess(id.log_id.map(Into::into)),
        pb::Appended::Conflict(_) | pb::Appended::ConflictAt(_) => AppendEntriesResponse::Conflict,
        pb::Appended::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
    })
}

/// The answer to one append of a stream.
pub fn encode_stream_append(result: &StreamAppendResult<TypeConfig>) -> Bytes {
    append_answer(match result {
        Ok(id) => pb::Appended::UpTo(pb::MaybeLogId { log_id: id.map(Into::into) }),
        Err(StreamAppendError::Conflict(id)) => pb::Appended::ConflictAt((*id).into()),
        Err(StreamAppendError::HigherVote(vote)) => pb::Appended::HigherVote((*vote).into()),
    })
}

/// The reverse of [`encode_stream_append`].
pub fn decode_stream_append(
    bytes: impl bytes::Buf,
) -> Result<StreamAppendResult<TypeConfig>, InvalidBytes> {
    const WHAT: &str = "append answer of a stream";
    let answer: pb::AppendAnswer = decode(WHAT, bytes)?;
    Ok(match required(WHAT, "answer", answer.answer)? {
        pb::Appended::UpTo(id) => Ok(id.log_id.map(Into::into)),
        pb::Appended::ConflictAt(id) => Err(StreamAppendError::Conflict(id.into())),
        pb::Appended::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        pb::Appended::All(_) | pb::Appended::Conflict(_) => {
            return Err(content(WHAT, "it is the answer to a single append"));
        }
    })
}

/// A request for a vote or a pre-vote.
pub fn encode_vote_request(request: &VoteRequest<TypeConfig>) -> Bytes {
    encoded(&pb::VoteRequest {
        vote: Some(request.vote.into()),
        last: request.last_log_id.map(Into::into),
        leadership_transfer: request.leadership_transfer,
    })
}

/// The reverse of [`encode_vote_request`].
pub fn decode_vote_request(
    bytes: impl bytes::Buf,
) -> Result<VoteRequest<TypeConfig>, InvalidBytes> {
    const WHAT: &str = "vote request";
    let request: pb::VoteRequest = decode(WHAT, bytes)?;
    Ok(VoteRequest {
        vote: required(WHAT, "vote", request.vote)?.into(),
        last_log_id: request.last.map(Into::into),
        leadership_transfer: request.leadership_transfer,
    })
}

/// The answer to a request for a vote or a pre-vote.
pub fn encode_vote_response(response: &VoteResponse<TypeConfig>) -> Bytes {
    encoded(&pb::VoteResponse {
        vote: Some(response.vote.into()),
        granted: response.vote_granted,
        last: response.last_log_id.map(Into::into),
    })
}

/// The reverse of [`encode_vote_response`].
pub fn decode_vote_response(
    bytes: impl bytes::Buf,
) -> Result<VoteResponse<TypeConfig>, InvalidBytes> {
    const WHAT: &str = "vote answer";
    let response: pb::VoteResponse = decode(WHAT, bytes)?;
    Ok(VoteResponse {
        vote: required(WHAT, "vote", response.vote)?.into(),
        vote_granted: response.granted,
        last_log_id: response.last.map(Into::into),
    })
}

/// A request to take over leadership.
pub fn encode_transfer_request(request: &TransferLeaderRequest<TypeConfig>) -> Bytes {
    encoded(&pb::TransferRequest {
        from: Some((*request.from_leader()).into()),
        to: *request.to_node_id(),
        last: request.last_log_id().map(|id| (*id).into()),
    })
}

/// The reverse of [`encode_transfer_request`].
pub fn decode_transfer_request(
    bytes: impl bytes::Buf,
) -> Result<TransferLeaderRequest<TypeConfig>, InvalidBytes> {
    const WHAT: &str = "transfer request";
    let request: pb::TransferRequest = decode(WHAT, bytes)?;
    let from = required(WHAT, "leader", request.from)?.into();
    Ok(TransferLeaderRequest::new(from, request.to, request.last.map(Into::into)))
}

/// The answer to a request to take over leadership.
pub fn encode_transfer_response(response: &TransferLeaderResponse<TypeConfig>) -> Bytes {
    let answer = match response {
        Ok(()) => pb::Transfer::Accepted(pb::Empty {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            pb::Transfer::VoteChanged(pb::VoteChanged {
                expected: Some((*expected).into()),
                actual: Some((*actual).into()),
            })
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            pb::Transfer::LogNotFlushed(pb::LogNotFlushed {
                expected: expected.map(Into::into),
                actual: actual.map(Into::into),
            })
        }
    };
    encoded(&pb::TransferResponse { answer: Some(answer) })
}

/// The reverse of [`encode_transfer_response`].
pub fn decode_transfer_response(
    bytes: impl bytes::Buf,
) -> Result<TransferLeaderResponse<TypeConfig>, InvalidBytes> {
    const WHAT: &str = "transfer answer";
    let response: pb::TransferResponse = decode(WHAT, bytes)?;
    Ok(match required(WHAT, "answer", response.answer)? {
        pb::Transfer::Accepted(_) => Ok(()),
        pb::Transfer::VoteChanged(votes) => Err(TransferLeaderError::VoteChanged {
            expected: required(WHAT, "expected vote", votes.expected)?.into(),
            actual: required(WHAT, "actual vote", votes.actual)?.into(),
        }),
        pb::Transfer::LogNotFlushed(ids) => Err(TransferLeaderError::LogNotFlushed {
            expected: ids.expected.map(Into::into),
            actual: ids.actual.map(Into::into),
        }),
    })
}

/// What a raft snapshot covers.
pub fn encode_meta(meta: &RaftSnapshotMeta) -> Bytes {
    encoded(&pb::SnapshotMeta::from(meta))
}

/// The reverse of [`encode_meta`].
pub fn decode_meta(bytes: impl bytes::Buf) -> Result<RaftSnapshotMeta, InvalidBytes> {
    decode::<pb::SnapshotMeta>("raft snapshot", bytes)?.try_into()
}

/// What precedes a raft snapshot's content on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallHeader {
    /// The leader that sends it.
    pub vote: Vote,
    pub meta: RaftSnapshotMeta,
    /// The length of the content.
    pub bytes: u64,
}

/// The header of an install request.
pub fn encode_install_header(header: &InstallHeader) -> Bytes {
    encoded(&pb::InstallHeader {
        vote: Some(header.vote.into()),
        meta: Some((&header.meta).into()),
        bytes: header.bytes,
    })
}

/// The reverse of [`encode_install_header`].
pub fn decode_install_header(bytes: impl bytes::Buf) -> Result<InstallHeader, InvalidBytes> {
    const WHAT: &str = "install header";
    let header: pb::InstallHeader = decode(WHAT, bytes)?;
    Ok(InstallHeader {
        vote: required(WHAT, "vote", header.vote)?.into(),
        meta: required(WHAT, "meta", header.meta)?.try_into()?,
        bytes: header.bytes,
    })
}

/// The answer to an install request.
pub fn encode_snapshot_response(response: &SnapshotResponse<TypeConfig>) -> Bytes {
    encoded(&pb::InstallAnswer { vote: Some(response.vote.into()) })
}

/// The reverse of [`encode_snapshot_response`].
pub fn decode_snapshot_response(
    bytes: impl bytes::Buf,
) -> Result<SnapshotResponse<TypeConfig>, InvalidBytes> {
    const WHAT: &str = "install answer";
    let answer: pb::InstallAnswer = decode(WHAT, bytes)?;
    Ok(SnapshotResponse::new(required(WHAT, "vote", answer.vote)?.into()))
}
