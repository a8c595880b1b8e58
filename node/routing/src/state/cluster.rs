//! The lines of one service cluster, and the snapshot made of them.

use std::sync::{Arc, OnceLock};

use imbl::OrdMap;

use super::line::Line;
use crate::entry::{ClusterConfig, ProxyOptions};
use crate::labels::RouteKey;
use crate::names::ServiceCluster;
use crate::snapshot::{Published, Revision, Snapshot};

/// One service cluster. It stays when its last route goes, so that its revision
/// never falls back.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    pub(super) revision: Revision,
    pub(super) lines: OrdMap<RouteKey, Arc<Line>>,
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
    let proxies = config.map(|config| config.proxies.as_slice()).unwrap_or_default();
    let own = proxies.iter().find(|(name, _)| name == service_cluster);
    own.map(|(_, options)| options.clone()).unwrap_or_default()
}
