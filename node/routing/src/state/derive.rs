//! From what changed to what differs: intents, claims, upstreams, lines, problems.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cluster::Cluster;
use super::facts::Touched;
use super::line::Line;
use super::upstreams::{Shared, upstreams};
use super::{ROUTES_PER_CLUSTER_MAX, SERVICE_CLUSTERS_MAX, SERVICES_PER_ROUTE_MAX, State};
use crate::entry::{Applied, LogIndex};
use crate::fact::LabelValue;
use crate::labels::{
    self, DEFAULT_BACKEND, EXCLUSIVE, HOSTS, Intent, Reading, RouteKey, SERVICE_CLUSTER,
};
use crate::names::{ServiceCluster, ServiceId};
use crate::problem::{Kept, ServiceProblems, Trouble};
use crate::snapshot::{Revision, RouteHost};

impl State {
    /// Derives again what `touched` concerns.
    pub(super) fn derive(&mut self, index: LogIndex, touched: &Touched) -> Applied {
        let mut keys = BTreeSet::new();
        for id in &touched.services {
            keys.extend(self.reread(index, id));
        }
        // Whoever shares a route with a service that was read again may differ from it now.
        let mut rivals = touched.services.clone();
        for key in &keys {
            rivals.extend(self.claims.of(key).iter().map(|claim| claim.service.clone()));
        }
        let mut served: BTreeSet<_> = touched.services.union(&touched.upstreams).cloned().collect();
        if touched.networks {
            let on_any = self.intents.iter().filter(|(_, intent)| intent.network.is_none());
            served.extend(on_any.map(|(id, _)| id.clone()));
        }
        for id in &served {
            if self.refresh(index, id) {
                keys.extend(self.intents.get(id).into_iter().flat_map(|intent| intent.keys()));
            }
        }
        let mut changed = BTreeSet::new();
        for key in &keys {
            if self.redraw(key) {
                changed.insert(&key.service_cluster);
            }
        }
        let revision = Revision(index.0);
        for name in &changed {
            if let Some(cluster) = self.clusters.get_mut(*name) {
                cluster.changed(revision);
            }
        }
        for id in &rivals {
            self.compare(index, id);
        }
        if changed.is_empty() { Applied::Unchanged } else { Applied::Changed(revision) }
    }

    /// Reads a service's labels again; returns the routes that may differ by it.
    fn reread(&mut self, index: LogIndex, id: &ServiceId) -> BTreeSet<RouteKey> {
        let old = self.intents.get(id).cloned();
        let Some(service) = self.facts.services.get(id).cloned() else {
            self.intents.remove(id);
            self.problems.remove(id);
            return self.claims.replace(id, &"".into(), index, old.as_deref(), None);
        };
        let networks = &self.facts.networks;
        let (reading, mut troubles) =
            labels::read(&service, &|id| networks.get(id).map(Arc::as_ref));
        let new = match reading {
            Reading::Withdrawn => None,
            Reading::Invalid => old.clone(),
            Reading::Valid(intent) => match self.above_limit(id, &intent) {
                None => Some(Arc::new(intent)),
                Some(trouble) => {
                    troubles.push(trouble);
                    old.clone()
                }
            },
        };
        match &new {
            Some(intent) => self.intents.insert(id.clone(), Arc::clone(intent)),
            None => self.intents.remove(id),
        };
        self.report(index, id, troubles, |problems| &mut problems.labels);
        self.claims.replace(id, &service.created_at, index, old.as_deref(), new.as_deref())
    }

    /// Why an intent cannot be taken beside all others, if so.
    fn above_limit(&self, id: &ServiceId, intent: &Intent) -> Option<Trouble> {
        let name = &intent.service_cluster;
        if !self.clusters.contains_key(name) && self.claims.routes(name).is_none() {
            let is_new = |name: &&ServiceCluster| !self.clusters.contains_key(*name);
            let new = self.claims.service_clusters().filter(is_new).count();
            if self.clusters.len() + new >= SERVICE_CLUSTERS_MAX {
                let reason = format!("{SERVICE_CLUSTERS_MAX} service clusters is the limit");
                return Some(Trouble::new(SERVICE_CLUSTER, name.as_str(), reason));
            }
        }
        let is_full = |key: &RouteKey| {
            let claims = self.claims.of(key);
            claims.len() >= SERVICES_PER_ROUTE_MAX && claims.iter().all(|one| one.service != *id)
        };
        if let Some(full) = intent.keys().find(is_full) {
            let reason = format!(
                "{}{} has {SERVICES_PER_ROUTE_MAX} services, the limit",
                full.host, full.path
            );
            return Some(Trouble::new(HOSTS, &full.host.to_string(), reason));
        }
        let new = intent.keys().filter(|key| self.claims.of(key).is_empty()).count();
        let sum = self.claims.routes(name).unwrap_or_default() + new;
        (new > 0 && sum > ROUTES_PER_CLUSTER_MAX).then(|| {
            let reason = format!(
                "service cluster {:?} would have {sum} routes, above the limit of \
                 {ROUTES_PER_CLUSTER_MAX}",
                name.as_str()
            );
            Trouble::new(HOSTS, &format!("({new} new routes)"), reason)
        })
    }

    /// Derives a service's upstreams again, and tells whether they differ.
    fn refresh(&mut self, index: LogIndex, id: &ServiceId) -> bool {
        let (Some(service), Some(intent)) =
            (self.facts.services.get(id), self.intents.get(id).cloned())
        else {
            self.report(index, id, Vec::new(), |problems| &mut problems.upstreams);
            return self.upstreams.remove(id).is_some();
        };
        let (new, troubles) = upstreams(&self.facts, service, &intent);
        self.report(index, id, troubles, |problems| &mut problems.upstreams);
        if self.upstreams.get(id).is_some_and(|old| **old == *new) {
            return false;
        }
        self.upstreams.insert(id.clone(), new.into());
        true
    }

    /// Draws a route's line again, and tells whether it differs.
    pub(super) fn redraw(&mut self, key: &RouteKey) -> bool {
        let services = self.in_force(key);
        let name = &key.service_cluster;
        if services.is_empty() {
            let cluster = self.clusters.get_mut(name);
            return cluster.is_some_and(|cluster| cluster.lines.remove(key).is_some());
        }
        let line = Line::new(services);
        let drawn = self.clusters.get(name).and_then(|cluster| cluster.lines.get(key));
        if drawn.is_some_and(|drawn| **drawn == line) {
            return false;
        }
        self.cluster_mut(name).lines.insert(key.clone(), Arc::new(line));
        true
    }

    fn cluster_mut(&mut self, name: &ServiceCluster) -> &mut Cluster {
        self.clusters.entry(name.clone()).or_default()
    }

    /// The services that serve a route: all that claim it, or an exclusive incumbent.
    fn in_force(&self, key: &RouteKey) -> Vec<(ServiceId, Arc<str>, Shared)> {
        let claims = self.claims.of(key);
        let exclusive = claims
            .first()
            .and_then(|incumbent| self.intents.get(&incumbent.service))
            .is_some_and(|intent| intent.exclusive);
        let served_by = if exclusive { &claims[..1] } else { claims };
        let service = |id: &ServiceId| {
            let name = self.facts.services.get(id).map(|service| Arc::clone(&service.name));
            let upstreams = self.upstreams.get(id).cloned().unwrap_or_default();
            (id.clone(), name.unwrap_or_default(), upstreams)
        };
        served_by.iter().map(|claim| service(&claim.service)).collect()
    }

    /// Reports where a service differs from the incumbents of its routes.
    fn compare(&mut self, index: LogIndex, id: &ServiceId) {
        let mut troubles = Vec::new();
        if let Some(intent) = self.intents.get(id) {
            for key in intent.keys() {
                let Some(incumbent) = self.claims.of(&key).first() else { continue };
                let owner = self.facts.services.get(&incumbent.service);
                let in_force = self.intents.get(&incumbent.service);
                let (Some(owner), Some(in_force)) = (owner, in_force) else { continue };
                if incumbent.service != *id {
                    troubles.extend(differences(intent, in_force, &owner.name, &key));
                }
            }
        }
        self.report(index, id, troubles, |problems| &mut problems.claims);
    }

    /// Replaces the problems of one source.
    fn report(
        &mut self,
        index: LogIndex,
        id: &ServiceId,
        troubles: Vec<Trouble>,
        source: fn(&mut ServiceProblems) -> &mut Kept,
    ) {
        let old = self.problems.get(id);
        let Some(service) = self.facts.services.get(id) else { return };
        if troubles.is_empty() && old.is_none() {
            return;
        }
        let mut new = old.map(|old| (**old).clone()).unwrap_or_default();
        source(&mut new).replace(&service.name, index, troubles);
        if new.is_empty() {
            self.problems.remove(id);
        } else if old.is_none_or(|old| **old != new) {
            self.problems.insert(id.clone(), Arc::new(new));
        }
    }
}

/// What a newcomer asks of a route that its incumbent does not grant.
fn differences(newcomer: &Intent, incumbent: &Intent, owner: &str, key: &RouteKey) -> Vec<Trouble> {
    let place = format!("{}{}", key.host, key.path);
    if incumbent.exclusive {
        let (label, value) = match &key.host {
            RouteHost::Default => (DEFAULT_BACKEND, "true".to_owned()),
            host => (HOSTS, host.to_string()),
        };
        let reason = format!("{place} belongs to {owner}, which has {EXCLUSIVE}=true");
        return vec![Trouble::new(label, &value, reason)];
    }
    let mut troubles = Vec::new();
    if newcomer.exclusive {
        let reason =
            format!("is not in force for {place}: {owner} came first and is not exclusive");
        troubles.push(Trouble::new(EXCLUSIVE, "true", reason));
    }
    let (asked, granted) = (&newcomer.route_options, &incumbent.route_options);
    let names: BTreeSet<_> = asked.keys().chain(granted.keys()).collect();
    for label in names {
        let (own, theirs) = (asked.get(label), granted.get(label));
        if own == theirs {
            continue;
        }
        let shown = |value: &LabelValue| labels::shown(value);
        let theirs = match theirs {
            Some(value) => format!("whose value {:?} is", shown(value)),
            None => "which has none, and that is".into(),
        };
        let reason = format!("differs from the incumbent {owner}, {theirs} in force for {place}");
        troubles.push(Trouble::new(label, &own.map(shown).unwrap_or_default(), reason));
    }
    troubles
}
