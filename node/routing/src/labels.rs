//! What a service's labels ask for: raw text in, an [`Intent`] out, all in one place.
//!
//! A label that publishes (`hosts`, `default_backend`) makes the whole set count:
//! one bad value, and the new intent is invalid, so that the last valid one stays
//! in force. What this rule set does not honour yet is named and left aside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::fact::{EndpointMode, HOSTS_MAX, LABEL_VALUE_BYTES_MAX, LabelValue, Scale, Service};
use crate::names::{ContextRoot, NetworkId, Port, ServiceCluster};
use crate::problem::Trouble;
use crate::snapshot::RouteHost;

mod known;
mod network;

pub(crate) use known::{DEFAULT_BACKEND, EXCLUSIVE, HOSTS, PORT, SERVICE_CLUSTER, shown};
pub(crate) use network::Networks;

use known::{BACKEND_MODE, CONTEXT_ROOT};

/// Where requests for a service go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackendMode {
    /// To its tasks.
    Task,
    /// To its virtual address, behind which Swarm balances.
    Vip,
}

/// What a service asks for, parsed into types that cannot be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) service_cluster: ServiceCluster,
    /// Named ones and wildcards, sorted, each once. Empty only with `default_backend`.
    pub(crate) hosts: Vec<RouteHost>,
    pub(crate) default_backend: bool,
    pub(crate) path: ContextRoot,
    pub(crate) port: Port,
    /// `None`: the only network that its tasks have, or their host ports.
    pub(crate) network: Option<NetworkId>,
    pub(crate) backend_mode: BackendMode,
    pub(crate) exclusive: bool,
    /// Labels that describe the route, not the service's upstreams, as given.
    pub(crate) route_options: BTreeMap<Arc<str>, LabelValue>,
}

/// A place that services can claim: the key of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteKey {
    pub(crate) service_cluster: ServiceCluster,
    pub(crate) host: RouteHost,
    pub(crate) path: ContextRoot,
}

impl Intent {
    /// The routes that it claims.
    pub(crate) fn keys(&self) -> impl Iterator<Item = RouteKey> {
        let default = self.default_backend.then_some(RouteHost::Default);
        self.hosts.iter().cloned().chain(default).map(|host| RouteKey {
            service_cluster: self.service_cluster.clone(),
            host,
            path: self.path.clone(),
        })
    }

    /// Whether a route is among those that it claims.
    pub(crate) fn claims(&self, key: &RouteKey) -> bool {
        let host = match &key.host {
            RouteHost::Default => self.default_backend,
            host => self.hosts.binary_search(host).is_ok(),
        };
        host && key.service_cluster == self.service_cluster && key.path == self.path
    }
}

/// What reading a service's labels came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It asks for nothing to be published.
    Withdrawn,
    Valid(Intent),
    /// It asks for something that cannot be: what was in force stays.
    Invalid,
}

/// Reads the labels of a service, and says what is wrong with them.
pub(crate) fn read(service: &Service, networks: Networks<'_>) -> (Reading, Vec<Trouble>) {
    let mut labels = Labels { service, troubles: Vec::new() };
    let reading = labels.read(networks);
    (reading, labels.troubles)
}

struct Labels<'a> {
    service: &'a Service,
    troubles: Vec<Trouble>,
}

impl<'a> Labels<'a> {
    fn read(&mut self, networks: Networks<'_>) -> Reading {
        let aside = self.set_aside();
        let hrm = self.service.labels.keys().any(|label| known::is_hrm(label));
        if !self.has(HOSTS) && !self.has(DEFAULT_BACKEND) {
            if aside.misspelt && !hrm {
                let reason = "the service is not published: neither hosts nor default_backend";
                self.trouble(HOSTS, "", reason);
            }
            // HRM labels ask to be published, which decides against a withdrawal.
            return if hrm { Reading::Invalid } else { Reading::Withdrawn };
        }
        let default_backend = self.boolean(DEFAULT_BACKEND);
        if default_backend == Some(false) && !self.has(HOSTS) && !hrm {
            return Reading::Withdrawn;
        }
        if self.service.scale == Scale::Job {
            self.trouble(HOSTS, "", "the service is a job, and jobs are never routed to");
            return Reading::Withdrawn;
        }
        // All are read before any is given up, so that all troubles are named at once.
        let hosts = self.hosts();
        let port = self.port();
        let path = self.parsed(CONTEXT_ROOT).map(|path| path.unwrap_or_else(ContextRoot::root));
        let service_cluster = self.parsed(SERVICE_CLUSTER).map(Option::unwrap_or_default);
        let backend_mode = self.backend_mode();
        let exclusive = self.boolean(EXCLUSIVE);
        let network = self.network(networks);
        let intent = || {
            let intent = Intent {
                service_cluster: service_cluster?,
                hosts: hosts?,
                default_backend: default_backend?,
                path: path?,
                port: port?,
                network: network?,
                backend_mode: backend_mode?,
                exclusive: exclusive?,
                route_options: aside.route_options,
            };
            (intent.default_backend || !intent.hosts.is_empty()).then_some(intent)
        };
        intent().map_or(Reading::Invalid, Reading::Valid)
    }

    fn has(&self, label: &str) -> bool {
        self.service.labels.contains_key(label)
    }

    fn trouble(&mut self, label: &str, value: &str, reason: impl Into<String>) {
        self.troubles.push(Trouble::new(label, value, reason));
    }

    /// Names the labels that this rule set does not act on, and keeps the route's options.
    fn set_aside(&mut self) -> known::Aside {
        let (aside, troubles) = known::set_aside(&self.service.labels);
        self.troubles.extend(troubles);
        aside
    }

    /// The trimmed text of a label; `Some(None)` when it is absent, `None` when it is unusable.
    fn text(&mut self, label: &str) -> Option<Option<&'a str>> {
        match self.service.labels.get(label) {
            None => Some(None),
            Some(LabelValue::Text(text)) if text.len() <= LABEL_VALUE_BYTES_MAX => {
                Some(Some(text.trim()))
            }
            Some(value) => {
                self.trouble(label, &known::shown(value), known::oversized(value));
                None
            }
        }
    }

    /// A label parsed by its type; nested like [`Self::text`].
    fn parsed<T>(&mut self, label: &str) -> Option<Option<T>>
    where
        T: std::str::FromStr<Err = crate::names::InvalidName>,
    {
        let Some(text) = self.text(label)? else { return Some(None) };
        match text.parse() {
            Ok(parsed) => Some(Some(parsed)),
            Err(error) => {
                self.trouble(label, text, error.reason());
                None
            }
        }
    }

    fn boolean(&mut self, label: &str) -> Option<bool> {
        let Some(text) = self.text(label)? else { return Some(false) };
        if text.eq_ignore_ascii_case("true") {
            Some(true)
        } else if text.eq_ignore_ascii_case("false") {
            Some(false)
        } else {
            self.trouble(label, text, "must be true or false");
            None
        }
    }

    fn hosts(&mut self) -> Option<Vec<RouteHost>> {
        let Some(text) = self.text(HOSTS)? else { return Some(Vec::new()) };
        let given = || text.split(',').map(str::trim).filter(|host| !host.is_empty());
        let count = given().count();
        if count == 0 {
            self.trouble(HOSTS, text, "names no host");
            return None;
        }
        if count > HOSTS_MAX {
            let reason = format!("names {count} hosts, above the limit of {HOSTS_MAX}");
            self.trouble(HOSTS, text, reason);
            return None;
        }
        let mut hosts = BTreeSet::new();
        let mut refused = false;
        for host in given() {
            match host.parse::<RouteHost>() {
                Ok(host) => {
                    hosts.insert(host);
                }
                Err(error) => {
                    self.trouble(HOSTS, host, error.reason());
                    refused = true;
                }
            }
        }
        (!refused).then(|| hosts.into_iter().collect())
    }

    fn port(&mut self) -> Option<Port> {
        let port = self.parsed(PORT)?;
        if port.is_none() {
            self.trouble(PORT, "", "is missing: no port to dial");
        }
        port
    }

    fn backend_mode(&mut self) -> Option<BackendMode> {
        match self.text(BACKEND_MODE)? {
            // An early draft of Interlock's documentation says `default`.
            None | Some("task" | "default") => Some(BackendMode::Task),
            Some(text @ "vip") if self.service.endpoint_mode == EndpointMode::Dnsrr => {
                let reason = "the service has no virtual address: its endpoint mode is dnsrr";
                self.trouble(BACKEND_MODE, text, reason);
                None
            }
            Some("vip") => Some(BackendMode::Vip),
            Some(text) => {
                self.trouble(BACKEND_MODE, text, "must be task or vip");
                None
            }
        }
    }

    /// `Some(None)`: each task's only network.
    fn network(&mut self, networks: Networks<'_>) -> Option<Option<NetworkId>> {
        let wanted = self.text(known::NETWORK)?;
        match network::choose(self.service, wanted, networks) {
            Ok(network) => Some(network),
            Err(reason) => {
                self.trouble(known::NETWORK, wanted.unwrap_or_default(), reason);
                None
            }
        }
    }
}

crate::codec::tags! { BackendMode { Task = 0 Vip = 1 } }

crate::codec::fields! {
    RouteKey { service_cluster host path }
}

impl Canonical for Intent {
    fn write(&self, out: &mut Vec<u8>) {
        self.service_cluster.write(out);
        self.hosts.write(out);
        self.default_backend.write(out);
        self.path.write(out);
        self.port.write(out);
        self.network.write(out);
        self.backend_mode.write(out);
        self.exclusive.write(out);
        self.route_options.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let intent = Self {
            service_cluster: from.read()?,
            hosts: from.read()?,
            default_backend: from.read()?,
            path: from.read()?,
            port: from.read()?,
            network: from.read()?,
            backend_mode: from.read()?,
            exclusive: from.read()?,
            route_options: from.read()?,
        };
        if intent.hosts.contains(&RouteHost::Default) {
            return Err(from.invalid("intent", "its hosts have no name"));
        }
        if !intent.hosts.is_sorted_by(|a, b| a < b) {
            return Err(from.invalid("intent", "hosts do not ascend"));
        }
        if intent.hosts.is_empty() && !intent.default_backend {
            return Err(from.invalid("intent", "claims no route"));
        }
        Ok(intent)
    }
}

crate::codec::shared! { Intent }
