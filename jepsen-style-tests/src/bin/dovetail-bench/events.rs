//! From a Docker event to an answer through every proxy.

use serde::Serialize;

use dovetail_jepsen::cluster::Cluster;
use dovetail_jepsen::swarm::{self, Swarm};

/// How long new services took to answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Events {
    pub(crate) events: usize,
    pub(crate) proxies: usize,
    pub(crate) median_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) worst_ms: f64,
}

/// Publishes `events` services, one after the other, and removes each again.
pub(crate) async fn measure(
    cluster: &Cluster,
    swarm: &Swarm,
    events: usize,
) -> anyhow::Result<Events> {
    let mut times = swarm::event_to_proxy_times(cluster, swarm, events).await?;
    times.sort();
    let at = |share: f64| {
        let position = ((times.len() as f64 - 1.0) * share).round() as usize;
        times.get(position).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
    };
    Ok(Events {
        events: times.len(),
        proxies: cluster.proxy_addrs().len(),
        median_ms: at(0.5),
        p90_ms: at(0.9),
        worst_ms: at(1.0),
    })
}
