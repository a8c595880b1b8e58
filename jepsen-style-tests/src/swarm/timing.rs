//! From a Docker event to an answer through every proxy.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;

use super::{ServiceConfig, Swarm};
use crate::cluster::Cluster;
use crate::reached;

/// How long one service may take to answer before the measurement is given up.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often each proxy is asked: the grain of the figures.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// Publishes `events` services one after the other; for each, the time from the event
/// until it has answered through every proxy. It is removed again afterwards.
pub async fn event_to_proxy_times(
    cluster: &Cluster,
    swarm: &Swarm,
    events: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for event in 0..events {
        let (name, host) = (format!("timed-{event}"), format!("timed-{event}.example"));
        let published = swarm.create(ServiceConfig::published(&name, &host, 1)).await?;
        let answers = cluster.proxy_addrs().into_iter().map(|proxy| {
            let host = host.clone();
            async move {
                let deadline = published + DEADLINE;
                loop {
                    match crate::http::who_answers(proxy, &host, "/").await {
                        Ok(_) => return Ok(published.elapsed()),
                        Err(reason) if Instant::now() > deadline => return Err(reason),
                        Err(_) => tokio::time::sleep(ASK_EVERY).await,
                    }
                }
            }
        });
        let slowest = try_join_all(answers).await.map_err(anyhow::Error::msg)?.into_iter().max();
        times.push(slowest.context("there is no proxy")?);
        swarm.remove(&name).await?;
        reached(DEADLINE, || async {
            match crate::http::who_answers(cluster.proxy_addr(1), &host, "/").await {
                Ok(by) => Err(format!("{by} still answers for {host}")),
                Err(_) => Ok(()),
            }
        })
        .await?;
    }
    Ok(times)
}

/// The middle one of `times`.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
