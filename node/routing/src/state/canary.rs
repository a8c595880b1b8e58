//! Shares that an operator gave to the services of a route, instead of equal weights.
//!
//! A canary is kept by route and names its services, so that it outlives both: it
//! stays until it is cleared. A run that was started lies above what was set: see
//! [`super::runs`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::State;
use super::line::Line;
use super::runs::{Run, RunState};
use crate::command::Share;
use crate::entry::{Applied, LogIndex, Rejection};
use crate::names::ServiceCluster;
use crate::problem::Problem;
use crate::snapshot::{RouteKey, UpstreamState, WEIGHT_SUM};

/// Routes of one service cluster that may have a canary.
pub const CANARIES_PER_CLUSTER_MAX: usize = 1_000;
/// What a canary above the limit is refused for.
pub(crate) const CANARIES: &str = "canaries of a service cluster";

/// What an operator ordered for a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canary {
    /// The shares that hold until they are cleared.
    pub set: Option<Override>,
    /// What was started last; while it gives shares, they hold instead.
    pub run: Option<Run>,
    /// Services with a share that lack an active upstream, and since when.
    pub(super) lacking: BTreeMap<Arc<str>, LogIndex>,
}

/// Shares in force, and whose order they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// They sum to the whole.
    pub shares: Vec<Share>,
    /// Who ordered them.
    pub actor: Arc<str>,
    /// The entry that did.
    pub index: LogIndex,
}

impl Canary {
    /// The shares in force.
    pub fn shares(&self) -> Option<&[Share]> {
        let set = || self.set.as_ref().map(|set| set.shares.as_slice());
        self.run.as_ref().and_then(Run::shares).or_else(set)
    }

    /// Whose order is in force, and the entry that holds it: of an abort that left no
    /// shares, whose run it was.
    pub fn ordered(&self) -> Option<(&Arc<str>, LogIndex)> {
        let gives = |run: &&Run| run.shares().is_some() || self.set.is_none();
        let run = self.run.as_ref().filter(gives).map(|run| (&run.actor, run.index));
        run.or_else(|| self.set.as_ref().map(|set| (&set.actor, set.index)))
    }
}

pub(super) fn refused(reason: impl Into<Arc<str>>) -> Rejection {
    Rejection::Refused { reason: reason.into() }
}

/// Why a list of shares makes no sense, if so.
fn check(shares: &[Share]) -> Result<(), Rejection> {
    let mut names = BTreeSet::new();
    for share in shares {
        if !names.insert(&share.service) {
            return Err(refused(format!("service {:?} has two shares", share.service)));
        }
    }
    let sum: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
    if sum != u64::from(WEIGHT_SUM) {
        return Err(refused(format!(
            "the shares sum to {sum} basis points: they must sum to {WEIGHT_SUM}"
        )));
    }
    Ok(())
}

impl State {
    /// The canaries of all service clusters, by route.
    pub fn canaries(&self) -> impl Iterator<Item = (&RouteKey, &Canary)> {
        self.canaries.iter().map(|(route, canary)| (route, &**canary))
    }

    /// The canary of a route.
    pub fn canary(&self, route: &RouteKey) -> Option<&Canary> {
        self.canaries.get(route).map(Arc::as_ref)
    }

    pub(super) fn set_canary(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        route: &RouteKey,
        shares: &[Share],
        expected: Option<LogIndex>,
    ) -> Result<Applied, Rejection> {
        self.check_none_runs(route)?;
        self.check_expected(route, expected)?;
        self.give(index, actor, route, shares)
    }

    /// Whether the order in force on a route is the one that somebody built upon.
    fn check_expected(
        &self,
        route: &RouteKey,
        expected: Option<LogIndex>,
    ) -> Result<(), Rejection> {
        let Some(expected) = expected else { return Ok(()) };
        let ordered = self.canary(route).and_then(Canary::ordered);
        let found = ordered.map_or(LogIndex(0), |(_, index)| index);
        if found == expected {
            return Ok(());
        }
        let found = match ordered {
            Some((actor, index)) => format!("{actor} ordered it at index {index}"),
            None => "nobody ordered any".to_owned(),
        };
        Err(refused(format!(
            "the canary on {route} is another than at index {expected}: {found}; \
             dovetail canary show shows it"
        )))
    }

    /// Fixed shares, whatever ran there before.
    fn give(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        route: &RouteKey,
        shares: &[Share],
    ) -> Result<Applied, Rejection> {
        check(shares)?;
        let names: Vec<_> = shares.iter().map(|share| &share.service).collect();
        self.check_on_route(route, &names)?;
        self.check_room(route)?;
        let shares = shares.to_vec();
        let set = Override { shares, actor: Arc::clone(actor), index };
        Ok(self.replace_canary(index, route, Some(Canary { set: Some(set), ..Canary::default() })))
    }

    pub(super) fn clear_canary(
        &mut self,
        index: LogIndex,
        route: &RouteKey,
    ) -> Result<Applied, Rejection> {
        if !self.canaries.contains_key(route) {
            return Err(refused(format!("{route} has no canary: nothing to clear")));
        }
        Ok(self.replace_canary(index, route, None))
    }

    pub(super) fn promote_canary(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        route: &RouteKey,
        service: Option<&Arc<str>>,
    ) -> Result<Applied, Rejection> {
        let run = self.canaries.get(route).and_then(|canary| canary.run.as_ref());
        let target = run.filter(|run| run.state != RunState::Aborted).map(|run| &run.to);
        let Some(service) = service.or(target).map(Arc::clone) else {
            return Err(refused(format!(
                "no canary runs on {route}: say which service is to take all of it"
            )));
        };
        let all = Share { service, weight: WEIGHT_SUM };
        self.give(index, actor, route, &[all])
    }

    /// Whether a route is there, and services of these names are on it.
    pub(super) fn check_on_route(
        &self,
        route: &RouteKey,
        names: &[&Arc<str>],
    ) -> Result<(), Rejection> {
        let Some(line) = self.line(route) else {
            return Err(refused(format!(
                "there is no route {route}: dovetail routes lists those that there are"
            )));
        };
        let on_route: BTreeSet<_> = line.services.iter().map(|service| &service.name).collect();
        for name in names {
            if !on_route.contains(name) {
                let there: Vec<_> = on_route.iter().map(|name| name.to_string()).collect();
                return Err(refused(format!(
                    "service {name:?} is not on {route}: on it are {}",
                    there.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Whether one more route may have a canary.
    pub(super) fn check_room(&self, route: &RouteKey) -> Result<(), Rejection> {
        if self.canaries.contains_key(route) {
            return Ok(());
        }
        let count = self.canaries_of(&route.service_cluster) + 1;
        if count > CANARIES_PER_CLUSTER_MAX {
            return Err(Rejection::AboveLimit {
                what: CANARIES,
                given: count as u64,
                limit: CANARIES_PER_CLUSTER_MAX as u64,
            });
        }
        Ok(())
    }

    fn canaries_of(&self, name: &ServiceCluster) -> usize {
        let of_cluster = |route: &RouteKey| route.service_cluster == *name;
        self.canaries.keys().filter(|route| of_cluster(route)).count()
    }

    pub(super) fn replace_canary(
        &mut self,
        index: LogIndex,
        route: &RouteKey,
        canary: Option<Canary>,
    ) -> Applied {
        match canary {
            Some(canary) => self.canaries.insert(route.clone(), Arc::new(canary)),
            None => self.canaries.remove(route),
        };
        self.redrawn(index, &[route.clone()].into())
    }

    /// A route's line as it is drawn.
    pub(super) fn line(&self, route: &RouteKey) -> Option<&Line> {
        self.drawn(route).map(Arc::as_ref)
    }

    /// The same, shared: another one when it was drawn again and differed.
    pub(super) fn drawn(&self, route: &RouteKey) -> Option<&Arc<Line>> {
        self.clusters.get(&route.service_cluster)?.lines.get(route)
    }

    /// Notes which services of a canary lack an active upstream now.
    pub(super) fn note_lacking(&mut self, index: LogIndex, route: &RouteKey) {
        let Some(canary) = self.canaries.get(route) else { return };
        let line = self.line(route);
        let lacks = |share: &&Share| {
            let named = |name: &Arc<str>| *name == share.service;
            let services = line.iter().flat_map(|line| &line.services);
            let mut upstreams =
                services.filter(|one| named(&one.name)).flat_map(|one| one.upstreams.iter());
            share.weight > 0 && !upstreams.any(|one| one.state == UpstreamState::Active)
        };
        let since = |share: &Share| {
            let since = canary.lacking.get(&share.service).copied().unwrap_or(index);
            (Arc::clone(&share.service), since)
        };
        let shares = canary.shares().unwrap_or_default().iter();
        let lacking: BTreeMap<_, _> = shares.filter(lacks).map(since).collect();
        if lacking != canary.lacking {
            let canary = Canary { lacking, ..(**canary).clone() };
            self.canaries.insert(route.clone(), Arc::new(canary));
        }
    }

    /// What is wrong with canaries: shares that nobody can take, and runs that went wrong.
    pub(super) fn canary_problems(&self, to: &mut Vec<Problem>) {
        for (route, canary) in &self.canaries {
            to.extend(canary.run.as_ref().and_then(|run| went_wrong(route, run)));
            for (name, since) in &canary.lacking {
                let shares = canary.shares().unwrap_or_default();
                let Some(share) = shares.iter().find(|share| share.service == *name) else {
                    continue;
                };
                let by_others = shares
                    .iter()
                    .any(|one| one.weight > 0 && !canary.lacking.contains_key(&one.service));
                let on_route = |one: &Share| {
                    let services = self.line(route).map(|line| line.services.as_slice());
                    services.unwrap_or_default().iter().any(|own| own.name == one.service)
                };
                let rests = !shares.iter().any(|one| one.weight > 0 && on_route(one));
                let what = if on_route(share) {
                    "the service has no active upstream"
                } else {
                    "the service is not on the route"
                };
                let then = if self.line(route).is_none() {
                    "which is not published"
                } else if rests {
                    "weights are as without a canary until one with a share is"
                } else if by_others {
                    "its share goes to the others"
                } else {
                    "nobody else has a share to take it"
                };
                to.push(Problem {
                    service: Arc::clone(name),
                    label: "".into(),
                    value: share.weight.to_string().into(),
                    reason: format!("canary on {route}: {what}, {then}").into(),
                    since_index: *since,
                });
            }
        }
    }
}

/// A run that its figures ended stays a problem until somebody has looked.
fn went_wrong(route: &RouteKey, run: &Run) -> Option<Problem> {
    let Run { from, to, step, reason, .. } = run;
    (run.state == RunState::Aborted && !reason.is_empty()).then(|| Problem {
        service: Arc::clone(to),
        label: "".into(),
        value: run.plan.share(*step).to_string().into(),
        reason: format!(
            "canary on {route} from {from} was aborted at step {step}: {reason}; clear it, or \
             start another one"
        )
        .into(),
        since_index: run.changed_at,
    })
}

crate::codec::fields! {
    Canary { set run lacking }
    Override { shares actor index }
}

crate::codec::shared! { Canary }
