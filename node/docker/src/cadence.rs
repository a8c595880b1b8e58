//! When to look next, and how deep: decided without a clock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dovetail_routing::fact::{DesiredState, Listing, Scale, TaskState};
use dovetail_routing::names::ServiceId;
use tokio::time::Instant;

/// First pause after a failure; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Looks that no hint asks for are at least so many times as far apart as the last one
/// took: a large swarm's lists are work for the engine.
const UNASKED: u32 = 3;

/// How often to look. No `Default`: a test decides otherwise.
#[derive(Clone, Debug)]
pub struct WatchConfig {
    /// How long hints gather before a look.
    pub coalesce: Duration,
    /// Between task listings while a service converges.
    pub converging: Duration,
    /// Between task listings otherwise.
    pub calm: Duration,
    /// Between looks at services, swarm nodes and networks too, hint or not:
    /// engines are known to stop telling of services until they are restarted.
    pub look: Duration,
    /// Between looks at everything, the swarm's identity included.
    pub resync: Duration,
    /// Between looks while inactive.
    pub inactive: Duration,
    /// How long after a hint a service counts as converging: Swarm itself takes
    /// a moment before an accepted change shows in its tasks.
    pub hold: Duration,
    /// How long a service may converge without any change before it counts as
    /// stuck and is looked at calmly.
    pub patience: Duration,
    /// The longest silence of the event stream before it is opened anew: a dead
    /// peer and a hung engine say nothing, too.
    pub idle: Duration,
}

impl WatchConfig {
    /// What runs in production. `poll_interval` (Interlock's `PollInterval`) can
    /// only shorten what is there.
    pub fn usual(poll_interval: Option<Duration>) -> Self {
        let poll = poll_interval.unwrap_or(Duration::MAX).max(Duration::from_millis(100));
        Self {
            coalesce: Duration::from_millis(20),
            converging: Duration::from_millis(250).min(poll),
            calm: Duration::from_secs(1).min(poll),
            look: Duration::from_secs(5).min(poll),
            resync: Duration::from_secs(30),
            inactive: Duration::from_secs(5),
            hold: Duration::from_secs(3),
            patience: Duration::from_secs(60),
            idle: Duration::from_secs(60),
        }
    }
}

/// How much a round looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// Tasks alone.
    Tasks,
    /// Services, tasks, swarm nodes, networks.
    Look,
    /// Those, the names of secrets and configs, and who the swarm is.
    Resync,
}

impl Depth {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Look => "look",
            Self::Resync => "resync",
        }
    }
}

/// What is due when.
#[derive(Debug)]
pub(crate) struct Cadence {
    config: WatchConfig,
    active: bool,
    subscribed: bool,
    /// The deepest look that hints ask for, and since when.
    wanted: Option<(Depth, Instant)>,
    hinted_at: Option<Instant>,
    converging: bool,
    changed_at: Instant,
    /// Ends of the last rounds of at least that depth.
    tasks_at: Instant,
    look_at: Instant,
    resync_at: Instant,
    /// How long the last round took.
    took: Duration,
    /// After failures only: their number, and when to try again.
    failed: Option<(u32, Instant)>,
}

impl Cadence {
    /// The first look is due at once, and whole.
    pub(crate) fn new(config: WatchConfig, now: Instant) -> Self {
        Self {
            config,
            active: true,
            subscribed: false,
            wanted: Some((Depth::Resync, now)),
            hinted_at: None,
            converging: false,
            changed_at: now,
            tasks_at: now,
            look_at: now,
            resync_at: now,
            took: Duration::ZERO,
            failed: None,
        }
    }

    pub(crate) fn hint(&mut self, depth: Depth, now: Instant) {
        self.hinted_at = Some(now);
        self.want(depth, now);
    }

    /// There is doubt: what is known may be of another engine, or of another time.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.want(Depth::Resync, now);
    }

    fn want(&mut self, depth: Depth, now: Instant) {
        self.wanted = Some(match self.wanted {
            Some((before, since)) => (before.max(depth), since),
            None => (depth, now),
        });
    }

    /// The stream stands, or has ended; either way something may have been missed.
    pub(crate) fn subscribed(&mut self, subscribed: bool, now: Instant) {
        if subscribed {
            // The engine is back: what failed before need not wait any longer.
            self.failed = None;
            self.doubt(now);
        }
        self.subscribed = subscribed;
    }

    pub(crate) fn set_active(&mut self, active: bool, now: Instant) {
        if active && !self.active {
            self.doubt(now);
        }
        self.active = active;
    }

    /// A round begins, and with it whatever was wanted: returns how deep it goes.
    pub(crate) fn begin(&mut self, now: Instant) -> Depth {
        let depth = self.depth(now);
        // An inactive watcher lets hints wait, and looks at everything when it wakes.
        self.wanted = None;
        depth
    }

    pub(crate) fn succeeded(
        &mut self,
        depth: Depth,
        converging: bool,
        changed: bool,
        begun: Instant,
        now: Instant,
    ) {
        self.failed = None;
        self.converging = converging;
        if changed {
            self.changed_at = now;
        }
        self.took = now.saturating_duration_since(begun);
        self.tasks_at = now;
        if depth >= Depth::Look {
            self.look_at = now;
        }
        if depth == Depth::Resync {
            self.resync_at = now;
        }
    }

    /// Nothing was seen, so everything is still wanted, and more is in doubt.
    pub(crate) fn failed(&mut self, now: Instant) {
        let failures = self.failed.map_or(0, |(failures, _)| failures);
        let pause = BACKOFF_MIN.saturating_mul(1 << failures.min(8)).min(BACKOFF_MAX);
        self.failed = Some((failures + 1, now + pause));
        self.doubt(now);
    }

    /// When the next round is due.
    pub(crate) fn next(&self) -> Instant {
        if let Some((_, retry_at)) = self.failed {
            return retry_at;
        }
        self.candidates().into_iter().flatten().map(|(_, at)| at).min().unwrap_or(self.tasks_at)
    }

    /// The depth of a round that begins `now`: the deepest of what is due, and
    /// of what hints ask for even if they were to gather for a little longer.
    fn depth(&self, now: Instant) -> Depth {
        if self.failed.is_some() {
            return Depth::Resync;
        }
        let due = self.candidates().into_iter().flatten().filter(|&(_, at)| at <= now);
        let due = due.map(|(depth, _)| depth).max().unwrap_or(Depth::Tasks);
        self.wanted.filter(|_| self.active).map_or(due, |(wanted, _)| wanted.max(due))
    }

    fn candidates(&self) -> [Option<(Depth, Instant)>; 4] {
        let config = &self.config;
        let resync = Some((Depth::Resync, self.resync_at + config.resync));
        if !self.active {
            let first = self.wanted.filter(|&(depth, _)| depth == Depth::Resync);
            let apart = config.inactive.max(self.took * UNASKED);
            let look = Some((Depth::Look, self.look_at + apart));
            return [first, None, look, resync];
        }
        // A storm of hints may take half the engine's time, not all of it.
        let wanted = self.wanted.map(|(depth, since)| {
            (depth, (since + config.coalesce).max(self.tasks_at + self.took))
        });
        let held = self.hinted_at.is_some_and(|at| self.tasks_at < at + config.hold);
        let stuck = self.tasks_at > self.changed_at + config.patience;
        let fast = held || (self.converging && !stuck);
        let tasks = if fast { config.converging } else { config.calm };
        // Without hints only looking can tell.
        let look = if self.subscribed { config.look } else { config.calm };
        [
            wanted,
            Some((Depth::Tasks, self.tasks_at + tasks.max(self.took * UNASKED))),
            Some((Depth::Look, self.look_at + look.max(self.took * UNASKED))),
            resync,
        ]
    }
}

/// Whether a service is on its way: an update runs, tasks are missing, start or stop.
pub(crate) fn converging(listing: &Listing) -> bool {
    let mut running: BTreeMap<&ServiceId, u64> = BTreeMap::new();
    for task in listing.tasks.values() {
        match (task.desired, task.state) {
            (DesiredState::Running, TaskState::Running) => {
                *running.entry(&task.service).or_default() += 1;
            }
            (DesiredState::Running | DesiredState::Ready, _) => return true,
            (_, TaskState::Running | TaskState::Starting) => return true,
            (_, TaskState::Ended) => {}
        }
    }
    listing.services.values().any(|service| {
        let updating = matches!(&*service.update_state, "updating" | "rollback_started");
        let wanted = match service.scale {
            Scale::Replicated(replicas) => replicas,
            Scale::Global | Scale::Job => 0,
        };
        updating || running.get(&service.id).copied().unwrap_or_default() < wanted
    })
}

/// Services that tasks which are to run belong to and that no list of services showed.
pub(crate) fn orphans(listing: &Listing) -> BTreeSet<ServiceId> {
    let wanted = |desired| matches!(desired, DesiredState::Running | DesiredState::Ready);
    let tasks = listing.tasks.values().filter(|task| wanted(task.desired));
    let services = tasks.map(|task| &task.service);
    services.filter(|id| !listing.services.contains_key(*id)).cloned().collect()
}

#[cfg(test)]
#[path = "cadence_tests.rs"]
mod tests;
