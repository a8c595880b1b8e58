//! At the end everybody stands at one revision with one digest per service cluster: all
//! members, all proxies, and a replay of the ledger that shares no code with Raft.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{History, Seen};

/// Who replayed the ledger.
pub const REPLAY: &str = "replay";

/// Compares the last standing of each with the replay's.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::of("all end as the replayed ledger");
    let mut last = BTreeMap::new();
    for (_, _, by, seen) in history.seen() {
        if let Seen::Standing { index, service_clusters } = seen {
            last.insert(by, (*index, service_clusters));
        }
    }
    let Some((replayed_to, replayed)) = last.remove(REPLAY) else {
        if !last.is_empty() {
            verdict.violated("the ledger was not replayed");
        }
        return verdict;
    };
    for (by, (index, service_clusters)) in last {
        verdict.examined += 1;
        // A proxy has no index of its own, and one service cluster.
        for (name, (revision, digest)) in service_clusters {
            match replayed.get(name) {
                Some((want, same)) if want == revision && same == digest => {}
                Some((want, other)) => verdict.violated(format!(
                    "{by} ends at revision {revision} of service cluster {name:?} with digest \
                     {digest}, the replay at {want} with {other}"
                )),
                None => verdict.violated(format!(
                    "{by} ends with a service cluster {name:?} that the replay has not"
                )),
            }
        }
        if service_clusters.is_empty() {
            verdict.violated(format!("{by} ends with nothing"));
        }
        if index > replayed_to {
            verdict.violated(format!(
                "{by} ends at entry {index}, the replay at {replayed_to}: compare again"
            ));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::story::Story;

    fn standing(index: u64, revision: u64, digest: &str) -> Seen {
        let service_clusters = [(String::new(), (revision, digest.to_owned()))].into();
        Seen::Standing { index, service_clusters }
    }

    fn ends(proxy: Seen) -> Verdict {
        let mut story = Story::default();
        story.seen("proxy-1", standing(0, 2, "old"));
        story.seen("member-1", standing(9, 7, "aa"));
        story.seen("proxy-1", proxy);
        story.seen(REPLAY, standing(9, 7, "aa"));
        check(&story.history)
    }

    #[test]
    fn the_last_standing_counts() {
        let verdict = ends(standing(0, 7, "aa"));
        assert!(verdict.holds() && verdict.examined == 2, "{verdict}");
    }

    #[test]
    fn whoever_ends_elsewhere_is_refused() {
        let nothing = Seen::Standing { index: 0, service_clusters: BTreeMap::new() };
        for (end, said) in [
            (standing(0, 6, "aa"), "proxy-1 ends at revision 6"),
            (standing(0, 7, "bb"), "with digest bb, the replay at 7 with aa"),
            (standing(10, 7, "aa"), "ends at entry 10"),
            (nothing, "proxy-1 ends with nothing"),
        ] {
            let verdict = ends(end);
            assert!(verdict.to_string().contains(said), "{said}: {verdict}");
        }
        let mut story = Story::default();
        story.seen("proxy-1", standing(0, 7, "aa"));
        assert!(!check(&story.history).violations.is_empty(), "without a replay");
    }
}
