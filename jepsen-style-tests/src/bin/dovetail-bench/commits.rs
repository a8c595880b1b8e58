//! How many commands and linearizable reads a second a quorum answers, and how soon.

use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::target::{Target, Work};

/// Of what a command carries, in bytes.
const TEXT_BYTES: usize = 128;
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// One measurement of writes or reads.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Commits {
    pub(crate) target: &'static str,
    pub(crate) work: &'static str,
    pub(crate) clients: usize,
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
    /// What one of the failures said.
    pub(crate) failure: Option<String>,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) worst_ms: f64,
    /// CPU of all three members together, per acknowledged command.
    pub(crate) cpu_us_per_command: f64,
}

/// `clients` write one after the other each, over `channels` connections to the leader.
pub(crate) async fn measure(
    target: &mut Target,
    work: Work,
    clients: usize,
    channels: usize,
    lasting: Duration,
) -> anyhow::Result<Commits> {
    let leader = target.leader().await?;
    let writers = (0..channels.clamp(1, clients))
        .map(|_| target.writer(leader))
        .collect::<anyhow::Result<Vec<_>>>()?;
    // Connections are made, and the path is warm, before the clock starts.
    for writer in &writers {
        let warm = writer.clone().write(0, "warm", WRITE_TIMEOUT).await;
        ensure!(warm.is_ok(), "{}: {warm:?}", target.name());
    }
    let cpu_before = target.cpu();
    let started = Instant::now();
    let ends = started + lasting;
    let mut jobs = JoinSet::new();
    for (client, writer) in (0..clients).zip(writers.iter().cycle()) {
        let mut writer = writer.clone();
        jobs.spawn(async move {
            let text = "x".repeat(TEXT_BYTES);
            let (mut latencies, mut failed, mut failure) = (Vec::new(), 0u64, None);
            while Instant::now() < ends {
                let begun = Instant::now();
                match writer.work(work, client, &text, WRITE_TIMEOUT).await {
                    Ok(()) => latencies.push(begun.elapsed()),
                    Err(reason) => {
                        failed += 1;
                        failure = Some(reason);
                    }
                }
            }
            (latencies, failed, failure)
        });
    }
    let mut histogram = Histogram::<u64>::new(3)?;
    let (mut failed, mut failure) = (0, None);
    while let Some(outcome) = jobs.join_next().await {
        let (latencies, failures, reason) = outcome?;
        failure = failure.or(reason);
        failed += failures;
        for latency in latencies {
            histogram.record(u64::try_from(latency.as_micros())?)?;
        }
    }
    let lasted = started.elapsed();
    let cpu = target.cpu().saturating_sub(cpu_before);
    let acknowledged = histogram.len();
    ensure!(acknowledged > 0, "{}: nothing was acknowledged", target.name());
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Commits {
        target: target.name(),
        work: work.name(),
        clients,
        acknowledged,
        failed,
        failure,
        per_second: acknowledged as f64 / lasted.as_secs_f64(),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        worst_ms: ms(1.0),
        cpu_us_per_command: cpu.as_micros() as f64 / acknowledged as f64,
    })
}
