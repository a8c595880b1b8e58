//! From what changed to what differs: intents, claims, upstreams, lines, problems.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claims::Claim;
use super::cluster::Cluster;
use super::facts::Touched;
use super::line::Line;
use super::upstreams::upstreams;
use super::{ROUTES_PER_CLUSTER_MAX, SERVICE_CLUSTERS_MAX, SERVICES_PER_ROUTE_MAX, State};
use crate::entry::{Applied, LogIndex};
use crate::labels::{self, HOSTS, Intent, Reading, SERVICE_CLUSTER, Seen};
use crate::names::{ServiceCluster, ServiceId};
use crate::problem::{Kept, ServiceProblems, Trouble};
use crate::snapshot::{Revision, RouteKey, Tls};

impl State {
    /// Derives again what `touched` concerns.
    pub(super) fn derive(&mut self, index: LogIndex, touched: &Touched) -> Applied {
        let mut keys = BTreeSet::new();
        let mut hosts = BTreeSet::new();
        for id in &touched.services {
            let old = self.intents.get(id).cloned();
            let of_service = self.reread(index, id);
            let new = self.intents.get(id).map(Arc::as_ref);
            let unsettled =
                of_service.iter().filter(|key| self.unsettles(key, old.as_deref(), new));
            hosts.extend(unsettled.map(RouteKey::host_key));
            keys.extend(of_service);
        }
        let held = self.held_by(touched, &touched.services);
        hosts.extend(held.iter().map(RouteKey::host_key));
        keys.extend(held);
        let ended = self.end_deserted(index, &keys);
        hosts.extend(ended.iter().map(RouteKey::host_key));
        self.recount_held(&keys, &hosts);
        for host in &hosts {
            if self.settle(host) {
                keys.extend(self.claims.on_host(host).map(|(key, _)| key.clone()));
            }
        }
        // Whoever shares a route with a service that was read again may differ from it now.
        let mut rivals = touched.services.clone();
        for key in &keys {
            rivals.extend(self.claims.of(key).iter().map(|claim| claim.service.clone()));
        }
        let mut served: BTreeSet<_> = touched.services.union(&touched.upstreams).cloned().collect();
        if touched.networks {
            let on_any =
                self.intents.iter().filter(|(_, intent)| intent.upstreams.network.is_none());
            served.extend(on_any.map(|(id, _)| id.clone()));
        }
        for id in &served {
            if self.refresh(index, id) {
                keys.extend(self.intents.get(id).into_iter().flat_map(|intent| intent.keys()));
            }
        }
        keys.extend(self.held_by(touched, &served));
        let applied = self.redrawn(index, &keys);
        for id in &rivals {
            self.compare(index, id);
        }
        applied
    }

    /// Whether a service's new intent may change the TLS of a route's host.
    ///
    /// One without TLS that joins a known host does not: its claim is the youngest. So
    /// a host of many services is not looked through for each that comes.
    fn unsettles(&self, key: &RouteKey, old: Option<&Intent>, new: Option<&Intent>) -> bool {
        let tls = |intent: Option<&Intent>| intent.map_or(Tls::None, |one| one.tls.clone());
        let claims = |intent: Option<&Intent>| intent.is_some_and(|one| one.claims(key));
        match (claims(old), claims(new)) {
            (false, true) => tls(new) != Tls::None || !self.hosts.contains_key(&key.host_key()),
            (true, false) => true,
            (true, true) => tls(old) != tls(new),
            (false, false) => false,
        }
    }

    /// Derives again what depends on which services may share a route.
    pub(super) fn derive_merges(&mut self, index: LogIndex, service_cluster: &ServiceCluster) {
        let is_of = |(key, _): &(&RouteKey, &Vec<Claim>)| key.service_cluster == *service_cluster;
        let of_cluster = self.claims.by_route.iter().filter(is_of);
        let mut keys = BTreeSet::new();
        let mut rivals = BTreeSet::new();
        for (key, claims) in of_cluster.filter(|(_, claims)| claims.len() > 1) {
            keys.insert(key.clone());
            rivals.extend(claims.iter().map(|claim| claim.service.clone()));
        }
        self.recount_held(&keys, &BTreeSet::new());
        self.redrawn(index, &keys);
        for id in &rivals {
            self.compare(index, id);
        }
    }

    /// Draws routes again; a service cluster whose line differs has a new revision.
    pub(super) fn redrawn(&mut self, index: LogIndex, keys: &BTreeSet<RouteKey>) -> Applied {
        let mut changed = BTreeSet::new();
        for key in keys {
            if self.redraw(key) {
                changed.insert(&key.service_cluster);
            }
            self.note_lacking(index, key);
        }
        let turned = self.settle_circles();
        for key in &turned {
            if self.redraw(key) {
                changed.insert(&key.service_cluster);
            }
        }
        self.note_intents(index, keys);
        self.note_intents(index, &turned);
        for name in &changed {
            if let Some(cluster) = self.clusters.get_mut(*name) {
                cluster.changed(Revision(index.0));
            }
        }
        if changed.is_empty() { Applied::Unchanged } else { Applied::Changed(Revision(index.0)) }
    }

    /// Reads a service's labels again; returns the routes that may differ by it.
    fn reread(&mut self, index: LogIndex, id: &ServiceId) -> BTreeSet<RouteKey> {
        let old = self.intents.get(id).cloned();
        let Some(service) = self.facts.services.get(id).cloned() else {
            self.intents.remove(id);
            self.problems.remove(id);
            return self.claims.replace(id, &"".into(), index, old.as_deref(), None);
        };
        let facts = &self.facts;
        let seen = Seen {
            network: &|id| facts.networks.get(id).map(Arc::as_ref),
            secret: &|name| facts.has_secret(name),
        };
        let (reading, mut troubles) = labels::read(&service, seen);
        let new = match reading {
            Reading::Withdrawn => None,
            Reading::Invalid => old.clone(),
            Reading::Valid(intent) => match self.above_limit(id, &intent) {
                None => Some(intent),
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
        let (new, troubles) = upstreams(&self.facts, &self.drains, service, &intent);
        self.report(index, id, troubles, |problems| &mut problems.upstreams);
        if self.upstreams.get(id).is_some_and(|old| **old == *new) {
            return false;
        }
        self.upstreams.insert(id.clone(), new.into());
        true
    }

    /// Draws a route's line again, and tells whether it differs.
    pub(super) fn redraw(&mut self, key: &RouteKey) -> bool {
        let name = &key.service_cluster;
        let drawn = self.clusters.get(name).and_then(|cluster| cluster.lines.get(key)).cloned();
        let in_force = self.in_force(key);
        let asked = in_force
            .as_ref()
            .map(|(_, options, services)| (self.claimed_since(key, services.first()), options));
        self.circles.note(key, asked, drawn.as_deref());
        let Some((tls, mut options, services)) = in_force else {
            let cluster = self.clusters.get_mut(name);
            return cluster.is_some_and(|cluster| cluster.lines.remove(key).is_some());
        };
        if self.circles.leads_back(key) {
            options.redirect = None;
        }
        let shares = self.canaries.get(key).and_then(|canary| canary.shares());
        let line = Line::new(tls, options, services, shares);
        if drawn.is_some_and(|drawn| *drawn == line) {
            return false;
        }
        self.cluster_mut(name).lines.insert(key.clone(), Arc::new(line));
        true
    }

    fn cluster_mut(&mut self, name: &ServiceCluster) -> &mut Cluster {
        self.clusters.entry(name.clone()).or_default()
    }

    /// Replaces the problems of one source.
    pub(super) fn report(
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
