//! What a service is made of.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dovetail_stand_in::{HostPort, ServiceSpec};

use super::UPSTREAM_PORT;
use crate::upstream::UpstreamConfig;

/// The network that the application's tasks are on: the stand-in's own.
pub const NETWORK: &str = "demo";

/// A replicated service, as somebody would create it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub replicas: u8,
    /// Its networks by name; tasks are reached on the first.
    pub networks: Vec<String>,
    /// Published in host mode for [`UPSTREAM_PORT`], on each task's machine.
    pub host_port: Option<u16>,
    /// What runs in each of its tasks.
    pub upstream: UpstreamConfig,
}

/// Which goes first when a task is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateOrder {
    StopFirst,
    StartFirst,
}

impl ServiceConfig {
    /// A service with these labels; `com.docker.lb.` stands before each key.
    pub fn labelled(name: &str, replicas: u8, labels: &[(&str, &str)]) -> Self {
        Self {
            name: name.to_owned(),
            labels: lb_labels(labels),
            replicas,
            networks: vec![NETWORK.to_owned()],
            host_port: None,
            upstream: UpstreamConfig::default(),
        }
    }

    pub(super) fn spec(self, vip: Option<IpAddr>, addresses: Vec<IpAddr>) -> ServiceSpec {
        let Self { name, labels, replicas, networks, host_port, upstream: _ } = self;
        let replicas = u64::from(replicas);
        let host_port = host_port.map(|published| HostPort { target: UPSTREAM_PORT, published });
        let host_ports = host_port.into_iter().collect();
        ServiceSpec {
            name,
            labels,
            replicas,
            addresses,
            networks,
            vip,
            host_ports,
            ..ServiceSpec::default()
        }
    }

    /// A service that is published as `host`.
    pub fn published(name: &str, host: &str, replicas: u8) -> Self {
        let port = UPSTREAM_PORT.to_string();
        Self::labelled(name, replicas, &[("hosts", host), ("port", &port), ("network", NETWORK)])
    }
}

/// Labels with `com.docker.lb.` before each key.
pub fn lb_labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    let one = |(key, value): &(&str, &str)| (format!("com.docker.lb.{key}"), (*value).to_owned());
    labels.iter().map(one).collect()
}
