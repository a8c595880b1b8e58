//! Changes of the model, as Swarm's orchestrator would make them.

use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::events::Event;
use crate::model::{Meta, Model, Named, Network, Node, Service, Task, UpdateStatus};
use crate::spec::{EndpointMode, Mode, ServiceSpec, TaskState, Timing};
use crate::stand_in::StandInError;

/// Replicas that one service may ask for.
const REPLICAS_MAX: u64 = 100_000;

/// What the passing of time will do to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    Start,
    Stop,
}

/// A change in the making: the next model, and what follows from it.
#[derive(Debug)]
pub(crate) struct Draft<'m> {
    pub(crate) model: &'m mut Model,
    pub(crate) timing: Timing,
    pub(crate) events: Vec<Event>,
    /// Tasks that will start or stop by themselves.
    pub(crate) timers: Vec<(Timer, String)>,
}

type Change<T = ()> = Result<T, StandInError>;

fn missing(kind: &'static str, name: &str) -> StandInError {
    StandInError::NotFound { kind, name: name.to_owned() }
}

impl Draft<'_> {
    fn meta(&self) -> Meta {
        let now = OffsetDateTime::now_utc();
        Meta { version: self.model.index, created: now, updated: now }
    }

    fn touched(&self, meta: Meta) -> Meta {
        Meta { created: meta.created, ..self.meta() }
    }

    fn emit(&mut self, kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) {
        self.events.push(Event::new(kind, action, id, attributes));
    }

    pub(crate) fn create_service(&mut self, spec: ServiceSpec) -> Change<String> {
        if spec.name.is_empty() {
            return Err(StandInError::Invalid("service name is empty".to_owned()));
        }
        if self.model.services.values().any(|s| s.spec.name == spec.name) {
            let name = spec.name;
            return Err(StandInError::Conflict(format!("name conflicts: service {name} exists")));
        }
        let vips = self.vips(&spec, &[])?;
        let id = self.model.next_id();
        let name = spec.name.clone();
        let service =
            Service { id: id.clone(), meta: self.meta(), spec, force: 0, vips, update: None };
        let service = Arc::new(service);
        self.model.services.insert(id.clone(), Arc::clone(&service));
        self.emit("service", "create", &id, &[("name", &name)]);
        // Its tasks are not looked for among all there are: it has none yet.
        self.reconcile_from(&service, Vec::new())?;
        Ok(id)
    }

    /// A virtual address on each network: the known one, that of the spec on the first
    /// network of a new service, or one that nothing has had.
    fn vips(
        &mut self,
        spec: &ServiceSpec,
        known: &[(String, IpAddr)],
    ) -> Change<Vec<(String, IpAddr)>> {
        let mut given = spec.vip.filter(|_| known.is_empty());
        let mut vips = Vec::new();
        for name in &spec.networks {
            let network = self.model.network(name).cloned();
            let network = network.ok_or_else(|| missing("network", name))?;
            if spec.endpoint_mode == EndpointMode::Vip {
                let had = known.iter().find(|(id, _)| *id == network.id).map(|(_, vip)| *vip);
                let vip = had.or_else(|| given.take());
                let vip = vip.unwrap_or_else(|| self.model.next_address(&network));
                vips.push((network.id.clone(), vip));
            }
        }
        Ok(vips)
    }

    /// Changes a service's spec in place. Labels and scale touch no running task.
    pub(crate) fn update_service(
        &mut self,
        name: &str,
        edit: impl FnOnce(&mut ServiceSpec),
    ) -> Change {
        let known = self.service(name)?;
        let mut service = Service::clone(&known);
        edit(&mut service.spec);
        if service.spec.replicas > REPLICAS_MAX {
            let reason = format!("{} replicas are more than {REPLICAS_MAX}", service.spec.replicas);
            return Err(StandInError::Invalid(reason));
        }
        if service.spec.networks != known.spec.networks {
            service.vips = self.vips(&service.spec, &known.vips)?;
        }
        service.meta = self.touched(service.meta);
        let (id, name) = (service.id.clone(), service.spec.name.clone());
        let (old, new) = (known.spec.replicas.to_string(), service.spec.replicas.to_string());
        let mut attributes = vec![("name", name.as_str())];
        if old != new {
            attributes.extend([("replicas.new", new.as_str()), ("replicas.old", old.as_str())]);
        }
        self.model.services.insert(id.clone(), Arc::new(service));
        self.emit("service", "update", &id, &attributes);
        self.reconcile(&id)
    }

    pub(crate) fn set_update_status(&mut self, name: &str, state: &str, message: &str) -> Change {
        let mut service = Service::clone(&*self.service(name)?);
        let now = OffsetDateTime::now_utc();
        let begins = matches!(state, "updating" | "rollback_started");
        let started = service.update.as_ref().filter(|_| !begins).map_or(now, |u| u.started);
        service.meta = self.touched(service.meta);
        service.force += u64::from(begins);
        service.update = Some(UpdateStatus {
            state: state.to_owned(),
            message: message.to_owned(),
            started,
            completed: (!begins).then_some(now),
        });
        let (id, name) = (service.id.clone(), service.spec.name.clone());
        self.model.services.insert(id.clone(), Arc::new(service));
        self.emit("service", "update", &id, &[("name", &name), ("updatestate.new", state)]);
        Ok(())
    }

    pub(crate) fn remove_service(&mut self, name: &str) -> Change {
        let service = self.service(name)?;
        self.model.services.remove(&service.id);
        self.emit("service", "remove", &service.id, &[("name", &service.spec.name)]);
        let tasks = self.model.tasks_of(&service.id);
        let ids: Vec<_> = tasks.iter().map(|task| task.id.clone()).collect();
        for id in ids {
            self.set_desired(&id, TaskState::Remove)?;
        }
        Ok(())
    }

    /// Makes tasks that are missing, stops those that are too many.
    fn reconcile(&mut self, service: &str) -> Change {
        let service = self.service(service)?;
        let wanted: Vec<(String, u64, bool)> = {
            let tasks = self.model.tasks_of(&service.id);
            let wanted = tasks.iter().filter(|task| task.wanted());
            wanted.map(|task| (task.id.clone(), task.slot, task.runs())).collect()
        };
        self.reconcile_from(&service, wanted)
    }

    /// The same, with the id and the slot of each task that is wanted now, and whether it runs.
    fn reconcile_from(&mut self, service: &Service, wanted: Vec<(String, u64, bool)>) -> Change {
        match service.spec.mode {
            Mode::Global | Mode::GlobalJob => {
                let nodes: Vec<_> = self.model.nodes.keys().cloned().collect();
                for node in nodes {
                    let there = self.model.tasks_of(&service.id);
                    if !there.iter().any(|task| task.wanted() && task.node == node) {
                        self.new_task(service, 0, Some(node), TaskState::Running)?;
                    }
                }
            }
            Mode::Replicated | Mode::ReplicatedJob => {
                let slots: Vec<u64> = wanted.iter().map(|(_, slot, _)| *slot).collect();
                let have = slots.len() as u64;
                let free = (1..).filter(|slot| !slots.contains(slot));
                let more = service.spec.replicas.saturating_sub(have);
                let free: Vec<u64> = free.take(usize::try_from(more).unwrap_or(0)).collect();
                for slot in free {
                    self.new_task(service, slot, None, TaskState::Running)?;
                }
                let mut over: Vec<_> = wanted;
                // Highest slots go first, as in Swarm.
                over.sort_by_key(|(_, slot, _)| *slot);
                for (id, _, _) in over
                    .into_iter()
                    .skip(usize::try_from(service.spec.replicas).unwrap_or(usize::MAX))
                {
                    self.set_desired(&id, TaskState::Remove)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn new_task(
        &mut self,
        service: &Service,
        slot: u64,
        node: Option<String>,
        desired: TaskState,
    ) -> Change<String> {
        let id = self.model.next_id();
        let mut addresses = Vec::new();
        for (position, name) in service.spec.networks.iter().enumerate() {
            let network =
                self.model.network(name).cloned().ok_or_else(|| missing("network", name))?;
            let given = if position == 0 { self.free_address(service) } else { None };
            let address = given.unwrap_or_else(|| self.model.next_address(&network));
            addresses.push((network.id.clone(), address));
        }
        let usable: Vec<_> = self
            .model
            .nodes
            .values()
            .filter(|node| node.state == "ready" && node.availability == "active")
            .map(|node| node.id.clone())
            .collect();
        let turn = usize::try_from(slot).unwrap_or_default();
        let node = node.or_else(|| usable.get(turn % usable.len().max(1)).cloned());
        let at_once = self.timing.start.is_some_and(|start| start.is_zero());
        let state = match (&node, desired) {
            (None, _) => TaskState::Pending,
            (Some(_), TaskState::Ready) => TaskState::Ready,
            (Some(_), _) if at_once => TaskState::Running,
            (Some(_), _) => TaskState::Preparing,
        };
        let meta = self.meta();
        let task = Task {
            id: id.clone(),
            meta,
            service: service.id.clone(),
            slot,
            node: node.unwrap_or_default(),
            desired,
            state,
            state_at: meta.created,
            addresses,
            host_ports: service.spec.host_ports.clone(),
            image: service.spec.image.clone(),
        };
        if task.state == TaskState::Preparing {
            self.timers.push((Timer::Start, id.clone()));
        }
        self.model.tasks.insert(id.clone(), Arc::new(task));
        Ok(id)
    }

    /// The first of the service's addresses that no living task has; else the next in turn.
    fn free_address(&self, service: &Service) -> Option<IpAddr> {
        let given = &service.spec.addresses;
        // Before all tasks are looked through, which a large swarm cannot afford for each.
        if given.is_empty() {
            return None;
        }
        let tasks = self.model.tasks_of(&service.id);
        let taken: Vec<IpAddr> = tasks
            .iter()
            .filter(|task| !task.ended())
            .filter_map(|task| task.addresses.first().map(|(_, address)| *address))
            .collect();
        let free = given.iter().find(|address| !taken.contains(address));
        free.or_else(|| given.get(taken.len() % given.len().max(1))).copied()
    }

    pub(crate) fn set_desired(&mut self, id: &str, desired: TaskState) -> Change {
        let mut task = Task::clone(&*self.task(id)?);
        task.meta = self.touched(task.meta);
        task.desired = desired;
        let stops = desired > TaskState::Running;
        if stops && task.ended() && desired == TaskState::Remove {
            self.model.tasks.remove(id);
            return Ok(());
        }
        if stops && !task.ended() {
            self.timers.push((Timer::Stop, id.to_owned()));
        }
        if desired == TaskState::Running && task.state == TaskState::Ready {
            task.state = TaskState::Starting;
            if self.timing.start.is_some_and(|start| start.is_zero()) {
                task.state = TaskState::Running;
            } else {
                self.timers.push((Timer::Start, id.to_owned()));
            }
        }
        self.model.tasks.insert(id.to_owned(), Arc::new(task));
        Ok(())
    }

    pub(crate) fn set_state(&mut self, id: &str, state: TaskState) -> Change {
        let mut task = Task::clone(&*self.task(id)?);
        task.meta = self.touched(task.meta);
        task.state = state;
        task.state_at = task.meta.updated;
        if task.ended() && task.desired == TaskState::Remove {
            self.model.tasks.remove(id);
        } else {
            self.model.tasks.insert(id.to_owned(), Arc::new(task));
        }
        Ok(())
    }

    /// What a timer does when its time has come, if it still applies.
    pub(crate) fn expire(&mut self, timer: Timer, id: &str) -> Change {
        let task = self.task(id)?;
        match timer {
            Timer::Start if task.wanted() && task.state < TaskState::Running => {
                self.set_state(id, TaskState::Running)
            }
            Timer::Stop if !task.wanted() && !task.ended() => {
                self.set_state(id, TaskState::Shutdown)
            }
            _ => Err(StandInError::Unchanged),
        }
    }

    /// A crash: the task has failed, and another takes its slot.
    pub(crate) fn fail_task(&mut self, id: &str) -> Change<String> {
        let task = self.task(id)?;
        self.set_state(id, TaskState::Failed)?;
        self.set_desired(id, TaskState::Shutdown)?;
        let service = self.service(&task.service)?;
        self.new_task(&service, task.slot, Some(task.node.clone()), TaskState::Running)
    }

    pub(crate) fn remove_task(&mut self, id: &str) -> Change {
        let task = self.task(id)?;
        self.model.tasks.remove(&task.id);
        Ok(())
    }

    pub(crate) fn add_network(&mut self, name: &str, ingress: bool) -> Change<String> {
        if self.model.network(name).is_some() {
            return Err(StandInError::Conflict(format!("network with name {name} already exists")));
        }
        let taken: Vec<u8> = self.model.networks.values().map(|n| n.number).collect();
        let number = (0..=255).find(|number| !taken.contains(number));
        let number = number.ok_or(StandInError::Invalid("no subnet is left".to_owned()))?;
        let (id, meta) = (self.model.next_id(), self.meta());
        let network = Network { id: id.clone(), meta, name: name.to_owned(), ingress, number };
        self.model.networks.insert(id.clone(), Arc::new(network));
        self.emit("network", "create", &id, &[("name", name)]);
        Ok(id)
    }

    pub(crate) fn remove_network(&mut self, name: &str) -> Change {
        let network = self.model.network(name).cloned().ok_or_else(|| missing("network", name))?;
        let uses = |s: &Arc<Service>| s.spec.networks.iter().any(|n| *n == network.name);
        if let Some(service) = self.model.services.values().find(|s| uses(s)) {
            let reason = format!("network {name} is in use by service {}", service.spec.name);
            return Err(StandInError::Conflict(reason));
        }
        self.model.networks.remove(&network.id);
        self.emit("network", "remove", &network.id, &[("name", &network.name)]);
        Ok(())
    }

    pub(crate) fn add_node(
        &mut self,
        hostname: &str,
        manager: bool,
        address: IpAddr,
    ) -> Change<String> {
        let leader = manager && !self.model.nodes.values().any(|node| node.leader);
        let (id, meta) = (self.model.next_id(), self.meta());
        let node = Node {
            id: id.clone(),
            meta,
            hostname: hostname.to_owned(),
            manager,
            leader,
            state: "ready".to_owned(),
            availability: "active".to_owned(),
            address,
            labels: Default::default(),
        };
        self.model.nodes.insert(id.clone(), Arc::new(node));
        self.emit("node", "create", &id, &[("name", hostname)]);
        Ok(id)
    }

    pub(crate) fn update_node(&mut self, name: &str, edit: impl FnOnce(&mut Node)) -> Change {
        let known = self.model.node(name).cloned().ok_or_else(|| missing("node", name))?;
        let mut node = Node::clone(&known);
        edit(&mut node);
        node.meta = self.touched(node.meta);
        let (id, hostname) = (node.id.clone(), node.hostname.clone());
        let mut attributes = vec![("name", hostname.as_str())];
        if node.state != known.state {
            attributes.extend([("state.new", node.state.as_str()), ("state.old", &known.state)]);
        }
        if node.availability != known.availability {
            attributes.push(("availability.new", &node.availability));
            attributes.push(("availability.old", &known.availability));
        }
        self.events.push(Event::new("node", "update", &id, &attributes));
        self.model.nodes.insert(id, Arc::new(node));
        Ok(())
    }

    /// Swarm gives up on a node: its tasks are to stop, others take their slots.
    pub(crate) fn reschedule(&mut self, name: &str) -> Change {
        let node = self.model.node(name).cloned().ok_or_else(|| missing("node", name))?;
        let tasks = self.model.tasks.values();
        let there: Vec<_> =
            tasks.filter(|task| task.node == node.id && task.wanted()).cloned().collect();
        for task in there {
            self.set_desired(&task.id, TaskState::Shutdown)?;
            let service = self.service(&task.service)?;
            if matches!(service.spec.mode, Mode::Replicated) {
                self.new_task(&service, task.slot, None, TaskState::Running)?;
            }
        }
        Ok(())
    }

    pub(crate) fn remove_node(&mut self, name: &str) -> Change {
        let node = self.model.node(name).cloned().ok_or_else(|| missing("node", name))?;
        self.model.nodes.remove(&node.id);
        self.emit("node", "remove", &node.id, &[("name", &node.hostname)]);
        Ok(())
    }

    /// Another swarm on the same engine: its nodes have other ids, too.
    pub(crate) fn become_swarm(&mut self, id: &str) {
        self.model.swarm = id.to_owned();
        for (_, node) in std::mem::take(&mut self.model.nodes) {
            let id = self.model.next_id();
            self.model.nodes.insert(id.clone(), Arc::new(Node { id, ..Node::clone(&node) }));
        }
    }

    /// Adds a secret or, else, a config.
    pub(crate) fn add_named(&mut self, secret: bool, name: &str) -> String {
        let (id, meta) = (self.model.next_id(), self.meta());
        let named = Named { id: id.clone(), meta, name: name.to_owned() };
        let (kind, all) = if secret {
            ("secret", &mut self.model.secrets)
        } else {
            ("config", &mut self.model.configs)
        };
        all.insert(id.clone(), Arc::new(named));
        self.emit(kind, "create", &id, &[("name", name)]);
        id
    }

    pub(crate) fn remove_named(&mut self, secret: bool, name: &str) -> Change {
        let (kind, all) = if secret {
            ("secret", &mut self.model.secrets)
        } else {
            ("config", &mut self.model.configs)
        };
        let found = all.values().find(|n| n.name == name || n.id == name).map(|n| n.id.clone());
        let id = found.ok_or_else(|| missing(kind, name))?;
        all.remove(&id);
        self.emit(kind, "remove", &id, &[("name", name)]);
        Ok(())
    }

    pub(crate) fn service(&self, name: &str) -> Change<Arc<Service>> {
        self.model.service(name).cloned().ok_or_else(|| missing("service", name))
    }

    pub(crate) fn task(&self, id: &str) -> Change<Arc<Task>> {
        self.model.tasks.get(id).cloned().ok_or_else(|| missing("task", id))
    }
}
