//! The leader's clock: what is due gets a tick, and canaries that run are judged.
//!
//! ```text
//!  State::next_deadline ─► Tick
//!  Core::traffic ─► measure ─► routing::canary::judge ─► AdvanceCanary | AbortCanary
//! ```
//!
//! Every member judges the same figures again when it applies the entry, and takes each
//! step once: so a proposal whose outcome is unknown, or of a leader that is none any
//! more, costs nothing. A new leader measures anew, for a whole interval.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::DrainWatch;
use dovetail_routing::canary::{Verdict, judge};
use dovetail_routing::entry::Answered;
use dovetail_routing::snapshot::RouteKey;
use dovetail_routing::state::{Run, RunState, State};
use dovetail_routing::{Applied, Command, LogIndex, Payload};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::ports::{Fence, Peers, Proposal, Quorum, Slot};
use crate::reconcile::{fence_ended, fence_gained};
use crate::services::Core;
use crate::telemetry;
use measure::Measured;

mod measure;

/// How often it is looked: proxies tell once a second.
pub const EVERY: Duration = Duration::from_millis(500);
/// The longest wait for a proposal; then its outcome is unknown.
const PROPOSE: Duration = Duration::from_secs(10);
/// The pause after a proposal of a step that was refused or failed.
const PAUSE: Duration = Duration::from_secs(1);
/// What the keys of this job's soft problems begin with.
const PROBLEMS: &str = "canary: ";

/// Proposes what time and figures demand, while this member leads.
#[derive(Debug)]
pub struct Schedule<Q, P, D> {
    core: Core<Q, P, D>,
    actor: Arc<str>,
}

impl<Q: Quorum, P: Peers, D: Send + Sync + 'static> Schedule<Q, P, D> {
    /// The job of member `slot`.
    pub fn new(core: Core<Q, P, D>, slot: Slot) -> Self {
        Self { core, actor: format!("dovetail://member/{slot}").into() }
    }

    /// Runs until the drain begins.
    pub async fn run(self, drain: DrainWatch) {
        let mut view = self.core.quorum.view();
        while let Some(fence) = fence_gained(&mut view, &drain).await {
            tokio::select! {
                biased;
                () = drain.begun() => return,
                () = fence_ended(&mut view, fence) => {}
                () = self.lead(fence) => {}
            }
            self.core.soft.clear_all(PROBLEMS);
        }
    }

    async fn lead(&self, fence: Fence) {
        // The state must hold what earlier leaders wrote, or steps would be proposed again.
        while self.core.quorum.read_barrier().await.is_err() {
            sleep(EVERY).await;
        }
        let mut measured = BTreeMap::new();
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let state = Arc::clone(&self.core.quorum.state().borrow());
            let now_ms = self.core.quorum.leader_time_ms().max(state.leader_time_ms());
            if state.next_deadline().is_some_and(|deadline| deadline <= now_ms) {
                self.propose(fence, "a deadline passed", Payload::Tick).await;
            }
            self.judge_all(fence, &state, &mut measured, now_ms).await;
        }
    }

    /// Looks at each canary that runs, once.
    async fn judge_all(
        &self,
        fence: Fence,
        state: &State,
        measured: &mut BTreeMap<RouteKey, Measured>,
        now_ms: u64,
    ) {
        let runs: BTreeMap<&RouteKey, &Run> = state
            .canaries()
            .filter_map(|(route, canary)| Some((route, canary.run.as_ref()?)))
            .filter(|(_, run)| run.state == RunState::Running)
            // What a rollback holds takes no step.
            .filter(|(route, _)| state.rollback(route).is_none())
            .collect();
        measured.retain(|route, one| {
            let goes_on = runs.get(route).is_some_and(|run| one.is_of(run));
            if !goes_on {
                self.core.soft.clear(&problem(route));
            }
            goes_on
        });
        if runs.is_empty() {
            return;
        }
        let view = self.core.quorum.view().borrow().clone();
        let traffic = self.core.traffic(&view).await;
        let now = Instant::now();
        for (route, run) in runs {
            let one = measured.entry(route.clone()).or_insert_with(|| Measured::new(run, now));
            one.add(route, run, &traffic);
            if one.pause_until.is_some_and(|until| now < until) {
                continue;
            }
            let Some(order) = self.order(state, route, run, one, (now, now_ms)) else { continue };
            let cause = match &order {
                Command::AbortCanary { .. } => format!("canary on {route}: figures abort it"),
                _ => format!("canary on {route}: figures allow the next step"),
            };
            if !self.propose(fence, &cause, Payload::Command(order)).await {
                one.pause_until = Some(now + PAUSE);
            }
        }
    }

    /// What the figures demand of a run now.
    fn order(
        &self,
        state: &State,
        route: &RouteKey,
        run: &Run,
        measured: &mut Measured,
        (now, now_ms): (Instant, u64),
    ) -> Option<Command> {
        let whole = measured.since_start(now);
        let verdict = judge(&run.plan, &whole);
        let (recent, interval) =
            (measured.recent(now), Duration::from_millis(run.plan.interval_ms));
        for evidence in [&whole, &recent] {
            if let Verdict::Abort(_) = judge(&run.plan, evidence) {
                let evidence = Some(evidence.clone());
                return Some(Command::AbortCanary { route: route.clone(), evidence });
            }
        }
        measured.turn(now, interval);
        let is_due = whole.window_ms >= run.plan.interval_ms
            && run.next_step_ms().is_some_and(|next| next <= now_ms);
        let soft = &self.core.soft;
        match verdict {
            Verdict::Advance if is_due => {
                let step = run.step + 1;
                Some(Command::AdvanceCanary { route: route.clone(), step, evidence: whole })
            }
            Verdict::Hold(reason) if is_due => {
                // The next judgement tells it anew; a step that was taken clears it.
                let reason = format!("canary on {route} waits at step {}: {reason}", run.step);
                soft.raise(&problem(route), &*run.to, reason, state.applied_index());
                None
            }
            _ => None,
        }
    }

    /// Whether a proposal was written and not refused.
    async fn propose(&self, fence: Fence, cause: &str, payload: Payload) -> bool {
        let proposal = Proposal {
            actor: Arc::clone(&self.actor),
            // Not remembered: a step that was refused may be right a moment later.
            request_id: "".into(),
            cause: cause.into(),
            payload,
        };
        match timeout(PROPOSE, self.core.quorum.propose(fence, proposal)).await {
            Ok(Ok(Answered { index, applied: Applied::Rejected(rejection), .. })) => {
                telemetry::proposal_rejected(index, &rejection);
                false
            }
            Ok(Ok(Answered { index, applied, .. })) => {
                telemetry::proposal_applied(index, 0, &applied);
                true
            }
            Ok(Err(error)) => {
                telemetry::proposal_failed(&error);
                false
            }
            Err(_) => false,
        }
    }
}

fn problem(route: &RouteKey) -> String {
    format!("{PROBLEMS}{route}")
}

#[cfg(test)]
mod tests;
