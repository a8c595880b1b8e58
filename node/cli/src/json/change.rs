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
        }
    }
}

impl From<pb::Share> for Share {
    fn from(share: pb::Share) -> Self {
        Self { service: share.service, weight: share.weight }
    }
}
