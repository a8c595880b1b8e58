//! All of this crate as gRPC services for one port.

use std::sync::Arc;

use dovetail_process::drain::DrainWatch;
use dovetail_proto::FILE_DESCRIPTOR_SET;
use dovetail_proto::v1::admin_server::AdminServer;
use dovetail_proto::v1::feed_server::FeedServer;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admin::{self, Admin};
use crate::feed::{self, Feed, Gate};
use crate::fleet::Fleet;
use crate::local::Local;
use crate::observe::Observe;
use crate::ports::{Peers, Quorum};
use crate::soft::SoftProblems;

/// What the services stand on; each part is shared with whoever else needs it.
#[derive(Debug)]
pub struct Core<Q, P, D> {
    pub quorum: Arc<Q>,
    pub peers: Arc<P>,
    pub docker: Arc<D>,
    pub fleet: Fleet,
    pub soft: SoftProblems,
    pub drain: DrainWatch,
}

impl<Q, P, D> Core<Q, P, D> {
    /// What this member alone knows.
    pub fn local(&self) -> Local {
        Local { fleet: self.fleet.clone(), soft: self.soft.clone() }
    }
}

impl<Q, P, D> Clone for Core<Q, P, D> {
    fn clone(&self) -> Self {
        Self {
            quorum: Arc::clone(&self.quorum),
            peers: Arc::clone(&self.peers),
            docker: Arc::clone(&self.docker),
            fleet: self.fleet.clone(),
            soft: self.soft.clone(),
            drain: self.drain.clone(),
        }
    }
}

/// The descriptors compiled into this build are of no use.
#[derive(Debug, thiserror::Error)]
#[error("build the gRPC reflection service")]
pub struct ReflectionError(#[source] tonic_reflection::server::Error);

/// Feed, Admin, health and reflection, to which `node` adds Raft.
///
/// The jobs behind them run on the drain of `core`.
pub fn services<Q: Quorum, P: Peers, D: Observe>(
    core: &Core<Q, P, D>,
) -> Result<Routes, ReflectionError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Python's and older clients know reflection by its first name alone.
    let older = reflection().build_v1alpha().map_err(ReflectionError)?;
    let reflection = reflection().build_v1().map_err(ReflectionError)?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let (gate, opening) =
        feed::gate(Arc::clone(&core.quorum), Arc::clone(&core.peers), core.drain.clone());
    core.drain.spawn(opening);
    core.drain.spawn(report_health(reporter, gate.clone(), core.drain.clone()));

    let feed = Feed::new(Arc::clone(&core.quorum), core.fleet.clone(), gate, core.drain.clone());
    let feed = FeedServer::new(feed).max_decoding_message_size(feed::REQUEST_BYTES_MAX);
    let admin = AdminServer::new(Admin::new(core.clone()))
        .max_decoding_message_size(admin::REQUEST_BYTES_MAX);
    let mut routes = Routes::builder();
    routes.add_service(feed).add_service(admin).add_service(health);
    routes.add_service(reflection).add_service(older);
    Ok(routes.routes())
}

/// The process is well while it runs; the feed serves once its gate is open; a drain
/// ends both.
async fn report_health(reporter: HealthReporter, mut gate: Gate, drain: DrainWatch) {
    let feed = |status| reporter.set_service_status("dovetail.v1.Feed", status);
    let admin = |status| reporter.set_service_status("dovetail.v1.Admin", status);
    admin(ServingStatus::Serving).await;
    feed(ServingStatus::NotServing).await;
    tokio::select! {
        biased;
        () = drain.begun() => {}
        () = gate.opened() => feed(ServingStatus::Serving).await,
    }
    drain.begun().await;
    feed(ServingStatus::NotServing).await;
    admin(ServingStatus::NotServing).await;
    reporter.set_service_status("", ServingStatus::NotServing).await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Duration;

    use dovetail_process::drain::Drain;
    use dovetail_process::grpc::{channel, describe, incoming};
    use dovetail_process::pki;
    use dovetail_process::tls::TlsDir;
    use dovetail_proto::v1 as pb;
    use pb::admin_client::AdminClient;
    use pb::feed_client::FeedClient;
    use tokio::net::TcpListener;
    use tokio::time::timeout;
    use tonic::transport::{Channel, Server};
    use tonic::{Code, Streaming};

    use super::*;
    use crate::fakes::{FakeDocker, FakePeers, FakeQuorum, listing};

    /// A member on loopback with the certificates that `dovetail pki` makes.
    async fn member(quorum: Arc<FakeQuorum>, drain: &Drain, dir: &Path) -> SocketAddr {
        let core = Core {
            quorum,
            peers: Arc::new(FakePeers::default()),
            docker: FakeDocker::new(),
            fleet: Fleet::new(),
            soft: SoftProblems::new(),
            drain: drain.watch(),
        };
        let routes = services(&core).expect("descriptors");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let tls = TlsDir::load(&dir.join("member-1")).expect("certificates");
        let server = Server::builder().add_routes(routes);
        tokio::spawn(server.serve_with_incoming(incoming(listener, tls)));
        addr
    }

    fn dial(dir: &Path, who: &str, addr: SocketAddr) -> Channel {
        let tls = TlsDir::load(&dir.join(who)).expect("certificates");
        channel(&tls, &addr.to_string()).expect("an address")
    }

    async fn follow(channel: Channel) -> Streaming<pb::Update> {
        let hello = pb::Hello { name: "edge-1".to_owned(), ..pb::Hello::default() };
        let hello = pb::FollowRequest { request: Some(pb::follow_request::Request::Hello(hello)) };
        let says = tokio_stream::StreamExt::chain(
            tokio_stream::iter([hello]),
            tokio_stream::pending::<pb::FollowRequest>(),
        );
        FeedClient::new(channel).follow(says).await.expect("admitted").into_inner()
    }

    #[tokio::test]
    async fn identities_come_from_certificates() {
        let temp = tempfile::tempdir().expect("a folder");
        let (ours, theirs) = (temp.path().join("ours"), temp.path().join("theirs"));
        pki::init(&ours, 1, &[]).expect("certificates");
        pki::init(&theirs, 1, &[]).expect("certificates");
        let quorum = FakeQuorum::leader();
        quorum.know(&listing(&[("web", 1)]));
        let drain = Drain::new();
        let addr = member(quorum, &drain, &ours).await;

        let mut operator = AdminClient::new(dial(&ours, "operator", addr));
        let local = || pb::StatusRequest { local: true };
        let status = operator.status(local()).await.expect("answered").into_inner();
        assert_eq!(status.cluster_id, "c1");

        let mut proxy = AdminClient::new(dial(&ours, "proxy", addr));
        let refused = proxy.status(local()).await.expect_err("a proxy asks nothing");
        assert_eq!(refused.code(), Code::PermissionDenied);

        let mut stranger = AdminClient::new(dial(&theirs, "operator", addr));
        let refused = stranger.status(local()).await.expect_err("another authority");
        assert!(describe(&refused).contains("certificate"), "{}", describe(&refused));

        // The feed opens once the member has caught up, which takes a moment.
        let wait = Duration::from_secs(5);
        let mut health =
            tonic_health::pb::health_client::HealthClient::new(dial(&ours, "operator", addr));
        let check = tonic_health::pb::HealthCheckRequest { service: "dovetail.v1.Feed".to_owned() };
        let mut statuses = health.watch(check).await.expect("answered").into_inner();
        timeout(wait, async {
            while statuses.message().await.expect("no error").expect("no end").status != 1 {}
        })
        .await
        .expect("the feed serves");
        let mut updates = follow(dial(&ours, "proxy", addr)).await;
        let first = timeout(wait, updates.message()).await.expect("in time").expect("no error");
        assert!(matches!(
            first.and_then(|update| update.update),
            Some(pb::update::Update::Snapshot(_))
        ));
        drain.finish(wait).await;
    }
}
