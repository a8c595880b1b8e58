//! Once all faults are over, it writes and agrees again within a bound.

use super::Verdict;
use crate::history::{History, Seen};

/// The longest time to recover, in microseconds: starting everything on a busy machine.
pub const BOUND: u64 = 90_000_000;

/// Each time that everything was healed, it came back in time.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::of("it recovers when faults are over");
    let mut healed = None;
    for (_, at, _, seen) in history.seen() {
        match seen {
            Seen::Healed => {
                verdict.examined += 1;
                healed = Some(at);
            }
            Seen::Recovered => {
                if let Some(since) = healed.take() {
                    let millis = (at - since) / 1_000;
                    verdict.remarks.push(format!("recovered after {millis} ms"));
                    if at - since > BOUND {
                        verdict.violated(format!("it took {millis} ms"));
                    }
                }
            }
            _ => {}
        }
    }
    if healed.is_some() {
        verdict.violated("it never recovered");
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::story::Story;

    #[test]
    fn whoever_does_not_come_back_is_refused() {
        let mut story = Story::default();
        story.seen("harness", Seen::Healed);
        assert_eq!(check(&story.history).violations, ["it never recovered"]);
        story.seen("harness", Seen::Recovered);
        assert!(check(&story.history).holds());
        story.seen("harness", Seen::Healed);
        story.seen("harness", Seen::Recovered);
        if let Some(event) = story.history.events.last_mut() {
            event.at += BOUND;
        }
        assert_eq!(check(&story.history).violations, ["it took 90001 ms"]);
    }
}
