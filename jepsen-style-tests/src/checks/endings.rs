//! No process ends by itself under any fault but a disk that is full or broken, and with a
//! disk that refuses every process ends.

use super::Verdict;
use crate::history::{History, Seen};

/// Counts the processes that stood somewhere at the end, and tells who ended before.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::of("no process ends by itself");
    for (place, _, by, seen) in history.seen() {
        match seen {
            Seen::Ended { why } => {
                verdict.violated(format!("line {}: {by} ended: {why}", place + 1));
            }
            Seen::WentOn { why } => {
                verdict.violated(format!("line {}: {by} went on: {why}", place + 1));
            }
            Seen::Standing { .. } => verdict.examined += 1,
            _ => {}
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::story::Story;

    #[test]
    fn a_process_that_ended_is_told() {
        let mut story = Story::default();
        story.seen("member-1", Seen::Standing { index: 1, service_clusters: [].into() });
        assert!(check(&story.history).holds());
        story.seen("member-2", Seen::Ended { why: "exit status: 101".into() });
        assert_eq!(check(&story.history).violations, ["line 2: member-2 ended: exit status: 101"]);
    }

    #[test]
    fn a_process_that_trusts_a_broken_disk_is_told() {
        let mut story = Story::default();
        story.seen("member-1", Seen::Standing { index: 1, service_clusters: [].into() });
        story.seen("member-1", Seen::WentOn { why: "9 writes refused".into() });
        assert_eq!(
            check(&story.history).violations,
            ["line 2: member-1 went on: 9 writes refused"]
        );
    }
}
