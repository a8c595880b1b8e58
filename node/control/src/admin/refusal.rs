//! Answers of a member that cannot answer, and how others' answers are told from lost ones.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::LEADER;
use crate::ports::{ProposeError, QuorumView};

/// Nobody here can answer; the hint says who might.
pub(super) fn no_leader(view: &QuorumView, reason: &str) -> Status {
    let mut status = match view.leader {
        Some(leader) => Status::unavailable(format!("{reason}; member {leader} leads")),
        None => Status::unavailable(format!("{reason}; no leader is known")),
    };
    let leader = view.leader.filter(|leader| *leader != view.this);
    let address = view.members.iter().find(|member| Some(member.slot) == leader);
    if let Some(hint) = address.and_then(|member| MetadataValue::try_from(&member.address).ok()) {
        status.metadata_mut().insert(LEADER, hint);
    }
    status
}

/// A proposal's failure as an answer.
pub(super) fn not_written(view: &QuorumView, error: &ProposeError) -> Status {
    match error {
        ProposeError::NotLeader { .. } => no_leader(view, &error.to_string()),
        ProposeError::Unknown { .. } => Status::deadline_exceeded(error.to_string()),
        ProposeError::Refused { .. } => Status::failed_precondition(error.to_string()),
    }
}

/// Whether an answer came from the other member, and not from the way to it.
pub(super) fn is_answer(status: &Status) -> bool {
    std::error::Error::source(status).is_none()
        && !matches!(status.code(), Code::Cancelled | Code::Unknown)
}
