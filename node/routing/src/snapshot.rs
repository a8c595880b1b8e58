//! What a proxy receives: the routes of one service cluster at one revision.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use crate::codec::InvalidBytes;
pub use bytes::SNAPSHOT_FORMAT;
pub use redirect::Redirect;

use crate::entry::ProxyOptions;
use crate::names::{
    ContextRoot, CookieName, Host, InvalidName, SecretName, ServiceCluster, ServiceId, SwarmNodeId,
    TaskId,
};

mod bytes;
pub(crate) mod redirect;

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
    /// Requests for any host below this one, at any depth, that is not named itself.
    /// Printed `*.example.org`.
    Wildcard(Host),
    /// Requests for any host that has no route: `default_backend`. Printed `*`.
    Default,
}

impl RouteHost {
    /// Reads what `Display` prints: also `*`, which no label may say.
    pub fn from_printed(given: &str) -> Result<Self, InvalidName> {
        if given == "*" { Ok(Self::Default) } else { given.parse() }
    }
}

impl FromStr for RouteHost {
    type Err = InvalidName;

    /// Reads a host name, or a wildcard such as `*.example.org`.
    fn from_str(given: &str) -> Result<Self, InvalidName> {
        if given == "*" {
            let reason = "is every host: say it with com.docker.lb.default_backend=true";
            return Err(InvalidName::new("host", given, reason));
        }
        match given.strip_prefix("*.") {
            Some(below) => below.parse().map(Self::Wildcard),
            None => given.parse().map(Self::Named),
        }
    }
}

impl fmt::Display for RouteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(host) => host.fmt(f),
            Self::Wildcard(below) => write!(f, "*.{below}"),
            Self::Default => f.write_str("*"),
        }
    }
}

/// A place that services can claim: the key of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    pub service_cluster: ServiceCluster,
    pub host: RouteHost,
    pub path: ContextRoot,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)?;
        match self.service_cluster.as_str() {
            "" => Ok(()),
            name => write!(f, " of service cluster {name}"),
        }
    }
}

/// What happens to TLS on a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Plain HTTP only.
    #[default]
    None,
    /// The proxy holds the certificate. The same for all routes of one host.
    Terminate(Certificate),
    /// The raw stream goes to the upstream.
    Passthrough,
}

/// The names of the Docker secrets with which a host's TLS is terminated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Certificate {
    /// The chain in PEM, the host's own certificate first.
    pub cert: SecretName,
    /// The key in PEM; `None` when it stands in the same file.
    pub key: Option<SecretName>,
    /// Authorities in PEM, one of which must have signed the client's certificate.
    pub client_ca: Option<SecretName>,
}

/// Options that belong to a route, and so to its incumbent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteOptions {
    /// The context root is taken off the path before the request is passed on.
    pub rewrite: bool,
    /// Requests are answered with a redirect (302), unless they already came to where
    /// it leads.
    pub redirect: Option<Redirect>,
    /// Plain HTTP is answered with a redirect to HTTPS.
    pub ssl_only: bool,
    pub sticky: Sticky,
}

/// What keeps a user on one upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sticky {
    /// Nothing.
    #[default]
    None,
    /// The value of this cookie, which the application sets.
    Cookie(CookieName),
    /// The client's address.
    ClientIp,
}

/// A host and a context root, and who serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub host: RouteHost,
    pub path: ContextRoot,
    pub tls: Tls,
    pub options: RouteOptions,
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
    pub dial: Dial,
    /// Sorted by address, then task.
    pub upstreams: Vec<Upstream>,
}

/// How a service's upstreams are spoken to, and when one counts as failing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    pub tls: UpstreamTls,
    pub protocol: UpstreamProtocol,
    /// `max_fails`: failures within `fail_timeout` that take an upstream out; 0 is never.
    pub max_fails: u32,
    /// `fail_timeout`: how long failures count together, and how long it stays out.
    pub fail_timeout: Duration,
    /// `dovetail.fail_on=5xx`: such an answer is a failure, too.
    pub fail_on_5xx: bool,
}

impl Default for Dial {
    fn default() -> Self {
        Self {
            tls: UpstreamTls::None,
            protocol: UpstreamProtocol::Auto,
            max_fails: 3,
            fail_timeout: Duration::from_secs(10),
            fail_on_5xx: false,
        }
    }
}

/// TLS towards a service: `ssl_backend`, `ssl_backend_tls_verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpstreamTls {
    #[default]
    None,
    /// The certificate must be for `name`, and signed by an authority in `ca`: a secret,
    /// or the machine's own authorities.
    Verified { name: Host, ca: Option<SecretName> },
    /// Any certificate will do; `name` is what is asked for (SNI).
    Unverified { name: Host },
}

/// Which HTTP a service speaks: `dovetail.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpstreamProtocol {
    /// HTTP/1.1, but HTTP/2 for gRPC.
    #[default]
    Auto,
    Http1,
    /// HTTP/2 for all requests; without TLS by prior knowledge.
    Http2,
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
