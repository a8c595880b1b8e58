//! The steps, in order. Each says what must hold, and fails by itself.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use dovetail_jepsen::cluster::Cluster;
use dovetail_jepsen::load::{Load, LoadConfig, Report};
use dovetail_jepsen::reached;
use dovetail_jepsen::status::Agreement;
use dovetail_jepsen::swarm::{
    NETWORK, ServiceConfig, Swarm, UPSTREAM_PORT, UpdateOrder, lb_labels,
};

use crate::screen::Screen;

const HOST: &str = "shop.example";
const BLUE_GREEN_HOST: &str = "blog.example";
const DEADLINE: Duration = Duration::from_secs(15);
/// Load goes on for so long after the last thing that could disturb it.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Lines of what an operator sees are cut here.
const LINE_WIDTH: usize = 150;

/// Tells the story; returns whether every step held.
pub(crate) async fn tell(
    screen: &Screen,
    cluster: &mut Cluster,
    swarm: &Swarm,
) -> anyhow::Result<bool> {
    let formed = screen.step("three members form a quorum", form(cluster)).await;
    if !formed {
        screen.block(&cluster.log_tails());
        screen.verdict();
        return Ok(false);
    }
    screen.step("a service is published: both proxies answer", publish(cluster, swarm)).await;
    screen.step("it is scaled from 2 to 4: all four answer", scale_up(cluster, swarm)).await;
    screen.step("port 99999 is a problem, the route is kept", bad_label(cluster, swarm)).await;
    screen.step("the leader is killed under load", kill_leader(cluster, swarm)).await;
    screen.step("the killed member is back, with equal state", come_back(cluster)).await;
    screen.step("an update rolls, stop-first, under load", rolling(cluster, swarm)).await;
    screen.step("blue to green and back by scale, under load", blue_green(cluster, swarm)).await;
    screen.step("all members are killed: the proxies go on", without_core(cluster)).await;
    screen.step("the members are back: same digest everywhere", all_back(cluster)).await;
    show(screen, cluster).await?;
    screen.verdict();
    Ok(screen.all_held())
}

async fn form(cluster: &mut Cluster) -> anyhow::Result<String> {
    cluster.start_all()?;
    let formed = reached(DEADLINE, || async { cluster.status().await?.agreement(3, 2) }).await;
    let agreed = match formed {
        Ok(agreed) => agreed,
        Err(unmet) => bail!("{unmet}"),
    };
    Ok(format!("member {} leads, both proxies follow", agreed.leader))
}

async fn publish(cluster: &Cluster, swarm: &Swarm) -> anyhow::Result<String> {
    let published = swarm.create(ServiceConfig::published("shop", HOST, 2)).await?;
    cluster.routed(HOST, DEADLINE).await?;
    Ok(format!("{} ms after the event", published.elapsed().as_millis()))
}

async fn scale_up(cluster: &Cluster, swarm: &Swarm) -> anyhow::Result<String> {
    swarm.scale("shop", 4).await?;
    let running = Instant::now();
    answered_by(cluster, HOST, &names(swarm, "shop")).await?;
    Ok(format!("{} ms after the last one ran", running.elapsed().as_millis()))
}

async fn bad_label(cluster: &Cluster, swarm: &Swarm) -> anyhow::Result<String> {
    let before = cluster.routes().await.map_err(anyhow::Error::msg)?;
    swarm.relabel("shop", lb_labels(&[("hosts", HOST), ("port", "99999")])).await?;
    let problem = reached(DEADLINE, || async {
        let problems = cluster.problems().await?;
        let found = problems.iter().find(|problem| problem.value == "99999").cloned();
        found.ok_or_else(|| format!("no problem names 99999 among {}", problems.len()))
    })
    .await?;
    let after = cluster.routes().await.map_err(anyhow::Error::msg)?;
    ensure!(before.routes == after.routes, "the routes changed: {before:?} to {after:?}");
    cluster.routed(HOST, DEADLINE).await?;
    let port = UPSTREAM_PORT.to_string();
    swarm
        .relabel("shop", lb_labels(&[("hosts", HOST), ("port", &port), ("network", NETWORK)]))
        .await?;
    reached(DEADLINE, || async {
        let problems = cluster.problems().await?;
        if problems.is_empty() { Ok(()) } else { Err(format!("still {problems:?}")) }
    })
    .await?;
    Ok(format!("{}: {} {:?}: {}", problem.service, problem.label, problem.value, problem.reason))
}

async fn kill_leader(cluster: &mut Cluster, swarm: &Swarm) -> anyhow::Result<String> {
    let killed = cluster.leader(DEADLINE).await?;
    let load = Load::start(LoadConfig::of(HOST, cluster.proxy_addrs()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.kill_member(killed);
    let death = Instant::now();
    // Created while nobody leads, so the next leader has to find it.
    let created = swarm.create(ServiceConfig::published("news", "news.example", 1)).await?;
    cluster.routed("news.example", DEADLINE).await?;
    let (routed, since_death) = (created.elapsed(), death.elapsed());
    let leader = cluster.leader(DEADLINE).await?;
    ensure!(leader != killed, "member {killed} still counts as leader");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let report = unharmed(load.finish().await)?;
    Ok(format!(
        "{report}; member {leader} leads; a service created meanwhile was routed after {:.2} s \
         ({:.2} s after the kill)",
        routed.as_secs_f64(),
        since_death.as_secs_f64()
    ))
}

async fn come_back(cluster: &mut Cluster) -> anyhow::Result<String> {
    cluster.start_all()?;
    let agreed = cluster.agreement(DEADLINE).await?;
    same_digest_everywhere(cluster, &agreed).await?;
    Ok(describe(&agreed))
}

async fn rolling(cluster: &Cluster, swarm: &Swarm) -> anyhow::Result<String> {
    let report = under_load(cluster, HOST, swarm.update("shop", UpdateOrder::StopFirst)).await?;
    answered_by(cluster, HOST, &names(swarm, "shop")).await?;
    Ok(report.to_string())
}

async fn blue_green(cluster: &Cluster, swarm: &Swarm) -> anyhow::Result<String> {
    swarm.create(ServiceConfig::published("blog-v1", BLUE_GREEN_HOST, 4)).await?;
    cluster.routed(BLUE_GREEN_HOST, DEADLINE).await?;
    let report = under_load(cluster, BLUE_GREEN_HOST, async {
        swarm.create(ServiceConfig::published("blog-v2", BLUE_GREEN_HOST, 1)).await?;
        swarm.scale("blog-v2", 4).await?;
        answered_by(cluster, BLUE_GREEN_HOST, &names(swarm, "blog-v2")).await?;
        swarm.scale("blog-v1", 0).await?;
        swarm.scale("blog-v1", 4).await?;
        answered_by(cluster, BLUE_GREEN_HOST, &names(swarm, "blog-v1")).await?;
        swarm.scale("blog-v2", 0).await
    })
    .await?;
    let green = report.by_upstream().keys().filter(|name| name.starts_with("blog-v2")).count();
    ensure!(green == 4, "{green} of 4 upstreams of v2 ever answered");
    Ok(report.to_string())
}

async fn without_core(cluster: &mut Cluster) -> anyhow::Result<String> {
    let load = Load::start(LoadConfig::of(HOST, [cluster.proxy_addr(1)]));
    for slot in cluster.slots() {
        cluster.kill_member(slot);
    }
    cluster.proxy(2)?.terminate();
    let ended = cluster.proxy_mut(2)?.end(DEADLINE).await.context("proxy 2 did not end")?;
    ensure!(ended.success(), "proxy 2 ended with {ended}");
    let restarted = Instant::now();
    cluster.start_proxy(2)?;
    let proxy = cluster.proxy_addr(2);
    reached(DEADLINE, || dovetail_jepsen::http::who_answers(proxy, HOST, "/")).await?;
    let served = restarted.elapsed();
    tokio::time::sleep(AFTERMATH).await;
    let report = unharmed(load.finish().await)?;
    Ok(format!(
        "{report}; a proxy restarted without any member served from its disk after {:.2} s",
        served.as_secs_f64()
    ))
}

async fn all_back(cluster: &mut Cluster) -> anyhow::Result<String> {
    cluster.start_all()?;
    let agreed = cluster.agreement(DEADLINE).await?;
    same_digest_everywhere(cluster, &agreed).await?;
    cluster.routed(HOST, DEADLINE).await?;
    Ok(describe(&agreed))
}

/// Carries out `work` under load, of which no request may fail.
async fn under_load<W>(cluster: &Cluster, host: &str, work: W) -> anyhow::Result<Report>
where
    W: Future<Output = anyhow::Result<()>>,
{
    let load = Load::start(LoadConfig::of(host, cluster.proxy_addrs()));
    work.await?;
    tokio::time::sleep(AFTERMATH).await;
    unharmed(load.finish().await)
}

fn unharmed(report: Report) -> anyhow::Result<Report> {
    report.verdict().map_err(anyhow::Error::msg)?;
    Ok(report)
}

fn names(swarm: &Swarm, service: &str) -> BTreeSet<String> {
    swarm.tasks(service).into_iter().map(|task| task.name).collect()
}

/// Waits until each of `names` has answered through every proxy.
async fn answered_by(
    cluster: &Cluster,
    host: &str,
    names: &BTreeSet<String>,
) -> anyhow::Result<()> {
    for proxy in cluster.proxy_addrs() {
        let mut seen = BTreeSet::new();
        let deadline = Instant::now() + DEADLINE;
        while !names.is_subset(&seen) {
            ensure!(Instant::now() < deadline, "{proxy}: {seen:?} answered, not all of {names:?}");
            let who = dovetail_jepsen::http::who_answers(proxy, host, "/").await;
            seen.insert(who.map_err(anyhow::Error::msg)?);
        }
    }
    Ok(())
}

/// Every member derives the same routes by itself.
async fn same_digest_everywhere(cluster: &Cluster, agreed: &Agreement) -> anyhow::Result<()> {
    for slot in cluster.slots() {
        let own = cluster.local_snapshots(slot).await.map_err(anyhow::Error::msg)?;
        ensure!(
            own == agreed.service_clusters,
            "member {slot} has {own:?}, agreed were {:?}",
            agreed.service_clusters
        );
    }
    Ok(())
}

fn describe(agreed: &Agreement) -> String {
    let default = agreed.service_clusters.get("");
    let (revision, digest) = default.map_or((0, ""), |(revision, digest)| (*revision, digest));
    let short = digest.get(..12).unwrap_or(digest);
    format!("revision {revision}, digest {short}… on 3 members and 2 proxies")
}

/// What an operator sees.
async fn show(screen: &Screen, cluster: &Cluster) -> anyhow::Result<()> {
    for verb in [&["status"][..], &["routes"], &["problems"], &["log", "show"]] {
        let done = cluster.dovetail(verb).await?;
        screen.line(&format!("\n$ dovetail {}", verb.join(" ")));
        let lines: Vec<&str> = done.stdout.lines().collect();
        // Of a long log the end is what was just told.
        let shown = lines.len().saturating_sub(16);
        let cut = |line: &&str| line.chars().take(LINE_WIDTH).collect::<String>();
        let lines: Vec<String> = lines.get(shown..).unwrap_or_default().iter().map(cut).collect();
        screen.block(&lines.join("\n"));
        if done.code != Some(0) {
            screen.block(&done.stderr);
        }
    }
    Ok(())
}

/// Addresses and commands, for whoever wants to see it with their own eyes.
pub(crate) fn where_to_look(screen: &Screen, cluster: &Cluster) {
    screen.line("\nWhere to look:");
    for proxy in cluster.proxy_addrs() {
        screen.block(&format!("curl -H 'Host: {HOST}' http://{proxy}/"));
    }
    for slot in cluster.slots() {
        let admin = cluster.member_admin_addr(slot);
        screen.block(&format!(
            "curl 'http://{admin}/readyz?verbose'      member {slot}; also /metrics"
        ));
    }
    let (core, tls) = (cluster.core(), cluster.operator_dir());
    let dovetail = cluster.executables().dovetail.display().to_string();
    screen.block(&format!("export DOVETAIL_CORE={core} DOVETAIL_TLS_DIR={}", tls.display()));
    for verb in ["status", "routes", "problems", "log show"] {
        screen.block(&format!("{dovetail} {verb}"));
    }
    screen.block(&format!("data and logs: {}", cluster.place().folder().display()));
}

/// Something to see in a demo that stays up.
pub(crate) async fn light_change(screen: &Screen, swarm: &Swarm) -> anyhow::Result<()> {
    screen
        .step("an update rolls over shop, start-first", async {
            swarm.update("shop", UpdateOrder::StartFirst).await?;
            Ok(String::new())
        })
        .await;
    Ok(())
}
