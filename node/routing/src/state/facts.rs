//! What Docker showed, by id, and the indexes that find what a change concerns.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::fact::{Change, Network, Service, SwarmNode, SwarmVersion, Task};
use crate::labels;
use crate::names::{NetworkId, ObjectId, ServiceId, SwarmNodeId, TaskId};

/// The recorded objects.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) networks: OrdMap<NetworkId, Arc<Network>>,
    pub(super) swarm_nodes: OrdMap<SwarmNodeId, Arc<SwarmNode>>,
    pub(super) secrets: OrdMap<ObjectId, Arc<str>>,
    pub(super) configs: OrdMap<ObjectId, Arc<str>>,
    pub(super) services: OrdMap<ServiceId, Arc<Service>>,
    pub(super) tasks: OrdMap<TaskId, Arc<Task>>,
    // Indexes: derived from the maps above, never encoded.
    pub(super) tasks_by_service: OrdSet<(ServiceId, TaskId)>,
    pub(super) tasks_by_node: OrdSet<(SwarmNodeId, TaskId)>,
    pub(super) services_by_name: OrdSet<(Arc<str>, ServiceId)>,
    pub(super) services_by_network: OrdSet<(NetworkId, ServiceId)>,
    /// By each name under which a service may mean a secret.
    pub(super) services_by_secret: OrdSet<(Arc<str>, ServiceId)>,
    pub(super) secrets_by_name: OrdSet<(Arc<str>, ObjectId)>,
}

/// What an entry's changes concern.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Services whose labels are to be read again.
    pub(super) services: BTreeSet<ServiceId>,
    /// The names of these services, before and after.
    pub(super) names: BTreeSet<Arc<str>>,
    /// Services whose upstreams may differ.
    pub(super) upstreams: BTreeSet<ServiceId>,
    /// Some network changed, which services without one of their own may feel.
    pub(super) networks: bool,
    /// Something was recorded.
    pub(super) recorded: bool,
}

/// Takes the text of an id from an object that has it, so that it is held once.
fn share<K: Ord + Clone, V>(objects: &OrdMap<K, V>, id: &mut K) {
    if let Some((known, _)) = objects.get_key_value(id) {
        id.clone_from(known);
    }
}

/// The members of a set of pairs whose first half is `key`.
fn second_halves<'a, A: Ord + Clone, B: Ord + Clone + Default>(
    pairs: &'a OrdSet<(A, B)>,
    key: &'a A,
) -> impl Iterator<Item = &'a B> {
    // The default of every id is the empty text, which sorts first.
    pairs
        .range((key.clone(), B::default())..)
        .take_while(move |(first, _)| first == key)
        .map(|(_, second)| second)
}

impl Facts {
    /// Puts the indexes together again, after the maps were decoded.
    pub(super) fn index(&mut self) {
        let by_service = |task: &Arc<Task>| (task.service.clone(), task.id.clone());
        self.tasks_by_service = self.tasks.values().map(by_service).collect();
        self.tasks_by_node =
            self.tasks.values().map(|task| (task.node.clone(), task.id.clone())).collect();
        let pair = |service: &Arc<Service>| {
            let id = service.id.clone();
            let pairs = service.networks.iter().map(move |network| (network.clone(), id.clone()));
            pairs.collect::<Vec<_>>()
        };
        self.services_by_network = self.services.values().flat_map(pair).collect();
        self.services_by_name =
            self.services.values().map(|one| (Arc::clone(&one.name), one.id.clone())).collect();
        self.services_by_secret = self.services.values().flat_map(|one| by_secret(one)).collect();
        let by_name = |(id, name): (&ObjectId, &Arc<str>)| (Arc::clone(name), id.clone());
        self.secrets_by_name = self.secrets.iter().map(by_name).collect();
    }

    /// Whether there is a secret of this name.
    pub(super) fn has_secret(&self, name: &str) -> bool {
        second_halves(&self.secrets_by_name, &name.into()).next().is_some()
    }

    /// The services of a name: more than one only while one takes another's place.
    pub(super) fn named<'a>(&'a self, name: &'a Arc<str>) -> impl Iterator<Item = &'a ServiceId> {
        second_halves(&self.services_by_name, name)
    }

    /// The tasks of a service, by id.
    pub(super) fn tasks_of<'a>(&'a self, service: &'a ServiceId) -> impl Iterator<Item = &'a Task> {
        second_halves(&self.tasks_by_service, service)
            .filter_map(|task| self.tasks.get(task).map(Arc::as_ref))
    }

    /// Records a change; an object older than the recorded one is left aside.
    pub(super) fn record(&mut self, change: &Change, touched: &mut Touched) {
        match change {
            Change::Network(network) => {
                if self.networks.get(&network.id).is_some_and(|recorded| **recorded == *network) {
                    return;
                }
                self.networks.insert(network.id.clone(), Arc::new(network.clone()));
                self.touch_network(&network.id, touched);
            }
            Change::NetworkGone(id) => {
                if self.networks.remove(id).is_some() {
                    self.touch_network(id, touched);
                }
            }
            Change::SwarmNode(node) => {
                let recorded = self.swarm_nodes.get(&node.id);
                if !is_news(recorded.map(|recorded| (recorded.version, &**recorded)), node) {
                    return;
                }
                self.swarm_nodes.insert(node.id.clone(), Arc::new(node.clone()));
                self.touch_node(&node.id, touched);
            }
            Change::SwarmNodeGone(id) => {
                if self.swarm_nodes.remove(id).is_some() {
                    self.touch_node(id, touched);
                }
            }
            Change::Service(service) => self.record_service(service, touched),
            Change::ServiceGone(id) => {
                if let Some(gone) = self.services.remove(id) {
                    self.unindex_service(&gone);
                    touched.names.insert(Arc::clone(&gone.name));
                    touched.services.insert(id.clone());
                    touched.recorded = true;
                }
            }
            Change::Task(task) => self.record_task(task, touched),
            Change::TaskGone(id) => {
                if let Some(gone) = self.tasks.remove(id) {
                    self.unindex_task(&gone, touched);
                    touched.recorded = true;
                }
            }
            Change::Secret { id, name } => {
                let old = self.secrets.insert(id.clone(), Arc::clone(name));
                if old.as_ref() != Some(name) {
                    if let Some(old) = &old {
                        self.secrets_by_name.remove(&(Arc::clone(old), id.clone()));
                        self.touch_secret(old, touched);
                    }
                    self.secrets_by_name.insert((Arc::clone(name), id.clone()));
                    self.touch_secret(name, touched);
                }
            }
            Change::SecretGone(id) => {
                if let Some(name) = self.secrets.remove(id) {
                    self.secrets_by_name.remove(&(Arc::clone(&name), id.clone()));
                    self.touch_secret(&name, touched);
                }
            }
            Change::Config { id, name } => {
                let old = self.configs.insert(id.clone(), Arc::clone(name));
                touched.recorded |= old.as_ref() != Some(name);
            }
            Change::ConfigGone(id) => touched.recorded |= self.configs.remove(id).is_some(),
        }
    }

    fn record_service(&mut self, service: &Service, touched: &mut Touched) {
        let recorded = self.services.get(&service.id);
        if !is_news(recorded.map(|recorded| (recorded.version, &**recorded)), service) {
            return;
        }
        if let Some(old) = self.services.insert(service.id.clone(), Arc::new(service.clone())) {
            self.unindex_service(&old);
            touched.names.insert(Arc::clone(&old.name));
        }
        self.services_by_name.insert((Arc::clone(&service.name), service.id.clone()));
        touched.names.insert(Arc::clone(&service.name));
        for network in &service.networks {
            self.services_by_network.insert((network.clone(), service.id.clone()));
        }
        self.services_by_secret.extend(by_secret(service));
        touched.services.insert(service.id.clone());
        touched.recorded = true;
    }

    fn record_task(&mut self, task: &Task, touched: &mut Touched) {
        let recorded = self.tasks.get(&task.id);
        if !is_news(recorded.map(|recorded| (recorded.version, &**recorded)), task) {
            return;
        }
        let mut task = task.clone();
        share(&self.tasks, &mut task.id);
        share(&self.services, &mut task.service);
        share(&self.swarm_nodes, &mut task.node);
        for (network, _) in &mut task.addresses {
            share(&self.networks, network);
        }
        let task = Arc::new(task);
        if let Some(old) = self.tasks.insert(task.id.clone(), Arc::clone(&task)) {
            self.unindex_task(&old, touched);
        }
        self.tasks_by_service.insert((task.service.clone(), task.id.clone()));
        self.tasks_by_node.insert((task.node.clone(), task.id.clone()));
        touched.upstreams.insert(task.service.clone());
        touched.recorded = true;
    }

    fn unindex_service(&mut self, old: &Service) {
        self.services_by_name.remove(&(Arc::clone(&old.name), old.id.clone()));
        for network in &old.networks {
            self.services_by_network.remove(&(network.clone(), old.id.clone()));
        }
        for pair in by_secret(old) {
            self.services_by_secret.remove(&pair);
        }
    }

    fn unindex_task(&mut self, old: &Task, touched: &mut Touched) {
        self.tasks_by_service.remove(&(old.service.clone(), old.id.clone()));
        self.tasks_by_node.remove(&(old.node.clone(), old.id.clone()));
        touched.upstreams.insert(old.service.clone());
    }

    fn touch_network(&self, id: &NetworkId, touched: &mut Touched) {
        touched.services.extend(second_halves(&self.services_by_network, id).cloned());
        touched.networks = true;
        touched.recorded = true;
    }

    fn touch_secret(&self, name: &Arc<str>, touched: &mut Touched) {
        touched.services.extend(second_halves(&self.services_by_secret, name).cloned());
        touched.recorded = true;
    }

    pub(super) fn touch_node(&self, id: &SwarmNodeId, touched: &mut Touched) {
        let tasks = second_halves(&self.tasks_by_node, id).filter_map(|id| self.tasks.get(id));
        touched.upstreams.extend(tasks.map(|task| task.service.clone()));
        touched.recorded = true;
    }
}

/// The names under which a service may mean a secret, each with its id.
fn by_secret(service: &Service) -> impl Iterator<Item = (Arc<str>, ServiceId)> {
    let id = service.id.clone();
    labels::secrets_named(service).map(move |name| (name.into(), id.clone()))
}

/// An object that Docker versions.
pub(super) trait Versioned: PartialEq {
    fn version(&self) -> SwarmVersion;
}

impl Versioned for SwarmNode {
    fn version(&self) -> SwarmVersion {
        self.version
    }
}

impl Versioned for Service {
    fn version(&self) -> SwarmVersion {
        self.version
    }
}

impl Versioned for Task {
    fn version(&self) -> SwarmVersion {
        self.version
    }
}

/// Whether an object says something that is not recorded yet, and is not stale.
fn is_news<T: Versioned>(recorded: Option<(SwarmVersion, &T)>, seen: &T) -> bool {
    recorded.is_none_or(|(version, object)| seen.version() >= version && seen != object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{DesiredState, TaskState};

    fn task(version: u64) -> Change {
        Change::Task(Task {
            id: "web.1".into(),
            version: SwarmVersion(version),
            service: "web".into(),
            slot: 1,
            node: "machine".into(),
            desired: DesiredState::Running,
            state: TaskState::Running,
            addresses: vec![("front".into(), [10, 0, 0, 2].into())],
            host_ports: Vec::new(),
        })
    }

    #[test]
    fn tasks_hold_the_texts_of_what_they_name() {
        let mut facts = Facts::default();
        let mut touched = Touched::default();
        let front = Network { id: "front".into(), name: "front".into(), ingress: false };
        facts.record(&Change::Network(front), &mut touched);
        facts.record(&task(1), &mut touched);
        facts.record(&task(2), &mut touched);
        let (id, task) = facts.tasks.iter().next().expect("recorded");
        assert_eq!(task.version, SwarmVersion(2));
        assert!(Arc::ptr_eq(&id.0, &task.id.0), "an entry's text ends with the entry");
        let (network, _) = facts.networks.iter().next().expect("recorded");
        assert!(Arc::ptr_eq(&network.0, &task.addresses[0].0.0));
    }
}
