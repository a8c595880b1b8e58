//! Upstreams that an operator took out of the rotation.
//!
//! A drain is of what it was resolved to when it was ordered: tasks, services or swarm
//! nodes. It ends with them, by an order, or at its time, whichever comes first.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::State;
use super::facts::{Facts, Touched};
use super::line::Line;
use super::upstreams::upstreams;
use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::command::DrainTarget;
use crate::entry::{Applied, LogIndex, Rejection};
use crate::fact::{Change, Task};
use crate::names::{ServiceId, SwarmNodeId, TaskId};
use crate::snapshot::{RouteKey, Upstream, UpstreamState};

mod resolve;

/// Tasks, services and swarm nodes that may be drained at one time.
pub const DRAINS_MAX: usize = 1_000;
/// What a drain above the limit is refused for.
pub(crate) const DRAINS: &str = "drains";
/// The longest time that a drain may be given: 366 days.
const FOR_MS_MAX: u64 = 366 * 24 * 3_600 * 1_000;

/// What is drained.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drained {
    Task(TaskId),
    /// All its upstreams, its virtual address too.
    Service(ServiceId),
    /// All tasks on it, those to come too.
    SwarmNode(SwarmNodeId),
}

/// An operator's order to leave upstreams alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// By what it is undrained.
    pub target: DrainTarget,
    /// Who ordered it.
    pub actor: Arc<str>,
    /// The entry that did.
    pub index: LogIndex,
    /// The leader time at which it ends, in milliseconds since 1970.
    pub until_ms: Option<u64>,
}

/// All drains.
#[derive(Clone, Debug, Default)]
pub(super) struct Drains {
    pub(super) by_object: OrdMap<Drained, Drain>,
    /// Derived, never encoded.
    by_deadline: OrdSet<(u64, Drained)>,
}

impl Drains {
    /// Decoded drains.
    pub(super) fn new(by_object: OrdMap<Drained, Drain>) -> Self {
        let deadline =
            |(of, drain): (&Drained, &Drain)| drain.until_ms.map(|until| (until, of.clone()));
        let by_deadline = by_object.iter().filter_map(deadline).collect();
        Self { by_object, by_deadline }
    }

    /// Whether a task is drained, by whatever drain.
    pub(super) fn cover(&self, task: &Task) -> bool {
        self.covering(task).is_some()
    }

    fn covering(&self, task: &Task) -> Option<&Drain> {
        if self.by_object.is_empty() {
            return None;
        }
        let of = |drained: Drained| self.by_object.get(&drained);
        of(Drained::Task(task.id.clone()))
            .or_else(|| of(Drained::Service(task.service.clone())))
            .or_else(|| of(Drained::SwarmNode(task.node.clone())))
    }

    /// A drain ends with what it is of.
    pub(super) fn forget(&mut self, change: &Change) {
        match change {
            Change::TaskGone(id) => self.remove(&Drained::Task(id.clone())),
            Change::ServiceGone(id) => self.remove(&Drained::Service(id.clone())),
            Change::SwarmNodeGone(id) => self.remove(&Drained::SwarmNode(id.clone())),
            _ => {}
        }
    }

    fn insert(&mut self, drained: Drained, drain: Drain) {
        self.remove(&drained);
        if let Some(until) = drain.until_ms {
            self.by_deadline.insert((until, drained.clone()));
        }
        self.by_object.insert(drained, drain);
    }

    fn remove(&mut self, drained: &Drained) {
        if let Some(old) = self.by_object.remove(drained)
            && let Some(until) = old.until_ms
        {
            self.by_deadline.remove(&(until, drained.clone()));
        }
    }

    fn deadline(&self) -> Option<u64> {
        self.by_deadline.get_min().map(|(until, _)| *until)
    }

    /// What is due at a time.
    fn due(&self, now_ms: u64) -> Vec<Drained> {
        let due = self.by_deadline.iter().take_while(|(until, _)| *until <= now_ms);
        due.map(|(_, drained)| drained.clone()).collect()
    }

    /// Whether each is of a recorded object, and says its kind.
    pub(super) fn are_of(&self, facts: &Facts) -> bool {
        self.by_object.iter().all(|(drained, drain)| match (drained, &drain.target) {
            (Drained::Task(id), DrainTarget::Address(_)) => facts.tasks.contains_key(id),
            (Drained::Service(id), DrainTarget::Service(_)) => facts.services.contains_key(id),
            (Drained::SwarmNode(id), DrainTarget::SwarmNode(_)) => {
                facts.swarm_nodes.contains_key(id)
            }
            _ => false,
        })
    }
}

fn refused(reason: String) -> Rejection {
    Rejection::Refused { reason: reason.into() }
}

impl State {
    /// What operators drained, sorted by kind and id.
    pub fn drains(&self) -> impl Iterator<Item = (&Drained, &Drain)> {
        self.drains.by_object.iter()
    }

    /// The leader time in milliseconds at which something in the state ends by itself; a
    /// `Tick` from then on, or any other entry, makes it so. It may have passed already.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadlines = [self.drains.deadline(), self.rollbacks.deadline_ms];
        deadlines.into_iter().flatten().min()
    }

    /// The upstreams of a service that are in no snapshot because an operator drained them;
    /// their state is [`UpstreamState::Draining`].
    pub fn drained_upstreams(&self, id: &ServiceId) -> Vec<Upstream> {
        let (Some(service), Some(intent)) = (self.facts.services.get(id), self.intents.get(id))
        else {
            return Vec::new();
        };
        if self.drains.by_object.is_empty() {
            return Vec::new();
        }
        let (all, _) = upstreams(&self.facts, &Drains::default(), service, intent);
        let in_force = self.upstreams.get(id).cloned().unwrap_or_default();
        let is_drained = |one: &Upstream| !in_force.contains(one);
        let draining = |one| Upstream { state: UpstreamState::Draining, ..one };
        all.into_iter().filter(is_drained).map(draining).collect()
    }

    pub(super) fn drain_upstream(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        target: &DrainTarget,
        for_ms: Option<u64>,
        force: bool,
    ) -> Result<Applied, Rejection> {
        if for_ms.is_some_and(|given| given == 0 || given > FOR_MS_MAX) {
            return Err(refused(format!(
                "{} ms is no time that a drain can be for: give one from 1 ms to 366 days, or none \
                 to drain until it is undrained",
                for_ms.unwrap_or_default()
            )));
        }
        let (objects, target) = self.resolve(target)?;
        let mut after = self.clone();
        for drained in &objects {
            let drain = Drain {
                target: target.clone(),
                actor: Arc::clone(actor),
                index,
                until_ms: for_ms.map(|given| self.leader_time_ms.saturating_add(given)),
            };
            after.drains.insert(drained.clone(), drain);
        }
        let count = after.drains.by_object.len();
        if count > DRAINS_MAX && count > self.drains.by_object.len() {
            return Err(Rejection::AboveLimit {
                what: DRAINS,
                given: count as u64,
                limit: DRAINS_MAX as u64,
            });
        }
        let applied = after.derive(index, &self.served_by(&objects));
        if !force {
            self.check_left(&after, &target)?;
        }
        *self = after;
        Ok(applied)
    }

    pub(super) fn undrain_upstream(
        &mut self,
        index: LogIndex,
        target: &DrainTarget,
    ) -> Result<Applied, Rejection> {
        let is_meant = |drained: &Drained, drain: &Drain| match (drained, target) {
            (Drained::SwarmNode(id), DrainTarget::SwarmNode(given)) => {
                drain.target == *target || id.0 == *given || self.hostname(id) == Some(given)
            }
            (Drained::Service(id), DrainTarget::Service(given)) => {
                let named = self.facts.services.get(id).is_some_and(|one| one.name == *given);
                drain.target == *target || named
            }
            _ => drain.target == *target,
        };
        let meant =
            self.drains.by_object.iter().filter(|(drained, drain)| is_meant(drained, drain));
        let objects: Vec<_> = meant.map(|(drained, _)| drained.clone()).collect();
        if objects.is_empty() {
            return Err(refused(match self.drained_otherwise(target) {
                Some(by) => format!("{target} is drained with {by}: undrain that"),
                None => format!("{target} is not drained: dovetail drains lists what is"),
            }));
        }
        Ok(self.undrain(index, &objects))
    }

    /// Ends the drains whose time has come.
    pub(super) fn end_drains(&mut self, index: LogIndex) -> Applied {
        let due = self.drains.due(self.leader_time_ms);
        if due.is_empty() { Applied::Unchanged } else { self.undrain(index, &due) }
    }

    fn undrain(&mut self, index: LogIndex, objects: &[Drained]) -> Applied {
        let touched = self.served_by(objects);
        for drained in objects {
            self.drains.remove(drained);
        }
        self.derive(index, &touched)
    }

    /// Whose upstreams a drain of these concerns.
    fn served_by(&self, objects: &[Drained]) -> Touched {
        let mut touched = Touched::default();
        for drained in objects {
            match drained {
                Drained::Task(id) => {
                    let service = self.facts.tasks.get(id).map(|task| task.service.clone());
                    touched.upstreams.extend(service);
                }
                Drained::Service(id) => {
                    touched.upstreams.insert(id.clone());
                }
                Drained::SwarmNode(id) => self.facts.touch_node(id, &mut touched),
            }
        }
        touched
    }

    /// Refuses what would leave a route without an upstream that it has now.
    fn check_left(&self, after: &Self, target: &DrainTarget) -> Result<(), Rejection> {
        let lines = self.clusters.values().flat_map(|cluster| &cluster.lines);
        let is_same = |key: &RouteKey, line: &Arc<Line>| {
            after.drawn(key).is_some_and(|after| Arc::ptr_eq(after, line))
        };
        let changed = lines.filter(|(key, line)| !is_same(key, line)).map(|(key, _)| key);
        let mut left = changed.filter(|key| self.answers(key) && !after.answers(key));
        let Some(first) = left.next() else { return Ok(()) };
        let more = match left.count() {
            0 => String::new(),
            1 => " and one more route".to_owned(),
            more => format!(" and {more} more routes"),
        };
        Err(refused(format!(
            "to drain {target} would leave {first}{more} without an active upstream: start others \
             first, or force it"
        )))
    }

    /// Whether a route has an active upstream that gets a share.
    fn answers(&self, key: &RouteKey) -> bool {
        let serves = |one: &Upstream| one.state == UpstreamState::Active;
        self.line(key).is_some_and(|line| {
            let mut services = line.services.iter().filter(|service| service.weight > 0);
            services.any(|service| service.upstreams.iter().any(serves))
        })
    }
}

impl Canonical for Drained {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Task(id) => {
                out.push(0);
                id.write(out);
            }
            Self::Service(id) => {
                out.push(1);
                id.write(out);
            }
            Self::SwarmNode(id) => {
                out.push(2);
                id.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("what is drained")? {
            0 => Ok(Self::Task(from.read()?)),
            1 => Ok(Self::Service(from.read()?)),
            2 => Ok(Self::SwarmNode(from.read()?)),
            other => Err(from.invalid("what is drained", format!("has no variant {other}"))),
        }
    }
}

crate::codec::fields! { Drain { target actor index until_ms } }
