//! One route as the state holds it, and the shares of its services.

use std::sync::Arc;

use super::upstreams::Shared;
use crate::labels::RouteKey;
use crate::names::ServiceId;
use crate::snapshot::{Dial, Route, RouteOptions, RouteService, Tls, UpstreamState, WEIGHT_SUM};

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
    /// A line whose services get the weights that their upstreams give.
    pub(super) fn new(tls: Tls, options: RouteOptions, mut services: Vec<LineService>) -> Self {
        let counts = |state| {
            let count = |service: &LineService| {
                service.upstreams.iter().filter(|upstream| upstream.state == state).count() as u64
            };
            services.iter().map(count).collect::<Vec<_>>()
        };
        let some = |counts: &Vec<u64>| counts.iter().any(|count| *count > 0);
        let basis = Some(counts(UpstreamState::Active))
            .filter(some)
            .or_else(|| Some(counts(UpstreamState::Draining)).filter(some))
            .unwrap_or_else(|| vec![1; services.len()]);
        for (service, weight) in services.iter_mut().zip(shares(&basis)) {
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

/// Splits [`WEIGHT_SUM`] in proportion: largest remainder, ties to the earlier.
fn shares(basis: &[u64]) -> Vec<u16> {
    let total: u64 = basis.iter().sum();
    let whole = u64::from(WEIGHT_SUM);
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
    shares.into_iter().map(|share| u16::try_from(share).unwrap_or(WEIGHT_SUM)).collect()
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
            assert_eq!(shares(&basis), expected, "{basis:?}");
        }
    }
}
