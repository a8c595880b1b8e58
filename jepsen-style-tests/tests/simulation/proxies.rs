//! Proxies: each follows some member, decides about updates by `dovetail-feed`, and moves on.

use std::sync::Arc;
use std::time::Duration;

use dovetail_feed::{Position, Subscription, Verdict};
use dovetail_proto::v1 as pb;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::Published;
use std::sync::Mutex;
use std::sync::PoisonError;
use tokio::time::{sleep, timeout};

use super::plan::{Kind, Sabotage};
use super::quorum::SimQuorum;
use super::world::{CLUSTER, Shared};

/// A proxy that was started, seen from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct InForce(Arc<Mutex<Option<Position>>>);

impl InForce {
    pub(crate) fn get(&self) -> Option<Position> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, position: Position) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
    }
}

fn update(published: &Published) -> pb::Update {
    pb::Update {
        cluster_id: CLUSTER.to_owned(),
        ancestors: Vec::new(),
        update: Some(pb::update::Update::Snapshot(pb::SnapshotUpdate {
            revision: published.snapshot.revision.0,
            digest: published.digest.0.to_vec(),
            canonical: published.canonical.to_vec().into(),
        })),
    }
}

/// Follows members until the run ends. What is in force survives a restart, on its disk.
pub(crate) async fn run(world: Shared, proxy: u64, in_force: InForce) {
    let mut subscription = Subscription::new(ServiceCluster::default(), None);
    loop {
        let members = world.members();
        let choice = world.random().usize(0..members.len());
        let Some(member) = members.get(choice).and_then(|member| member.quorum()) else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        follow(&world, proxy, &member, &mut subscription, &in_force).await;
        let restarts = world.plan.faults.contains(&Kind::ProxyRestart) && world.random().bool();
        if restarts {
            world.count(Kind::ProxyRestart);
            subscription = Subscription::new(ServiceCluster::default(), in_force.get());
            world.pause(10..500).await;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn follow(
    world: &Shared,
    proxy: u64,
    member: &SimQuorum,
    subscription: &mut Subscription,
    in_force: &InForce,
) {
    let mut state = member.state.clone();
    // A slow proxy takes long for each.
    let slow = world.random().u64(1..60);
    let stays = Duration::from_millis(world.random().u64(200..4_000));
    let work = async {
        loop {
            let published = state.borrow_and_update().published(&ServiceCluster::default());
            world.pause(1..=slow).await;
            if !world.net.is_running(member.boot) {
                return;
            }
            receive(world, proxy, &published, subscription, in_force);
            if state.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(stays, work).await;
}

fn receive(
    world: &Shared,
    proxy: u64,
    published: &Published,
    subscription: &mut Subscription,
    in_force: &InForce,
) {
    if published.snapshot.revision.0 == 0 {
        return;
    }
    let before = in_force.get();
    let mut position = match subscription.receive(update(published)) {
        Verdict::Swap { position, .. } => position,
        Verdict::Nack(_) if world.plan.is_sabotaged(Sabotage::OlderRevision) => Position {
            cluster_id: CLUSTER.to_owned(),
            revision: published.snapshot.revision,
            digest: published.digest,
        },
        _ => return,
    };
    if let Some(before) = before.filter(|_| world.plan.is_sabotaged(Sabotage::LostDelta))
        && world.random().u8(0..16) == 0
    {
        // What it decides by is still the content of the revision before.
        position.digest = before.digest;
    }
    let (revision, digest) = (position.revision.0, position.digest.0);
    world.trace.hash(format_args!("proxy {proxy} at revision {revision}"));
    world.expect(world.checks().proxies.put_in_force(proxy, revision, digest));
    subscription.in_force(position.clone());
    in_force.set(position);
}
