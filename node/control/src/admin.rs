//! The admin API: what operators ask and order.
//!
//! Any member answers. What the leader alone knows (its view of the others, the
//! removals that it holds) and what it alone may write is forwarded to it; a
//! request that another member forwarded is never forwarded again.

use std::pin::Pin;
use std::sync::Arc;

use dovetail_process::grpc::{Allow, require};
use dovetail_process::identity::{Identity, Role};
use dovetail_proto::v1 as pb;
use dovetail_routing::names::ServiceCluster;
use futures_util::Stream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::observe::Observe;
use crate::ports::{AdminClient, Peers, Quorum, QuorumView};
use crate::services::Core;
use ask::FORWARD;
use refusal::{is_answer, no_leader, not_written};

pub use audit::FOLLOWERS_MAX;
pub use command::{ANNOTATION_BYTES_MAX, COMMAND_BYTES_MAX};
pub use export::EXPORTS_MAX;
pub use history::HISTORY_MAX;
pub use log::LIMIT_MAX;
pub use past::PASTS_MAX;

mod ask;
mod audit;
mod backup;
mod canary;
mod command;
mod config;
mod drains;
mod explain;
mod export;
mod history;
mod log;
mod members;
mod past;
mod plan;
mod problems;
mod refusal;
mod routes;
mod rules;
mod status;
mod words;

/// Bytes of one request: a plan holds what stack files say.
pub const REQUEST_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Plans that are made at the same time: each works on a copy of the state.
pub const PLANS_MAX: usize = 4;
/// Bytes of an answer that a member forwards.
pub const ANSWER_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// Where the leader is, as `HOST:PORT`, in the metadata of a refusal.
pub const LEADER: &str = "dovetail-leader";
/// The identity of the operator whose request a member forwards.
pub const ON_BEHALF_OF: &str = "dovetail-on-behalf-of";
/// Commands that are written at the same time: a group of writers shares one fsync, so few would
/// be slow, and a queue without an end would be worse.
pub const COMMANDS_MAX: usize = 1_024;

/// Who may look.
const READERS: &[Allow] = &[Allow::Member, Allow::Operator(Role::Viewer)];

/// The server side of the admin API.
#[derive(Debug)]
pub struct Admin<Q, P, D> {
    core: Core<Q, P, D>,
    commands: Semaphore,
    plans: Semaphore,
    /// One at a time: each is a copy of everything.
    backups: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    /// One change of members at a time.
    members: Semaphore,
    pasts: Semaphore,
    past_states: past::Kept,
}

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// Serves what `core` knows.
    pub fn new(core: Core<Q, P, D>) -> Self {
        Self {
            core,
            commands: Semaphore::new(COMMANDS_MAX),
            plans: Semaphore::new(PLANS_MAX),
            backups: Arc::new(Semaphore::new(1)),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            members: Semaphore::new(1),
            pasts: Semaphore::new(PASTS_MAX),
            past_states: past::Kept::default(),
        }
    }

    fn view(&self) -> QuorumView {
        self.core.quorum.view().borrow().clone()
    }
}

#[tonic::async_trait]
impl<Q: Quorum, P: Peers, D: Observe> pb::admin_server::Admin for Admin<Q, P, D> {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<pb::BackupPart, Status>> + Send>>;
    type LogStream = Pin<Box<dyn Stream<Item = Result<pb::LogEntry, Status>> + Send>>;
    type FollowLogStream = Self::LogStream;
    type ExportLogStream = ReceiverStream<Result<pb::ExportPiece, Status>>;

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let view = self.view();
        if request.get_ref().local {
            return Ok(Response::new(self.local_status(&view, view.leader)));
        }
        if view.fence.is_some() {
            return Ok(Response::new(self.leader_status(&view).await));
        }
        if caller.slot().is_some() {
            return Err(no_leader(&view, "this member does not lead"));
        }
        if let Some(leader) = self.elsewhere(&caller, &view)
            && let Ok((mut client, request)) = self.forward(leader, &caller, request.into_inner())
            && let Ok(Ok(answer)) = timeout(FORWARD, client.status(request)).await
        {
            return Ok(answer);
        }
        // Nobody leads, or the leader is out of reach: then this member knows of none.
        Ok(Response::new(self.local_status(&self.view(), None)))
    }

    async fn routes(
        &self,
        request: Request<pb::RoutesRequest>,
    ) -> Result<Response<pb::RoutesResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let request = request.into_inner();
        let service_cluster: ServiceCluster = request
            .service_cluster
            .parse()
            .map_err(|error| Status::invalid_argument(format!("service_cluster: {error}")))?;
        if request.at > 0 {
            let answer = self.routes_at(&service_cluster, request.at, request.intent).await?;
            return Ok(Response::new(answer));
        }
        // The leader alone can tell that its state is the newest.
        if !request.stale {
            let ask =
                |mut client: AdminClient, request| async move { client.routes(request).await };
            if let Some(answer) = self.ask_leader(&caller, &request, ask).await {
                return answer;
            }
            self.barrier().await?;
        }
        self.agrees()?;
        let state = Arc::clone(&self.core.quorum.state().borrow());
        Ok(Response::new(pb::RoutesResponse {
            freshness: Some(self.freshness(&state, request.stale)),
            ..routes::answer(&state, &service_cluster, request.intent)
        }))
    }

    async fn problems(
        &self,
        request: Request<pb::ProblemsRequest>,
    ) -> Result<Response<pb::ProblemsResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let request = request.into_inner();
        let stale = request.stale;
        // The leader asks the other members what they alone know.
        if !stale {
            let ask =
                |mut client: AdminClient, request| async move { client.problems(request).await };
            if let Some(answer) = self.ask_leader(&caller, &request, ask).await {
                return answer;
            }
            self.barrier().await?;
        }
        let view = self.view();
        let freshness = Some(self.freshness(&self.core.quorum.state().borrow(), stale));
        let problems = self.problems_known(&view, view.fence.is_some() && !stale).await;
        Ok(Response::new(pb::ProblemsResponse { problems, freshness }))
    }

    async fn plan(
        &self,
        request: Request<pb::PlanRequest>,
    ) -> Result<Response<pb::PlanResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let Ok(_permit) = self.plans.try_acquire() else {
            return Err(Status::resource_exhausted(format!(
                "{PLANS_MAX} plans are being made, which is the limit: try again"
            )));
        };
        let request = request.into_inner();
        let planned = plan::read(&request).map_err(Status::invalid_argument)?;
        let ask = |mut client: AdminClient, request| async move { client.plan(request).await };
        if let Some(answer) = self.ask_leader(&caller, &request, ask).await {
            return answer;
        }
        self.barrier().await?;
        let state = Arc::clone(&self.core.quorum.state().borrow());
        // Up to thousands of services are read again: not on a thread that answers others.
        let plan = tokio::task::spawn_blocking(move || plan::plan(&state, &planned));
        let answer = plan.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(answer))
    }

    async fn annotate(
        &self,
        request: Request<pb::AnnotateRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn set_canary(
        &self,
        request: Request<pb::SetCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn clear_canary(
        &self,
        request: Request<pb::ClearCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn promote_canary(
        &self,
        request: Request<pb::PromoteCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn start_canary(
        &self,
        request: Request<pb::StartCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn pause_canary(
        &self,
        request: Request<pb::PauseCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn resume_canary(
        &self,
        request: Request<pb::ResumeCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn abort_canary(
        &self,
        request: Request<pb::AbortCanaryRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn drain_upstream(
        &self,
        request: Request<pb::DrainUpstreamRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn undrain_upstream(
        &self,
        request: Request<pb::UndrainUpstreamRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn drains(
        &self,
        request: Request<pb::DrainsRequest>,
    ) -> Result<Response<pb::DrainsResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let request = request.into_inner();
        if !request.stale {
            let ask =
                |mut client: AdminClient, request| async move { client.drains(request).await };
            if let Some(answer) = self.ask_leader(&caller, &request, ask).await {
                return answer;
            }
            self.barrier().await?;
        }
        let state = Arc::clone(&self.core.quorum.state().borrow());
        Ok(Response::new(pb::DrainsResponse {
            drains: drains::drains(&state),
            freshness: Some(self.freshness(&state, request.stale)),
        }))
    }

    async fn canaries(
        &self,
        request: Request<pb::CanariesRequest>,
    ) -> Result<Response<pb::CanariesResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let request = request.into_inner();
        if !request.stale {
            let ask =
                |mut client: AdminClient, request| async move { client.canaries(request).await };
            if let Some(answer) = self.ask_leader(&caller, &request, ask).await {
                return answer;
            }
            self.barrier().await?;
        }
        self.agrees()?;
        let state = Arc::clone(&self.core.quorum.state().borrow());
        let freshness = Some(self.freshness(&state, request.stale));
        let canaries = canary::canaries(&state, request.route)?;
        Ok(Response::new(pb::CanariesResponse { canaries, freshness }))
    }

    async fn backup(
        &self,
        request: Request<pb::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        require(&request, &[Allow::Operator(Role::Admin)])?;
        let parts = self.backup_parts().await?;
        Ok(Response::new(Box::pin(parts)))
    }

    async fn change_members(
        &self,
        request: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.changed_members(request).await
    }

    async fn apply_config(
        &self,
        request: Request<pb::ApplyConfigRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn activate_rules(
        &self,
        request: Request<pb::ActivateRulesRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn rollback(
        &self,
        request: Request<pb::RollbackRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn configs(
        &self,
        request: Request<pb::ConfigsRequest>,
    ) -> Result<Response<pb::ConfigsResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let request = request.into_inner();
        if !request.stale {
            let ask =
                |mut client: AdminClient, request| async move { client.configs(request).await };
            if let Some(answer) = self.ask_leader(&caller, &request, ask).await {
                return answer;
            }
            self.barrier().await?;
        }
        let state = Arc::clone(&self.core.quorum.state().borrow());
        let freshness = Some(self.freshness(&state, request.stale));
        Ok(Response::new(pb::ConfigsResponse { configs: config::configs(&state), freshness }))
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        self.order(request).await
    }

    async fn index_at(
        &self,
        request: Request<pb::IndexAtRequest>,
    ) -> Result<Response<pb::IndexAtResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let request = request.into_inner();
        let ask = |mut client: AdminClient, request| async move { client.index_at(request).await };
        if let Some(answer) = self.ask_leader(&caller, &request, ask).await {
            return answer;
        }
        let (index, leader_time_ms) = self.last_at(request.time_ms).await?;
        Ok(Response::new(pb::IndexAtResponse { index, leader_time_ms }))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let request = request.into_inner();
        let asked = dovetail_ledger::explain::read(&request).map_err(Status::invalid_argument)?;
        if request.at == 0 {
            let ask =
                |mut client: AdminClient, request| async move { client.explain(request).await };
            if let Some(answer) = self.ask_leader(&caller, &request, ask).await {
                return answer;
            }
        }
        self.explained(&asked, request.at).await.map(Response::new)
    }

    async fn diff(
        &self,
        request: Request<pb::DiffRequest>,
    ) -> Result<Response<pb::DiffResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let mut request = request.into_inner();
        if request.to == 0 {
            let ask = |mut client: AdminClient, request| async move { client.diff(request).await };
            if let Some(answer) = self.ask_leader(&caller, &request, ask).await {
                return answer;
            }
            request.to = self.current_for(0).await?.applied_index().0;
        }
        self.difference(request).await.map(Response::new)
    }

    async fn history(
        &self,
        request: Request<pb::HistoryRequest>,
    ) -> Result<Response<pb::HistoryResponse>, Status> {
        let caller = require(&request, READERS)?.identity;
        let request = request.into_inner();
        let ask = |mut client: AdminClient, request| async move { client.history(request).await };
        if let Some(answer) = self.ask_leader(&caller, &request, ask).await {
            return answer;
        }
        self.history_page(request).await.map(Response::new)
    }

    async fn log(
        &self,
        request: Request<pb::LogRequest>,
    ) -> Result<Response<Self::LogStream>, Status> {
        require(&request, &[Allow::Operator(Role::Operator)])?;
        // What was acknowledged is shown if it can be; the story is told without a quorum too.
        let _ = self.barrier().await;
        let entries = log::entries(Arc::clone(&self.core.quorum), request.into_inner());
        Ok(Response::new(Box::pin(entries)))
    }

    async fn follow_log(
        &self,
        request: Request<pb::FollowLogRequest>,
    ) -> Result<Response<Self::FollowLogStream>, Status> {
        require(&request, &[Allow::Operator(Role::Admin)])?;
        let Ok(permit) = Arc::clone(&self.followers).try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!(
                "{FOLLOWERS_MAX} callers follow the log, which is the limit: try another member"
            )));
        };
        let (quorum, drain) = (Arc::clone(&self.core.quorum), self.core.drain.clone());
        let entries = audit::follow(quorum, request.get_ref().from, drain, permit);
        Ok(Response::new(Box::pin(entries)))
    }

    async fn export_log(
        &self,
        request: Request<pb::ExportLogRequest>,
    ) -> Result<Response<Self::ExportLogStream>, Status> {
        require(&request, &[Allow::Operator(Role::Admin)])?;
        let Ok(permit) = Arc::clone(&self.exports).try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!(
                "{EXPORTS_MAX} exports are being made, which is the limit: try again"
            )));
        };
        // What was acknowledged is in it if it can be; the story is told without a quorum too.
        let _ = self.barrier().await;
        let quorum = Arc::clone(&self.core.quorum);
        let exporter = Identity::Member { slot: self.view().this }.to_string();
        let pieces = export::export(quorum, request.into_inner(), exporter, permit);
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    async fn verify_log(
        &self,
        request: Request<pb::VerifyLogRequest>,
    ) -> Result<Response<pb::VerifyLogResponse>, Status> {
        require(&request, &[Allow::Operator(Role::Operator)])?;
        Ok(Response::new(self.compare_ledgers(request.get_ref()).await?))
    }
}

#[cfg(test)]
mod tests;
