//! Engine objects to facts, with labels as they are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dovetail_routing::fact::{
    DesiredState, EndpointMode, HostPort, LABEL_VALUE_BYTES_MAX, LabelValue, Network, Scale,
    Service, SwarmNode, SwarmVersion, Task, TaskState,
};
use dovetail_routing::names::{NetworkId, ServiceId, SwarmNodeId, TaskId};

use crate::wire;

/// Labels that a fact keeps; the rest never enters the log.
const LABEL_PREFIXES: [&str; 3] = ["com.docker.lb.", "com.docker.ucp.mesh.", "dovetail."];
const LABEL_STACK: &str = "com.docker.stack.namespace";

/// Why an object is no fact: what it held, in words.
type Unusable = String;

fn present(what: &str, value: &str) -> Result<(), Unusable> {
    if value.is_empty() { Err(format!("has no {what}")) } else { Ok(()) }
}

/// An address as Docker prints it: with or without the length of its prefix.
fn address(given: &str) -> Result<IpAddr, Unusable> {
    let bare = given.split_once('/').map_or(given, |(address, _)| address);
    bare.parse().map_err(|_| format!("address {given:?} is no IP address"))
}

fn label_value(value: &str) -> LabelValue {
    if value.len() > LABEL_VALUE_BYTES_MAX {
        let hash = *blake3::hash(value.as_bytes()).as_bytes();
        return LabelValue::Oversized { bytes: value.len() as u64, hash };
    }
    LabelValue::Text(value.into())
}

/// Pads the fraction of a second to nine digits, since Go drops trailing zeros
/// and the fact is ordered as text.
fn created_at(given: &str) -> Arc<str> {
    let Some((seconds, fraction)) = given.strip_suffix('Z').and_then(|t| t.split_once('.')) else {
        return match given.strip_suffix('Z') {
            Some(seconds) => format!("{seconds}.000000000Z").into(),
            None => given.into(),
        };
    };
    format!("{seconds}.{fraction:0<9}Z").into()
}

fn host_ports<'p>(ports: impl Iterator<Item = &'p wire::Port>) -> Vec<HostPort> {
    let mut found: Vec<_> = ports
        .filter(|port| port.publish_mode == "host")
        .filter(|port| port.protocol.is_empty() || port.protocol == "tcp")
        .map(|port| HostPort { target: port.target_port, published: port.published_port })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn scale(mode: &wire::Mode) -> Scale {
    if mode.replicated_job.is_some() || mode.global_job.is_some() {
        return Scale::Job;
    }
    if mode.global.is_some() {
        return Scale::Global;
    }
    // Swarm's own default when a spec leaves the count out.
    Scale::Replicated(mode.replicated.as_ref().and_then(|r| r.replicas).unwrap_or(1))
}

pub(crate) fn service(wire: &wire::Service) -> Result<Service, Unusable> {
    present("id", &wire.id)?;
    present("name", &wire.spec.name)?;
    let kept = |name: &str| {
        name == LABEL_STACK || LABEL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let labels = wire.spec.labels.iter().filter(|(name, _)| kept(name));
    let attachments = match &wire.spec.task_template.networks[..] {
        [] => &wire.spec.networks,
        networks => networks,
    };
    let mut networks: Vec<_> =
        attachments.iter().map(|a| NetworkId::from(a.target.as_str())).collect();
    networks.sort();
    networks.dedup();
    let mut vips = Vec::new();
    for vip in wire.endpoint.virtual_ips.iter().filter(|vip| !vip.addr.is_empty()) {
        vips.push((NetworkId::from(vip.network_id.as_str()), address(&vip.addr)?));
    }
    vips.sort();
    // `Spec` is what was asked for and there from the start; `Endpoint` is what Swarm made.
    let mode = [&wire.spec.endpoint_spec.mode, &wire.endpoint.spec.mode];
    let endpoint_mode = match mode.into_iter().find(|mode| !mode.is_empty()).map(String::as_str) {
        None | Some("vip") => EndpointMode::Vip,
        Some("dnsrr") => EndpointMode::Dnsrr,
        Some(other) => return Err(format!("endpoint mode {other:?} is not known")),
    };
    let asked = &wire.spec.endpoint_spec.ports;
    let made = &wire.endpoint.ports;
    Ok(Service {
        id: ServiceId::from(wire.id.as_str()),
        version: SwarmVersion(wire.version.index),
        name: wire.spec.name.as_str().into(),
        created_at: created_at(&wire.created_at),
        labels: labels
            .map(|(name, value)| (Arc::from(name.as_str()), label_value(value)))
            .collect::<BTreeMap<_, _>>(),
        networks,
        vips,
        endpoint_mode,
        host_ports: host_ports(if made.is_empty() { asked } else { made }.iter()),
        scale: scale(&wire.spec.mode),
        update_state: wire.update_status.state.as_str().into(),
    })
}

/// A task of a service; none for what `docker run` attaches to an overlay network.
pub(crate) fn task(wire: &wire::Task) -> Result<Option<Task>, Unusable> {
    present("id", &wire.id)?;
    if wire.service_id.is_empty() {
        return Ok(None);
    }
    let desired = match wire.desired_state.as_str() {
        "ready" => DesiredState::Ready,
        "running" => DesiredState::Running,
        "shutdown" => DesiredState::Shutdown,
        "remove" => DesiredState::Remove,
        "" => return Err("has no desired state".to_owned()),
        _ => DesiredState::Other,
    };
    let state = match wire.status.state.as_str() {
        "new" | "allocated" | "pending" | "assigned" | "accepted" | "preparing" | "ready"
        | "starting" => TaskState::Starting,
        "running" => TaskState::Running,
        "complete" | "shutdown" | "failed" | "rejected" | "remove" | "orphaned" => TaskState::Ended,
        other => return Err(format!("task state {other:?} is not known")),
    };
    let mut addresses = Vec::new();
    for attachment in &wire.networks_attachments {
        for given in attachment.addresses.iter().filter(|given| !given.is_empty()) {
            let network = NetworkId::from(attachment.network.id.as_str());
            addresses.push((network, address(given)?));
        }
    }
    Ok(Some(Task {
        id: TaskId::from(wire.id.as_str()),
        version: SwarmVersion(wire.version.index),
        service: ServiceId::from(wire.service_id.as_str()),
        slot: wire.slot,
        node: SwarmNodeId::from(wire.node_id.as_str()),
        desired,
        state,
        addresses,
        host_ports: host_ports(wire.status.port_status.ports.iter()),
    }))
}

pub(crate) fn network(wire: &wire::Network) -> Result<Network, Unusable> {
    present("id", &wire.id)?;
    Ok(Network {
        id: NetworkId::from(wire.id.as_str()),
        name: wire.name.as_str().into(),
        ingress: wire.ingress,
    })
}

pub(crate) fn swarm_node(wire: &wire::Node) -> Result<SwarmNode, Unusable> {
    present("id", &wire.id)?;
    present("state", &wire.status.state)?;
    // An unreadable or unspecified address is none: host-mode ports alone need it.
    let usable = |given: &str| given.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified());
    let manager = wire.manager_status.addr.rsplit_once(':').map(|(host, _)| host);
    let manager = manager.map(|host| host.trim_matches(['[', ']']));
    let labels = wire.spec.labels.iter();
    Ok(SwarmNode {
        id: SwarmNodeId::from(wire.id.as_str()),
        version: SwarmVersion(wire.version.index),
        hostname: wire.description.hostname.as_str().into(),
        down: matches!(wire.status.state.as_str(), "down" | "disconnected"),
        availability: wire.spec.availability.as_str().into(),
        address: usable(&wire.status.addr).or_else(|| manager.and_then(usable)),
        labels: labels
            .map(|(name, value)| (Arc::from(name.as_str()), Arc::from(value.as_str())))
            .collect(),
    })
}

/// A secret or a config: of its content nothing is ever kept.
pub(crate) fn named(wire: &wire::Named) -> Result<Arc<str>, Unusable> {
    present("id", &wire.id)?;
    Ok(wire.spec.name.as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creation_times_are_ordered_as_text() {
        for (given, padded) in [
            ("2026-11-23T10:00:05Z", "2026-11-23T10:00:05.000000000Z"),
            ("2026-11-23T10:00:05.1Z", "2026-11-23T10:00:05.100000000Z"),
            ("2026-11-23T10:00:05.123456789Z", "2026-11-23T10:00:05.123456789Z"),
            ("", ""),
            ("later", "later"),
        ] {
            assert_eq!(&*created_at(given), padded);
        }
    }

    #[test]
    fn a_long_label_is_its_length_and_hash() {
        let kept = "x".repeat(LABEL_VALUE_BYTES_MAX);
        assert_eq!(label_value(&kept), LabelValue::Text(kept.as_str().into()));
        let long = "x".repeat(LABEL_VALUE_BYTES_MAX + 1);
        let hash = *blake3::hash(long.as_bytes()).as_bytes();
        assert_eq!(label_value(&long), LabelValue::Oversized { bytes: long.len() as u64, hash });
    }

    #[test]
    fn addresses_lose_their_prefix_length() {
        assert_eq!(address("10.0.1.3/24"), Ok("10.0.1.3".parse().expect("an address")));
        assert_eq!(address("fd00::3/64"), Ok("fd00::3".parse().expect("an address")));
        assert!(address("10.0.1/24").is_err());
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod engine_tests;
