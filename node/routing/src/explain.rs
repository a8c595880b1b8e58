//! Why a request goes where it goes: the route, who is in force on it, and since when.
//!
//! The lookup is [`RouteIndex`]'s, the very one that proxies use.

use std::sync::Arc;

use crate::entry::LogIndex;
use crate::find::{Found, RouteIndex};
use crate::names::{ServiceCluster, ServiceId};
use crate::problem::Problem;
use crate::snapshot::{Revision, Route, RouteHost, RouteKey, Upstream};
use crate::state::{Drain, Drained, Held, Override, State};

/// How a host and a path were found, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The host is published by this name.
    Host,
    /// The longest wildcard that covers the host.
    Wildcard,
    /// No route is for the host: the default backend.
    Default,
    /// The host has routes, but none whose context root covers the path: 404.
    UnknownPath,
    /// The host has no route, and there is no default backend for the path: 503.
    UnknownHost,
}

/// A service that claims a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimOf {
    pub id: ServiceId,
    pub name: Arc<str>,
    /// The entry that first showed it valid.
    pub since: LogIndex,
    /// Whether it serves the route.
    pub in_force: bool,
}

/// Why a request goes where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub revision: Revision,
    pub rule: Rule,
    /// Context roots of the host that do not decide, when one was looked for.
    pub paths_of_host: usize,
    /// The route with shares and upstreams; none with an unknown host or path.
    pub route: Option<(RouteKey, Route)>,
    /// The claims to it, the oldest first: the incumbent's is the first in force.
    pub claims: Vec<ClaimOf>,
    /// Upstreams that an operator drained; they are not on the route.
    pub drained: Vec<Upstream>,
    /// The drains that these are of.
    pub drains: Vec<Drain>,
    /// The shares in force, and whose last word they are.
    pub shares: Option<Override>,
    /// The rollback that holds it.
    pub held: Option<Held>,
    /// The last entry still kept that changed what the route is, but for its upstreams.
    pub intent_changed_at: Option<LogIndex>,
    /// Problems of the services that claim it or serve it, and of its shares.
    pub problems: Vec<Problem>,
}

impl State {
    /// Explains a request for a lower-case host without port, and a path.
    pub fn explain(&self, service_cluster: &ServiceCluster, host: &str, path: &str) -> Explanation {
        let snapshot = self.snapshot(service_cluster);
        let index = RouteIndex::new(Arc::clone(&snapshot));
        let of_host = index.host(host).unwrap_or_else(|| index.default_host());
        let mut explanation = Explanation {
            revision: snapshot.revision,
            rule: Rule::UnknownHost,
            paths_of_host: of_host.len(),
            route: None,
            claims: Vec::new(),
            drained: Vec::new(),
            drains: Vec::new(),
            shares: None,
            held: None,
            intent_changed_at: None,
            problems: Vec::new(),
        };
        let route = match index.find(host, path) {
            Found::UnknownHost => return explanation,
            Found::UnknownPath => {
                explanation.rule = Rule::UnknownPath;
                return explanation;
            }
            Found::Route(position) => &snapshot.routes[position],
        };
        explanation.rule = match route.host {
            RouteHost::Named(_) => Rule::Host,
            RouteHost::Wildcard(_) => Rule::Wildcard,
            RouteHost::Default => Rule::Default,
        };
        let key = RouteKey {
            service_cluster: service_cluster.clone(),
            host: route.host.clone(),
            path: route.path.clone(),
        };
        explanation.claims = self.claims_to(&key, route);
        for service in &route.services {
            self.drained_of(&service.id, &mut explanation);
        }
        explanation.shares = self.canary(&key).and_then(|canary| {
            let shares = canary.shares()?.to_vec();
            match canary.run.as_ref().filter(|run| run.shares().is_some()) {
                Some(run) => {
                    let actor = Arc::clone(&run.changed_by);
                    Some(Override { shares, actor, index: run.changed_at })
                }
                None => canary.set.clone(),
            }
        });
        explanation.held = self.rollback(&key).cloned();
        explanation.intent_changed_at = self.intent_changed_at(&key);
        let is_on = |name: &str| {
            let served = route.services.iter().any(|service| *service.name == *name);
            served || explanation.claims.iter().any(|claim| *claim.name == *name)
        };
        explanation.problems =
            self.problems().into_iter().filter(|problem| is_on(&problem.service)).collect();
        explanation.route = Some((key, route.clone()));
        explanation
    }

    /// What an operator drained of a service, and the drains.
    fn drained_of(&self, id: &ServiceId, to: &mut Explanation) {
        for upstream in self.drained_upstreams(id) {
            for (drained, drain) in self.drains() {
                let is_of = match drained {
                    Drained::Task(task) => upstream.task.as_ref() == Some(task),
                    Drained::Service(service) => service == id,
                    Drained::SwarmNode(node) => upstream.node.as_ref() == Some(node),
                };
                if is_of && !to.drains.contains(drain) {
                    to.drains.push(drain.clone());
                }
            }
            to.drained.push(upstream);
        }
    }
}
