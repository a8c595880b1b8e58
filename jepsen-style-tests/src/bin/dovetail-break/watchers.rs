//! Subscribers that write down all that the feed sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dovetail_jepsen::history::Seen;
use dovetail_jepsen::operator::Operator;
use dovetail_proto::v1 as pb;
use dovetail_proto::v1::feed_client::FeedClient;
use pb::follow_request::Request as Said;
use pb::update::Update;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::clients::World;
use crate::registers::SERVICES;

/// A stream on which nothing comes for so long is left: keep-alives come every second.
const SILENCE: Duration = Duration::from_secs(3);
/// A member that has not heard from a leader for so long is left, as proxies do.
const LEADER_SILENT_MS_MAX: u64 = 2_000;
/// The canonical format that is asked for.
const FORMAT: u32 = 2;

/// What a watcher has.
#[derive(Clone, Debug, Default)]
struct Has {
    cluster_id: String,
    revision: u64,
    digest: Vec<u8>,
}

/// Follows one member after the other, until the run ends; `newest` is what it has.
pub(crate) async fn run(
    world: World,
    name: String,
    seed: u64,
    subscriber: Operator,
    newest: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut has = Has::default();
    let mut stop = world.stop.clone();
    while !world.stopped() {
        let member = random.usize(..world.members.len().max(1));
        let Some(member) = world.members.get(member) else { continue };
        let client = FeedClient::new(subscriber.channel(member)?);
        let ended = tokio::select! {
            ended = follow(&world, &name, member, client, &mut has, &newest) => ended,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        if let Some(why) = ended {
            world.recorder.seen(&name, Seen::FeedClosed { why });
        }
        let pause = Duration::from_millis(random.u64(100..400));
        _ = tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await;
    }
    Ok(())
}

/// One stream; why it ended, or `None` if there was none.
async fn follow(
    world: &World,
    name: &str,
    member: &str,
    mut client: FeedClient<tonic::transport::Channel>,
    has: &mut Has,
    newest: &AtomicU64,
) -> Option<String> {
    let (say, said) = mpsc::channel(16);
    let hello = pb::Hello {
        name: name.to_owned(),
        cluster_id: has.cluster_id.clone(),
        revision: has.revision,
        digest: has.digest.clone(),
        format_newest: FORMAT,
        version: "watcher".to_owned(),
        ..pb::Hello::default()
    };
    send(&say, Said::Hello(hello)).await?;
    let opened = client.follow(ReceiverStream::new(said));
    let mut updates = match tokio::time::timeout(SILENCE, opened).await {
        Ok(Ok(updates)) => updates.into_inner(),
        Ok(Err(_)) | Err(_) => return None,
    };
    let (cluster_id, revision) = (has.cluster_id.clone(), has.revision);
    let member = member.to_owned();
    world.recorder.seen(name, Seen::FeedOpened { member, cluster_id, revision });
    loop {
        let update = match tokio::time::timeout(SILENCE, updates.message()).await {
            Ok(Ok(Some(update))) => update,
            Ok(Ok(None)) => return Some("the member ended it".to_owned()),
            Ok(Err(status)) => return Some(format!("{:?}: {}", status.code(), status.message())),
            Err(_) => return Some(format!("nothing for {SILENCE:?}")),
        };
        match update.update {
            Some(Update::Snapshot(snapshot)) => {
                let revision = snapshot.revision;
                let bytes = blake3::hash(&snapshot.canonical);
                let sound = bytes.as_bytes()[..] == snapshot.digest[..];
                let digest = hex(&snapshot.digest);
                let cluster_id = update.cluster_id.clone();
                let seen = Seen::Snapshot { cluster_id, revision, digest, sound };
                world.recorder.seen(name, seen);
                let digest = snapshot.digest.to_vec();
                *has = Has { cluster_id: update.cluster_id, revision, digest: digest.clone() };
                newest.store(revision, Ordering::Relaxed);
                let ack = pb::Ack { revision, digest };
                send(&say, Said::Ack(ack)).await?;
            }
            Some(Update::KeepAlive(alive)) => {
                let (revision, leader_silent_ms) = (alive.revision, alive.leader_silent_ms);
                world.recorder.seen(name, Seen::KeepAlive { revision, leader_silent_ms });
                if leader_silent_ms > LEADER_SILENT_MS_MAX {
                    return Some(format!("no leader for {leader_silent_ms} ms"));
                }
                if !alive.traffic_wanted.is_empty() {
                    // It forwards nothing, and a canary must not wait for its figures.
                    let services = alive.traffic_wanted.iter().flat_map(nothing).collect();
                    send(&say, Said::Traffic(pb::Traffic { services, complete: true })).await?;
                }
            }
            None => {}
        }
    }
}

/// Counters at zero for all services of a route.
fn nothing(route: &pb::RouteRef) -> impl Iterator<Item = pb::ServiceTraffic> + use<> {
    let (host, path) = (route.host.clone(), route.path.clone());
    SERVICES.into_iter().map(move |service| pb::ServiceTraffic {
        host: host.clone(),
        path: path.clone(),
        service: service.to_owned(),
        start: 1,
        ..pb::ServiceTraffic::default()
    })
}

async fn send(say: &mpsc::Sender<pb::FollowRequest>, what: Said) -> Option<()> {
    say.send(pb::FollowRequest { request: Some(what) }).await.ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
