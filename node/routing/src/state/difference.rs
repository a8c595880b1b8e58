//! What a full listing changes against the recorded facts.

use super::Change;

/// The changes that lead from the recorded facts to a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// New and changed objects: networks, swarm nodes, secrets, configs, services, tasks.
    pub upserts: Vec<Change>,
    /// Objects that the listing lacks: tasks first, networks last.
    pub removals: Vec<Change>,
    /// Upstreams that would be lost by absence from the listing alone.
    pub upstreams_lost: usize,
    /// Upstreams in force now, over all service clusters.
    pub upstreams_before: usize,
    /// Routes whose last service is absent from the listing.
    pub routes_lost: usize,
}

impl Difference {
    /// Whether the listing and the recorded facts agree.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}
