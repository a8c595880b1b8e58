//! Canaries that run: a target's share grows step by step while its figures allow it.
//!
//! The leader proposes each step with what the proxies measured; here the same figures
//! are judged again, so that no member's mistake can take a step against the plan.

use std::sync::Arc;

use super::State;
use super::canary::{Canary, Override, refused};
use crate::canary::{EVIDENCE_PROXIES_MAX, Evidence, Figures, Plan, Verdict, judge};
use crate::codec::{Canonical, InvalidBytes, Reader, tags};
use crate::command::Share;
use crate::entry::{Applied, LogIndex, Rejection};
use crate::snapshot::{RouteKey, WEIGHT_SUM};

/// What the evidence of too many proxies is refused for.
pub(crate) const EVIDENCE: &str = "proxies in the evidence of a canary";

/// A canary that was started, until it is cleared or another one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The service that gives, by name.
    pub from: Arc<str>,
    /// The target.
    pub to: Arc<str>,
    pub plan: Plan,
    /// The step in force, or last in force, counted from 1.
    pub step: u32,
    pub state: RunState,
    /// The leader time in milliseconds since which step and state are as they are.
    pub since_ms: u64,
    /// Who started it.
    pub actor: Arc<str>,
    /// The entry that did.
    pub index: LogIndex,
    /// Who changed it last.
    pub changed_by: Arc<str>,
    /// The entry that did.
    pub changed_at: LogIndex,
    /// Why it was aborted; empty while it was not, and when it was by an operator.
    pub reason: Arc<str>,
    /// What the last step, or the abort, was judged by.
    pub evidence: Option<Figures>,
    /// Derived, never encoded.
    shares: [Share; 2],
}

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunState {
    /// Its step is measured.
    Running,
    /// Its step holds until it is resumed.
    Paused,
    /// It took all its steps, and the last share holds.
    Finished,
    /// It gives no share any more.
    Aborted,
}

impl RunState {
    /// `running`, `paused`, `finished` or `aborted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Aborted => "aborted",
        }
    }
}

impl Run {
    /// Its shares, while it gives any.
    pub fn shares(&self) -> Option<&[Share]> {
        (self.state != RunState::Aborted).then_some(&self.shares)
    }

    /// Whether it is not over.
    pub fn is_under_way(&self) -> bool {
        matches!(self.state, RunState::Running | RunState::Paused)
    }

    /// The leader time in milliseconds from which on its next step may be taken.
    pub fn next_step_ms(&self) -> Option<u64> {
        let is_running = self.state == RunState::Running;
        is_running.then(|| self.since_ms.saturating_add(self.plan.interval_ms))
    }

    /// Refuses what `rule` says unless the run is in this state.
    fn check_is(&self, state: RunState, route: &RouteKey, rule: &str) -> Result<(), Rejection> {
        if self.state == state {
            return Ok(());
        }
        Err(refused(format!("the canary on {route} is {}: {rule}", self.state.as_str())))
    }

    /// Whether it could have come about; decoded runs may be anything.
    fn is_sound(&self) -> bool {
        self.plan.check().is_ok()
            && self.from != self.to
            && (1..=self.plan.len()).contains(&self.step)
    }
}

fn shares(from: &Arc<str>, to: &Arc<str>, part: u16) -> [Share; 2] {
    let share = |service: &Arc<str>, weight| Share { service: Arc::clone(service), weight };
    [share(from, WEIGHT_SUM - part), share(to, part)]
}

impl State {
    pub(super) fn start_canary(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        route: &RouteKey,
        (from, to): (&Arc<str>, &Arc<str>),
        plan: &Plan,
    ) -> Result<Applied, Rejection> {
        plan.check().map_err(refused)?;
        if from == to {
            return Err(refused(format!(
                "the canary would go from {from:?} to itself: name the service that is to take over"
            )));
        }
        self.check_on_route(route, &[from, to])?;
        self.check_none_runs(route)?;
        self.check_room(route)?;
        let run = Run {
            from: Arc::clone(from),
            to: Arc::clone(to),
            plan: plan.clone(),
            step: 1,
            state: RunState::Running,
            since_ms: self.leader_time_ms,
            actor: Arc::clone(actor),
            index,
            changed_by: Arc::clone(actor),
            changed_at: index,
            reason: "".into(),
            evidence: None,
            shares: shares(from, to, plan.share(1)),
        };
        // What was in force before the start is what an abort returns to.
        let beneath = self.canaries.get(route).and_then(|canary| match &canary.run {
            Some(run) if run.state == RunState::Finished => Some(Override {
                shares: run.shares.to_vec(),
                actor: Arc::clone(&run.actor),
                index: run.index,
            }),
            _ => canary.set.clone(),
        });
        let canary = Canary { set: beneath, run: Some(run), ..Canary::default() };
        Ok(self.replace_canary(index, route, Some(canary)))
    }

    pub(super) fn pause_canary(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        route: &RouteKey,
    ) -> Result<Applied, Rejection> {
        let run = self.run(route)?;
        let rule = "only one that runs can be paused";
        run.check_is(RunState::Running, route, rule)?;
        Ok(self.change_run(index, actor, route, |run| run.state = RunState::Paused))
    }

    pub(super) fn resume_canary(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        route: &RouteKey,
    ) -> Result<Applied, Rejection> {
        let run = self.run(route)?;
        let rule = "only one that is paused can be resumed";
        run.check_is(RunState::Paused, route, rule)?;
        Ok(self.change_run(index, actor, route, |run| run.state = RunState::Running))
    }

    /// Takes the next step; after the last one the run is finished.
    pub(super) fn advance_canary(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        route: &RouteKey,
        step: u32,
        evidence: &Evidence,
    ) -> Result<Applied, Rejection> {
        let run = self.judged(route, evidence)?;
        if step != run.step + 1 {
            return Err(refused(format!(
                "the canary on {route} is at step {}: the next one is {}, not {step}",
                run.step,
                run.step + 1
            )));
        }
        let (interval, now) = (run.plan.interval_ms, self.leader_time_ms);
        let passed = now.saturating_sub(run.since_ms);
        if passed < interval || evidence.window_ms < interval {
            return Err(refused(format!(
                "step {} of the canary on {route} is in force for {passed} ms and was measured \
                 for {} ms: its interval is {interval} ms",
                run.step, evidence.window_ms
            )));
        }
        let verdict = match judge(&run.plan, evidence) {
            Verdict::Advance => None,
            Verdict::Hold(reason) => Some(("holds it", reason)),
            Verdict::Abort(reason) => Some(("aborts it", reason)),
        };
        if let Some((verdict, reason)) = verdict {
            return Err(refused(format!(
                "the plan of the canary on {route} {verdict} at step {}: {reason}",
                run.step
            )));
        }
        let figures = evidence.sum();
        Ok(self.change_run(index, actor, route, |run| {
            if step > run.plan.len() {
                run.state = RunState::Finished;
            } else {
                run.step = step;
                run.shares = shares(&run.from, &run.to, run.plan.share(step));
            }
            run.evidence = Some(figures);
        }))
    }

    /// Returns to the weights before the start: by order, or because the figures demand it.
    pub(super) fn abort_canary(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        route: &RouteKey,
        evidence: Option<&Evidence>,
    ) -> Result<Applied, Rejection> {
        let mut reason = String::new();
        match evidence {
            None if self.run(route)?.state == RunState::Aborted => {
                return Err(refused(format!(
                    "the canary on {route} was aborted already: clear it, or start another one"
                )));
            }
            None => {}
            Some(evidence) => {
                let run = self.judged(route, evidence)?;
                match judge(&run.plan, evidence) {
                    Verdict::Abort(why) => reason = why,
                    Verdict::Hold(_) | Verdict::Advance => {
                        return Err(refused(format!(
                            "the figures are no reason to abort the canary on {route}: {}",
                            evidence.sum()
                        )));
                    }
                }
            }
        }
        Ok(self.change_run(index, actor, route, |run| {
            run.state = RunState::Aborted;
            run.reason = reason.into();
            run.evidence = evidence.map(Evidence::sum).or(run.evidence);
        }))
    }

    /// The run that evidence may move.
    fn judged(&self, route: &RouteKey, evidence: &Evidence) -> Result<&Run, Rejection> {
        let run = self.run(route)?;
        let count = evidence.proxies.len();
        if count > EVIDENCE_PROXIES_MAX {
            return Err(Rejection::AboveLimit {
                what: EVIDENCE,
                given: count as u64,
                limit: EVIDENCE_PROXIES_MAX as u64,
            });
        }
        run.check_is(RunState::Running, route, "nothing is judged")?;
        if (evidence.run, evidence.step) != (run.index, run.step) {
            return Err(refused(format!(
                "the figures are of step {} of the canary that began at {}: step {} of the one \
                 that began at {} is in force on {route}",
                evidence.step, evidence.run, run.step, run.index
            )));
        }
        Ok(run)
    }

    /// A route's run, over or not.
    fn run(&self, route: &RouteKey) -> Result<&Run, Rejection> {
        let run = self.canaries.get(route).and_then(|canary| canary.run.as_ref());
        run.ok_or_else(|| {
            refused(format!(
                "no canary was started on {route}: dovetail canary list shows those that there are"
            ))
        })
    }

    /// Refuses shares where a run is under way.
    pub(super) fn check_none_runs(&self, route: &RouteKey) -> Result<(), Rejection> {
        match self.run(route) {
            Ok(run) if run.is_under_way() => Err(refused(format!(
                "a canary from {} to {} is {} on {route} since {}: promote, abort or clear it first",
                run.from,
                run.to,
                run.state.as_str(),
                run.index
            ))),
            _ => Ok(()),
        }
    }

    fn change_run(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        route: &RouteKey,
        change: impl FnOnce(&mut Run),
    ) -> Applied {
        let Some(canary) = self.canaries.get(route) else { return Applied::Unchanged };
        let mut canary = Canary::clone(canary);
        if let Some(run) = &mut canary.run {
            change(run);
            run.since_ms = self.leader_time_ms;
            run.changed_by = Arc::clone(actor);
            run.changed_at = index;
        }
        self.replace_canary(index, route, Some(canary))
    }
}

tags! { RunState { Running = 0 Paused = 1 Finished = 2 Aborted = 3 } }

impl Canonical for Run {
    fn write(&self, out: &mut Vec<u8>) {
        self.from.write(out);
        self.to.write(out);
        self.plan.write(out);
        self.step.write(out);
        self.state.write(out);
        self.since_ms.write(out);
        self.actor.write(out);
        self.index.write(out);
        self.changed_by.write(out);
        self.changed_at.write(out);
        self.reason.write(out);
        self.evidence.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let (giver, to): (Arc<str>, Arc<str>) = from.read()?;
        let plan: Plan = from.read()?;
        let step = from.read()?;
        let shares = shares(&giver, &to, plan.share(step));
        let run = Self {
            from: giver,
            to,
            plan,
            step,
            state: from.read()?,
            since_ms: from.read()?,
            actor: from.read()?,
            index: from.read()?,
            changed_by: from.read()?,
            changed_at: from.read()?,
            reason: from.read()?,
            evidence: from.read()?,
            shares,
        };
        if run.is_sound() { Ok(run) } else { Err(from.invalid("canary", "could not be started")) }
    }
}
