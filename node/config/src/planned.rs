//! Services that are not there yet, as the facts that Swarm would show of them.
//!
//! `dovetail check` puts them into an empty state, `dovetail plan` into a copy of the
//! running one. What cannot be known before Docker decides it is made up: ids begin
//! with `planned-`, addresses lie in 240.0.0.0/4, which no network uses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use dovetail_routing::entry::{Applied, Entry, LogIndex, Payload, SCHEMA_VERSION};
use dovetail_routing::fact::{
    Change, DesiredState, EndpointMode, HostPort, LabelValue, Network, Observed, Scale, Service,
    SwarmNode, SwarmVersion, Task, TaskState,
};
use dovetail_routing::names::{NetworkId, ServiceId, SwarmNodeId};
use dovetail_routing::state::State;

/// Services of one plan.
pub const SERVICES_MAX: usize = 1_000;
/// Tasks that are made up for one service.
pub const TASKS_MAX: u64 = 1_000;
/// Tasks that are made up in all.
pub const TASKS_OF_ALL_MAX: u64 = 20_000;

/// The label by which Docker knows the services of a stack.
pub const STACK_LABEL: &str = "com.docker.stack.namespace";

/// Labels that are recorded begin with one of these.
const RECORDED: [&str; 3] = ["com.docker.lb.", "com.docker.ucp.mesh.", "dovetail."];
/// Where host-mode ports begin that Docker would choose.
const PORTS_FROM: u16 = 30_000;

/// A service as a stack file asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// As Swarm names it: `STACK_NAME`.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// By name.
    pub networks: BTreeSet<String>,
    pub endpoint_mode: EndpointMode,
    /// A `published` of 0 is Docker's choice.
    pub host_ports: Vec<HostPort>,
    pub scale: Scale,
}

/// What files would make, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Each name once.
    pub services: Vec<Planned>,
    /// Names of secrets that the files make, or take as there.
    pub secrets: BTreeSet<String>,
    /// Services of this stack that are not planned are taken away.
    pub prune: Option<String>,
}

/// Whether a label is recorded, and so may mean something.
pub fn is_recorded(label: &str) -> bool {
    label == STACK_LABEL || RECORDED.iter().any(|prefix| label.starts_with(prefix))
}

/// Whether an address was made up for a task that does not run yet.
pub fn is_made_up(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[0] >= 240)
}

/// Applies to `state` what Swarm would show if the plan were carried out.
pub fn apply(state: &mut State, plan: &Plan) -> Applied {
    let observed = Maker::new(state).observe(plan);
    let entry = Entry {
        schema_version: SCHEMA_VERSION,
        leader_time_ms: state.leader_time_ms(),
        actor: "".into(),
        request_id: "".into(),
        cause: "planned".into(),
        payload: Payload::Observed(observed),
    };
    let index = LogIndex(state.applied_index().0.saturating_add(1));
    state.apply(index, &entry)
}

/// Makes up what is not known.
struct Maker<'s> {
    state: &'s State,
    addresses: u32,
    tasks: u64,
    ports: u16,
    changes: Vec<Change>,
    /// By name: those recorded, and those made up so far.
    networks: BTreeMap<Arc<str>, NetworkId>,
}

impl<'s> Maker<'s> {
    fn new(state: &'s State) -> Self {
        let known = |network: &Network| (Arc::clone(&network.name), network.id.clone());
        Self {
            state,
            addresses: 0,
            tasks: 0,
            ports: PORTS_FROM,
            changes: Vec::new(),
            networks: state.networks().map(known).collect(),
        }
    }

    fn observe(mut self, plan: &Plan) -> Observed {
        let node = self.node();
        for secret in &plan.secrets {
            let id = format!("planned-{secret}").as_str().into();
            self.changes.push(Change::Secret { id, name: secret.as_str().into() });
        }
        let recorded: BTreeMap<_, _> =
            self.state.services().map(|service| (&*service.name, service)).collect();
        for planned in &plan.services {
            self.service(planned, recorded.get(planned.name.as_str()).copied(), &node);
        }
        if let Some(stack) = &plan.prune {
            let stack = LabelValue::Text(stack.as_str().into());
            for service in recorded.values() {
                let is_planned = plan.services.iter().any(|planned| *planned.name == *service.name);
                if service.labels.get(STACK_LABEL) == Some(&stack) && !is_planned {
                    self.changes.push(Change::ServiceGone(service.id.clone()));
                }
            }
        }
        let swarm = match self.state.swarm().as_str() {
            "" => "planned".into(),
            swarm => swarm.into(),
        };
        Observed { swarm, changes: self.changes, events: Vec::new() }
    }

    fn address(&mut self) -> IpAddr {
        self.addresses += 1;
        Ipv4Addr::from_bits(0xf000_0000 + self.addresses).into()
    }

    /// A swarm node for tasks that Docker has not placed yet.
    fn node(&mut self) -> SwarmNodeId {
        let id = SwarmNodeId::from("planned-node");
        let address = Some(self.address());
        self.changes.push(Change::SwarmNode(SwarmNode {
            id: id.clone(),
            version: SwarmVersion(1),
            hostname: "".into(),
            down: false,
            availability: "active".into(),
            address,
            labels: BTreeMap::new(),
        }));
        id
    }

    fn network(&mut self, name: &str) -> NetworkId {
        if let Some(id) = self.networks.get(name) {
            return id.clone();
        }
        let id = NetworkId::from(format!("planned-{name}").as_str());
        let name: Arc<str> = name.into();
        let network = Network { id: id.clone(), name: Arc::clone(&name), ingress: false };
        self.changes.push(Change::Network(network));
        self.networks.insert(name, id.clone());
        id
    }

    fn service(&mut self, planned: &Planned, recorded: Option<&Service>, node: &SwarmNodeId) {
        let mut networks: Vec<_> = planned.networks.iter().map(|name| self.network(name)).collect();
        networks.sort();
        networks.dedup();
        let vip = planned.endpoint_mode == EndpointMode::Vip;
        let mut vips = Vec::new();
        for network in networks.iter().filter(|_| vip) {
            let known = recorded.and_then(|one| one.vips.iter().find(|(id, _)| id == network));
            let address = known.map_or_else(|| self.address(), |(_, address)| *address);
            vips.push((network.clone(), address));
        }
        let host_ports: Vec<_> =
            planned.host_ports.iter().map(|port| self.host_port(*port)).collect();
        let labels = planned.labels.iter().filter(|(label, _)| is_recorded(label));
        let service = Service {
            id: recorded.map_or_else(
                || ServiceId::from(format!("planned-{}", planned.name).as_str()),
                |service| service.id.clone(),
            ),
            version: next(recorded.map(|service| service.version)),
            name: planned.name.as_str().into(),
            // A new one is younger than any that is there.
            created_at: recorded
                .map_or_else(|| "9999".into(), |service| Arc::clone(&service.created_at)),
            labels: labels
                .map(|(label, value)| {
                    (label.as_str().into(), LabelValue::Text(value.as_str().into()))
                })
                .collect(),
            networks,
            vips,
            endpoint_mode: planned.endpoint_mode,
            host_ports,
            scale: planned.scale,
            update_state: "".into(),
        };
        self.changes.push(Change::Service(service.clone()));
        self.tasks(&service, node);
    }

    fn host_port(&mut self, port: HostPort) -> HostPort {
        if port.published != 0 {
            return port;
        }
        self.ports = self.ports.checked_add(1).unwrap_or(PORTS_FROM);
        HostPort { published: self.ports, ..port }
    }

    /// Keeps the tasks that run, and makes up or ends as many as the scale asks for.
    fn tasks(&mut self, service: &Service, node: &SwarmNodeId) {
        let state = self.state;
        let running = |task: &&Task| {
            task.state == TaskState::Running && task.desired == DesiredState::Running
        };
        let kept: Vec<&Task> = state.tasks_of(&service.id).filter(running).collect();
        let wanted = match service.scale {
            Scale::Replicated(replicas) => replicas,
            Scale::Global if kept.is_empty() => {
                let takes = |node: &&SwarmNode| !node.down && &*node.availability == "active";
                state.swarm_nodes().filter(takes).count().max(1) as u64
            }
            Scale::Global => kept.len() as u64,
            Scale::Job => 0,
        };
        for (position, task) in (0u64..).zip(&kept) {
            let mut changed = Task { version: next(Some(task.version)), ..(*task).clone() };
            if position >= wanted {
                changed.desired = DesiredState::Shutdown;
                changed.state = TaskState::Ended;
            }
            for network in &service.networks {
                if !changed.addresses.iter().any(|(id, _)| id == network) {
                    let address = self.address();
                    changed.addresses.push((network.clone(), address));
                }
            }
            changed.addresses.retain(|(id, _)| {
                service.networks.contains(id) || state.network(id).is_some_and(|n| n.ingress)
            });
            if changed.host_ports != service.host_ports && !service.host_ports.is_empty() {
                changed.host_ports.clone_from(&service.host_ports);
            }
            self.changes.push(Change::Task(changed));
        }
        for number in (kept.len() as u64)..wanted.min(TASKS_MAX) {
            if self.tasks == TASKS_OF_ALL_MAX {
                return;
            }
            self.tasks += 1;
            let addresses =
                service.networks.iter().map(|network| (network.clone(), self.address())).collect();
            let (name, slot) = (&service.name, number + 1);
            self.changes.push(Change::Task(Task {
                id: format!("planned-{name}.{slot}").as_str().into(),
                version: SwarmVersion(1),
                service: service.id.clone(),
                slot,
                node: node.clone(),
                desired: DesiredState::Running,
                state: TaskState::Running,
                addresses,
                host_ports: service.host_ports.clone(),
            }));
        }
    }
}

fn next(version: Option<SwarmVersion>) -> SwarmVersion {
    SwarmVersion(version.map_or(1, |version| version.0.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use dovetail_routing::names::ServiceCluster;
    use dovetail_routing::snapshot::Snapshot;

    use super::*;

    fn planned(name: &str, labels: &[(&str, &str)], replicas: u64) -> Planned {
        let labels = labels.iter().map(|(l, v)| (format!("com.docker.lb.{l}"), (*v).to_owned()));
        Planned {
            name: name.to_owned(),
            labels: labels.chain([(STACK_LABEL.to_owned(), "shop".to_owned())]).collect(),
            networks: ["web".to_owned()].into(),
            endpoint_mode: EndpointMode::Vip,
            host_ports: Vec::new(),
            scale: Scale::Replicated(replicas),
        }
    }

    fn snapshot(state: &State) -> Arc<Snapshot> {
        state.snapshot(&ServiceCluster::default())
    }

    fn addresses(state: &State) -> Vec<IpAddr> {
        let routes = &snapshot(state).routes;
        routes
            .iter()
            .flat_map(|route| route.services.iter())
            .flat_map(|service| service.upstreams.iter().map(|upstream| upstream.address.ip()))
            .collect()
    }

    #[test]
    fn a_planned_service_is_routed_to_as_if_it_ran() {
        let mut state = State::default();
        let shop = planned("shop_web", &[("hosts", "a.example"), ("port", "80")], 3);
        let plan = Plan { services: vec![shop], ..Plan::default() };
        assert!(matches!(apply(&mut state, &plan), Applied::Changed(_)));
        assert_eq!(state.problems(), []);
        let all = addresses(&state);
        assert!(all.len() == 3 && all.iter().all(|address| is_made_up(*address)), "{all:?}");
        assert!(!is_made_up([10, 0, 0, 1].into()));
    }

    #[test]
    fn a_service_that_is_there_keeps_its_tasks_and_is_scaled() {
        let mut state = State::default();
        let labels = [("hosts", "a.example"), ("port", "80")];
        let with = |replicas| Plan {
            services: vec![planned("shop_web", &labels, replicas)],
            ..Plan::default()
        };
        apply(&mut state, &with(2));
        let before = addresses(&state);
        apply(&mut state, &with(3));
        let after = addresses(&state);
        assert_eq!(after.len(), 3);
        assert!(before.iter().all(|address| after.contains(address)), "{before:?} {after:?}");
        apply(&mut state, &with(1));
        let left = addresses(&state);
        assert!(left.len() == 1 && after.contains(&left[0]), "the surplus is gone: {left:?}");
        apply(&mut state, &with(0));
        assert_eq!(snapshot(&state).routes.len(), 1, "the route stays known");
    }

    #[test]
    fn pruning_takes_away_what_the_stack_no_longer_has() {
        let mut state = State::default();
        let labels = [("hosts", "a.example"), ("port", "80")];
        let both = vec![planned("shop_web", &labels, 1), planned("shop_old", &labels, 1)];
        apply(&mut state, &Plan { services: both, ..Plan::default() });
        assert_eq!(snapshot(&state).routes[0].services.len(), 2);
        let services = vec![planned("shop_web", &labels, 1)];
        let prune = |stack: &str| Plan {
            services: services.clone(),
            prune: Some(stack.to_owned()),
            ..Plan::default()
        };
        apply(&mut state, &prune("other"));
        assert_eq!(snapshot(&state).routes[0].services.len(), 2, "it is another stack's");
        apply(&mut state, &prune("shop"));
        assert_eq!(snapshot(&state).routes[0].services.len(), 1);
    }

    #[test]
    fn host_ports_secrets_and_vips_are_as_swarm_would_show_them() {
        let mut state = State::default();
        let host = Planned {
            networks: BTreeSet::new(),
            host_ports: vec![HostPort { target: 80, published: 0 }],
            scale: Scale::Global,
            ..planned("shop_host", &[("hosts", "h.example"), ("port", "80")], 1)
        };
        let tls = [
            ("hosts", "t.example"),
            ("port", "80"),
            ("ssl_cert", "cert"),
            ("ssl_key", "key"),
            ("backend_mode", "vip"),
        ];
        let plan = Plan {
            services: vec![host, planned("shop_tls", &tls, 5)],
            secrets: ["shop_cert".to_owned(), "key".to_owned()].into(),
            prune: None,
        };
        apply(&mut state, &plan);
        assert_eq!(state.problems(), []);
        assert_eq!(addresses(&state).len(), 2, "one at its node, one virtual");
    }
}
