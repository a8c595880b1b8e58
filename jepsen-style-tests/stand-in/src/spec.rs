//! What a caller asks for: services as `docker service create` describes them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The network that is there from the start and that services join unless told.
pub(crate) const NETWORK_DEFAULT: &str = "demo";

/// A service to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Names of networks; `demo` unless told.
    pub networks: Vec<String>,
    pub mode: Mode,
    pub replicas: u64,
    /// Addresses of tasks on the first network: a new task takes the first that no
    /// living one has, so that a rolling update wants more of them than replicas.
    /// Made up from the network's subnet when there are none.
    pub addresses: Vec<IpAddr>,
    /// The virtual address on the first network, which the caller must serve himself;
    /// made up from the network's subnet when there is none.
    pub vip: Option<IpAddr>,
    /// Ports published in host mode.
    pub host_ports: Vec<HostPort>,
    pub endpoint_mode: EndpointMode,
    pub image: String,
}

impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            labels: BTreeMap::new(),
            networks: vec![NETWORK_DEFAULT.to_owned()],
            mode: Mode::Replicated,
            replicas: 1,
            addresses: Vec::new(),
            vip: None,
            host_ports: Vec::new(),
            endpoint_mode: EndpointMode::Vip,
            image: "stand-in:1".to_owned(),
        }
    }
}

impl ServiceSpec {
    /// One replica on the network `demo`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn replicas(mut self, replicas: u64) -> Self {
        self.replicas = replicas;
        self
    }

    /// Addresses for the tasks, in turn.
    #[must_use]
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// Joins these networks instead of `demo`.
    #[must_use]
    pub fn networks<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.networks = names.into_iter().map(str::to_owned).collect();
        self
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    #[default]
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    #[default]
    Vip,
    Dnsrr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPort {
    pub target: u16,
    pub published: u16,
}

/// The states of a task, desired or not, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    New,
    Allocated,
    Pending,
    Assigned,
    Accepted,
    Preparing,
    Ready,
    Starting,
    Running,
    Complete,
    Shutdown,
    Failed,
    Rejected,
    Remove,
    Orphaned,
}

impl TaskState {
    /// As the Engine API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Allocated => "allocated",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }
}

/// How long a machine takes over what Swarm decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From a task's creation to running: zero is at once, none is never by itself.
    pub start: Option<Duration>,
    /// From the decision to stop a task to its end; none is never by itself.
    pub stop: Option<Duration>,
}

impl Default for Timing {
    /// Starts at once; stops as a real Swarm was measured to, after three seconds.
    fn default() -> Self {
        Self { start: Some(Duration::ZERO), stop: Some(Duration::from_secs(3)) }
    }
}
