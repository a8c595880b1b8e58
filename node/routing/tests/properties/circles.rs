//! Redirects under the rule sets: a client that follows them arrives, from the second set on.

use std::cell::Cell;

use dovetail_routing::find::{Found, RouteIndex};
use dovetail_routing::snapshot::{RouteHost, Snapshot};
use dovetail_routing::{Command, Entry, Payload, RuleSet};
use proptest::prelude::*;

use crate::entry;
use crate::logs::{LOG_MAX, log};
use crate::seeds::holds;
use crate::{applied, snapshots};

/// More redirects than any client follows.
const HOPS_MAX: usize = 20;

/// Where a client that asks for a route over plain HTTP is sent from one redirect to the
/// next, until it arrives; `None` when it does not. Ports and TLS are left aside: what
/// is seen as a circle without them may be none, so only plain redirects are followed.
fn walk(snapshot: &Snapshot, host: &str, path: &str) -> Option<usize> {
    let index = RouteIndex::new(snapshot.clone().into());
    let (mut host, mut path) = (host.to_owned(), path.to_owned());
    for hops in 0..HOPS_MAX {
        let Found::Route(position) = index.find(&host, &path) else { return Some(hops) };
        let options = &snapshot.routes[position].options;
        let Some(redirect) = options.redirect.as_ref().filter(|one| one.host() != host) else {
            return Some(hops);
        };
        if redirect.https || options.ssl_only || redirect.port().is_some() {
            return Some(hops);
        }
        path.insert_str(0, &redirect.prefix);
        host = redirect.host().to_owned();
    }
    None
}

/// Whether every client arrives.
fn all_arrive(snapshot: &Snapshot) -> bool {
    snapshot.routes.iter().all(|route| match &route.host {
        RouteHost::Named(host) => walk(snapshot, host.as_str(), route.path.as_str()).is_some(),
        RouteHost::Wildcard(_) | RouteHost::Default => true,
    })
}

/// The log with an entry behind it that switches rules.
pub(crate) fn under(rules: RuleSet, mut log: Vec<Entry>) -> Vec<Entry> {
    log.push(entry(Payload::Command(Command::ActivateRules { rules })));
    log
}

#[test]
fn under_the_second_rule_set_every_client_arrives() {
    holds("no circle", log(LOG_MAX), |log| {
        for snapshot in snapshots(&applied(&under(RuleSet::NEWEST, log))) {
            prop_assert!(all_arrive(&snapshot), "{snapshot:?}");
        }
        Ok(())
    });
}

/// The check itself can fail: the first rule set lets circles be.
#[test]
fn under_the_first_rule_set_some_do_not() {
    let seen = Cell::new(false);
    holds("a circle", log(LOG_MAX), |log| {
        let all = snapshots(&applied(&under(RuleSet::FIRST, log)));
        seen.set(seen.get() || !all.iter().all(all_arrive));
        Ok(())
    });
    assert!(seen.get(), "no log makes a circle");
}

#[test]
fn to_switch_and_back_changes_no_route() {
    holds("there and back", log(LOG_MAX), |log| {
        let routes = |log: Vec<Entry>| -> Vec<_> {
            snapshots(&applied(&log)).into_iter().map(|one: Snapshot| one.routes).collect()
        };
        let there = under(RuleSet::NEWEST, under(RuleSet::FIRST, log.clone()));
        let back = under(RuleSet::FIRST, there.clone());
        prop_assert_eq!(routes(under(RuleSet::FIRST, log.clone())), routes(back));
        prop_assert_eq!(routes(under(RuleSet::NEWEST, log)), routes(there));
        Ok(())
    });
}
