//! Observations: what Docker showed.

use std::net::IpAddr;
use std::sync::Arc;

use dovetail_routing::fact::{
    Change, DesiredState, DockerEvent, EndpointMode, HostPort, LabelValue, Network, Observed,
    Resynced, Scale, Service, SwarmNode, SwarmVersion, Task, TaskState,
};
use dovetail_routing::names::{NetworkId, ObjectId, ServiceId, SwarmId, SwarmNodeId, TaskId};

use super::{InvalidEntry, each, invalid, unique};
use crate::v1 as pb;

impl From<&Observed> for pb::Observed {
    fn from(observed: &Observed) -> Self {
        Self {
            swarm: observed.swarm.to_string(),
            changes: observed.changes.iter().map(Into::into).collect(),
            events: observed
                .events
                .iter()
                .map(|event| pb::DockerEvent {
                    kind: event.kind.to_string(),
                    action: event.action.to_string(),
                    object: event.object.to_string(),
                    time_ns: event.time_ns,
                })
                .collect(),
        }
    }
}

impl TryFrom<pb::Observed> for Observed {
    type Error = InvalidEntry;

    fn try_from(observed: pb::Observed) -> Result<Self, InvalidEntry> {
        let event = |event: pb::DockerEvent| DockerEvent {
            kind: event.kind.into(),
            action: event.action.into(),
            object: event.object.into(),
            time_ns: event.time_ns,
        };
        Ok(Self {
            swarm: SwarmId(observed.swarm.into()),
            changes: each(observed.changes)?,
            events: observed.events.into_iter().map(event).collect(),
        })
    }
}

impl From<&Resynced> for pb::Resynced {
    fn from(resynced: &Resynced) -> Self {
        Self {
            swarm: resynced.swarm.to_string(),
            services: resynced.services,
            tasks: resynced.tasks,
            networks: resynced.networks,
            swarm_nodes: resynced.swarm_nodes,
        }
    }
}

impl From<pb::Resynced> for Resynced {
    fn from(resynced: pb::Resynced) -> Self {
        Self {
            swarm: SwarmId(resynced.swarm.into()),
            services: resynced.services,
            tasks: resynced.tasks,
            networks: resynced.networks,
            swarm_nodes: resynced.swarm_nodes,
        }
    }
}

impl From<&Change> for pb::Change {
    fn from(change: &Change) -> Self {
        use pb::change::Change as C;
        let named =
            |id: &ObjectId, name: &str| pb::NamedObject { id: id.to_string(), name: name.into() };
        let change = match change {
            Change::Network(network) => C::Network(pb::Network {
                id: network.id.to_string(),
                name: network.name.to_string(),
                ingress: network.ingress,
            }),
            Change::NetworkGone(id) => C::NetworkGone(id.to_string()),
            Change::SwarmNode(node) => C::SwarmNode(node.into()),
            Change::SwarmNodeGone(id) => C::SwarmNodeGone(id.to_string()),
            Change::Service(service) => C::Service(service.into()),
            Change::ServiceGone(id) => C::ServiceGone(id.to_string()),
            Change::Task(task) => C::Task(task.into()),
            Change::TaskGone(id) => C::TaskGone(id.to_string()),
            Change::Secret { id, name } => C::Secret(named(id, name)),
            Change::SecretGone(id) => C::SecretGone(id.to_string()),
            Change::Config { id, name } => C::Config(named(id, name)),
            Change::ConfigGone(id) => C::ConfigGone(id.to_string()),
        };
        Self { change: Some(change) }
    }
}

impl TryFrom<pb::Change> for Change {
    type Error = InvalidEntry;

    fn try_from(change: pb::Change) -> Result<Self, InvalidEntry> {
        use pb::change::Change as C;
        let change = change.change.ok_or(InvalidEntry::Missing { field: "change" })?;
        Ok(match change {
            C::Network(pb::Network { id, name, ingress }) => {
                Self::Network(Network { id: NetworkId(id.into()), name: name.into(), ingress })
            }
            C::NetworkGone(id) => Self::NetworkGone(NetworkId(id.into())),
            C::SwarmNode(node) => Self::SwarmNode(node.try_into()?),
            C::SwarmNodeGone(id) => Self::SwarmNodeGone(SwarmNodeId(id.into())),
            C::Service(service) => Self::Service(service.try_into()?),
            C::ServiceGone(id) => Self::ServiceGone(ServiceId(id.into())),
            C::Task(task) => Self::Task(task.try_into()?),
            C::TaskGone(id) => Self::TaskGone(TaskId(id.into())),
            C::Secret(pb::NamedObject { id, name }) => {
                Self::Secret { id: ObjectId(id.into()), name: name.into() }
            }
            C::SecretGone(id) => Self::SecretGone(ObjectId(id.into())),
            C::Config(pb::NamedObject { id, name }) => {
                Self::Config { id: ObjectId(id.into()), name: name.into() }
            }
            C::ConfigGone(id) => Self::ConfigGone(ObjectId(id.into())),
        })
    }
}

impl From<&SwarmNode> for pb::SwarmNode {
    fn from(node: &SwarmNode) -> Self {
        Self {
            id: node.id.to_string(),
            version: node.version.0,
            hostname: node.hostname.to_string(),
            down: node.down,
            availability: node.availability.to_string(),
            address: node.address.map(|address| address.to_string()).unwrap_or_default(),
            labels: node
                .labels
                .iter()
                .map(|(key, text)| pb::Label {
                    key: key.to_string(),
                    value: Some(pb::label::Value::Text(text.to_string())),
                })
                .collect(),
        }
    }
}

impl TryFrom<pb::SwarmNode> for SwarmNode {
    type Error = InvalidEntry;

    fn try_from(node: pb::SwarmNode) -> Result<Self, InvalidEntry> {
        let label = |label: pb::Label| match label.value {
            Some(pb::label::Value::Text(text)) => Ok((label.key.into(), text.into())),
            _ => Err(invalid("swarm_node.labels", label.key, "must have a text")),
        };
        let address = match node.address.as_str() {
            "" => None,
            given => Some(ip("swarm_node.address", given)?),
        };
        Ok(Self {
            id: SwarmNodeId(node.id.into()),
            version: SwarmVersion(node.version),
            hostname: node.hostname.into(),
            down: node.down,
            availability: node.availability.into(),
            address,
            labels: unique("swarm_node.labels", node.labels.into_iter().map(label))?,
        })
    }
}

impl From<&Service> for pb::Service {
    fn from(service: &Service) -> Self {
        Self {
            id: service.id.to_string(),
            version: service.version.0,
            name: service.name.to_string(),
            created_at: service.created_at.to_string(),
            labels: service
                .labels
                .iter()
                .map(|(key, value)| pb::Label { key: key.to_string(), value: Some(value.into()) })
                .collect(),
            networks: service.networks.iter().map(ToString::to_string).collect(),
            vips: addresses(&service.vips),
            endpoint_mode: match service.endpoint_mode {
                EndpointMode::Vip => pb::EndpointMode::Vip,
                EndpointMode::Dnsrr => pb::EndpointMode::Dnsrr,
            }
            .into(),
            host_ports: service.host_ports.iter().map(Into::into).collect(),
            scale: Some(match service.scale {
                Scale::Replicated(replicas) => pb::service::Scale::Replicated(replicas),
                Scale::Global => pb::service::Scale::Global(pb::Global {}),
                Scale::Job => pb::service::Scale::Job(pb::Job {}),
            }),
            update_state: service.update_state.to_string(),
        }
    }
}

impl TryFrom<pb::Service> for Service {
    type Error = InvalidEntry;

    fn try_from(service: pb::Service) -> Result<Self, InvalidEntry> {
        let label = |label: pb::Label| match label.value {
            Some(value) => Ok((Arc::from(label.key), LabelValue::try_from(value)?)),
            None => Err(invalid("service.labels", label.key, "must have a value")),
        };
        let endpoint_mode = match pb::EndpointMode::try_from(service.endpoint_mode) {
            Ok(pb::EndpointMode::Vip) => EndpointMode::Vip,
            Ok(pb::EndpointMode::Dnsrr) => EndpointMode::Dnsrr,
            Err(_) => return Err(unknown("service.endpoint_mode", service.endpoint_mode)),
        };
        Ok(Self {
            id: ServiceId(service.id.into()),
            version: SwarmVersion(service.version),
            name: service.name.into(),
            created_at: service.created_at.into(),
            labels: unique("service.labels", service.labels.into_iter().map(label))?,
            networks: service.networks.into_iter().map(|id| NetworkId(id.into())).collect(),
            vips: ips("service.vips", service.vips)?,
            endpoint_mode,
            host_ports: each(service.host_ports)?,
            scale: match service.scale {
                Some(pb::service::Scale::Replicated(replicas)) => Scale::Replicated(replicas),
                Some(pb::service::Scale::Global(pb::Global {})) => Scale::Global,
                Some(pb::service::Scale::Job(pb::Job {})) => Scale::Job,
                None => return Err(InvalidEntry::Missing { field: "service.scale" }),
            },
            update_state: service.update_state.into(),
        })
    }
}

impl From<&LabelValue> for pb::label::Value {
    fn from(value: &LabelValue) -> Self {
        match value {
            LabelValue::Text(text) => Self::Text(text.to_string()),
            LabelValue::Oversized { bytes, hash } => {
                Self::Oversized(pb::OversizedValue { bytes: *bytes, hash: hash.to_vec() })
            }
        }
    }
}

impl TryFrom<pb::label::Value> for LabelValue {
    type Error = InvalidEntry;

    fn try_from(value: pb::label::Value) -> Result<Self, InvalidEntry> {
        Ok(match value {
            pb::label::Value::Text(text) => Self::Text(text.into()),
            pb::label::Value::Oversized(pb::OversizedValue { bytes, hash }) => {
                Self::Oversized { bytes, hash: super::digest("label.oversized.hash", &hash)?.0 }
            }
        })
    }
}

impl From<&Task> for pb::Task {
    fn from(task: &Task) -> Self {
        Self {
            id: task.id.to_string(),
            version: task.version.0,
            service: task.service.to_string(),
            slot: task.slot,
            node: task.node.to_string(),
            desired: match task.desired {
                DesiredState::Ready => pb::DesiredState::Ready,
                DesiredState::Running => pb::DesiredState::Running,
                DesiredState::Shutdown => pb::DesiredState::Shutdown,
                DesiredState::Remove => pb::DesiredState::Remove,
                DesiredState::Other => pb::DesiredState::Other,
            }
            .into(),
            state: match task.state {
                TaskState::Starting => pb::TaskState::Starting,
                TaskState::Running => pb::TaskState::Running,
                TaskState::Ended => pb::TaskState::Ended,
            }
            .into(),
            addresses: addresses(&task.addresses),
            host_ports: task.host_ports.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::Task> for Task {
    type Error = InvalidEntry;

    fn try_from(task: pb::Task) -> Result<Self, InvalidEntry> {
        let desired = match pb::DesiredState::try_from(task.desired) {
            Ok(pb::DesiredState::Ready) => DesiredState::Ready,
            Ok(pb::DesiredState::Running) => DesiredState::Running,
            Ok(pb::DesiredState::Shutdown) => DesiredState::Shutdown,
            Ok(pb::DesiredState::Remove) => DesiredState::Remove,
            Ok(pb::DesiredState::Other) => DesiredState::Other,
            Err(_) => return Err(unknown("task.desired", task.desired)),
        };
        let state = match pb::TaskState::try_from(task.state) {
            Ok(pb::TaskState::Starting) => TaskState::Starting,
            Ok(pb::TaskState::Running) => TaskState::Running,
            Ok(pb::TaskState::Ended) => TaskState::Ended,
            Err(_) => return Err(unknown("task.state", task.state)),
        };
        Ok(Self {
            id: TaskId(task.id.into()),
            version: SwarmVersion(task.version),
            service: ServiceId(task.service.into()),
            slot: task.slot,
            node: SwarmNodeId(task.node.into()),
            desired,
            state,
            addresses: ips("task.addresses", task.addresses)?,
            host_ports: each(task.host_ports)?,
        })
    }
}

impl From<&HostPort> for pb::HostPort {
    fn from(port: &HostPort) -> Self {
        Self { target: port.target.into(), published: port.published.into() }
    }
}

impl TryFrom<pb::HostPort> for HostPort {
    type Error = InvalidEntry;

    fn try_from(port: pb::HostPort) -> Result<Self, InvalidEntry> {
        let number = |field, given: u32| {
            u16::try_from(given).map_err(|_| invalid(field, given, "is above 65535"))
        };
        Ok(Self {
            target: number("host_port.target", port.target)?,
            published: number("host_port.published", port.published)?,
        })
    }
}

fn addresses(pairs: &[(NetworkId, IpAddr)]) -> Vec<pb::NetworkAddress> {
    let pair = |(network, address): &(NetworkId, IpAddr)| pb::NetworkAddress {
        network: network.to_string(),
        address: address.to_string(),
    };
    pairs.iter().map(pair).collect()
}

fn ips(
    field: &'static str,
    pairs: Vec<pb::NetworkAddress>,
) -> Result<Vec<(NetworkId, IpAddr)>, InvalidEntry> {
    let pair =
        |pair: pb::NetworkAddress| Ok((NetworkId(pair.network.into()), ip(field, &pair.address)?));
    pairs.into_iter().map(pair).collect()
}

fn ip(field: &'static str, given: &str) -> Result<IpAddr, InvalidEntry> {
    given.parse().map_err(|error| invalid(field, given, error))
}

fn unknown(field: &'static str, given: i32) -> InvalidEntry {
    invalid(field, given, "is no value that this build knows")
}
