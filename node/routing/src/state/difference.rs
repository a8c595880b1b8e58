//! What a full listing changes against the recorded facts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use super::State;
use super::facts::Versioned;
use crate::fact::{Change, DesiredState, Listing, Scale, Service, SwarmNode, Task};
use crate::names::ServiceId;
use crate::snapshot::UpstreamState;

/// The changes that lead from the recorded facts to a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// New and changed objects: networks, swarm nodes, secrets, configs, services, tasks.
    pub upserts: Vec<Change>,
    /// Objects that the listing lacks: tasks first, networks last.
    pub removals: Vec<Change>,
    /// Active upstreams that would be lost by absence from the listing alone.
    pub upstreams_lost: usize,
    /// Active upstreams now, over all service clusters.
    pub upstreams_before: usize,
    /// Routes whose last service is absent from the listing.
    pub routes_lost: usize,
}

impl Difference {
    /// Whether the listing and the recorded facts agree.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }

    pub(super) fn between(state: &State, listing: &Listing) -> Self {
        let (upstreams_lost, upstreams_before) = upstreams_lost(state, listing);
        Self {
            upserts: upserts(state, listing),
            removals: removals(state, listing),
            upstreams_lost,
            upstreams_before,
            routes_lost: routes_lost(state, listing),
        }
    }
}

fn upserts(state: &State, listing: &Listing) -> Vec<Change> {
    let facts = &state.facts;
    let mut changes = Vec::new();
    for (id, network) in &listing.networks {
        if facts.networks.get(id).is_none_or(|recorded| **recorded != *network) {
            changes.push(Change::Network(network.clone()));
        }
    }
    let nodes = news(&facts.swarm_nodes, &listing.swarm_nodes);
    changes.extend(nodes.map(|node| Change::SwarmNode(node.clone())));
    for (id, name) in &listing.secrets {
        if facts.secrets.get(id) != Some(name) {
            changes.push(Change::Secret { id: id.clone(), name: Arc::clone(name) });
        }
    }
    for (id, name) in &listing.configs {
        if facts.configs.get(id) != Some(name) {
            changes.push(Change::Config { id: id.clone(), name: Arc::clone(name) });
        }
    }
    let services = news(&facts.services, &listing.services);
    changes.extend(services.map(|service| Change::Service(service.clone())));
    changes.extend(news(&facts.tasks, &listing.tasks).map(|task| Change::Task(task.clone())));
    changes
}

/// Objects that are new, or differ from the recorded ones and are not older.
fn news<'a, K: Ord + Clone, T: Projected>(
    recorded: &'a OrdMap<K, Arc<T>>,
    listed: &'a BTreeMap<K, T>,
) -> impl Iterator<Item = &'a T> {
    let is_news = |(id, seen): &(&K, &T)| {
        recorded
            .get(*id)
            .is_none_or(|old| seen.version() >= old.version() && !seen.same_projection(old))
    };
    listed.iter().filter(is_news).map(|(_, seen)| seen)
}

/// An object whose version alone says nothing.
trait Projected: Versioned + Clone {
    fn set_version(&mut self, version: crate::fact::SwarmVersion);

    fn same_projection(&self, other: &Self) -> bool {
        if self.version() == other.version() {
            return self == other;
        }
        let mut same = self.clone();
        same.set_version(other.version());
        same == *other
    }
}

macro_rules! projected {
    ($($name:ident)*) => {$(
        impl Projected for $name {
            fn set_version(&mut self, version: crate::fact::SwarmVersion) {
                self.version = version;
            }
        }
    )*};
}

projected! { SwarmNode Service Task }

fn removals(state: &State, listing: &Listing) -> Vec<Change> {
    let facts = &state.facts;
    let mut changes = Vec::new();
    let mut absent = |change: Change| changes.push(change);
    for id in facts.tasks.keys().filter(|id| !listing.tasks.contains_key(*id)) {
        absent(Change::TaskGone(id.clone()));
    }
    for id in facts.services.keys().filter(|id| !listing.services.contains_key(*id)) {
        absent(Change::ServiceGone(id.clone()));
    }
    for id in facts.configs.keys().filter(|id| !listing.configs.contains_key(*id)) {
        absent(Change::ConfigGone(id.clone()));
    }
    for id in facts.secrets.keys().filter(|id| !listing.secrets.contains_key(*id)) {
        absent(Change::SecretGone(id.clone()));
    }
    for id in facts.swarm_nodes.keys().filter(|id| !listing.swarm_nodes.contains_key(*id)) {
        absent(Change::SwarmNodeGone(id.clone()));
    }
    for id in facts.networks.keys().filter(|id| !listing.networks.contains_key(*id)) {
        absent(Change::NetworkGone(id.clone()));
    }
    changes
}

/// Active upstreams that the listing lacks without saying why, and all there are.
///
/// A service that is listed with fewer replicas explains that its tasks are gone;
/// one that is listed with fewer tasks than it has replicas does not.
fn upstreams_lost(state: &State, listing: &Listing) -> (usize, usize) {
    let mut wanted: BTreeMap<&ServiceId, u64> = BTreeMap::new();
    for task in listing.tasks.values() {
        if matches!(task.desired, DesiredState::Running | DesiredState::Ready) {
            *wanted.entry(&task.service).or_default() += 1;
        }
    }
    let (mut lost, mut before) = (0, 0);
    for (id, upstreams) in &state.upstreams {
        let active = || upstreams.iter().filter(|one| one.state == UpstreamState::Active);
        before += active().count();
        let Some(service) = listing.services.get(id) else {
            lost += active().count();
            continue;
        };
        let is_absent = |task| !listing.tasks.contains_key(task);
        let absent = active().filter(|one| one.task.as_ref().is_some_and(is_absent)).count();
        lost += match service.scale {
            Scale::Replicated(replicas) => {
                let listed = wanted.get(id).copied().unwrap_or_default();
                absent.min(usize::try_from(replicas.saturating_sub(listed)).unwrap_or(usize::MAX))
            }
            Scale::Global | Scale::Job => absent,
        };
    }
    (lost, before)
}

fn routes_lost(state: &State, listing: &Listing) -> usize {
    let absent: BTreeSet<_> =
        state.intents.keys().filter(|id| !listing.services.contains_key(*id)).collect();
    let lost = state
        .claims
        .by_route
        .values()
        .filter(|claims| claims.iter().all(|claim| absent.contains(&claim.service)));
    lost.count()
}
