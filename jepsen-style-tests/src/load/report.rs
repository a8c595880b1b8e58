//! What load saw.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Failures and answers kept one by one; beyond, they are only counted.
const KEPT_MAX: usize = 1_000_000;
/// The longest latency that is told apart.
const LATENCY_MAX: Duration = Duration::from_secs(600);
/// Failures that a message lists.
const LISTED_MAX: usize = 10;

/// A request that got no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When it was due, from the start of the load.
    pub at: Duration,
    pub proxy: Option<SocketAddr>,
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.3} s", self.at.as_secs_f64())?;
        if let Some(proxy) = self.proxy {
            write!(f, " through {proxy}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// An answer, by when its request was sent.
#[derive(Clone, Debug)]
struct Answered {
    sent: Instant,
    upstream: Arc<str>,
}

/// Counts, latencies and failures of a load.
#[derive(Clone, Debug)]
pub struct Report {
    started: Instant,
    sent: u64,
    failed: u64,
    failures: Vec<Failure>,
    by_upstream: BTreeMap<Arc<str>, u64>,
    answers: Vec<Answered>,
    latency_us: Option<Histogram<u64>>,
}

impl Report {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            sent: 0,
            failed: 0,
            failures: Vec::new(),
            by_upstream: BTreeMap::new(),
            answers: Vec::new(),
            latency_us: Histogram::new_with_max(LATENCY_MAX.as_micros() as u64, 3).ok(),
        }
    }

    /// Counts a request; returns its number.
    pub(super) fn send(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    pub(super) fn answer(&mut self, due: Instant, sent: Instant, upstream: String) {
        let latency = due.elapsed();
        if let Some(histogram) = &mut self.latency_us {
            let latency = latency.min(LATENCY_MAX).as_micros();
            // Below its highest value by the line above, so it cannot be refused.
            let _ = histogram.record(u64::try_from(latency).unwrap_or_default());
        }
        let upstream: Arc<str> = match self.by_upstream.get_key_value(upstream.as_str()) {
            Some((known, _)) => known.clone(),
            None => upstream.into(),
        };
        *self.by_upstream.entry(upstream.clone()).or_default() += 1;
        if self.answers.len() < KEPT_MAX {
            self.answers.push(Answered { sent, upstream });
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.failed += 1;
        if self.failures.len() < KEPT_MAX {
            self.failures.push(failure);
        }
    }

    /// Requests sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Requests without a good answer.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Answers by upstream.
    pub fn by_upstream(&self) -> &BTreeMap<Arc<str>, u64> {
        &self.by_upstream
    }

    /// How many requests sent after `instant` were answered by `upstream`.
    pub fn answered_since(&self, instant: Instant, upstream: &str) -> usize {
        let of = |answer: &&Answered| &*answer.upstream == upstream && answer.sent >= instant;
        self.answers.iter().filter(of).count()
    }

    /// The last request that `upstream` answered, by when it was sent.
    pub fn last_sent_to(&self, upstream: &str) -> Option<Instant> {
        let of = self.answers.iter().filter(|answer| &*answer.upstream == upstream);
        of.map(|answer| answer.sent).max()
    }

    /// The latency at `quantile`, counted from when a request was due.
    pub fn latency(&self, quantile: f64) -> Duration {
        let at = |histogram: &Histogram<u64>| histogram.value_at_quantile(quantile);
        Duration::from_micros(self.latency_us.as_ref().map_or(0, at))
    }

    /// `Ok` when requests were sent and none failed; else the first failures.
    pub fn verdict(&self) -> Result<(), String> {
        if self.sent == 0 {
            return Err("no request was sent: nothing is shown".to_owned());
        }
        if self.failed == 0 {
            return Ok(());
        }
        let mut reasons = BTreeMap::<&str, u64>::new();
        for failure in &self.failures {
            *reasons.entry(&failure.reason).or_default() += 1;
        }
        let mut text = format!("{} of {} requests failed", self.failed, self.sent);
        for (reason, count) in reasons.iter().take(LISTED_MAX) {
            text.push_str(&format!("\n  {count} x {reason}"));
        }
        text.push_str("\n  the first:");
        for failure in self.failures.iter().take(LISTED_MAX) {
            text.push_str(&format!("\n  {failure}"));
        }
        Err(text)
    }

    /// The time from the start of the load to `instant`.
    pub fn offset(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.started)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |quantile| self.latency(quantile).as_secs_f64() * 1_000.0;
        write!(
            f,
            "{} requests, {} failed, p50 {:.1} ms, p99 {:.1} ms, worst {:.0} ms",
            self.sent,
            self.failed,
            ms(0.5),
            ms(0.99),
            ms(1.0)
        )
    }
}
