//! Who claimed a route, and since when: the oldest claim is the incumbent's.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use super::State;
use crate::entry::LogIndex;
use crate::explain::ClaimOf;
use crate::labels::{HostKey, Intent};
use crate::names::{ServiceCluster, ServiceId};
use crate::snapshot::{Route, RouteKey};

/// One service's claim to one route. Claims compare by age; equal ages by the
/// service's creation, then its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// The entry that first showed it valid.
    pub(super) since: LogIndex,
    pub(super) created_at: Arc<str>,
    pub(super) service: ServiceId,
}

/// All claims by route, each route's sorted. No route is without a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) by_route: OrdMap<RouteKey, Vec<Claim>>,
    /// How many routes of each service cluster are claimed: derived, never encoded.
    counts: OrdMap<ServiceCluster, usize>,
}

impl Claims {
    /// Decoded claims.
    pub(super) fn new(by_route: OrdMap<RouteKey, Vec<Claim>>) -> Self {
        let mut counts = OrdMap::new();
        for key in by_route.keys() {
            *counts.entry(key.service_cluster.clone()).or_insert(0) += 1;
        }
        Self { by_route, counts }
    }

    /// How many routes of a service cluster are claimed; `None` when it has no route.
    pub(super) fn routes(&self, service_cluster: &ServiceCluster) -> Option<usize> {
        self.counts.get(service_cluster).copied()
    }

    /// The service clusters that have a route.
    pub(super) fn service_clusters(&self) -> impl Iterator<Item = &ServiceCluster> {
        self.counts.keys()
    }

    /// The claims to a route, the incumbent's first.
    pub(super) fn of(&self, key: &RouteKey) -> &[Claim] {
        self.by_route.get(key).map_or(&[], Vec::as_slice)
    }

    /// The claimed routes of a host.
    pub(super) fn on_host<'a>(
        &'a self,
        host: &'a HostKey,
    ) -> impl Iterator<Item = (&'a RouteKey, &'a Vec<Claim>)> {
        self.by_route.range(host.first_route()..).take_while(|(key, _)| {
            key.host == host.host && key.service_cluster == host.service_cluster
        })
    }

    /// Ends the claims of `old` that `new` does not repeat, and begins the new ones.
    ///
    /// Returns the routes of both: whatever they show may differ.
    pub(super) fn replace(
        &mut self,
        service: &ServiceId,
        created_at: &Arc<str>,
        index: LogIndex,
        old: Option<&Intent>,
        new: Option<&Intent>,
    ) -> BTreeSet<RouteKey> {
        let before: BTreeSet<_> = old.into_iter().flat_map(Intent::keys).collect();
        let mut after: BTreeSet<_> = new.into_iter().flat_map(Intent::keys).collect();
        for key in before.difference(&after) {
            let mut left = self.of(key).to_vec();
            left.retain(|claim| claim.service != *service);
            if left.is_empty() {
                self.by_route.remove(key);
                self.count(&key.service_cluster, |routes| routes.saturating_sub(1));
            } else {
                self.by_route.insert(key.clone(), left);
            }
        }
        for key in after.difference(&before) {
            let claim = Claim {
                since: index,
                created_at: Arc::clone(created_at),
                service: service.clone(),
            };
            let mut claims = self.of(key).to_vec();
            let position = claims.partition_point(|other| *other < claim);
            claims.insert(position, claim);
            if self.by_route.insert(key.clone(), claims).is_none() {
                self.count(&key.service_cluster, |routes| routes + 1);
            }
        }
        after.extend(before);
        after
    }

    fn count(&mut self, service_cluster: &ServiceCluster, change: fn(usize) -> usize) {
        let routes = change(self.routes(service_cluster).unwrap_or_default());
        if routes == 0 {
            self.counts.remove(service_cluster);
        } else {
            self.counts.insert(service_cluster.clone(), routes);
        }
    }
}

impl State {
    /// The claims to a route, the oldest first.
    pub(crate) fn claims_to(&self, key: &RouteKey, route: &Route) -> Vec<ClaimOf> {
        let told = |claim: &Claim| ClaimOf {
            id: claim.service.clone(),
            name: self.service(&claim.service).map(|one| one.name.clone()).unwrap_or_default(),
            since: claim.since,
            in_force: route.services.iter().any(|service| service.id == claim.service),
        };
        self.claims.of(key).iter().map(told).collect()
    }
}

crate::codec::fields! { Claim { since created_at service } }
