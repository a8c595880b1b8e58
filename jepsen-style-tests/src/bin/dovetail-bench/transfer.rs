//! How long nothing is acknowledged when the leader hands over as planned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::target::Target;

/// One client at each member writes as fast as it is answered.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Before the transfer, and after it.
const AROUND: Duration = Duration::from_millis(500);
/// A refusal is an answer; the client asks again after this.
const PAUSE: Duration = Duration::from_millis(1);

/// Planned transfers of leadership, one after the other.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Transfers {
    pub(crate) target: &'static str,
    pub(crate) transfers: usize,
    pub(crate) median_ms: f64,
    pub(crate) worst_ms: f64,
    pub(crate) each_ms: Vec<f64>,
}

/// Transfers leadership `transfers` times.
pub(crate) async fn measure(target: &mut Target, transfers: usize) -> anyhow::Result<Transfers> {
    let mut each = Vec::new();
    for _ in 0..transfers {
        each.push(transfer(target).await?);
    }
    let mut sorted = each.clone();
    sorted.sort();
    let ms = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    Ok(Transfers {
        target: target.name(),
        transfers,
        median_ms: sorted.get(sorted.len() / 2).copied().map_or(0.0, ms),
        worst_ms: sorted.last().copied().map_or(0.0, ms),
        each_ms: each.into_iter().map(ms).collect(),
    })
}

/// The longest time without an acknowledged write around one transfer.
async fn transfer(target: &mut Target) -> anyhow::Result<Duration> {
    let leader = target.leader().await?;
    let slots = target.slots();
    let ended = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for slot in &slots {
        let (mut writer, ended) = (target.writer(*slot)?, ended.clone());
        clients.spawn(async move {
            let mut acknowledged = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                match writer.write(0, "transfer", WRITE_TIMEOUT).await {
                    Ok(()) => acknowledged.push(Instant::now()),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
            acknowledged
        });
    }
    tokio::time::sleep(AROUND).await;
    let to = slots.iter().find(|slot| **slot != leader).copied().unwrap_or(leader);
    let begun = Instant::now();
    target.transfer(to).await?;
    tokio::time::sleep(AROUND).await;
    ended.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    while let Some(of_client) = clients.join_next().await {
        acknowledged.extend(of_client?);
    }
    acknowledged.sort();
    let last_before = acknowledged.partition_point(|at| *at < begun).saturating_sub(1);
    let around = acknowledged.get(last_before..).unwrap_or_default();
    ensure!(around.len() > 1, "{}: nothing was acknowledged", target.name());
    let gaps = around.windows(2).map(|pair| pair[1] - pair[0]);
    Ok(gaps.max().unwrap_or_default())
}
