//! `routes`: as they are, as they were, and without their upstreams.

use std::sync::Arc;

use dovetail_proto::v1 as pb;
use dovetail_routing::LogIndex;
use dovetail_routing::intent::Intents;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::RouteKey;
use dovetail_routing::state::State;
use tonic::Status;

use super::{Admin, drains, plan};
use crate::observe::Observe;
use crate::ports::{Peers, Quorum};

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// The routes as they were after the entry `at`.
    pub(super) async fn routes_at(
        &self,
        service_cluster: &ServiceCluster,
        at: u64,
        intent: bool,
    ) -> Result<pb::RoutesResponse, Status> {
        if intent {
            let current = self.current_for(at).await?;
            // Kept intents need no ledger.
            if let Ok(intents) = current.intent_at(service_cluster, LogIndex(at)) {
                return Ok(pb::RoutesResponse { revision: at, ..intended(&intents) });
            }
        }
        let state = self.state_at(at).await?;
        Ok(answer(&state, service_cluster, intent))
    }

    /// What differs between the routes after two entries; 0 is now.
    pub(super) async fn difference(
        &self,
        request: pb::DiffRequest,
    ) -> Result<pb::DiffResponse, Status> {
        if request.from == 0 {
            return Err(Status::invalid_argument("from: name the index of an entry"));
        }
        let before = self.state_at(request.from).await?;
        let after = self.state_at(request.to).await?;
        let (old, new) = (Arc::clone(&before), Arc::clone(&after));
        let routes = tokio::task::spawn_blocking(move || plan::changes(&old, &new));
        Ok(pb::DiffResponse {
            from: before.applied_index().0,
            to: after.applied_index().0,
            from_time_ms: before.leader_time_ms(),
            to_time_ms: after.leader_time_ms(),
            routes: routes.await.map_err(|error| Status::internal(error.to_string()))?,
        })
    }
}

/// The routes of a state.
pub(super) fn answer(
    state: &State,
    service_cluster: &ServiceCluster,
    intent: bool,
) -> pb::RoutesResponse {
    if intent {
        let revision = state.revision(service_cluster).0;
        return pb::RoutesResponse { revision, ..intended(&state.intents(service_cluster)) };
    }
    let published = state.published(service_cluster);
    let mut response = drains::routes(state, &published);
    if state.rollbacks().next().is_some() {
        let routes = published.snapshot.routes.iter().zip(&mut response.routes);
        for (route, shown) in routes {
            let key = RouteKey {
                service_cluster: service_cluster.clone(),
                host: route.host.clone(),
                path: route.path.clone(),
            };
            shown.rollback = state.rollback(&key).map(Into::into);
        }
    }
    response
}

fn intended(intents: &Intents) -> pb::RoutesResponse {
    pb::RoutesResponse {
        service_cluster: intents.service_cluster.to_string(),
        digest: intents.digest().to_string(),
        routes: intents.iter().map(Into::into).collect(),
        ..pb::RoutesResponse::default()
    }
}
