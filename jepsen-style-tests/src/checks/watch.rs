//! What a subscriber of the feed may rely on: etcd's seven guarantees of a watch, as they
//! apply to a feed of whole snapshots.
//!
//! | etcd | here |
//! |---|---|
//! | ordered | revisions rise, also over reconnections to other members |
//! | unique | no revision is sent twice to whoever acknowledged it |
//! | atomic | a snapshot is whole: its bytes have the digest, and a revision has one digest for all |
//! | resumable | who comes back with a revision gets newer ones only, and does get them |
//! | reliable | not every revision, since snapshots merge, but the last one always arrives |
//! | bookmarkable | a keep-alive names the newest revision; it never goes back within a stream |
//! | prompt | what a keep-alive announced arrives before [`LATE`] further ones |
//!
//! And a proxy's revision in force never goes back while it runs.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use super::converged::REPLAY;
use crate::history::{History, Seen};

/// Keep-alives, a second apart, that may pass between an announcement and the snapshot.
pub const LATE: u32 = 5;

/// A subscriber, as its stream goes.
#[derive(Debug, Default)]
struct Watcher {
    /// The newest revision that it has.
    has: u64,
    /// Of this stream: what the last keep-alive announced.
    announced: u64,
    /// Keep-alives in turn that announced more than it has.
    behind: u32,
    told_behind: bool,
}

/// Checks all streams of the feed, and every proxy's revision in force.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::of("the feed keeps a watch's promises");
    let mut watchers: BTreeMap<&str, Watcher> = BTreeMap::new();
    let mut digests: BTreeMap<u64, &str> = BTreeMap::new();
    let mut clusters = BTreeSet::new();
    let mut in_force: BTreeMap<&str, u64> = BTreeMap::new();
    let mut end = None;
    let mut streams = 0;
    for (place, _, by, seen) in history.seen() {
        let line = place + 1;
        match seen {
            Seen::FeedOpened { revision, .. } => {
                let watcher = watchers.entry(by).or_default();
                streams += 1;
                (watcher.announced, watcher.behind) = (0, 0);
                if *revision != watcher.has {
                    verdict.violated(format!(
                        "line {line}: {by} came back with revision {revision}, but has {}",
                        watcher.has
                    ));
                }
            }
            Seen::Snapshot { cluster_id, revision, digest, sound } => {
                verdict.examined += 1;
                clusters.insert(cluster_id.as_str());
                let watcher = watchers.entry(by).or_default();
                let (has, revision) = (watcher.has, *revision);
                if revision == has {
                    verdict.violated(format!("line {line}: {by} got revision {has} twice"));
                } else if revision < has {
                    verdict.violated(format!(
                        "line {line}: {by} got revision {revision} after revision {has}"
                    ));
                }
                if !sound {
                    verdict.violated(format!(
                        "line {line}: {by} got revision {revision} with other bytes than {digest}"
                    ));
                }
                let first = digests.entry(revision).or_insert(digest);
                if first != digest {
                    verdict.violated(format!(
                        "line {line}: {by} got revision {revision} with digest {digest}, others \
                         with {first}"
                    ));
                }
                watcher.has = has.max(revision);
                watcher.behind = 0;
            }
            Seen::KeepAlive { revision, .. } => {
                let watcher = watchers.entry(by).or_default();
                if *revision < watcher.announced {
                    verdict.violated(format!(
                        "line {line}: {by} was told of revision {} and then of {revision}",
                        watcher.announced
                    ));
                }
                watcher.announced = watcher.announced.max(*revision);
                watcher.behind = if *revision > watcher.has { watcher.behind + 1 } else { 0 };
                if watcher.behind > LATE && !watcher.told_behind {
                    watcher.told_behind = true;
                    verdict.violated(format!(
                        "line {line}: {by} is told of revision {revision} for the {}th time and \
                         has {}",
                        watcher.behind, watcher.has
                    ));
                }
            }
            Seen::InForce { revision } => {
                verdict.examined += 1;
                let before = in_force.insert(by, *revision).unwrap_or_default();
                if *revision < before {
                    verdict.violated(format!(
                        "line {line}: {by} went back from revision {before} to {revision}"
                    ));
                }
            }
            // A killed one goes on from its copy on disk, which may lack what it never acked.
            Seen::ProxyDown { proxy } => _ = in_force.remove(proxy.as_str()),
            Seen::Standing { service_clusters, .. } if by == REPLAY => {
                end = service_clusters.get("");
            }
            _ => {}
        }
    }
    if clusters.len() > 1 {
        verdict.violated(format!("the feed speaks for more than one cluster: {clusters:?}"));
    }
    if let Some((revision, digest)) = end {
        for (by, watcher) in &watchers {
            if watcher.has != *revision {
                verdict.violated(format!(
                    "{by} ends with revision {}, and the log with {revision}",
                    watcher.has
                ));
            }
        }
        if digests.get(revision).is_some_and(|seen| seen != digest) {
            verdict.violated(format!("revision {revision} has digest {digest} in a replay only"));
        }
    }
    verdict.remarks.push(format!("{} watchers on {streams} streams", watchers.len()));
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::story::Story;

    fn opened(revision: u64) -> Seen {
        Seen::FeedOpened { member: "member-1".into(), cluster_id: "c".into(), revision }
    }

    fn snapshot(revision: u64) -> Seen {
        let digest = format!("d{revision}");
        Seen::Snapshot { cluster_id: "c".into(), revision, digest, sound: true }
    }

    fn alive(revision: u64) -> Seen {
        Seen::KeepAlive { revision, leader_silent_ms: 0 }
    }

    fn end(revision: u64) -> Seen {
        let at_end = (revision, format!("d{revision}"));
        Seen::Standing { index: revision, service_clusters: [(String::new(), at_end)].into() }
    }

    fn verdict(seen: &[Seen], last: u64) -> Verdict {
        let mut story = Story::default();
        for seen in seen {
            story.seen("watcher-1", seen.clone());
        }
        story.seen(REPLAY, end(last));
        check(&story.history)
    }

    #[test]
    fn a_feed_that_skips_revisions_and_changes_members_is_accepted() {
        let seen = [
            opened(0),
            snapshot(4),
            alive(4),
            alive(7),
            snapshot(9),
            alive(9),
            opened(9),
            alive(5), // it lags, and sends nothing older
            alive(12),
            snapshot(12),
        ];
        let verdict = verdict(&seen, 12);
        assert!(verdict.holds() && verdict.examined == 3, "{verdict}");
    }

    #[test]
    fn each_broken_promise_is_refused() {
        let other = Seen::Snapshot {
            cluster_id: "c".into(),
            revision: 4,
            digest: "other".into(),
            sound: true,
        };
        let torn = Seen::Snapshot {
            cluster_id: "c".into(),
            revision: 4,
            digest: "d4".into(),
            sound: false,
        };
        let foreign = Seen::Snapshot {
            cluster_id: "x".into(),
            revision: 5,
            digest: "d5".into(),
            sound: true,
        };
        let never = [&[opened(0), snapshot(4)][..], &vec![alive(9); 6][..]].concat();
        let cases: &[(&[Seen], u64, &str)] = &[
            (&[opened(0), snapshot(4), snapshot(3)], 4, "got revision 3 after revision 4"),
            (&[opened(0), snapshot(4), opened(4), snapshot(3)], 4, "got revision 3 after"),
            (&[opened(0), snapshot(4), opened(4), snapshot(4)], 4, "got revision 4 twice"),
            (&[opened(0), snapshot(4), other], 4, "with digest other, others with d4"),
            (&[opened(0), torn], 4, "with other bytes"),
            (&[opened(0), snapshot(4), foreign], 5, "more than one cluster"),
            (&[opened(0), snapshot(4), alive(4), alive(3)], 4, "of revision 4 and then of 3"),
            (&never, 4, "is told of revision 9 for the 6th time and has 4"),
            (&[opened(0), snapshot(4)], 9, "ends with revision 4, and the log with 9"),
            (&[opened(0), snapshot(4), opened(3)], 4, "came back with revision 3, but has 4"),
        ];
        for (seen, last, said) in cases {
            let verdict = verdict(seen, *last);
            assert!(verdict.to_string().contains(said), "{said}: {verdict}");
        }
    }

    #[test]
    fn a_proxy_never_goes_back_while_it_runs() {
        let mut story = Story::default();
        let at = |revision| Seen::InForce { revision };
        story.seen("proxy-1", at(7));
        story.seen("proxy-2", at(5));
        story.seen("nemesis", Seen::ProxyDown { proxy: "proxy-1".into() });
        story.seen("proxy-1", at(6));
        assert!(check(&story.history).holds());
        story.seen("proxy-1", at(5));
        assert_eq!(
            check(&story.history).violations,
            ["line 5: proxy-1 went back from revision 6 to 5"]
        );
    }
}
