//! The route table: a snapshot compiled for lookup, replaced whole, pinned once per request.

mod compile;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dovetail_routing::entry::Subnet;
use dovetail_routing::find::{Found, RouteIndex};
use dovetail_routing::snapshot::{Dial, Revision, Route, RouteHost, Snapshot, UpstreamProtocol};
use http::HeaderValue;

use crate::access_log::LineFormat;
use crate::balance::Rotation;
use crate::dial::{Destination, Key};
use crate::secrets::Secrets;
use crate::traffic::Counters;
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
    /// Each service's name as a number: see [`crate::sticky`].
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
    /// What each service answers; empty on a route of one service.
    pub counters: Box<[Arc<Counters>]>,
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

    /// What the service of the upstream at a position answers, where that is counted.
    pub fn counters(&self, position: usize) -> Option<&Counters> {
        self.counters.get(self.candidates[position].service).map(Arc::as_ref)
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

    /// The route of exactly this host and path, as a route prints them.
    pub fn entry(&self, host: &str, path: &str) -> Option<&Arc<RouteEntry>> {
        let (host, path) = (RouteHost::from_printed(host).ok()?, path.parse().ok()?);
        let key = (&host, &path);
        let found =
            self.entries.binary_search_by(|entry| (&entry.route.host, &entry.route.path).cmp(&key));
        found.ok().map(|position| &self.entries[position])
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
        let table = compile::compile(
            snapshot,
            before.as_deref(),
            &mut registry,
            &self.terms,
            self.threads,
        )?;
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

#[cfg(test)]
pub(crate) mod tests;
