//! Objects of a Swarm as a script writes them: `NAME KEY=VALUE WORD …`.

use std::collections::BTreeMap;
use std::sync::Arc;

use dovetail_routing::fact::{
    DesiredState, EndpointMode, HostPort, LabelValue, Network, Scale, Service, SwarmNode,
    SwarmVersion, Task, TaskState,
};
use dovetail_routing::names::NetworkId;

/// The words after a command: `KEY=VALUE`, or a word alone. Quotes keep spaces.
pub(crate) fn words(line: &str) -> Vec<(String, Option<String>)> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for letter in line.chars().chain([' ']) {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted && word.is_empty() => {}
            ' ' if !quoted => {
                let word = std::mem::take(&mut word);
                words.push(match word.split_once('=') {
                    Some((key, value)) => (key.into(), Some(value.into())),
                    None => (word, None),
                });
            }
            letter => word.push(letter),
        }
    }
    assert!(!quoted, "a quote is open: {line}");
    words
}

type Words<'a> = &'a [(String, Option<String>)];

fn address_on(pair: (&str, &str)) -> (NetworkId, std::net::IpAddr) {
    (pair.0.into(), pair.1.parse().expect("an IP address"))
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter(|item| !item.is_empty())
}

fn host_ports(value: &str) -> Vec<HostPort> {
    let port = |pair: &str| {
        let (target, published) = pair.split_once(':').expect("TARGET:PUBLISHED");
        HostPort {
            target: target.parse().expect("a port"),
            published: published.parse().expect("a port"),
        }
    };
    list(value).map(port).collect()
}

/// `network NAME [ingress]`; its id is `net-NAME`.
pub(crate) fn network(name: &str, words: Words<'_>) -> Network {
    let ingress = words.iter().any(|(word, _)| word == "ingress");
    Network { id: format!("net-{name}").as_str().into(), name: name.into(), ingress }
}

/// `node NAME [down] [address=IP] [hostname=NAME]`; its id is its name.
pub(crate) fn node(name: &str, words: Words<'_>, version: u64) -> SwarmNode {
    let mut node = SwarmNode {
        id: name.into(),
        version: SwarmVersion(version),
        hostname: name.into(),
        down: false,
        availability: "active".into(),
        address: None,
        labels: BTreeMap::new(),
    };
    for (key, value) in words {
        match (key.as_str(), value.as_deref()) {
            ("down", None) => node.down = true,
            ("hostname", Some(name)) => node.hostname = name.into(),
            ("address", Some(ip)) => node.address = Some(ip.parse().expect("an IP address")),
            other => panic!("a node has no {other:?}"),
        }
    }
    node
}

/// `service NAME [@networks=A,B] [@replicas=N|@global|@job] [@vip=NET:IP] [@dnsrr]
/// [@host_ports=TARGET:PUBLISHED,…] [@name=NAME] [@stack=NAME]
/// [@created=TIME] [@update=STATE] LABEL=VALUE …`; labels without a dot
/// are Interlock's, `LABEL=many(N)` is N hosts, `LABEL=oversized(N)` N bytes.
pub(crate) fn service(name: &str, words: Words<'_>, version: u64) -> Service {
    let mut service = Service {
        id: format!("id-{name}").as_str().into(),
        version: SwarmVersion(version),
        name: name.into(),
        created_at: "2026-11-23T12:00:00Z".into(),
        labels: BTreeMap::new(),
        networks: Vec::new(),
        vips: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
        host_ports: Vec::new(),
        scale: Scale::Replicated(1),
        update_state: "".into(),
    };
    for (key, value) in words {
        let value = value.as_deref().unwrap_or_default();
        match key.strip_prefix('@') {
            None => {
                let key =
                    if key.contains('.') { key.clone() } else { format!("com.docker.lb.{key}") };
                service.labels.insert(key.into(), label(value));
            }
            Some("networks") => {
                let id = |name| NetworkId::from(format!("net-{name}").as_str());
                service.networks = list(value).map(id).collect();
            }
            Some("replicas") => service.scale = Scale::Replicated(value.parse().expect("a number")),
            Some("global") => service.scale = Scale::Global,
            Some("job") => service.scale = Scale::Job,
            Some("vip") => {
                let (name, ip) = value.split_once(':').expect("NETWORK:IP");
                service.vips.push(address_on((&format!("net-{name}"), ip)));
            }
            Some("host_ports") => service.host_ports = host_ports(value),
            Some("dnsrr") => service.endpoint_mode = EndpointMode::Dnsrr,
            Some("stack") => {
                let text = LabelValue::Text(value.into());
                service.labels.insert("com.docker.stack.namespace".into(), text);
            }
            Some("name") => service.name = value.into(),
            Some("created") => service.created_at = value.into(),
            Some("update") => service.update_state = value.into(),
            Some(other) => panic!("a service has no @{other}"),
        }
    }
    service
}

fn label(value: &str) -> LabelValue {
    let number = |function: &str| {
        let inner = value.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.parse::<u64>().expect("a number"))
    };
    if let Some(count) = number("many") {
        let hosts: Vec<_> = (1..=count).map(|host| format!("h{host}.example")).collect();
        LabelValue::Text(hosts.join(",").into())
    } else if let Some(bytes) = number("oversized") {
        LabelValue::Oversized { bytes, hash: [0xab; 32] }
    } else {
        LabelValue::Text(value.into())
    }
}

/// `task ID service=NAME [node=NAME] [starting|running|ended] [desired=STATE]
/// [@host_ports=TARGET:PUBLISHED,…] [NETWORK=IP …]`.
pub(crate) fn task(id: &str, words: Words<'_>, version: u64) -> Task {
    let mut task = Task {
        id: id.into(),
        version: SwarmVersion(version),
        service: "".into(),
        slot: 1,
        node: "".into(),
        desired: DesiredState::Running,
        state: TaskState::Running,
        addresses: Vec::new(),
        host_ports: Vec::new(),
    };
    for (key, value) in words {
        match (key.as_str(), value.as_deref()) {
            ("service", Some(name)) => task.service = format!("id-{name}").as_str().into(),
            ("node", Some(name)) => task.node = name.into(),
            ("starting", None) => task.state = TaskState::Starting,
            ("running", None) => task.state = TaskState::Running,
            ("ended", None) => task.state = TaskState::Ended,
            ("desired", Some("ready")) => task.desired = DesiredState::Ready,
            ("desired", Some("running")) => task.desired = DesiredState::Running,
            ("desired", Some("shutdown")) => task.desired = DesiredState::Shutdown,
            ("desired", Some("remove")) => task.desired = DesiredState::Remove,
            ("@host_ports", Some(ports)) => task.host_ports = host_ports(ports),
            (network, Some(ip)) => {
                task.addresses.push(address_on((&format!("net-{network}"), ip)));
            }
            other => panic!("a task has no {other:?}"),
        }
    }
    task
}

/// The text between `NAME` and the end of a line, unquoted.
pub(crate) fn rest(line: &str) -> Arc<str> {
    line.trim().trim_matches('"').into()
}
