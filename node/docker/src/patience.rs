//! How long a list may take: longer once lists have shown to.
//!
//! An engine that hangs is to be told of soon, and the list of a hundred thousand tasks
//! takes its time all the same. So a list that did not come in time may take twice as
//! long the next time, up to a bound, behind which it begins anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A list may take so many times as long as another call.
const TIMES_MAX: u32 = 8;
/// … and so many times as long as the last one that came.
const OF_LAST: u32 = 4;

/// The time that each list gets.
#[derive(Debug)]
pub(crate) struct Patience {
    least: Duration,
    /// By the call; that of one which never took long is absent.
    now: Mutex<BTreeMap<&'static str, Duration>>,
}

impl Patience {
    /// `least` is what any other call gets.
    pub(crate) fn new(least: Duration) -> Self {
        Self { least, now: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Duration>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the next list may take.
    pub(crate) fn now(&self, call: &'static str) -> Duration {
        self.lock().get(call).copied().unwrap_or(self.least)
    }

    /// A list did not come within `after`.
    pub(crate) fn timed_out(&self, call: &'static str, after: Duration) {
        let most = self.least * TIMES_MAX;
        // Not for ever: an engine that has hung and is back is to be asked anew soon.
        let next = if after >= most { self.least } else { (after * 2).min(most) };
        self.lock().insert(call, next);
    }

    /// A list came, or an error in its place.
    pub(crate) fn answered(&self, call: &'static str, took: Duration) {
        // Shrunk bit by bit, grown at once.
        let shrunk = (self.now(call) * 9) / 10;
        let next = shrunk.max(took * OF_LAST).clamp(self.least, self.least * TIMES_MAX);
        self.lock().insert(call, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_secs(5);

    #[test]
    fn a_slow_list_is_waited_for_and_a_hung_engine_is_not() {
        let patience = Patience::new(LEAST);
        let waits: Vec<_> = (0..6)
            .map(|_| {
                // The quick lists of the same look change nothing.
                patience.answered("services", Duration::from_millis(3));
                let now = patience.now("tasks");
                patience.timed_out("tasks", now);
                now.as_secs()
            })
            .collect();
        assert_eq!(waits, [5, 10, 20, 40, 5, 10]);
    }

    #[test]
    fn what_came_slowly_may_be_slow_again_for_a_while() {
        let patience = Patience::new(LEAST);
        patience.answered("tasks", Duration::from_millis(3));
        assert_eq!(patience.now("tasks"), LEAST);
        patience.answered("tasks", Duration::from_secs(4));
        assert_eq!(patience.now("tasks"), Duration::from_secs(16));
        (0..3).for_each(|_| patience.answered("tasks", Duration::from_millis(3)));
        assert!(patience.now("tasks") > Duration::from_secs(11), "{:?}", patience.now("tasks"));
        (0..20).for_each(|_| patience.answered("tasks", Duration::from_millis(3)));
        assert_eq!(patience.now("tasks"), LEAST);
        patience.answered("tasks", Duration::from_secs(30));
        assert_eq!(patience.now("tasks"), LEAST * 8);
    }
}
