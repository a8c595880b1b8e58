//! The lines of one service cluster, and the snapshot made of them.

use std::sync::{Arc, OnceLock};

use imbl::OrdMap;

use super::history::History;
use super::line::Line;
use crate::entry::{ClusterConfig, MergeHosts, ProxyOptions};
use crate::names::ServiceCluster;
use crate::snapshot::{Published, Revision, RouteKey, Snapshot};

/// One service cluster. It stays when its last route goes, so that its revision
/// never falls back.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    pub(super) revision: Revision,
    pub(super) lines: OrdMap<RouteKey, Arc<Line>>,
    pub(super) history: History,
    /// Shared by clones of the state: whoever asks first computes it for all.
    published: Arc<OnceLock<Arc<Published>>>,
}

impl Cluster {
    /// A cluster whose lines are still to be derived.
    pub(super) fn at(revision: Revision) -> Self {
        Self { revision, ..Self::default() }
    }

    /// Its snapshot changed with the entry at `revision`.
    pub(super) fn changed(&mut self, revision: Revision) {
        self.revision = revision;
        self.forget_published();
    }

    /// Lets go of what was made of the lines; other clones of the state keep it.
    pub(super) fn forget_published(&mut self) {
        self.published = Arc::default();
    }

    pub(super) fn published(
        &self,
        service_cluster: &ServiceCluster,
        config: Option<&ClusterConfig>,
    ) -> Arc<Published> {
        let published = self.published.get_or_init(|| {
            Arc::new(Published::new(Snapshot {
                service_cluster: service_cluster.clone(),
                revision: self.revision,
                options: options(config, service_cluster),
                routes: self.lines.iter().map(|(key, line)| line.route(key)).collect(),
            }))
        });
        Arc::clone(published)
    }
}

/// The options of a service cluster's proxies.
pub(super) fn options(
    config: Option<&ClusterConfig>,
    service_cluster: &ServiceCluster,
) -> ProxyOptions {
    given(config, service_cluster).cloned().unwrap_or_default()
}

/// Which services of a service cluster may share a route.
pub(super) fn merge_hosts(
    config: Option<&ClusterConfig>,
    service_cluster: &ServiceCluster,
) -> MergeHosts {
    given(config, service_cluster).map(|options| options.merge_hosts).unwrap_or_default()
}

fn given<'a>(
    config: Option<&'a ClusterConfig>,
    service_cluster: &ServiceCluster,
) -> Option<&'a ProxyOptions> {
    let proxies = config.map(|config| config.proxies.as_slice()).unwrap_or_default();
    // `apply` sorts them.
    let position = proxies.binary_search_by(|(name, _)| name.cmp(service_cluster)).ok()?;
    Some(&proxies[position].1)
}
