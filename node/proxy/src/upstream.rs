//! An upstream as the whole proxy knows it: who it is, and whether it fails.
//!
//! Passive checks: `max_fails` connection errors or time-outs within `fail_timeout`
//! take an upstream out for `fail_timeout`. Answers of the application say nothing
//! about the connection; those of 5xx count where a service asks for it.
//!
//! The state is the upstream's, and this proxy's own, shared by its threads. The
//! thresholds are those of the service under which the failure was seen: an upstream
//! of two services is out for both, except for one whose `max_fails` is 0.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use dovetail_routing::names::TaskId;
use dovetail_routing::snapshot::Dial;
use dovetail_routing::sticky::place_of;
use http::HeaderValue;

/// How long one request alone tries an upstream that was out.
const PROBE_MS: u64 = 2_000;

/// Milliseconds since this process first asked. Monotonic, never 0.
pub fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_millis();
    u64::try_from(elapsed).unwrap_or(u64::MAX - 1) + 1
}

/// One address and the task behind it. A new task at an old address is another upstream.
pub struct Upstream {
    /// For keys of pools: never reused in a process.
    pub id: u64,
    pub address: SocketAddr,
    pub task: Option<TaskId>,
    /// The address, as `x-upstream-addr` says it.
    pub header: HeaderValue,
    /// The task, or the address where there is none, as a number: see [`place_of`].
    pub place: u64,
    /// Whether idle connections to it are worth keeping.
    kept: AtomicBool,
    fails: AtomicU32,
    fails_since_ms: AtomicU64,
    out_until_ms: AtomicU64,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.address)
    }
}

impl Upstream {
    fn new(id: u64, address: SocketAddr, task: Option<TaskId>) -> Self {
        let header = HeaderValue::from_str(&address.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("-"));
        let place = place_of(task.as_ref(), address);
        Self {
            id,
            address,
            task,
            header,
            place,
            kept: AtomicBool::new(true),
            fails: AtomicU32::new(0),
            fails_since_ms: AtomicU64::new(0),
            out_until_ms: AtomicU64::new(0),
        }
    }

    /// Whether passive checks took it out at `now_ms`.
    pub fn is_out(&self, now_ms: u64) -> bool {
        self.out_until_ms.load(Ordering::Relaxed) > now_ms
    }

    /// It was picked. If it was out until now, others wait until this attempt is over:
    /// one request risks a time-out, not all of them.
    pub fn picked(&self, now_ms: u64) {
        let until = self.out_until_ms.load(Ordering::Relaxed);
        if until != 0 && until <= now_ms {
            // Two threads may both try, which is as good.
            self.out_until_ms.store(now_ms + PROBE_MS, Ordering::Relaxed);
        }
    }

    /// Whether idle connections to it are worth keeping: it is in the table in
    /// force, and takes new requests.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// It answered.
    pub fn succeeded(&self) {
        // The load keeps the cache line shared between threads.
        if self.fails.load(Ordering::Relaxed) != 0 {
            self.fails.store(0, Ordering::Relaxed);
            self.out_until_ms.store(0, Ordering::Relaxed);
        }
    }

    /// A connection could not be made, broke off or fell silent. Returns whether
    /// this took it out.
    ///
    /// Threads may count past each other by one or two, which no one can tell
    /// from a failure that came a moment earlier.
    pub fn failed(&self, now_ms: u64, dial: &Dial) -> bool {
        if dial.max_fails == 0 {
            return false;
        }
        let timeout = u64::try_from(dial.fail_timeout.as_millis()).unwrap_or(u64::MAX / 2);
        let since = self.fails_since_ms.load(Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) == 0 || now_ms.saturating_sub(since) > timeout {
            self.fails.store(0, Ordering::Relaxed);
            self.fails_since_ms.store(now_ms, Ordering::Relaxed);
        }
        if self.fails.fetch_add(1, Ordering::Relaxed) + 1 < dial.max_fails {
            return false;
        }
        // The next failure after that takes it out again at once.
        let until = now_ms.saturating_add(timeout);
        self.fails.store(dial.max_fails - 1, Ordering::Relaxed);
        self.fails_since_ms.store(until, Ordering::Relaxed);
        self.out_until_ms.swap(until, Ordering::Relaxed) <= now_ms
    }
}

/// All upstreams that some table still names, so that a swap keeps what is known of them.
#[derive(Debug, Default)]
pub struct Registry {
    known: HashMap<(SocketAddr, Option<TaskId>), Weak<Upstream>>,
    made: u64,
}

impl Registry {
    /// The upstream at `address`, known or new.
    pub fn get(&mut self, address: SocketAddr, task: Option<&TaskId>) -> Arc<Upstream> {
        let key = (address, task.cloned());
        if let Some(upstream) = self.known.get(&key).and_then(Weak::upgrade) {
            return upstream;
        }
        self.made += 1;
        let upstream = Arc::new(Upstream::new(self.made, address, key.1.clone()));
        self.known.insert(key, Arc::downgrade(&upstream));
        upstream
    }

    /// Says of every upstream whether idle connections to it are worth keeping.
    pub fn keep_only(&mut self, keep: impl Fn(&Upstream) -> bool) {
        self.known.retain(|_, known| match known.upgrade() {
            Some(upstream) => {
                upstream.kept.store(keep(&upstream), Ordering::Relaxed);
                true
            }
            None => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn upstream() -> Upstream {
        Upstream::new(1, "127.0.0.1:80".parse().expect("an address"), None)
    }

    #[test]
    fn three_failures_in_ten_seconds_take_an_upstream_out_for_ten() {
        let (upstream, dial) = (upstream(), Dial::default());
        assert!(!upstream.failed(1_000, &dial));
        assert!(!upstream.failed(2_000, &dial));
        assert!(!upstream.is_out(2_000));
        assert!(upstream.failed(3_000, &dial));
        assert!(upstream.is_out(3_000) && upstream.is_out(12_999));
        assert!(!upstream.is_out(13_000));
        // One request tries it, the others wait for what comes of that.
        upstream.picked(13_000);
        assert!(upstream.is_out(13_001) && !upstream.is_out(15_000));
        // One more failure after that is enough.
        upstream.failed(14_000, &dial);
        assert!(upstream.is_out(14_000) && upstream.is_out(23_999));
        upstream.succeeded();
        assert!(!upstream.is_out(14_000));
        assert!(!upstream.failed(15_000, &dial));
    }

    #[test]
    fn failures_far_apart_are_forgotten() {
        let (upstream, dial) = (upstream(), Dial::default());
        for at in [1_000, 12_000, 23_000, 34_000] {
            assert!(!upstream.failed(at, &dial));
        }
        assert!(!upstream.is_out(34_000));
    }

    #[test]
    fn thresholds_are_those_of_the_service_that_saw_the_failure() {
        let upstream = upstream();
        let once = Dial { max_fails: 1, fail_timeout: Duration::from_secs(2), ..Dial::default() };
        let never = Dial { max_fails: 0, ..Dial::default() };
        for _ in 0..10 {
            assert!(!upstream.failed(1_000, &never));
        }
        assert!(!upstream.is_out(1_000));
        assert!(upstream.failed(1_000, &once));
        assert!(upstream.is_out(2_999) && !upstream.is_out(3_000));
        // Not at all counts for the moment that a failure comes, not for the time before.
        assert!(!upstream.failed(3_500, &never) && !upstream.is_out(3_500));
    }

    #[test]
    fn a_new_task_at_an_old_address_is_another_upstream() {
        let mut registry = Registry::default();
        let address = "127.0.0.1:80".parse().expect("an address");
        let first = registry.get(address, Some(&"one".into()));
        assert_eq!(first.id, registry.get(address, Some(&"one".into())).id);
        assert_ne!(first.id, registry.get(address, Some(&"two".into())).id);
        registry.keep_only(|_| false);
        assert!(!first.is_kept());
    }
}
