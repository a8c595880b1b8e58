//! The feed: every member serves snapshots to proxies and extensions.
//!
//! What is sent and when is decided without I/O in [`session`]; this module reads
//! and writes the stream around it. A subscriber that does not read holds back
//! only itself: it has at most one push out, and newer snapshots merge meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::DrainWatch;
use dovetail_process::grpc::{Allow, PeerInfo, require, require_subscriber};
use dovetail_proto::v1 as pb;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::{Digest, Revision};
use dovetail_routing::state::State;
use futures_util::{Stream, stream};
use pb::follow_request::Request as Said;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tonic::{Request, Response, Status, Streaming};

use crate::fleet::{Fleet, Place};
use crate::ports::{Quorum, QuorumView};
use crate::telemetry;
use crate::traffic;
use session::{Next, Position, Session};

pub use gate::{Gate, gate};
pub use session::{ANSWER, MERGE};

mod gate;
mod session;

/// How often a keep-alive is sent.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The longest wait for the hello.
const HELLO: Duration = Duration::from_secs(5);
/// Bytes of what a subscriber sends in one message.
pub const REQUEST_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of a name or an address in the hello.
const TEXT_BYTES_MAX: usize = 255;

/// The server side of the feed.
#[derive(Debug)]
pub struct Feed<Q> {
    quorum: Arc<Q>,
    fleet: Fleet,
    gate: Gate,
    drain: DrainWatch,
}

impl<Q: Quorum> Feed<Q> {
    /// Serves what `quorum` applied, once `gate` is open.
    pub fn new(quorum: Arc<Q>, fleet: Fleet, gate: Gate, drain: DrainWatch) -> Self {
        Self { quorum, fleet, gate, drain }
    }

    /// Checks a hello, and what its certificate allows.
    fn admit(&self, peer: PeerInfo, hello: &pb::Hello) -> Result<Follower<Q>, Status> {
        for (field, text) in [("name", &hello.name), ("address", &hello.address)] {
            if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
                return Err(Status::invalid_argument(format!(
                    "hello.{field}: at most {TEXT_BYTES_MAX} bytes of text without control characters"
                )));
            }
        }
        let service_cluster: ServiceCluster = hello
            .service_cluster
            .parse()
            .map_err(|error| Status::invalid_argument(format!("hello.service_cluster: {error}")))?;
        let from = peer.addr.ip();
        let mut request = Request::new(());
        request.extensions_mut().insert(peer);
        require_subscriber(&request, &hello.name, service_cluster.as_str())?;
        let in_force = match hello.cluster_id.as_str() {
            "" => None,
            cluster_id => Some(Position {
                cluster_id: cluster_id.to_owned(),
                revision: Revision(hello.revision),
                digest: digest_of("hello.digest", &hello.digest)?,
            }),
        };
        let shown = match &in_force {
            Some(position) => (position.revision, position.digest),
            None => (Revision::default(), Digest::default()),
        };
        let place = self
            .fleet
            .connect(&hello.name, &hello.address, &service_cluster, Some(from), shown)
            .map_err(|full| Status::resource_exhausted(full.to_string()))?;
        place.reads(hello.format_newest);
        let mut keep_alive = interval(KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Follower {
            quorum: Arc::clone(&self.quorum),
            state: self.quorum.state(),
            view: self.quorum.view(),
            drain: self.drain.clone(),
            service_cluster,
            session: Session::new(in_force),
            place,
            keep_alive,
            ended: false,
        })
    }
}

#[tonic::async_trait]
impl<Q: Quorum> pb::feed_server::Feed for Feed<Q> {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<pb::Update, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<pb::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let peer = require(&request, &[Allow::Proxy, Allow::Extension])?;
        if self.drain.has_begun() {
            return Err(Status::unavailable("this member is ending"));
        }
        if !self.gate.is_open() {
            return Err(Status::unavailable("this member has not caught up with the quorum yet"));
        }
        if let Some(reason) = self.quorum.diverged() {
            return Err(Status::unavailable(reason));
        }
        let mut inbound = request.into_inner();
        let first = timeout(HELLO, inbound.message()).await.map_err(|_| {
            Status::deadline_exceeded(format!("no hello within {} s", HELLO.as_secs()))
        })??;
        let Some(Said::Hello(hello)) = first.and_then(|first| first.request) else {
            return Err(Status::invalid_argument("the first message must be the hello"));
        };
        let follower = self.admit(peer, &hello)?;
        let updates = stream::unfold((follower, inbound), |(mut follower, mut inbound)| async {
            let update = follower.next(&mut inbound).await?;
            Some((update, (follower, inbound)))
        });
        Ok(Response::new(Box::pin(updates)))
    }
}

/// One subscriber's stream.
struct Follower<Q> {
    quorum: Arc<Q>,
    state: watch::Receiver<Arc<State>>,
    view: watch::Receiver<QuorumView>,
    drain: DrainWatch,
    service_cluster: ServiceCluster,
    session: Session,
    place: Place,
    keep_alive: Interval,
    ended: bool,
}

impl<Q: Quorum> Follower<Q> {
    /// The next message to the subscriber; `None` ends the stream cleanly.
    async fn next(
        &mut self,
        inbound: &mut Streaming<pb::FollowRequest>,
    ) -> Option<Result<pb::Update, Status>> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(reason) = self.quorum.diverged() {
                return self.end(Status::unavailable(reason));
            }
            let wake = match self.push() {
                Next::Push(update) => return Some(Ok(update)),
                Next::GiveUp(reason) => return self.end(Status::aborted(reason)),
                Next::Wait(wake) => wake,
            };
            tokio::select! {
                biased;
                () = self.drain.begun() => return None,
                _ = self.keep_alive.tick() => return Some(Ok(self.keep_alive())),
                said = inbound.message() => match said {
                    Ok(Some(said)) => if let Err(status) = self.hear(said) {
                        return self.end(status);
                    },
                    // It has gone, or hung up.
                    Ok(None) | Err(_) => return None,
                },
                changed = self.state.changed() => if changed.is_err() {
                    return None;
                },
                () = until(wake) => {}
            }
        }
    }

    /// The last message of the stream.
    fn end(&mut self, status: Status) -> Option<Result<pb::Update, Status>> {
        self.ended = true;
        Some(Err(status))
    }

    /// What the session wants to be sent now.
    fn push(&mut self) -> Next<pb::Update> {
        let state = Arc::clone(&self.state.borrow_and_update());
        let revision = state.revision(&self.service_cluster);
        // Not to have looked at Docker yet is not to have seen nothing.
        let looked = !state.swarm().as_str().is_empty();
        if !looked && revision == Revision::default() {
            return Next::Wait(None);
        }
        let cluster_id = self.view.borrow().cluster_id.clone();
        let newest = || {
            let published = state.published(&self.service_cluster);
            let digest = published.digest;
            (Position { cluster_id: cluster_id.clone(), revision, digest }, published)
        };
        match self.session.next(newest, Instant::now()) {
            Next::Push(published) => {
                telemetry::snapshot_pushed();
                let snapshot = pb::SnapshotUpdate {
                    revision: revision.0,
                    digest: published.digest.0.to_vec(),
                    canonical: bytes::Bytes::from_owner(Arc::clone(&published.canonical)),
                };
                let snapshot = pb::update::Update::Snapshot(snapshot);
                Next::Push(update(cluster_id, &state, snapshot))
            }
            Next::Wait(at) => Next::Wait(at),
            Next::GiveUp(reason) => Next::GiveUp(reason),
        }
    }

    fn keep_alive(&self) -> pb::Update {
        let state = Arc::clone(&self.state.borrow());
        let keep_alive = pb::KeepAlive {
            revision: state.revision(&self.service_cluster).0,
            leader_silent_ms: self.quorum.leader_silent_ms(),
            traffic_wanted: traffic::wanted(&state, &self.service_cluster),
        };
        let cluster_id = self.view.borrow().cluster_id.clone();
        update(cluster_id, &state, pb::update::Update::KeepAlive(keep_alive))
    }

    /// Takes in what the subscriber said.
    fn hear(&mut self, said: pb::FollowRequest) -> Result<(), Status> {
        match said.request {
            Some(Said::Ack(ack)) => {
                let digest = digest_of("ack.digest", &ack.digest)?;
                let revision = Revision(ack.revision);
                if let Some(after) = self.session.acked(revision, digest, Instant::now()) {
                    telemetry::snapshot_acked(after);
                }
                self.place.acked(revision, digest);
                Ok(())
            }
            Some(Said::Nack(nack)) => {
                let revision = Revision(nack.revision);
                self.session.nacked(revision);
                self.place.nacked(revision, &nack.reason);
                Ok(())
            }
            Some(Said::Report(report)) => {
                self.place.reported(report);
                Ok(())
            }
            Some(Said::Traffic(traffic)) => {
                self.place.counted(traffic);
                Ok(())
            }
            Some(Said::Hello(_)) => Err(Status::invalid_argument("a second hello")),
            None => Err(Status::invalid_argument("an empty message, or one of a newer build")),
        }
    }
}

fn update(cluster_id: String, state: &State, update: pb::update::Update) -> pb::Update {
    let ancestors = state.ancestors().iter().map(ToString::to_string).collect();
    pb::Update { cluster_id, ancestors, update: Some(update) }
}

fn digest_of(field: &'static str, bytes: &[u8]) -> Result<Digest, Status> {
    match bytes.try_into() {
        Ok(bytes) => Ok(Digest(bytes)),
        Err(_) => Err(Status::invalid_argument(format!(
            "{field}: {} bytes, but a digest has 32",
            bytes.len()
        ))),
    }
}

/// Waits until `at`; for ever without one.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
