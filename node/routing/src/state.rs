//! Applying entries: facts and commands in, snapshots and problems out.

use std::sync::Arc;

pub use crate::codec::InvalidBytes;
pub use crate::problem::Problem;
pub use difference::Difference;

use crate::entry::{Applied, ClusterConfig, Entry, LogIndex};
use crate::fact::{Change, Listing, Network, Service, SwarmNode, Task};
use crate::names::{NetworkId, ServiceCluster, ServiceId, SwarmId, SwarmNodeId, TaskId};
use crate::snapshot::{Digest, Published, Revision, Snapshot};

mod difference;

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
    swarm: SwarmId,
}

impl State {
    /// Applies one committed entry.
    ///
    /// Total: a bad proposal is `Rejected`, never an error, because an error here
    /// would stop every member at the same entry.
    pub fn apply(&mut self, index: LogIndex, entry: &Entry) -> Applied {
        self.applied = index;
        self.leader_time_ms = self.leader_time_ms.max(entry.leader_time_ms);
        Applied::Unchanged
    }

    /// The index of the last applied entry; 0 before the first.
    pub fn applied_index(&self) -> LogIndex {
        self.applied
    }

    /// The leader's clock as of the last entry; it never goes back.
    pub fn leader_time_ms(&self) -> u64 {
        self.leader_time_ms
    }

    /// The accepted swarm; empty until the first observation.
    pub fn swarm(&self) -> &SwarmId {
        &self.swarm
    }

    /// The known service clusters, sorted; the default one is always among them.
    pub fn service_clusters(&self) -> Vec<ServiceCluster> {
        vec![ServiceCluster::default()]
    }

    /// What the proxies of a service cluster receive.
    pub fn snapshot(&self, service_cluster: &ServiceCluster) -> Arc<Snapshot> {
        Arc::clone(&self.published(service_cluster).snapshot)
    }

    /// The snapshot with its canonical bytes and digest, computed once.
    pub fn published(&self, service_cluster: &ServiceCluster) -> Arc<Published> {
        Arc::new(Published::new(Snapshot {
            service_cluster: service_cluster.clone(),
            ..Snapshot::default()
        }))
    }

    /// The index of the last entry that changed the snapshot.
    pub fn revision(&self, _service_cluster: &ServiceCluster) -> Revision {
        Revision::default()
    }

    /// What an operator should see, sorted.
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// The cluster's configuration in force.
    pub fn config(&self) -> Option<&ClusterConfig> {
        None
    }

    /// What a full listing changes against the recorded facts.
    pub fn difference(&self, _listing: &Listing) -> Difference {
        Difference::default()
    }

    /// How many objects of each kind are recorded.
    pub fn facts(&self) -> FactCounts {
        FactCounts::default()
    }

    /// The recorded services, by id.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        std::iter::empty()
    }

    /// The recorded tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        std::iter::empty()
    }

    /// The recorded tasks of one service.
    pub fn tasks_of(&self, _service: &ServiceId) -> impl Iterator<Item = &Task> {
        std::iter::empty()
    }

    /// The recorded networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        std::iter::empty()
    }

    /// The recorded swarm nodes, by id.
    pub fn swarm_nodes(&self) -> impl Iterator<Item = &SwarmNode> {
        std::iter::empty()
    }

    /// A service by id.
    pub fn service(&self, _id: &ServiceId) -> Option<&Service> {
        None
    }

    /// A task by id.
    pub fn task(&self, _id: &TaskId) -> Option<&Task> {
        None
    }

    /// A network by id.
    pub fn network(&self, _id: &NetworkId) -> Option<&Network> {
        None
    }

    /// A swarm node by id.
    pub fn swarm_node(&self, _id: &SwarmNodeId) -> Option<&SwarmNode> {
        None
    }

    /// Whether Swarm is still at work on a service, so that its tasks are worth watching.
    pub fn is_converging(&self, _service: &ServiceId) -> bool {
        false
    }

    /// The answer that a request id got, while it is remembered.
    pub fn first_answer(&self, _actor: &str, _request_id: &str) -> Option<(LogIndex, Applied)> {
        None
    }

    /// The digest of the whole state: facts, configuration, intents, claims, snapshots.
    pub fn digest(&self) -> Digest {
        Snapshot::digest_of(&self.encode())
    }

    /// The raft snapshot's bytes; [`State::decode`] is their exact inverse.
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Reads what [`State::encode`] wrote.
    pub fn decode(_bytes: &[u8]) -> Result<Self, InvalidBytes> {
        Ok(Self::default())
    }
}
