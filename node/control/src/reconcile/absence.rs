//! When an object's absence from a listing is believed.
//!
//! An object is gone when Docker answers 404 for its id, or when two full listings
//! at least [`APART`] apart lacked it. An absence that would cost much at once is
//! held as a whole until the same objects are proven gone (decisions 24 and 37).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dovetail_routing::fact::{Change, Listing, TaskState};
use dovetail_routing::names::ServiceId;
use dovetail_routing::state::{Difference, State};
use tokio::time::Instant;

use super::key::ObjectKey;

/// The least time between two listings that count as two.
pub const APART: Duration = Duration::from_secs(2);
/// Fewer upstreams than this are never a mass.
pub const UPSTREAMS_FLOOR: usize = 4;
/// More routes than this are a mass.
pub const ROUTES_MAX: usize = 20;
/// Objects that are asked for by id in one round.
pub const ASKED_MAX: usize = 256;

/// The absences that are not yet believed.
#[derive(Debug, Default)]
pub(super) struct Absences {
    /// When the first and the last full listing began that lacked the object.
    missing: BTreeMap<ObjectKey, (Instant, Instant)>,
    asked: BTreeMap<ObjectKey, Asked>,
    held: Option<Held>,
}

/// What is known of an id from Docker's answers.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// A question is out.
    pending: bool,
    /// When the last answer came, usable or not.
    answered: Option<Instant>,
    /// `false` is 404, which is proof: Docker never reuses an id. `true` outweighs
    /// every listing, until a 404 comes.
    exists: Option<bool>,
}

/// A mass of absences, believed together or not at all.
#[derive(Debug)]
struct Held {
    keys: BTreeSet<ObjectKey>,
    /// The first and the last full listing that lacked all of them.
    listings: Option<(Instant, Instant)>,
}

/// What to do about the removals that a listing suggests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// To be proposed, in the order given.
    pub(super) proven: Vec<Change>,
    /// To be asked for by id, services first.
    pub(super) ask: Vec<Change>,
    /// How many objects are held as a mass.
    pub(super) held: usize,
    /// When a further full listing can prove something.
    pub(super) look_at: Option<Instant>,
}

impl Absences {
    /// Judges the removals of a `difference`; `began` is when its listing began.
    pub(super) fn judge(
        &mut self,
        state: &State,
        difference: &Difference,
        full: bool,
        began: Instant,
    ) -> Judgement {
        let now = Instant::now();
        let absent: BTreeSet<_> = difference.removals.iter().map(ObjectKey::from).collect();
        self.missing.retain(|key, _| absent.contains(key));
        self.asked.retain(|key, asked| asked.pending || absent.contains(key));
        if full {
            for key in &absent {
                self.missing.entry(key.clone()).or_insert((began, began)).1 = began;
            }
        }
        let mass = mass_of(state, difference);
        self.hold(&mass, full, began);

        let mut judgement = Judgement::default();
        let mut unproven = Vec::new();
        for change in &difference.removals {
            let key = ObjectKey::from(change);
            if self.is_proven(&key, &mass) {
                judgement.proven.push(change.clone());
                continue;
            }
            let next = match self.missing.get(&key) {
                Some((first, _)) => *first + APART,
                None => now + APART,
            };
            judgement.look_at = Some(judgement.look_at.map_or(next, |at| at.min(next)));
            unproven.push((key, change));
        }
        judgement.held = unproven.iter().filter(|(key, _)| mass.contains(key)).count();
        // Past this number, the second listing is the cheaper proof.
        let too_many = judgement.held > ASKED_MAX;
        unproven.retain(|(key, _)| self.may_ask(key, now) && !(too_many && mass.contains(key)));
        unproven.sort_by(|a, b| a.0.cmp(&b.0));
        let pending = self.asked.values().filter(|asked| asked.pending).count();
        for (key, change) in unproven.into_iter().take(ASKED_MAX.saturating_sub(pending)) {
            self.asked.entry(key).or_default().pending = true;
            judgement.ask.push(change.clone());
        }
        judgement
    }

    /// Records Docker's answer about an id: `Some(false)` is 404, `None` no usable answer.
    pub(super) fn answered(&mut self, removed: &Change, exists: Option<bool>) {
        let asked = self.asked.entry(ObjectKey::from(removed)).or_default();
        asked.pending = false;
        asked.answered = Some(Instant::now());
        asked.exists = exists.or(asked.exists);
    }

    fn exists(&self, key: &ObjectKey) -> Option<bool> {
        self.asked.get(key)?.exists
    }

    fn may_ask(&self, key: &ObjectKey, now: Instant) -> bool {
        let Some(asked) = self.asked.get(key) else { return true };
        let lately = asked.answered.is_some_and(|at| now < at + APART);
        !asked.pending && !lately && asked.exists != Some(false)
    }

    /// Begins, continues or ends the hold, as the mass of this listing has it.
    fn hold(&mut self, mass: &BTreeSet<ObjectKey>, full: bool, began: Instant) {
        if mass.is_empty() {
            self.held = None;
            return;
        }
        let held = match self.held.take() {
            // The same objects are missing, and perhaps others.
            Some(mut held) if held.keys.is_subset(mass) => {
                if full {
                    held.listings = Some((held.listings.map_or(began, |(first, _)| first), began));
                }
                held
            }
            // Something came back: the listings do not agree.
            _ => Held { keys: mass.clone(), listings: full.then_some((began, began)) },
        };
        self.held = Some(held);
    }

    fn is_proven(&self, key: &ObjectKey, mass: &BTreeSet<ObjectKey>) -> bool {
        if let Some(held) = &self.held
            && mass.contains(key)
        {
            let twice = held.listings.is_some_and(|(first, last)| first + APART <= last)
                && !held.keys.iter().any(|key| self.exists(key) == Some(true));
            let all_gone = held.keys.iter().all(|key| self.exists(key) == Some(false));
            if !twice && !all_gone {
                return false;
            }
        }
        match self.exists(key) {
            Some(exists) => !exists,
            None => self.missing.get(key).is_some_and(|(first, last)| *first + APART <= *last),
        }
    }
}

/// The objects whose absence costs upstreams or routes, when it costs too many at
/// once; nothing when it does not, or when they all belong to one service.
fn mass_of(state: &State, difference: &Difference) -> BTreeSet<ObjectKey> {
    let Difference { upstreams_lost, upstreams_before, routes_lost, .. } = *difference;
    let upstreams = upstreams_lost >= UPSTREAMS_FLOOR && upstreams_lost * 2 > upstreams_before;
    if !upstreams && routes_lost <= ROUTES_MAX {
        return BTreeSet::new();
    }
    let mut services = BTreeSet::new();
    let mut mass = BTreeSet::new();
    for change in &difference.removals {
        let behind = services_behind(state, change);
        if !behind.is_empty() {
            mass.insert(ObjectKey::from(change));
            services.extend(behind);
        }
    }
    // One service scaled to zero or removed is an operator's everyday work.
    if services.len() <= 1 { BTreeSet::new() } else { mass }
}

/// The publishing services that lose something by a removal.
fn services_behind(state: &State, change: &Change) -> BTreeSet<ServiceId> {
    let of_tasks = |on: &dyn Fn(&dovetail_routing::fact::Task) -> bool| {
        state
            .tasks()
            .filter(|task| task.state == TaskState::Running && on(task))
            .map(|task| task.service.clone())
            .collect::<BTreeSet<_>>()
    };
    let mut services: BTreeSet<ServiceId> = match change {
        Change::ServiceGone(id) => BTreeSet::from([id.clone()]),
        Change::TaskGone(id) => state
            .task(id)
            .filter(|task| task.state == TaskState::Running)
            .map(|task| task.service.clone())
            .into_iter()
            .collect(),
        Change::NetworkGone(id) => state
            .services()
            .filter(|service| service.networks.contains(id))
            .map(|service| service.id.clone())
            .collect(),
        Change::SwarmNodeGone(id) => of_tasks(&|task| task.node == *id),
        _ => BTreeSet::new(),
    };
    services.retain(|id| {
        state.service(id).is_some_and(|service| {
            service.labels.keys().any(|label| {
                ["com.docker.lb.", "com.docker.ucp.mesh.", "dovetail."]
                    .iter()
                    .any(|prefix| label.starts_with(prefix))
            })
        })
    });
    services
}

/// The object that shows a listing to be older than what is recorded: a manager
/// that lost its quorum answers so for a while, and its absences mean nothing.
pub(super) fn stale_object(state: &State, listing: &Listing) -> Option<String> {
    let service = listing.services.values().find_map(|seen| {
        let known = state.service(&seen.id)?.version;
        (seen.version < known).then(|| stale("service", &seen.id, seen.version.0, known.0))
    });
    let task = || {
        listing.tasks.values().find_map(|seen| {
            let known = state.task(&seen.id)?.version;
            (seen.version < known).then(|| stale("task", &seen.id, seen.version.0, known.0))
        })
    };
    let node = || {
        listing.swarm_nodes.values().find_map(|seen| {
            let known = state.swarm_node(&seen.id)?.version;
            (seen.version < known).then(|| stale("swarm node", &seen.id, seen.version.0, known.0))
        })
    };
    service.or_else(task).or_else(node)
}

fn stale(kind: &str, id: &dyn std::fmt::Display, seen: u64, known: u64) -> String {
    format!("{kind} {id} is listed at version {seen}, and is known at {known}")
}
