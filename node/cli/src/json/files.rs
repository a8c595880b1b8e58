//! What `check` and `plan` print as JSON.

use dovetail_proto::v1 as pb;
use serde::Serialize;

use super::{Problem, Route};
use crate::stack::{Finding, Severity};

#[derive(Debug, Serialize)]
pub(crate) struct Check {
    routes: Vec<CheckedRoute>,
    problems: Vec<Found>,
    warnings: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct CheckedRoute {
    service_cluster: String,
    host: String,
    path: String,
    tls: String,
    services: Vec<CheckedService>,
}

#[derive(Debug, Serialize)]
struct CheckedService {
    name: String,
    /// Share in basis points.
    weight: u32,
    /// Upstreams: tasks, or one virtual address.
    tasks: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    /// The plan was made against the state after this entry.
    index: u64,
    routes: Vec<RouteChange>,
    problems: Vec<Found>,
    warnings: Vec<Found>,
    solved: Vec<Problem>,
    conflicts: Vec<Conflict>,
}

#[derive(Debug, Serialize)]
pub(super) struct RouteChange {
    service_cluster: String,
    /// `added`, `changed` or `removed`.
    change: String,
    before: Option<Route>,
    after: Option<Route>,
}

#[derive(Debug, Serialize)]
struct Conflict {
    service: String,
    host: String,
    path: String,
    owner: String,
}

/// A finding; file, line and column are `null` when it stands in no file.
#[derive(Debug, Serialize)]
struct Found {
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
    service: String,
    label: String,
    value: String,
    reason: String,
}

impl Check {
    pub(crate) fn new(routes: Vec<(String, pb::Route)>, findings: Vec<Finding>) -> Self {
        let (problems, warnings) = parted(findings);
        let routes = routes.into_iter().map(|(cluster, route)| CheckedRoute {
            service_cluster: cluster,
            host: route.host,
            path: route.path,
            tls: route.tls,
            services: route.services.into_iter().map(Into::into).collect(),
        });
        Self { routes: routes.collect(), problems, warnings }
    }
}

impl From<pb::RouteService> for CheckedService {
    fn from(service: pb::RouteService) -> Self {
        let tasks = service.upstreams.len();
        Self { name: service.name, weight: service.weight, tasks }
    }
}

impl Plan {
    pub(crate) fn new(answer: pb::PlanResponse, findings: Vec<Finding>) -> Self {
        let (problems, warnings) = parted(findings);
        let conflict = |conflict: pb::Conflict| Conflict {
            service: conflict.service,
            host: conflict.host,
            path: conflict.path,
            owner: conflict.owner,
        };
        Self {
            index: answer.index,
            routes: answer.routes.into_iter().map(Into::into).collect(),
            problems,
            warnings,
            solved: answer.solved.into_iter().map(Into::into).collect(),
            conflicts: answer.conflicts.into_iter().map(conflict).collect(),
        }
    }
}

impl From<pb::RouteChange> for RouteChange {
    fn from(change: pb::RouteChange) -> Self {
        Self {
            service_cluster: change.service_cluster,
            change: change.change,
            before: change.before.map(Into::into),
            after: change.after.map(Into::into),
        }
    }
}

/// Problems and warnings.
fn parted(findings: Vec<Finding>) -> (Vec<Found>, Vec<Found>) {
    let (problems, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|one| one.severity == Severity::Problem);
    let found = |findings: Vec<Finding>| findings.into_iter().map(Into::into).collect();
    (found(problems), found(warnings))
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Self {
        let Finding { place, service, label, value, reason, .. } = finding;
        let (line, column) = place.as_ref().map(|place| (place.line, place.column)).unzip();
        let file = place.map(|place| place.file);
        Self { file, line, column, service, label, value, reason }
    }
}
