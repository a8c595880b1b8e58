//! What a proxy receives: the routes of one service cluster at one revision.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

pub use crate::codec::InvalidBytes;
pub use bytes::SNAPSHOT_FORMAT;

use crate::entry::ProxyOptions;
use crate::names::{ContextRoot, Host, ServiceCluster, ServiceId, SwarmNodeId, TaskId};

mod bytes;

/// Version of a service cluster's snapshot: the index of the entry that last
/// changed it. It has gaps, and is comparable only within one cluster id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A BLAKE3 hash of canonical bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A share of a whole in basis points: 10,000 is all of it.
pub const WEIGHT_SUM: u16 = 10_000;

/// The routes of one service cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub service_cluster: ServiceCluster,
    pub revision: Revision,
    pub options: ProxyOptions,
    /// Sorted by host and path, each pair once.
    pub routes: Vec<Route>,
}

impl Snapshot {
    /// The canonical bytes: what the digest covers and what a proxy receives.
    pub fn encode(&self) -> Vec<u8> {
        bytes::encode(self)
    }

    /// Reads canonical bytes, and refuses any that the core would not write.
    pub fn decode(canonical: &[u8]) -> Result<Self, InvalidBytes> {
        bytes::decode(canonical)
    }

    /// The digest of canonical bytes.
    pub fn digest_of(canonical: &[u8]) -> Digest {
        Digest(*blake3::hash(canonical).as_bytes())
    }
}

/// A snapshot with its canonical bytes and their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub snapshot: Arc<Snapshot>,
    pub canonical: Arc<[u8]>,
    pub digest: Digest,
}

impl Published {
    /// Encodes and hashes a snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        let canonical: Arc<[u8]> = snapshot.encode().into();
        let digest = Snapshot::digest_of(&canonical);
        Self { snapshot: Arc::new(snapshot), canonical, digest }
    }
}

/// Whom a route answers for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteHost {
    /// Requests for this host.
    Named(Host),
    /// Requests for any host that has no route: `default_backend`. Printed `*`.
    Default,
}

impl fmt::Display for RouteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(host) => host.fmt(f),
            Self::Default => f.write_str("*"),
        }
    }
}

/// What happens to TLS on a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Plain HTTP only.
    #[default]
    None,
    /// The proxy holds the certificate.
    Terminate,
    /// The raw stream goes to the upstream.
    Passthrough,
}

/// A host and a context root, and who serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub host: RouteHost,
    pub path: ContextRoot,
    pub tls: TlsMode,
    /// The incumbent first, then by the age of their claims. Never empty: a
    /// service without a running task stays, so that its route is known.
    pub services: Vec<RouteService>,
}

/// A service on a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteService {
    pub id: ServiceId,
    pub name: Arc<str>,
    /// The share in force, in basis points; over a route's services they sum to
    /// [`WEIGHT_SUM`].
    pub weight: u16,
    /// Sorted by address, then task.
    pub upstreams: Vec<Upstream>,
}

/// One address that serves a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub address: SocketAddr,
    pub state: UpstreamState,
    /// `None` for a virtual address.
    pub task: Option<TaskId>,
    pub node: Option<SwarmNodeId>,
}

/// Whether an upstream takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpstreamState {
    Active,
    /// Takes a new request only when its route has no active upstream.
    Draining,
}
