//! The whole state as bytes: what a raft snapshot holds.
//!
//! Written is what has a history: facts, intents, claims, problems with their age,
//! revisions, answers, canaries, drains, rollbacks, earlier intents. Upstreams and lines
//! follow from these and are derived anew.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::{Claim, Claims};
use super::cluster::Cluster;
use super::drains::Drains;
use super::facts::Facts;
use super::history::{self, History, Kept};
use super::upstreams::upstreams;
use super::{Answers, State};
use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::labels::HostKey;
use crate::names::ServiceCluster;
use crate::rules::RuleSet;
use crate::snapshot::{Revision, RouteKey};

/// The form of these bytes. A build reads its own, and those it says so of.
const STATE_FORMAT: u32 = 4;
/// The form before there was a second rule set: it says nothing of rules.
const STATE_FORMAT_FIRST_RULES: u32 = 3;

pub(super) fn encode(state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    STATE_FORMAT.write(&mut out);
    state.applied.write(&mut out);
    state.leader_time_ms.write(&mut out);
    state.rules.write(&mut out);
    state.swarm.write(&mut out);
    state.other_swarm.write(&mut out);
    state.config.write(&mut out);
    state.configs.write(&mut out);
    state.seeded.write(&mut out);
    let facts = &state.facts;
    facts.networks.write(&mut out);
    facts.swarm_nodes.write(&mut out);
    facts.secrets.write(&mut out);
    facts.configs.write(&mut out);
    facts.services.write(&mut out);
    facts.tasks.write(&mut out);
    state.intents.write(&mut out);
    state.claims.by_route.write(&mut out);
    state.problems.write(&mut out);
    let revisions: BTreeMap<ServiceCluster, Revision> =
        state.clusters.iter().map(|(name, cluster)| (name.clone(), cluster.revision)).collect();
    revisions.write(&mut out);
    state.answers.by_request.write(&mut out);
    state.canaries.write(&mut out);
    state.ancestors.write(&mut out);
    state.rollbacks.write(&mut out);
    let histories: BTreeMap<ServiceCluster, _> = state
        .clusters
        .iter()
        .map(|(name, cluster)| (name.clone(), cluster.history.kept()))
        .collect();
    histories.write(&mut out);
    state.drains.by_object.write(&mut out);
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<State, InvalidBytes> {
    let mut from = Reader::new(bytes);
    let format: u32 = from.read()?;
    if !(STATE_FORMAT_FIRST_RULES..=STATE_FORMAT).contains(&format) {
        let reason =
            format!("is {format}, this build reads {STATE_FORMAT_FIRST_RULES} and {STATE_FORMAT}");
        return Err(from.invalid("state format", reason));
    }
    let mut state = State {
        applied: from.read()?,
        leader_time_ms: from.read()?,
        rules: if format > STATE_FORMAT_FIRST_RULES { from.read()? } else { RuleSet::FIRST },
        swarm: from.read()?,
        other_swarm: from.read()?,
        config: from.read()?,
        configs: from.read()?,
        seeded: from.read()?,
        facts: Facts {
            networks: from.read()?,
            swarm_nodes: from.read()?,
            secrets: from.read()?,
            configs: from.read()?,
            services: from.read()?,
            tasks: from.read()?,
            ..Facts::default()
        },
        intents: from.read()?,
        claims: Claims::new(from.read()?),
        problems: from.read()?,
        ..State::default()
    };
    let revisions: BTreeMap<ServiceCluster, Revision> = from.read()?;
    state.answers = Answers { by_request: from.read()?, ..Answers::default() };
    state.canaries = from.read()?;
    state.ancestors = from.read()?;
    state.rollbacks = from.read()?;
    let histories: BTreeMap<ServiceCluster, Kept> = from.read()?;
    state.drains = Drains::new(from.read()?);
    from.end()?;

    check_ids(&state)?;
    check_claims(&state)?;
    state.facts.index();
    state.answers.index();
    if state.answers.by_index.len() != state.answers.by_request.len() {
        return Err(InvalidBytes::whole("answers", "two at one index"));
    }
    for (id, intent) in &state.intents {
        if let Some(service) = state.facts.services.get(id) {
            let (upstreams, _) = upstreams(&state.facts, &state.drains, service, intent);
            state.upstreams.insert(id.clone(), upstreams.into());
        }
    }
    let at = |(name, revision)| (name, Cluster::at(revision));
    state.clusters = revisions.into_iter().map(at).collect();
    if !histories.keys().eq(state.clusters.keys()) {
        return Err(InvalidBytes::whole("state", "history and service clusters differ"));
    }
    for (name, kept) in histories {
        history::check(&name, &kept, state.applied)?;
        if let Some(cluster) = state.clusters.get_mut(&name) {
            cluster.history = History::new(kept);
        }
    }
    state.check_rollbacks()?;
    let claimed = state.claims.by_route.keys().chain(state.rollbacks.keys());
    let keys: BTreeSet<RouteKey> = claimed.cloned().collect();
    let hosts: BTreeSet<HostKey> = keys.iter().map(RouteKey::host_key).collect();
    for host in &hosts {
        state.settle(host);
    }
    for key in &keys {
        if !state.clusters.contains_key(&key.service_cluster) {
            return Err(InvalidBytes::whole("state", "a claim's service cluster has no revision"));
        }
        state.redraw(key);
    }
    for key in state.settle_circles() {
        state.redraw(&key);
    }
    state.index_intents(&keys);
    Ok(state)
}

/// Each object stands under its own id.
fn check_ids(state: &State) -> Result<(), InvalidBytes> {
    let facts = &state.facts;
    let right = facts.networks.iter().all(|(id, network)| *id == network.id)
        && facts.swarm_nodes.iter().all(|(id, node)| *id == node.id)
        && facts.services.iter().all(|(id, service)| *id == service.id)
        && facts.tasks.iter().all(|(id, task)| *id == task.id)
        && state.intents.keys().all(|id| facts.services.contains_key(id))
        && state.problems.keys().all(|id| facts.services.contains_key(id));
    if !right {
        return Err(InvalidBytes::whole("state", "an object has another's id"));
    }
    if state.drains.are_of(facts) {
        Ok(())
    } else {
        Err(InvalidBytes::whole("drains", "one is of what is not there"))
    }
}

/// Claims and intents say the same, and the claims of a route are sorted.
fn check_claims(state: &State) -> Result<(), InvalidBytes> {
    let invalid = |reason| Err(InvalidBytes::whole("claims", reason));
    let mut claimed = 0;
    for (key, claims) in &state.claims.by_route {
        if claims.is_empty() {
            return invalid("a route without a claim");
        }
        if !claims.is_sorted_by(|a, b| a < b) {
            return invalid("claims do not ascend");
        }
        claimed += claims.len();
        let intended = |claim: &Claim| {
            state.intents.get(&claim.service).is_some_and(|intent| intent.claims(key))
        };
        if !claims.iter().all(intended) {
            return invalid("a claim without an intent");
        }
        let services: BTreeSet<_> = claims.iter().map(|claim| &claim.service).collect();
        if services.len() != claims.len() {
            return invalid("a service claims a route twice");
        }
    }
    // Each claim was intended; as many intended as claimed, and none is missing.
    let intended: usize = state.intents.values().map(|intent| intent.keys().count()).sum();
    if intended != claimed {
        return invalid("an intent without its claims");
    }
    Ok(())
}
