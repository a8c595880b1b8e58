//! Which object a change is about.

use dovetail_routing::fact::Change;
use dovetail_routing::names::{NetworkId, ObjectId, ServiceId, SwarmNodeId, TaskId};

/// An object of the Swarm, whatever happened to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ObjectKey {
    Service(ServiceId),
    Task(TaskId),
    Network(NetworkId),
    SwarmNode(SwarmNodeId),
    Secret(ObjectId),
    Config(ObjectId),
}

impl From<&Change> for ObjectKey {
    fn from(change: &Change) -> Self {
        match change {
            Change::Network(network) => Self::Network(network.id.clone()),
            Change::NetworkGone(id) => Self::Network(id.clone()),
            Change::SwarmNode(node) => Self::SwarmNode(node.id.clone()),
            Change::SwarmNodeGone(id) => Self::SwarmNode(id.clone()),
            Change::Service(service) => Self::Service(service.id.clone()),
            Change::ServiceGone(id) => Self::Service(id.clone()),
            Change::Task(task) => Self::Task(task.id.clone()),
            Change::TaskGone(id) => Self::Task(id.clone()),
            Change::Secret { id, .. } | Change::SecretGone(id) => Self::Secret(id.clone()),
            Change::Config { id, .. } | Change::ConfigGone(id) => Self::Config(id.clone()),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(id) => write!(f, "service {id}"),
            Self::Task(id) => write!(f, "task {id}"),
            Self::Network(id) => write!(f, "network {id}"),
            Self::SwarmNode(id) => write!(f, "swarm node {id}"),
            Self::Secret(id) => write!(f, "secret {id}"),
            Self::Config(id) => write!(f, "config {id}"),
        }
    }
}
