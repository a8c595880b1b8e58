//! Commands: checked, written once, and answered with what is known.

use std::sync::Arc;
use std::time::Duration;

use dovetail_process::identity::Identity;
use dovetail_proto::v1 as pb;
use dovetail_routing::entry::{Applied, Command, LogIndex, Payload};
use dovetail_routing::state::State;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tonic::{Response, Status};

use super::{Admin, is_answer, no_leader, not_written};
use crate::observe::Observe;
use crate::ports::{Peers, Proposal, ProposeError, Quorum, QuorumView};
use crate::telemetry;

/// The longest wait for a command's outcome.
pub(super) const OUTCOME: Duration = Duration::from_secs(10);
/// Bytes of a remark.
pub const ANNOTATION_BYTES_MAX: usize = 4 * 1_024;
/// Bytes of a request id.
const REQUEST_ID_BYTES_MAX: usize = 128;

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// Writes a command of `author` on this member, which has to lead.
    pub(super) async fn command(
        &self,
        view: &QuorumView,
        author: &Identity,
        request_id: &str,
        cause: &str,
        command: Command,
    ) -> Result<pb::ChangeResponse, Status> {
        let Some(fence) = view.fence else {
            telemetry::command_failed("not_leader");
            return Err(no_leader(view, "this member does not lead"));
        };
        let actor: Arc<str> = author.actor().into();
        let proposal = Proposal {
            actor: Arc::clone(&actor),
            request_id: request_id.into(),
            cause: cause.into(),
            payload: Payload::Command(command),
        };
        let proposed = timeout(OUTCOME, self.core.quorum.propose(fence, proposal)).await;
        let proposed = proposed.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", OUTCOME.as_secs());
            Err(ProposeError::Unknown { reason })
        });
        let (index, applied) = proposed.map_err(|error| {
            telemetry::command_failed(match error {
                ProposeError::NotLeader { .. } => "not_leader",
                ProposeError::Unknown { .. } => "unknown",
                ProposeError::Refused { .. } => "refused",
            });
            not_written(&self.view(), &error)
        })?;
        let state = Arc::clone(&self.core.quorum.state().borrow());
        let first = state.first_answer(&actor, request_id);
        answer(&state, index, applied, first).inspect(|_| {
            telemetry::command_applied(index, &actor);
        })
    }
}

/// The answer to a written command; `first` is the one that its request id got first.
fn answer(
    state: &State,
    index: LogIndex,
    applied: Applied,
    first: Option<(LogIndex, Applied)>,
) -> Result<pb::ChangeResponse, Status> {
    // A rejection is of this request: another command under a used id is no repetition.
    let (index, applied, first_answer) = match (applied, first) {
        (Applied::Rejected(rejection), _) => {
            telemetry::command_failed("rejected");
            return Err(Status::failed_precondition(rejection.to_string()));
        }
        (_, Some((first, applied))) if first < index => (first, applied, true),
        (applied, _) => (index, applied, false),
    };
    let newest = || state.service_clusters().iter().map(|name| state.revision(name)).max();
    let (revision, word) = match applied {
        Applied::Changed(revision) => (revision, "changed"),
        Applied::Unchanged => (newest().unwrap_or_default(), "unchanged"),
        Applied::Rejected(rejection) => {
            return Err(Status::failed_precondition(rejection.to_string()));
        }
    };
    Ok(pb::ChangeResponse {
        index: index.0,
        revision: revision.0,
        applied: word.to_owned(),
        first_answer,
    })
}

/// What the leader said to a forwarded command; without its word the outcome is unknown.
pub(super) fn forwarded<T>(
    answer: Result<Result<Response<T>, Status>, Elapsed>,
) -> Result<Response<T>, Status> {
    let unknown = |reason: &str| {
        Status::deadline_exceeded(format!(
            "outcome unknown: {reason}; the same request id may be sent again"
        ))
    };
    match answer {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(status)) if is_answer(&status) => Err(status),
        Ok(Err(status)) => {
            Err(unknown(&format!("the leader: {}", dovetail_process::grpc::describe(&status))))
        }
        Err(_) => {
            Err(unknown(&format!("the leader gave no answer within {} s", OUTCOME.as_secs())))
        }
    }
}

pub(super) fn check_request_id(request_id: &str) -> Result<(), Status> {
    let legal = request_id.bytes().all(|byte| byte.is_ascii_graphic());
    if request_id.is_empty() || request_id.len() > REQUEST_ID_BYTES_MAX || !legal {
        return Err(Status::invalid_argument(format!(
            "request_id: must be 1 to {REQUEST_ID_BYTES_MAX} printable ASCII characters without \
             spaces, chosen anew for each command"
        )));
    }
    Ok(())
}

pub(super) fn check_text(text: &str) -> Result<(), Status> {
    if text.trim().is_empty() {
        return Err(Status::invalid_argument("text: is empty"));
    }
    if text.len() > ANNOTATION_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "text: {} bytes, at most {ANNOTATION_BYTES_MAX} are taken",
            text.len()
        )));
    }
    Ok(())
}
