//! What verbs print as JSON that tell of the past, and why.

use dovetail_proto::v1 as pb;
use serde::Serialize;

use super::files::RouteChange;
use super::{Problem, Route};

/// A route differs from Swarm by a rollback.
#[derive(Debug, Serialize)]
pub(super) struct HeldRoute {
    index: u64,
    actor: String,
    to: u64,
    /// By the leader's clock; `null` until it is released.
    until_ms: Option<u64>,
    /// Changes of Swarm's that are not in force.
    changes: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Diff {
    from: u64,
    to: u64,
    from_time_ms: u64,
    to_time_ms: u64,
    routes: Vec<RouteChange>,
}

#[derive(Debug, Serialize)]
pub(crate) struct HistoryEntry {
    index: u64,
    leader_time_ms: u64,
    actor: String,
    request_id: String,
    cause: String,
    kind: String,
    summary: String,
    objects: Vec<String>,
    routes: Vec<RouteHistory>,
    /// In all, where `routes` lists only the first.
    routes_changed: u64,
}

#[derive(Debug, Serialize)]
struct RouteHistory {
    service_cluster: String,
    host: String,
    path: String,
    changes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Explain {
    index: u64,
    leader_time_ms: u64,
    revision: u64,
    host: String,
    path: String,
    rule: String,
    steps: Vec<String>,
    /// `null` for an unknown host or path.
    route: Option<Route>,
    claims: Vec<Claim>,
    problems: Vec<Problem>,
    chain: Vec<Link>,
}

#[derive(Debug, Serialize)]
struct Claim {
    service: String,
    since_index: u64,
    in_force: bool,
}

#[derive(Debug, Serialize)]
struct Link {
    index: u64,
    leader_time_ms: u64,
    actor: String,
    cause: String,
    what: String,
}

impl From<pb::HeldRoute> for HeldRoute {
    fn from(held: pb::HeldRoute) -> Self {
        Self {
            index: held.index,
            actor: held.actor,
            to: held.to,
            until_ms: held.until_ms,
            changes: held.changes,
        }
    }
}

impl From<pb::DiffResponse> for Diff {
    fn from(diff: pb::DiffResponse) -> Self {
        Self {
            from: diff.from,
            to: diff.to,
            from_time_ms: diff.from_time_ms,
            to_time_ms: diff.to_time_ms,
            routes: diff.routes.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<pb::HistoryEntry> for HistoryEntry {
    fn from(entry: pb::HistoryEntry) -> Self {
        let route = |route: pb::RouteHistory| {
            let pb::RouteRef { service_cluster, host, path } = route.route.unwrap_or_default();
            RouteHistory { service_cluster, host, path, changes: route.changes }
        };
        Self {
            index: entry.index,
            leader_time_ms: entry.leader_time_ms,
            actor: entry.actor,
            request_id: entry.request_id,
            cause: entry.cause,
            kind: entry.kind,
            summary: entry.summary,
            objects: entry.objects,
            routes: entry.routes.into_iter().map(route).collect(),
            routes_changed: entry.routes_changed,
        }
    }
}

impl From<pb::ExplainResponse> for Explain {
    fn from(answer: pb::ExplainResponse) -> Self {
        let claim = |claim: pb::RouteClaim| Claim {
            service: claim.service,
            since_index: claim.since_index,
            in_force: claim.in_force,
        };
        let link = |link: pb::ChainLink| Link {
            index: link.index,
            leader_time_ms: link.leader_time_ms,
            actor: link.actor,
            cause: link.cause,
            what: link.what,
        };
        Self {
            index: answer.index,
            leader_time_ms: answer.leader_time_ms,
            revision: answer.revision,
            host: answer.host,
            path: answer.path,
            rule: answer.rule,
            steps: answer.steps,
            route: answer.route.map(Into::into),
            claims: answer.claims.into_iter().map(claim).collect(),
            problems: answer.problems.into_iter().map(Into::into).collect(),
            chain: answer.chain.into_iter().map(link).collect(),
        }
    }
}
