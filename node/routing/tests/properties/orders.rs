//! Laws of an operator's orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use dovetail_routing::command::{DrainTarget, Share};
use dovetail_routing::snapshot::{Route, RouteHost, RouteKey, UpstreamState};
use dovetail_routing::state::{Drained, State};
use dovetail_routing::{Applied, Command, Entry, LogIndex, Payload};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::logs::{LOG_MAX, log, text};
use crate::rollbacks::without_rollbacks;
use crate::runs::run;
use crate::seeds::holds;
use crate::{applied, entry, resumed};

pub(crate) fn route() -> impl Strategy<Value = RouteKey> {
    let host = select(&["a.example", "a.example", "b.example", "c.example", "*"][..]);
    (select(&["", "", "", "east"][..]), host, select(&["/", "/", "/app"][..])).prop_map(
        |(service_cluster, host, path)| RouteKey {
            service_cluster: service_cluster.parse().expect("a name"),
            host: host.parse().unwrap_or(RouteHost::Default),
            path: path.parse().expect("a path"),
        },
    )
}

pub(crate) fn service() -> impl Strategy<Value = Arc<str>> {
    text(&["service-s1", "service-s2", "service-s3", "service-s4"])
}

pub(crate) fn shares() -> impl Strategy<Value = Vec<Share>> {
    let share = |service: Arc<str>, weight| Share { service, weight };
    let two = (service(), service(), select(&[0_u16, 1, 500, 3_333, 10_000][..]))
        .prop_map(move |(a, b, weight)| vec![share(a, 10_000 - weight), share(b, weight)]);
    prop_oneof![
        4 => service().prop_map(move |service| vec![share(service, 10_000)]),
        8 => two,
        1 => vec((service(), 0..10_001_u16).prop_map(move |(name, weight)| share(name, weight)), 0..4),
    ]
}

fn target() -> impl Strategy<Value = DrainTarget> {
    let address = (1..5_u8, select(&[80_u16, 80, 8_080][..]));
    prop_oneof![
        4 => address.prop_map(|(last, port)| DrainTarget::Address(([10, 0, 0, last], port).into())),
        1 => service().prop_map(DrainTarget::Service),
        1 => text(&["m1", "m2"]).prop_map(DrainTarget::SwarmNode),
    ]
}

fn drain() -> impl Strategy<Value = Command> {
    let for_ms = prop_oneof![Just(None), (0..60_u64).prop_map(Some)];
    prop_oneof![
        5 => (target(), for_ms, prop::bool::weighted(0.8))
            .prop_map(|(target, for_ms, force)| Command::DrainUpstream { target, for_ms, force }),
        1 => target().prop_map(|target| Command::UndrainUpstream { target }),
    ]
}

pub(crate) fn order() -> impl Strategy<Value = Command> {
    prop_oneof![
        5 => drain(),
        2 => run(),
        6 => (route(), shares()).prop_map(|(route, shares)| {
            Command::SetCanary { route, shares, expected: None }
        }),
        1 => route().prop_map(|route| Command::ClearCanary { route }),
        1 => (route(), prop::option::of(service()))
            .prop_map(|(route, service)| Command::PromoteCanary { route, service }),
    ]
}

/// A log whose routes are mostly there before they are given shares.
fn log_and_orders() -> impl Strategy<Value = Vec<Entry>> {
    let orders = vec(order().prop_map(|order| entry(Payload::Command(order))), 0..12);
    // A rollback has orders of its own in force.
    (log(LOG_MAX), orders, log(4))
        .prop_map(|(log, orders, after)| without_rollbacks(&[log, orders, after].concat()))
}

fn published(state: &State, key: &RouteKey) -> Option<Route> {
    let snapshot = state.snapshot(&key.service_cluster);
    let mut routes = snapshot.routes.iter();
    routes.find(|route| route.host == key.host && route.path == key.path).cloned()
}

#[test]
fn a_share_is_kept_where_it_can_be() {
    holds("shares", log_and_orders(), |log| {
        let state = applied(&log);
        for (key, canary) in state.canaries() {
            let shares = canary.shares().unwrap_or_default();
            let Some(route) = published(&state, key) else { continue };
            let told = |name: &str| {
                let mut own = shares.iter().filter(|share| *share.service == *name);
                own.next().map_or(0, |share| u64::from(share.weight))
            };
            let mut by_name: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
            for service in &route.services {
                let (weight, active) = by_name.entry(&service.name).or_default();
                *weight += u64::from(service.weight);
                *active |= service.upstreams.iter().any(|one| one.state == UpstreamState::Active);
            }
            if by_name.keys().all(|name| told(name) == 0) {
                continue;
            }
            let serving: Vec<_> =
                by_name.iter().filter(|(name, (_, active))| told(name) > 0 && *active).collect();
            let whole: u64 = serving.iter().map(|(name, _)| told(name)).sum();
            for (name, (weight, active)) in &by_name {
                if told(name) == 0 {
                    prop_assert_eq!(*weight, 0, "{} of {}", name, key);
                } else if whole > 0 && !active {
                    prop_assert_eq!(*weight, 0, "{} of {} has nobody to take it", name, key);
                } else if whole > 0 {
                    let exact = told(name) * 10_000;
                    prop_assert!(exact.abs_diff(weight * whole) < whole, "{} of {}", name, key);
                }
            }
        }
        Ok(())
    });
}

/// The log with remarks in the place of some orders.
fn without(log: &[Entry], unwanted: fn(&Command) -> bool) -> Vec<Entry> {
    let silenced = |given: &Entry| {
        let payload = match &given.payload {
            Payload::Command(order) if unwanted(order) => {
                // With the same request id it is the same remark exactly when it was the
                // same order.
                let text = format!("{order:?}").into();
                Payload::Command(Command::Annotate { text })
            }
            payload => payload.clone(),
        };
        Entry { payload, ..given.clone() }
    };
    log.iter().map(silenced).collect()
}

fn is_drain(order: &Command) -> bool {
    matches!(order, Command::DrainUpstream { .. } | Command::UndrainUpstream { .. })
}

fn is_canary(order: &Command) -> bool {
    matches!(
        order,
        Command::SetCanary { .. }
            | Command::ClearCanary { .. }
            | Command::PromoteCanary { .. }
            | Command::StartCanary { .. }
            | Command::PauseCanary { .. }
            | Command::ResumeCanary { .. }
            | Command::AdvanceCanary { .. }
            | Command::AbortCanary { .. }
    )
}

#[test]
fn what_is_cleared_was_never_there() {
    holds("cleared", log_and_orders(), |log| {
        // Whether a drain is refused depends on shares.
        let log = without(&log, is_drain);
        let never = applied(&without(&log, is_canary));
        let ordered = applied(&log);
        let keys: Vec<_> = ordered.canaries().map(|(key, _)| key.clone()).collect();
        let clear = |route| entry(Payload::Command(Command::ClearCanary { route }));
        let cleared = resumed(ordered, &keys.into_iter().map(clear).collect::<Vec<_>>());
        prop_assert_eq!(cleared.canaries().count(), 0);
        prop_assert_eq!(cleared.problems(), never.problems());
        for name in never.service_clusters() {
            prop_assert_eq!(&cleared.snapshot(&name).routes, &never.snapshot(&name).routes);
        }
        Ok(())
    });
}

#[test]
fn a_refused_order_changes_nothing() {
    holds("refused", (log_and_orders(), order()), |(log, order)| {
        // What was due with an entry that was refused comes with the next one.
        let before = resumed(applied(&log), &[entry(Payload::Tick)]);
        let mut after = before.clone();
        let index = LogIndex(before.applied_index().0 + 1);
        if let Applied::Rejected(_) = after.apply(index, &entry(Payload::Command(order))) {
            let remark = Payload::Command(Command::Annotate { text: "".into() });
            prop_assert_eq!(after.encode(), resumed(before, &[entry(remark)]).encode());
        }
        Ok(())
    });
}

#[test]
fn nobody_is_sent_to_what_is_drained() {
    holds("drained", log_and_orders(), |log| {
        let state = applied(&log);
        for name in state.service_clusters() {
            let snapshot = state.snapshot(&name);
            let services = snapshot.routes.iter().flat_map(|route| &route.services);
            for service in services {
                for (drained, _) in state.drains() {
                    let is_left_out = match drained {
                        Drained::Task(id) => {
                            service.upstreams.iter().all(|one| one.task.as_ref() != Some(id))
                        }
                        Drained::Service(id) => service.id != *id || service.upstreams.is_empty(),
                        Drained::SwarmNode(id) => {
                            service.upstreams.iter().all(|one| one.node.as_ref() != Some(id))
                        }
                    };
                    prop_assert!(is_left_out, "{:?} is among {:?}", drained, service.upstreams);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn what_is_undrained_was_never_drained() {
    holds("undrained", log_and_orders(), |log| {
        let never = applied(&without(&log, is_drain));
        let mut state = applied(&log);
        loop {
            let first = state.drains().next().map(|(_, drain)| drain.target.clone());
            let Some(target) = first else { break };
            let undrain = entry(Payload::Command(Command::UndrainUpstream { target }));
            let count = state.drains().count();
            state = resumed(state, &[undrain]);
            prop_assert!(state.drains().count() < count);
        }
        prop_assert_eq!(state.next_deadline(), None);
        for name in never.service_clusters() {
            prop_assert_eq!(&state.snapshot(&name).routes, &never.snapshot(&name).routes);
        }
        Ok(())
    });
}

#[test]
fn a_drain_ends_at_its_time() {
    holds("in time", log_and_orders(), |log| {
        let before = applied(&log);
        let Some(deadline) = before.next_deadline() else { return Ok(()) };
        let tick = Entry { leader_time_ms: deadline, ..entry(Payload::Tick) };
        let after = resumed(before, &[tick]);
        prop_assert!(after.next_deadline().is_none_or(|next| next > deadline));
        prop_assert!(after.drains().all(|(_, one)| one.until_ms.is_none_or(|it| it > deadline)));
        Ok(())
    });
}

#[test]
fn a_drain_that_is_not_forced_leaves_every_route_somebody() {
    holds("left", (log_and_orders(), target()), |(log, target)| {
        let before = resumed(applied(&log), &[entry(Payload::Tick)]);
        let drain = Command::DrainUpstream { target, for_ms: None, force: false };
        let after = resumed(before.clone(), &[entry(Payload::Command(drain))]);
        let serves = |route: &Route| {
            let with_share = route.services.iter().filter(|service| service.weight > 0);
            with_share
                .flat_map(|service| &service.upstreams)
                .any(|one| one.state == UpstreamState::Active)
        };
        for name in before.service_clusters() {
            let (old, new) = (before.snapshot(&name), after.snapshot(&name));
            for (old, new) in old.routes.iter().zip(&new.routes) {
                prop_assert!(!serves(old) || serves(new), "{}{}", new.host, new.path);
            }
        }
        Ok(())
    });
}
