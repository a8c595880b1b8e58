//! A large swarm: how soon members serve again after all were killed, and what they hold.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use dovetail_jepsen::cluster::{Cluster, ClusterConfig};
use dovetail_jepsen::operator::Operator;
use dovetail_jepsen::{http, reached};
use dovetail_proto::v1 as pb;
use dovetail_stand_in::{Options, ServiceSpec, StandIn, Timing};
use serde::Serialize;

const TAKEN_DEADLINE: Duration = Duration::from_secs(600);
const BACK_DEADLINE: Duration = Duration::from_secs(60);
/// With one member's answer, after which the next one is asked.
const PATIENCE: Duration = Duration::from_millis(200);

/// Figures of a swarm of some size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Size {
    pub(crate) services: usize,
    pub(crate) tasks: usize,
    /// From the members' start to all facts applied on all of them.
    pub(crate) taken_s: f64,
    pub(crate) leader_mib: f64,
    /// From the start of all members to the first linearizable answer.
    pub(crate) answers_ms: f64,
    /// The same to all of them being ready.
    pub(crate) ready_ms: f64,
}

/// Starts three members over a stand-in with so many services, each of ten tasks.
pub(crate) async fn measure(services: usize) -> anyhow::Result<Size> {
    let mut cluster =
        Cluster::prepare(ClusterConfig { proxies: 0, ..ClusterConfig::default() }).await?;
    let options = Options {
        tcp: Some(cluster.stand_in_addr()),
        nodes: 3,
        timing: Timing { start: Some(Duration::ZERO), stop: None },
        ..Options::default()
    };
    let stand_in = StandIn::start(options).await.context("start the stand-in for Docker")?;
    let spec = |number| {
        ServiceSpec::new(&format!("s{number}"))
            .label("com.docker.lb.hosts", &format!("s{number}.example"))
            .label("com.docker.lb.port", "8080")
            .replicas(10)
    };
    stand_in.create_services((0..services).map(spec))?;
    let tasks = services * 10;
    let operator = Operator::load(&cluster.operator_dir())?;
    let started = Instant::now();
    cluster.start_all()?;
    let leader = cluster.leader(BACK_DEADLINE).await?;
    let mut client = operator.admin(&cluster.member_addr(leader).to_string())?;
    let last = format!("s{}.example", services - 1);
    reached(TAKEN_DEADLINE, || {
        let mut client = client.clone();
        let url = format!("http://{last}/");
        async move {
            let request = pb::ExplainRequest {
                method: "GET".to_owned(),
                url,
                ..pb::ExplainRequest::default()
            };
            let answer =
                client.explain(request).await.map_err(|status| status.message().to_owned())?;
            let services = answer.into_inner().route.map(|route| route.services);
            let upstreams: usize =
                services.iter().flatten().map(|service| service.upstreams.len()).sum();
            if upstreams == 10 { Ok(()) } else { Err(format!("{upstreams} upstreams")) }
        }
    })
    .await?;
    cluster.agreement(BACK_DEADLINE).await?;
    let taken = started.elapsed();
    let leader_bytes = cluster.member(leader)?.resident_bytes();
    // What a restart finds is a raft snapshot and a short log, as after a day.
    client.backup(pb::BackupRequest::default()).await?;

    for slot in cluster.slots() {
        cluster.kill_member(slot);
    }
    let started = Instant::now();
    for slot in cluster.slots() {
        cluster.start_member(slot)?;
    }
    let mut clients = Vec::new();
    for slot in cluster.slots() {
        clients.push(operator.admin(&cluster.member_addr(slot).to_string())?);
    }
    reached(BACK_DEADLINE, || {
        let clients = clients.clone();
        async move {
            let mut last = String::new();
            for mut client in clients {
                let read = client.drains(pb::DrainsRequest::default());
                match tokio::time::timeout(PATIENCE, read).await {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(status)) => last = status.message().to_owned(),
                    Err(_) => last = format!("no answer within {PATIENCE:?}"),
                }
            }
            Err(last)
        }
    })
    .await?;
    let answers = started.elapsed();
    for slot in cluster.slots() {
        let admin = cluster.member_admin_addr(slot);
        reached(BACK_DEADLINE, || async {
            let ready = http::get(admin, "localhost", "/readyz", Duration::from_secs(2)).await;
            match ready.map(|answer| answer.status()) {
                Ok(status) if status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    }
    let ready = started.elapsed();
    stand_in.stop().await;
    Ok(Size {
        services,
        tasks,
        taken_s: taken.as_secs_f64(),
        leader_mib: leader_bytes as f64 / (1_024.0 * 1_024.0),
        answers_ms: answers.as_secs_f64() * 1_000.0,
        ready_ms: ready.as_secs_f64() * 1_000.0,
    })
}
