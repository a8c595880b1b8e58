//! What can go wrong with an engine, switched on and off by rules.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// One way for the engine to misbehave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// Accepts requests and answers none until the rule has gone, then goes on.
    Hang,
    /// Answers late.
    Slow { delay_ms: u64 },
    /// Answers with an error of its own.
    Status { code: u16, message: String },
    /// Answers 200 with what is no JSON.
    Garbage,
    /// Answers with the model as it was so many changes ago.
    Stale { changes: usize },
    /// What needs the Swarm's leader answers 503, and `/info` names no swarm.
    NoLeader,
    /// Events are lost.
    DropEvents,
}

/// A fault, for requests whose path begins with `path`, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// Without the version, such as `/tasks`; empty for every path.
    pub path: String,
    pub fault: Fault,
    /// Ends by itself; none lasts until it is cleared.
    pub until: Option<Instant>,
}

impl FaultRule {
    fn applies(&self, path: &str) -> bool {
        path.starts_with(&self.path) && self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Faults {
    rules: watch::Sender<Arc<[FaultRule]>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { rules: watch::Sender::new(Arc::from([])) }
    }
}

impl Faults {
    pub(crate) fn add(&self, path: &str, fault: Fault, lasts: Option<Duration>) {
        let until = lasts.map(|lasts| Instant::now() + lasts);
        let rule = FaultRule { path: path.to_owned(), fault, until };
        self.rules.send_modify(|rules| {
            let now = Instant::now();
            let live = rules.iter().filter(|rule| rule.until.is_none_or(|until| now < until));
            *rules = live.cloned().chain([rule]).collect();
        });
    }

    pub(crate) fn clear(&self) {
        self.rules.send_replace(Arc::from([]));
    }

    pub(crate) fn rules(&self) -> Arc<[FaultRule]> {
        self.rules.borrow().clone()
    }

    /// The faults that a request for `path` meets now.
    pub(crate) fn on(&self, path: &str) -> Vec<Fault> {
        let rules = self.rules.borrow();
        rules.iter().filter(|rule| rule.applies(path)).map(|rule| rule.fault.clone()).collect()
    }

    /// Returns once nothing hangs requests for `path`.
    pub(crate) async fn hang(&self, path: &str) {
        let mut rules = self.rules.subscribe();
        loop {
            let until = {
                let rules = rules.borrow_and_update();
                let hanging = |rule: &&FaultRule| rule.fault == Fault::Hang && rule.applies(path);
                let Some(rule) = rules.iter().find(hanging) else { return };
                rule.until
            };
            let ends = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ends => {}
                changed = rules.changed() => if changed.is_err() { return },
            }
        }
    }
}
