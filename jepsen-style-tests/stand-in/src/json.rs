//! The model's objects in the Engine API's JSON, as engine 20.10 prints them.

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::{Meta, Model, Named, Network, Node, Service, Task};
use crate::spec::{EndpointMode, HostPort, Mode, TaskState};

const ENGINE: &str = "20.10.24-stand-in";

fn time(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// Puts id, version and times in front of an object's own fields.
fn object(id: &str, meta: Meta, fields: Value) -> Value {
    let mut all = Map::new();
    all.insert("ID".to_owned(), id.into());
    all.insert("Version".to_owned(), json!({ "Index": meta.version }));
    all.insert("CreatedAt".to_owned(), time(meta.created).into());
    all.insert("UpdatedAt".to_owned(), time(meta.updated).into());
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    Value::Object(all)
}

/// With the length of its prefix, as Docker prints addresses.
fn cidr(address: &IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 16 } else { 64 })
}

fn host_ports(ports: &[HostPort]) -> Value {
    let port = |port: &HostPort| {
        json!({
            "Protocol": "tcp",
            "TargetPort": port.target,
            "PublishedPort": port.published,
            "PublishMode": "host",
        })
    };
    ports.iter().map(port).collect()
}

fn task_spec(model: &Model, service: &Service) -> Value {
    let networks = service.spec.networks.iter().filter_map(|name| model.network(name));
    let networks: Vec<_> = networks.map(|network| json!({ "Target": network.id })).collect();
    json!({
        "ContainerSpec": {"Image": service.spec.image, "Init": false, "Isolation": "default"},
        "Resources": {"Limits": {}, "Reservations": {}},
        "Placement": {},
        "Networks": networks,
        "ForceUpdate": service.force,
        "Runtime": "container",
    })
}

pub(crate) fn service(model: &Model, service: &Service, status: bool) -> Value {
    let spec = &service.spec;
    let nodes = model.nodes.len();
    let (mode, desired) = match spec.mode {
        Mode::Replicated => (json!({"Replicated": {"Replicas": spec.replicas}}), spec.replicas),
        Mode::Global => (json!({"Global": {}}), nodes as u64),
        Mode::ReplicatedJob => {
            let job = json!({"MaxConcurrent": spec.replicas, "TotalCompletions": spec.replicas});
            (json!({ "ReplicatedJob": job }), spec.replicas)
        }
        Mode::GlobalJob => (json!({"GlobalJob": {}}), nodes as u64),
    };
    let endpoint_mode = match spec.endpoint_mode {
        EndpointMode::Vip => "vip",
        EndpointMode::Dnsrr => "dnsrr",
    };
    let mut endpoint_spec = json!({ "Mode": endpoint_mode });
    let mut endpoint = json!({ "Spec": endpoint_spec });
    if !spec.host_ports.is_empty() {
        endpoint_spec["Ports"] = host_ports(&spec.host_ports);
        endpoint["Spec"] = endpoint_spec.clone();
        endpoint["Ports"] = host_ports(&spec.host_ports);
    }
    if !service.vips.is_empty() {
        let vip = |(network, address): &(String, IpAddr)| json!({"NetworkID": network, "Addr": cidr(address)});
        endpoint["VirtualIPs"] = service.vips.iter().map(vip).collect();
    }
    let mut fields = json!({
        "Spec": {
            "Name": spec.name,
            "Labels": spec.labels,
            "TaskTemplate": task_spec(model, service),
            "Mode": mode,
            "EndpointSpec": endpoint_spec,
        },
        "Endpoint": endpoint,
    });
    if let Some(update) = &service.update {
        fields["UpdateStatus"] = json!({
            "State": update.state,
            "StartedAt": time(update.started),
            "Message": update.message,
        });
        if let Some(completed) = update.completed {
            fields["UpdateStatus"]["CompletedAt"] = time(completed).into();
        }
    }
    if status {
        let tasks = model.tasks_of(&service.id);
        let running = tasks.iter().filter(|task| task.runs() && task.wanted()).count();
        fields["ServiceStatus"] =
            json!({"RunningTasks": running, "DesiredTasks": desired, "CompletedTasks": 0});
    }
    object(&service.id, service.meta, fields)
}

pub(crate) fn task(model: &Model, task: &Task) -> Value {
    let attachment = |(id, address): &(String, IpAddr)| {
        let network = model.networks.get(id);
        let (name, ingress) = network.map_or(("", false), |n| (n.name.as_str(), n.ingress));
        json!({
            "Network": {
                "ID": id,
                "Spec": {"Name": name, "Ingress": ingress, "Scope": "swarm"},
                "DriverState": {"Name": "overlay"},
            },
            "Addresses": [cidr(address)],
        })
    };
    let ports = match task.state {
        TaskState::Running if !task.host_ports.is_empty() => {
            json!({ "Ports": host_ports(&task.host_ports) })
        }
        _ => json!({}),
    };
    let service = model.services.get(&task.service);
    let spec = service.map_or(json!({"ContainerSpec": {"Image": task.image}}), |service| {
        let mut spec = task_spec(model, service);
        spec["ContainerSpec"]["Image"] = task.image.clone().into();
        spec
    });
    let mut fields = json!({
        "Labels": {},
        "Spec": spec,
        "ServiceID": task.service,
        "Status": {
            "Timestamp": time(task.state_at),
            "State": task.state.as_str(),
            "Message": "started",
            "PortStatus": ports,
        },
        "DesiredState": task.desired.as_str(),
        "NetworksAttachments": task.addresses.iter().map(attachment).collect::<Vec<_>>(),
    });
    if task.slot > 0 {
        fields["Slot"] = task.slot.into();
    }
    if !task.node.is_empty() {
        fields["NodeID"] = task.node.as_str().into();
    }
    if task.state >= TaskState::Starting {
        let container = format!("{:0<64}", task.id);
        fields["Status"]["ContainerStatus"] =
            json!({"ContainerID": container, "PID": 0, "ExitCode": 0});
    }
    object(&task.id, task.meta, fields)
}

pub(crate) fn node(node: &Node) -> Value {
    let role = if node.manager { "manager" } else { "worker" };
    let mut fields = json!({
        "Spec": {"Labels": node.labels, "Role": role, "Availability": node.availability},
        "Description": {
            "Hostname": node.hostname,
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 2_000_000_000_u64, "MemoryBytes": 4_294_967_296_u64},
            "Engine": {"EngineVersion": ENGINE},
        },
        "Status": {"State": node.state, "Addr": node.address.to_string()},
    });
    if node.manager {
        let reachability = if node.state == "ready" { "reachable" } else { "unreachable" };
        let address = format!("{}:2377", node.address);
        fields["ManagerStatus"] = json!({"Reachability": reachability, "Addr": address});
        if node.leader {
            fields["ManagerStatus"]["Leader"] = true.into();
        }
    }
    object(&node.id, node.meta, fields)
}

pub(crate) fn network(network: &Network) -> Value {
    let number = network.number;
    let subnet =
        json!({"Subnet": format!("10.{number}.0.0/16"), "Gateway": format!("10.{number}.0.1")});
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": time(network.meta.created),
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": [subnet]},
        "Internal": false,
        "Attachable": false,
        "Ingress": network.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": null,
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": (4096 + u32::from(number)).to_string()},
        "Labels": null,
    })
}

pub(crate) fn named(named: &Named) -> Value {
    object(&named.id, named.meta, json!({"Spec": {"Name": named.name, "Labels": {}}}))
}

pub(crate) fn cluster(model: &Model) -> Value {
    let meta = model.nodes.values().next().map(|node| node.meta);
    let now = OffsetDateTime::now_utc();
    let meta = meta.unwrap_or(Meta { version: model.index, created: now, updated: now });
    let fields = json!({
        "Spec": {
            "Name": "default",
            "Labels": {},
            "Orchestration": {"TaskHistoryRetentionLimit": 5},
            "Raft": {"SnapshotInterval": 10_000, "ElectionTick": 10, "HeartbeatTick": 1},
            "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_u64},
            "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_u64},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": false},
        },
        "RootRotationInProgress": false,
        "DataPathPort": 4789,
        "DefaultAddrPool": ["10.0.0.0/8"],
        "SubnetSize": 16,
    });
    object(&model.swarm, meta, fields)
}

pub(crate) fn info(model: &Model, leaderless: bool) -> Value {
    let own = model.nodes.values().next();
    let managers: Vec<_> = model
        .nodes
        .values()
        .filter(|node| node.manager)
        .map(|node| json!({"NodeID": node.id, "Addr": format!("{}:2377", node.address)}))
        .collect();
    let mut swarm = json!({
        "NodeID": own.map_or("", |node| &node.id),
        "NodeAddr": own.map_or(String::new(), |node| node.address.to_string()),
        "LocalNodeState": "active",
        "ControlAvailable": true,
        "Error": "",
        "RemoteManagers": managers,
    });
    if leaderless {
        swarm["Error"] =
            "rpc error: code = Unknown desc = The swarm does not have a leader.".into();
    } else {
        swarm["Nodes"] = model.nodes.len().into();
        swarm["Managers"] = managers.len().into();
        swarm["Cluster"] = cluster(model);
    }
    json!({
        "ID": "STAN:DIN0:STAN:DIN0:STAN:DIN0:STAN:DIN0:STAN:DIN0:STAN:DIN0",
        "Containers": 0, "ContainersRunning": 0, "ContainersPaused": 0, "ContainersStopped": 0,
        "Images": 0,
        "Driver": "none", "DriverStatus": [],
        "Plugins": {"Volume": [], "Network": ["overlay"], "Authorization": null, "Log": []},
        "NCPU": 2, "MemTotal": 4_294_967_296_u64,
        "Name": own.map_or("", |node| &node.hostname),
        "KernelVersion": "stand-in", "OperatingSystem": "stand-in", "OSType": "linux",
        "Architecture": "x86_64", "ServerVersion": ENGINE,
        "SystemTime": time(OffsetDateTime::now_utc()),
        "DockerRootDir": "/nonexistent", "Labels": [], "ExperimentalBuild": false,
        "Swarm": swarm,
        "SecurityOptions": [], "Warnings": null,
    })
}

pub(crate) fn version(api: (u32, u32), api_min: (u32, u32)) -> Value {
    let (api, min) = (format!("{}.{}", api.0, api.1), format!("{}.{}", api_min.0, api_min.1));
    let details = json!({
        "ApiVersion": api, "MinAPIVersion": min, "Arch": "amd64", "Os": "linux",
        "Experimental": "false", "GitCommit": "stand-in", "GoVersion": "none",
        "KernelVersion": "stand-in", "BuildTime": "2026-01-01T00:00:00.000000000+00:00",
    });
    json!({
        "Platform": {"Name": "Dovetail stand-in"},
        "Components": [{"Name": "Engine", "Version": ENGINE, "Details": details}],
        "Version": ENGINE,
        "ApiVersion": api,
        "MinAPIVersion": min,
        "GitCommit": "stand-in",
        "GoVersion": "none",
        "Os": "linux",
        "Arch": "amd64",
        "KernelVersion": "stand-in",
        "BuildTime": "2026-01-01T00:00:00.000000000+00:00",
    })
}
