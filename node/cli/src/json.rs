//! The shapes of `-o json`. Scripts rely on them: fields are added, never renamed.

use dovetail_proto::v1 as pb;
use serde::Serialize;

mod change;
mod files;
mod ledger;
mod past;

pub(crate) use change::{Canary, Change, Configuration, Drain};
pub(crate) use files::{Check, Plan};
pub(crate) use ledger::{
    Exported, LedgersCompared, LogVerified, Replayed, RouteDifference, WhatIf,
};
pub(crate) use past::{Diff, Explain, HistoryEntry};

#[derive(Debug, Serialize)]
pub(crate) struct Status {
    cluster_id: String,
    /// The leader's slot; `null` when nobody is known to lead.
    leader: Option<u64>,
    term: u64,
    index: u64,
    service_clusters: Vec<ServiceCluster>,
    members: Vec<Member>,
    proxies: Vec<Proxy>,
    problems: u64,
    /// `leader` or `local`: whose view it is.
    view: String,
    docker_age_seconds: Option<f64>,
    docker_error: String,
    /// Routes that a rollback holds.
    rolled_back: u64,
    /// The rule set in force.
    rules: u32,
}

#[derive(Debug, Serialize)]
struct ServiceCluster {
    name: String,
    revision: u64,
    digest: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Member {
    id: u64,
    address: String,
    role: String,
    applied: u64,
    reachable: bool,
    incarnation: String,
    /// The newest rule set that it knows; 0 while it is not reachable.
    rules_newest: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Proxy {
    name: String,
    address: String,
    service_cluster: String,
    revision: u64,
    digest: String,
    connected: bool,
    member: u64,
    nack: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Routes {
    service_cluster: String,
    revision: u64,
    digest: String,
    routes: Vec<Route>,
    /// The last entry that the answering member had applied.
    index: u64,
    /// Milliseconds since it heard the leader; 0 in a linearizable answer.
    age_ms: u64,
}

#[derive(Debug, Serialize)]
struct Route {
    host: String,
    path: String,
    tls: String,
    services: Vec<RouteService>,
    /// The names of secrets, when TLS is terminated.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Certificate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<RouteOptions>,
    /// Only where a rollback holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback: Option<past::HeldRoute>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    cert: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_ca: String,
}

/// Only what is asked for.
#[derive(Debug, Serialize)]
struct RouteOptions {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rewrite: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    redirect: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ssl_only: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    sticky: String,
}

#[derive(Debug, Serialize)]
struct RouteService {
    name: String,
    weight: u32,
    upstreams: Vec<Upstream>,
    #[serde(skip_serializing_if = "String::is_empty")]
    protocol: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    tls: String,
}

#[derive(Debug, Serialize)]
struct Upstream {
    address: String,
    state: String,
    task: String,
    node: String,
    /// Why it drains: `operator`, `swarm` or `node down`.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    service: String,
    label: String,
    value: String,
    reason: String,
    since_index: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct LogEntry {
    index: u64,
    term: u64,
    leader_time_ms: u64,
    kind: String,
    actor: String,
    request_id: String,
    cause: String,
    summary: String,
    hash: String,
}

impl From<pb::StatusResponse> for Status {
    fn from(status: pb::StatusResponse) -> Self {
        Self {
            cluster_id: status.cluster_id,
            leader: (status.leader != 0).then_some(status.leader),
            term: status.term,
            index: status.index,
            service_clusters: status.service_clusters.into_iter().map(Into::into).collect(),
            members: status.members.into_iter().map(Into::into).collect(),
            proxies: status.proxies.into_iter().map(Into::into).collect(),
            problems: status.problems,
            view: status.view,
            docker_age_seconds: status.docker_age_seconds,
            docker_error: status.docker_error,
            rolled_back: status.rolled_back,
            rules: status.rules,
        }
    }
}

impl From<pb::ServiceClusterStatus> for ServiceCluster {
    fn from(cluster: pb::ServiceClusterStatus) -> Self {
        Self { name: cluster.name, revision: cluster.revision, digest: cluster.digest }
    }
}

impl From<pb::Member> for Member {
    fn from(member: pb::Member) -> Self {
        Self {
            id: member.id,
            address: member.address,
            role: member.role,
            applied: member.applied,
            reachable: member.reachable,
            incarnation: member.incarnation,
            rules_newest: member.rules_newest,
        }
    }
}

impl From<pb::Proxy> for Proxy {
    fn from(proxy: pb::Proxy) -> Self {
        Self {
            name: proxy.name,
            address: proxy.address,
            service_cluster: proxy.service_cluster,
            revision: proxy.revision,
            digest: proxy.digest,
            connected: proxy.connected,
            member: proxy.member,
            nack: proxy.nack,
        }
    }
}

impl From<pb::RoutesResponse> for Routes {
    fn from(routes: pb::RoutesResponse) -> Self {
        let pb::Freshness { index, age_ms } = routes.freshness.unwrap_or_default();
        Self {
            service_cluster: routes.service_cluster,
            revision: routes.revision,
            digest: routes.digest,
            routes: routes.routes.into_iter().map(Into::into).collect(),
            index,
            age_ms,
        }
    }
}

impl From<pb::Route> for Route {
    fn from(route: pb::Route) -> Self {
        Self {
            host: route.host,
            path: route.path,
            tls: route.tls,
            services: route.services.into_iter().map(Into::into).collect(),
            certificate: route.certificate.map(|certificate| Certificate {
                cert: certificate.cert,
                key: certificate.key,
                client_ca: certificate.client_ca,
            }),
            options: route.options.map(|options| RouteOptions {
                rewrite: options.rewrite,
                redirect: options.redirect,
                ssl_only: options.ssl_only,
                sticky: options.sticky,
            }),
            rollback: route.rollback.map(Into::into),
        }
    }
}

impl From<pb::RouteService> for RouteService {
    fn from(service: pb::RouteService) -> Self {
        Self {
            name: service.name,
            weight: service.weight,
            upstreams: service.upstreams.into_iter().map(Into::into).collect(),
            protocol: service.protocol,
            tls: service.tls,
        }
    }
}

impl From<pb::Upstream> for Upstream {
    fn from(upstream: pb::Upstream) -> Self {
        Self {
            address: upstream.address,
            state: upstream.state,
            task: upstream.task,
            node: upstream.node,
            reason: upstream.reason,
        }
    }
}

impl From<pb::Problem> for Problem {
    fn from(problem: pb::Problem) -> Self {
        Self {
            service: problem.service,
            label: problem.label,
            value: problem.value,
            reason: problem.reason,
            since_index: problem.since_index,
        }
    }
}

impl From<pb::LogEntry> for LogEntry {
    fn from(entry: pb::LogEntry) -> Self {
        Self {
            index: entry.index,
            term: entry.term,
            leader_time_ms: entry.leader_time_ms,
            kind: entry.kind,
            actor: entry.actor,
            request_id: entry.request_id,
            cause: entry.cause,
            summary: entry.summary,
            hash: entry.hash,
        }
    }
}
