//! How many requests may be repeated: few of many, so that a slow application is not
//! asked twice as often for it.
//!
//! Counted are attempts after one that was sent, or that waited for a connection in
//! vain. A connection that was refused at once has cost nobody anything: going on to
//! the next upstream is then no repetition.

use std::cell::Cell;

/// How long requests and repetitions count together, in seconds.
const WINDOW_SECONDS: usize = 10;
/// Repetitions that are always allowed within the window.
const ALWAYS: u32 = 32;
/// One more for this many requests.
const REQUESTS_EACH: u32 = 5;

/// One second's requests and repetitions.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    requests: u32,
    repeated: u32,
}

/// One thread's budget.
#[derive(Debug, Default)]
pub struct Budget {
    seconds: [Cell<Second>; WINDOW_SECONDS],
}

impl Budget {
    /// A request begins.
    pub fn request(&self, now_ms: u64) {
        self.change(now_ms, |second| second.requests = second.requests.saturating_add(1));
    }

    /// Whether a request may be repeated; if so, it is counted.
    pub fn repeat(&self, now_ms: u64) -> bool {
        let now = now_ms / 1_000;
        let (mut requests, mut repeated) = (0_u32, 0_u32);
        for second in &self.seconds {
            let second = second.get();
            if second.number + (WINDOW_SECONDS as u64) > now {
                requests = requests.saturating_add(second.requests);
                repeated = repeated.saturating_add(second.repeated);
            }
        }
        let allowed = repeated < ALWAYS.saturating_add(requests / REQUESTS_EACH);
        if allowed {
            self.change(now_ms, |second| second.repeated = second.repeated.saturating_add(1));
        }
        allowed
    }

    fn change(&self, now_ms: u64, change: impl FnOnce(&mut Second)) {
        let number = now_ms / 1_000;
        let place = usize::try_from(number % WINDOW_SECONDS as u64).unwrap_or(0);
        let mut second = self.seconds[place].get();
        if second.number != number {
            second = Second { number, ..Second::default() };
        }
        change(&mut second);
        self.seconds[place].set(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated_and_always_a_few() {
        let budget = Budget::default();
        let repeated = |now| (0..10_000).take_while(|_| budget.repeat(now)).count();
        assert_eq!(repeated(1_000), 32);
        for request in 0..1_000 {
            budget.request(1_000 + request);
        }
        assert_eq!(repeated(2_000), 200);
        assert_eq!(repeated(5_000), 0);
        // What is ten seconds old counts no more, on neither side.
        assert_eq!(repeated(12_000), 32);
        for _ in 0..50 {
            budget.request(30_000);
        }
        assert_eq!(repeated(30_000), 42);
    }
}
