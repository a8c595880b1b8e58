//! A swarm whose tasks are real upstreams: the Docker stand-in decides as Swarm's
//! managers do, and an agent carries it out as its machines do.
//!
//! The order of things is as measured on a real Swarm, the pauses are shorter: a task
//! that is to stop is *marked* (DesiredState) first, keeps running for [`STOP_DELAY`]
//! (3 s on a real one), and then its container is killed amid whatever it does.

mod agent;
mod service;
mod timing;
mod vip;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dovetail_stand_in::{Options, Order, Rolling, StandIn, Timing};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;

pub use service::{NETWORK, ServiceConfig, UpdateOrder, lb_labels};
pub use timing::{event_to_proxy_times, median};

use agent::Agent;
use vip::Vip;

/// From the mark to the container's death.
pub const STOP_DELAY: Duration = Duration::from_secs(1);
/// The port that every upstream listens on.
pub const UPSTREAM_PORT: u16 = 8_080;
/// How long Swarm may take over anything.
const CONVERGE_DEADLINE: Duration = Duration::from_secs(60);
/// The first host of the place that is a swarm node, and the first that tasks may get.
const NODE_HOSTS: u8 = 3;
const TASK_HOSTS: u8 = 30;
/// The last one; beyond it is the claim to the place.
const HOST_MAX: u8 = 253;
/// The least number of addresses that a service gets; twice its replicas if that is
/// more, since in an update that starts first all old tasks may still be there.
const SERVICE_HOSTS: usize = 16;

/// A swarm of one application network. Clones share it; the last one ends it.
#[derive(Clone, Debug)]
pub struct Swarm {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stand_in: StandIn,
    agent: Agent,
    job: JoinHandle<()>,
    /// The address `.0` of the place.
    network: IpAddr,
    /// Where the search for free addresses goes on, under `creating`.
    next_host: AtomicU8,
    /// By service.
    vips: Mutex<BTreeMap<String, Vip>>,
    /// One creation at a time: it changes how fast tasks start.
    creating: tokio::sync::Mutex<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.job.abort();
    }
}

/// A task that runs, as a test sees it.
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
        let options = Options {
            tcp: Some(cluster.stand_in_addr()),
            nodes: 3,
            timing: Timing { start: None, stop: None },
            seed: fastrand::u64(..),
            ..Options::default()
        };
        let stand_in = StandIn::start(options).await.context("start the stand-in for Docker")?;
        let agent = Agent::default();
        agent.set_stop_delay(STOP_DELAY);
        let job = tokio::spawn(agent.clone().run(stand_in.clone()));
        let shared = Shared {
            stand_in,
            agent,
            job,
            network: cluster.place().ip(0),
            next_host: AtomicU8::new(TASK_HOSTS),
            vips: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
        };
        let swarm = Self { shared: Arc::new(shared) };
        for (host, node) in (NODE_HOSTS..).zip(swarm.stand_in().model().nodes.keys()) {
            let address = swarm.address(host);
            swarm.stand_in().update_node(node, |node| node.address = address)?;
        }
        Ok(swarm)
    }

    fn vips(&self) -> MutexGuard<'_, BTreeMap<String, Vip>> {
        self.shared.vips.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stand-in itself, for its faults.
    pub fn stand_in(&self) -> &StandIn {
        &self.shared.stand_in
    }

    /// How long containers outlive the decision to stop them, from now on.
    pub fn set_stop_delay(&self, delay: Duration) {
        self.shared.agent.set_stop_delay(delay);
    }

    /// Creates a service with all its tasks running from the first moment, so that what
    /// is timed from the returned event on is the router's share alone.
    ///
    /// One whose tasks are reached at a port of their machine starts as on a real Swarm.
    pub async fn create(&self, config: ServiceConfig) -> anyhow::Result<Instant> {
        let _creating = self.shared.creating.lock().await;
        let Shared { stand_in, agent, .. } = &*self.shared;
        let (name, replicas) = (config.name.clone(), usize::from(config.replicas));
        agent.configure(&name, config.upstream.clone());
        if config.host_port.is_some() {
            stand_in.create_service(config.spec(None, Vec::new()))?;
            let created = Instant::now();
            self.converged(&name).await?;
            return Ok(created);
        }
        let mut addresses = self.free_addresses(1 + SERVICE_HOSTS.max(2 * replicas));
        let vip = addresses.pop().context("no address is left")?;
        for address in addresses.iter().take(replicas) {
            agent.make_ready(&name, SocketAddr::new(*address, UPSTREAM_PORT)).await?;
        }
        let served = SocketAddr::new(vip, UPSTREAM_PORT);
        let served = Vip::serve(stand_in.clone(), name.clone(), served).await?;
        self.vips().insert(name, served);
        stand_in.set_timing(Timing { start: Some(Duration::ZERO), stop: None });
        let created = stand_in.create_service(config.spec(Some(vip), addresses));
        let event = Instant::now();
        stand_in.set_timing(Timing { start: None, stop: None });
        created?;
        Ok(event)
    }

    /// Changes the labels of a service.
    pub async fn relabel(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
    ) -> anyhow::Result<Instant> {
        self.shared.stand_in.update_service(name, |spec| spec.labels = labels)?;
        Ok(Instant::now())
    }

    /// Removes a service, and waits for nothing.
    pub fn discard(&self, name: &str) -> anyhow::Result<()> {
        self.vips().remove(name);
        Ok(self.shared.stand_in.remove_service(name)?)
    }

    /// Removes a service; returns when its last task is dead.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let stand_in = &self.shared.stand_in;
        let id = stand_in.model().service(name).map(|service| service.id.clone());
        let id = id.with_context(|| format!("no service {name}"))?;
        self.discard(name)?;
        self.wait(&format!("{name} is gone"), |model| model.tasks_of(&id).is_empty()).await
    }

    /// Scales a service and returns when it has converged.
    pub async fn scale(&self, name: &str, replicas: u8) -> anyhow::Result<()> {
        self.shared.stand_in.scale(name, u64::from(replicas))?;
        self.converged(name).await
    }

    /// A rolling update, one task after the other; returns when it is done.
    pub async fn update(&self, name: &str, order: UpdateOrder) -> anyhow::Result<()> {
        let order = match order {
            UpdateOrder::StopFirst => Order::StopFirst,
            UpdateOrder::StartFirst => Order::StartFirst,
        };
        let rolling = Rolling { order, ..Rolling::default() };
        let update = self.shared.stand_in.rolling_update(name, rolling);
        tokio::time::timeout(CONVERGE_DEADLINE, update)
            .await
            .with_context(|| format!("the update of {name} takes too long"))??;
        self.converged(name).await
    }

    /// Waits until a service has all the tasks that it should, and no other alive.
    pub async fn converged(&self, name: &str) -> anyhow::Result<()> {
        self.wait(&format!("{name} has converged"), |model| {
            let Some(service) = model.service(name) else { return false };
            let tasks = model.tasks_of(&service.id);
            let wanted = tasks.iter().filter(|task| task.wanted()).count();
            let alive = tasks.iter().filter(|task| !task.ended()).count();
            let run = tasks.iter().filter(|task| task.runs()).count();
            wanted == alive && run == alive && u64::try_from(run) == Ok(service.spec.replicas)
        })
        .await
    }

    async fn wait(
        &self,
        what: &str,
        wanted: impl FnMut(&dovetail_stand_in::Model) -> bool,
    ) -> anyhow::Result<()> {
        let waited = self.shared.stand_in.wait_until(wanted);
        tokio::time::timeout(CONVERGE_DEADLINE, waited)
            .await
            .with_context(|| format!("not within {CONVERGE_DEADLINE:?}: {what}"))
    }

    /// The tasks of a service that run and are to run, by slot.
    pub fn tasks(&self, name: &str) -> Vec<TaskView> {
        let tasks = self.shared.stand_in.tasks(name);
        let running = tasks.iter().filter(|task| task.wanted() && task.runs());
        let view = |task: &Arc<dovetail_stand_in::Task>| {
            let (name, addr) = self.shared.agent.container(&task.id)?;
            Some(TaskView { id: task.id.clone(), slot: task.slot, name, addr })
        };
        running.filter_map(view).collect()
    }

    /// How many requests reached a task, for as long as it runs.
    pub fn requests(&self, task: &TaskView) -> Option<u64> {
        self.shared.agent.requests(&task.id)
    }

    /// Answers every request to a task with `status` from now on; `None` ends that.
    pub fn set_status(&self, task: &TaskView, status: Option<u16>) {
        self.shared.agent.set_status(&task.id, status);
    }

    /// Kills what runs in a task, of which Swarm hears nothing.
    pub async fn crash(&self, task: &TaskView) {
        self.shared.agent.crash(&task.id).await;
    }

    /// So many addresses that nothing has, or as many as there are.
    ///
    /// They go round: whatever listened on one that became free has time to end.
    fn free_addresses(&self, count: usize) -> Vec<IpAddr> {
        let model = self.shared.stand_in.model();
        let of_tasks = model.tasks.values().flat_map(|task| &task.addresses).map(|(_, ip)| *ip);
        let of_services = model
            .services
            .values()
            .flat_map(|service| service.spec.addresses.iter().copied().chain(service.spec.vip));
        let taken: BTreeSet<IpAddr> = of_tasks.chain(of_services).collect();
        let next = self.shared.next_host.load(Ordering::Relaxed);
        let hosts = (next..=HOST_MAX).chain(TASK_HOSTS..next);
        let free = hosts.filter(|host| !taken.contains(&self.address(*host)));
        let chosen: Vec<u8> = free.take(count).collect();
        if let Some(last) = chosen.last() {
            let next = if *last < HOST_MAX { last + 1 } else { TASK_HOSTS };
            self.shared.next_host.store(next, Ordering::Relaxed);
        }
        chosen.into_iter().map(|host| self.address(host)).collect()
    }

    fn address(&self, host: u8) -> IpAddr {
        match self.shared.network {
            IpAddr::V4(network) => {
                let [a, b, c, _] = network.octets();
                IpAddr::from([a, b, c, host])
            }
            network => network,
        }
    }
}
