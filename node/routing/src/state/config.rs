//! The cluster's configuration: one in force, and those before it.
//!
//! An operator's stays until another operator's comes, or until a member's file differs
//! from the last one that was seeded: a file is no second source of truth, and yet an
//! edited file still counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cluster::{Cluster, merge_hosts, options};
use super::{CONFIGURED_CLUSTERS, SERVICE_CLUSTERS_MAX, State};
use crate::entry::{Applied, ClusterConfig, LogIndex, Rejection};
use crate::snapshot::{Digest, Revision};

/// Configurations remembered; the oldest is forgotten first.
pub const CONFIGS_MAX: usize = 100;
/// How the identity of a member begins: its configurations come from its file.
const MEMBER: &str = "dovetail://member/";

/// A configuration that was put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    pub config: Arc<ClusterConfig>,
    /// Who did: a member from its file, or an operator.
    pub actor: Arc<str>,
    /// The leader's clock then, in milliseconds since 1970.
    pub time_ms: u64,
}

impl State {
    /// The configurations that were put in force, the oldest first, by their entries.
    pub fn configs(&self) -> impl DoubleEndedIterator<Item = (LogIndex, &Configured)> {
        self.configs.iter().map(|(index, configured)| (*index, &**configured))
    }

    /// The last file that a member seeded the configuration from.
    pub fn seeded(&self) -> Option<Digest> {
        self.seeded
    }

    fn remember_config(&mut self, index: LogIndex, actor: &Arc<str>, config: Arc<ClusterConfig>) {
        if actor.starts_with(MEMBER) {
            self.seeded = Some(config.source);
        }
        let (actor, time_ms) = (Arc::clone(actor), self.leader_time_ms);
        self.configs.insert(index, Arc::new(Configured { config, actor, time_ms }));
        while self.configs.len() > CONFIGS_MAX {
            let Some((oldest, _)) = self.configs.get_min() else { break };
            let oldest = *oldest;
            self.configs.remove(&oldest);
        }
    }

    /// Puts a configuration in force, and remembers whose it is.
    pub(super) fn apply_config(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        config: &ClusterConfig,
    ) -> Applied {
        let by_name: BTreeMap<_, _> = config.proxies.iter().cloned().rev().collect();
        let new = by_name.keys().filter(|name| !self.clusters.contains_key(*name)).count();
        let sum = self.clusters.len() + new;
        if new > 0 && sum > SERVICE_CLUSTERS_MAX {
            return Applied::Rejected(Rejection::AboveLimit {
                what: CONFIGURED_CLUSTERS,
                given: sum as u64,
                limit: SERVICE_CLUSTERS_MAX as u64,
            });
        }
        // Sorted and each once, whoever wrote the entry: of two, the first counts.
        let new = ClusterConfig { proxies: by_name.into_iter().collect(), ..config.clone() };
        let shared = Arc::new(new.clone());
        let old = self.config.replace(Arc::clone(&shared));
        self.remember_config(index, actor, shared);
        let names = |config: &ClusterConfig| {
            config.proxies.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let mut concerned = names(&new);
        concerned.extend(old.as_deref().map(names).unwrap_or_default());
        let revision = Revision(index.0);
        let mut applied = Applied::Unchanged;
        for name in concerned {
            if options(old.as_deref(), &name) == options(Some(&new), &name) {
                continue;
            }
            let mut cluster =
                self.clusters.get(&name).cloned().unwrap_or_else(|| Cluster::at(revision));
            cluster.changed(revision);
            let merges = merge_hosts(old.as_deref(), &name) != merge_hosts(Some(&new), &name);
            self.clusters.insert(name.clone(), cluster);
            if merges {
                self.derive_merges(index, &name);
            }
            applied = Applied::Changed(revision);
        }
        applied
    }
}

crate::codec::fields! { Configured { config actor time_ms } }

crate::codec::shared! { Configured }
