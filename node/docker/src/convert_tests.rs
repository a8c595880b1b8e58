//! Objects as a real engine gave them (20.10.24, API 1.41), turned into facts.

use std::collections::BTreeMap;

use super::*;
use crate::list::ListReader;

const SERVICES: &[u8] = include_bytes!("../tests/fixtures/services.json");
const TASKS: &[u8] = include_bytes!("../tests/fixtures/tasks.json");
const NODES: &[u8] = include_bytes!("../tests/fixtures/nodes.json");
const NETWORKS: &[u8] = include_bytes!("../tests/fixtures/networks.json");
const SECRETS: &[u8] = include_bytes!("../tests/fixtures/secrets.json");

/// A whole list, and what in it could not be read.
struct Read<T> {
    objects: Vec<T>,
    unreadable: Vec<(String, String)>,
}

fn list<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<Read<T>, serde_json::Error> {
    let mut reader = ListReader::default();
    let mut read = Read { objects: Vec::new(), unreadable: Vec::new() };
    reader.read(body, |element| match element {
        Ok(object) => read.objects.push(object),
        Err(unreadable) => read.unreadable.push(unreadable),
    })?;
    reader.end().map(|()| read)
}

fn services() -> BTreeMap<String, Service> {
    let read: Read<wire::Service> = list(SERVICES).expect("services");
    assert!(read.unreadable.is_empty());
    let facts = read.objects.iter().map(|wire| service(wire).expect("a service"));
    facts.map(|fact| (fact.name.to_string(), fact)).collect()
}

fn networks() -> BTreeMap<String, Network> {
    let read: Read<wire::Network> = list(NETWORKS).expect("networks");
    let facts = read.objects.iter().map(|wire| network(wire).expect("a network"));
    facts.map(|fact| (fact.name.to_string(), fact)).collect()
}

fn tasks_of(service_id: &ServiceId) -> Vec<Task> {
    let read: Read<wire::Task> = list(TASKS).expect("tasks");
    let facts = read.objects.iter().filter_map(|wire| task(wire).expect("a task"));
    facts.filter(|task| task.service == *service_id).collect()
}

#[test]
fn a_service_keeps_what_routing_may_depend_on() {
    let (services, networks) = (services(), networks());
    let web = &services["web"];
    let labels: Vec<_> = web.labels.keys().map(|name| &**name).collect();
    assert_eq!(
        labels,
        [
            "com.docker.lb.hosts",
            "com.docker.lb.network",
            "com.docker.lb.port",
            "com.docker.stack.namespace"
        ]
    );
    assert_eq!(web.labels["com.docker.lb.port"], LabelValue::Text("8080".into()));
    let front = networks["front"].id.clone();
    assert_eq!(web.networks, std::slice::from_ref(&front));
    assert_eq!(web.vips, [(front, "10.0.1.2".parse().expect("an address"))]);
    assert_eq!((web.scale, web.endpoint_mode), (Scale::Replicated(1), EndpointMode::Vip));
    assert!(web.version.0 > 0 && web.created_at.ends_with('Z'));
    assert_eq!(&*services["two"].update_state, "updating");
    assert_eq!((services["two"].vips.len(), services["two"].networks.len()), (3, 2));
}

#[test]
fn host_ports_and_dnsrr_are_read() {
    let agent = &services()["agent"];
    assert_eq!((agent.scale, agent.endpoint_mode), (Scale::Global, EndpointMode::Dnsrr));
    let port = HostPort { target: 8080, published: 9100 };
    assert_eq!(agent.host_ports, [port]);
    // The engine names it twice, for IPv4 and IPv6.
    assert_eq!(tasks_of(&agent.id)[0].host_ports, [port]);
    // Published through the routing mesh is not published on the machine.
    assert!(services()["two"].host_ports.is_empty());
}

#[test]
fn jobs_are_told_from_services() {
    for job in ["job", "gjob"] {
        assert_eq!(services()[job].scale, Scale::Job);
        let tasks = tasks_of(&services()[job].id);
        assert_eq!((tasks[0].desired, tasks[0].state), (DesiredState::Other, TaskState::Ended));
    }
}

#[test]
fn a_task_that_swarm_stops_still_runs_for_a_while() {
    let mut states: Vec<_> =
        tasks_of(&services()["web"].id).iter().map(|t| (t.desired, t.state)).collect();
    states.sort();
    assert_eq!(
        states,
        [(DesiredState::Running, TaskState::Running), (DesiredState::Remove, TaskState::Running)]
    );
    let waiting = &tasks_of(&services()["none"].id)[0];
    assert_eq!((waiting.desired, waiting.state), (DesiredState::Running, TaskState::Starting));
    assert_eq!(waiting.node.as_str(), "");
}

#[test]
fn task_addresses_are_by_network_without_prefix_length() {
    let networks = networks();
    let tasks = tasks_of(&services()["two"].id);
    let new = tasks.iter().find(|t| t.desired == DesiredState::Running).expect("a new task");
    let named: Vec<_> = networks.iter().map(|(name, n)| (n.id.clone(), name.as_str())).collect();
    let name = |id: &NetworkId| named.iter().find(|(known, _)| known == id).map(|(_, name)| *name);
    let by_name: Vec<_> =
        new.addresses.iter().map(|(id, ip)| (name(id).expect("known"), ip.to_string())).collect();
    let expected = [("ingress", "10.0.0.5"), ("front", "10.0.1.9"), ("back", "10.0.2.6")];
    assert_eq!(by_name, expected.map(|(name, ip)| (name, ip.to_owned())));
}

#[test]
fn a_container_on_an_attachable_network_is_no_task() {
    let json = br#"[{"ID": "t1", "Version": {"Index": 4}, "NetworksAttachments": null,
        "Spec": {"NetworkAttachmentSpec": {"ContainerID": "c1"}}, "DesiredState": "running",
        "Status": {"State": "running"}}]"#;
    let read: Read<wire::Task> = list(json).expect("tasks");
    assert_eq!(task(&read.objects[0]), Ok(None));
}

#[test]
fn nodes_networks_and_secrets_are_read() {
    let read: Read<wire::Node> = list(NODES).expect("nodes");
    let node = swarm_node(&read.objects[0]).expect("a node");
    assert_eq!((&*node.hostname, &*node.availability, node.down), ("lab-1", "active", false));
    assert_eq!(node.address, Some("10.77.0.1".parse().expect("an address")));
    assert_eq!(node.labels.get("zone").map(|v| &**v), Some("a"));
    let networks = networks();
    assert!(networks["ingress"].ingress && !networks["front"].ingress);
    let read: Read<wire::Named> = list(SECRETS).expect("secrets");
    assert_eq!(named(&read.objects[0]).as_deref(), Ok("site.key"));
}

#[test]
fn what_is_missing_or_null_takes_its_default() {
    let json = br#"[{"ID": "s1", "Spec": {"Name": "bare", "Labels": null}, "Endpoint": null}]"#;
    let read: Read<wire::Service> = list(json).expect("services");
    let bare = service(&read.objects[0]).expect("a service");
    assert_eq!((&*bare.name, bare.scale), ("bare", Scale::Replicated(1)));
    assert!(list::<wire::Service>(b"null").expect("none").objects.is_empty());
}

#[test]
fn an_object_that_cannot_be_read_is_named_and_spoils_no_other() {
    let json = br#"[{"ID": "t1", "ServiceID": "s", "DesiredState": "running",
        "Status": {"State": "running"}}, {"ID": "t2", "Slot": "one"}]"#;
    let read: Read<wire::Task> = list(json).expect("tasks");
    assert_eq!(read.objects.len(), 1);
    assert_eq!(read.unreadable[0].0, "t2");
    assert!(read.unreadable[0].1.contains("one"), "{:?}", read.unreadable);
    assert!(list::<wire::Task>(br#"[{"Slot": "one"}]"#).is_err());
    assert!(list::<wire::Task>(br#"{"message": "?"}"#).is_err());
    assert!(list::<wire::Task>(b"<html>").is_err());
}

#[test]
fn states_that_are_not_known_make_an_object_unreadable() {
    let json = br#"[{"ID": "t1", "ServiceID": "s", "DesiredState": "running",
        "Status": {"State": "dreaming"}}]"#;
    let read: Read<wire::Task> = list(json).expect("tasks");
    let reason = task(&read.objects[0]).expect_err("unknown");
    assert!(reason.contains("dreaming"), "{reason}");
}
