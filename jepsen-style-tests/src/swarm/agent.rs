//! What Swarm's machines do: start what is to run, kill what is to stop, and say so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use dovetail_stand_in::{StandIn, Task, TaskState};
use tokio::task::JoinSet;

use super::UPSTREAM_PORT;
use crate::upstream::{Upstream, UpstreamConfig};

/// From one state of a starting task to the next.
const START_STEP: Duration = Duration::from_millis(40);
/// How long a dead task stays in the lists.
const HISTORY: Duration = Duration::from_secs(5);

/// The containers of all machines. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Agent {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    containers: Mutex<Containers>,
    /// What runs in the tasks of each service.
    configs: Mutex<BTreeMap<String, UpstreamConfig>>,
    /// Numbers containers, so that no two answer with one name.
    number: AtomicU64,
    /// From the mark to the container's death, in milliseconds.
    stop_delay_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Containers {
    /// By task.
    running: BTreeMap<String, Upstream>,
    /// Up before their tasks are.
    ready: BTreeMap<SocketAddr, Upstream>,
}

impl Agent {
    /// From the mark to the container's death.
    pub(super) fn set_stop_delay(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.shared.stop_delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    fn stop_delay(&self) -> Duration {
        Duration::from_millis(self.shared.stop_delay_ms.load(Ordering::Relaxed))
    }

    fn containers(&self) -> MutexGuard<'_, Containers> {
        self.shared.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What runs in the tasks of `service` that are started from now on.
    pub(super) fn configure(&self, service: &str, config: UpstreamConfig) {
        let mut configs = self.shared.configs.lock().unwrap_or_else(PoisonError::into_inner);
        configs.insert(service.to_owned(), config);
    }

    fn config(&self, service: &str) -> UpstreamConfig {
        let configs = self.shared.configs.lock().unwrap_or_else(PoisonError::into_inner);
        configs.get(service).cloned().unwrap_or_default()
    }

    async fn start_upstream(&self, service: &str, addr: SocketAddr) -> anyhow::Result<Upstream> {
        let number = self.shared.number.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{service}.{number}");
        let upstream = Upstream::start_with(self.config(service), &name, addr).await;
        upstream.with_context(|| format!("{name} on {addr}"))
    }

    /// Starts what a task of `service` on `addr` will find running.
    pub(super) async fn make_ready(&self, service: &str, addr: SocketAddr) -> anyhow::Result<()> {
        let upstream = self.start_upstream(service, addr).await?;
        self.containers().ready.insert(addr, upstream);
        Ok(())
    }

    /// The name and the address of what runs in a task.
    pub(super) fn container(&self, task: &str) -> Option<(String, SocketAddr)> {
        let containers = self.containers();
        containers.running.get(task).map(|upstream| (upstream.name().to_owned(), upstream.addr()))
    }

    pub(super) fn requests(&self, task: &str) -> Option<u64> {
        self.containers().running.get(task).map(Upstream::requests)
    }

    pub(super) fn set_status(&self, task: &str, status: Option<u16>) {
        if let Some(upstream) = self.containers().running.get(task) {
            upstream.set_status(status);
        }
    }

    /// Kills a container that Swarm goes on to believe in.
    pub(super) async fn crash(&self, task: &str) {
        let killed = self.containers().running.remove(task);
        if let Some(upstream) = killed {
            upstream.kill().await;
        }
    }

    /// Carries out what the stand-in decides, until it is aborted.
    pub(super) async fn run(self, stand_in: StandIn) {
        // Aborting this job ends them too.
        let mut jobs = JoinSet::new();
        let (mut starting, mut stopping) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let model = stand_in.model();
            for task in model.tasks.values().filter(|task| !task.ended()) {
                let id = &task.id;
                if task.desired == TaskState::Running {
                    if self.container(id).is_none() && starting.insert(id.clone()) {
                        let service = model.services.get(&task.service);
                        let service = service.map_or("gone", |service| &service.spec.name);
                        let service = service.to_owned();
                        let machine = model.nodes.get(&task.node).map(|node| node.address);
                        self.start(&mut jobs, &stand_in, task, service, machine);
                    }
                } else if !task.wanted() && stopping.insert(id.clone()) {
                    self.stop(&mut jobs, &stand_in, task);
                }
            }
            while jobs.try_join_next().is_some() {}
            stand_in.wait_until(|now| now.index > model.index).await;
        }
    }

    fn start(
        &self,
        jobs: &mut JoinSet<()>,
        stand_in: &StandIn,
        task: &Task,
        service: String,
        machine: Option<IpAddr>,
    ) {
        let Some(addr) = address(task, machine) else { return };
        let (agent, stand_in, id) = (self.clone(), stand_in.clone(), task.id.clone());
        let ready = self.containers().ready.remove(&addr);
        if task.runs()
            && let Some(upstream) = ready
        {
            self.containers().running.insert(id, upstream);
            return;
        }
        jobs.spawn(async move {
            for state in [TaskState::Preparing, TaskState::Starting] {
                tokio::time::sleep(START_STEP).await;
                // Its task may be gone by now.
                _ = stand_in.set_task_state(&id, state);
            }
            let state = match agent.start_upstream(&service, addr).await {
                Ok(upstream) => {
                    agent.containers().running.insert(id.clone(), upstream);
                    TaskState::Running
                }
                Err(error) => {
                    tracing::error!(error = %format!("{error:#}"), "task failed");
                    TaskState::Failed
                }
            };
            _ = stand_in.set_task_state(&id, state);
        });
    }

    fn stop(&self, jobs: &mut JoinSet<()>, stand_in: &StandIn, task: &Task) {
        let (agent, stand_in, id) = (self.clone(), stand_in.clone(), task.id.clone());
        jobs.spawn(async move {
            tokio::time::sleep(agent.stop_delay()).await;
            let killed = agent.containers().running.remove(&id);
            if let Some(upstream) = killed {
                upstream.kill().await;
            }
            _ = stand_in.set_task_state(&id, TaskState::Shutdown);
            tokio::time::sleep(HISTORY).await;
            _ = stand_in.remove_task(&id);
        });
    }
}

/// Where what runs in a task listens: on its first network, else at a port of its machine.
fn address(task: &Task, machine: Option<IpAddr>) -> Option<SocketAddr> {
    if let Some((_, address)) = task.addresses.first() {
        return Some(SocketAddr::new(*address, UPSTREAM_PORT));
    }
    Some(SocketAddr::new(machine?, task.host_ports.first()?.published))
}
