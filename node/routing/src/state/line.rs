//! One route as the state holds it, and the shares of its services.

use std::sync::Arc;

use super::upstreams::Shared;
use crate::command::Share;
use crate::names::ServiceId;
use crate::snapshot::{
    Dial, Route, RouteKey, RouteOptions, RouteService, Tls, UpstreamState, WEIGHT_SUM,
};

/// A route without its key; upstreams are shared with the service's other routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) tls: Tls,
    /// The incumbent's.
    pub(super) options: RouteOptions,
    /// The incumbent first. Never empty.
    pub(super) services: Vec<LineService>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LineService {
    pub(super) id: ServiceId,
    pub(super) name: Arc<str>,
    /// Given by the line.
    pub(super) weight: u16,
    pub(super) dial: Dial,
    pub(super) upstreams: Shared,
}

impl Line {
    /// A line whose services get the weights that a canary, or else their upstreams, give.
    pub(super) fn new(
        tls: Tls,
        options: RouteOptions,
        mut services: Vec<LineService>,
        canary: Option<&[Share]>,
    ) -> Self {
        let told = canary.and_then(|shares| by_shares(shares, &services));
        if told.is_some() {
            // A proxy takes a draining upstream for want of any other: not where a service
            // is to get none.
            let unnamed = |service: &&mut LineService| share(canary, &service.name) == 0;
            services.iter_mut().filter(unnamed).for_each(LineService::keep_active);
        }
        let weights = told.unwrap_or_else(|| by_upstreams(&services));
        for (service, weight) in services.iter_mut().zip(weights) {
            service.weight = weight;
        }
        Self { tls, options, services }
    }

    /// The route as a snapshot carries it.
    pub(super) fn route(&self, key: &RouteKey) -> Route {
        let service = |service: &LineService| RouteService {
            id: service.id.clone(),
            name: Arc::clone(&service.name),
            weight: service.weight,
            dial: service.dial.clone(),
            upstreams: service.upstreams.to_vec(),
        };
        Route {
            host: key.host.clone(),
            path: key.path.clone(),
            tls: self.tls.clone(),
            options: self.options.clone(),
            services: self.services.iter().map(service).collect(),
        }
    }
}

impl LineService {
    fn count(&self, state: UpstreamState) -> u64 {
        self.upstreams.iter().filter(|upstream| upstream.state == state).count() as u64
    }

    /// Drops the upstreams that are not active.
    fn keep_active(&mut self) {
        if self.count(UpstreamState::Draining) > 0 {
            let active = self.upstreams.iter().filter(|one| one.state == UpstreamState::Active);
            self.upstreams = active.cloned().collect();
        }
    }
}

/// The share that a canary gives to services of this name.
fn share(canary: Option<&[Share]>, name: &str) -> u64 {
    let shares = canary.unwrap_or_default();
    shares.iter().find(|share| *share.service == *name).map_or(0, |share| share.weight.into())
}

/// What counts: active upstreams; without any, draining ones; without any, each service.
const BASES: [Option<UpstreamState>; 3] =
    [Some(UpstreamState::Active), Some(UpstreamState::Draining), None];

fn counted(services: &[LineService], basis: Option<UpstreamState>) -> Vec<u64> {
    services.iter().map(|service| basis.map_or(1, |state| service.count(state))).collect()
}

/// Equal weights for all upstreams.
fn by_upstreams(services: &[LineService]) -> Vec<u16> {
    let bases = BASES.map(|basis| counted(services, basis));
    let basis = bases.into_iter().find(|counts| counts.iter().any(|count| *count > 0));
    shares(WEIGHT_SUM, &basis.unwrap_or_default())
}

/// The weights that shares give: by service first, then over the services of one name
/// by their upstreams.
///
/// `None` when no service with a share is there. A share that has no upstream goes to
/// the others in proportion; whoever has no share takes none of it.
fn by_shares(told: &[Share], services: &[LineService]) -> Option<Vec<u16>> {
    let of = |service: &LineService| share(Some(told), &service.name);
    for basis in BASES {
        let counts = counted(services, basis);
        let mut names: Vec<(&str, u64)> = Vec::new();
        for (service, count) in services.iter().zip(&counts) {
            let is_new = names.iter().all(|(name, _)| **name != *service.name);
            if of(service) > 0 && *count > 0 && is_new {
                names.push((&service.name, of(service)));
            }
        }
        if names.is_empty() {
            continue;
        }
        let parts: Vec<_> = names.iter().map(|(_, part)| *part).collect();
        let mut weights = vec![0; services.len()];
        for ((name, _), whole) in names.iter().zip(shares(WEIGHT_SUM, &parts)) {
            let own =
                |service: &LineService, count| if *service.name == **name { count } else { 0 };
            let counts: Vec<_> =
                services.iter().zip(&counts).map(|(service, count)| own(service, *count)).collect();
            for (weight, part) in weights.iter_mut().zip(shares(whole, &counts)) {
                *weight += part;
            }
        }
        return Some(weights);
    }
    None
}

/// Splits a whole in proportion: largest remainder, ties to the earlier.
fn shares(whole: u16, basis: &[u64]) -> Vec<u16> {
    let total: u64 = basis.iter().sum();
    let most = whole;
    let whole = u64::from(whole);
    if total == 0 {
        return vec![0; basis.len()];
    }
    let mut shares: Vec<u64> = basis.iter().map(|part| part * whole / total).collect();
    let left = whole - shares.iter().sum::<u64>();
    let mut by_remainder: Vec<usize> = (0..basis.len()).collect();
    by_remainder.sort_by_key(|&position| std::cmp::Reverse(basis[position] * whole % total));
    for &position in by_remainder.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
        shares[position] += 1;
    }
    shares.into_iter().map(|share| u16::try_from(share).unwrap_or(most)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_the_whole_and_favour_the_largest_remainder() {
        for (basis, expected) in [
            (vec![1], vec![10_000]),
            (vec![1, 1], vec![5_000, 5_000]),
            (vec![1, 1, 1], vec![3_334, 3_333, 3_333]),
            (vec![4, 1], vec![8_000, 2_000]),
            (vec![0, 3], vec![0, 10_000]),
            (vec![1, 2, 4], vec![1_429, 2_857, 5_714]),
        ] {
            assert_eq!(shares(WEIGHT_SUM, &basis), expected, "{basis:?}");
        }
    }
}
