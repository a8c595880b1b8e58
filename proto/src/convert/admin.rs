//! Answers of the admin API.

use dovetail_routing::problem::Problem;
use dovetail_routing::snapshot::{Published, Route, RouteService, Tls, Upstream, UpstreamState};

use crate::v1 as pb;

impl From<&Published> for pb::RoutesResponse {
    fn from(published: &Published) -> Self {
        Self {
            service_cluster: published.snapshot.service_cluster.to_string(),
            revision: published.snapshot.revision.0,
            digest: published.digest.to_string(),
            routes: published.snapshot.routes.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Route> for pb::Route {
    fn from(route: &Route) -> Self {
        Self {
            host: route.host.to_string(),
            path: route.path.to_string(),
            tls: match route.tls {
                Tls::None => "none",
                Tls::Terminate(_) => "terminate",
                Tls::Passthrough => "passthrough",
            }
            .into(),
            services: route.services.iter().map(Into::into).collect(),
        }
    }
}

impl From<&RouteService> for pb::RouteService {
    fn from(service: &RouteService) -> Self {
        Self {
            name: service.name.to_string(),
            weight: service.weight.into(),
            upstreams: service.upstreams.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Upstream> for pb::Upstream {
    fn from(upstream: &Upstream) -> Self {
        Self {
            address: upstream.address.to_string(),
            state: match upstream.state {
                UpstreamState::Active => "active",
                UpstreamState::Draining => "draining",
            }
            .into(),
            task: upstream.task.as_ref().map(ToString::to_string).unwrap_or_default(),
            node: upstream.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl From<&Problem> for pb::Problem {
    fn from(problem: &Problem) -> Self {
        Self {
            service: problem.service.to_string(),
            label: problem.label.to_string(),
            value: problem.value.to_string(),
            reason: problem.reason.to_string(),
            since_index: problem.since_index.0,
        }
    }
}
