//! The end of a run: everything has to come back, and then stand at one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use dovetail_jepsen::checks::converged::REPLAY;
use dovetail_jepsen::history::{Answer, Op, Seen};
use dovetail_jepsen::reached;
use dovetail_jepsen::status::Agreement;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::faults::Field;
use crate::run::{WATCHERS, join};
use crate::{remarks, steps};

/// How long anything may take before the run counts as one that never recovered; the
/// checker's own bound is shorter.
const RECOVERS: Duration = Duration::from_secs(120);

/// Waits until it writes, ends the clients, waits until all agree, and looks at everybody.
pub(crate) async fn finish(
    field: &mut Field,
    stop: watch::Sender<bool>,
    clients: JoinSet<anyhow::Result<()>>,
    newest: &[Arc<AtomicU64>],
) -> anyhow::Result<()> {
    field.swarm.stand_in().heal();
    field.revive("at the end")?;
    field.world.recorder.seen("harness", Seen::Healed);
    let recovered = recover(field, stop, clients, newest).await;
    field.revive("after the end")?;
    let agreement = match recovered {
        Ok(agreement) => agreement,
        Err(error) => {
            // The checker of liveness says that this is no pass.
            field.world.recorder.note(format!("not recovered: {error:#}"));
            return Ok(());
        }
    };
    field.world.recorder.seen("harness", Seen::Recovered);
    remarks::read_all(&field.world).await?;
    steps::read_all(&field.world).await?;
    stand(field, &agreement).await
}

async fn recover(
    field: &mut Field,
    stop: watch::Sender<bool>,
    clients: JoinSet<anyhow::Result<()>>,
    newest: &[Arc<AtomicU64>],
) -> anyhow::Result<Agreement> {
    writes(field, "it writes again").await?;
    stop.send_replace(true);
    join(clients).await?;
    // A canary that goes on would change routes while everybody is looked at. There may be none.
    field.cluster.dovetail(&["canary", "clear", "--host", steps::HOST]).await?;
    writes(field, "the end").await?;
    let proxies = field.cluster.proxy_numbers().count() + usize::from(WATCHERS);
    let members = field.cluster.founders().count();
    let cluster = &field.cluster;
    let agreed = reached(RECOVERS, || async {
        let agreed = cluster.status().await?.agreement(members, proxies)?;
        let revision = agreed.service_clusters.get("").map_or(0, |(revision, _)| *revision);
        if newest.iter().any(|has| has.load(Ordering::Relaxed) != revision) {
            return Err(format!("watchers have not all come to revision {revision}"));
        }
        // What is on its way may still come: twice the same counts.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let again = cluster.status().await?.agreement(members, proxies)?;
        if again.service_clusters == agreed.service_clusters {
            return Ok(again);
        }
        Err("routes still change".to_owned())
    })
    .await;
    agreed.context("all members and proxies at one place")
}

/// Waits until an order is acknowledged.
async fn writes(field: &Field, text: &str) -> anyhow::Result<()> {
    let recorder = &field.world.recorder;
    let attempts = AtomicU64::new(0);
    let written = reached(RECOVERS, || async {
        // Each attempt is an operation of its own, under a request id of its own.
        let text = format!("{text}, {}", attempts.fetch_add(1, Ordering::Relaxed));
        let began = recorder.invoke("harness", "", Op::Annotate { text: text.clone() });
        let done = field.cluster.dovetail(&["-o", "json", "annotate", &text]).await;
        let done = done.map_err(|error| format!("{error:#}"))?;
        let told = serde_json::from_str::<serde_json::Value>(&done.stdout).unwrap_or_default();
        match (done.code, told["index"].as_u64()) {
            (Some(0), Some(index)) => {
                recorder.ok(began, Answer::Done { index, again: false });
                Ok(())
            }
            _ => {
                recorder.unknown(began, done.stderr.trim());
                Err(done.stderr)
            }
        }
    });
    written.await.context("an order is acknowledged")
}

/// Writes down where everybody stands, and where a replay of the ledger comes to.
async fn stand(field: &Field, agreement: &Agreement) -> anyhow::Result<()> {
    let (cluster, recorder) = (&field.cluster, &field.world.recorder);
    for slot in cluster.founders() {
        let service_clusters =
            cluster.local_snapshots(slot).await.map_err(anyhow::Error::msg)?.into_iter().collect();
        // All have applied what was agreed upon; what came since changed no route.
        let standing = Seen::Standing { index: agreement.index, service_clusters };
        recorder.seen(&format!("member-{slot}"), standing);
    }
    let status = cluster.status().await.map_err(anyhow::Error::msg)?;
    for proxy in status.proxies.iter().filter(|proxy| proxy.connected) {
        let at = (proxy.revision, proxy.digest.clone());
        let service_clusters = [(proxy.service_cluster.clone(), at)].into();
        recorder.seen(&proxy.name, Seen::Standing { index: 0, service_clusters });
    }
    let file = cluster.place().path("ledger.dovetail");
    let path = file.to_str().context("the folder's name is not UTF-8")?;
    let exported = cluster.dovetail(&["log", "export", path]).await?;
    ensure!(exported.code == Some(0), "log export: {}", exported.stderr);
    let replayed = cluster.dovetail(&["-o", "json", "replay", path]).await?;
    let told: serde_json::Value = serde_json::from_str(&replayed.stdout)
        .with_context(|| format!("replay: {}{}", replayed.stdout, replayed.stderr))?;
    if replayed.code != Some(0) || !told["divergence"].is_null() {
        // Without the replay's standing the history is no pass.
        recorder.note(format!("the replay diverges: {}", replayed.stdout));
        return Ok(());
    }
    let one = |cluster: &serde_json::Value| {
        let name = cluster["name"].as_str()?.to_owned();
        let digest = cluster["digest"].as_str()?.to_owned();
        Some((name, (cluster["revision"].as_u64()?, digest)))
    };
    let service_clusters = told["service_clusters"].as_array();
    let service_clusters = service_clusters.into_iter().flatten().filter_map(one).collect();
    let index = told["index"].as_u64().unwrap_or_default();
    recorder.seen(REPLAY, Seen::Standing { index, service_clusters });
    recorder
        .note(format!("replayed {} entries, {} checkpoints", told["entries"], told["checkpoints"]));
    Ok(())
}
