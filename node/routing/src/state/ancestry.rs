//! A state that goes on under another quorum, after a restore or a forced recovery.
//!
//! Its index and all its revisions leap ahead of anything that the lost quorum can have
//! written, so that no proxy is asked to go back.

use std::sync::Arc;

use super::State;
use crate::entry::LogIndex;
use crate::snapshot::Revision;

/// How far beyond its parent's index a restored quorum goes on.
pub const RESTORED_BEYOND: u64 = 1_000_000_000;
/// Quorums that are remembered; proxies of an older one need their copy removed.
pub const ANCESTORS_MAX: usize = 64;

impl State {
    /// Ids of the quorums that this one was restored from, newest first.
    pub fn ancestors(&self) -> &[Arc<str>] {
        &self.ancestors
    }

    /// The same state as the first one of a quorum that takes the place of `parent`, whose
    /// log reached `end`.
    pub fn restored_from(mut self, parent: &str, end: LogIndex) -> Self {
        let index = LogIndex(end.max(self.applied).0.saturating_add(RESTORED_BEYOND));
        self.applied = index;
        self.ancestors.insert(0, parent.into());
        self.ancestors.truncate(ANCESTORS_MAX);
        let names: Vec<_> = self.clusters.keys().cloned().collect();
        for name in &names {
            if let Some(cluster) = self.clusters.get_mut(name) {
                cluster.changed(Revision(index.0));
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ServiceCluster;

    #[test]
    fn a_restored_state_is_ahead_of_all_that_its_parent_can_have_said() {
        let mut parent = State { applied: LogIndex(41), ..State::default() };
        parent.clusters.insert(ServiceCluster::default(), super::super::Cluster::at(Revision(7)));
        let restored = parent.restored_from("c1", LogIndex(43)).restored_from("c2", LogIndex(0));
        assert_eq!(restored.ancestors(), [Arc::from("c2"), Arc::from("c1")]);
        assert_eq!(restored.applied_index(), LogIndex(43 + 2 * RESTORED_BEYOND));
        assert_eq!(restored.revision(&ServiceCluster::default()).0, restored.applied_index().0);
        let copy = State::decode(&restored.encode()).expect("whole");
        assert_eq!(copy.ancestors(), restored.ancestors());
        assert_eq!(copy.digest(), restored.digest());
    }
}
