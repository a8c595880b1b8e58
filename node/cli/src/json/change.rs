//! What verbs print as JSON that change something, and what was ordered.

use dovetail_proto::v1 as pb;
use serde::Serialize;

use super::files::RouteChange;

#[derive(Debug, Serialize)]
pub(crate) struct Change {
    index: u64,
    revision: u64,
    applied: String,
    first_answer: bool,
    /// Only of a dry run, together with the routes that would differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<Vec<RouteChange>>,
}

/// A canary, with its route beside it.
#[derive(Debug, Serialize)]
pub(crate) struct Canary {
    service_cluster: String,
    host: String,
    path: String,
    /// As they were ordered.
    shares: Vec<Share>,
    in_force: Vec<Share>,
    actor: String,
    index: u64,
    /// What was started last; `null` when shares were only set.
    run: Option<Run>,
}

/// A canary that was started.
#[derive(Debug, Serialize)]
struct Run {
    from: String,
    to: String,
    /// In basis points.
    steps: Vec<u32>,
    interval_ms: u64,
    max_error_rate: Option<u32>,
    max_p99_ms: Option<u64>,
    min_requests: u64,
    /// Counted from 1.
    step: u32,
    state: String,
    since_ms: u64,
    next_step_ms: Option<u64>,
    actor: String,
    index: u64,
    changed_by: String,
    changed_at: u64,
    reason: String,
    figures: Option<Figures>,
}

#[derive(Debug, Serialize)]
struct Figures {
    requests: u64,
    errors: u64,
    p99_micros: Option<u64>,
    proxies: u32,
}

/// What an operator took out of the rotation.
#[derive(Debug, Serialize)]
pub(crate) struct Drain {
    /// `address`, `service` or `swarm_node`.
    kind: &'static str,
    /// By what it is undrained.
    target: String,
    id: String,
    actor: String,
    index: u64,
    /// Milliseconds since 1970; `null` until it is undrained.
    until_ms: Option<u64>,
    /// Addresses.
    upstreams: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Share {
    service: String,
    /// In basis points.
    weight: u32,
}

/// A configuration that was put in force.
#[derive(Debug, Serialize)]
pub(crate) struct Configuration {
    index: u64,
    actor: String,
    time_ms: u64,
    source: String,
    /// In TOML.
    file: String,
}

impl From<pb::Configuration> for Configuration {
    fn from(config: pb::Configuration) -> Self {
        let pb::Configuration { index, actor, time_ms, source, file } = config;
        Self { index, actor, time_ms, source, file }
    }
}

impl From<pb::ChangeResponse> for Change {
    fn from(change: pb::ChangeResponse) -> Self {
        let routes = || change.routes.into_iter().map(Into::into).collect();
        Self {
            index: change.index,
            revision: change.revision,
            applied: change.applied,
            first_answer: change.first_answer,
            dry_run: change.dry_run.then_some(true),
            routes: change.dry_run.then(routes),
        }
    }
}

impl From<pb::Canary> for Canary {
    fn from(canary: pb::Canary) -> Self {
        let pb::RouteRef { service_cluster, host, path } = canary.route.unwrap_or_default();
        Self {
            service_cluster,
            host,
            path,
            shares: canary.shares.into_iter().map(Into::into).collect(),
            in_force: canary.in_force.into_iter().map(Into::into).collect(),
            actor: canary.actor,
            index: canary.index,
            run: canary.run.map(Into::into),
        }
    }
}

impl From<pb::CanaryRun> for Run {
    fn from(run: pb::CanaryRun) -> Self {
        Self {
            from: run.from,
            to: run.to,
            steps: run.steps,
            interval_ms: run.interval_ms,
            max_error_rate: run.max_error_rate,
            max_p99_ms: run.max_p99_ms,
            min_requests: run.min_requests,
            step: run.step,
            state: run.state,
            since_ms: run.since_ms,
            next_step_ms: run.next_step_ms,
            actor: run.actor,
            index: run.index,
            changed_by: run.changed_by,
            changed_at: run.changed_at,
            reason: run.reason,
            figures: run.figures.map(|figures| Figures {
                requests: figures.requests,
                errors: figures.errors,
                p99_micros: figures.p99_micros,
                proxies: figures.proxies,
            }),
        }
    }
}

impl From<pb::Drain> for Drain {
    fn from(drain: pb::Drain) -> Self {
        use pb::drain_target::Target;
        let (kind, target) = match drain.target.and_then(|target| target.target) {
            Some(Target::Address(address)) => ("address", address),
            Some(Target::Service(name)) => ("service", name),
            Some(Target::SwarmNode(name)) => ("swarm_node", name),
            None => ("", String::new()),
        };
        Self {
            kind,
            target,
            id: drain.id,
            actor: drain.actor,
            index: drain.index,
            until_ms: drain.until_ms,
            upstreams: drain.upstreams.into_iter().map(|one| one.address).collect(),
        }
    }
}

impl From<pb::Share> for Share {
    fn from(share: pb::Share) -> Self {
        Self { service: share.service, weight: share.weight }
    }
}
