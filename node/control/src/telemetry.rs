//! Every event and metric that this crate emits.
//!
//! Nothing else in the crate calls `tracing`'s or `metrics`' macros, so this page
//! is the whole vocabulary that an operator may search for.
//!
//! | event | level | fields |
//! |---|---|---|
//! | `leadership gained`, `leadership ended` | info | `term` |
//! | `proposal applied` | info, debug if unchanged | `index`, `changes`, `applied` |
//! | `proposal rejected` | warn | `index`, `reason` |
//! | `proposal failed` | warn | `error` |
//! | `problem raised`, `problem cleared` | warn, info | `problem`, `reason` |
//! | `configuration seeded` | info | `index` |
//! | `configuration differs` | warn | `ours`, `in_force` |
//! | `subscriber connected`, `subscriber gone` | info | `name`, `address`, `service_cluster` |
//! | `snapshot refused` | warn | `name`, `revision`, `reason` |
//! | `subscriber reported` | info | `name`, `problems`, `more` |
//! | `command applied` | info | `index`, `actor` |
//! | `checkpoint without a majority` | error | `index` |
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `dovetail_control_proposals_total` | counter | `outcome` |
//! | `dovetail_control_observations_total` | counter | |
//! | `dovetail_control_removals_held` | gauge | |
//! | `dovetail_control_soft_problems` | gauge | |
//! | `dovetail_control_problems` | gauge | |
//! | `dovetail_control_leader` | gauge | |
//! | `dovetail_control_leader_silent_seconds` | gauge | |
//! | `dovetail_control_docker_age_seconds` | gauge | |
//! | `dovetail_control_docker_error` | gauge | |
//! | `dovetail_control_applied_index` | gauge | |
//! | `dovetail_control_commands_total` | counter | `outcome` |
//! | `dovetail_control_subscriber_lag_revisions` | gauge | |
//! | `dovetail_control_checkpoints_without_majority_total` | counter | |
//! | `dovetail_feed_subscribers` | gauge | |
//! | `dovetail_feed_pushes_total`, `dovetail_feed_acks_total`, `dovetail_feed_nacks_total` | counter | |
//! | `dovetail_feed_ack_seconds` | histogram | |

use std::time::Duration;

use dovetail_routing::entry::{Applied, LogIndex, Rejection};
use dovetail_routing::snapshot::{Digest, Revision};
use metrics::{counter, gauge, histogram};
use tracing::{debug, error, info, warn};

use crate::fleet::Subscriber;
use crate::ports::{Fence, ProposeError};

pub(crate) fn leadership_gained(fence: Fence) {
    info!(term = fence.term, "leadership gained");
}

pub(crate) fn leadership_ended(fence: Fence) {
    info!(term = fence.term, "leadership ended");
}

pub(crate) fn checkpoint_without_majority(index: u64) {
    counter!("dovetail_control_checkpoints_without_majority_total").increment(1);
    error!(index, "checkpoint without a majority");
}

pub(crate) fn checkpoint_not_written(index: u64, error: &ProposeError) {
    warn!(index, %error, "proposal failed");
}

pub(crate) fn observation_seen() {
    counter!("dovetail_control_observations_total").increment(1);
}

pub(crate) fn proposal_applied(index: LogIndex, changes: usize, applied: &Applied) {
    counter!("dovetail_control_proposals_total", "outcome" => "applied").increment(1);
    match applied {
        Applied::Changed(revision) => info!(%index, changes, %revision, "proposal applied"),
        Applied::Unchanged | Applied::Rejected(_) => debug!(%index, changes, "proposal applied"),
    }
}

pub(crate) fn proposal_rejected(index: LogIndex, rejection: &Rejection) {
    counter!("dovetail_control_proposals_total", "outcome" => "rejected").increment(1);
    warn!(%index, reason = %rejection, "proposal rejected");
}

pub(crate) fn proposal_failed(error: &ProposeError) {
    counter!("dovetail_control_proposals_total", "outcome" => "failed").increment(1);
    warn!(%error, "proposal failed");
}

pub(crate) fn removals_held(objects: usize) {
    gauge!("dovetail_control_removals_held").set(objects as f64);
}

pub(crate) fn problem_raised(problem: &str, reason: &str) {
    warn!(problem, reason, "problem raised");
}

pub(crate) fn problem_cleared(problem: &str) {
    info!(problem, "problem cleared");
}

pub(crate) fn soft_problems(count: usize) {
    gauge!("dovetail_control_soft_problems").set(count as f64);
}

pub(crate) fn configuration_seeded(index: LogIndex) {
    info!(%index, "configuration seeded");
}

pub(crate) fn configuration_differs(ours: Digest, in_force: Digest) {
    warn!(%ours, %in_force, "configuration differs");
}

pub(crate) fn subscriber_connected(subscriber: &Subscriber) {
    let Subscriber { name, address, service_cluster, .. } = subscriber;
    info!(%name, %address, %service_cluster, "subscriber connected");
}

pub(crate) fn subscriber_gone(subscriber: &Subscriber) {
    let Subscriber { name, address, service_cluster, .. } = subscriber;
    info!(%name, %address, %service_cluster, "subscriber gone");
}

pub(crate) fn subscriber_reported(name: &str, problems: usize, more: u64) {
    info!(name, problems, more, "subscriber reported");
}

pub(crate) fn subscribers(connected: usize) {
    gauge!("dovetail_feed_subscribers").set(connected as f64);
}

pub(crate) fn snapshot_pushed() {
    counter!("dovetail_feed_pushes_total").increment(1);
}

pub(crate) fn snapshot_acked(after: Duration) {
    counter!("dovetail_feed_acks_total").increment(1);
    histogram!("dovetail_feed_ack_seconds").record(after.as_secs_f64());
}

pub(crate) fn snapshot_refused(name: &str, revision: Revision, reason: &str) {
    counter!("dovetail_feed_nacks_total").increment(1);
    warn!(name, %revision, reason, "snapshot refused");
}

pub(crate) fn command_applied(index: LogIndex, actor: &str) {
    counter!("dovetail_control_commands_total", "outcome" => "applied").increment(1);
    info!(%index, actor, "command applied");
}

pub(crate) fn command_failed(outcome: &'static str) {
    counter!("dovetail_control_commands_total", "outcome" => outcome).increment(1);
}

/// The gauges of [`crate::vitals`].
pub(crate) struct Gauges {
    pub(crate) leads: bool,
    pub(crate) leader_silent: Duration,
    pub(crate) applied: u64,
    pub(crate) problems: usize,
    pub(crate) docker_age: Option<Duration>,
    pub(crate) docker_error: bool,
    pub(crate) subscriber_lag: u64,
}

pub(crate) fn gauges(gauges: &Gauges) {
    gauge!("dovetail_control_leader").set(f64::from(u8::from(gauges.leads)));
    gauge!("dovetail_control_leader_silent_seconds").set(gauges.leader_silent.as_secs_f64());
    gauge!("dovetail_control_applied_index").set(gauges.applied as f64);
    gauge!("dovetail_control_problems").set(gauges.problems as f64);
    // Without a first look there is no age: NaN, which no alert takes for fresh.
    gauge!("dovetail_control_docker_age_seconds")
        .set(gauges.docker_age.map_or(f64::NAN, |age| age.as_secs_f64()));
    gauge!("dovetail_control_docker_error").set(f64::from(u8::from(gauges.docker_error)));
    gauge!("dovetail_control_subscriber_lag_revisions").set(gauges.subscriber_lag as f64);
}
