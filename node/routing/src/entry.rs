//! One committed log entry, and the answer to it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use crate::command::Command;
use crate::fact::{Observed, Resynced};
use crate::snapshot::{Digest, Revision, UpstreamProtocol};

/// The position of an entry in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The newest schema of entries that this build reads.
pub const SCHEMA_VERSION: u32 = 1;

/// A committed entry: everything that `apply` may depend on, besides its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub schema_version: u32,
    /// The leader's clock in milliseconds since 1970; `apply` never lets it go back.
    pub leader_time_ms: u64,
    /// Who asked: `dovetail://member/1`, `dovetail://operator/anna`.
    pub actor: Arc<str>,
    /// Makes a command idempotent together with `actor`; empty for observations.
    pub request_id: Arc<str>,
    /// Why, in words.
    pub cause: Arc<str>,
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    Observed(Observed),
    Resynced(Resynced),
    Command(Command),
    /// The leader's clock moved past a deadline.
    Tick,
    /// What a majority of the members derived at `index`.
    Checkpoint {
        index: LogIndex,
        state: Digest,
        ledger: Digest,
    },
}

/// Configuration that is the same for the whole cluster, and so in the log.
///
/// Seeded from a member's `--config` file; see `Extensions.*.Config` of Interlock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterConfig {
    /// BLAKE3 of the file that it was seeded from, so that a changed file is seen.
    pub source: Digest,
    /// `PollInterval`: the longest pause between two looks at Docker.
    pub poll_interval: Option<Duration>,
    /// By service cluster, sorted by name.
    pub proxies: Vec<(crate::names::ServiceCluster, ProxyOptions)>,
}

/// Options of the proxies of one service cluster. `None` is the proxy's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// `HideInfoHeaders`: leave out `x-request-id`, `x-proxy-id`, `x-server-info`, `x-upstream-*`.
    pub hide_info_headers: bool,
    /// `ConnectTimeout`, to an upstream.
    pub connect_timeout: Option<Duration>,
    /// `ReadTimeout`: the longest silence of an upstream.
    pub read_timeout: Option<Duration>,
    /// `SendTimeout`: the longest time that an upstream takes no bytes.
    pub send_timeout: Option<Duration>,
    /// `KeepaliveTimeout`, of idle downstream connections.
    pub keepalive_timeout: Option<Duration>,
    /// `ClientMaxBodySize` in bytes; 0 is no limit.
    pub client_max_body_size: Option<u64>,
    /// `ClientBodyTimeout`: the longest pause within a client's body.
    pub client_body_timeout: Option<Duration>,
    /// `LargeClientHeaderBuffers`: the longest head of a request, in bytes.
    pub client_header_bytes_max: Option<u64>,
    /// `UnderscoresInHeaders = false`, said aloud: such headers are dropped.
    pub drop_underscored_headers: bool,
    /// `MaxConnections` of clients at one time.
    pub max_connections: Option<u64>,
    /// `HTTPVersion` to upstreams that do not say which they speak.
    pub http_version: UpstreamProtocol,
    /// `IPHash`: routes without other stickiness keep a client on one upstream.
    pub ip_hash: bool,
    /// `PublishedPort`: where clients reach plain HTTP, for redirects.
    pub published_port: Option<u16>,
    /// `PublishedSSLPort`: where clients reach TLS, for redirects.
    pub published_ssl_port: Option<u16>,
    /// `SSLProtocols`.
    pub ssl_protocols: SslProtocols,
    /// `SSLCiphers`: the cipher suites that are offered, by their IANA names in order;
    /// empty for the library's own.
    pub ssl_ciphers: Vec<Arc<str>>,
    /// `SSLVerify`: what becomes of a client without a certificate where
    /// `client_ca_cert` asks for one.
    pub ssl_verify: SslVerify,
    /// `AccessLogPath`: a file, `/dev/stdout`, or `off`.
    pub access_log_path: Option<Arc<str>>,
    /// `MainLogFormat`, in NGINX's words.
    pub access_log_format: Option<Arc<str>>,
    /// `TrustedProxies`: whose word on client addresses is taken.
    pub trusted_proxies: Vec<Subnet>,
    /// `ProxyProtocol`: connections of trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
    /// `MergeHosts`: which services may share a route.
    pub merge_hosts: MergeHosts,
}

/// Versions of TLS that clients may speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslProtocols {
    /// 1.2 and 1.3.
    #[default]
    Both,
    Tls12,
    Tls13,
}

/// What becomes of a client without a certificate, on a host that asks for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslVerify {
    /// Its handshake is refused.
    #[default]
    Required,
    /// It is served; a certificate that it does show must be valid.
    Optional,
    /// No client is asked.
    None,
}

/// Which services may share a route with its incumbent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MergeHosts {
    /// All, as with Interlock.
    #[default]
    All,
    /// Those of its stack.
    Stack,
    /// None.
    None,
}

/// A range of addresses, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    pub address: IpAddr,
    /// Bits that count: at most 32, or 128.
    pub prefix: u8,
}

impl Subnet {
    /// Whether an address lies in it; an IPv4 address may be given as an IPv6 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        fn bits(address: IpAddr) -> (u128, u8) {
            match address.to_canonical() {
                IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
                IpAddr::V6(v6) => (v6.to_bits(), 128),
            }
        }
        let ((own, own_bits), (theirs, their_bits)) = (bits(self.address), bits(address));
        let shift = 128 - u32::from(self.prefix.min(own_bits));
        own_bits == their_bits
            && own.checked_shr(shift).unwrap_or(0) == theirs.checked_shr(shift).unwrap_or(0)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(given: &str) -> Result<Self, InvalidSubnet> {
        let (address, prefix) = match given.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (given, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidSubnet)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| InvalidSubnet)?,
            None => most,
        };
        if prefix > most { Err(InvalidSubnet) } else { Ok(Self { address, prefix }) }
    }
}

/// A text that is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an address or a range such as 10.0.0.0/8")]
pub struct InvalidSubnet;

/// The answer to an entry: data, the same on every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Some snapshot changed; the greatest new revision.
    Changed(Revision),
    /// Recorded, and no snapshot changed.
    Unchanged,
    /// Refused, and nothing was recorded but the entry itself.
    Rejected(Rejection),
}

/// What whoever proposed an entry is told: a repeated command gets its first answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The entry that was applied; of a repeated command, the first one.
    pub index: LogIndex,
    pub applied: Applied,
    /// The request id was answered before, and this is that answer.
    pub first_answer: bool,
}

/// Why an entry had no effect. Not an error: every member rejects it alike.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The entry needs a newer build.
    #[error("schema {given} is newer than {SCHEMA_VERSION}, the newest that this build reads")]
    NewerSchema { given: u32 },
    /// The observation is of a swarm other than the accepted one.
    #[error("swarm {given} is not {accepted}, the accepted one: dovetail swarm accept {given}")]
    OtherSwarm { given: Arc<str>, accepted: Arc<str> },
    /// No rule set in force knows the command.
    #[error("command {name} is not known to the rule set in force")]
    UnknownCommand { name: Arc<str> },
    /// A request id came again with another command.
    #[error("request id {request_id} was used for another command at index {index}")]
    RequestIdReused { request_id: Arc<str>, index: LogIndex },
    /// A limit of the state would be passed.
    #[error("{what}: {given} is above the limit of {limit}")]
    AboveLimit { what: &'static str, given: u64, limit: u64 },
    /// A command that cannot be carried out; the reason says what to do.
    #[error("{reason}")]
    Refused { reason: Arc<str> },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_an_address_and_its_leading_bits() {
        for (subnet, address, contained) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            let parsed: Subnet = subnet.parse().expect("a subnet");
            assert_eq!(
                parsed.contains(address.parse().expect("an address")),
                contained,
                "{subnet} {address}"
            );
        }
        for refused in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a/8", "10.0.0.0/"] {
            assert_eq!(refused.parse::<Subnet>(), Err(InvalidSubnet), "{refused:?}");
        }
    }
}
