//! Who changed which routes: each entry of the ledger, with what it did.

use dovetail_proto::v1 as pb;
use dovetail_routing::fact::Change;
use dovetail_routing::snapshot::{Route, RouteHost};
use dovetail_routing::state::State;
use dovetail_routing::{Applied, Entry, LogIndex, Payload, tell};
use tonic::Status;

use super::past::Watch;
use super::{Admin, log};
use crate::observe::Observe;
use crate::ports::{Peers, Quorum};

/// Entries when the request names no limit.
const LIMIT: u64 = 100;
/// Entries in one answer.
pub const HISTORY_MAX: u64 = 1_000;
/// Docker objects named of one entry.
const OBJECTS_MAX: usize = 20;
/// Routes told of one entry; all are counted.
const ROUTES_MAX: usize = 50;

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// One page of the history.
    pub(super) async fn history_page(
        &self,
        request: pb::HistoryRequest,
    ) -> Result<pb::HistoryResponse, Status> {
        let host = match request.host.as_str() {
            "" => None,
            host => Some(RouteHost::from_printed(host).map_err(|error| {
                Status::invalid_argument(format!("host {host:?}: {}", error.reason()))
            })?),
        };
        let limit = if request.limit == 0 { LIMIT } else { request.limit.min(HISTORY_MAX) };
        let service = (!request.service.is_empty()).then_some(request.service);
        let seeker =
            Seeker { host, service, from: request.from, limit, found: Vec::new(), next: 0 };
        let until = self.current_for(request.from).await?.applied_index();
        let seen = LogIndex(request.from.saturating_sub(1));
        let (seeker, _) = self.replay(seen, until, seeker).await?;
        Ok(pb::HistoryResponse { entries: seeker.found, next: seeker.next })
    }
}

/// Looks for entries that changed routes in scope.
struct Seeker {
    host: Option<RouteHost>,
    service: Option<String>,
    from: u64,
    limit: u64,
    found: Vec<pb::HistoryEntry>,
    next: u64,
}

impl Watch for Seeker {
    fn entry(
        &mut self,
        (before, after): (&State, &State),
        index: LogIndex,
        (entry, applied): (&Entry, &Applied),
    ) -> bool {
        if index.0 < self.from {
            return true;
        }
        let routes = self.routes(before, after);
        // Without a filter an order is told even if it changed no route.
        let is_order = matches!(entry.payload, Payload::Command(_))
            && self.host.is_none()
            && self.service.is_none();
        if routes.is_empty() && !is_order {
            return true;
        }
        if self.found.len() as u64 >= self.limit {
            self.next = index.0;
            return false;
        }
        self.found.push(told(index, entry, applied, routes));
        true
    }
}

impl Seeker {
    /// The routes in scope that an entry changed, and how.
    fn routes(&self, before: &State, after: &State) -> Vec<pb::RouteHistory> {
        let mut routes = Vec::new();
        for key in after.routes_changed_since(before) {
            if self.host.as_ref().is_some_and(|host| *host != key.host) {
                continue;
            }
            let (old, new) = (before.route(&key), after.route(&key));
            let is_on = |route: &Option<Route>, name: &str| {
                let services = route.iter().flat_map(|route| &route.services);
                services.into_iter().any(|service| *service.name == *name)
            };
            if let Some(name) = &self.service
                && !is_on(&old, name)
                && !is_on(&new, name)
            {
                continue;
            }
            let changes = tell::difference(old.as_ref(), new.as_ref());
            routes.push(pb::RouteHistory { route: Some((&key).into()), changes });
        }
        routes
    }
}

fn told(
    index: LogIndex,
    entry: &Entry,
    applied: &Applied,
    mut routes: Vec<pb::RouteHistory>,
) -> pb::HistoryEntry {
    let (kind, mut summary) = log::summary(entry);
    if let Applied::Rejected(rejection) = applied {
        summary = format!("{summary}; refused: {rejection}");
    }
    let routes_changed = routes.len() as u64;
    routes.truncate(ROUTES_MAX);
    pb::HistoryEntry {
        index: index.0,
        leader_time_ms: entry.leader_time_ms,
        actor: entry.actor.to_string(),
        request_id: entry.request_id.to_string(),
        cause: entry.cause.to_string(),
        kind: kind.to_owned(),
        summary,
        objects: objects(entry),
        routes,
        routes_changed,
    }
}

/// The Docker objects that an entry shows, at their versions.
fn objects(entry: &Entry) -> Vec<String> {
    let Payload::Observed(observed) = &entry.payload else { return Vec::new() };
    observed.changes.iter().take(OBJECTS_MAX).map(object).collect()
}

fn object(change: &Change) -> String {
    match change {
        Change::Network(network) => format!("network {}", network.name),
        Change::NetworkGone(id) => format!("network {id} gone"),
        Change::SwarmNode(node) => {
            format!("swarm node {} at version {}", node.hostname, node.version.0)
        }
        Change::SwarmNodeGone(id) => format!("swarm node {id} gone"),
        Change::Service(service) => {
            format!("service {} at version {}", service.name, service.version.0)
        }
        Change::ServiceGone(id) => format!("service {id} gone"),
        Change::Task(task) => format!("task {} at version {}", task.id, task.version.0),
        Change::TaskGone(id) => format!("task {id} gone"),
        Change::Secret { name, .. } => format!("secret {name}"),
        Change::SecretGone(id) => format!("secret {id} gone"),
        Change::Config { name, .. } => format!("config {name}"),
        Change::ConfigGone(id) => format!("config {id} gone"),
    }
}
