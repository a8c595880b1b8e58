//! No request fails that has a live upstream and a live proxy, whatever becomes of the core.
//!
//! Upstreams live through the whole run, and those that go are drained first; so a request
//! may fail only while its proxy does not run, is stopped, or is cut off from its clients.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{History, Seen};

/// Checks every failed request against the times in which its proxy was away.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::of("no request fails with a live proxy");
    // By proxy: from and until when it was away.
    let mut away: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for (_, at, _, seen) in history.seen() {
        match seen {
            Seen::ProxyDown { proxy } => away.entry(proxy).or_default().push((at, u64::MAX)),
            Seen::ProxyUp { proxy } => {
                if let Some(last) = away.entry(proxy).or_default().last_mut() {
                    last.1 = last.1.min(at);
                }
            }
            _ => {}
        }
    }
    let (mut excused, mut answered) = (0, 0);
    for (_, at, _, seen) in history.seen() {
        match seen {
            Seen::Answered { requests, .. } => answered += requests,
            Seen::RequestFailed { proxy, began, why } => {
                let away = away.get(proxy.as_str()).map_or(&[][..], Vec::as_slice);
                // Any moment of it will do: it was under way then.
                if away.iter().any(|(from, until)| *from <= at && began <= until) {
                    excused += 1;
                } else {
                    let (from, until) = (seconds(*began), seconds(at));
                    verdict.violated(format!("{proxy}, from {from} s to {until} s: {why}"));
                }
            }
            _ => {}
        }
    }
    verdict.examined = usize::try_from(answered).unwrap_or(usize::MAX) + verdict.violations.len();
    verdict.remarks.push(format!("{excused} failed while their proxy was away"));
    verdict
}

fn seconds(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000_000, micros / 1_000 % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::story::Story;

    fn failed(began: u64) -> Seen {
        Seen::RequestFailed { proxy: "proxy-1".into(), began, why: "status 503".into() }
    }

    #[test]
    fn a_request_may_fail_only_while_its_proxy_is_away() {
        let mut story = Story::default();
        story.seen("load", Seen::Answered { proxy: "proxy-1".into(), requests: 200 });
        story.seen("harness", Seen::ProxyDown { proxy: "proxy-1".into() });
        story.seen("load", failed(500)); // at 2,000
        story.seen("harness", Seen::ProxyUp { proxy: "proxy-1".into() });
        story.seen("load", failed(2_500)); // begun while it was away
        let verdict = check(&story.history);
        assert!(verdict.holds() && verdict.examined == 200, "{verdict}");

        story.seen("load", failed(4_500));
        let verdict = check(&story.history);
        assert_eq!(verdict.violations, ["proxy-1, from 0.004 s to 0.005 s: status 503"]);
    }

    #[test]
    fn another_proxys_absence_excuses_nothing() {
        let mut story = Story::default();
        story.seen("harness", Seen::ProxyDown { proxy: "proxy-2".into() });
        story.seen("load", failed(0));
        assert!(!check(&story.history).violations.is_empty());
        assert!(!check(&Story::default().history).holds(), "nothing was asked");
    }
}
