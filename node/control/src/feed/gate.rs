//! When a member that has just started may serve its state.
//!
//! After a restart the state is as old as the disk, and applying the rest of the own
//! log makes it no newer than that. It is served once it is known to hold everything
//! that was acknowledged before the start. Without a quorum that never happens; then,
//! after a while, an old state is better than none: a subscriber with a newer one
//! ignores it.

use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::DrainWatch;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::ports::{Asked, Peers, Quorum};
use crate::reconcile::or_drain;

/// How long a state of unknown age is held back.
const ALONE: Duration = Duration::from_secs(10);
/// The longest single attempt to catch up, and the pause between two.
const ATTEMPT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// Whether this member's state may be served. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(watch::Receiver<bool>);

impl Gate {
    /// Whether it has opened; it never closes again.
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is open; never, if the drain began before.
    pub async fn opened(&mut self) {
        if self.0.wait_for(|open| *open).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// An open gate, for tests.
    #[cfg(test)]
    pub(crate) fn open() -> Self {
        Self(watch::channel(true).1)
    }
}

/// A gate, and the job that opens it.
pub fn gate<Q: Quorum, P: Peers>(
    quorum: Arc<Q>,
    peers: Arc<P>,
    drain: DrainWatch,
) -> (Gate, impl Future<Output = ()> + Send) {
    let (sender, receiver) = watch::channel(false);
    let job = async move {
        let opened = or_drain(&drain, open_when_ready(&*quorum, &*peers));
        if opened.await.is_some() {
            sender.send_replace(true);
            // The channel lives as long as the job.
            drain.begun().await;
        }
    };
    (Gate(receiver), job)
}

async fn open_when_ready<Q: Quorum, P: Peers>(quorum: &Q, peers: &P) {
    let mut view = quorum.view();
    if view.wait_for(|view| !view.cluster_id.is_empty()).await.is_err() {
        return std::future::pending().await;
    }
    let caught_up = async {
        while !catch_up(quorum, peers).await {
            sleep(PAUSE).await;
        }
    };
    let alone = async {
        sleep(ALONE).await;
        if view.wait_for(|view| view.applied > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = caught_up => {}
        () = alone => {}
    }
}

/// Whether the state now holds what was acknowledged before the call. A follower has it
/// from the leader's own progress, since an answer is given only once that holds it.
async fn catch_up<Q: Quorum, P: Peers>(quorum: &Q, peers: &P) -> bool {
    if matches!(timeout(ATTEMPT, quorum.read_barrier()).await, Ok(Ok(()))) {
        return true;
    }
    let mut view = quorum.view();
    let (leader, this) = {
        let view = view.borrow();
        (view.leader, view.this)
    };
    let Some(leader) = leader.filter(|leader| *leader != this) else { return false };
    let asked = peers.local(leader, Asked::default());
    let Ok(Ok(local)) = timeout(ATTEMPT, asked).await else { return false };
    let reached = view.wait_for(|view| view.applied >= local.applied);
    matches!(timeout(ATTEMPT, reached).await, Ok(Ok(_)))
}
