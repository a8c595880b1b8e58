//! Applying entries: facts and commands in, snapshots and problems out.
//!
//! ```text
//! change ─► facts ─► labels ─► intent ─► claims ┐
//!              └───► tasks ──► upstreams ───────┴─► lines ─► snapshot
//! ```
//!
//! Only what a change touches is derived again; a service cluster's revision moves
//! when one of its lines differs afterwards.

use std::sync::Arc;

use imbl::OrdMap;

pub use crate::codec::InvalidBytes;
pub use crate::problem::Problem;
pub use ancestry::{ANCESTORS_MAX, RESTORED_BEYOND};
pub use answers::ANSWERS_MAX;
pub use canary::{CANARIES_PER_CLUSTER_MAX, Canary, Override};
pub use compare::KeptOut;
pub use config::{CONFIGS_MAX, Configured};
pub use difference::Difference;
pub use digest::Digester;
pub use drains::{DRAINS_MAX, Drain, Drained};
pub use history::{INTENT_CHANGE_ROUTES_MAX, INTENT_CHANGES_MAX, NotKept};
pub use rollback::{ENDED_ROLLBACKS_MAX, Held, Rollback};
pub use runs::{Run, RunState};

use crate::entry::{Answered, Applied, ClusterConfig, Entry, LogIndex, Rejection};
use crate::fact::{Listing, Network, Service, SwarmNode, Task};
use crate::labels::{HostKey, Intent};
use crate::names::{NetworkId, ServiceCluster, ServiceId, SwarmId, SwarmNodeId, TaskId};
use crate::problem::{ServiceProblems, limited};
use crate::rules::RuleSet;
use crate::snapshot::{Digest, Published, Revision, RouteKey, Snapshot};
use answers::Answers;
pub(crate) use canary::CANARIES;
use circles::Circles;
use claims::Claims;
use cluster::Cluster;
pub(crate) use drains::DRAINS;
use drains::Drains;
use facts::Facts;
use force::HostTls;
pub(crate) use rollback::ROUTES;
use rollback::Rollbacks;
pub(crate) use runs::EVIDENCE;
use upstreams::Shared;

mod ancestry;
mod answers;
mod apply;
mod bytes;
mod canary;
mod circles;
mod claims;
mod cluster;
mod compare;
mod config;
mod converging;
mod derive;
mod difference;
mod digest;
mod drains;
mod facts;
mod force;
mod history;
mod line;
mod rollback;
mod runs;
mod upstreams;

/// Routes of one service cluster; an intent that would pass it is invalid.
pub const ROUTES_PER_CLUSTER_MAX: usize = 20_000;
/// Services on one route; an intent that would pass it is invalid.
pub const SERVICES_PER_ROUTE_MAX: usize = 100;
/// Service clusters; an intent or a configuration that would pass it is refused.
pub const SERVICE_CLUSTERS_MAX: usize = 1_000;
/// What a configuration for too many service clusters is refused for.
pub(crate) const CONFIGURED_CLUSTERS: &str = "service clusters, with those in the configuration";

/// How many objects of each kind are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactCounts {
    pub networks: usize,
    pub swarm_nodes: usize,
    pub secrets: usize,
    pub configs: usize,
    pub services: usize,
    pub tasks: usize,
}

/// Everything that the log has said so far. Cheap to clone: maps are persistent.
#[derive(Clone, Debug, Default)]
pub struct State {
    applied: LogIndex,
    leader_time_ms: u64,
    rules: RuleSet,
    swarm: SwarmId,
    /// A swarm that was observed and not accepted, and since when.
    other_swarm: Option<(SwarmId, LogIndex)>,
    config: Option<Arc<ClusterConfig>>,
    /// Those that were put in force, the one in force included.
    configs: OrdMap<LogIndex, Arc<Configured>>,
    /// The last file that a configuration was seeded from.
    seeded: Option<Digest>,
    facts: Facts,
    /// The last valid intent of each service that is published.
    intents: OrdMap<ServiceId, Arc<Intent>>,
    claims: Claims,
    problems: OrdMap<ServiceId, Arc<ServiceProblems>>,
    answers: Answers,
    /// What operators ordered for routes, whether or not they are there now.
    canaries: OrdMap<RouteKey, Arc<Canary>>,
    rollbacks: Rollbacks,
    /// What operators took out of the rotation.
    drains: Drains,
    /// Derived from facts and intents; by service, for those with an intent.
    upstreams: OrdMap<ServiceId, Shared>,
    /// Derived from claims, intents and rollbacks; every host that is claimed or held.
    hosts: OrdMap<HostKey, HostTls>,
    /// Derived from what routes are.
    circles: Circles,
    /// Their lines are derived; their revisions and what their intents were are history.
    clusters: OrdMap<ServiceCluster, Cluster>,
    /// Quorums that this one was restored from, newest first.
    ancestors: Vec<Arc<str>>,
}

impl State {
    /// Applies one committed entry.
    ///
    /// Total: a bad proposal is `Rejected`, never an error, because an error here
    /// would stop every member at the same entry. An index at or below the last
    /// applied one was applied before, and changes nothing.
    pub fn apply(&mut self, index: LogIndex, entry: &Entry) -> Applied {
        if index <= self.applied {
            return Applied::Unchanged;
        }
        self.applied = index;
        self.leader_time_ms = self.leader_time_ms.max(entry.leader_time_ms);
        self.apply_new(index, entry)
    }

    /// Applies one committed entry as [`State::apply`] does, and tells a repeated command apart.
    pub fn answer(&mut self, index: LogIndex, entry: &Entry) -> Answered {
        let repeated = (!entry.request_id.is_empty())
            .then(|| self.first_answer(&entry.actor, &entry.request_id))
            .flatten();
        let applied = self.apply(index, entry);
        // Another command under a used id is refused: that is no repetition.
        let reused = matches!(applied, Applied::Rejected(Rejection::RequestIdReused { .. }));
        match repeated.filter(|_| !reused) {
            Some((index, applied)) => Answered { index, applied, first_answer: true },
            None => Answered { index, applied, first_answer: false },
        }
    }

    /// The index of the last applied entry; 0 before the first.
    pub fn applied_index(&self) -> LogIndex {
        self.applied
    }

    /// The leader's clock as of the last entry; it never goes back.
    pub fn leader_time_ms(&self) -> u64 {
        self.leader_time_ms
    }

    /// The rule set in force.
    pub fn rules(&self) -> RuleSet {
        self.rules
    }

    /// The accepted swarm; empty until the first observation.
    pub fn swarm(&self) -> &SwarmId {
        &self.swarm
    }

    /// The known service clusters, sorted; the default one is always among them.
    pub fn service_clusters(&self) -> Vec<ServiceCluster> {
        let default = ServiceCluster::default();
        let missing = (!self.clusters.contains_key(&default)).then_some(default);
        missing.into_iter().chain(self.clusters.keys().cloned()).collect()
    }

    /// What the proxies of a service cluster receive.
    pub fn snapshot(&self, service_cluster: &ServiceCluster) -> Arc<Snapshot> {
        Arc::clone(&self.published(service_cluster).snapshot)
    }

    /// The snapshot with its canonical bytes and digest, computed once per revision.
    pub fn published(&self, service_cluster: &ServiceCluster) -> Arc<Published> {
        match self.clusters.get(service_cluster) {
            Some(cluster) => cluster.published(service_cluster, self.config.as_deref()),
            None => Arc::new(Published::new(Snapshot {
                service_cluster: service_cluster.clone(),
                ..Snapshot::default()
            })),
        }
    }

    /// The same without the snapshots that were made of it, for whoever keeps it for long.
    pub fn without_snapshots(&self) -> Self {
        let bare = |(name, cluster): (&ServiceCluster, &Cluster)| {
            let mut cluster = cluster.clone();
            cluster.forget_published();
            (name.clone(), cluster)
        };
        Self { clusters: self.clusters.iter().map(bare).collect(), ..self.clone() }
    }

    /// The index of the last entry that changed the snapshot.
    pub fn revision(&self, service_cluster: &ServiceCluster) -> Revision {
        self.clusters.get(service_cluster).map(|cluster| cluster.revision).unwrap_or_default()
    }

    /// What an operator should see, sorted.
    pub fn problems(&self) -> Vec<Problem> {
        let other = self.other_swarm.as_ref().map(|(other, since)| Problem {
            service: "".into(),
            label: "".into(),
            value: Arc::clone(&other.0),
            reason: format!(
                "another swarm than {}, the accepted one, was observed: its objects are not \
                 recorded until dovetail swarm accept {other}",
                self.swarm
            )
            .into(),
            since_index: *since,
        });
        let mut all: Vec<_> = other.into_iter().collect();
        self.problems.values().for_each(|problems| problems.show(&mut all));
        self.canary_problems(&mut all);
        self.rollback_problems(&mut all);
        self.circle_problems(&mut all);
        limited(all)
    }

    /// The cluster's configuration in force.
    pub fn config(&self) -> Option<&ClusterConfig> {
        self.config.as_deref()
    }

    /// What a full listing changes against the recorded facts.
    pub fn difference(&self, listing: &Listing) -> Difference {
        Difference::between(self, listing)
    }

    /// How many objects of each kind are recorded.
    pub fn facts(&self) -> FactCounts {
        FactCounts {
            networks: self.facts.networks.len(),
            swarm_nodes: self.facts.swarm_nodes.len(),
            secrets: self.facts.secrets.len(),
            configs: self.facts.configs.len(),
            services: self.facts.services.len(),
            tasks: self.facts.tasks.len(),
        }
    }

    /// The recorded services, by id.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.facts.services.values().map(Arc::as_ref)
    }

    /// The recorded tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.facts.tasks.values().map(Arc::as_ref)
    }

    /// The recorded tasks of one service.
    pub fn tasks_of<'a>(&'a self, service: &'a ServiceId) -> impl Iterator<Item = &'a Task> {
        self.facts.tasks_of(service)
    }

    /// The recorded networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.facts.networks.values().map(Arc::as_ref)
    }

    /// The recorded swarm nodes, by id.
    pub fn swarm_nodes(&self) -> impl Iterator<Item = &SwarmNode> {
        self.facts.swarm_nodes.values().map(Arc::as_ref)
    }

    /// A service by id.
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.facts.services.get(id).map(Arc::as_ref)
    }

    /// A task by id.
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.facts.tasks.get(id).map(Arc::as_ref)
    }

    /// A network by id.
    pub fn network(&self, id: &NetworkId) -> Option<&Network> {
        self.facts.networks.get(id).map(Arc::as_ref)
    }

    /// A swarm node by id.
    pub fn swarm_node(&self, id: &SwarmNodeId) -> Option<&SwarmNode> {
        self.facts.swarm_nodes.get(id).map(Arc::as_ref)
    }

    /// Whether Swarm is still at work on a service, so that its tasks are worth watching.
    pub fn is_converging(&self, service: &ServiceId) -> bool {
        converging::is_converging(&self.facts, service)
    }

    /// The answer that a request id got, while it is remembered.
    pub fn first_answer(&self, actor: &str, request_id: &str) -> Option<(LogIndex, Applied)> {
        self.answers.get(actor, request_id).map(|answer| (answer.index, answer.applied.clone()))
    }

    /// The digest of the whole state: facts, configuration, intents, claims, orders, snapshots.
    ///
    /// Hashes everything; a [`Digester`] hashes what changed, and comes to the same.
    pub fn digest(&self) -> Digest {
        Digester::default().digest(self)
    }

    /// The raft snapshot's bytes; [`State::decode`] is their exact inverse.
    pub fn encode(&self) -> Vec<u8> {
        bytes::encode(self)
    }

    /// Reads what [`State::encode`] wrote, and refuses anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidBytes> {
        bytes::decode(bytes)
    }
}
