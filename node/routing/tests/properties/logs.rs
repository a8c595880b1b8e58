//! Random logs over a small world, so that objects meet, collide and return.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dovetail_routing::entry::{ClusterConfig, MergeHosts, ProxyOptions};
use dovetail_routing::fact::{
    Change, DesiredState, EndpointMode, HostPort, Listing, Network, Observed, Resynced, Scale,
    Service, SwarmNode, SwarmVersion, Task, TaskState,
};
use dovetail_routing::names::{NetworkId, ObjectId, ServiceId, SwarmId, SwarmNodeId, TaskId};
use dovetail_routing::{Command, Digest, Entry, LogIndex, Payload, RuleSet};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::labels::labels;
use crate::orders::order;
use crate::rollbacks;

/// Entries of the longest random log.
pub(crate) const LOG_MAX: usize = 24;

pub(crate) fn text(texts: &'static [&'static str]) -> impl Strategy<Value = Arc<str>> {
    select(texts).prop_map(Arc::from)
}

fn service_id() -> impl Strategy<Value = ServiceId> {
    text(&["s1", "s2", "s3", "s4"]).prop_map(ServiceId)
}

fn task_id() -> impl Strategy<Value = TaskId> {
    text(&["t1", "t2", "t3", "t4", "t5", "t6", "t7"]).prop_map(TaskId)
}

fn network_id() -> impl Strategy<Value = NetworkId> {
    // Mostly the same one, or nothing would be reachable.
    text(&["n1", "n1", "n1", "n1", "n2", "n3"]).prop_map(NetworkId)
}

fn node_id() -> impl Strategy<Value = SwarmNodeId> {
    text(&["m1", "m2", ""]).prop_map(SwarmNodeId)
}

fn version() -> impl Strategy<Value = SwarmVersion> {
    (0..6_u64).prop_map(SwarmVersion)
}

fn address() -> impl Strategy<Value = std::net::IpAddr> {
    const IPS: &[&str] = &[
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.4",
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "fd00::1",
    ];
    select(IPS).prop_map(|ip| ip.parse().expect("an address"))
}

fn addresses() -> impl Strategy<Value = Vec<(NetworkId, std::net::IpAddr)>> {
    vec((network_id(), address()), 1..3)
}

fn host_ports() -> impl Strategy<Value = Vec<HostPort>> {
    let port = (select(&[80_u16, 8_080][..]), select(&[0_u16, 32_768][..]))
        .prop_map(|(target, published)| HostPort { target, published });
    vec(port, 0..2)
}

fn network() -> impl Strategy<Value = Network> {
    (network_id(), text(&["front", "front", "stack_front", "back"]), prop::bool::weighted(0.1))
        .prop_map(|(id, name, ingress)| Network { id, name, ingress })
}

fn swarm_node() -> impl Strategy<Value = SwarmNode> {
    (node_id(), version(), any::<bool>(), prop::option::of(address())).prop_map(
        |(id, version, down, address)| SwarmNode {
            hostname: Arc::clone(&id.0),
            id,
            version,
            down,
            availability: "active".into(),
            address,
            labels: BTreeMap::new(),
        },
    )
}

fn scale() -> impl Strategy<Value = Scale> {
    prop_oneof![
        8 => (0..4_u64).prop_map(Scale::Replicated),
        2 => Just(Scale::Global),
        1 => Just(Scale::Job),
    ]
}

fn service() -> impl Strategy<Value = Service> {
    let identity = (service_id(), version(), text(&["10:00", "11:00"]));
    let labels = labels();
    let networks = (btree_set(network_id(), 0..2), addresses(), prop::bool::weighted(0.8));
    (identity, labels, networks, host_ports(), scale(), text(&["", "updating", "completed"]))
        .prop_map(
            |((id, version, created_at), labels, (networks, vips, vip), ports, scale, state)| {
                Service {
                    name: format!("service-{id}").into(),
                    id,
                    version,
                    created_at,
                    labels,
                    networks: networks.into_iter().collect(),
                    vips,
                    endpoint_mode: if vip { EndpointMode::Vip } else { EndpointMode::Dnsrr },
                    host_ports: ports,
                    scale,
                    update_state: state,
                }
            },
        )
}

fn task() -> impl Strategy<Value = Task> {
    let desired = prop_oneof![
        6 => Just(DesiredState::Running),
        2 => Just(DesiredState::Shutdown),
        1 => Just(DesiredState::Ready),
        1 => Just(DesiredState::Remove),
        1 => Just(DesiredState::Other),
    ];
    let state = prop_oneof![
        6 => Just(TaskState::Running),
        1 => Just(TaskState::Starting),
        1 => Just(TaskState::Ended),
    ];
    (task_id(), version(), service_id(), node_id(), desired, state, addresses(), host_ports())
        .prop_map(|(id, version, service, node, desired, state, addresses, host_ports)| Task {
            id,
            version,
            service,
            slot: 1,
            node,
            desired,
            state,
            addresses,
            host_ports,
        })
}

fn object() -> impl Strategy<Value = (ObjectId, Arc<str>)> {
    (text(&["o1", "o2", "o3"]).prop_map(ObjectId), text(&["cert", "key", "stack_cert"]))
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => network().prop_map(Change::Network),
        1 => network_id().prop_map(Change::NetworkGone),
        2 => swarm_node().prop_map(Change::SwarmNode),
        1 => node_id().prop_map(Change::SwarmNodeGone),
        14 => service().prop_map(Change::Service),
        1 => service_id().prop_map(Change::ServiceGone),
        10 => task().prop_map(Change::Task),
        1 => task_id().prop_map(Change::TaskGone),
        3 => object().prop_map(|(id, name)| Change::Secret { id, name }),
        1 => object().prop_map(|(id, _)| Change::SecretGone(id)),
        1 => object().prop_map(|(id, name)| Change::Config { id, name }),
        1 => object().prop_map(|(id, _)| Change::ConfigGone(id)),
    ]
}

fn swarm() -> impl Strategy<Value = SwarmId> {
    prop_oneof![
        12 => Just(SwarmId::from("a")),
        1 => Just(SwarmId::from("b")),
        1 => Just(SwarmId::from("")),
    ]
}

pub(crate) fn observed() -> impl Strategy<Value = Observed> {
    (swarm(), vec(change(), 0..16)).prop_map(|(swarm, changes)| Observed {
        swarm,
        changes,
        events: Vec::new(),
    })
}

/// Which object a change is about.
fn subject(change: &Change) -> (u8, Arc<str>) {
    match change {
        Change::Network(Network { id, .. }) | Change::NetworkGone(id) => (0, Arc::clone(&id.0)),
        Change::SwarmNode(SwarmNode { id, .. }) | Change::SwarmNodeGone(id) => {
            (1, Arc::clone(&id.0))
        }
        Change::Service(Service { id, .. }) | Change::ServiceGone(id) => (2, Arc::clone(&id.0)),
        Change::Task(Task { id, .. }) | Change::TaskGone(id) => (3, Arc::clone(&id.0)),
        Change::Secret { id, .. } | Change::SecretGone(id) => (4, Arc::clone(&id.0)),
        Change::Config { id, .. } | Change::ConfigGone(id) => (5, Arc::clone(&id.0)),
    }
}

/// Keeps the first change of each object, as a reconciler's observation has it.
pub(crate) fn each_once(mut observed: Observed) -> Observed {
    let mut seen = BTreeSet::new();
    observed.changes.retain(|change| seen.insert(subject(change)));
    observed
}

fn config() -> impl Strategy<Value = ClusterConfig> {
    let merge =
        select(&[MergeHosts::All, MergeHosts::Stack, MergeHosts::Stack, MergeHosts::None][..]);
    let options = (any::<bool>(), merge).prop_map(|(hide_info_headers, merge_hosts)| {
        ProxyOptions { hide_info_headers, merge_hosts, ..ProxyOptions::default() }
    });
    let name =
        select(&["", "", "", "east", "west"][..]).prop_map(|name| name.parse().expect("a name"));
    vec((name, options), 0..3).prop_map(|proxies| ClusterConfig {
        source: Digest([1; 32]),
        poll_interval: None,
        proxies,
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => config().prop_map(Command::ApplyConfig),
        1 => text(&["x", "y"]).prop_map(|text| Command::Annotate { text }),
        1 => swarm().prop_map(|swarm| Command::AcceptSwarm { swarm }),
        1 => Just(Command::Unknown { name: "SetCanary".into() }),
        3 => select(&[RuleSet::FIRST, RuleSet::NEWEST, RuleSet::NEWEST][..])
            .prop_map(|rules| Command::ActivateRules { rules }),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        12 => observed().prop_map(Payload::Observed),
        1 => swarm().prop_map(|swarm| Payload::Resynced(Resynced { swarm, ..Resynced::default() })),
        3 => command().prop_map(Payload::Command),
        1 => Just(Payload::Tick),
        1 => Just(Payload::Checkpoint {
            index: LogIndex(1),
            state: Digest([2; 32]),
            ledger: Digest([3; 32]),
        }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let schema = prop_oneof![20 => Just(1_u32), 1 => Just(2_u32)];
    (schema, 0..100_u64, text(&["anna", "bert"]), text(&["", "r1", "r2"]), payload()).prop_map(
        |(schema_version, leader_time_ms, actor, request_id, payload)| Entry {
            schema_version,
            leader_time_ms,
            actor,
            request_id,
            cause: "random".into(),
            payload,
        },
    )
}

pub(crate) fn log(max: usize) -> impl Strategy<Value = Vec<Entry>> {
    // Orders come beside the rest, so that a log is as rich without them.
    let orders = vec((any::<prop::sample::Index>(), ordered()), 0..8);
    (vec(entry(), 0..=max), orders).prop_map(|(mut log, orders)| {
        for (place, order) in orders {
            log.insert(place.index(log.len() + 1), order);
        }
        log
    })
}

fn ordered() -> impl Strategy<Value = Entry> {
    let ids = (text(&["anna", "bert"]), text(&["", "", "", "r1", "r2"]));
    let order = prop_oneof![4 => order(), 1 => rollbacks::order()];
    (0..100_u64, ids, order).prop_map(|(leader_time_ms, (actor, request_id), order)| Entry {
        schema_version: 1,
        leader_time_ms,
        actor,
        request_id,
        cause: "random".into(),
        payload: Payload::Command(order),
    })
}

pub(crate) fn listing() -> impl Strategy<Value = Listing> {
    let objects =
        || btree_map(text(&["o1", "o2"]).prop_map(ObjectId), text(&["cert", "key"]), 0..3);
    (
        vec(network(), 0..3),
        vec(swarm_node(), 0..3),
        vec(service(), 0..4),
        vec(task(), 0..6),
        objects(),
        objects(),
    )
        .prop_map(|(networks, nodes, services, tasks, secrets, configs)| Listing {
            swarm: SwarmId::from("a"),
            networks: networks.into_iter().map(|one| (one.id.clone(), one)).collect(),
            swarm_nodes: nodes.into_iter().map(|one| (one.id.clone(), one)).collect(),
            services: services.into_iter().map(|one| (one.id.clone(), one)).collect(),
            tasks: tasks.into_iter().map(|one| (one.id.clone(), one)).collect(),
            secrets,
            configs,
        })
}
