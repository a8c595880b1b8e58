//! Rolling back, releasing, and the ends that nobody orders.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use super::super::canary::{CANARIES, CANARIES_PER_CLUSTER_MAX, Canary, Override};
use super::super::{ROUTES_PER_CLUSTER_MAX, State};
use super::{ENDED_ROLLBACKS_MAX, Ended, Held, Rollback, agree, option_of};
use crate::entry::{Applied, LogIndex, Rejection};
use crate::intent::{Intents, Scope};
use crate::labels::HostKey;
use crate::names::ServiceCluster;
use crate::snapshot::RouteKey;

/// What routes above the limit are refused for.
pub(crate) const ROUTES: &str = "routes of a service cluster, with those that come back";

/// The longest time that a rollback can be for, in milliseconds: 366 days.
const FOR_MS_MAX: u64 = 366 * 24 * 3_600 * 1_000;

fn refused(reason: impl Into<Arc<str>>) -> Rejection {
    Rejection::Refused { reason: reason.into() }
}

impl State {
    /// Gives the routes in scope the intents that they had after the entry `to`.
    ///
    /// All or nothing: a service that is gone refuses the whole order.
    pub(in super::super) fn roll_back(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        (service_cluster, scope): (&ServiceCluster, &Scope),
        to: LogIndex,
        for_ms: Option<u64>,
    ) -> Result<Applied, Rejection> {
        if to >= index {
            let applied = LogIndex(index.0.saturating_sub(1));
            return Err(refused(format!(
                "index {to} is in the future: the last entry is {applied}"
            )));
        }
        if let Some(given) = for_ms.filter(|given| *given == 0 || *given > FOR_MS_MAX) {
            return Err(refused(format!(
                "{given} ms is no time that a rollback can be for: give one from 1 ms to 366 days, \
                 or none to roll back until it is released"
            )));
        }
        let all =
            self.intent_at(service_cluster, to).map_err(|error| refused(error.to_string()))?;
        let then = all.within(scope);
        self.check_then(&then, scope, to)?;

        let released = self.held_within(service_cluster, scope);
        let mut held = self.rollbacks.held.clone();
        released.iter().for_each(|key| drop(held.remove(key)));
        let order = Arc::new(Rollback {
            to,
            scope: scope.clone(),
            actor: Arc::clone(actor),
            index,
            until_ms: for_ms.map(|for_ms| self.leader_time_ms.saturating_add(for_ms)),
        });
        for (key, intent) in &then.routes {
            let (intent, order) = (Arc::clone(intent), Arc::clone(&order));
            held.insert(key.clone(), Arc::new(Held { intent, order, swarm: None, changes: 0 }));
        }
        self.check_hosts(&then, &all, &held)?;
        self.check_room_for(&then, &released, &held)?;

        self.end(&released, |_| None);
        for (key, intent) in &then.routes {
            self.rollbacks.ended.remove(key);
            if intent.shares.is_empty() {
                self.canaries.remove(key);
                continue;
            }
            let shares = intent.shares.clone();
            let set = Override { shares, actor: Arc::clone(actor), index };
            let canary = Canary { set: Some(set), ..Canary::default() };
            self.canaries.insert(key.clone(), Arc::new(canary));
        }
        self.rollbacks.held = held;
        self.rollbacks.index();
        let mut keys: BTreeSet<_> = then.routes.keys().cloned().collect();
        self.note_swarm(&keys);
        keys.extend(released);
        Ok(self.derive_routes(index, keys))
    }

    /// Ends the rollbacks in scope: routes are what Swarm says, with equal weights.
    pub(in super::super) fn release(
        &mut self,
        index: LogIndex,
        service_cluster: &ServiceCluster,
        scope: &Scope,
    ) -> Result<Applied, Rejection> {
        let keys = self.held_within(service_cluster, scope);
        // A service that is gone is nobody's any more: what ended goes by host alone.
        let is_told = |key: &&RouteKey| {
            key.service_cluster == *service_cluster
                && scope.service.is_none()
                && scope.host.as_ref().is_none_or(|host| *host == key.host)
        };
        let told: BTreeSet<_> = self.rollbacks.ended.keys().filter(is_told).cloned().collect();
        if keys.is_empty() && told.is_empty() {
            return Err(refused(format!(
                "no rollback holds {scope}{}: nothing to release",
                of(service_cluster)
            )));
        }
        told.iter().for_each(|key| drop(self.rollbacks.ended.remove(key)));
        self.end(&keys, |_| None);
        Ok(self.derive_routes(index, keys))
    }

    /// Ends the rollbacks whose time has come.
    pub(in super::super) fn expire_rollbacks(&mut self, index: LogIndex) -> Applied {
        let now = self.leader_time_ms;
        if self.rollbacks.deadline_ms.is_none_or(|deadline| deadline > now) {
            return Applied::Unchanged;
        }
        let is_over = |held: &Held| held.order.until_ms.is_some_and(|until| until <= now);
        let over = self.rollbacks.held.iter().filter(|(_, held)| is_over(held));
        let keys: BTreeSet<_> = over.map(|(key, _)| key.clone()).collect();
        self.end(&keys, |_| None);
        self.derive_routes(index, keys)
    }

    /// Ends the rollbacks among `keys` that have no service left where another claims the
    /// route; returns their routes.
    pub(in super::super) fn end_deserted(
        &mut self,
        index: LogIndex,
        keys: &BTreeSet<RouteKey>,
    ) -> BTreeSet<RouteKey> {
        let claimant = |key: &RouteKey| {
            let claim = self.claims.of(key).first()?;
            self.facts.services.get(&claim.service).map(|service| Arc::clone(&service.name))
        };
        let is_deserted = |key: &&RouteKey| {
            let serves = |name| self.published_as(name).next().is_some();
            let held = self.rollbacks.get(key);
            held.is_some_and(|held| !held.intent.services.iter().any(serves))
        };
        let deserted = keys.iter().filter(is_deserted);
        let deserted = deserted.filter_map(|key| Some((key.clone(), claimant(key)?)));
        let deserted: OrdMap<RouteKey, Arc<str>> = deserted.collect();
        let ended: BTreeSet<_> = deserted.keys().cloned().collect();
        self.end(&ended, |key| Some((index, deserted.get(key)?.clone())));
        ended
    }

    /// Whether what was then can be again: it is something, and its services are there.
    fn check_then(&self, then: &Intents, scope: &Scope, to: LogIndex) -> Result<(), Rejection> {
        if then.is_empty() {
            return Err(refused(format!(
                "at index {to} there were no {}{}: dovetail routes --at {to} lists those that \
                 there were",
                match (&scope.host, &scope.service) {
                    (None, None) => "routes".to_owned(),
                    _ => scope.to_string(),
                },
                of(&then.service_cluster)
            )));
        }
        for (key, intent) in &then.routes {
            for name in &intent.services {
                if self.published_as(name).next().is_some() {
                    continue;
                }
                let what = match self.facts.named(name).next() {
                    Some(_) => "publishes nothing any more, so that its port is not known",
                    None => "is gone",
                };
                return Err(refused(format!(
                    "service {name}, which was on {key} at index {to}, {what}: deploy it again, \
                     or narrow the rollback with --host or --service"
                )));
            }
        }
        Ok(())
    }

    /// Whether the held routes of each host agree on its TLS, and leave that of others alone.
    fn check_hosts(
        &self,
        then: &Intents,
        all: &Intents,
        held: &OrdMap<RouteKey, Arc<Held>>,
    ) -> Result<(), Rejection> {
        let now = self.intents(&then.service_cluster);
        let hosts: BTreeSet<_> = then.routes.keys().map(RouteKey::host_key).collect();
        for key in hosts.iter().map(HostKey::first_route) {
            let of_host = |other: &RouteKey| other.host_key() == key.host_key();
            let own = then.routes.range(key.clone()..).take_while(|(other, _)| of_host(other));
            let own: Vec<_> = own.map(|(_, intent)| &intent.tls).collect();
            let whole = format!("roll back the whole host with {}", option_of(&key.host));
            for (other, one) in held.range(key.clone()..).take_while(|(other, _)| of_host(other)) {
                if !own.iter().all(|tls| agree(tls, &one.intent.tls)) {
                    return Err(refused(format!(
                        "{other} is held by the rollback at index {} with other TLS: {whole}",
                        one.order.index
                    )));
                }
            }
            for (other, was) in
                all.routes.range(key.clone()..).take_while(|(other, _)| of_host(other))
            {
                let differs = now.get(other).is_some_and(|is| is.tls != was.tls);
                if differs && !held.contains_key(other) {
                    return Err(refused(format!(
                        "the TLS of host {} was another then, and {other} shares it: {whole}",
                        key.host
                    )));
                }
            }
        }
        Ok(())
    }

    /// Whether routes and canaries that come back are within the limits.
    fn check_room_for(
        &self,
        then: &Intents,
        released: &BTreeSet<RouteKey>,
        held: &OrdMap<RouteKey, Arc<Held>>,
    ) -> Result<(), Rejection> {
        let name = &then.service_cluster;
        let is_of = |key: &&RouteKey| key.service_cluster == *name;
        let unclaimed = held.keys().filter(is_of).filter(|key| self.claims.of(key).is_empty());
        let sum = self.claims.routes(name).unwrap_or_default() + unclaimed.count();
        if sum > ROUTES_PER_CLUSTER_MAX {
            return Err(above(ROUTES, sum, ROUTES_PER_CLUSTER_MAX));
        }
        let stays = |key: &&RouteKey| !released.contains(*key) && !then.routes.contains_key(*key);
        let old = self.canaries.keys().filter(is_of).filter(stays).count();
        let new = then.routes.values().filter(|intent| !intent.shares.is_empty()).count();
        if new > 0 && old + new > CANARIES_PER_CLUSTER_MAX {
            return Err(above(CANARIES, old + new, CANARIES_PER_CLUSTER_MAX));
        }
        Ok(())
    }

    /// The held routes within a scope.
    fn held_within(&self, service_cluster: &ServiceCluster, scope: &Scope) -> BTreeSet<RouteKey> {
        let within = |(key, held): &(&RouteKey, &Arc<Held>)| {
            key.service_cluster == *service_cluster && scope.covers(key, &held.intent)
        };
        self.rollbacks.held.iter().filter(within).map(|(key, _)| key.clone()).collect()
    }

    /// Takes the hold off routes, with the shares that came with it; where `told` says
    /// when and for whom, as a problem.
    fn end(
        &mut self,
        keys: &BTreeSet<RouteKey>,
        told: impl Fn(&RouteKey) -> Option<(LogIndex, Arc<str>)>,
    ) {
        if keys.is_empty() {
            return;
        }
        for key in keys {
            self.canaries.remove(key);
            let Some(held) = self.rollbacks.held.remove(key) else { continue };
            if let Some((at, claimant)) = told(key) {
                let ended = Ended { order: Arc::clone(&held.order), at, claimant };
                self.rollbacks.ended.insert(key.clone(), ended);
            }
        }
        while self.rollbacks.ended.len() > ENDED_ROLLBACKS_MAX {
            let oldest = self.rollbacks.ended.iter().min_by_key(|(_, ended)| ended.at);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            self.rollbacks.ended.remove(&oldest);
        }
        self.rollbacks.index();
    }

    /// Notes what Swarm says of routes that have just come to be held.
    fn note_swarm(&mut self, keys: &BTreeSet<RouteKey>) {
        self.recount_held(keys, &BTreeSet::new());
        for key in keys {
            if let Some(held) = self.rollbacks.held.get(key) {
                let held = Held { changes: 0, ..(**held).clone() };
                self.rollbacks.held.insert(key.clone(), Arc::new(held));
            }
        }
    }

    /// Derives again what depends on whether these routes are held.
    fn derive_routes(&mut self, index: LogIndex, mut keys: BTreeSet<RouteKey>) -> Applied {
        let hosts: BTreeSet<_> = keys.iter().map(RouteKey::host_key).collect();
        for host in &hosts {
            if self.settle(host) {
                keys.extend(self.claims.on_host(host).map(|(key, _)| key.clone()));
            }
        }
        let applied = self.redrawn(index, &keys);
        let claims = keys.iter().flat_map(|key| self.claims.of(key));
        let rivals: BTreeSet<_> = claims.map(|claim| claim.service.clone()).collect();
        for id in &rivals {
            self.compare(index, id);
        }
        applied
    }
}

fn above(what: &'static str, given: usize, limit: usize) -> Rejection {
    Rejection::AboveLimit { what, given: given as u64, limit: limit as u64 }
}

fn of(service_cluster: &ServiceCluster) -> String {
    match service_cluster.as_str() {
        "" => String::new(),
        name => format!(" in service cluster {name}"),
    }
}
