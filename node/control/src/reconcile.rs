//! The leader's job: what Docker shows becomes entries, each under the leader's fence.
//!
//! A level is compared with the state, and the difference is proposed: new and
//! changed objects at once, removals when they are proven (see [`absence`]). An
//! error is never answered with the same proposal again: the next round plans
//! anew, so an entry whose outcome was unknown costs nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::DrainWatch;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::observe::Observe;
use crate::ports::{Fence, Quorum, QuorumView, Slot};
use crate::soft::SoftProblems;
use crate::telemetry;

pub use absence::{APART, ASKED_MAX, ROUTES_MAX, UPSTREAMS_FLOOR};
pub use batch::{BYTES_MAX, OBJECT_BYTES_MAX, OBJECTS_MAX};

mod absence;
mod batch;
mod key;
mod session;

/// What the keys of this job's soft problems begin with.
const PROBLEMS: &str = "docker: ";

/// No `Default`: whoever builds the process decides, a test decides otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// The author of what is proposed: `dovetail://member/2`.
    pub actor: Arc<str>,
    /// The first pause after a proposal failed; doubled up to `pause_max`.
    pub pause: Duration,
    pub pause_max: Duration,
    /// The longest wait for a proposal; then its outcome is unknown.
    pub propose: Duration,
    /// The longest wait for Docker's answer about one id.
    pub ask: Duration,
    /// At most so often is a resync logged that found a difference …
    pub resynced_differed: Duration,
    /// … and so often one that found none.
    pub resynced_equal: Duration,
}

impl Config {
    /// What a member runs with.
    pub fn of_member(slot: Slot) -> Self {
        Self {
            actor: format!("dovetail://member/{slot}").into(),
            pause: Duration::from_millis(50),
            pause_max: Duration::from_secs(2),
            propose: Duration::from_secs(10),
            ask: Duration::from_secs(3),
            resynced_differed: Duration::from_secs(30),
            resynced_equal: Duration::from_secs(60 * 60),
        }
    }

    /// The job, to be run for as long as the member lives.
    pub fn build<Q: Quorum, D: Observe>(
        self,
        quorum: Arc<Q>,
        docker: Arc<D>,
        soft: SoftProblems,
    ) -> Reconciler<Q, D> {
        Reconciler { config: self, quorum, docker, soft }
    }
}

/// Proposes what Docker shows, while this member leads.
#[derive(Debug)]
pub struct Reconciler<Q, D> {
    config: Config,
    quorum: Arc<Q>,
    docker: Arc<D>,
    soft: SoftProblems,
}

impl<Q: Quorum, D: Observe> Reconciler<Q, D> {
    /// Runs until the drain begins.
    pub async fn run(self, drain: DrainWatch) {
        let mut view = self.quorum.view();
        while let Some(fence) = fence_gained(&mut view, &drain).await {
            telemetry::leadership_gained(fence);
            self.docker.set_active(true);
            let mut session = session::Session::new(&self, fence);
            let work = session.run();
            tokio::select! {
                biased;
                () = drain.begun() => {}
                () = fence_ended(&mut view, fence) => {}
                () = work => {}
            }
            // Held and refused things are the next leader's to find.
            self.docker.set_active(false);
            self.soft.clear_all(PROBLEMS);
            telemetry::removals_held(0);
            telemetry::leadership_ended(fence);
            if drain.has_begun() {
                return;
            }
            // A session that ended by itself must not spin.
            let _ = or_drain(&drain, sleep(self.config.pause)).await;
        }
    }
}

/// Waits for a leadership of this member; `None` when the drain began before one.
pub(crate) async fn fence_gained(
    view: &mut watch::Receiver<QuorumView>,
    drain: &DrainWatch,
) -> Option<Fence> {
    let gained = view.wait_for(|view| view.fence.is_some());
    match or_drain(drain, gained).await? {
        Ok(view) => view.fence,
        // The quorum is gone, so the process ends.
        Err(_) => None,
    }
}

/// Returns once `fence` is no longer this member's.
pub(crate) async fn fence_ended(view: &mut watch::Receiver<QuorumView>, fence: Fence) {
    // An error is the end of the quorum, and of every fence.
    let _ = view.wait_for(|view| view.fence != Some(fence)).await;
}

/// The work's result; `None` when the drain began first.
pub(crate) async fn or_drain<T>(drain: &DrainWatch, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = drain.begun() => None,
        done = work => Some(done),
    }
}

#[cfg(test)]
mod tests;
