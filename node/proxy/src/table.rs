//! The route table: a snapshot compiled for lookup, replaced whole, pinned once per request.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dovetail_routing::entry::Subnet;
use dovetail_routing::find::{Found, RouteIndex};
use dovetail_routing::snapshot::{
    Dial, Revision, Route, Snapshot, UpstreamProtocol, UpstreamState,
};
use http::HeaderValue;

use crate::access_log::LineFormat;
use crate::balance::Rotation;
use crate::dial::{Destination, Key};
use crate::secrets::Secrets;
use crate::sticky;
use crate::upstream::{Registry, Upstream, now_ms};
use crate::upstream_tls::{Terms, UpstreamTerms};
use crate::worker::Worker;

/// Upstreams that one table may hold; more are refused, and the table before stays.
pub const UPSTREAMS_MAX: usize = 200_000;

/// An upstream on a route.
#[derive(Debug)]
pub struct Candidate {
    pub upstream: Arc<Upstream>,
    /// Position of its service in the route.
    pub service: usize,
    /// Its part of the route's requests: of 10,000,000, or less when services have no part.
    pub weight: u32,
    pub draining: bool,
    /// Whether failures take it out, as its service has it.
    pub is_checked: bool,
}

/// A route with its upstreams, and where each thread's rotation stands.
#[derive(Debug)]
pub struct RouteEntry {
    pub route: Route,
    /// In the order of the services.
    pub candidates: Box<[Candidate]>,
    /// Each service's name as a number: see [`sticky`].
    pub places: Box<[u64]>,
    /// Each service's terms of TLS; `None` for one in plain.
    pub terms: Box<[Option<Arc<Terms>>]>,
    /// The context root, if it is taken off the path.
    pub prefix: Option<HeaderValue>,
    /// Some requests are answered by the proxy itself: see [`crate::redirect`].
    pub redirects: bool,
    /// All active upstreams take the same part.
    pub even: bool,
    pub rotations: Box<[Rotation]>,
}

impl RouteEntry {
    /// How the upstream at a position is spoken to.
    pub fn dial(&self, position: usize) -> &Dial {
        &self.route.services[self.candidates[position].service].dial
    }

    /// Where connections to the upstream at a position lead.
    pub fn destination(&self, position: usize) -> Destination {
        let Candidate { upstream, service, .. } = &self.candidates[position];
        Destination { upstream: Arc::clone(upstream), tls: self.terms[*service].clone() }
    }

    /// What tells connections there from others.
    pub fn key(&self, position: usize) -> Key {
        let Candidate { upstream, service, .. } = &self.candidates[position];
        (upstream.id, self.terms[*service].as_ref().map_or(0, |terms| terms.id()))
    }

    /// Counts a failure; connections to an upstream that fell silent are worth nothing.
    pub fn note_failure(&self, position: usize, worker: &Worker, silent: bool) {
        let upstream = &self.candidates[position].upstream;
        if upstream.failed(now_ms(), self.dial(position)) {
            worker.telemetry.upstream_out();
        }
        if silent {
            worker.pool.evict(upstream.id);
            worker.http2.evict(upstream.id);
        }
    }
}

/// What a request is to get.
#[derive(Debug)]
pub enum Lookup<'t> {
    Route(&'t Arc<RouteEntry>),
    UnknownPath,
    UnknownHost,
}

/// What the snapshot's options come to, with the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    pub hide_info_headers: bool,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
    pub send_timeout: Duration,
    pub keepalive_timeout: Duration,
    /// `None` is no limit.
    pub body_bytes_max: Option<u64>,
    /// Routes without other stickiness keep a client on one upstream.
    pub ip_hash: bool,
    /// What is spoken to upstreams that do not say what they speak.
    pub http_version: UpstreamProtocol,
    /// Where clients reach TLS, for redirects.
    pub published_ssl_port: Option<u16>,
    pub drop_underscored_headers: bool,
    /// How a line of the access log looks; `None` as JSON.
    pub access_format: Option<Arc<LineFormat>>,
    /// Whose word on clients is taken.
    pub trusted_proxies: Box<[Subnet]>,
}

/// A snapshot compiled for lookup.
#[derive(Debug)]
pub struct RouteTable {
    index: RouteIndex,
    entries: Box<[Arc<RouteEntry>]>,
    pub options: Options,
}

impl RouteTable {
    /// The revision of its snapshot.
    pub fn revision(&self) -> Revision {
        self.index.snapshot().revision
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        self.index.snapshot()
    }

    /// Finds the route for a lower-case host without port, and a path.
    pub fn find(&self, host: &str, path: &str) -> Lookup<'_> {
        match self.index.find(host, path) {
            Found::Route(position) => match self.entries.get(position) {
                Some(entry) => Lookup::Route(entry),
                None => Lookup::UnknownHost,
            },
            Found::UnknownPath => Lookup::UnknownPath,
            Found::UnknownHost => Lookup::UnknownHost,
        }
    }

    /// All routes of a lower-case host, or of the wildcard that covers it. Never empty.
    pub fn host(&self, host: &str) -> Option<&[Arc<RouteEntry>]> {
        self.entries.get(self.index.host(host)?)
    }

    /// The routes, in the snapshot's order.
    pub fn entries(&self) -> &[Arc<RouteEntry>] {
        &self.entries
    }
}

/// A table that cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("{given} upstreams are more than {UPSTREAMS_MAX}")]
    TooManyUpstreams { given: usize },
    #[error("revision {given} is not newer than {in_force}, which is in force")]
    NotNewer { given: Revision, in_force: Revision },
}

/// One table, read by every request and replaced as a whole.
#[derive(Debug)]
pub struct SharedTable {
    in_force: ArcSwapOption<RouteTable>,
    /// Held by the one writer while it compiles.
    registry: Mutex<Registry>,
    terms: UpstreamTerms,
    threads: usize,
}

impl SharedTable {
    /// Without a table; `threads` will read it. Authorities of upstreams are `secrets`.
    pub fn new(threads: usize, secrets: Secrets) -> Self {
        Self {
            in_force: ArcSwapOption::empty(),
            registry: Mutex::default(),
            terms: UpstreamTerms::new(secrets),
            threads: threads.max(1),
        }
    }

    /// Pins the table for the life of one request.
    ///
    /// Call it once per request: a second call may see another revision, and a
    /// retry would then be decided by other routes than the first attempt.
    pub fn pin(&self) -> Option<Arc<RouteTable>> {
        self.in_force.load_full()
    }

    /// The terms of TLS towards upstreams.
    pub fn terms(&self) -> &UpstreamTerms {
        &self.terms
    }

    /// Compiles `snapshot` and puts it in force. The subscriber is the only caller.
    pub fn replace(&self, snapshot: &Arc<Snapshot>) -> Result<Revision, TableError> {
        self.replace_after(snapshot, |_| {})
    }

    /// The same; `before_it` is done with the new table just before it is in force.
    pub fn replace_after(
        &self,
        snapshot: &Arc<Snapshot>,
        before_it: impl FnOnce(&Arc<RouteTable>),
    ) -> Result<Revision, TableError> {
        let before = self.pin();
        if let Some(before) = &before
            && snapshot.revision <= before.revision()
        {
            return Err(TableError::NotNewer {
                given: snapshot.revision,
                in_force: before.revision(),
            });
        }
        let mut registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let table = compile(snapshot, before.as_deref(), &mut registry, &self.terms, self.threads)?;
        let revision = table.revision();
        let taking: HashSet<u64> = table
            .entries
            .iter()
            .flat_map(|entry| entry.candidates.iter())
            .filter(|candidate| !candidate.draining)
            .map(|candidate| candidate.upstream.id)
            .collect();
        let table = Arc::new(table);
        before_it(&table);
        self.in_force.store(Some(table));
        registry.keep_only(|upstream| taking.contains(&upstream.id));
        Ok(revision)
    }
}

fn compile(
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
        let kept = old.as_mut().and_then(|old| {
            while old.next_if(|entry| (&entry.route.host, &entry.route.path) < key).is_some() {}
            old.next_if(|entry| entry.route == *route).cloned()
        });
        entries
            .push(kept.unwrap_or_else(|| Arc::new(compile_route(route, registry, terms, threads))));
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

fn compile_route(
    route: &Route,
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
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dovetail_routing::snapshot::{
        RouteOptions, RouteService, Tls, Upstream as SnapshotUpstream,
    };

    /// A route of services with a weight and upstreams: `a` is active, `d` draining.
    pub(crate) fn route(host: &str, services: &[(u16, &str)]) -> Route {
        let mut port = 1_000;
        let services = services.iter().enumerate().map(|(at, (weight, states))| RouteService {
            id: format!("service-{at}").as_str().into(),
            name: format!("service-{at}").into(),
            weight: *weight,
            dial: Dial::default(),
            upstreams: states
                .chars()
                .map(|state| {
                    port += 1;
                    SnapshotUpstream {
                        address: ([127, 0, 0, 1], port).into(),
                        state: match state {
                            'a' => UpstreamState::Active,
                            _ => UpstreamState::Draining,
                        },
                        task: Some(format!("task-{port}").as_str().into()),
                        node: None,
                    }
                })
                .collect(),
        });
        Route {
            host: host.parse().expect("a host"),
            path: dovetail_routing::names::ContextRoot::root(),
            tls: Tls::None,
            options: RouteOptions::default(),
            services: services.collect(),
        }
    }

    pub(crate) fn entry(services: &[(u16, &str)]) -> RouteEntry {
        entry_of(&route("shop.example", services))
    }

    pub(crate) fn entry_of(route: &Route) -> RouteEntry {
        compile_route(route, &mut Registry::default(), &UpstreamTerms::default(), 2)
    }

    fn snapshot(revision: u64, routes: Vec<Route>) -> Arc<Snapshot> {
        Arc::new(Snapshot { revision: Revision(revision), routes, ..Snapshot::default() })
    }

    #[test]
    fn a_proxy_never_goes_back() {
        let shared = SharedTable::new(1, Secrets::default());
        assert!(shared.pin().is_none());
        let routes = vec![route("a.example", &[(10_000, "a")])];
        assert_eq!(shared.replace(&snapshot(5, routes.clone())), Ok(Revision(5)));
        for older in [5, 4] {
            assert!(shared.replace(&snapshot(older, vec![])).is_err());
        }
        assert_eq!(shared.pin().map(|table| table.revision()), Some(Revision(5)));
        assert_eq!(shared.replace(&snapshot(7, vec![])), Ok(Revision(7)));
    }

    #[test]
    fn a_request_keeps_its_revision_across_a_swap() {
        let shared = SharedTable::new(1, Secrets::default());
        let routes = vec![route("a.example", &[(10_000, "a")])];
        shared.replace(&snapshot(1, routes)).expect("a table");
        let pinned = shared.pin().expect("a table");
        shared.replace(&snapshot(2, vec![])).expect("a table");
        assert_eq!(pinned.revision(), Revision(1));
        assert_eq!(pinned.entries().len(), 1);
    }

    #[test]
    fn an_unchanged_route_keeps_its_rotation() {
        let shared = SharedTable::new(1, Secrets::default());
        let stable = route("b.example", &[(10_000, "aa")]);
        let first = vec![
            route("a.example", &[(10_000, "a")]),
            stable.clone(),
            route("c.example", &[(10_000, "a")]),
        ];
        shared.replace(&snapshot(1, first)).expect("a table");
        let before = shared.pin().expect("a table");
        let second = vec![stable, route("c.example", &[(10_000, "ad")])];
        shared.replace(&snapshot(2, second)).expect("a table");
        let after = shared.pin().expect("a table");
        assert!(Arc::ptr_eq(&before.entries()[1], &after.entries()[0]));
        assert!(!Arc::ptr_eq(&before.entries()[2], &after.entries()[1]));
    }

    #[test]
    fn only_upstreams_that_take_requests_keep_idle_connections() {
        let shared = SharedTable::new(1, Secrets::default());
        shared.replace(&snapshot(1, vec![route("a.example", &[(10_000, "aa")])])).expect("a table");
        let before = shared.pin().expect("a table");
        let upstreams: Vec<_> =
            before.entries()[0].candidates.iter().map(|c| Arc::clone(&c.upstream)).collect();
        shared.replace(&snapshot(2, vec![route("a.example", &[(10_000, "ad")])])).expect("a table");
        assert!(upstreams[0].is_kept() && !upstreams[1].is_kept());
        shared.replace(&snapshot(3, vec![])).expect("a table");
        assert!(!upstreams[0].is_kept());
    }
}
