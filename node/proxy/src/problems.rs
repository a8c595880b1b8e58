//! What an operator should see of this proxy alone: certificates that it cannot use,
//! authorities that it cannot read.
//!
//! Each source states all of its problems at once, and again when they change: a level,
//! never a delta. What is new is logged once, what is gone is logged as cleared.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::Gauge;
use tokio::sync::watch;

/// Problems of one source that are kept; more are counted and not listed.
pub const PROBLEMS_MAX: usize = 1_000;

/// Something that this proxy cannot do as the routes ask, in terms of their labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyProblem {
    /// The service's name; empty where it concerns no single one.
    pub service: Arc<str>,
    /// The host as its route prints it; empty where it concerns no single one.
    pub host: Arc<str>,
    /// The label, such as `com.docker.lb.ssl_cert`, or the configuration's key.
    pub label: Arc<str>,
    /// The label's value: the name of a secret, never its content.
    pub value: Arc<str>,
    /// Why, and what is done instead.
    pub reason: Arc<str>,
}

impl From<ProxyProblem> for dovetail_feed::Problem {
    fn from(problem: ProxyProblem) -> Self {
        let ProxyProblem { service, host, label, value, reason } = problem;
        Self { service, host, label, value, reason }
    }
}

/// All problems of this proxy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Problems(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    listed: watch::Sender<Listed>,
    /// The same for the feed, which tells the core.
    reported: watch::Sender<Arc<[dovetail_feed::Problem]>>,
    gauge: Gauge,
}

/// By source, each sorted.
pub type Listed = BTreeMap<&'static str, Arc<[ProxyProblem]>>;

impl Default for Problems {
    fn default() -> Self {
        let gauge = metrics::gauge!("dovetail_proxy_problems");
        gauge.set(0.0);
        Self(Arc::new(Inner {
            listed: watch::Sender::new(Listed::new()),
            reported: watch::Sender::new(Arc::default()),
            gauge,
        }))
    }
}

impl Problems {
    /// All problems, by source, then sorted.
    pub fn list(&self) -> Vec<ProxyProblem> {
        self.0.listed.borrow().values().flat_map(|of_source| of_source.iter().cloned()).collect()
    }

    /// Tells when [`Problems::list`] has changed.
    pub fn changed(&self) -> watch::Receiver<Listed> {
        self.0.listed.subscribe()
    }

    /// All problems, as the feed reports them to the core.
    pub fn reported(&self) -> watch::Receiver<Arc<[dovetail_feed::Problem]>> {
        self.0.reported.subscribe()
    }

    /// States all problems of `source`, in place of those that it stated before.
    pub fn replace(&self, source: &'static str, mut problems: Vec<ProxyProblem>) {
        problems.sort_unstable();
        problems.dedup();
        if problems.len() > PROBLEMS_MAX {
            tracing::warn!(
                source,
                count = problems.len(),
                kept = PROBLEMS_MAX,
                "too many problems"
            );
            problems.truncate(PROBLEMS_MAX);
        }
        let now: Arc<[ProxyProblem]> = problems.into();
        self.0.listed.send_if_modified(|listed| {
            let before = listed.get(source).cloned().unwrap_or_default();
            if before == now {
                return false;
            }
            for raised in now.iter().filter(|problem| before.binary_search(problem).is_err()) {
                let ProxyProblem { service, host, label, value, reason } = raised;
                tracing::warn!(%service, %host, %label, %value, %reason, "problem raised");
            }
            for cleared in before.iter().filter(|problem| now.binary_search(problem).is_err()) {
                let ProxyProblem { service, host, label, value, .. } = cleared;
                tracing::info!(%service, %host, %label, %value, "problem cleared");
            }
            listed.insert(source, Arc::clone(&now));
            let all = listed.values().flat_map(|of_source| of_source.iter().cloned());
            self.0.reported.send_replace(all.map(Into::into).collect());
            self.0
                .gauge
                .set(listed.values().map(|of_source| of_source.len()).sum::<usize>() as f64);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(host: &str) -> ProxyProblem {
        ProxyProblem {
            service: "shop".into(),
            host: host.into(),
            label: "com.docker.lb.ssl_cert".into(),
            value: "shop.cert".into(),
            reason: "it expired".into(),
        }
    }

    #[test]
    fn a_source_states_all_of_its_problems_at_once() {
        let problems = Problems::default();
        let mut changed = problems.changed();
        assert!(problems.list().is_empty());
        problems.replace("tls", vec![problem("b"), problem("a"), problem("a")]);
        assert!(changed.has_changed().expect("it lives"));
        changed.mark_unchanged();
        assert_eq!(problems.list(), [problem("a"), problem("b")]);
        assert_eq!(problems.reported().borrow().len(), 2, "the feed has them too");
        problems.replace("upstream", vec![problem("c")]);
        problems.replace("tls", vec![problem("b")]);
        assert_eq!(problems.list(), [problem("b"), problem("c")]);
        changed.mark_unchanged();
        problems.replace("tls", vec![problem("b")]);
        assert!(!changed.has_changed().expect("it lives"), "nothing changed");
        problems.replace("tls", Vec::new());
        assert_eq!(problems.list(), [problem("c")]);
    }

    #[test]
    fn only_so_many_are_kept() {
        let problems = Problems::default();
        problems.replace("tls", (0..PROBLEMS_MAX + 5).map(|n| problem(&n.to_string())).collect());
        assert_eq!(problems.list().len(), PROBLEMS_MAX);
    }
}
