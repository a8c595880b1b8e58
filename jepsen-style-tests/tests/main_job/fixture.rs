//! A system that is ready, alone on this machine.

use std::time::Duration;

use dovetail_jepsen::cluster::{Cluster, ClusterConfig};
use dovetail_jepsen::eventually;
use dovetail_jepsen::load::{Load, LoadConfig, Report};
use dovetail_jepsen::swarm::{ServiceConfig, Swarm};
use tokio::sync::{Mutex, MutexGuard};

/// How long anything may take that has no bound of its own.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

static ALONE: Mutex<()> = Mutex::const_new(());

/// A cluster, its swarm, and the right to be the only one.
pub(crate) struct System {
    pub(crate) cluster: Cluster,
    pub(crate) swarm: Swarm,
    _alone: MutexGuard<'static, ()>,
}

impl System {
    /// Addresses, certificates and Docker; no process yet.
    pub(crate) async fn prepare() -> Self {
        Self::prepare_with(ClusterConfig::default()).await
    }

    /// The same with another configuration.
    pub(crate) async fn prepare_with(config: ClusterConfig) -> Self {
        let alone = ALONE.lock().await;
        let cluster = Cluster::prepare(config).await.unwrap();
        let swarm = Swarm::start(&cluster).await.unwrap();
        Self { cluster, swarm, _alone: alone }
    }

    /// Three members that agree, two proxies that follow, and no service.
    pub(crate) async fn start() -> Self {
        let mut system = Self::prepare().await;
        system.cluster.start_all().unwrap();
        system.cluster.agreement(DEADLINE).await.unwrap();
        system
    }

    /// The same, and `shop` published as `shop.example`.
    pub(crate) async fn start_with_shop(replicas: u8) -> Self {
        let system = Self::start().await;
        system.publish("shop", "shop.example", replicas).await;
        system
    }

    /// A service that answers through every proxy.
    pub(crate) async fn publish(&self, name: &str, host: &str, replicas: u8) {
        self.swarm.create(ServiceConfig::published(name, host, replicas)).await.unwrap();
        self.cluster.routed(host, DEADLINE).await.unwrap();
    }

    /// 200 requests a second to `host`, through all proxies.
    pub(crate) fn load(&self, host: &str) -> Load {
        Load::start(LoadConfig::of(host, self.cluster.proxy_addrs()))
    }

    /// Waits until the problems are as `wanted` says.
    pub(crate) async fn problems<T>(
        &self,
        wanted: impl Fn(&[dovetail_jepsen::status::Problem]) -> Result<T, String>,
    ) -> T {
        eventually(DEADLINE, || async { wanted(&self.cluster.problems().await?) }).await
    }

    /// Every member by itself has the routes that were agreed on.
    pub(crate) async fn same_digest_everywhere(&self) {
        let agreed = self.cluster.agreement(DEADLINE).await.unwrap();
        for slot in self.cluster.slots() {
            let own = self.cluster.local_snapshots(slot).await.unwrap();
            assert_eq!(own, agreed.service_clusters, "member {slot}");
        }
    }
}

/// Ends a load of which nothing may have failed.
pub(crate) async fn unharmed(load: Load, what: &str) -> Report {
    let report = load.finish().await;
    println!("{what}: {report}");
    if let Err(failures) = report.verdict() {
        panic!("{what}: {failures}");
    }
    report
}
