//! Laws of intents that are kept, of rollbacks and of their release.

use std::collections::BTreeSet;

use dovetail_routing::intent::Scope;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::{RouteHost, RouteKey};
use dovetail_routing::state::{Problem, State};
use dovetail_routing::{Applied, Command, Entry, LogIndex, Payload};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::logs::{LOG_MAX, log, observed, text};
use crate::seeds::holds;
use crate::{applied, entry, resumed};

fn scope() -> impl Strategy<Value = Scope> {
    let hosts = select(&["a.example", "b.example", "c.example", "*"][..]);
    let host = hosts.prop_map(|name| name.parse().unwrap_or(RouteHost::Default));
    let service = text(&["service-s1", "service-s2", "service-s3", "service-s4"]);
    prop_oneof![
        3 => Just(Scope::default()),
        2 => host.prop_map(|host| Scope { host: Some(host), service: None }),
        1 => service.prop_map(|service| Scope { host: None, service: Some(service) }),
    ]
}

fn service_cluster() -> impl Strategy<Value = ServiceCluster> {
    select(&["", "", "", "east"][..]).prop_map(|name| name.parse().expect("a name"))
}

fn rollback() -> impl Strategy<Value = Command> {
    let for_ms = prop_oneof![3 => Just(None), 1 => (0..60_u64).prop_map(Some)];
    let to = (0..LOG_MAX as u64 + 2).prop_map(LogIndex);
    (service_cluster(), to, scope(), for_ms).prop_map(|(service_cluster, to, scope, for_ms)| {
        Command::RollbackRoutes { service_cluster, to, scope, for_ms }
    })
}

pub(crate) fn order() -> impl Strategy<Value = Command> {
    let release = (service_cluster(), scope())
        .prop_map(|(service_cluster, scope)| Command::ReleaseRollback { service_cluster, scope });
    prop_oneof![6 => rollback(), 1 => release]
}

/// The log with remarks in the place of rollbacks and releases.
pub(crate) fn without_rollbacks(log: &[Entry]) -> Vec<Entry> {
    let silenced = |given: &Entry| match &given.payload {
        Payload::Command(
            order @ (Command::RollbackRoutes { .. } | Command::ReleaseRollback { .. }),
        ) => {
            // The same remark exactly when it was the same order.
            let remark = Command::Annotate { text: format!("{order:?}").into() };
            Entry { payload: Payload::Command(remark), ..given.clone() }
        }
        _ => given.clone(),
    };
    log.iter().map(silenced).collect()
}

#[test]
fn intents_are_told_as_they_were_after_every_entry() {
    holds("walk back", log(LOG_MAX), |log| {
        let last = applied(&log);
        let restored = State::decode(&last.encode()).expect("what was encoded");
        let mut state = State::default();
        for (position, entry) in log.iter().enumerate() {
            let index = LogIndex(position as u64 + 1);
            state.apply(index, entry);
            for name in last.service_clusters() {
                let now = state.intents(&name);
                for of in [&last, &restored] {
                    let told = of.intent_at(&name, index);
                    prop_assert_eq!(told.as_ref().ok(), Some(&now), "{:?} at {}", name, index);
                }
            }
            // A line without its upstreams and weights: what the snapshot says.
            for name in state.service_clusters() {
                let snapshot = state.snapshot(&name);
                let intents = state.intents(&name);
                prop_assert_eq!(snapshot.routes.len(), intents.len());
                for (route, (key, intent)) in snapshot.routes.iter().zip(intents.iter()) {
                    prop_assert_eq!((&route.host, &route.path), (&key.host, &key.path));
                    prop_assert_eq!((&route.tls, &route.options), (&intent.tls, &intent.options));
                    let is_named = |name: &_| intent.services.contains(name);
                    prop_assert!(route.services.iter().all(|one| is_named(&one.name)));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_rollback_restores_exactly_what_was() {
    let restored = std::cell::Cell::new(0);
    holds("restored", (log(LOG_MAX), rollback()), |(log, order)| {
        let before = resumed(applied(&log), &[entry(Payload::Tick)]);
        let Command::RollbackRoutes { service_cluster, to, scope, .. } = &order else {
            unreachable!("made above")
        };
        let mut after = before.clone();
        let index = LogIndex(before.applied_index().0 + 1);
        if let Applied::Rejected(_) = after.apply(index, &entry(Payload::Command(order.clone()))) {
            return Ok(());
        }
        restored.set(restored.get() + 1);
        let then = before.intent_at(service_cluster, *to).expect("it was rolled back to");
        let then = then.within(scope);
        let now = after.intents(service_cluster);
        for (key, intent) in then.iter() {
            prop_assert_eq!(now.get(key), Some(intent), "{}", key);
            prop_assert_eq!(after.rollback(key).map(|held| held.order.index), Some(index));
        }
        // Whatever else there is came later, or is not in scope.
        let keys: BTreeSet<&RouteKey> = then.iter().map(|(key, _)| key).collect();
        if now.iter().all(|(key, _)| keys.contains(key)) {
            prop_assert_eq!(now.digest(), then.digest());
        }
        Ok(())
    });
    assert!(restored.get() > 20, "{} rollbacks were taken", restored.get());
}

/// What a problem says, whatever its age.
fn said(state: &State) -> BTreeSet<[String; 4]> {
    let said =
        |one: Problem| [one.service, one.label, one.value, one.reason].map(|text| text.to_string());
    state.problems().into_iter().map(said).collect()
}

#[test]
fn what_is_released_was_never_rolled_back() {
    let observed = observed().prop_map(|observed| entry(Payload::Observed(observed)));
    holds("released", (log(LOG_MAX), rollback(), vec(observed, 0..4)), |(log, order, after)| {
        let log = without_rollbacks(&log);
        let remark = || entry(Payload::Command(Command::Annotate { text: "".into() }));
        let run = |first, last: Vec<Entry>| {
            let mut state = resumed(applied(&log), &[first]);
            state = resumed(state, &after);
            state = resumed(state, &last);
            // Shares end with a rollback: here all do.
            let keys: Vec<_> = state.canaries().map(|(key, _)| key.clone()).collect();
            let clear = |route| entry(Payload::Command(Command::ClearCanary { route }));
            resumed(state, &keys.into_iter().map(clear).collect::<Vec<_>>())
        };
        let releases = ["", "east"].map(|name| Command::ReleaseRollback {
            service_cluster: name.parse().expect("a name"),
            scope: Scope::default(),
        });
        let releases = releases.map(|release| entry(Payload::Command(release)));
        let released = run(entry(Payload::Command(order)), releases.to_vec());
        let never = run(remark(), vec![remark(), remark()]);
        prop_assert_eq!(released.rollbacks().count(), 0);
        prop_assert_eq!(said(&released), said(&never));
        for name in never.service_clusters() {
            prop_assert_eq!(&released.snapshot(&name).routes, &never.snapshot(&name).routes);
        }
        Ok(())
    });
}

#[test]
fn what_is_held_stays_whatever_swarm_says() {
    let observed = observed().prop_map(|observed| entry(Payload::Observed(observed)));
    holds("held", (log(LOG_MAX), rollback(), vec(observed, 1..4)), |(log, order, after)| {
        let state = resumed(applied(&log), &[entry(Payload::Command(order))]);
        let state = resumed(state, &after);
        for (key, held) in state.rollbacks() {
            let intents = state.intents(&key.service_cluster);
            let Some(now) = intents.get(key) else { continue };
            prop_assert_eq!(&now.tls, &held.intent.tls);
            prop_assert_eq!(&now.options, &held.intent.options);
            prop_assert_eq!(&now.shares, &held.intent.shares);
            let mut rest = held.intent.services.iter();
            prop_assert!(now.services.iter().all(|name| rest.any(|other| other == name)));
        }
        Ok(())
    });
}

#[test]
fn a_rollback_ends_at_its_time() {
    holds("in time", log(LOG_MAX), |log| {
        let before = applied(&log);
        let ends = before.rollbacks().filter_map(|(_, held)| held.order.until_ms);
        let Some(deadline) = ends.min() else { return Ok(()) };
        prop_assert!(before.next_deadline().is_some_and(|next| next <= deadline));
        let tick = Entry { leader_time_ms: deadline, ..entry(Payload::Tick) };
        let after = resumed(before, &[tick]);
        let is_later = |until_ms: Option<u64>| until_ms.is_none_or(|until| until > deadline);
        prop_assert!(after.rollbacks().all(|(_, held)| is_later(held.order.until_ms)));
        Ok(())
    });
}

#[test]
fn scaling_uses_up_no_history() {
    holds("scaled", (log(LOG_MAX), observed()), |(log, observed)| {
        use dovetail_routing::fact::{Change, Observed};
        let before = applied(&log);
        let tasks: Vec<_> = observed
            .changes
            .into_iter()
            .filter(|change| matches!(change, Change::Task(_) | Change::TaskGone(_)))
            .collect();
        let swarm = before.swarm().clone();
        let observed = Observed { swarm, changes: tasks, events: Vec::new() };
        let after = resumed(before.clone(), &[entry(Payload::Observed(observed))]);
        for name in before.service_clusters() {
            prop_assert_eq!(after.intents(&name), before.intents(&name));
            for (key, _) in before.intents(&name).iter() {
                prop_assert_eq!(after.intent_changed_at(key), before.intent_changed_at(key));
            }
        }
        Ok(())
    });
}
