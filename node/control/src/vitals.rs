//! Readiness and gauges, looked at twice a second.

use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::DrainWatch;
use dovetail_process::ready::{Check, Readiness};
use dovetail_routing::state::State;
use tokio::time::{MissedTickBehavior, interval};

use crate::observe::Observe;
use crate::ports::{Peers, Quorum, QuorumView};
use crate::reconcile::or_drain;
use crate::services::Core;
use crate::telemetry::{self, Gauges};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);
/// A member that heard nothing from its leader for so long has none.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// The soft problem of a Docker that does not answer the leader.
const DOCKER_PROBLEM: &str = "docker: away";

/// Keeps the checks `quorum`, `leader` and `docker` of a member, and its gauges.
#[derive(Debug)]
pub struct Vitals<Q, P, D> {
    core: Core<Q, P, D>,
    quorum: Check,
    leader: Check,
    docker: Check,
}

impl<Q: Quorum, P: Peers, D: Observe> Vitals<Q, P, D> {
    /// Registers the checks.
    pub fn new(core: Core<Q, P, D>, readiness: &Readiness) -> Self {
        Self {
            core,
            quorum: readiness.register("quorum"),
            leader: readiness.register("leader"),
            docker: readiness.register("docker"),
        }
    }

    /// Runs until the drain begins.
    pub async fn run(self, drain: DrainWatch) {
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while or_drain(&drain, every.tick()).await.is_some() {
            self.look();
        }
        self.leader.set_not_ready("this member is ending");
    }

    /// Looks once.
    pub fn look(&self) {
        let view = self.core.quorum.view().borrow().clone();
        let state = Arc::clone(&self.core.quorum.state().borrow());
        let silent = Duration::from_millis(self.core.quorum.leader_silent_ms());
        if view.cluster_id.is_empty() {
            self.quorum.set_not_ready("the quorum is not formed");
        } else if view.applied == 0 {
            self.quorum.set_not_ready("nothing is applied yet");
        } else {
            self.quorum.set_ok();
        }
        match view.leader {
            None => self.leader.set_not_ready("no leader is known"),
            Some(leader) if leader != view.this && silent > SILENT_MAX => {
                self.leader.set_not_ready(format!(
                    "member {leader} leads, and was not heard for {} s",
                    silent.as_secs()
                ))
            }
            Some(leader) => self.leader.set_ok_with(format!("member {leader} leads")),
        }
        self.look_at_docker(&view, &state);

        let connected = self.core.fleet.subscribers().into_iter().filter(|known| known.connected);
        let lag = connected
            .map(|known| state.revision(&known.service_cluster).0.saturating_sub(known.revision.0));
        telemetry::gauges(&Gauges {
            leads: view.fence.is_some(),
            leader_silent: silent,
            applied: view.applied,
            problems: state.problems().len() + self.core.soft.len(),
            docker_age: self.core.docker.age(),
            docker_error: self.core.docker.error().is_some(),
            subscriber_lag: lag.max().unwrap_or_default(),
        });
    }

    /// A member without Docker still votes, and serves what was last seen: Docker's
    /// absence is a detail, and no reason to take the member out.
    fn look_at_docker(&self, view: &QuorumView, state: &State) {
        let error = self.core.docker.error();
        let detail = match (self.core.docker.age(), &error) {
            (Some(age), None) => format!("last read {} s ago", age.as_secs()),
            (Some(age), Some(error)) => format!("last read {} s ago: {error}", age.as_secs()),
            (None, Some(error)) => format!("never read: {error}"),
            (None, None) => "never read".to_owned(),
        };
        if let Some(error) = error
            && view.fence.is_some()
        {
            // Without its age, which would make it another problem every second.
            let reason =
                format!("Docker does not answer, and what it showed last stays in force: {error}");
            self.core.soft.raise(DOCKER_PROBLEM, "docker", reason, state.applied_index());
        } else {
            self.core.soft.clear(DOCKER_PROBLEM);
        }
        self.docker.set_ok_with(detail);
    }
}

#[cfg(test)]
mod tests {
    use dovetail_process::drain::Drain;

    use super::*;
    use crate::fakes::{FakeDocker, FakePeers, FakeQuorum, listing};
    use crate::fleet::Fleet;
    use crate::soft::SoftProblems;

    #[tokio::test(start_paused = true)]
    async fn a_member_without_docker_is_ready_and_says_so() {
        let quorum = FakeQuorum::leader();
        let docker = FakeDocker::new();
        let core = Core {
            quorum: Arc::clone(&quorum),
            peers: Arc::new(FakePeers::default()),
            docker: Arc::clone(&docker),
            fleet: Fleet::new(),
            soft: SoftProblems::new(),
            drain: Drain::new().watch(),
        };
        let readiness = Readiness::new();
        let vitals = Vitals::new(core.clone(), &readiness);
        vitals.look();
        let report = readiness.report(&[]);
        assert!(report.text.contains("[+]docker ok: never read\n"), "{}", report.text);
        assert!(report.text.contains("[-]quorum failed: nothing is applied yet\n"));

        quorum.know(&listing(&[("web", 1)]));
        *docker.error.lock().expect("not poisoned") = Some("connection refused".to_owned());
        vitals.look();
        let report = readiness.report(&[]);
        assert!(report.ready, "{}", report.text);
        assert!(report.text.contains("[+]docker ok: never read: connection refused\n"));
        assert!(core.soft.list()[0].reason.contains("connection refused"));

        quorum.lead(None);
        vitals.look();
        assert!(!readiness.is_ready(), "no leader is known");
        assert!(core.soft.is_empty(), "it is the leader's problem");
    }
}
