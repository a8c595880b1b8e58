//! One leadership: rounds of compare, propose, prove and remove.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dovetail_routing::entry::{Answered, Applied, LogIndex, Payload, Rejection};
use dovetail_routing::fact::{Change, DockerEvent, Listing, Observed, Resynced};
use dovetail_routing::state::State;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::absence::{Absences, stale_object};
use super::batch::{OBJECT_BYTES_MAX, bytes_of, split};
use super::key::ObjectKey;
use super::{APART, PROBLEMS, Reconciler};
use crate::observe::{Observation, Observe};
use crate::ports::{Fence, Proposal, ProposeError, Quorum};
use crate::telemetry;

/// Docker events kept as an entry's cause.
const EVENTS_MAX: usize = 64;
/// Questions to Docker at the same time.
const ASKED_AT_ONCE: usize = 8;
/// Refused objects that are remembered, so that they are not proposed again.
const REFUSED_MAX: usize = 1_000;

/// A round ended early; the next one plans anew.
struct Interrupted;

type Answer = Pin<Box<dyn Future<Output = (Change, Option<bool>)> + Send>>;

pub(super) struct Session<'r, Q, D> {
    reconciler: &'r Reconciler<Q, D>,
    fence: Fence,
    state: watch::Receiver<Arc<State>>,
    /// Looks that began before this moment may be older than the state.
    gained: Instant,
    absences: Absences,
    questions: VecDeque<Change>,
    answers: FuturesUnordered<Answer>,
    /// Objects that every member refuses, each with what was refused.
    refused: BTreeMap<ObjectKey, Change>,
    /// A listing by the clock found what no hint had told.
    differed: bool,
    resynced: Option<Instant>,
    /// The listing that the state agreed with, and the state's index then.
    settled: Option<(Arc<Listing>, LogIndex)>,
    /// Waiting for an operator to accept another swarm.
    other_swarm: bool,
    looked: Instant,
    look_at: Option<Instant>,
}

impl<'r, Q: Quorum, D: Observe> Session<'r, Q, D> {
    pub(super) fn new(reconciler: &'r Reconciler<Q, D>, fence: Fence) -> Self {
        Self {
            reconciler,
            fence,
            state: reconciler.quorum.state(),
            gained: Instant::now(),
            absences: Absences::default(),
            questions: VecDeque::new(),
            answers: FuturesUnordered::new(),
            refused: BTreeMap::new(),
            differed: false,
            resynced: None,
            settled: None,
            other_swarm: false,
            looked: Instant::now(),
            look_at: None,
        }
    }

    /// Works until it is dropped, or Docker's watch has ended.
    pub(super) async fn run(&mut self) {
        let config = &self.reconciler.config;
        let mut pause = config.pause;
        // The state must hold what earlier leaders wrote, or it would be proposed again.
        while self.reconciler.quorum.read_barrier().await.is_err() {
            sleep(pause).await;
            pause = (pause * 2).min(config.pause_max);
        }
        pause = config.pause;
        self.gained = Instant::now();
        let mut observations = self.reconciler.docker.observations();
        self.look();
        let mut due = true;
        loop {
            if due {
                let seen = observations.borrow_and_update().clone();
                match self.round(seen).await {
                    Ok(()) => pause = config.pause,
                    Err(Interrupted) => {
                        sleep(pause).await;
                        pause = (pause * 2).min(config.pause_max);
                        continue;
                    }
                }
            }
            let look_at = self.look_at;
            tokio::select! {
                biased;
                Some((removed, exists)) = self.answers.next(), if !self.answers.is_empty() => {
                    self.absences.answered(&removed, exists);
                    self.ask();
                    // Together, so that a stack's removal is one entry.
                    due = self.answers.is_empty();
                }
                changed = observations.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    due = true;
                }
                changed = self.state.changed(), if self.other_swarm => {
                    if changed.is_err() {
                        return;
                    }
                    due = true;
                }
                () = at(look_at) => {
                    self.look();
                    self.look_at = Some(self.looked + APART);
                    due = false;
                }
            }
        }
    }

    async fn round(&mut self, seen: Option<Arc<Observation>>) -> Result<(), Interrupted> {
        // Not to have looked yet is not to have seen nothing: an empty listing
        // would withdraw every route.
        let Some(seen) = seen else { return Ok(()) };
        if seen.began < self.gained {
            return Ok(());
        }
        telemetry::observation_seen();
        let state = Arc::clone(&self.state.borrow_and_update());
        if let Some((listing, index)) = &self.settled
            && Arc::ptr_eq(listing, &seen.listing)
            && *index == state.applied_index()
        {
            return self.resynced(&seen).await;
        }
        if !self.is_accepted_swarm(&state, &seen) {
            return Ok(());
        }
        let difference = state.difference(&seen.listing);
        if !difference.is_empty() && seen.full && seen.events.is_empty() {
            self.differed = true;
        }
        let upserts = self.proposable(&state, &difference.upserts);
        if !upserts.is_empty() {
            let cause = cause_of(&seen.events);
            self.propose_changes(&seen, upserts, &cause, seen.events.clone()).await?;
        }

        let problem = format!("{PROBLEMS}stale listing");
        if !difference.removals.is_empty()
            && let Some(object) = stale_object(&state, &seen.listing)
        {
            let reason =
                format!("Docker answers with an older state, so nothing is removed: {object}");
            self.raise(&state, &problem, reason);
            self.look_at = Some(self.looked + APART);
            return Ok(());
        }
        self.reconciler.soft.clear(&problem);
        let judgement = self.absences.judge(&state, &difference, seen.full, seen.began);
        self.show_held(&state, judgement.held, &difference);
        // Docker is not asked in a circle, however long something stays unproven.
        self.look_at = judgement.look_at.map(|at| at.max(self.looked + APART));
        self.questions.extend(judgement.ask);
        self.ask();
        let removed = judgement.proven.len();
        if removed > 0 {
            self.propose_changes(&seen, judgement.proven, "absent from Docker", Vec::new()).await?;
            // There may be room now for what was above a limit.
            self.refused.clear();
        }
        self.settled =
            difference.is_empty().then(|| (Arc::clone(&seen.listing), state.applied_index()));
        if removed == difference.removals.len() {
            self.resynced(&seen).await?;
        }
        Ok(())
    }

    fn look(&mut self) {
        self.reconciler.docker.look();
        self.looked = Instant::now();
    }

    /// Whether the listing is of the swarm that the state is about.
    fn is_accepted_swarm(&mut self, state: &State, seen: &Observation) -> bool {
        let (accepted, given) = (state.swarm(), &seen.listing.swarm);
        let problem = format!("{PROBLEMS}another swarm");
        self.other_swarm = false;
        if given.as_str().is_empty() {
            self.raise(
                state,
                &problem,
                "Docker names no swarm, so nothing is taken from it".to_owned(),
            );
            return false;
        }
        if !accepted.as_str().is_empty() && accepted != given {
            self.other_swarm = true;
            let reason = format!(
                "Docker shows swarm {given}, and {accepted} is the accepted one: nothing is taken \
                 from it until an operator runs: dovetail swarm accept {given}"
            );
            self.raise(state, &problem, reason);
            return false;
        }
        self.reconciler.soft.clear(&problem);
        true
    }

    /// The upserts without those that were refused before, or cannot be recorded.
    fn proposable(&mut self, state: &State, upserts: &[Change]) -> Vec<Change> {
        let mut proposable = Vec::with_capacity(upserts.len());
        for change in upserts {
            let key = ObjectKey::from(change);
            if self.refused.get(&key) == Some(change) {
                continue;
            }
            let bytes = bytes_of(change);
            if bytes > OBJECT_BYTES_MAX {
                let reason = format!(
                    "{bytes} bytes are above the limit of {OBJECT_BYTES_MAX} of one object"
                );
                self.refuse(state, key, change, &reason);
                continue;
            }
            proposable.push(change.clone());
        }
        proposable
    }

    fn refuse(&mut self, state: &State, key: ObjectKey, change: &Change, reason: &str) {
        self.raise(state, &format!("{PROBLEMS}{key}"), format!("{key} was refused: {reason}"));
        if self.refused.len() < REFUSED_MAX {
            self.refused.insert(key, change.clone());
        }
    }

    /// Proposes changes in entries of bounded size, in their order.
    async fn propose_changes(
        &mut self,
        seen: &Observation,
        changes: Vec<Change>,
        cause: &str,
        mut events: Vec<DockerEvent>,
    ) -> Result<(), Interrupted> {
        events.truncate(EVENTS_MAX);
        let mut batches = VecDeque::from(split(changes));
        while let Some(mut batch) = batches.pop_front() {
            let payload = Payload::Observed(Observed {
                swarm: seen.listing.swarm.clone(),
                changes: batch.clone(),
                events: std::mem::take(&mut events),
            });
            match self.propose(cause, payload, batch.len()).await? {
                Applied::Changed(_) | Applied::Unchanged => {
                    for change in &batch {
                        let key = ObjectKey::from(change);
                        if self.refused.remove(&key).is_some() {
                            self.reconciler.soft.clear(&format!("{PROBLEMS}{key}"));
                        }
                    }
                }
                // Nothing of this entry was recorded: the good ones go again without the bad.
                Applied::Rejected(Rejection::AboveLimit { .. }) if batch.len() > 1 => {
                    let right = batch.split_off(batch.len() / 2);
                    batches.push_front(right);
                    batches.push_front(batch);
                }
                Applied::Rejected(rejection) => {
                    let state = Arc::clone(&self.state.borrow());
                    match (&rejection, batch.first()) {
                        (Rejection::AboveLimit { .. }, Some(change)) => {
                            self.refuse(
                                &state,
                                ObjectKey::from(change),
                                change,
                                &rejection.to_string(),
                            );
                        }
                        _ => return Err(Interrupted),
                    }
                }
            }
        }
        Ok(())
    }

    async fn propose(
        &mut self,
        cause: &str,
        payload: Payload,
        changes: usize,
    ) -> Result<Applied, Interrupted> {
        let config = &self.reconciler.config;
        let proposal = Proposal {
            actor: Arc::clone(&config.actor),
            request_id: "".into(),
            cause: cause.into(),
            payload,
        };
        let proposed = self.reconciler.quorum.propose(self.fence, proposal);
        let outcome = timeout(config.propose, proposed).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {:?}", config.propose);
            Err(ProposeError::Unknown { reason })
        });
        match outcome {
            Ok(Answered { index, applied, .. }) => {
                if let Applied::Rejected(rejection) = &applied {
                    telemetry::proposal_rejected(index, rejection);
                } else {
                    telemetry::proposal_applied(index, changes, &applied);
                }
                Ok(applied)
            }
            Err(error) => {
                telemetry::proposal_failed(&error);
                Err(Interrupted)
            }
        }
    }

    /// Logs that a full listing was compared, if that is due.
    async fn resynced(&mut self, seen: &Observation) -> Result<(), Interrupted> {
        if !seen.full {
            return Ok(());
        }
        let config = &self.reconciler.config;
        let last = self.resynced.unwrap_or(self.gained);
        let differed = self.differed
            && (self.resynced.is_none() || last.elapsed() >= config.resynced_differed);
        if !differed && last.elapsed() < config.resynced_equal {
            return Ok(());
        }
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let resynced = Resynced {
            swarm: seen.listing.swarm.clone(),
            services: count(seen.listing.services.len()),
            tasks: count(seen.listing.tasks.len()),
            networks: count(seen.listing.networks.len()),
            swarm_nodes: count(seen.listing.swarm_nodes.len()),
        };
        let cause = if differed { "full listing, which differed" } else { "full listing" };
        self.propose(cause, Payload::Resynced(resynced), 0).await?;
        self.differed = false;
        self.resynced = Some(Instant::now());
        Ok(())
    }

    /// Sends as many questions to Docker as may be out at once.
    fn ask(&mut self) {
        while self.answers.len() < ASKED_AT_ONCE
            && let Some(removed) = self.questions.pop_front()
        {
            let docker = Arc::clone(&self.reconciler.docker);
            let wait: Duration = self.reconciler.config.ask;
            self.answers.push(Box::pin(async move {
                let exists = timeout(wait, docker.exists(&removed)).await;
                let exists = exists.ok().and_then(Result::ok);
                (removed, exists)
            }));
        }
    }

    fn show_held(
        &self,
        state: &State,
        held: usize,
        difference: &dovetail_routing::state::Difference,
    ) {
        telemetry::removals_held(held);
        let problem = format!("{PROBLEMS}mass removal");
        if held == 0 {
            self.reconciler.soft.clear(&problem);
            return;
        }
        let reason = format!(
            "Docker's listing lacks {held} objects at once, with {} of {} upstreams and {} routes: \
             held until a second listing agrees, or Docker answers 404 for each",
            difference.upstreams_lost, difference.upstreams_before, difference.routes_lost,
        );
        self.raise(state, &problem, reason);
    }

    fn raise(&self, state: &State, problem: &str, reason: String) {
        self.reconciler.soft.raise(problem, problem, reason, state.applied_index());
    }
}

/// Waits until `at`; for ever without one.
async fn at(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Why an entry is proposed, in words.
fn cause_of(events: &[DockerEvent]) -> String {
    match events {
        [] => "listing".to_owned(),
        [event] => format!("{} {}", event.kind, event.action),
        [event, rest @ ..] => format!("{} {} and {} more", event.kind, event.action, rest.len()),
    }
}
