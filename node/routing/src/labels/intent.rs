//! What a service asks for, parsed into types that cannot be wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::names::{ContextRoot, Host, NetworkId, Port, SecretName, ServiceCluster};
use crate::snapshot::{
    Dial, Redirect, RouteHost, RouteKey, RouteOptions, Sticky, Tls, UpstreamProtocol, UpstreamTls,
};

/// Where requests for a service go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackendMode {
    /// To its tasks.
    Task,
    /// To its virtual address, behind which Swarm balances.
    Vip,
}

/// What a service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) service_cluster: ServiceCluster,
    /// Named ones and wildcards, sorted, each once. Empty only with `default_backend`.
    pub(crate) hosts: Vec<RouteHost>,
    pub(crate) default_backend: bool,
    pub(crate) path: ContextRoot,
    /// What becomes of TLS on its hosts.
    pub(crate) tls: Tls,
    pub(crate) options: Options,
    pub(crate) exclusive: bool,
    pub(crate) upstreams: Upstreams,
}

/// What a service asks of its routes: granted where it is the incumbent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) rewrite: bool,
    /// Asked for, or implied by `client_ca_cert`.
    pub(crate) ssl_only: bool,
    pub(crate) sticky: Sticky,
    /// By the host whose requests are redirected.
    pub(crate) redirects: BTreeMap<RouteHost, Redirect>,
}

/// Which addresses serve it, and how they are spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstreams {
    pub(crate) port: Port,
    /// `None`: the only network that its tasks have, or their host ports.
    pub(crate) network: Option<NetworkId>,
    pub(crate) mode: BackendMode,
    pub(crate) tls: Option<BackendTls>,
    pub(crate) protocol: UpstreamProtocol,
    pub(crate) max_fails: u32,
    pub(crate) fail_timeout: Duration,
    pub(crate) fail_on_5xx: bool,
}

/// TLS towards the upstreams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendTls {
    pub(crate) verified: bool,
    pub(crate) ca: Option<SecretName>,
    /// The name that is asked for on every route.
    pub(crate) name: Option<Host>,
    /// The name that is asked for on a route that has none itself.
    pub(crate) otherwise: Host,
}

/// A host of a service cluster, to which certificates and passthrough belong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostKey {
    pub(crate) service_cluster: ServiceCluster,
    pub(crate) host: RouteHost,
}

impl RouteKey {
    pub(crate) fn host_key(&self) -> HostKey {
        HostKey { service_cluster: self.service_cluster.clone(), host: self.host.clone() }
    }
}

impl HostKey {
    /// What sorts before all of its other routes: the shortest path of all.
    pub(crate) fn first_route(&self) -> RouteKey {
        RouteKey {
            service_cluster: self.service_cluster.clone(),
            host: self.host.clone(),
            path: ContextRoot::root(),
        }
    }
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
        self.names(&key.host)
            && key.service_cluster == self.service_cluster
            && key.path == self.path
    }

    fn names(&self, host: &RouteHost) -> bool {
        match host {
            RouteHost::Default => self.default_backend,
            host => self.hosts.binary_search(host).is_ok(),
        }
    }
}

impl Options {
    /// The options of its route on `host`.
    pub(crate) fn of(&self, host: &RouteHost) -> RouteOptions {
        RouteOptions {
            rewrite: self.rewrite,
            redirect: self.redirects.get(host).cloned(),
            ssl_only: self.ssl_only,
            sticky: self.sticky.clone(),
        }
    }
}

impl Upstreams {
    /// How they are spoken to on a route of `host`.
    pub(crate) fn dial(&self, host: &RouteHost) -> Dial {
        Dial {
            tls: self.tls.as_ref().map(|tls| tls.on(host)).unwrap_or_default(),
            protocol: self.protocol,
            max_fails: self.max_fails,
            fail_timeout: self.fail_timeout,
            fail_on_5xx: self.fail_on_5xx,
        }
    }
}

impl BackendTls {
    fn on(&self, host: &RouteHost) -> UpstreamTls {
        let name = match (&self.name, host) {
            (Some(name), _) | (None, RouteHost::Named(name)) => name,
            (None, RouteHost::Wildcard(_) | RouteHost::Default) => &self.otherwise,
        };
        if self.verified {
            UpstreamTls::Verified { name: name.clone(), ca: self.ca.clone() }
        } else {
            UpstreamTls::Unverified { name: name.clone() }
        }
    }
}

crate::codec::tags! { BackendMode { Task = 0 Vip = 1 } }

crate::codec::fields! {
    Options { rewrite ssl_only sticky redirects }
    Upstreams { port network mode tls protocol max_fails fail_timeout fail_on_5xx }
    BackendTls { verified ca name otherwise }
}

impl Canonical for Intent {
    fn write(&self, out: &mut Vec<u8>) {
        self.service_cluster.write(out);
        self.hosts.write(out);
        self.default_backend.write(out);
        self.path.write(out);
        self.tls.write(out);
        self.options.write(out);
        self.exclusive.write(out);
        self.upstreams.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let intent = Self {
            service_cluster: from.read()?,
            hosts: from.read()?,
            default_backend: from.read()?,
            path: from.read()?,
            tls: from.read()?,
            options: from.read()?,
            exclusive: from.read()?,
            upstreams: from.read()?,
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
        if !intent.options.redirects.keys().all(|host| intent.names(host)) {
            return Err(from.invalid("intent", "redirects a host that it does not claim"));
        }
        Ok(intent)
    }
}

crate::codec::shared! { Intent }
