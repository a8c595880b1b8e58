//! The stand-in from inside the process: what a script does to the Swarm.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::change::{Draft, Timer};
use crate::engine::Bodies;
use crate::events::Event;
use crate::faults::{Fault, FaultRule, Faults};
use crate::model::{Model, Node, Task};
use crate::server::Listeners;
use crate::spec::{NETWORK_DEFAULT, ServiceSpec, TaskState, Timing};

/// Models kept for stale answers.
const HISTORY_MAX: usize = 128;
/// Events kept for `--since`, as many as the engine keeps.
const RING_MAX: usize = 256;
/// Events that a subscriber may lag behind before it loses some.
const SUBSCRIBER_MAX: usize = 1_024;

/// How a stand-in starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port 0 is a free one.
    pub tcp: Option<SocketAddr>,
    pub unix: Option<PathBuf>,
    /// The newest and the oldest API version that it claims to speak.
    pub api: (u32, u32),
    pub api_min: (u32, u32),
    /// Ids follow from it, the swarm's own too.
    pub seed: u64,
    /// How many swarm nodes there are, at least one; all are managers.
    pub nodes: u8,
    pub timing: Timing,
}

impl Default for Options {
    /// One node, a free port on loopback, API 1.41 as Debian's engine.
    fn default() -> Self {
        Self {
            tcp: Some((Ipv4Addr::LOCALHOST, 0).into()),
            unix: None,
            api: (1, 41),
            api_min: (1, 12),
            seed: 1,
            nodes: 1,
            timing: Timing::default(),
        }
    }
}

/// Why a script's wish was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StandInError {
    #[error("{kind} {name} not found")]
    NotFound { kind: &'static str, name: String },
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Invalid(String),
    /// Time has overtaken the change.
    #[error("nothing to change")]
    Unchanged,
}

/// A running stand-in. Clones are the same one; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct StandIn {
    inner: Arc<Inner>,
    /// Absent in its own jobs, which must not keep it alive.
    _guard: Option<Arc<Guard>>,
}

#[derive(Debug)]
struct Guard(CancellationToken);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) model: watch::Sender<Arc<Model>>,
    pub(crate) events: broadcast::Sender<Arc<Event>>,
    pub(crate) faults: Faults,
    pub(crate) ended: CancellationToken,
    pub(crate) jobs: TaskTracker,
    pub(crate) listeners: tokio::sync::Mutex<Listeners>,
    runtime: tokio::runtime::Handle,
    state: Mutex<State>,
    requests: Mutex<BTreeMap<String, u64>>,
    bodies: Bodies,
}

#[derive(Debug)]
struct State {
    timing: Timing,
    history: VecDeque<Arc<Model>>,
    ring: VecDeque<Arc<Event>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StandIn {
    /// Listens, with an empty swarm of `options.nodes` nodes, the ingress network
    /// and the network `demo`.
    pub async fn start(options: Options) -> io::Result<Self> {
        let mut model = Model::new(options.seed);
        let mut draft = Draft {
            model: &mut model,
            timing: options.timing,
            events: Vec::new(),
            timers: Vec::new(),
        };
        let fits = |error: StandInError| io::Error::other(error);
        draft.add_network("ingress", true).map_err(fits)?;
        draft.add_network(NETWORK_DEFAULT, false).map_err(fits)?;
        for number in 1..=options.nodes.max(1) {
            let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, number));
            draft.add_node(&format!("stand-in-{number}"), true, address).map_err(fits)?;
        }
        let timing = options.timing;
        let ended = CancellationToken::new();
        let inner = Arc::new(Inner {
            listeners: tokio::sync::Mutex::new(Listeners::new(&options)),
            options,
            model: watch::Sender::new(Arc::new(model)),
            events: broadcast::Sender::new(SUBSCRIBER_MAX),
            faults: Faults::default(),
            ended: ended.clone(),
            jobs: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            state: Mutex::new(State { timing, history: VecDeque::new(), ring: VecDeque::new() }),
            requests: Mutex::default(),
            bodies: Bodies::default(),
        });
        let stand_in = Self { inner, _guard: Some(Arc::new(Guard(ended))) };
        stand_in.back().await?;
        Ok(stand_in)
    }

    /// Ends listeners and connections, and waits for that.
    pub async fn stop(self) {
        self.away().await;
        self.inner.ended.cancel();
        self.inner.jobs.close();
        self.inner.jobs.wait().await;
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn bodies(&self) -> &Bodies {
        &self.inner.bodies
    }

    /// A clone for its own jobs.
    pub(crate) fn unguarded(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), _guard: None }
    }

    /// Runs `work` until it ends or the stand-in does.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let ended = self.inner.ended.clone();
        let work = async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = work => {}
            }
        };
        self.inner.runtime.spawn(self.inner.jobs.track_future(work));
    }

    // ---- what it is ----

    /// Its TCP address, if it has one.
    pub async fn address(&self) -> Option<SocketAddr> {
        self.inner.listeners.lock().await.tcp
    }

    /// What `docker -H` and `--docker` take.
    pub async fn url(&self) -> String {
        let listeners = self.inner.listeners.lock().await;
        match (listeners.tcp, &listeners.unix) {
            (Some(address), _) => format!("tcp://{address}"),
            (None, Some(path)) => format!("unix://{}", path.display()),
            (None, None) => String::new(),
        }
    }

    /// The Swarm as it is now.
    pub fn model(&self) -> Arc<Model> {
        self.inner.model.borrow().clone()
    }

    /// Waits until the Swarm is as `wanted` says.
    pub async fn wait_until(&self, mut wanted: impl FnMut(&Model) -> bool) {
        let mut model = self.inner.model.subscribe();
        // The sender lives as long as `self`.
        _ = model.wait_for(|model| wanted(model)).await;
    }

    /// The tasks of a service, by slot.
    pub fn tasks(&self, service: &str) -> Vec<Arc<Task>> {
        let model = self.model();
        let Some(service) = model.service(service) else { return Vec::new() };
        model.tasks_of(&service.id).into_iter().cloned().collect()
    }

    /// How often `path` (without version; `/services/{id}` for one object) was asked for.
    pub fn requests(&self, path: &str) -> u64 {
        locked(&self.inner.requests).get(path).copied().unwrap_or_default()
    }

    /// All counts of requests so far.
    pub fn request_counts(&self) -> BTreeMap<String, u64> {
        locked(&self.inner.requests).clone()
    }

    pub(crate) fn count_request(&self, path: &str) {
        *locked(&self.inner.requests).entry(path.to_owned()).or_default() += 1;
    }

    pub(crate) fn ring(&self) -> Vec<Arc<Event>> {
        locked(&self.inner.state).ring.iter().cloned().collect()
    }

    /// The model as it was `changes` changes ago, or as long ago as is kept.
    pub(crate) fn model_before(&self, changes: usize) -> Arc<Model> {
        let state = locked(&self.inner.state);
        let position = state.history.len().saturating_sub(changes);
        state.history.get(position).cloned().unwrap_or_else(|| self.model())
    }

    // ---- what happens to the Swarm ----

    /// Makes one change: a new model, then its events, then what time will do.
    pub(crate) fn change<T>(
        &self,
        make: impl FnOnce(&mut Draft<'_>) -> Result<T, StandInError>,
    ) -> Result<T, StandInError> {
        let (made, timers, timing) = {
            let mut state = locked(&self.inner.state);
            let before = self.model();
            let mut model = Model::clone(&before);
            model.index += 1;
            let mut draft = Draft {
                model: &mut model,
                timing: state.timing,
                events: Vec::new(),
                timers: Vec::new(),
            };
            let made = make(&mut draft)?;
            let (events, timers) = (draft.events, draft.timers);
            if state.history.len() == HISTORY_MAX {
                state.history.pop_front();
            }
            state.history.push_back(before);
            self.inner.model.send_replace(Arc::new(model));
            for event in events {
                self.publish(&mut state, event);
            }
            (made, timers, state.timing)
        };
        self.begin(timers, timing);
        Ok(made)
    }

    /// Sets timers off. Apart from [`Self::change`], whose type parameters it must not repeat.
    fn begin(&self, timers: Vec<(Timer, String)>, timing: Timing) {
        for (timer, task) in timers {
            let after = match timer {
                Timer::Start => timing.start,
                Timer::Stop => timing.stop,
            };
            if let Some(after) = after {
                let stand_in = self.unguarded();
                self.spawn(async move {
                    tokio::time::sleep(after).await;
                    // A script may have been faster.
                    _ = stand_in.change(|draft| draft.expire(timer, &task));
                });
            }
        }
    }

    fn publish(&self, state: &mut State, event: Event) {
        if self.inner.faults.on("/events").contains(&Fault::DropEvents) {
            return;
        }
        let event = Arc::new(event);
        if state.ring.len() == RING_MAX {
            state.ring.pop_front();
        }
        state.ring.push_back(Arc::clone(&event));
        // Nobody may be listening.
        _ = self.inner.events.send(event);
    }

    /// Emits an event that nothing stands behind, such as one of a container.
    pub fn emit(&self, event: Event) {
        self.publish(&mut locked(&self.inner.state), event);
    }

    /// How fast tasks start and stop from now on.
    pub fn set_timing(&self, timing: Timing) {
        locked(&self.inner.state).timing = timing;
    }

    /// Returns the service's id.
    pub fn create_service(&self, spec: ServiceSpec) -> Result<String, StandInError> {
        self.change(|draft| draft.create_service(spec))
    }

    /// Creates many services as one change: each change copies what there is.
    pub fn create_services(
        &self,
        specs: impl IntoIterator<Item = ServiceSpec>,
    ) -> Result<(), StandInError> {
        self.change(|draft| {
            specs.into_iter().try_for_each(|one| draft.create_service(one).map(drop))
        })
    }

    /// Edits a service's spec. Running tasks stay: see [`StandIn::rolling_update`].
    pub fn update_service(
        &self,
        name: &str,
        edit: impl FnOnce(&mut ServiceSpec),
    ) -> Result<(), StandInError> {
        self.change(|draft| draft.update_service(name, edit))
    }

    /// Sets one label of a service.
    pub fn set_label(&self, name: &str, label: &str, value: &str) -> Result<(), StandInError> {
        self.update_service(name, |spec| _ = spec.labels.insert(label.into(), value.into()))
    }

    pub fn scale(&self, name: &str, replicas: u64) -> Result<(), StandInError> {
        self.update_service(name, |spec| spec.replicas = replicas)
    }

    pub fn remove_service(&self, name: &str) -> Result<(), StandInError> {
        self.change(|draft| draft.remove_service(name))
    }

    /// Sets `UpdateStatus`.
    pub fn set_update_status(&self, name: &str, state: &str) -> Result<(), StandInError> {
        self.change(|draft| draft.set_update_status(name, state, "set by a script"))
    }

    /// What Swarm wants of a task; it stops by itself as [`Timing`] says.
    pub fn set_task_desired(&self, task: &str, desired: TaskState) -> Result<(), StandInError> {
        self.change(|draft| draft.set_desired(task, desired))
    }

    /// What the machine says of a task.
    pub fn set_task_state(&self, task: &str, state: TaskState) -> Result<(), StandInError> {
        self.change(|draft| draft.set_state(task, state))
    }

    /// Crashes a task; returns the id of the one that takes its slot.
    pub fn fail_task(&self, task: &str) -> Result<String, StandInError> {
        self.change(|draft| draft.fail_task(task))
    }

    /// Takes a task off the lists at once, as Swarm's history does with old ones.
    pub fn remove_task(&self, task: &str) -> Result<(), StandInError> {
        self.change(|draft| draft.remove_task(task))
    }

    /// Returns the network's id.
    pub fn add_network(&self, name: &str) -> Result<String, StandInError> {
        self.change(|draft| draft.add_network(name, false))
    }

    pub fn remove_network(&self, name: &str) -> Result<(), StandInError> {
        self.change(|draft| draft.remove_network(name))
    }

    /// Returns the node's id.
    pub fn add_node(
        &self,
        hostname: &str,
        manager: bool,
        address: IpAddr,
    ) -> Result<String, StandInError> {
        self.change(|draft| draft.add_node(hostname, manager, address))
    }

    pub fn update_node(
        &self,
        name: &str,
        edit: impl FnOnce(&mut Node),
    ) -> Result<(), StandInError> {
        self.change(|draft| draft.update_node(name, edit))
    }

    /// The node is down. Swarm gives its tasks to others later: [`StandIn::reschedule`].
    pub fn node_down(&self, name: &str) -> Result<(), StandInError> {
        self.update_node(name, |node| node.state = "down".to_owned())
    }

    /// The node's tasks are to stop, and others take their slots elsewhere.
    pub fn reschedule(&self, name: &str) -> Result<(), StandInError> {
        self.change(|draft| draft.reschedule(name))
    }

    pub fn remove_node(&self, name: &str) -> Result<(), StandInError> {
        self.change(|draft| draft.remove_node(name))
    }

    pub fn add_secret(&self, name: &str) -> String {
        self.change(|draft| Ok(draft.add_named(true, name))).unwrap_or_default()
    }

    pub fn remove_secret(&self, name: &str) -> Result<(), StandInError> {
        self.change(|draft| draft.remove_named(true, name))
    }

    pub fn add_config(&self, name: &str) -> String {
        self.change(|draft| Ok(draft.add_named(false, name))).unwrap_or_default()
    }

    pub fn remove_config(&self, name: &str) -> Result<(), StandInError> {
        self.change(|draft| draft.remove_named(false, name))
    }

    /// The engine is in another swarm from now on.
    pub fn become_swarm(&self, id: &str) {
        _ = self.change(|draft| {
            draft.become_swarm(id);
            Ok(())
        });
    }

    // ---- what goes wrong ----

    /// Requests whose path begins with `path` (empty: all) meet `fault` until [`StandIn::heal`].
    pub fn fault(&self, path: &str, fault: Fault) {
        self.inner.faults.add(path, fault, None);
    }

    /// The same, for a time.
    pub fn fault_for(&self, path: &str, fault: Fault, lasts: Duration) {
        self.inner.faults.add(path, fault, Some(lasts));
    }

    /// Ends every fault but being away.
    pub fn heal(&self) {
        self.inner.faults.clear();
    }

    /// The faults in force.
    pub fn faults(&self) -> Arc<[FaultRule]> {
        self.inner.faults.rules()
    }

    /// The engine is gone: its listeners and all connections are closed.
    pub async fn away(&self) {
        self.inner.listeners.lock().await.close().await;
    }

    /// The engine listens again where it did. Nothing happens if it never left.
    pub async fn back(&self) -> io::Result<()> {
        let mut listeners = self.inner.listeners.lock().await;
        listeners.open(&self.unguarded()).await
    }
}
