//! One entry's effect, by kind.

use std::sync::Arc;

use super::State;
use super::facts::Touched;
use crate::entry::{Applied, Command, Entry, LogIndex, Payload, Rejection, SCHEMA_VERSION};
use crate::fact::Observed;
use crate::names::SwarmId;

impl State {
    pub(super) fn apply_new(&mut self, index: LogIndex, entry: &Entry) -> Applied {
        if entry.schema_version > SCHEMA_VERSION {
            return Applied::Rejected(Rejection::NewerSchema { given: entry.schema_version });
        }
        let applied = match &entry.payload {
            Payload::Observed(observed) => self.observe(index, observed),
            Payload::Resynced(resynced) => match self.accept_or_reject(index, &resynced.swarm) {
                Ok(()) => Applied::Unchanged,
                Err(rejection) => Applied::Rejected(rejection),
            },
            Payload::Command(command) => {
                if let Some(first) = self.answers.again(entry, command) {
                    return first;
                }
                let applied =
                    self.command(index, &entry.actor, command).unwrap_or_else(Applied::Rejected);
                let applied = self.fall_due(index, applied);
                self.answers.remember(index, entry, command, &applied);
                return applied;
            }
            // The comparison of digests belongs to later rule sets.
            Payload::Tick | Payload::Checkpoint { .. } => Applied::Unchanged,
        };
        self.fall_due(index, applied)
    }

    /// What is due by leader time happens with any entry that was not refused, after its own
    /// effect: so a refused one changes nothing, and a deadline needs no entry of its own.
    fn fall_due(&mut self, index: LogIndex, applied: Applied) -> Applied {
        if matches!(applied, Applied::Rejected(_)) {
            return applied;
        }
        let due = [self.end_drains(index), self.expire_rollbacks(index)];
        let changed = |one: &Applied| matches!(one, Applied::Changed(_));
        if changed(&applied) {
            return applied;
        }
        due.into_iter().find(changed).unwrap_or(applied)
    }

    fn observe(&mut self, index: LogIndex, observed: &Observed) -> Applied {
        if let Err(rejection) = self.accept_or_reject(index, &observed.swarm) {
            return Applied::Rejected(rejection);
        }
        let mut touched = Touched::default();
        for change in &observed.changes {
            self.facts.record(change, &mut touched);
            self.drains.forget(change);
        }
        self.derive(index, &touched)
    }

    /// The first swarm seen is accepted; another one only by a command.
    fn accept_or_reject(&mut self, index: LogIndex, given: &SwarmId) -> Result<(), Rejection> {
        if self.swarm.as_str().is_empty() {
            self.swarm = given.clone();
        }
        if *given == self.swarm {
            self.other_swarm = None;
            return Ok(());
        }
        if self.other_swarm.as_ref().is_none_or(|(other, _)| other != given) {
            self.other_swarm = Some((given.clone(), index));
        }
        Err(Rejection::OtherSwarm {
            given: Arc::clone(&given.0),
            accepted: Arc::clone(&self.swarm.0),
        })
    }

    fn command(
        &mut self,
        index: LogIndex,
        actor: &Arc<str>,
        command: &Command,
    ) -> Result<Applied, Rejection> {
        if let Some(route) = command.shares_of() {
            self.check_not_rolled_back(route)?;
        }
        match command {
            Command::ApplyConfig(config) => Ok(self.apply_config(index, actor, config)),
            Command::AcceptSwarm { swarm } => {
                self.swarm = swarm.clone();
                self.other_swarm = None;
                Ok(Applied::Unchanged)
            }
            Command::Annotate { .. } | Command::ChangeMembers(_) => Ok(Applied::Unchanged),
            // Orders about the shares of a route.
            Command::SetCanary { route, shares, expected } => {
                self.set_canary(index, actor, route, shares, *expected)
            }
            Command::ClearCanary { route } => self.clear_canary(index, route),
            Command::PromoteCanary { route, service } => {
                self.promote_canary(index, actor, route, service.as_ref())
            }
            Command::RollbackRoutes { service_cluster, to, scope, for_ms } => {
                self.roll_back(index, actor, (service_cluster, scope), *to, *for_ms)
            }
            Command::ReleaseRollback { service_cluster, scope } => {
                self.release(index, service_cluster, scope)
            }
            Command::StartCanary { route, from, to, plan } => {
                self.start_canary(index, actor, route, (from, to), plan)
            }
            Command::PauseCanary { route } => self.pause_canary(index, actor, route),
            Command::ResumeCanary { route } => self.resume_canary(index, actor, route),
            Command::AdvanceCanary { route, step, evidence } => {
                self.advance_canary(index, actor, route, *step, evidence)
            }
            Command::AbortCanary { route, evidence } => {
                self.abort_canary(index, actor, route, evidence.as_ref())
            }
            Command::DrainUpstream { target, for_ms, force } => {
                self.drain_upstream(index, actor, target, *for_ms, *force)
            }
            Command::UndrainUpstream { target } => self.undrain_upstream(index, target),
            Command::ActivateRules { rules } => Ok(self.activate(index, *rules)),
            Command::Unknown { name } => Err(Rejection::UnknownCommand { name: Arc::clone(name) }),
        }
    }
}
