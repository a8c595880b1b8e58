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
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(ReflectionError)?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let (gate, opening) = feed::gate(Arc::clone(&core.quorum), core.drain.clone());
    core.drain.spawn(opening);
    core.drain.spawn(report_health(reporter, gate.clone(), core.drain.clone()));

    let feed = Feed::new(Arc::clone(&core.quorum), core.fleet.clone(), gate, core.drain.clone());
    let feed = FeedServer::new(feed).max_decoding_message_size(feed::REQUEST_BYTES_MAX);
    let admin = AdminServer::new(Admin::new(core.clone()))
        .max_decoding_message_size(admin::REQUEST_BYTES_MAX);
    let mut routes = Routes::builder();
    routes.add_service(feed).add_service(admin).add_service(health).add_service(reflection);
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
