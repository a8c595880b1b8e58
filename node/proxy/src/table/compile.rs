//! A snapshot made into a table.

use std::sync::Arc;
use std::time::Duration;

use dovetail_routing::find::RouteIndex;
use dovetail_routing::snapshot::{Route, Snapshot, UpstreamState};
use http::HeaderValue;

use super::{Candidate, Options, RouteEntry, RouteTable, TableError, UPSTREAMS_MAX};
use crate::access_log::LineFormat;
use crate::balance::Rotation;
use crate::sticky;
use crate::traffic;
use crate::upstream::Registry;
use crate::upstream_tls::UpstreamTerms;

pub(super) fn compile(
    snapshot: &Arc<Snapshot>,
    before: Option<&RouteTable>,
    registry: &mut Registry,
    terms: &UpstreamTerms,
    threads: usize,
) -> Result<RouteTable, TableError> {
    let given = snapshot.routes.iter().flat_map(|route| &route.services);
    let given = given.map(|service| service.upstreams.len()).sum();
    if given > UPSTREAMS_MAX {
        return Err(TableError::TooManyUpstreams { given });
    }
    // An unchanged route keeps its entry, and so its place in each rotation. Both
    // lists are sorted by host and path.
    let mut old = before.map(|table| table.entries.iter().peekable());
    let mut entries = Vec::with_capacity(snapshot.routes.len());
    for route in &snapshot.routes {
        let key = (&route.host, &route.path);
        let known = old.as_mut().and_then(|old| {
            while old.next_if(|entry| (&entry.route.host, &entry.route.path) < key).is_some() {}
            old.next_if(|entry| (&entry.route.host, &entry.route.path) == key)
        });
        entries.push(match known {
            Some(entry) if entry.route == *route => Arc::clone(entry),
            known => {
                let known = known.map(Arc::as_ref);
                Arc::new(compile_route(route, known, registry, terms, threads))
            }
        });
    }
    let options = &snapshot.options;
    Ok(RouteTable {
        index: RouteIndex::new(Arc::clone(snapshot)),
        entries: entries.into(),
        options: Options {
            hide_info_headers: options.hide_info_headers,
            connect_timeout: options.connect_timeout.unwrap_or(Duration::from_secs(5)),
            read_timeout: options.read_timeout.unwrap_or(Duration::from_secs(600)),
            send_timeout: options.send_timeout.unwrap_or(Duration::from_secs(600)),
            keepalive_timeout: options.keepalive_timeout.unwrap_or(Duration::from_secs(75)),
            body_bytes_max: options.client_max_body_size.filter(|&limit| limit > 0),
            ip_hash: options.ip_hash,
            http_version: options.http_version,
            published_ssl_port: options.published_ssl_port,
            drop_underscored_headers: options.drop_underscored_headers,
            // One that cannot be read is a problem: see `Shared::put_in_force`.
            access_format: options
                .access_log_format
                .as_deref()
                .and_then(|format| LineFormat::parse(format).ok())
                .map(Arc::new),
            trusted_proxies: options.trusted_proxies.as_slice().into(),
        },
    })
}

pub(super) fn compile_route(
    route: &Route,
    before: Option<&RouteEntry>,
    registry: &mut Registry,
    terms: &UpstreamTerms,
    threads: usize,
) -> RouteEntry {
    let mut candidates = Vec::new();
    let active_of = |service: usize| {
        let upstreams = &route.services[service].upstreams;
        upstreams.iter().filter(|upstream| upstream.state == UpstreamState::Active).count()
    };
    let active: usize = (0..route.services.len()).map(active_of).sum();
    let mut even = true;
    for (position, service) in route.services.iter().enumerate() {
        let active_here = active_of(position);
        // A share that is as near to equal as basis points allow is meant to be equal.
        let share = usize::from(service.weight) * active;
        even &= share.abs_diff(active_here * 10_000) <= active;
        let each =
            u32::from(service.weight) * 1_000 / u32::try_from(active_here.max(1)).unwrap_or(1);
        for upstream in &service.upstreams {
            candidates.push(Candidate {
                upstream: registry.get(upstream.address, upstream.task.as_ref()),
                service: position,
                weight: if service.weight == 0 { 0 } else { each.max(1) },
                draining: upstream.state == UpstreamState::Draining,
                is_checked: service.dial.max_fails > 0,
            });
        }
    }
    let places = route.services.iter().map(|service| sticky::number(service.name.as_bytes()));
    let options = &route.options;
    let root = route.path.as_str();
    let prefix = (options.rewrite && root != "/").then(|| HeaderValue::from_str(root).ok());
    RouteEntry {
        places: places.collect(),
        terms: route.services.iter().map(|service| terms.get(&service.dial.tls)).collect(),
        redirects: options.redirect.is_some() || options.ssl_only || prefix.is_some(),
        prefix: prefix.flatten(),
        route: route.clone(),
        candidates: candidates.into(),
        even,
        rotations: (0..threads).map(|_| Rotation::default()).collect(),
        counters: traffic::counters(route, before),
    }
}
