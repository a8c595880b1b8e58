//! What routes are without the upstreams that serve them now: what a rollback restores.

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;

use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::command::Share;
use crate::names::ServiceCluster;
use crate::snapshot::{Digest, RouteHost, RouteKey, RouteOptions, Snapshot, Tls};

/// The form of the bytes that a digest of intents covers.
const INTENTS_FORMAT: u32 = 1;

/// A route's intent: hosts and paths are its key's.
///
/// Ports, networks and how upstreams are spoken to belong to the live upstreams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteIntent {
    pub tls: Tls,
    /// The incumbent's.
    pub options: RouteOptions,
    /// Names, the incumbent's first, each once. Never empty.
    pub services: Vec<Arc<str>>,
    /// The shares that an operator gave, by service name; empty for equal weights.
    pub shares: Vec<Share>,
}

crate::codec::fields! { RouteIntent { tls options services shares } }
crate::codec::shared! { RouteIntent }

/// The intents of all routes of a service cluster at one index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intents {
    pub service_cluster: ServiceCluster,
    pub(crate) routes: OrdMap<RouteKey, Arc<RouteIntent>>,
}

impl Intents {
    /// Routes in order of host and path.
    pub fn iter(&self) -> impl Iterator<Item = (&RouteKey, &RouteIntent)> {
        self.routes.iter().map(|(key, intent)| (key, &**intent))
    }

    /// The intent of one route.
    pub fn get(&self, key: &RouteKey) -> Option<&RouteIntent> {
        self.routes.get(key).map(Arc::as_ref)
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Only the routes within a scope.
    pub fn within(&self, scope: &Scope) -> Self {
        let inside = |(key, intent): &(&RouteKey, &Arc<RouteIntent>)| scope.covers(key, intent);
        let pair = |(key, intent): (&RouteKey, &Arc<RouteIntent>)| (key.clone(), intent.clone());
        Self {
            service_cluster: self.service_cluster.clone(),
            routes: self.routes.iter().filter(inside).map(pair).collect(),
        }
    }

    /// BLAKE3 over the canonical bytes of all routes without upstreams: equal exactly
    /// when all intents are.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        INTENTS_FORMAT.write(&mut bytes);
        self.service_cluster.write(&mut bytes);
        self.routes.write(&mut bytes);
        Snapshot::digest_of(&bytes)
    }
}

/// Which routes of a service cluster a rollback or a release concerns: all, unless it
/// names a host or a service; with both, the routes of the service on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub host: Option<RouteHost>,
    /// By name.
    pub service: Option<Arc<str>>,
}

impl Scope {
    /// Whether a route is within it.
    pub fn covers(&self, key: &RouteKey, intent: &RouteIntent) -> bool {
        self.host.as_ref().is_none_or(|host| *host == key.host)
            && self.service.as_ref().is_none_or(|service| intent.services.contains(service))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, &self.service) {
            (None, None) => f.write_str("all routes"),
            (Some(host), None) => write!(f, "routes of host {host}"),
            (None, Some(service)) => write!(f, "routes of service {service}"),
            (Some(host), Some(service)) => write!(f, "routes of service {service} on host {host}"),
        }
    }
}

impl Canonical for Scope {
    fn write(&self, out: &mut Vec<u8>) {
        self.host.write(out);
        self.service.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        Ok(Self { host: from.read()?, service: from.read()? })
    }
}
