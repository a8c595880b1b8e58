//! The system that all cases share: one member, four proxies, Docker's stand-in, and
//! real upstreams.
//!
//! Proxies 1 and 2 serve the default service cluster, 3 serves `east` and 4 `west`. What
//! concerns a whole service cluster happens in `east` or `west`, under its lock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use anyhow::Context as _;
use dovetail_jepsen::cluster::{Cluster, ClusterConfig};
use dovetail_jepsen::eventually;
use dovetail_jepsen::load::{Load, LoadConfig, Report};
use dovetail_jepsen::operator::Operator;
use dovetail_jepsen::status::Problem;
use dovetail_jepsen::swarm::{NETWORK, ServiceConfig, Swarm, TaskView, lb_labels};
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::admin_client::AdminClient;
use tokio::sync::{Mutex, MutexGuard};
use tonic::transport::Channel;

use crate::curl::Curl;

/// How long anything may take that has no bound of its own.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// The proxies of the service clusters.
pub(crate) const EAST: u8 = 3;
pub(crate) const WEST: u8 = 4;

/// A service whose labels mean nothing but how far everybody has come.
const MARK: &str = "mark";
const CONFIG: &str = r#"
    [Extensions.default]
    [Extensions.east]
    ServiceCluster = "east"
    [Extensions.west]
    ServiceCluster = "west"
    [Extensions.west.Config]
    HideInfoHeaders = true
"#;

/// The whole system, which ends with this value.
pub(crate) struct Lab {
    pub(crate) cluster: Cluster,
    pub(crate) swarm: Swarm,
    admin: AdminClient<Channel>,
    marks: Mutex<u64>,
    east: Mutex<()>,
    west: Mutex<()>,
}

impl Lab {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let config = ClusterConfig {
            members: 1,
            proxies: WEST,
            service_clusters: [(EAST, "east".to_owned()), (WEST, "west".to_owned())].into(),
            config: Some(CONFIG.to_owned()),
            ..ClusterConfig::default()
        };
        let mut cluster = Cluster::prepare(config).await?;
        let swarm = Swarm::start(&cluster).await?;
        cluster.start_all()?;
        let operator = Operator::load(&cluster.operator_dir())?;
        let admin = operator.admin(&cluster.member_addr(1).to_string())?;
        let mark = ServiceConfig { labels: mark(0), ..ServiceConfig::labelled(MARK, 1, &[]) };
        swarm.create(mark).await?;
        for cluster in ["east", "west"] {
            // A service cluster is there with its first service.
            let labels = [("hosts", "first.example"), ("service_cluster", cluster)];
            swarm.create(demo(&format!("first-{cluster}"), 1, &labels)).await?;
        }
        cluster.agreement(DEADLINE).await.context("all agree")?;
        let (east, west) = (Mutex::default(), Mutex::default());
        let lab = Self { cluster, swarm, admin, marks: Mutex::default(), east, west };
        lab.settled().await;
        Ok(lab)
    }

    /// The right to change the service cluster `east` as a whole.
    pub(crate) async fn alone_in_east(&self) -> MutexGuard<'_, ()> {
        self.east.lock().await
    }

    /// The right to change the service cluster `west` as a whole.
    pub(crate) async fn alone_in_west(&self) -> MutexGuard<'_, ()> {
        self.west.lock().await
    }

    /// Plain HTTP of the proxies of the default service cluster.
    pub(crate) fn proxies(&self) -> [SocketAddr; 2] {
        [1, 2].map(|number| self.cluster.proxy_addr(number))
    }

    /// A client of one proxy, whatever the URL's host is.
    pub(crate) fn curl(&self, proxy: u8) -> Curl {
        let (http, tls) = (self.cluster.proxy_addr(proxy), self.cluster.proxy_tls_addr(proxy));
        Curl::new(http, tls)
    }

    /// Creates a service and waits until it is in force wherever it can be.
    pub(crate) async fn create(&self, config: ServiceConfig) -> Service<'_> {
        let name = config.name.clone();
        self.swarm.create(config).await.expect("the service is created");
        let service = Service { lab: self, name };
        self.settled().await;
        service
    }

    /// Creates a service of `labels` on the network of the applications.
    pub(crate) async fn publish(
        &self,
        name: &str,
        replicas: u8,
        labels: &[(&str, &str)],
    ) -> Service<'_> {
        self.create(demo(name, replicas, labels)).await
    }

    /// Waits until every proxy serves what the Swarm was at the time of the call.
    ///
    /// The last change of the Swarm is a mark; when the core has read it, it has read
    /// everything before it, and then each proxy must have come as far as the core. There
    /// are two marks, since one look at Docker lists tasks and services side by side: the
    /// look that shows the second one began after the first was read.
    pub(crate) async fn settled(&self) {
        self.mark().await;
        self.mark().await;
        let reached = self.revisions().await.expect("the member answers");
        eventually(DEADLINE, || async {
            let status = self.status().await?;
            for proxy in status.proxies.iter().filter(|proxy| proxy.connected) {
                let wanted = reached.get(&proxy.service_cluster).copied().unwrap_or_default();
                if proxy.revision < wanted {
                    let (name, at) = (&proxy.name, proxy.revision);
                    return Err(format!("{name} is at {at}, not at {wanted}: {}", proxy.nack));
                }
            }
            Ok(())
        })
        .await;
    }

    /// Changes the mark and waits until the core has read it.
    async fn mark(&self) {
        let mark = {
            let mut marks = self.marks.lock().await;
            *marks += 1;
            self.swarm.relabel(MARK, mark(*marks)).await.expect("the mark is set");
            *marks
        };
        eventually(DEADLINE, || async {
            let request = pb::RoutesRequest::default();
            let routes = self.admin.clone().routes(request).await;
            let routes = routes.map_err(|status| status.to_string())?.into_inner().routes;
            let number = |route: &pb::Route| {
                route.host.strip_prefix("mark-")?.strip_suffix(".example")?.parse::<u64>().ok()
            };
            match routes.iter().find_map(number) {
                Some(seen) if seen >= mark => Ok(()),
                seen => Err(format!("the core has read mark {seen:?}, not yet {mark}")),
            }
        })
        .await;
    }

    async fn status(&self) -> Result<pb::StatusResponse, String> {
        let answer = self.admin.clone().status(pb::StatusRequest { local: false }).await;
        answer.map(tonic::Response::into_inner).map_err(|status| status.to_string())
    }

    /// The routes of one service cluster.
    pub(crate) async fn routes(&self, cluster: &str) -> Vec<pb::Route> {
        let request =
            pb::RoutesRequest { service_cluster: cluster.to_owned(), ..Default::default() };
        let answer = self.admin.clone().routes(request).await;
        answer.expect("the member answers").into_inner().routes
    }

    /// The revision of each service cluster.
    pub(crate) async fn revisions(&self) -> Result<BTreeMap<String, u64>, String> {
        let clusters = self.status().await?.service_clusters;
        Ok(clusters.into_iter().map(|cluster| (cluster.name, cluster.revision)).collect())
    }

    /// The problems of one service, as `dovetail problems -o json` prints them.
    pub(crate) async fn problems(&self, service: &str) -> Vec<Problem> {
        let mut problems = self.cluster.problems().await.expect("dovetail problems");
        problems.retain(|problem| problem.service == service);
        problems
    }

    /// 200 requests a second to `host`, through both proxies of the default cluster.
    pub(crate) fn load(&self, host: &str) -> Load {
        Load::start(LoadConfig::of(host, self.proxies()))
    }
}

/// A service of `labels` on the network of the applications.
pub(crate) fn demo(name: &str, replicas: u8, labels: &[(&str, &str)]) -> ServiceConfig {
    let common = [("port", "8080"), ("network", NETWORK)];
    let mut config = ServiceConfig::labelled(name, replicas, &common);
    config.labels.extend(lb_labels(labels));
    config
}

fn mark(number: u64) -> BTreeMap<String, String> {
    lb_labels(&[("hosts", &format!("mark-{number}.example")), ("port", "8080")])
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

/// A service of one case, removed with it.
pub(crate) struct Service<'l> {
    lab: &'l Lab,
    pub(crate) name: String,
}

impl Service<'_> {
    /// Puts labels in place of those of the same key, and waits until that is in force.
    pub(crate) async fn label(&self, labels: &[(&str, &str)]) {
        let labels = lb_labels(labels);
        let stand_in = self.lab.swarm.stand_in();
        let set = stand_in.update_service(&self.name, |spec| spec.labels.extend(labels));
        set.expect("the service is there");
        self.lab.settled().await;
    }

    /// Takes a label away, and waits until that is in force.
    pub(crate) async fn unlabel(&self, key: &str) {
        let stand_in = self.lab.swarm.stand_in();
        let label = format!("com.docker.lb.{key}");
        let unset = stand_in.update_service(&self.name, |spec| _ = spec.labels.remove(&label));
        unset.expect("the service is there");
        self.lab.settled().await;
    }

    /// Waits until it has so many tasks, and that is in force.
    pub(crate) async fn scale(&self, replicas: u8) {
        self.lab.swarm.scale(&self.name, replicas).await.expect("it is scaled");
        self.lab.settled().await;
    }

    /// Its running tasks.
    pub(crate) fn tasks(&self) -> Vec<TaskView> {
        self.lab.swarm.tasks(&self.name)
    }
}

impl Deref for Service<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        // A case may have removed it itself.
        _ = self.lab.swarm.discard(&self.name);
    }
}
