//! The digest of the whole state, brought up to date by what changed.
//!
//! Each item of a map is hashed with its key; the hashes are summed up in 1,024 buckets,
//! and the digest is BLAKE3 over single values and buckets. An item that changed takes
//! its old hash out and puts its new one in, so that a digest costs as much as what
//! changed since the last one: persistent maps tell, and shared parts are passed over.
//!
//! It finds members that differ by accident. Whoever wants to deceive is found by the
//! ledger's chain, whose head stands beside it in a checkpoint.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::facts::Facts;
use super::line::Line;
use super::{Cluster, State};
use crate::codec::Canonical;
use crate::names::ServiceCluster;
use crate::rules::RuleSet;
use crate::snapshot::{Digest, RouteKey};

const BUCKETS: usize = 1_024;
/// The form of what is hashed; members of one quorum compute the same.
const DIGEST_FORMAT: u32 = 1;

/// Computes digests of states that follow on each other.
///
/// The states may be any: of one that shares nothing with the last, all is hashed.
#[derive(Clone)]
pub struct Digester {
    last: State,
    sums: Box<[[u64; 4]]>,
}

impl Default for Digester {
    fn default() -> Self {
        // The empty state has no items, so all sums are zero.
        Self { last: State::default(), sums: vec![[0; 4]; BUCKETS].into() }
    }
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digester").field("applied", &self.last.applied).finish_non_exhaustive()
    }
}

impl Digester {
    /// The digest of `state`: what [`State::digest`] gives, at the cost of the changes.
    pub fn digest(&mut self, state: &State) -> Digest {
        let old = std::mem::replace(&mut self.last, state.clone());
        let mut single = Vec::new();
        // No `..`: whoever adds a field says here how it is covered.
        let State {
            applied,
            leader_time_ms,
            rules,
            swarm,
            other_swarm,
            config,
            configs,
            seeded,
            facts,
            intents,
            claims,
            problems,
            answers,
            canaries,
            drains,
            rollbacks,
            // Derived; what they come to is in the lines of `clusters`.
            upstreams: _,
            hosts: _,
            circles: _,
            clusters,
            ancestors,
        } = state;
        DIGEST_FORMAT.write(&mut single);
        applied.write(&mut single);
        leader_time_ms.write(&mut single);
        swarm.write(&mut single);
        other_swarm.write(&mut single);
        config.write(&mut single);
        seeded.write(&mut single);
        ancestors.write(&mut single);
        // Digests under the first set stay what they were before there was another.
        if *rules != RuleSet::FIRST {
            rules.write(&mut single);
        }
        let mut sums = Sums(&mut self.sums);
        sums.facts(&old.facts, facts);
        sums.map(10, &old.intents, intents);
        sums.map(11, &old.claims.by_route, &claims.by_route);
        sums.map(12, &old.problems, problems);
        sums.map(13, &old.answers.by_request, &answers.by_request);
        sums.map(14, &old.canaries, canaries);
        sums.map(30, &old.configs, configs);
        sums.map(17, &old.drains.by_object, &drains.by_object);
        let (held, ended) = rollbacks.parts();
        let (old_held, old_ended) = old.rollbacks.parts();
        sums.map(15, old_held, held);
        sums.map(16, old_ended, ended);
        sums.clusters(&old.clusters, clusters);

        let mut hasher = blake3::Hasher::new();
        hasher.update(&single);
        for lane in self.sums.iter().flatten() {
            hasher.update(&lane.to_be_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

/// The buckets while they are brought up to date.
struct Sums<'s>(&'s mut [[u64; 4]]);

impl Sums<'_> {
    fn facts(&mut self, old: &Facts, new: &Facts) {
        let Facts {
            networks,
            swarm_nodes,
            secrets,
            configs,
            services,
            tasks,
            // Indexes of the maps above.
            tasks_by_service: _,
            tasks_by_node: _,
            services_by_network: _,
            services_by_secret: _,
            secrets_by_name: _,
            services_by_name: _,
        } = new;
        self.map(1, &old.networks, networks);
        self.map(2, &old.swarm_nodes, swarm_nodes);
        self.map(3, &old.secrets, secrets);
        self.map(4, &old.configs, configs);
        self.map(5, &old.services, services);
        self.map(6, &old.tasks, tasks);
    }

    /// Revisions, the routes as proxies get them, and what intents were before.
    fn clusters(
        &mut self,
        old: &OrdMap<ServiceCluster, Cluster>,
        new: &OrdMap<ServiceCluster, Cluster>,
    ) {
        if old.ptr_eq(new) {
            return;
        }
        let none = OrdMap::new();
        let no_history = OrdMap::new();
        let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        for name in names {
            let (old, new) = (old.get(name), new.get(name));
            for (cluster, add) in [(old, false), (new, true)] {
                if let Some(cluster) = cluster {
                    self.item(20, add, |bytes| {
                        name.write(bytes);
                        cluster.revision.write(bytes);
                        cluster.history.parts().0.write(bytes);
                    });
                }
            }
            let undone = |of: Option<&Cluster>| {
                of.map_or_else(|| no_history.clone(), |of| of.history.parts().1.clone())
            };
            self.map_of(22, Some(name), &undone(old), &undone(new));
            let lines =
                |of: Option<&Cluster>| of.map_or_else(|| none.clone(), |of| of.lines.clone());
            let (old, new) = (lines(old), lines(new));
            if old.ptr_eq(&new) {
                continue;
            }
            let mut line = |key: &RouteKey, line: &Arc<Line>, add| {
                self.item(21, add, |bytes| {
                    name.write(bytes);
                    line.route(key).write(bytes);
                });
            };
            for item in old.diff(&new) {
                match item {
                    DiffItem::Add(key, value) => line(key, value, true),
                    DiffItem::Remove(key, value) => line(key, value, false),
                    DiffItem::Update { old, new } => {
                        line(old.0, old.1, false);
                        line(new.0, new.1, true);
                    }
                }
            }
        }
    }

    /// A map whose items have canonical bytes; `part` tells it from the others.
    fn map<K, V>(&mut self, part: u8, old: &OrdMap<K, V>, new: &OrdMap<K, V>)
    where
        K: Canonical + Ord,
        V: Canonical + PartialEq,
    {
        self.map_of(part, None, old, new);
    }

    /// As [`Sums::map`], of a map of which there are several, told apart by `whose`.
    fn map_of<K, V>(
        &mut self,
        part: u8,
        whose: Option<&ServiceCluster>,
        old: &OrdMap<K, V>,
        new: &OrdMap<K, V>,
    ) where
        K: Canonical + Ord,
        V: Canonical + PartialEq,
    {
        if old.ptr_eq(new) {
            return;
        }
        let mut pair = |key: &K, value: &V, add| {
            self.item(part, add, |bytes| {
                if let Some(whose) = whose {
                    whose.write(bytes);
                }
                key.write(bytes);
                value.write(bytes);
            });
        };
        for item in old.diff(new) {
            match item {
                DiffItem::Add(key, value) => pair(key, value, true),
                DiffItem::Remove(key, value) => pair(key, value, false),
                DiffItem::Update { old, new } => {
                    pair(old.0, old.1, false);
                    pair(new.0, new.1, true);
                }
            }
        }
    }

    fn item(&mut self, part: u8, add: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = vec![part];
        write(&mut bytes);
        let hash = blake3::hash(&bytes);
        let (words, _) = hash.as_bytes().as_chunks::<8>();
        // Any part of it will do for the choice of a bucket.
        let choice = words.first().map_or(0, |word| u64::from_be_bytes(*word));
        let bucket = usize::try_from(choice % BUCKETS as u64).unwrap_or_default();
        for (sum, word) in self.0[bucket].iter_mut().zip(words) {
            let word = u64::from_be_bytes(*word);
            *sum = if add { sum.wrapping_add(word) } else { sum.wrapping_sub(word) };
        }
    }
}
