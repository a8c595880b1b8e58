//! A Swarm that changes, and what each member's Docker shows of it: late, stale, or not at all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_control::observe::{Observation, Observe};
use dovetail_process::drain::DrainWatch;
use dovetail_routing::fact::{
    Change, DesiredState, EndpointMode, LabelValue, Listing, Network, Scale, Service, SwarmVersion,
    Task, TaskState,
};
use dovetail_routing::names::{NetworkId, ServiceId, SwarmId, SwarmNodeId, TaskId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::believed::Believed;
use super::network::Boot;
use super::plan::{Kind, Sabotage};
use super::world::Shared;

/// A deposed leader of the Swarm knows that it is deposed after less than this; two
/// listings that count as two are further apart.
const STALE_MAX: Duration = Duration::from_millis(1_500);

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    truth: Arc<Listing>,
    /// What it was, oldest first.
    history: VecDeque<Arc<Listing>>,
    /// Every object that ever was.
    gone: BTreeSet<String>,
    version: u64,
    made: u64,
    /// All changes, oldest first: what was, and what it became.
    changes: Vec<(Arc<Listing>, Arc<Listing>)>,
    stale_until: Option<(Instant, Arc<Listing>)>,
    drops_until: Option<Instant>,
    fails_until: Option<Instant>,
    was_restored: bool,
}

/// The Swarm itself.
#[derive(Debug)]
pub(crate) struct Swarm {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Swarm {
    pub(crate) fn new(seed: u64) -> Self {
        let network = Network { id: "n1".into(), name: "apps".into(), ingress: false };
        let truth = Listing {
            swarm: SwarmId::from("swarm-1"),
            networks: BTreeMap::from([(network.id.clone(), network)]),
            ..Listing::default()
        };
        let state = State {
            random: fastrand::Rng::with_seed(seed ^ 0xD0C),
            truth: Arc::new(truth),
            history: VecDeque::new(),
            gone: BTreeSet::new(),
            version: 10,
            made: 0,
            changes: Vec::new(),
            stale_until: None,
            drops_until: None,
            fails_until: None,
            was_restored: false,
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is now.
    pub(crate) fn truth(&self) -> Arc<Listing> {
        Arc::clone(&self.lock().truth)
    }

    /// Whether versions may have gone back, so that a recorded object may be ahead of Docker.
    pub(crate) fn was_restored(&self) -> bool {
        self.lock().was_restored
    }

    /// Services and tasks come, go and change; returns what is gone.
    pub(crate) fn change(&self) -> Vec<String> {
        let mut state = self.lock();
        let before = Arc::clone(&state.truth);
        let mut listing = Listing::clone(&before);
        state.version += 1;
        let version = SwarmVersion(state.version);
        let services: Vec<ServiceId> = listing.services.keys().cloned().collect();
        let choice = state.random.u8(0..10);
        match state.random.choice(&services).cloned() {
            Some(id) if choice < 3 => scale(&mut state, &mut listing, &id, version),
            Some(id) if choice < 6 => update(&mut state, &mut listing, &id, version),
            Some(id) if choice == 6 || services.len() > 6 => {
                listing.services.remove(&id);
                listing.tasks.retain(|_, task| task.service != id);
            }
            _ => create(&mut state, &mut listing, version),
        }
        let gone = state.replace(before, listing);
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
        gone
    }

    /// The Swarm is made anew from an old backup; returns what is gone.
    pub(crate) fn restore(&self) -> Option<Vec<String>> {
        let mut state = self.lock();
        let length = state.history.len().checked_sub(1)?;
        let back = state.random.usize(0..=length);
        let mut old = Listing::clone(&state.history[back]);
        // What went meanwhile would come back under its id, which Docker's ids do; but the
        // checks take an id that is gone as gone for good.
        let gone = state.gone.clone();
        old.services.retain(|id, _| !gone.contains(&id.to_string()));
        let services: BTreeSet<_> = old.services.keys().cloned().collect();
        old.tasks
            .retain(|id, task| services.contains(&task.service) && !gone.contains(&id.to_string()));
        let before = Arc::clone(&state.truth);
        let gone = state.replace(before, old);
        state.was_restored = true;
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
        Some(gone)
    }

    /// A manager that was deposed shows for a while what it knew.
    pub(crate) fn be_stale(&self) {
        let mut state = self.lock();
        let Some(length) = state.history.len().checked_sub(1) else { return };
        let back = state.random.usize(length.saturating_sub(5)..=length);
        let old = Arc::clone(&state.history[back]);
        let until = Instant::now() + STALE_MAX.mul_f64(state.random.f64());
        state.stale_until = Some((until, old));
    }

    pub(crate) fn drop_events(&self, length: Duration) {
        self.lock().drops_until = Some(Instant::now() + length);
    }

    pub(crate) fn fail(&self, length: Duration) {
        self.lock().fails_until = Some(Instant::now() + length);
    }

    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        (state.stale_until, state.drops_until, state.fails_until) = (None, None, None);
    }

    /// What a look shows: the error of an engine that does not answer.
    fn look(&self, world: &Shared) -> Result<Arc<Listing>, String> {
        let state = self.lock();
        let now = Instant::now();
        if state.fails_until.is_some_and(|until| now < until) {
            world.count(Kind::DockerFails);
            return Err("the engine does not answer".to_owned());
        }
        match &state.stale_until {
            Some((until, old)) if now < *until => {
                world.count(Kind::DockerIsStale);
                if world.plan.is_sabotaged(Sabotage::LowerVersion) {
                    return Ok(Arc::new(as_if_newest(old, SwarmVersion(state.version))));
                }
                Ok(Arc::clone(old))
            }
            _ => Ok(Arc::clone(&state.truth)),
        }
    }

    /// All that has changed so far, oldest first.
    pub(super) fn changes(&self) -> Vec<(Arc<Listing>, Arc<Listing>)> {
        self.lock().changes.clone()
    }

    fn drops_events(&self) -> bool {
        self.lock().drops_until.is_some_and(|until| Instant::now() < until)
    }
}

impl State {
    fn replace(&mut self, before: Arc<Listing>, after: Listing) -> Vec<String> {
        let mut gone = Vec::new();
        for id in before.services.keys().filter(|id| !after.services.contains_key(*id)) {
            gone.push(id.to_string());
        }
        for id in before.tasks.keys().filter(|id| !after.tasks.contains_key(*id)) {
            gone.push(id.to_string());
        }
        self.gone.extend(gone.iter().cloned());
        let after = Arc::new(after);
        self.changes.push((Arc::clone(&before), Arc::clone(&after)));
        self.history.push_back(before);
        if self.history.len() > 30 {
            self.history.pop_front();
        }
        self.truth = after;
        gone
    }
}

/// What whoever ignores versions takes an old listing for.
fn as_if_newest(old: &Listing, version: SwarmVersion) -> Listing {
    let mut listing = old.clone();
    listing.services.values_mut().for_each(|service| service.version = version);
    listing.tasks.values_mut().for_each(|task| task.version = version);
    listing
}

fn create(state: &mut State, listing: &mut Listing, version: SwarmVersion) {
    state.made += 1;
    let name = format!("app{}", state.made);
    let id = ServiceId::from(name.as_str());
    listing.services.insert(id.clone(), service(state, &id, &name, version));
    scale(state, listing, &id, version);
}

fn service(state: &mut State, id: &ServiceId, name: &str, version: SwarmVersion) -> Service {
    let text = |value: String| LabelValue::Text(value.into());
    // Few hosts, so that services compete for routes.
    let host = format!("h{}.example", state.random.u8(0..4));
    let mut labels = BTreeMap::from([
        ("com.docker.lb.hosts".into(), text(host)),
        ("com.docker.lb.port".into(), text("8080".to_owned())),
        ("com.docker.lb.network".into(), text("apps".to_owned())),
    ]);
    match state.random.u8(0..6) {
        0 => {
            labels.insert("com.docker.lb.port".into(), text("nonsense".to_owned()));
        }
        1 => {
            labels.insert("com.docker.lb.context_root".into(), text("/api".to_owned()));
        }
        _ => {}
    }
    Service {
        id: id.clone(),
        version,
        name: name.into(),
        created_at: format!("2026-11-01T00:00:{:02}Z", state.made % 60).into(),
        labels,
        networks: vec![NetworkId::from("n1")],
        vips: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
        host_ports: Vec::new(),
        scale: Scale::Replicated(3),
        update_state: "".into(),
    }
}

fn update(state: &mut State, listing: &mut Listing, id: &ServiceId, version: SwarmVersion) {
    let changed = service(state, id, id.as_str(), version);
    let Some(known) = listing.services.get_mut(id) else { return };
    let created_at = Arc::clone(&known.created_at);
    *known = Service { created_at, ..changed };
    if state.random.bool() {
        // A rolling update gives it new tasks.
        listing.tasks.retain(|_, task| task.service != *id);
        scale(state, listing, id, version);
    }
}

fn scale(state: &mut State, listing: &mut Listing, id: &ServiceId, version: SwarmVersion) {
    let wanted = state.random.u64(0..4);
    for slot in 1..=4 {
        let of_slot = |task: &Task| task.service == *id && task.slot == slot;
        if slot > wanted {
            listing.tasks.retain(|_, task| !of_slot(task));
            continue;
        }
        if let Some(task) = listing.tasks.values_mut().find(|task| of_slot(task)) {
            task.version = version;
            task.state =
                if state.random.u8(0..4) == 0 { TaskState::Ended } else { TaskState::Running };
            continue;
        }
        state.made += 1;
        let number = state.made;
        let address = [10, 1, (number / 250) as u8, (number % 250) as u8];
        let task = Task {
            id: TaskId::from(format!("t{number}").as_str()),
            version,
            service: id.clone(),
            slot,
            node: SwarmNodeId::from("m1"),
            desired: DesiredState::Running,
            state: TaskState::Running,
            addresses: vec![(NetworkId::from("n1"), address.into())],
            host_ports: Vec::new(),
        };
        listing.tasks.insert(task.id.clone(), task);
    }
}

/// One member's Docker.
#[derive(Debug)]
pub(crate) struct SimDocker {
    world: Shared,
    boot: Boot,
    seen: watch::Sender<Option<Arc<Observation>>>,
    wanted: tokio::sync::Notify,
    active: AtomicBool,
    sequence: AtomicU64,
    /// What whoever trusts events believes.
    believed: Mutex<Believed>,
}

impl SimDocker {
    pub(crate) fn start(world: Shared, boot: Boot, drain: &DrainWatch) -> Arc<Self> {
        let docker = Arc::new(Self {
            world,
            boot,
            seen: watch::Sender::new(None),
            wanted: tokio::sync::Notify::new(),
            active: AtomicBool::new(false),
            sequence: AtomicU64::new(0),
            believed: Mutex::default(),
        });
        drain.spawn(Arc::clone(&docker).run(drain.clone()));
        docker
    }

    async fn run(self: Arc<Self>, drain: DrainWatch) {
        let mut changed = self.world.swarm.changed.subscribe();
        loop {
            let idle = if self.active.load(Ordering::Relaxed) { 500..1_500 } else { 3_000..6_000 };
            let pause = Duration::from_millis(self.world.random().u64(idle));
            tokio::select! {
                biased;
                () = drain.begun() => return,
                () = self.wanted.notified() => {}
                hint = changed.changed() => {
                    if hint.is_err() {
                        return;
                    }
                    if self.world.swarm.drops_events() {
                        self.world.count(Kind::DockerDropsEvents);
                        self.believed().miss(&self.world.swarm.changes());
                        continue;
                    }
                }
                () = sleep(pause) => {}
            }
            let _ = timeout(Duration::from_secs(5), self.look_now()).await;
        }
    }

    fn believed(&self) -> MutexGuard<'_, Believed> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there, by a listing, or by what events said since the first one.
    fn listing(&self) -> Result<Arc<Listing>, String> {
        let swarm = &self.world.swarm;
        if !self.world.plan.is_sabotaged(Sabotage::EventsAlone) {
            return swarm.look(&self.world);
        }
        let told = self.believed().told(&swarm.changes());
        told.map_or_else(|| Ok(self.believed().listed(swarm.look(&self.world)?)), Ok)
    }

    async fn look_now(&self) {
        let began = Instant::now();
        self.world.pause(1..40).await;
        let Ok(listing) = self.listing() else { return };
        self.world.trace.hash(format_args!("docker of {:?} listed", self.boot));
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let events = Vec::new();
        let observation = Observation { listing, full: true, sequence, began, events };
        self.seen.send_replace(Some(Arc::new(observation)));
    }
}

impl Observe for SimDocker {
    fn observations(&self) -> watch::Receiver<Option<Arc<Observation>>> {
        self.seen.subscribe()
    }

    async fn exists(&self, removed: &Change) -> Result<bool, String> {
        self.world.pause(1..40).await;
        if self.world.plan.is_sabotaged(Sabotage::FirstAbsence) {
            return Ok(false);
        }
        self.world.swarm.look(&self.world)?;
        let truth = self.world.swarm.truth();
        Ok(match removed {
            Change::ServiceGone(id) => truth.services.contains_key(id),
            Change::TaskGone(id) => truth.tasks.contains_key(id),
            Change::NetworkGone(id) => truth.networks.contains_key(id),
            other => return Err(format!("asked for {other:?}")),
        })
    }

    fn look(&self) {
        self.wanted.notify_one();
    }

    fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
        if active {
            self.wanted.notify_one();
        }
    }

    fn age(&self) -> Option<Duration> {
        self.seen.borrow().as_ref().map(|seen| seen.began.elapsed())
    }

    fn error(&self) -> Option<String> {
        None
    }
}
