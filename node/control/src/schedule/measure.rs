//! What a leader has measured of one step: counters now, less the counters before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dovetail_routing::canary::{EVIDENCE_PROXIES_MAX, Evidence, ProxyFigures};
use dovetail_routing::snapshot::RouteKey;
use dovetail_routing::state::Run;
use tokio::time::Instant;

use super::LogIndex;
use crate::traffic::{Counted, ProxyTraffic};

/// Figures that are older were not reported: proxies tell once a second.
const FRESH: Duration = Duration::from_secs(5);

/// The figures of a run's step, from the moment this leader first looked.
#[derive(Debug)]
pub(super) struct Measured {
    run: LogIndex,
    step: u32,
    since_ms: u64,
    began: Instant,
    turned: Instant,
    /// By proxy; one that is gone keeps what it counted.
    proxies: BTreeMap<String, OfProxy>,
    /// Before this moment nothing more is proposed.
    pub(super) pause_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct OfProxy {
    /// The first counters that were seen, or none yet.
    first: Option<Counted>,
    /// Those at the last turn.
    turned: Option<Counted>,
    last: Counted,
    /// It is connected, and its counters are not known now.
    missing: bool,
}

impl Measured {
    pub(super) fn new(run: &Run, now: Instant) -> Self {
        Self {
            run: run.index,
            step: run.step,
            since_ms: run.since_ms,
            began: now,
            turned: now,
            proxies: BTreeMap::new(),
            pause_until: None,
        }
    }

    /// Whether it is about what a run is about now.
    pub(super) fn is_of(&self, run: &Run) -> bool {
        (self.run, self.step, self.since_ms) == (run.index, run.step, run.since_ms)
    }

    /// Takes the newest counters of all connected proxies.
    pub(super) fn add(&mut self, route: &RouteKey, run: &Run, traffic: &[ProxyTraffic]) {
        let key = (route.host.to_string(), route.path.to_string(), run.to.to_string());
        self.proxies.values_mut().for_each(|one| one.missing = false);
        let mut names: BTreeMap<&str, u32> = BTreeMap::new();
        let of_cluster =
            traffic.iter().filter(|one| *one.service_cluster == *route.service_cluster.as_str());
        for one in of_cluster {
            // Several proxies may share a name.
            let count = names.entry(&one.proxy).or_default();
            *count += 1;
            let name = match count {
                1 => one.proxy.clone(),
                more => format!("{} ({more})", one.proxy),
            };
            let known = self.proxies.entry(name).or_default();
            let is_fresh = one.age.is_some_and(|age| age <= FRESH);
            match one.services.get(&key).filter(|_| is_fresh) {
                None => known.missing = true,
                Some(counted) => {
                    known.first.get_or_insert_with(|| counted.clone());
                    known.turned.get_or_insert_with(|| counted.clone());
                    known.last = counted.clone();
                }
            }
        }
    }

    /// All of the step.
    pub(super) fn since_start(&self, now: Instant) -> Evidence {
        self.evidence(now - self.began, |one| one.first.as_ref())
    }

    /// Since the last turn, so that a long calm excuses no storm.
    pub(super) fn recent(&self, now: Instant) -> Evidence {
        self.evidence(now - self.turned, |one| one.turned.as_ref())
    }

    /// Begins what is recent anew, once it is an interval old.
    pub(super) fn turn(&mut self, now: Instant, interval: Duration) {
        if now - self.turned >= interval {
            self.turned = now;
            for one in self.proxies.values_mut().filter(|one| one.first.is_some()) {
                one.turned = Some(one.last.clone());
            }
        }
    }

    fn evidence(&self, window: Duration, from: impl Fn(&OfProxy) -> Option<&Counted>) -> Evidence {
        let mut proxies: Vec<ProxyFigures> = Vec::new();
        for (name, one) in &self.proxies {
            let figures = figures(name, from(one), one);
            if proxies.len() < EVIDENCE_PROXIES_MAX {
                proxies.push(figures);
            } else if let Some(rest) = proxies.last_mut() {
                rest.proxy = "others".into();
                rest.requests = rest.requests.saturating_add(figures.requests);
                rest.errors = rest.errors.saturating_add(figures.errors);
                rest.latencies.merge(&figures.latencies);
                rest.missing |= figures.missing;
            }
        }
        Evidence {
            run: self.run,
            step: self.step,
            window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
            proxies,
        }
    }
}

/// What a proxy counted since `from`; counters that began anew count from nothing.
fn figures(name: &str, from: Option<&Counted>, one: &OfProxy) -> ProxyFigures {
    let proxy: Arc<str> = name.into();
    let Some(from) = from else {
        return ProxyFigures { proxy, missing: one.missing, ..ProxyFigures::default() };
    };
    let nothing = Counted::default();
    let before = if from.start == one.last.start { from } else { &nothing };
    let since = |now: u64, then: u64| now.saturating_sub(then);
    ProxyFigures {
        proxy,
        requests: since(one.last.requests, before.requests),
        errors: since(one.last.errors, before.errors),
        latencies: one.last.latencies.since(&before.latencies),
        missing: one.missing,
    }
}
