//! One committed log entry, and the answer to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::fact::{Observed, Resynced};
use crate::snapshot::{Digest, Revision};

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

/// What an operator ordered, or a member on the cluster's behalf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Puts configuration in force for all members and proxies.
    ApplyConfig(ClusterConfig),
    /// A remark for the audit; it changes no route.
    Annotate { text: Arc<str> },
    /// Takes another swarm's listing as the new baseline.
    AcceptSwarm { swarm: crate::names::SwarmId },
    /// A command that this rule set does not know: answered, never applied.
    Unknown { name: Arc<str> },
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
}

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
}
