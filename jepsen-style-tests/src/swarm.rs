//! A small orchestrator over the Docker stand-in: services whose tasks are real
//! upstreams, and whose states change in the order in which Swarm changes them.
//!
//! The order is as measured on a real Swarm, the pauses are shorter: a task that is
//! to stop is *marked* (DesiredState) first, keeps running for [`STOP_DELAY`] (3 s on
//! a real one), and then its container is killed in the middle of whatever it does.

mod engine;
mod service;
mod timing;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cluster::Cluster;
use crate::upstream::Upstream;

pub use service::{NETWORK, ServiceConfig, UpdateOrder, lb_labels};
pub use timing::{event_to_proxy_times, median};

use engine::{Engine, TaskFact};

/// From the mark to the container's death.
pub const STOP_DELAY: Duration = Duration::from_secs(1);
/// From one state of a starting task to the next.
const START_STEP: Duration = Duration::from_millis(40);
/// The first and the last host of the place that tasks get.
const TASK_HOSTS: std::ops::RangeInclusive<u8> = 100..=250;
/// The port that every upstream listens on.
pub const UPSTREAM_PORT: u16 = 8_080;

/// A swarm of one application network. Clones share it.
#[derive(Clone, Debug)]
pub struct Swarm {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    /// The first three bytes of every task's address.
    network: IpAddr,
    next_host: AtomicU8,
    next_id: AtomicU64,
    services: Mutex<BTreeMap<String, Service>>,
}

#[derive(Debug)]
struct Service {
    id: String,
    config: ServiceConfig,
    tasks: Vec<Task>,
}

#[derive(Debug)]
struct Task {
    fact: TaskFact,
    /// What runs in its container: `SERVICE.SLOT.NUMBER`.
    name: String,
    upstream: Option<Upstream>,
}

/// A task, as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    pub id: String,
    pub slot: u64,
    /// What it answers as.
    pub name: String,
    pub addr: SocketAddr,
}

impl Swarm {
    /// Starts the stand-in where the cluster's members look for Docker.
    pub async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let engine = Engine::start(cluster).await?;
        let shared = Shared {
            engine,
            network: cluster.place().ip(0),
            next_host: AtomicU8::new(*TASK_HOSTS.start()),
            next_id: AtomicU64::new(1),
            services: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The stand-in itself, for its faults.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Service>> {
        self.shared.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &str, look: impl FnOnce(&mut Service) -> T) -> anyhow::Result<T> {
        let mut services = self.services();
        let service = services.get_mut(name).with_context(|| format!("no service {name}"))?;
        Ok(look(service))
    }

    fn new_id(&self) -> String {
        // Docker's ids are 25 characters of base 36; ours only have to be unlike.
        format!("{:025}", self.shared.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Creates a service with all its tasks running; returns when Docker said so.
    pub async fn create(&self, config: ServiceConfig) -> anyhow::Result<Instant> {
        let name = config.name.clone();
        let replicas = config.replicas;
        let id = self.new_id();
        self.services().insert(name.clone(), Service { id, config, tasks: Vec::new() });
        // Like a service whose tasks start at once: its tasks run before it is seen, so
        // that what is measured from here on is ours alone.
        for slot in 1..=u64::from(replicas) {
            let task = self.new_task(&name, slot, "running").await?;
            self.run(&name, &task, &[]).await?;
        }
        self.push_service(&name, "create").await?;
        Ok(Instant::now())
    }

    /// Changes the labels of a service.
    pub async fn relabel(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
    ) -> anyhow::Result<Instant> {
        self.with(name, |service| service.config.labels = labels)?;
        self.push_service(name, "update").await?;
        Ok(Instant::now())
    }

    /// Removes a service: its tasks are marked, then killed.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let id = self.with(name, |service| service.id.clone())?;
        let tasks = self.tasks(name);
        self.shared.engine.remove_service(&id, name).await?;
        self.stop(name, &tasks, "remove").await?;
        self.services().remove(name);
        Ok(())
    }

    /// Scales a service and returns when it has converged.
    pub async fn scale(&self, name: &str, replicas: u8) -> anyhow::Result<()> {
        self.with(name, |service| service.config.replicas = replicas)?;
        self.push_service(name, "update").await?;
        let replicas = u64::from(replicas);
        let tasks = self.tasks(name);
        let surplus: Vec<TaskView> =
            tasks.iter().filter(|task| task.slot > replicas).cloned().collect();
        self.stop(name, &surplus, "remove").await?;
        for slot in 1..=replicas {
            if !tasks.iter().any(|task| task.slot == slot) {
                self.start_task(name, slot).await?;
            }
        }
        Ok(())
    }

    /// A rolling update, one task after the other; returns when it is done.
    pub async fn update(&self, name: &str, order: UpdateOrder) -> anyhow::Result<()> {
        self.with(name, |service| service.config.update_state = "updating".to_owned())?;
        self.push_service(name, "update").await?;
        for task in self.tasks(name) {
            match order {
                UpdateOrder::StopFirst => {
                    self.stop(name, std::slice::from_ref(&task), "shutdown").await?;
                    self.start_task(name, task.slot).await?;
                }
                UpdateOrder::StartFirst => {
                    self.start_task(name, task.slot).await?;
                    self.stop(name, &[task], "shutdown").await?;
                }
            }
        }
        self.with(name, |service| service.config.update_state = "completed".to_owned())?;
        self.push_service(name, "update").await
    }

    /// Marks a task to be stopped and goes no further; returns when Docker said so.
    pub async fn mark(
        &self,
        name: &str,
        task: &TaskView,
        desired: &str,
    ) -> anyhow::Result<Instant> {
        self.change(name, &task.id, |fact| fact.desired = desired.to_owned()).await?;
        Ok(Instant::now())
    }

    /// The tasks of a service that run, by slot.
    pub fn tasks(&self, name: &str) -> Vec<TaskView> {
        let services = self.services();
        let tasks = services.get(name).map_or(&[][..], |service| &service.tasks);
        let running = tasks.iter().filter(|task| task.upstream.is_some());
        let mut views: Vec<TaskView> = running.map(Task::view).collect();
        views.sort_by_key(|task| task.slot);
        views
    }

    /// How many requests reached a task, for as long as it runs.
    pub fn requests(&self, name: &str, task: &TaskView) -> Option<u64> {
        self.with(name, |service| {
            let found = service.tasks.iter().find(|other| other.fact.id == task.id)?;
            found.upstream.as_ref().map(Upstream::requests)
        })
        .ok()
        .flatten()
    }

    async fn start_task(&self, name: &str, slot: u64) -> anyhow::Result<()> {
        let task = self.new_task(name, slot, "new").await?;
        self.run(name, &task, &["assigned", "preparing", "starting"]).await
    }

    /// A task that is to run, with its address, as Docker shows it first.
    async fn new_task(&self, name: &str, slot: u64, state: &str) -> anyhow::Result<String> {
        let id = self.new_id();
        let service = self.with(name, |service| service.id.clone())?;
        let number = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let fact = TaskFact {
            id: id.clone(),
            service,
            slot,
            desired: "running".to_owned(),
            state: if state == "running" { "starting" } else { state }.to_owned(),
            address: self.new_address(),
        };
        let task =
            Task { fact: fact.clone(), name: format!("{name}.{slot}.{number}"), upstream: None };
        self.with(name, |service| service.tasks.push(task))?;
        self.shared.engine.put_task(&fact).await?;
        Ok(id)
    }

    fn new_address(&self) -> IpAddr {
        let next =
            |host: u8| Some(if host >= *TASK_HOSTS.end() { *TASK_HOSTS.start() } else { host + 1 });
        let host = self.shared.next_host.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        match self.shared.network {
            IpAddr::V4(network) => {
                let [a, b, c, _] = network.octets();
                IpAddr::from([a, b, c, host.unwrap_or(*TASK_HOSTS.start())])
            }
            network => network,
        }
    }

    /// Takes a task through `states`, starts what is in it, and shows it running.
    async fn run(&self, name: &str, task: &str, states: &[&str]) -> anyhow::Result<()> {
        for state in states {
            tokio::time::sleep(START_STEP).await;
            self.change(name, task, |fact| fact.state = (*state).to_owned()).await?;
        }
        let found = self.with(name, |service| {
            let found = service.tasks.iter().find(|other| other.fact.id == task)?;
            Some((found.name.clone(), SocketAddr::new(found.fact.address, UPSTREAM_PORT)))
        })?;
        let (upstream_name, addr) = found.context("the task is gone")?;
        let upstream = Upstream::start(&upstream_name, addr)
            .await
            .with_context(|| format!("{upstream_name} on {addr}"))?;
        self.with(name, |service| {
            if let Some(task) = service.tasks.iter_mut().find(|other| other.fact.id == task) {
                task.upstream = Some(upstream);
            }
        })?;
        self.change(name, task, |fact| fact.state = "running".to_owned()).await
    }

    /// Marks tasks, waits as Swarm does, kills them, and shows them dead.
    async fn stop(&self, name: &str, tasks: &[TaskView], desired: &str) -> anyhow::Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        for task in tasks {
            self.mark(name, task, desired).await?;
        }
        tokio::time::sleep(STOP_DELAY).await;
        for task in tasks {
            let upstream = self.with(name, |service| {
                let found = service.tasks.iter_mut().find(|other| other.fact.id == task.id)?;
                found.upstream.take()
            })?;
            if let Some(upstream) = upstream {
                upstream.kill();
            }
            self.change(name, &task.id, |fact| fact.state = "shutdown".to_owned()).await?;
            self.with(name, |service| service.tasks.retain(|other| other.fact.id != task.id))?;
            if desired == "remove" {
                self.shared.engine.remove_task(&task.id).await?;
            }
        }
        Ok(())
    }

    async fn change(
        &self,
        name: &str,
        task: &str,
        change: impl FnOnce(&mut TaskFact),
    ) -> anyhow::Result<()> {
        let fact = self.with(name, |service| {
            let found = service.tasks.iter_mut().find(|other| other.fact.id == task)?;
            change(&mut found.fact);
            Some(found.fact.clone())
        })?;
        self.shared.engine.put_task(&fact.context("the task is gone")?).await
    }

    async fn push_service(&self, name: &str, action: &str) -> anyhow::Result<()> {
        let (id, config) =
            self.with(name, |service| (service.id.clone(), service.config.clone()))?;
        self.shared.engine.put_service(&id, &config, action).await
    }
}

impl Task {
    fn view(&self) -> TaskView {
        TaskView {
            id: self.fact.id.clone(),
            slot: self.fact.slot,
            name: self.name.clone(),
            addr: SocketAddr::new(self.fact.address, UPSTREAM_PORT),
        }
    }
}
