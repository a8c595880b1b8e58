//! Whether Swarm is still at work on a service.

use super::facts::Facts;
use crate::fact::{DesiredState, Scale, TaskState};
use crate::names::ServiceId;

/// States of `UpdateStatus` in which tasks are being replaced.
const UPDATING: [&str; 2] = ["updating", "rollback_started"];

pub(super) fn is_converging(facts: &Facts, id: &ServiceId) -> bool {
    let Some(service) = facts.services.get(id) else { return false };
    if service.scale == Scale::Job {
        return false;
    }
    if UPDATING.contains(&&*service.update_state) {
        return true;
    }
    let mut running = 0;
    for task in facts.tasks_of(id) {
        match (task.state, task.desired) {
            (TaskState::Running, DesiredState::Running) => running += 1,
            // About to stop.
            (TaskState::Running, _) => return true,
            (TaskState::Starting, DesiredState::Running | DesiredState::Ready) => return true,
            (TaskState::Starting | TaskState::Ended, _) => {}
        }
    }
    matches!(service.scale, Scale::Replicated(replicas) if replicas != running)
}
