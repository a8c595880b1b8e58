//! Every log event and metric of this crate: its name, its fields, its level.
//!
//! | event | level | fields |
//! |---|---|---|
//! | `docker listed` | debug | `depth`, `services`, `tasks`, `took` |
//! | `docker listing lost` | warn once, then debug | `error` |
//! | `docker listing regained` | info | `api` |
//! | `docker event seen` | debug | `kind`, `action`, `object` |
//! | `docker event stream opened` | debug | – |
//! | `docker event stream ended` | debug | `why` |
//! | `docker object unreadable` | warn once, then debug | `object` |
//!
//! | metric | meaning |
//! |---|---|
//! | `dovetail_docker_calls_total{call,outcome}` | calls to the engine |
//! | `dovetail_docker_call_seconds{call}` | how long they took |
//! | `dovetail_docker_events_total{kind}` | hints that came |
//! | `dovetail_docker_event_streams_total` | event streams opened |
//! | `dovetail_docker_listing_age_seconds` | age of what is known |

use std::time::Duration;

use dovetail_routing::fact::{DockerEvent, Listing};
use tracing::{debug, info, warn};

pub(crate) fn called(call: &'static str, outcome: &'static str, took: Duration) {
    metrics::counter!("dovetail_docker_calls_total", "call" => call, "outcome" => outcome)
        .increment(1);
    metrics::histogram!("dovetail_docker_call_seconds", "call" => call).record(took.as_secs_f64());
}

pub(crate) fn listed(depth: &'static str, listing: &Listing, took: Duration) {
    let (services, tasks) = (listing.services.len(), listing.tasks.len());
    debug!(depth, services, tasks, ?took, "docker listed");
}

/// `first`: since the last listing that came.
pub(crate) fn listing_lost(error: &str, first: bool) {
    if first {
        warn!(%error, "docker listing lost");
    } else {
        debug!(%error, "docker listing lost");
    }
}

pub(crate) fn listing_regained(api: &str) {
    info!(api, "docker listing regained");
}

pub(crate) fn event_seen(event: &DockerEvent) {
    // Kinds are those of our own filter: few.
    metrics::counter!("dovetail_docker_events_total", "kind" => event.kind.to_string())
        .increment(1);
    debug!(kind = %event.kind, action = %event.action, object = %event.object, "docker event seen");
}

pub(crate) fn stream_opened() {
    metrics::counter!("dovetail_docker_event_streams_total").increment(1);
    debug!("docker event stream opened");
}

pub(crate) fn stream_ended(why: &str) {
    debug!(why, "docker event stream ended");
}

pub(crate) fn unreadable(object: &str, first: bool) {
    if first {
        warn!(object, "docker object unreadable");
    } else {
        debug!(object, "docker object unreadable");
    }
}

pub(crate) fn age(age: Duration) {
    metrics::gauge!("dovetail_docker_listing_age_seconds").set(age.as_secs_f64());
}
