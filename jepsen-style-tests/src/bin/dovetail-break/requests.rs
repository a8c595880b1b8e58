//! Requests through each proxy at a steady rate, and what decides them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dovetail_jepsen::history::Seen;
use dovetail_jepsen::http;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::clients::World;

/// Between two requests to one proxy.
const EVERY: Duration = Duration::from_millis(40);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often answered requests are counted into the history, and proxies are looked at.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// What a proxy's metrics call the revision that decides requests.
const IN_FORCE: &str = "dovetail_feed_revision_in_force";

/// Asks one proxy for `hosts` in turn, until the run ends.
pub(crate) async fn run(
    world: World,
    proxy: String,
    addr: SocketAddr,
    hosts: Vec<String>,
) -> anyhow::Result<()> {
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut count = tokio::time::interval(COUNT_EVERY);
    let answered = Arc::new(AtomicU64::new(0));
    let mut requests = JoinSet::new();
    let mut stop = world.stop.clone();
    let mut number = 0_usize;
    loop {
        tokio::select! {
            _ = clock.tick() => {
                while requests.try_join_next().is_some() {}
                let Some(host) = hosts.get(number % hosts.len().max(1)).cloned() else { continue };
                number += 1;
                let (world, proxy, answered) = (world.clone(), proxy.clone(), answered.clone());
                requests.spawn(async move {
                    let began = world.recorder.now();
                    match one(addr, &host).await {
                        Ok(()) => _ = answered.fetch_add(1, Ordering::Relaxed),
                        Err(why) => {
                            let why = format!("{host}: {why}");
                            world.recorder.seen("load", Seen::RequestFailed { proxy, began, why });
                        }
                    }
                });
            }
            _ = count.tick() => {
                let requests = answered.swap(0, Ordering::Relaxed);
                world.recorder.seen("load", Seen::Answered { proxy: proxy.clone(), requests });
            }
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    while requests.join_next().await.is_some() {}
    Ok(())
}

async fn one(addr: SocketAddr, host: &str) -> Result<(), String> {
    let answer = http::get(addr, host, "/", TIMEOUT).await?;
    if answer.status() == 200 {
        return Ok(());
    }
    let reason = answer.headers().get("x-dovetail-error").and_then(|value| value.to_str().ok());
    Err(format!("status {} ({})", answer.status().as_u16(), reason.unwrap_or("no reason")))
}

/// Looks at the revision in force of one proxy, until the run ends.
pub(crate) async fn look(world: World, proxy: String, admin: SocketAddr) -> anyhow::Result<()> {
    let mut clock = tokio::time::interval(COUNT_EVERY / 2);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = None;
    while !world.stopped() {
        clock.tick().await;
        let Some(revision) = in_force(admin).await else { continue };
        // Each look that finds something else; the same again would only fill the history.
        if last.replace(revision) != Some(revision) {
            world.recorder.seen(&proxy, Seen::InForce { revision });
        }
    }
    Ok(())
}

async fn in_force(admin: SocketAddr) -> Option<u64> {
    let answer = http::get(admin, "localhost", "/metrics", COUNT_EVERY).await.ok()?;
    revision_of(&String::from_utf8_lossy(answer.body()))
}

/// 0 is a proxy that has just started and follows nobody yet.
fn revision_of(metrics: &str) -> Option<u64> {
    let line = metrics.lines().find(|line| line.starts_with(IN_FORCE))?;
    line.split_whitespace().last()?.parse().ok().filter(|revision| *revision > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_read_from_metrics() {
        let metrics = "# TYPE dovetail_feed_revision_in_force gauge\n\
                       dovetail_feed_revision_in_force 42\n";
        assert_eq!(revision_of(metrics), Some(42));
        assert_eq!(revision_of("dovetail_feed_revision_in_force 0\n"), None);
    }
}
