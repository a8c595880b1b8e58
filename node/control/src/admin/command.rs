//! Commands: checked, written once, and answered with what is known.
//!
//! How a verb that changes something is added:
//!
//! 1. in `admin.proto` an RPC `DoIt(DoItRequest) returns (ChangeResponse)`, where the request
//!    is `{string request_id = 1; bool dry_run = 2; DoIt command = 3;}` and `DoIt` the message
//!    of `log.proto`; the routes that it needs in `routing` and `proto/src/convert/command.rs`;
//! 2. here a line `order!(pb::DoItRequest, do_it, DoIt, "do it", Role::Operator);`;
//! 3. in `admin.rs` the RPC, whose body is `self.order(request).await`;
//! 4. its least role in `tests/roles.rs`; in `log.rs` the words; in `dovetail`, [what `cli/src/verbs/change.rs` says].
//!
//! Role, request id, limits, dry run, forwarding to the leader and the answer to a
//! repetition are the same for all of them. An order that is more than a message of the
//! log implements [`Order`] by hand, as the one of a remark does.
//!
//! [what `cli/src/verbs/change.rs` says]: ../../../../cli/src/verbs/change.rs

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dovetail_process::grpc::{Allow, peer, require};
use dovetail_process::identity::{Identity, Role};
use dovetail_proto::v1 as pb;
use dovetail_routing::entry::{
    Answered, Applied, Command, Entry, LogIndex, Payload, Rejection, SCHEMA_VERSION,
};
use dovetail_routing::state::State;
use prost::Message;
use tokio::sync::SemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::{
    Admin, COMMANDS_MAX, ON_BEHALF_OF, PLANS_MAX, is_answer, no_leader, not_written, plan,
};
use crate::observe::Observe;
use crate::ports::{AdminClient, Peers, Proposal, ProposeError, Quorum};
use crate::telemetry;

/// The longest wait for a command's outcome.
pub(super) const OUTCOME: Duration = Duration::from_secs(10);
/// Bytes of a remark.
pub const ANNOTATION_BYTES_MAX: usize = 4 * 1_024;
/// Bytes of one command: well below what an entry may have.
pub const COMMAND_BYTES_MAX: usize = 1_024 * 1_024;
/// Bytes of a request id.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A request that changes something, wherever it is carried out.
pub(super) trait Change: Message + Clone + 'static {
    /// The least role that may ask for it.
    const ROLE: Role;

    fn request_id(&self) -> &str;

    /// Whether only to tell what would happen.
    fn dry_run(&self) -> bool;

    /// Asks another member for it.
    fn send(
        client: AdminClient,
        request: Request<Self>,
    ) -> impl Future<Output = Result<Response<pb::ChangeResponse>, Status>> + Send;
}

/// A change that is a command in the log.
pub(super) trait Order: Change {
    /// What the entry says was asked for.
    const CAUSE: &'static str;

    /// The command, or what is wrong with the request.
    fn command(&self) -> Result<Command, Status>;

    /// Refuses what the state alone cannot judge. Asked of the leader, about orders that are
    /// no repetition.
    fn check<Q: Quorum, P: Peers, D: Observe>(
        &self,
        _admin: &Admin<Q, P, D>,
    ) -> impl Future<Output = Result<(), Status>> + Send {
        async { Ok(()) }
    }
}

/// A request whose command is a message of `log.proto`, as the module's page says.
macro_rules! order {
    ($request:ty, $rpc:ident, $variant:ident, $cause:literal, $role:expr) => {
        order!(@change $request, $rpc, $role);

        impl Order for $request {
            const CAUSE: &'static str = $cause;

            fn command(&self) -> Result<Command, Status> {
                let missing = || Status::invalid_argument("command: is missing");
                let command = self.command.clone().ok_or_else(missing)?;
                let command = pb::command::Command::$variant(command);
                Command::try_from(pb::Command { command: Some(command) })
                    .map_err(|error| Status::invalid_argument(error.to_string()))
            }
        }
    };
    (@change $request:ty, $rpc:ident, $role:expr) => {
        impl Change for $request {
            const ROLE: Role = $role;

            fn request_id(&self) -> &str {
                &self.request_id
            }

            fn dry_run(&self) -> bool {
                self.dry_run
            }

            async fn send(
                mut client: AdminClient,
                request: Request<Self>,
            ) -> Result<Response<pb::ChangeResponse>, Status> {
                client.$rpc(request).await
            }
        }
    };
}

order!(pb::SetCanaryRequest, set_canary, SetCanary, "canary set", Role::Operator);
order!(pb::ClearCanaryRequest, clear_canary, ClearCanary, "canary clear", Role::Operator);
order!(pb::PromoteCanaryRequest, promote_canary, PromoteCanary, "canary promote", Role::Operator);
order!(@change pb::ActivateRulesRequest, activate_rules, Role::Admin);
order!(pb::ChangeMembersRequest, change_members, ChangeMembers, "members", Role::Admin);
order!(pb::StartCanaryRequest, start_canary, StartCanary, "canary start", Role::Operator);
order!(pb::PauseCanaryRequest, pause_canary, PauseCanary, "canary pause", Role::Operator);
order!(pb::ResumeCanaryRequest, resume_canary, ResumeCanary, "canary resume", Role::Operator);
order!(pb::DrainUpstreamRequest, drain_upstream, DrainUpstream, "drain", Role::Operator);
order!(pb::UndrainUpstreamRequest, undrain_upstream, UndrainUpstream, "undrain", Role::Operator);
order!(pb::RollbackRequest, rollback, RollbackRoutes, "rollback", Role::Operator);
order!(pb::ReleaseRequest, release, ReleaseRollback, "release", Role::Operator);
order!(@change pb::AbortCanaryRequest, abort_canary, Role::Operator);
order!(@change pb::AnnotateRequest, annotate, Role::Operator);

impl Order for pb::AbortCanaryRequest {
    const CAUSE: &'static str = "canary abort";

    fn command(&self) -> Result<Command, Status> {
        let missing = || Status::invalid_argument("command: is missing");
        let abort = self.command.clone().ok_or_else(missing)?;
        if abort.evidence.is_some() {
            let reason = "command.evidence: is what the leader judges by: leave it out";
            return Err(Status::invalid_argument(reason));
        }
        let command = Some(pb::command::Command::AbortCanary(abort));
        Command::try_from(pb::Command { command })
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

impl Order for pb::AnnotateRequest {
    const CAUSE: &'static str = "annotate";

    fn command(&self) -> Result<Command, Status> {
        check_text(&self.text)?;
        Ok(Command::Annotate { text: self.text.as_str().into() })
    }
}

/// Where a change goes on.
pub(super) enum Taken<'a, C> {
    /// The leader answered.
    Elsewhere(Response<pb::ChangeResponse>),
    /// This member carries it out, if it leads. The permit is held until it is done.
    Here(C, SemaphorePermit<'a>),
}

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// Carries out an order, on this member or on the one that leads.
    pub(super) async fn order<O: Order>(
        &self,
        request: Request<O>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let author = author(&request, O::ROLE)?;
        let command = request.get_ref().command()?;
        let (message, _permit) = match self.take(&author, request).await? {
            Taken::Elsewhere(answer) => return Ok(answer),
            Taken::Here(message, permit) => (message, permit),
        };
        let state = Arc::clone(&self.core.quorum.state().borrow());
        if state.first_answer(&author.actor(), message.request_id()).is_none() {
            message.check(self).await?;
        }
        let proposal = Proposal {
            actor: author.actor().into(),
            request_id: message.request_id().into(),
            cause: O::CAUSE.into(),
            payload: Payload::Command(command),
        };
        let answer = if message.dry_run() {
            self.rehearse(proposal).await?
        } else {
            self.write(proposal).await?
        };
        Ok(Response::new(answer))
    }

    /// Checks what all changes have in common, and passes on what the leader is to do.
    pub(super) async fn take<C: Change>(
        &self,
        author: &Identity,
        request: Request<C>,
    ) -> Result<Taken<'_, C>, Status> {
        let forwarded = peer(&request)?.identity.slot().is_some();
        let message = request.into_inner();
        check_request_id(message.request_id())?;
        let bytes = message.encoded_len();
        if bytes > COMMAND_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "the command has {bytes} bytes, at most {COMMAND_BYTES_MAX} are taken: \
                 give it in parts"
            )));
        }
        let Ok(permit) = self.commands.try_acquire() else {
            return Err(Status::resource_exhausted(format!(
                "{COMMANDS_MAX} commands are being written, which is the limit: try again"
            )));
        };
        if !forwarded && let Some(leader) = self.elsewhere(author, &self.view()) {
            let dry_run = message.dry_run();
            let (client, request) = self.forward(leader, author, message)?;
            let answer = timeout(OUTCOME, C::send(client, request)).await;
            return forwarded_answer(answer, dry_run).map(Taken::Elsewhere);
        }
        Ok(Taken::Here(message, permit))
    }

    /// Writes a command on this member, which has to lead.
    async fn write(&self, proposal: Proposal) -> Result<pb::ChangeResponse, Status> {
        let view = self.view();
        let Some(fence) = view.fence else {
            telemetry::command_failed("not_leader");
            return Err(no_leader(&view, "this member does not lead"));
        };
        let actor = Arc::clone(&proposal.actor);
        let proposed = timeout(OUTCOME, self.core.quorum.propose(fence, proposal)).await;
        let proposed = proposed.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", OUTCOME.as_secs());
            Err(ProposeError::Unknown { reason })
        });
        let answered = proposed.map_err(|error| {
            telemetry::command_failed(match error {
                ProposeError::NotLeader { .. } => "not_leader",
                ProposeError::Unknown { .. } => "unknown",
                ProposeError::Refused { .. } => "refused",
            });
            not_written(&self.view(), &error)
        })?;
        let index = answered.index;
        let state = Arc::clone(&self.core.quorum.state().borrow());
        answer(&state, answered)
            .inspect(|_| telemetry::command_applied(index, &actor))
            .inspect_err(|_| telemetry::command_failed("rejected"))
    }

    /// Tells what a command would do, on a copy of the newest state.
    pub(super) async fn rehearse(&self, proposal: Proposal) -> Result<pb::ChangeResponse, Status> {
        let Ok(_permit) = self.plans.try_acquire() else {
            return Err(Status::resource_exhausted(format!(
                "{PLANS_MAX} plans and dry runs are being made, which is the limit: try again"
            )));
        };
        self.barrier().await?;
        let state = Arc::clone(&self.core.quorum.state().borrow());
        // Up to thousands of routes are drawn again: not on a thread that answers others.
        let now_ms = self.core.quorum.leader_time_ms();
        let rehearsed = tokio::task::spawn_blocking(move || rehearsed(&state, proposal, now_ms));
        rehearsed.await.map_err(|error| Status::internal(error.to_string()))?
    }
}

/// The answer that a command would get as the next entry after `state`.
fn rehearsed(state: &State, proposal: Proposal, now_ms: u64) -> Result<pb::ChangeResponse, Status> {
    let entry = Entry {
        schema_version: SCHEMA_VERSION,
        leader_time_ms: now_ms.max(state.leader_time_ms()),
        actor: proposal.actor,
        request_id: proposal.request_id,
        cause: proposal.cause,
        payload: proposal.payload,
    };
    let mut after = state.clone();
    let answered = after.answer(LogIndex(state.applied_index().0.saturating_add(1)), &entry);
    let routes = plan::changes(state, &after);
    Ok(pb::ChangeResponse { dry_run: true, routes, ..answer(&after, answered)? })
}

/// What a command's author is told.
fn answer(state: &State, answered: Answered) -> Result<pb::ChangeResponse, Status> {
    let Answered { index, applied, first_answer } = answered;
    let newest = || state.service_clusters().iter().map(|name| state.revision(name)).max();
    let (revision, word) = match applied {
        Applied::Changed(revision) => (revision, "changed"),
        Applied::Unchanged => (newest().unwrap_or_default(), "unchanged"),
        Applied::Rejected(rejection) => return Err(rejected(index, &rejection, first_answer)),
    };
    Ok(pb::ChangeResponse {
        index: index.0,
        revision: revision.0,
        applied: word.to_owned(),
        first_answer,
        ..pb::ChangeResponse::default()
    })
}

fn rejected(index: LogIndex, rejection: &Rejection, first_answer: bool) -> Status {
    let advice = match rejection {
        Rejection::RequestIdReused { .. } => ": choose a new one for each command",
        _ if first_answer => {
            return Status::failed_precondition(format!(
                "{rejection} (as answered before, at index {index}: a new try needs a new request id)"
            ));
        }
        _ => "",
    };
    Status::failed_precondition(format!("{rejection}{advice}"))
}

/// What the leader said to a forwarded change; without its word the outcome is unknown.
fn forwarded_answer<T>(
    answer: Result<Result<Response<T>, Status>, Elapsed>,
    dry_run: bool,
) -> Result<Response<T>, Status> {
    let unknown = |reason: &str| {
        if dry_run {
            // Nothing was to be written, so nothing can have been.
            return Status::unavailable(format!("{reason}; it was a dry run"));
        }
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

/// Whose change this is: the caller's, or the operator's for whom a member asks.
pub(super) fn author<T>(request: &Request<T>, least: Role) -> Result<Identity, Status> {
    let caller = require(request, &[Allow::Member, Allow::Operator(least)])?.identity;
    let named = request.metadata().get(ON_BEHALF_OF);
    if caller.slot().is_none() {
        return match named {
            None => Ok(caller),
            Some(_) => Err(Status::permission_denied(format!(
                "{caller} may not set {ON_BEHALF_OF}: only a member may"
            ))),
        };
    }
    let Some(named) = named else {
        return Err(Status::permission_denied(format!(
            "{caller} may change this on behalf of an operator only ({ON_BEHALF_OF})"
        )));
    };
    let author: Identity = named
        .to_str()
        .map_err(|_| Status::invalid_argument(format!("{ON_BEHALF_OF} is not ASCII")))?
        .parse()
        .map_err(|error| Status::invalid_argument(format!("{ON_BEHALF_OF}: {error}")))?;
    match &author {
        Identity::Operator { role, .. } if *role >= least => Ok(author),
        Identity::Operator { role, .. } => Err(Status::permission_denied(format!(
            "{author} may not do this: it needs role {least}, and has {role}"
        ))),
        _ => Err(Status::permission_denied(format!(
            "{author} may not do this: it needs an operator of role {least}"
        ))),
    }
}

fn check_request_id(request_id: &str) -> Result<(), Status> {
    let legal = request_id.bytes().all(|byte| byte.is_ascii_graphic());
    if request_id.is_empty() || request_id.len() > REQUEST_ID_BYTES_MAX || !legal {
        return Err(Status::invalid_argument(format!(
            "request_id: must be 1 to {REQUEST_ID_BYTES_MAX} printable ASCII characters without \
             spaces, chosen anew for each command"
        )));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), Status> {
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
