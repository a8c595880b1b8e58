//! The addresses that serve a service now: its tasks', or its virtual one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::drains::Drains;
use super::facts::Facts;
use crate::fact::{DesiredState, Service, Task, TaskState};
use crate::labels::{BACKEND_MODE, BackendMode, Intent, PORT};
use crate::names::{NetworkId, ServiceId, TaskId};
use crate::problem::Trouble;
use crate::snapshot::{Upstream, UpstreamState};

/// The upstreams of a service under its intent in force, sorted, and what cannot be dialled.
///
/// What an operator drained is not among them: nobody is to be sent there.
pub(super) fn upstreams(
    facts: &Facts,
    drains: &Drains,
    service: &Service,
    intent: &Intent,
) -> (Vec<Upstream>, Vec<Trouble>) {
    let mut troubles = Vec::new();
    let mut upstreams = match intent.upstreams.mode {
        BackendMode::Task => of_tasks(facts, drains, service, intent, &mut troubles),
        BackendMode::Vip => of_vip(facts, drains, service, intent, &mut troubles),
    };
    upstreams.sort_by(|a, b| (a.address, &a.task).cmp(&(b.address, &b.task)));
    (upstreams, troubles)
}

fn of_tasks(
    facts: &Facts,
    drains: &Drains,
    service: &Service,
    intent: &Intent,
    troubles: &mut Vec<Trouble>,
) -> Vec<Upstream> {
    let upstream = |task: &Task| {
        let state = state(facts, task)?;
        let address = address(facts, task, intent)?;
        if drains.cover(task) {
            return None;
        }
        if let Some(reason) = undialable(address.ip()) {
            let reason = format!("address {} of task {}: {reason}", address.ip(), task.id);
            troubles.push(Trouble::new(PORT, &intent.upstreams.port.to_string(), reason));
            return None;
        }
        Some(Upstream {
            address,
            state,
            task: Some(task.id.clone()),
            node: (!task.node.as_str().is_empty()).then(|| task.node.clone()),
        })
    };
    facts.tasks_of(&service.id).filter_map(upstream).collect()
}

/// Whether a task is an upstream, and of which kind.
fn state(facts: &Facts, task: &Task) -> Option<UpstreamState> {
    let node_down = || facts.swarm_nodes.get(&task.node).is_some_and(|node| node.down);
    match (task.state, task.desired) {
        (TaskState::Running, DesiredState::Running) if !node_down() => Some(UpstreamState::Active),
        // It is to start later: what runs there now is not it.
        (TaskState::Running, DesiredState::Ready) => None,
        // Swarm decided to stop it, seconds before it is told so.
        (TaskState::Running, _) => Some(UpstreamState::Draining),
        (TaskState::Starting | TaskState::Ended, _) => None,
    }
}

fn address(facts: &Facts, task: &Task, intent: &Intent) -> Option<SocketAddr> {
    let port = intent.upstreams.port.get();
    if let Some(ip) = on_network(facts, &task.addresses, intent.upstreams.network.as_ref()) {
        return Some(SocketAddr::new(ip, port));
    }
    // Without a network, a task is reached at a port of its swarm node (host mode).
    if intent.upstreams.network.is_some()
        || !task.addresses.iter().all(|(id, _)| is_ingress(facts, id))
    {
        return None;
    }
    let published = task.host_ports.iter().find(|host| host.target == port)?.published;
    let ip = facts.swarm_nodes.get(&task.node)?.address?;
    (published != 0).then(|| SocketAddr::new(ip, published))
}

/// The first IPv4 address on the chosen network, else the first IPv6 one.
///
/// Without a chosen network it is the only one that is not the ingress network.
fn on_network(
    facts: &Facts,
    addresses: &[(NetworkId, IpAddr)],
    network: Option<&NetworkId>,
) -> Option<IpAddr> {
    let network = match network {
        Some(network) => network,
        None => {
            let mut own = addresses.iter().map(|(id, _)| id).filter(|id| !is_ingress(facts, id));
            let first = own.next()?;
            if own.any(|id| id != first) {
                return None;
            }
            first
        }
    };
    let mut on = addresses.iter().filter(|(id, _)| id == network).map(|(_, ip)| *ip);
    on.clone().find(IpAddr::is_ipv4).or_else(|| on.next())
}

fn is_ingress(facts: &Facts, id: &NetworkId) -> bool {
    facts.networks.get(id).is_some_and(|network| network.ingress)
}

fn of_vip(
    facts: &Facts,
    drains: &Drains,
    service: &Service,
    intent: &Intent,
    troubles: &mut Vec<Trouble>,
) -> Vec<Upstream> {
    let mut running = 0;
    let mut drained = None;
    for task in facts.tasks_of(&service.id) {
        if state(facts, task) == Some(UpstreamState::Active) {
            running += 1;
            if drains.cover(task) {
                drained = Some(task);
                running -= 1;
            }
        }
    }
    if running == 0 {
        return Vec::new();
    }
    let Some(address) = virtual_address(facts, service, intent) else {
        return Vec::new();
    };
    if let Some(reason) = undialable(address.ip()) {
        let reason = format!("virtual address {}: {reason}", address.ip());
        troubles.push(Trouble::new(PORT, &intent.upstreams.port.to_string(), reason));
        return Vec::new();
    }
    if let Some(task) = drained {
        let reason = format!(
            "its tasks on swarm node {} are drained, and Docker balances {} over them all the \
             same: drain the node in Docker too, or use task",
            task.node,
            address.ip()
        );
        troubles.push(Trouble::new(BACKEND_MODE, "vip", reason));
    }
    vec![Upstream { address, state: UpstreamState::Active, task: None, node: None }]
}

fn virtual_address(facts: &Facts, service: &Service, intent: &Intent) -> Option<SocketAddr> {
    let ip = on_network(facts, &service.vips, intent.upstreams.network.as_ref())?;
    Some(SocketAddr::new(ip, intent.upstreams.port.get()))
}

/// Who is reached at an address.
pub(super) enum At {
    /// A task that is an upstream, or would be one if nobody had drained it.
    Task(TaskId),
    /// The service whose virtual address it is.
    Virtual(ServiceId),
}

/// Who of a service is reached at an address.
pub(super) fn at<'a>(
    facts: &'a Facts,
    service: &'a Service,
    intent: &'a Intent,
    wanted: SocketAddr,
) -> impl Iterator<Item = At> + 'a {
    let by_task = intent.upstreams.mode == BackendMode::Task;
    let is_there = move |task: &&Task| {
        state(facts, task).is_some() && address(facts, task, intent) == Some(wanted)
    };
    let tasks = facts.tasks_of(&service.id).filter(is_there).map(|task| At::Task(task.id.clone()));
    let own = (!by_task && virtual_address(facts, service, intent) == Some(wanted))
        .then(|| At::Virtual(service.id.clone()));
    tasks.filter(move |_| by_task).chain(own)
}

/// Why an address can be no upstream's, if so. Loopback can.
fn undialable(ip: IpAddr) -> Option<&'static str> {
    let ip = ip.to_canonical();
    if ip.is_unspecified() {
        Some("is unspecified, and so cannot be dialled")
    } else if ip.is_multicast() {
        Some("is a multicast address, and so cannot be dialled")
    } else if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("is the broadcast address, and so cannot be dialled")
    } else {
        None
    }
}

/// The upstreams of one service, shared by all routes that it serves.
pub(super) type Shared = Arc<[Upstream]>;
