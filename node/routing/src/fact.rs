//! Facts: what Docker showed, projected to what routing may depend on.
//!
//! A fact keeps labels raw: they are parsed inside `apply`, so that the same log
//! can be replayed under another rule set.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::names::{NetworkId, ObjectId, ServiceId, SwarmId, SwarmNodeId, TaskId};

/// A label's value in bytes above which only its length and hash are recorded.
pub const LABEL_VALUE_BYTES_MAX: usize = 16 * 1_024;
/// Hosts that one service may publish.
pub const HOSTS_MAX: usize = 1_000;

/// Docker's `Version.Index`: comparable only for one object, never with ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwarmVersion(pub u64);

/// The value of a label as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelValue {
    /// The text itself, at most [`LABEL_VALUE_BYTES_MAX`] bytes.
    Text(Arc<str>),
    /// A value too long to record.
    Oversized {
        /// Its length in bytes.
        bytes: u64,
        /// BLAKE3 of it, so that a change is still seen.
        hash: [u8; 32],
    },
}

/// How Swarm names a service on its networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointMode {
    /// One virtual address per network.
    #[default]
    Vip,
    /// The addresses of the tasks.
    Dnsrr,
}

/// How many tasks Swarm keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// So many, anywhere.
    Replicated(u64),
    /// One on each swarm node.
    Global,
    /// A job, which ends by itself and is never routed to.
    Job,
}

/// A port published on the swarm node that runs the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The port inside the container.
    pub target: u16,
    /// The port on the swarm node; 0 while Docker has not chosen one.
    pub published: u16,
}

/// A Swarm service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub id: ServiceId,
    pub version: SwarmVersion,
    pub name: Arc<str>,
    /// As Docker prints it (RFC 3339 in UTC): ordered as text.
    pub created_at: Arc<str>,
    /// Only `com.docker.lb.*`, `com.docker.ucp.mesh.*`, `dovetail.*` and
    /// `com.docker.stack.namespace`.
    pub labels: BTreeMap<Arc<str>, LabelValue>,
    /// The networks of its tasks, sorted.
    pub networks: Vec<NetworkId>,
    /// Its virtual addresses by network, sorted.
    pub vips: Vec<(NetworkId, IpAddr)>,
    pub endpoint_mode: EndpointMode,
    /// Ports published in host mode, sorted.
    pub host_ports: Vec<HostPort>,
    pub scale: Scale,
    /// `UpdateStatus.State`, empty when there never was an update.
    pub update_state: Arc<str>,
}

/// What Swarm wants of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DesiredState {
    /// To start as soon as its predecessor stopped.
    Ready,
    Running,
    Shutdown,
    Remove,
    /// Anything else; never routed to.
    Other,
}

/// What a swarm node said of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskState {
    /// On the way to running: new, pending, assigned, preparing, ready, starting.
    Starting,
    Running,
    /// Ended: complete, shutdown, failed, rejected, remove, orphaned.
    Ended,
}

/// A Swarm task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: TaskId,
    pub version: SwarmVersion,
    pub service: ServiceId,
    pub slot: u64,
    pub node: SwarmNodeId,
    pub desired: DesiredState,
    pub state: TaskState,
    /// Its addresses by network, in Docker's order.
    pub addresses: Vec<(NetworkId, IpAddr)>,
    /// Ports published in host mode on `node`, sorted.
    pub host_ports: Vec<HostPort>,
}

/// A Docker network. It has no version in the Engine API: its content identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub id: NetworkId,
    pub name: Arc<str>,
    /// The routing mesh's own network, through which no task is dialled.
    pub ingress: bool,
}

/// A machine of the swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmNode {
    pub id: SwarmNodeId,
    pub version: SwarmVersion,
    pub hostname: Arc<str>,
    /// `Status.State` is `down` or `disconnected`.
    pub down: bool,
    /// `Spec.Availability`: active, pause or drain.
    pub availability: Arc<str>,
    /// `Status.Addr`, where host-mode ports are dialled.
    pub address: Option<IpAddr>,
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// One change of one Swarm object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Network(Network),
    NetworkGone(NetworkId),
    SwarmNode(SwarmNode),
    SwarmNodeGone(SwarmNodeId),
    Service(Service),
    ServiceGone(ServiceId),
    Task(Task),
    TaskGone(TaskId),
    /// A secret's name; its content never enters the log.
    Secret {
        id: ObjectId,
        name: Arc<str>,
    },
    SecretGone(ObjectId),
    Config {
        id: ObjectId,
        name: Arc<str>,
    },
    ConfigGone(ObjectId),
}

/// A Docker event: a hint that led to a look, kept for `log show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerEvent {
    /// `service`, `node`, `network`, `secret`, `config`, `container`.
    pub kind: Arc<str>,
    /// `create`, `update`, `remove` …
    pub action: Arc<str>,
    pub object: Arc<str>,
    /// Docker's own clock, in nanoseconds since 1970.
    pub time_ns: i64,
}

/// Changes of Swarm objects, each at its version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub swarm: SwarmId,
    /// In the order in which they are applied: networks and nodes first.
    pub changes: Vec<Change>,
    /// The hints that led to this look; empty for a listing by the clock.
    pub events: Vec<DockerEvent>,
}

/// A full listing was compared with the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resynced {
    pub swarm: SwarmId,
    pub services: u64,
    pub tasks: u64,
    pub networks: u64,
    pub swarm_nodes: u64,
}

/// Everything that one listing showed: a level, never a delta.
///
/// The reconciler compares it with the facts of the state and proposes the difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub swarm: SwarmId,
    pub networks: BTreeMap<NetworkId, Network>,
    pub swarm_nodes: BTreeMap<SwarmNodeId, SwarmNode>,
    pub services: BTreeMap<ServiceId, Service>,
    pub tasks: BTreeMap<TaskId, Task>,
    pub secrets: BTreeMap<ObjectId, Arc<str>>,
    pub configs: BTreeMap<ObjectId, Arc<str>>,
}
