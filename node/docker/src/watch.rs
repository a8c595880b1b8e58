//! Keeps looking at the Swarm, and tells what it saw as a level.
//!
//! Two loops share one [`Cadence`]: one keeps a subscription to events and turns
//! them into wishes to look, the other looks. A look that fails leaves the last
//! listing where it is: not to have looked is not to have seen nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_routing::fact::{DockerEvent, Listing};
use dovetail_routing::names::ServiceId;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cadence::{Cadence, Depth, WatchConfig, converging, orphans};
use crate::client::{Docker, Listed, Unreadable};
use crate::error::{DockerError, chain};
use crate::{events, telemetry};

/// Hints kept until the next look; what is older is dropped, being a hint.
const EVENTS_MAX: usize = 1_000;
/// Unreadable objects that an error names one by one.
const NAMED_MAX: usize = 3;
/// Pauses between attempts to subscribe.
const SUBSCRIBE_AGAIN_MIN: Duration = Duration::from_millis(100);
const SUBSCRIBE_AGAIN_MAX: Duration = Duration::from_secs(2);

/// What one round saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Everything known now. The same `Arc` as before when nothing differs.
    pub listing: Arc<Listing>,
    /// Services, tasks, swarm nodes and networks were all listed in this round.
    /// Otherwise tasks alone were, and the rest is of an earlier round.
    pub full: bool,
    /// Counts rounds, from 1.
    pub sequence: u64,
    /// When the round began: the listing is not older.
    pub taken_at: Instant,
    /// Hints since the last round.
    pub events: Vec<DockerEvent>,
}

/// How the watching goes.
#[derive(Clone, Debug, Default)]
pub struct DockerHealth {
    /// When the last round that succeeded began.
    pub last_success: Option<Instant>,
    /// What is wrong now: no listing, no event stream, or unreadable objects.
    pub error: Option<String>,
    pub api_version: Option<String>,
}

/// Watches one engine.
#[derive(Debug)]
pub struct Watcher {
    config: WatchConfig,
    docker: Docker,
    shared: Arc<Shared>,
    seen: watch::Sender<Option<Seen>>,
    health: watch::Sender<DockerHealth>,
}

/// A running [`Watcher`], from outside. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WatchHandle {
    shared: Arc<Shared>,
    seen: watch::Receiver<Option<Seen>>,
    health: watch::Receiver<DockerHealth>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The cadence changed, so what is due may be due earlier.
    wake: Notify,
}

#[derive(Debug)]
struct State {
    cadence: Cadence,
    events: Vec<DockerEvent>,
    /// Why there is no event stream.
    stream_error: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.wake.notify_one();
    }
}

impl WatchConfig {
    /// A watcher that begins when it is run.
    pub fn build(self, docker: Docker) -> (Watcher, WatchHandle) {
        let cadence = Cadence::new(self.clone(), Instant::now());
        let state = State { cadence, events: Vec::new(), stream_error: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() });
        let (seen, seen_receiver) = watch::channel(None);
        let (health, health_receiver) = watch::channel(DockerHealth::default());
        let handle = WatchHandle {
            shared: Arc::clone(&shared),
            seen: seen_receiver,
            health: health_receiver,
        };
        (Watcher { config: self, docker, shared, seen, health }, handle)
    }
}

impl WatchHandle {
    /// What was seen last; none until the first listing.
    pub fn seen(&self) -> watch::Receiver<Option<Seen>> {
        self.seen.clone()
    }

    pub fn health(&self) -> watch::Receiver<DockerHealth> {
        self.health.clone()
    }

    /// An inactive watcher keeps its event stream and looks rarely; becoming
    /// active it looks at everything at once.
    pub fn set_active(&self, active: bool) {
        self.shared.change(|state| state.cadence.set_active(active, Instant::now()));
    }

    /// Asks for a look at everything, soon.
    pub fn look(&self) {
        self.shared.change(|state| state.cadence.doubt(Instant::now()));
    }
}

impl Watcher {
    /// Runs until `drain` ends. May be dropped at any point.
    pub async fn run(self, drain: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = drain => {}
            () = self.subscribe() => {}
            () = self.look() => {}
            () = self.grow_old() => {}
        }
    }

    /// Keeps a subscription standing.
    async fn subscribe(&self) {
        let mut pause = SUBSCRIBE_AGAIN_MIN;
        loop {
            let why = match self.docker.subscribe().await {
                Ok(mut subscription) => {
                    telemetry::stream_opened();
                    self.shared.change(|state| {
                        state.stream_error = None;
                        state.cadence.subscribed(true, Instant::now());
                    });
                    let opened = Instant::now();
                    let why = self.follow(&mut subscription).await;
                    if opened.elapsed() > SUBSCRIBE_AGAIN_MAX {
                        pause = SUBSCRIBE_AGAIN_MIN;
                    }
                    why
                }
                Err(error) => Some(chain(&error)),
            };
            telemetry::stream_ended(why.as_deref().unwrap_or("idle"));
            let Some(why) = why else {
                // Silence is no failure: subscribe anew at once, and look.
                continue;
            };
            self.shared.change(|state| {
                state.cadence.subscribed(false, Instant::now());
                if state.stream_error.is_none() {
                    state.cadence.doubt(Instant::now());
                }
                state.stream_error = Some(why);
            });
            sleep(pause).await;
            pause = (pause * 2).min(SUBSCRIBE_AGAIN_MAX);
        }
    }

    /// Passes hints on until the stream ends; says why, if it was not mere silence.
    async fn follow(&self, subscription: &mut events::Subscription) -> Option<String> {
        loop {
            let message = match timeout(self.config.idle, subscription.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Some(chain(&error)),
                Ok(None) => return Some("GET /events: engine ended the stream".to_owned()),
                Err(_) => return None,
            };
            if let Some((depth, event)) = events::hint(message) {
                telemetry::event_seen(&event);
                self.shared.change(|state| {
                    state.cadence.hint(depth, Instant::now());
                    if state.events.len() == EVENTS_MAX {
                        state.events.remove(0);
                    }
                    state.events.push(event);
                });
            }
        }
    }

    /// Looks whenever it is due.
    async fn look(&self) {
        let mut memory = Memory::default();
        loop {
            let due = self.shared.state().cadence.next();
            if due > Instant::now() {
                tokio::select! {
                    biased;
                    () = self.shared.wake.notified() => {}
                    () = sleep_until(due) => {}
                }
                continue;
            }
            self.round(&mut memory).await;
        }
    }

    async fn round(&self, memory: &mut Memory) {
        let begun = Instant::now();
        let (depth, events) = {
            let mut state = self.shared.state();
            let depth = state.cadence.begin(begun);
            (depth, std::mem::take(&mut state.events))
        };
        match self.list(depth, memory).await {
            Ok((depth, listed)) => self.publish(memory, depth, listed, events, begun),
            Err(error) => self.lost(memory, &error, events),
        }
    }

    /// Lists what `depth` asks for, or more where that turns out not to do.
    async fn list(
        &self,
        mut depth: Depth,
        memory: &Memory,
    ) -> Result<(Depth, Listed), DockerError> {
        let Some(last) = &memory.last else {
            return Ok((Depth::Resync, self.docker.list_all().await?));
        };
        if depth == Depth::Tasks {
            let mut listed = Listed { listing: carried(last), unreadable: memory.others() };
            self.docker.tasks_into(&mut listed).await?;
            listed.keep_unread(last);
            if orphans(&listed.listing).is_subset(&memory.orphans) {
                return Ok((depth, listed));
            }
            // A service that we were not told of.
            depth = Depth::Look;
        }
        if depth == Depth::Look {
            let mut listed = Listed::default();
            self.docker.list_routed(&mut listed).await?;
            let now = &mut listed.listing;
            let nodes = &last.swarm_nodes;
            if nodes.is_empty() || nodes.keys().any(|id| now.swarm_nodes.contains_key(id)) {
                now.swarm = last.swarm.clone();
                now.secrets.clone_from(&last.secrets);
                now.configs.clone_from(&last.configs);
                listed.keep_unread(last);
                return Ok((depth, listed));
            }
            // Not one machine that we knew: perhaps another swarm, so ask who it is.
        }
        let mut listed = self.docker.list_all().await?;
        if listed.listing.swarm == last.swarm {
            listed.keep_unread(last);
        }
        Ok((Depth::Resync, listed))
    }

    fn publish(
        &self,
        memory: &mut Memory,
        depth: Depth,
        listed: Listed,
        events: Vec<DockerEvent>,
        begun: Instant,
    ) {
        let Listed { listing, unreadable } = listed;
        let known = memory.last.take().filter(|last| **last == listing);
        let changed = known.is_none();
        let listing = known.unwrap_or_else(|| Arc::new(listing));
        let now = Instant::now();
        telemetry::listed(depth.name(), &listing, now - begun);
        let api_version = self.docker.api_version();
        if memory.lost || memory.sequence == 0 {
            memory.lost = false;
            telemetry::listing_regained(api_version.as_deref().unwrap_or_default());
        }
        for object in &unreadable {
            telemetry::unreadable(&object.to_string(), !memory.unreadable.contains(object));
        }
        memory.unreadable = unreadable;
        if depth >= Depth::Look {
            memory.orphans = orphans(&listing);
        }
        memory.last = Some(Arc::clone(&listing));
        memory.sequence += 1;
        let stream_error = {
            let mut state = self.shared.state();
            let converging = converging(&listing);
            state.cadence.succeeded(depth, converging, changed, begun, now);
            state.stream_error.clone()
        };
        self.health.send_replace(DockerHealth {
            last_success: Some(begun),
            error: stream_error.or_else(|| memory.unreadable_error()),
            api_version,
        });
        self.seen.send_replace(Some(Seen {
            listing,
            full: depth >= Depth::Look,
            sequence: memory.sequence,
            taken_at: begun,
            events,
        }));
    }

    fn lost(&self, memory: &mut Memory, error: &DockerError, mut events: Vec<DockerEvent>) {
        let error = chain(error);
        telemetry::listing_lost(&error, !memory.lost);
        memory.lost = true;
        {
            let mut state = self.shared.state();
            state.cadence.failed(Instant::now());
            // The hints have led to no look yet: those before stay before.
            events.append(&mut state.events);
            let over = events.len().saturating_sub(EVENTS_MAX);
            state.events = events.split_off(over);
        }
        self.health.send_modify(|health| health.error = Some(error));
    }

    /// Tells the age of what is known, which grows while no look succeeds.
    async fn grow_old(&self) {
        let started = Instant::now();
        loop {
            sleep(Duration::from_secs(1)).await;
            let since = self.health.borrow().last_success.unwrap_or(started);
            telemetry::age(since.elapsed());
        }
    }
}

/// What the looking loop remembers from round to round.
#[derive(Debug, Default)]
struct Memory {
    last: Option<Arc<Listing>>,
    sequence: u64,
    /// Services of tasks that the last look did not show: they are being removed.
    orphans: BTreeSet<ServiceId>,
    /// As of the last round.
    unreadable: Vec<Unreadable>,
    lost: bool,
}

impl Memory {
    /// What could not be read of other lists than that of the tasks.
    fn others(&self) -> Vec<Unreadable> {
        self.unreadable.iter().filter(|object| object.kind != "task").cloned().collect()
    }

    fn unreadable_error(&self) -> Option<String> {
        let named: Vec<_> =
            self.unreadable.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = match self.unreadable.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!named.is_empty()).then(|| format!("unreadable: {}{more}", named.join("; ")))
    }
}

/// All but the tasks, which a round of tasks alone lists anew.
fn carried(last: &Listing) -> Listing {
    Listing {
        swarm: last.swarm.clone(),
        networks: last.networks.clone(),
        swarm_nodes: last.swarm_nodes.clone(),
        services: last.services.clone(),
        tasks: BTreeMap::new(),
        secrets: last.secrets.clone(),
        configs: last.configs.clone(),
    }
}
