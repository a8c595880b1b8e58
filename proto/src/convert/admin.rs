//! Answers of the admin API.

use dovetail_routing::intent::RouteIntent;
use dovetail_routing::problem::Problem;
use dovetail_routing::snapshot::{
    Certificate, Published, Route, RouteKey, RouteOptions, RouteService, Sticky, Tls, Upstream,
    UpstreamProtocol, UpstreamState, UpstreamTls,
};
use dovetail_routing::state::Held;

use crate::v1 as pb;

impl From<&Published> for pb::RoutesResponse {
    fn from(published: &Published) -> Self {
        Self {
            service_cluster: published.snapshot.service_cluster.to_string(),
            revision: published.snapshot.revision.0,
            digest: published.digest.to_string(),
            routes: published.snapshot.routes.iter().map(Into::into).collect(),
            // Only who answers knows.
            freshness: None,
        }
    }
}

impl From<&Held> for pb::HeldRoute {
    fn from(held: &Held) -> Self {
        Self {
            index: held.order.index.0,
            actor: held.order.actor.to_string(),
            to: held.order.to.0,
            until_ms: held.order.until_ms,
            changes: held.changes,
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
            certificate: match &route.tls {
                Tls::Terminate(certificate) => Some(certificate.into()),
                Tls::None | Tls::Passthrough => None,
            },
            options: (route.options != RouteOptions::default()).then(|| (&route.options).into()),
            rollback: None,
        }
    }
}

/// Without upstreams; a weight is a share that was ordered, 0 where weights are equal.
impl From<(&RouteKey, &RouteIntent)> for pb::Route {
    fn from((key, intent): (&RouteKey, &RouteIntent)) -> Self {
        let route = Route {
            host: key.host.clone(),
            path: key.path.clone(),
            tls: intent.tls.clone(),
            options: intent.options.clone(),
            services: Vec::new(),
        };
        let service = |name: &std::sync::Arc<str>| pb::RouteService {
            name: name.to_string(),
            weight: intent
                .shares
                .iter()
                .find(|share| share.service == *name)
                .map_or(0, |share| share.weight.into()),
            ..pb::RouteService::default()
        };
        Self { services: intent.services.iter().map(service).collect(), ..(&route).into() }
    }
}

impl From<&Certificate> for pb::Certificate {
    fn from(certificate: &Certificate) -> Self {
        let name = |secret: &Option<_>| secret.as_ref().map(ToString::to_string);
        Self {
            cert: certificate.cert.to_string(),
            key: name(&certificate.key).unwrap_or_default(),
            client_ca: name(&certificate.client_ca).unwrap_or_default(),
        }
    }
}

impl From<&RouteOptions> for pb::RouteOptions {
    fn from(options: &RouteOptions) -> Self {
        let redirect = options.redirect.as_ref().map(|redirect| {
            let scheme = if redirect.https { "https" } else { "http" };
            format!("{scheme}://{}{}", redirect.authority, redirect.prefix)
        });
        Self {
            rewrite: options.rewrite,
            redirect: redirect.unwrap_or_default(),
            ssl_only: options.ssl_only,
            sticky: match &options.sticky {
                Sticky::None => String::new(),
                Sticky::Cookie(name) => format!("cookie {}", name.as_str()),
                Sticky::ClientIp => "client address".into(),
            },
        }
    }
}

impl From<&RouteService> for pb::RouteService {
    fn from(service: &RouteService) -> Self {
        Self {
            name: service.name.to_string(),
            weight: service.weight.into(),
            upstreams: service.upstreams.iter().map(Into::into).collect(),
            protocol: match service.dial.protocol {
                UpstreamProtocol::Auto => "",
                UpstreamProtocol::Http1 => "http1",
                UpstreamProtocol::Http2 => "http2",
            }
            .into(),
            tls: match service.dial.tls {
                UpstreamTls::None => "",
                UpstreamTls::Verified { .. } => "verified",
                UpstreamTls::Unverified { .. } => "unverified",
            }
            .into(),
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
            // Why it drains, the state alone knows.
            reason: String::new(),
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
