//! Laws of an operator's orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use dovetail_routing::command::Share;
use dovetail_routing::snapshot::{Route, RouteHost, RouteKey, UpstreamState};
use dovetail_routing::state::State;
use dovetail_routing::{Applied, Command, Entry, Payload};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::logs::{LOG_MAX, log, text};
use crate::rollbacks::without_rollbacks;
use crate::seeds::holds;
use crate::{applied, entry, resumed};

fn route() -> impl Strategy<Value = RouteKey> {
    let host = select(&["a.example", "a.example", "b.example", "c.example", "*"][..]);
    (select(&["", "", "", "east"][..]), host, select(&["/", "/", "/app"][..])).prop_map(
        |(service_cluster, host, path)| RouteKey {
            service_cluster: service_cluster.parse().expect("a name"),
            host: host.parse().unwrap_or(RouteHost::Default),
            path: path.parse().expect("a path"),
        },
    )
}

fn service() -> impl Strategy<Value = Arc<str>> {
    text(&["service-s1", "service-s2", "service-s3", "service-s4"])
}

fn shares() -> impl Strategy<Value = Vec<Share>> {
    let share = |service: Arc<str>, weight| Share { service, weight };
    let two = (service(), service(), select(&[0_u16, 1, 500, 3_333, 10_000][..]))
        .prop_map(move |(a, b, weight)| vec![share(a, 10_000 - weight), share(b, weight)]);
    prop_oneof![
        4 => service().prop_map(move |service| vec![share(service, 10_000)]),
        8 => two,
        1 => vec((service(), 0..10_001_u16).prop_map(move |(name, weight)| share(name, weight)), 0..4),
    ]
}

pub(crate) fn order() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => (route(), shares()).prop_map(|(route, shares)| Command::SetCanary { route, shares }),
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

#[test]
fn what_is_cleared_was_never_there() {
    holds("cleared", log_and_orders(), |log| {
        let without = log.iter().map(|given| {
            let payload = match &given.payload {
                Payload::Command(
                    order @ (Command::SetCanary { .. }
                    | Command::ClearCanary { .. }
                    | Command::PromoteCanary { .. }),
                ) => {
                    // With the same request id it is the same remark exactly when it was the
                    // same order.
                    let text = format!("{order:?}").into();
                    Payload::Command(Command::Annotate { text })
                }
                payload => payload.clone(),
            };
            Entry { payload, ..given.clone() }
        });
        let never = applied(&without.collect::<Vec<_>>());
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
        let before = applied(&log);
        let mut after = before.clone();
        let index = dovetail_routing::LogIndex(before.applied_index().0 + 1);
        if let Applied::Rejected(_) = after.apply(index, &entry(Payload::Command(order))) {
            let remark = Payload::Command(Command::Annotate { text: "".into() });
            prop_assert_eq!(after.encode(), resumed(before, &[entry(remark)]).encode());
        }
        Ok(())
    });
}
