//! How long nothing is acknowledged after the leader is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::target::Target;

/// Every surviving member is asked this often, whether or not it has answered.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// The client's patience with one request.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
const NOT_YET: u64 = u64::MAX;

/// Kills of the leader, one after the other.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failovers {
    pub(crate) target: &'static str,
    pub(crate) kills: usize,
    pub(crate) median_ms: f64,
    pub(crate) worst_ms: f64,
    /// The longest that one client waited for an answer, good or bad.
    pub(crate) longest_hang_ms: f64,
    pub(crate) each_ms: Vec<f64>,
}

/// Kills the leader `kills` times; each time all are back before the next.
pub(crate) async fn measure(target: &mut Target, kills: usize) -> anyhow::Result<Failovers> {
    let mut each = Vec::new();
    let mut hang = Duration::ZERO;
    for _ in 0..kills {
        let (gap, longest) = kill_leader(target).await?;
        each.push(gap);
        hang = hang.max(longest);
    }
    let mut sorted = each.clone();
    sorted.sort();
    let ms = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    Ok(Failovers {
        target: target.name(),
        kills,
        median_ms: sorted.get(sorted.len() / 2).copied().map_or(0.0, ms),
        worst_ms: sorted.last().copied().map_or(0.0, ms),
        longest_hang_ms: ms(hang),
        each_ms: each.into_iter().map(ms).collect(),
    })
}

async fn kill_leader(target: &mut Target) -> anyhow::Result<(Duration, Duration)> {
    let leader = target.leader().await?;
    let survivors: Vec<u8> = target.slots().into_iter().filter(|slot| *slot != leader).collect();
    let writers =
        survivors.iter().map(|slot| target.writer(*slot)).collect::<anyhow::Result<Vec<_>>>()?;
    for writer in &writers {
        // Connected beforehand; a follower of ours refuses, which is an answer.
        drop(writer.clone().write(0, "warm", WRITE_TIMEOUT).await);
    }
    target.kill(leader)?;
    let killed = Instant::now();
    let first_us = Arc::new(AtomicU64::new(NOT_YET));
    let mut asked = JoinSet::new();
    let mut clock = tokio::time::interval(ASK_EVERY);
    while first_us.load(Ordering::Acquire) == NOT_YET && killed.elapsed() < WRITE_TIMEOUT {
        clock.tick().await;
        for writer in &writers {
            let (mut writer, first_us) = (writer.clone(), first_us.clone());
            asked.spawn(async move {
                let sent = Instant::now();
                if writer.write(0, "failover", WRITE_TIMEOUT).await.is_ok() {
                    let gap = u64::try_from(killed.elapsed().as_micros()).unwrap_or(NOT_YET - 1);
                    first_us.fetch_min(gap, Ordering::AcqRel);
                }
                sent.elapsed()
            });
        }
    }
    let mut longest = Duration::ZERO;
    while let Some(waited) = asked.join_next().await {
        longest = longest.max(waited?);
    }
    let first_us = first_us.load(Ordering::Acquire);
    ensure!(first_us != NOT_YET, "{}: no write within {WRITE_TIMEOUT:?} of a kill", target.name());
    target.bring_back(leader).await.context("the killed member back")?;
    Ok((Duration::from_micros(first_us), longest))
}
