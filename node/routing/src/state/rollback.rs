//! Routes whose earlier intent an operator put in force: a layer over what Swarm says.
//!
//! A held route has the hosts, TLS, options and services of an earlier entry, and the
//! shares as its canary; upstreams are live ones. What Swarm says meanwhile is recorded
//! and counted. It ends by a release, by its time, or when its last service is gone and
//! another claims the route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use super::State;
use super::facts::Touched;
use super::force::HostTls;
use super::line::LineService;
use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::entry::{LogIndex, Rejection};
use crate::intent::{RouteIntent, Scope};
use crate::labels::{HostKey, Intent};
use crate::names::ServiceId;
use crate::problem::Problem;
use crate::snapshot::{RouteHost, RouteKey, RouteOptions, Tls};

mod orders;

pub(crate) use orders::ROUTES;

/// Rollbacks that ended by themselves and are told as problems; the oldest is forgotten first.
pub const ENDED_ROLLBACKS_MAX: usize = 1_000;

/// An operator's order to roll back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// The entry after which the routes were as they are again.
    pub to: LogIndex,
    pub scope: Scope,
    /// Who ordered it.
    pub actor: Arc<str>,
    /// The entry that did.
    pub index: LogIndex,
    /// When it ends, in milliseconds of leader time; `None` when it is released.
    pub until_ms: Option<u64>,
}

/// A route that a rollback holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What is in force.
    pub intent: Arc<RouteIntent>,
    pub order: Arc<Rollback>,
    /// What Swarm says, with equal weights; `None` when no service claims the route.
    pub swarm: Option<Arc<RouteIntent>>,
    /// How often that changed since the order.
    pub changes: u64,
}

/// A rollback of a route that ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    order: Arc<Rollback>,
    at: LogIndex,
    /// The service that claims the route now.
    claimant: Arc<str>,
}

/// All rollbacks in force, by route.
#[derive(Clone, Debug, Default)]
pub(super) struct Rollbacks {
    held: OrdMap<RouteKey, Arc<Held>>,
    ended: OrdMap<RouteKey, Ended>,
    // Derived from `held`, never encoded.
    by_service: OrdMap<Arc<str>, Arc<BTreeSet<RouteKey>>>,
    pub(super) deadline_ms: Option<u64>,
}

impl Rollbacks {
    /// What the state's digest covers.
    pub(super) fn parts(&self) -> (&OrdMap<RouteKey, Arc<Held>>, &OrdMap<RouteKey, Ended>) {
        let Self { held, ended, by_service: _, deadline_ms: _ } = self;
        (held, ended)
    }

    pub(super) fn get(&self, key: &RouteKey) -> Option<&Held> {
        self.held.get(key).map(Arc::as_ref)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &RouteKey> {
        self.held.keys()
    }

    /// Puts what is derived together again.
    fn index(&mut self) {
        let mut by_service: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (key, held) in &self.held {
            for service in &held.intent.services {
                by_service.entry(Arc::clone(service)).or_default().insert(key.clone());
            }
        }
        let shared = |(name, keys)| (name, Arc::new(keys));
        self.by_service = by_service.into_iter().map(shared).collect();
        self.deadline_ms = self.held.values().filter_map(|held| held.order.until_ms).min();
    }

    /// The held routes of a host.
    fn on_host<'a>(
        &'a self,
        host: &'a HostKey,
    ) -> impl Iterator<Item = (&'a RouteKey, &'a Arc<Held>)> {
        self.held.range(host.first_route()..).take_while(|(key, _)| {
            key.host == host.host && key.service_cluster == host.service_cluster
        })
    }
}

impl State {
    /// The routes that rollbacks hold, in order of service cluster, host and path.
    pub fn rollbacks(&self) -> impl Iterator<Item = (&RouteKey, &Held)> {
        self.rollbacks.held.iter().map(|(key, held)| (key, &**held))
    }

    /// What holds a route, if a rollback does.
    pub fn rollback(&self, route: &RouteKey) -> Option<&Held> {
        self.rollbacks.get(route)
    }

    /// Refuses to order shares on a route that a rollback holds.
    pub(super) fn check_not_rolled_back(&self, route: &RouteKey) -> Result<(), Rejection> {
        let Some(held) = self.rollbacks.get(route) else { return Ok(()) };
        let reason = format!(
            "{route} is rolled back at {} (to index {}, by {}): release first, with dovetail release",
            held.order.index, held.order.to, held.order.actor
        );
        Err(Rejection::Refused { reason: reason.into() })
    }

    /// The published services of a name.
    fn published_as<'a>(
        &'a self,
        name: &'a Arc<str>,
    ) -> impl Iterator<Item = (&'a ServiceId, &'a Intent)> {
        let named = self.facts.named(name);
        named.filter_map(|id| Some((id, &**self.intents.get(id)?)))
    }

    /// A held route with live upstreams: nobody when all of its services are gone.
    pub(super) fn held_in_force(
        &self,
        key: &RouteKey,
        intent: &RouteIntent,
    ) -> Option<(Tls, RouteOptions, Vec<LineService>)> {
        let named = intent.services.iter().flat_map(|name| self.published_as(name));
        let services: Vec<_> = named.map(|served| self.line_service(key, served)).collect();
        if services.is_empty() {
            return None;
        }
        Some((intent.tls.clone(), intent.options.clone(), services))
    }

    /// What is in force of a host's TLS: its held routes decide before its claims.
    pub(super) fn host_tls(&self, host: &HostKey) -> Option<HostTls> {
        let Some((_, first)) = self.rollbacks.on_host(host).next() else {
            return self.swarm_tls(host);
        };
        let owner = |held: &Held| {
            let mut ids = held.intent.services.iter().flat_map(|name| self.facts.named(name));
            ids.next().cloned().unwrap_or_default()
        };
        let passthrough = first.intent.tls == Tls::Passthrough;
        let mut certificates =
            self.rollbacks.on_host(host).filter_map(|(_, held)| match &held.intent.tls {
                Tls::Terminate(certificate) => Some((owner(held), certificate.clone())),
                Tls::None | Tls::Passthrough => None,
            });
        let certificate = certificates.next().or_else(|| {
            let is_held = |key: &RouteKey| self.rollbacks.get(key).is_some();
            self.claimed_tls(host, is_held, Some(passthrough))?.certificate
        });
        Some(HostTls { owner: owner(first), passthrough, certificate })
    }

    /// What Swarm says of a host's TLS.
    fn swarm_tls(&self, host: &HostKey) -> Option<HostTls> {
        self.claimed_tls(host, |_| false, None)
    }

    /// What Swarm says of a route, with equal weights.
    fn swarm_intent(&self, key: &RouteKey, host: Option<&HostTls>) -> Option<Arc<RouteIntent>> {
        let (tls, options, serving) = self.asked(key, host?)?;
        let mut services: Vec<Arc<str>> = Vec::new();
        for (id, _) in serving {
            let name = self.facts.services.get(id).map(|service| service.name.clone());
            let name = name.unwrap_or_default();
            if !services.contains(&name) {
                services.push(name);
            }
        }
        Some(Arc::new(RouteIntent { tls, options, services, shares: Vec::new() }))
    }

    /// The held routes on which services are that an entry concerns.
    pub(super) fn held_by(
        &self,
        touched: &Touched,
        served: &BTreeSet<ServiceId>,
    ) -> BTreeSet<RouteKey> {
        let by_service = &self.rollbacks.by_service;
        if by_service.is_empty() {
            return BTreeSet::new();
        }
        let name = |id| self.facts.services.get(id).map(|service| &service.name);
        let names = touched.names.iter().chain(served.iter().filter_map(name));
        names
            .filter_map(|name| by_service.get(name))
            .flat_map(|keys| keys.iter().cloned())
            .collect()
    }

    /// Counts what Swarm says anew of held routes; a route's host counts whole.
    pub(super) fn recount_held(&mut self, keys: &BTreeSet<RouteKey>, hosts: &BTreeSet<HostKey>) {
        if self.rollbacks.held.is_empty() {
            return;
        }
        let of_hosts = hosts.iter().flat_map(|host| self.rollbacks.on_host(host));
        let mut all: BTreeSet<_> = of_hosts.map(|(key, _)| key.clone()).collect();
        all.extend(keys.iter().filter(|key| self.rollbacks.get(key).is_some()).cloned());
        let mut tls: BTreeMap<HostKey, Option<HostTls>> = BTreeMap::new();
        for key in all {
            let Some(held) = self.rollbacks.held.get(&key).cloned() else { continue };
            let host = key.host_key();
            let host_tls = tls.entry(host.clone()).or_insert_with(|| self.swarm_tls(&host));
            let swarm = self.swarm_intent(&key, host_tls.as_ref());
            if swarm != held.swarm {
                let changes = held.changes.saturating_add(1);
                let held = Held { swarm, changes, ..(*held).clone() };
                self.rollbacks.held.insert(key, Arc::new(held));
            }
        }
    }

    /// Rollbacks that ended by themselves.
    pub(super) fn rollback_problems(&self, to: &mut Vec<Problem>) {
        to.extend(self.rollbacks.ended.iter().map(|(key, ended)| {
            Problem {
                service: Arc::clone(&ended.claimant),
                label: "".into(),
                value: key.to_string().into(),
                reason: format!(
                    "the rollback of {key} to index {} by {} at index {} ended by itself: its last \
                     service is gone, and {} claims the route; dovetail release takes this off",
                    ended.order.to, ended.order.actor, ended.order.index, ended.claimant
                )
                .into(),
                since_index: ended.at,
            }
        }));
    }

    /// Whether decoded rollbacks could have been written.
    pub(super) fn check_rollbacks(&self) -> Result<(), InvalidBytes> {
        let invalid = |reason| Err(InvalidBytes::whole("rollbacks", reason));
        for (key, held) in &self.rollbacks.held {
            if held.intent.services.is_empty() {
                return invalid("a held route without a service");
            }
            if !self.clusters.contains_key(&key.service_cluster) {
                return invalid("a held route's service cluster has no revision");
            }
        }
        Ok(())
    }
}

/// Whether two TLS modes can be of one host.
fn agree(one: &Tls, other: &Tls) -> bool {
    match (one, other) {
        (Tls::Passthrough, Tls::Passthrough) => true,
        (Tls::Passthrough, _) | (_, Tls::Passthrough) => false,
        (Tls::Terminate(one), Tls::Terminate(other)) => one == other,
        (Tls::None, _) | (_, Tls::None) => true,
    }
}

/// How an order names a host.
fn option_of(host: &RouteHost) -> String {
    format!("--host {}", if *host == RouteHost::Default { "'*'".into() } else { host.to_string() })
}

crate::codec::fields! {
    Rollback { to scope actor index until_ms }
    Held { intent order swarm changes }
    Ended { order at claimant }
}

crate::codec::shared! { Rollback Held }

impl Canonical for Rollbacks {
    fn write(&self, out: &mut Vec<u8>) {
        self.held.write(out);
        self.ended.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let mut read = Self { held: from.read()?, ended: from.read()?, ..Self::default() };
        read.index();
        Ok(read)
    }
}
