//! Redirects that lead a client back to where it came from, found before a client does.
//!
//! Two services that redirect to each other would send a browser in a circle, and no
//! request would ever be answered. From rule set 2 on, the youngest redirect that closes a
//! circle is not in force: its route serves its application, as an older redirect promised.
//! A circle is what a client takes for one: more redirects than it follows.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::State;
use super::claims::Claim;
use super::line::{Line, LineService};
use crate::entry::{Applied, LogIndex};
use crate::find::{Found, RouteIndex};
use crate::labels::REDIRECTS;
use crate::names::ServiceCluster;
use crate::problem::{PROBLEM_VALUE_BYTES_MAX, Problem, shortened};
use crate::rules::RuleSet;
use crate::snapshot::{Redirect, Route, RouteHost, RouteKey, RouteOptions, Snapshot};

/// Redirects that a client follows for one request: browsers give up after 20.
const HOPS_MAX: usize = 20;

/// A redirect that a route asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    /// The entry since which its incumbent claims the route; `None` where a rollback holds it.
    since: Option<LogIndex>,
    redirect: Redirect,
}

/// The redirects that routes ask for, and which of them lead back. All of it is derived.
#[derive(Clone, Debug, Default)]
pub(super) struct Circles {
    asked: OrdMap<RouteKey, Asked>,
    leading_back: OrdSet<RouteKey>,
    /// Whose redirects or routes have changed since they were followed.
    unsettled: OrdSet<ServiceCluster>,
}

impl Circles {
    /// Whether a route's redirect is not in force.
    pub(super) fn leads_back(&self, key: &RouteKey) -> bool {
        self.leading_back.contains(key)
    }

    /// Notes what a route asks for, or that it is gone. `drawn` is its line before.
    pub(super) fn note(
        &mut self,
        key: &RouteKey,
        asked: Option<(Option<LogIndex>, &RouteOptions)>,
        drawn: Option<&Line>,
    ) {
        let options = asked.map(|(_, options)| options);
        let redirect = asked.and_then(|(since, options)| {
            Some(Asked { since, redirect: options.redirect.clone()? })
        });
        let ssl_only = |options: &RouteOptions| options.ssl_only;
        let is_other = self.asked.get(key) != redirect.as_ref()
            || drawn.map(|line| ssl_only(&line.options)) != options.map(ssl_only);
        if !is_other {
            return;
        }
        match redirect {
            Some(redirect) => self.asked.insert(key.clone(), redirect),
            None => self.asked.remove(key),
        };
        self.unsettled.insert(key.service_cluster.clone());
    }
}

impl State {
    /// Follows redirects again where that may end otherwise than before; returns the routes
    /// whose redirect is in force now and was not, or the other way.
    pub(super) fn settle_circles(&mut self) -> BTreeSet<RouteKey> {
        let mut changed = BTreeSet::new();
        for name in std::mem::take(&mut self.circles.unsettled) {
            let of_cluster = |key: &&RouteKey| key.service_cluster == name;
            let old: BTreeSet<RouteKey> =
                self.circles.leading_back.iter().filter(of_cluster).cloned().collect();
            let new =
                if self.rules.ends_circles() { self.circles_of(&name) } else { BTreeSet::new() };
            for key in old.difference(&new) {
                self.circles.leading_back.remove(key);
            }
            for key in new.difference(&old) {
                self.circles.leading_back.insert(key.clone());
            }
            changed.extend(old.symmetric_difference(&new).cloned());
        }
        changed
    }

    /// Puts a rule set in force.
    pub(super) fn activate(&mut self, index: LogIndex, rules: RuleSet) -> Applied {
        if rules == self.rules {
            return Applied::Unchanged;
        }
        self.rules = rules;
        self.circles.unsettled = self.clusters.keys().cloned().collect();
        self.redrawn(index, &BTreeSet::new())
    }

    /// What the state would be if `rules` had been in force when its routes were drawn: for
    /// whoever asks what if. The state of a running quorum changes by entries alone.
    pub fn assume(&mut self, rules: RuleSet) {
        self.activate(self.applied, rules);
    }

    /// Since when the incumbent claims its route; `None` where a rollback holds it.
    pub(super) fn claimed_since(
        &self,
        key: &RouteKey,
        incumbent: Option<&LineService>,
    ) -> Option<LogIndex> {
        if self.rollbacks.get(key).is_some() {
            return None;
        }
        let is_its = |claim: &&Claim| incumbent.is_some_and(|one| one.id == claim.service);
        self.claims.of(key).iter().find(is_its).map(|claim| claim.since)
    }

    /// The routes of a service cluster whose redirects close a circle: the oldest claims
    /// redirect first, so that who comes later is the one that leads back. What an operator
    /// rolled back comes before all, and is exactly what it was.
    fn circles_of(&self, name: &ServiceCluster) -> BTreeSet<RouteKey> {
        let asked = self.circles.asked.iter().filter(|(key, _)| key.service_cluster == *name);
        let mut by_age: Vec<(&RouteKey, &Asked)> = asked.collect();
        let Some(cluster) = self.clusters.get(name).filter(|_| !by_age.is_empty()) else {
            return BTreeSet::new();
        };
        by_age.sort_by_key(|(key, asked)| (asked.since, *key));
        let mut walk = Walk::new(cluster.lines.iter());
        let mut leading_back = BTreeSet::new();
        for (key, asked) in by_age {
            walk.put(key, Some(&asked.redirect));
            if asked.since.is_some() && walk.leads_back(key) {
                walk.put(key, None);
                leading_back.insert(key.clone());
            }
        }
        leading_back
    }

    /// What the services of such routes are told.
    pub(super) fn circle_problems(&self, all: &mut Vec<Problem>) {
        for key in &self.circles.leading_back {
            let Some(asked) = self.circles.asked.get(key) else { continue };
            let service = self.line(key).and_then(|line| line.services.first());
            let value = asked.redirect.to_string();
            let reason = format!(
                "is not in force for {}{}: it leads a client in a circle, with redirects that \
                 were there before",
                key.host, key.path
            );
            all.push(Problem {
                service: service.map_or_else(|| "".into(), |one| Arc::clone(&one.name)),
                label: REDIRECTS.into(),
                value: shortened(&value, PROBLEM_VALUE_BYTES_MAX).into(),
                reason: reason.into(),
                since_index: asked.since.unwrap_or_default(),
            });
        }
    }
}

/// A client that follows redirects through the routes of one service cluster.
struct Walk {
    index: RouteIndex,
    /// By the position of the route: the redirects that are followed.
    followed: Vec<Option<Redirect>>,
}

/// Where a client is.
struct At {
    https: bool,
    host: String,
    port: Option<u16>,
    path: String,
}

impl Walk {
    fn new<'l>(lines: impl Iterator<Item = (&'l RouteKey, &'l Arc<Line>)>) -> Self {
        let route = |(key, line): (&RouteKey, &Arc<Line>)| Route {
            host: key.host.clone(),
            path: key.path.clone(),
            tls: line.tls.clone(),
            options: line.options.clone(),
            services: Vec::new(),
        };
        let routes: Vec<Route> = lines.map(route).collect();
        let followed = vec![None; routes.len()];
        let snapshot = Snapshot { routes, ..Snapshot::default() };
        Self { index: RouteIndex::new(Arc::new(snapshot)), followed }
    }

    /// Has the redirect of a route followed, or no longer.
    fn put(&mut self, key: &RouteKey, redirect: Option<&Redirect>) {
        let routes = &self.index.snapshot().routes;
        let by_key = |route: &Route| (&route.host, &route.path).cmp(&(&key.host, &key.path));
        if let Ok(position) = routes.binary_search_by(by_key) {
            self.followed[position] = redirect.cloned();
        }
    }

    /// Whether a client that asks for a route, over plain HTTP or TLS, never arrives.
    fn leads_back(&self, key: &RouteKey) -> bool {
        let host = match &key.host {
            RouteHost::Named(host) => host.to_string(),
            // Names that no route is likely to have; whichever it is, the same holds.
            RouteHost::Wildcard(below) => format!("any.{below}"),
            RouteHost::Default => "any.invalid".to_owned(),
        };
        [false, true].into_iter().any(|https| {
            let path = key.path.to_string();
            let mut at = At { https, host: host.clone(), port: None, path };
            (0..HOPS_MAX).all(|_| self.step(&mut at))
        })
    }

    /// Takes the next redirect; `false` where there is none.
    fn step(&self, at: &mut At) -> bool {
        let Found::Route(position) = self.index.find(&at.host, &at.path) else { return false };
        let options = &self.index.snapshot().routes[position].options;
        let redirect = self.followed[position].as_ref().filter(|redirect| {
            // As the proxy does: see its `redirect.rs`.
            let is_host = redirect.host() == at.host;
            let is_port = redirect.port().is_none_or(|port| port == at.port());
            let is_there = redirect.https == at.https && is_host && is_port;
            !is_there && (redirect.https || !options.ssl_only || !is_host)
        });
        match redirect {
            Some(redirect) => {
                at.https = redirect.https;
                at.host = redirect.host().to_owned();
                at.port = redirect.port();
                at.path.insert_str(0, &redirect.prefix);
                true
            }
            None if options.ssl_only && !at.https => {
                (at.https, at.port) = (true, None);
                true
            }
            None => false,
        }
    }
}

impl At {
    fn port(&self) -> u16 {
        self.port.unwrap_or(if self.https { 443 } else { 80 })
    }
}
