//! Laws that hold for every log: checked over seeded random ones.
//!
//! A failure prints the log in its smallest form and its seed; `SEED=n` replays it.

use dovetail_routing::fact::{Change, Listing, Observed, Service, SwarmVersion};
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::{Route, Snapshot, Tls, WEIGHT_SUM};
use dovetail_routing::state::{Problem, State};
use dovetail_routing::{Applied, Entry, LogIndex, Payload, RuleSet};
use proptest::prelude::*;

mod circles;
mod digests;
mod labels;
mod logs;
mod orders;
mod rollbacks;
mod runs;
mod seeds;

use labels::{published, spoiled};
use logs::{LOG_MAX, listing, log, observed};
use seeds::{CASES, holds};

fn applied(log: &[Entry]) -> State {
    resumed(State::default(), log)
}

/// Goes on with further entries.
fn resumed(mut state: State, log: &[Entry]) -> State {
    for entry in log {
        let index = LogIndex(state.applied_index().0 + 1);
        state.apply(index, entry);
    }
    state
}

fn entry(payload: Payload) -> Entry {
    Entry {
        schema_version: 1,
        leader_time_ms: 0,
        actor: "".into(),
        request_id: "".into(),
        cause: "".into(),
        payload,
    }
}

fn snapshots(state: &State) -> Vec<Snapshot> {
    state.service_clusters().iter().map(|name| (*state.snapshot(name)).clone()).collect()
}

/// What two states must share to be the same.
fn whole(state: &State) -> (Vec<u8>, Vec<Snapshot>, Vec<Problem>) {
    (state.encode(), snapshots(state), state.problems())
}

#[test]
fn equal_logs_give_equal_states() {
    holds("equal logs", log(LOG_MAX), |log| {
        prop_assert_eq!(whole(&applied(&log)), whole(&applied(&log)));
        prop_assert_eq!(applied(&log).digest(), applied(&log).digest());
        Ok(())
    });
}

#[test]
fn a_state_is_restored_exactly_and_goes_on_alike() {
    let cut_log = log(LOG_MAX).prop_flat_map(|log| (0..=log.len(), Just(log)));
    holds("restore at any entry", cut_log, |(cut, log)| {
        let before = applied(&log[..cut]);
        let bytes = before.encode();
        let restored = State::decode(&bytes)
            .map_err(|error| TestCaseError::fail(format!("what was encoded: {error}")))?;
        prop_assert_eq!(whole(&restored), whole(&before));
        prop_assert_eq!(restored.digest(), before.digest());
        prop_assert_eq!(whole(&resumed(restored, &log[cut..])), whole(&applied(&log)));
        Ok(())
    });
}

#[test]
fn a_snapshot_says_the_same_after_its_bytes() {
    holds("canonical bytes", log(LOG_MAX), |log| {
        let state = applied(&log);
        for name in state.service_clusters() {
            let published = state.published(&name);
            let read = Snapshot::decode(&published.canonical)
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&read, &*published.snapshot);
            prop_assert_eq!(read.encode(), &*published.canonical);
            prop_assert_eq!(Snapshot::digest_of(&published.canonical), published.digest);
        }
        Ok(())
    });
}

#[test]
fn weights_sum_to_the_whole_and_no_route_is_without_a_service() {
    holds("weights", log(LOG_MAX), |log| {
        for snapshot in snapshots(&applied(&log)) {
            for route in &snapshot.routes {
                let sum: u32 = route.services.iter().map(|one| u32::from(one.weight)).sum();
                prop_assert_eq!(sum, u32::from(WEIGHT_SUM));
            }
        }
        Ok(())
    });
}

#[test]
fn a_revision_moves_exactly_when_its_snapshot_does() {
    holds("revisions", log(LOG_MAX), |log| {
        let mut state = State::default();
        for (position, entry) in log.iter().enumerate() {
            let index = LogIndex(position as u64 + 1);
            let before = state.clone();
            let answer = state.apply(index, entry);
            let mut moved = false;
            for name in state.service_clusters() {
                let (old, new) = (before.snapshot(&name), state.snapshot(&name));
                let same = old.routes == new.routes && old.options == new.options;
                moved |= !same;
                let revision = if same { old.revision.0 } else { index.0 };
                prop_assert_eq!(new.revision.0, revision, "{:?} at {}", name, index);
            }
            // A repeated request gets its first answer, whatever that was.
            let again = before.first_answer(&entry.actor, &entry.request_id).is_some();
            prop_assert!(again || moved == matches!(answer, Applied::Changed(_)));
            prop_assert!(state.leader_time_ms() >= before.leader_time_ms());
            prop_assert_eq!(state.applied_index(), index);
        }
        Ok(())
    });
}

#[test]
fn the_same_facts_again_change_nothing() {
    holds("facts again", (log(LOG_MAX), observed()), |(log, observed)| {
        let mut state = applied(&log);
        let next = |state: &State| LogIndex(state.applied_index().0 + 1);
        // Of one object a later change may undo an earlier one: each object once.
        let again = entry(Payload::Observed(logs::each_once(observed)));
        state.apply(next(&state), &again);
        let (before, problems) = (snapshots(&state), state.problems());
        let answer = state.apply(next(&state), &again);
        prop_assert!(!matches!(answer, Applied::Changed(_)), "{:?}", answer);
        prop_assert_eq!(snapshots(&state), before);
        prop_assert_eq!(state.problems(), problems);
        Ok(())
    });
}

#[test]
fn the_order_within_an_observation_does_not_matter() {
    let shuffled = observed().prop_map(logs::each_once).prop_flat_map(|observed| {
        let changes = Just(observed.changes.clone()).prop_shuffle();
        (Just(observed), changes)
    });
    holds("order", (log(LOG_MAX), shuffled), |(log, (observed, changes))| {
        let base = applied(&log);
        let other = Observed { changes, ..observed.clone() };
        let one = resumed(base.clone(), &[entry(Payload::Observed(observed))]);
        let two = resumed(base, &[entry(Payload::Observed(other))]);
        prop_assert_eq!(whole(&one), whole(&two));
        Ok(())
    });
}

#[test]
fn a_listing_is_reached_by_its_difference() {
    holds("difference", (log(LOG_MAX), listing()), |(log, listing): (_, Listing)| {
        let state = applied(&log);
        let difference = state.difference(&listing);
        prop_assert!(difference.upstreams_lost <= difference.upstreams_before);
        let mut changes = difference.upserts;
        changes.extend(difference.removals);
        let observed = Observed { swarm: state.swarm().clone(), changes, events: Vec::new() };
        let after = resumed(state, &[entry(Payload::Observed(observed))]);
        let left = after.difference(&listing);
        prop_assert!(left.is_empty(), "{:?}", left);
        prop_assert_eq!((left.upstreams_lost, left.routes_lost), (0, 0));
        Ok(())
    });
}

#[test]
fn a_bad_label_takes_down_no_route() {
    holds("last good", (log(LOG_MAX), published(), spoiled()), |(log, good, bad)| {
        let mut state = applied(&log);
        let swarm = state.swarm().clone();
        let observe = |state: State, change| {
            let changes = vec![change];
            let observed = Observed { swarm: swarm.clone(), changes, events: Vec::new() };
            resumed(state, &[entry(Payload::Observed(observed))])
        };
        state = observe(state, good);
        let before = snapshots(&state);
        let after = observe(state, bad);
        prop_assert_eq!(snapshots(&after), before);
        prop_assert!(!after.problems().is_empty());
        Ok(())
    });
}

/// What is derived bit by bit, entry by entry, is what reading everything anew gives.
#[test]
fn reading_every_service_again_changes_nothing() {
    holds("all again", log(LOG_MAX), |log| {
        let before = applied(&log);
        let again = |service: &Service| {
            Change::Service(Service { version: SwarmVersion(u64::MAX), ..service.clone() })
        };
        let changes = before.services().map(again).collect();
        let observed = Observed { swarm: before.swarm().clone(), changes, events: Vec::new() };
        let after = resumed(before.clone(), &[entry(Payload::Observed(observed))]);
        let of_services = |state: &State| {
            let mut problems = state.problems();
            problems.retain(|problem| !problem.service.is_empty());
            problems
        };
        prop_assert_eq!(snapshots(&after), snapshots(&before));
        prop_assert_eq!(of_services(&after), of_services(&before));
        Ok(())
    });
}

/// A certificate belongs to its host, and passthrough to all of it.
#[test]
fn a_host_has_one_certificate_and_one_kind_of_tls() {
    holds("TLS of hosts", log(LOG_MAX), |log| {
        for snapshot in snapshots(&applied(&log)) {
            for route in &snapshot.routes {
                let of_host = snapshot.routes.iter().filter(|other| other.host == route.host);
                for other in of_host {
                    let passed = |route: &Route| route.tls == Tls::Passthrough;
                    prop_assert_eq!(passed(route), passed(other), "{}", route.host);
                    if let (Tls::Terminate(one), Tls::Terminate(two)) = (&route.tls, &other.tls) {
                        prop_assert_eq!(one, two, "{}", route.host);
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn an_unknown_service_cluster_has_an_empty_snapshot() {
    let name: ServiceCluster = "nowhere".parse().expect("a name");
    let snapshot = State::default().snapshot(&name);
    assert_eq!(*snapshot, Snapshot { service_cluster: name, ..Snapshot::default() });
}

#[test]
fn an_index_is_applied_once() {
    let mut state = State::default();
    let tick = entry(Payload::Tick);
    state.apply(LogIndex(5), &tick);
    let before = state.encode();
    state.apply(LogIndex(5), &tick);
    state.apply(LogIndex(4), &tick);
    assert_eq!(state.encode(), before);
}

/// A run that exercised nothing proves nothing.
#[test]
fn random_logs_meet_what_the_laws_are_about() {
    use dovetail_routing::snapshot::{
        RouteHost, Sticky, UpstreamProtocol, UpstreamState, UpstreamTls,
    };
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    let met = RefCell::new(BTreeMap::new());
    let count = |what, seen: bool| *met.borrow_mut().entry(what).or_insert(0) += u32::from(seen);
    holds("coverage", log(LOG_MAX), |log| {
        let state = applied(&log);
        let snapshots = snapshots(&state);
        let routes = || snapshots.iter().flat_map(|snapshot| &snapshot.routes);
        let upstreams =
            || routes().flat_map(|route| &route.services).flat_map(|one| &one.upstreams);
        count("a route", routes().count() > 0);
        count("a shared route", routes().any(|route| route.services.len() > 1));
        count("an active upstream", upstreams().any(|one| one.state == UpstreamState::Active));
        count("a draining upstream", upstreams().any(|one| one.state == UpstreamState::Draining));
        count("a virtual address", upstreams().any(|one| one.task.is_none()));
        count("a second service cluster", snapshots.len() > 1);
        count("a certificate", routes().any(|one| matches!(one.tls, Tls::Terminate(_))));
        count("passthrough", routes().any(|one| one.tls == Tls::Passthrough));
        count("a wildcard", routes().any(|one| matches!(one.host, RouteHost::Wildcard(_))));
        count("stickiness", routes().any(|one| one.options.sticky != Sticky::None));
        count("a redirect", routes().any(|one| one.options.redirect.is_some()));
        let dials = || routes().flat_map(|route| &route.services).map(|one| &one.dial);
        count("TLS to an upstream", dials().any(|dial| dial.tls != UpstreamTls::None));
        count("another protocol", dials().any(|dial| dial.protocol != UpstreamProtocol::Auto));
        let reasons: String = state.problems().iter().map(|one| one.reason.to_string()).collect();
        count("a difference", reasons.contains("differs from the incumbent"));
        count("an owner", reasons.contains("belongs to"));
        for (what, reason) in [
            ("a missing secret", "lists no secret"),
            ("a passed-through host", "its streams are passed"),
            ("a decrypted host", "and is not passed through"),
            ("a host with other clients", "and asks clients for"),
            ("an incumbent without certificate", "came first and has no certificate"),
            ("an incumbent with certificate", "came first and has a certificate"),
            ("another stack", "MergeHosts = stack"),
            ("no merge", "MergeHosts = none"),
            ("another certificate", "in force for all of"),
        ] {
            count(what, reasons.contains(reason));
        }
        let of_mesh = |one: &Problem| one.label.starts_with("com.docker.ucp.mesh.http");
        count("a label of the mesh that cannot be", state.problems().iter().any(of_mesh));
        count(
            "a canary in force",
            state.canaries().any(|(route, _)| {
                routes().any(|one| (&one.host, &one.path) == (&route.host, &route.path))
            }),
        );
        let held = || state.rollbacks().map(|(_, held)| held);
        count("a rollback", held().count() > 0);
        count("a rollback with an end", held().any(|one| one.order.until_ms.is_some()));
        count("a change that is not in force", held().any(|one| one.changes > 0));
        count("a drain", state.drains().count() > 0);
        count("a drain with an end", state.next_deadline().is_some());
        let drained = |service: &Service| !state.drained_upstreams(&service.id).is_empty();
        count("a drained upstream", state.services().any(drained));
        count("a share that nobody takes", reasons.contains("canary on"));
        count("another swarm", reasons.contains("another swarm"));
        let newest = applied(&circles::under(RuleSet::NEWEST, log)).problems();
        let is_circle = |one: &Problem| one.reason.contains("leads a client in a circle");
        count("a redirect that leads back", newest.iter().any(is_circle));
        count("an undialable address", reasons.contains("cannot be dialled"));
        Ok(())
    });
    let met = met.into_inner();
    for (what, times) in &met {
        println!("{times} of {CASES} logs met {what}");
    }
    let never: Vec<_> =
        met.iter().filter(|(_, times)| **times == 0).map(|(what, _)| what).collect();
    assert!(never.is_empty(), "no log met {never:?}");
}
