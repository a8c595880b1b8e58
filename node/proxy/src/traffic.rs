//! What each service of a shared route answered: counted for canaries.
//!
//! Counters only grow, and begin anew, with another `start`, in another process or when
//! their service comes back to the route. So whoever compares two readings sees what came
//! between them. A route of one service has none: there is nothing to compare.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dovetail_feed::ServiceTraffic;
use dovetail_routing::latency::{BUCKETS, Latencies, bucket_of};
use dovetail_routing::snapshot::Route;

use crate::table::RouteEntry;

/// The attempts of one service on one route.
pub struct Counters {
    start: u64,
    requests: AtomicU64,
    errors: AtomicU64,
    /// Until the head of the answer, or until there was none; by `dovetail_routing::latency`.
    latencies: Box<[AtomicU64]>,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counters({:?} requests, {:?} errors)", self.requests, self.errors)
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            start: fastrand::u64(1..),
            requests: AtomicU64::default(),
            errors: AtomicU64::default(),
            latencies: (0..BUCKETS).map(|_| AtomicU64::default()).collect(),
        }
    }
}

impl Counters {
    /// An attempt ended: with an answer, or with an error that is not the client's.
    pub fn attempted(&self, took: Duration, failed: bool) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.latencies.get(usize::from(bucket_of(micros))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if failed {
            self.broke_off();
        }
        // Last, so that a reading never shows more errors than requests.
        self.requests.fetch_add(1, Ordering::Release);
    }

    /// An answer that had begun did not come whole.
    pub fn broke_off(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self, service: &Arc<str>) -> ServiceTraffic {
        let requests = self.requests.load(Ordering::Acquire);
        let counts = self.latencies.iter().map(|count| count.load(Ordering::Relaxed));
        ServiceTraffic {
            service: Arc::clone(service),
            start: self.start,
            requests,
            errors: self.errors.load(Ordering::Relaxed),
            latencies: Latencies::new((0..).zip(counts)),
        }
    }
}

/// The counters of a route's services; those of a service that was on it before go on.
pub(crate) fn counters(route: &Route, before: Option<&RouteEntry>) -> Box<[Arc<Counters>]> {
    if route.services.len() < 2 {
        return Box::default();
    }
    let known = |name: &str| {
        let before = before?;
        let position = before.route.services.iter().position(|one| *one.name == *name)?;
        before.counters.get(position).cloned()
    };
    route.services.iter().map(|service| known(&service.name).unwrap_or_default()).collect()
}

/// What the services of a route answered so far; nothing for a route of one service.
pub(crate) fn read(entry: &RouteEntry) -> Vec<ServiceTraffic> {
    let services = entry.route.services.iter().zip(&entry.counters);
    services.map(|(service, counters)| counters.read(&service.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{entry, entry_after, route};

    #[test]
    fn a_service_that_stays_goes_on_counting() {
        let first = entry(&[(9_000, "a"), (1_000, "a")]);
        first.counters[1].attempted(Duration::from_millis(3), false);
        first.counters[1].attempted(Duration::from_millis(900), true);
        let scaled = route("shop.example", &[(5_000, "aa"), (5_000, "a"), (0, "a")]);
        let read = super::read(&entry_after(&scaled, Some(&first)));
        let named: Vec<_> = read.iter().map(|one| (&*one.service, one.requests)).collect();
        assert_eq!(named, [("service-0", 0), ("service-1", 2), ("service-2", 0)]);
        assert_eq!((read[1].errors, read[1].latencies.total()), (1, 2));
        assert_eq!(read[1].start, super::read(&first)[1].start);

        let alone = entry_after(&route("shop.example", &[(10_000, "a")]), Some(&first));
        assert!(super::read(&alone).is_empty(), "nothing to compare");
        let again = entry_after(&scaled, Some(&alone));
        assert_ne!(super::read(&again)[1].start, read[1].start, "it began anew");
    }
}
