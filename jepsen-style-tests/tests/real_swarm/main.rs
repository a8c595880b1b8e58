//! The main job on a real Swarm: three managers on this machine, in namespaces.
//!
//! Everything is done as an operator does it: by the lines of `deploy/README.md`, by
//! `docker`, and by `dovetail`. Skipped, with the reason, where the lab cannot stand.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print what was measured"
)]

mod console;
mod lab;
mod readme;
mod secrets;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dovetail_jepsen::load::{Load, LoadConfig, Report};
use dovetail_jepsen::{eventually, http};

use console::Console;
use lab::{Deployment, Lab};

/// Each with a member and a proxy.
const NODES: usize = 3;
const WEB: &str = "web.example";
const SHOP: &str = "shop.example";
const SHOP_REPLICAS: usize = 4;
/// Long enough that each stop of a task finds requests in flight.
const PATH: &str = "/delay/50";
const REQUESTS_PER_SECOND: u32 = 100;
/// A request that is under way to a task that is cut off takes 3.5 s until its proxy
/// asks another, which may be cut off as well.
const REQUEST_DEADLINE: Duration = Duration::from_secs(20);
/// How long the partition lasts; Swarm calls a node down after as long.
const CUT: Duration = Duration::from_secs(15);
/// Swarm needs 30 to 50 s after a partition until its overlay reaches the node again.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(120);

/// What was done, with how long it took.
fn told(what: &str, since: Instant) {
    println!("real swarm: {what}: {:.1} s", since.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_swarm_is_routed_through_updates_and_a_partition() {
    if let Some(reason) = lab::lacking() {
        println!("skipped: no real Swarm on this machine: {reason}");
        return;
    }
    let whole = Instant::now();
    let begun = Instant::now();
    let lab = Lab::up().await;
    told("three managers up", begun);

    let deployment = from_a_clone_to_a_routed_service(&lab).await;
    let console = deployment.console(&lab);
    everything_follows(&console).await;
    two_replicas_answer_through_every_proxy(&lab).await;
    secrets::a_service_gets_its_certificate_from_a_secret(&lab).await;
    everything_follows(&console).await;
    an_update_fails_no_request(&lab, &console).await;
    a_partition_fails_no_request_elsewhere(&lab, &console).await;

    let begun = Instant::now();
    drop(lab);
    told("all down", begun);
    told("altogether", whole);
}

async fn from_a_clone_to_a_routed_service(lab: &Lab) -> Deployment {
    let begun = Instant::now();
    let deployment = Deployment::by_readme(lab).await;
    told("deploy/README.md, from images to the first answer", begun);
    deployment
}

/// Two replicas of the first service, and everybody who follows it.
async fn everything_follows(console: &Console) {
    let begun = Instant::now();
    eventually(Duration::from_secs(60), || async {
        console.has_upstreams(WEB, 2).await?;
        console.all_follow(NODES).await
    })
    .await;
    told("members and proxies at one revision", begun);
}

/// The proxy of a node, counted from 1.
fn proxy(lab: &Lab, node: usize) -> SocketAddr {
    SocketAddr::new(lab.address(node), 80)
}

async fn two_replicas_answer_through_every_proxy(lab: &Lab) {
    for proxy in (1..=NODES).map(|node| proxy(lab, node)) {
        let mut names = BTreeSet::new();
        for _ in 0..8 {
            names.insert(http::who_answers(proxy, WEB, "/").await.unwrap());
        }
        assert_eq!(names.len(), 2, "through {proxy}: {names:?}");
    }
    let unknown = http::get(proxy(lab, 1), "nobody.example", "/", Duration::from_secs(5)).await;
    assert_eq!(unknown.unwrap().status().as_u16(), 503, "an unknown host");
}

/// The tasks that answer for the shop now.
async fn shop_tasks(lab: &Lab) -> BTreeSet<String> {
    let format = "{{.Name}}.{{.ID}}";
    let args = ["service", "ps", "--no-trunc", "--format", format];
    let filter = ["--filter", "desired-state=running", "shop"];
    let listed = lab.docker(1, &[&args[..], &filter[..]].concat()).await.unwrap();
    listed.lines().map(str::to_owned).collect()
}

async fn an_update_fails_no_request(lab: &Lab, console: &Console) {
    let begun = Instant::now();
    let replicas = SHOP_REPLICAS.to_string();
    let create = ["service", "create", "--no-resolve-image", "--name", "shop"];
    let host = format!("com.docker.lb.hosts={SHOP}");
    let options = [
        "--replicas",
        &replicas,
        "--network",
        "dovetail-apps",
        "--hostname",
        "{{.Task.Name}}",
        "--label",
        &host,
        "--label",
        "com.docker.lb.port=8080",
        "--update-monitor",
        "1s",
        "dovetail-app:dev",
    ];
    lab.docker(1, &[&create[..], &options[..]].concat()).await.unwrap();
    eventually(Duration::from_secs(30), || console.has_upstreams(SHOP, SHOP_REPLICAS)).await;
    told("a service with four replicas, created and routed", begun);

    for order in ["stop-first", "start-first"] {
        let before = shop_tasks(lab).await;
        let load = load(lab, &[1, 2, 3]);
        let begun = Instant::now();
        let update = ["service", "update", "--force", "--no-resolve-image", "--update-order"];
        lab.docker(1, &[&update[..], &[order, "shop"]].concat()).await.unwrap();
        eventually(Duration::from_secs(30), || console.has_upstreams(SHOP, SHOP_REPLICAS)).await;
        told(&format!("update of four replicas, {order}"), begun);
        let report = finish(load, order).await;
        let after = shop_tasks(lab).await;
        assert!(before.is_disjoint(&after), "{order}: not every task was replaced: {after:?}");
        assert!(report.by_upstream().len() > SHOP_REPLICAS, "{order}: no new task answered");
    }
}

/// The manager whose member leads, so that the core has to elect as well.
async fn a_partition_fails_no_request_elsewhere(lab: &Lab, console: &Console) {
    let cut = usize::try_from(console.leader().await.unwrap()).unwrap();
    println!("real swarm: cutting node {cut} off, whose member leads");
    let others: Vec<usize> = (1..=NODES).filter(|node| *node != cut).collect();
    let load = load(lab, &others);
    let begun = Instant::now();
    lab.cut(cut).await;
    // Something to catch up on. Swarm has to elect a leader of its own if it was cut off too.
    let scale = ["service", "scale", "--detach", "web=3"];
    let scaled = eventually(CAUGHT_UP_WITHIN, || lab.docker(others[0], &scale));
    let (_, healed) = tokio::join!(scaled, async {
        tokio::time::sleep_until((begun + CUT).into()).await;
        lab.heal(cut).await;
        told("the partition", begun);
        Instant::now()
    });
    eventually(CAUGHT_UP_WITHIN, || async {
        console.has_upstreams(WEB, 3).await?;
        let agreed = console.all_follow(NODES).await?;
        console.each_member_has(&agreed).await
    })
    .await;
    told("members and proxies at one revision, after the heal", healed);
    eventually(CAUGHT_UP_WITHIN, || async {
        http::who_answers(proxy(lab, cut), SHOP, "/").await.map(drop)
    })
    .await;
    told("the shop is reached through the cut node too, after the heal", healed);
    finish(load, "the partition").await;
}

/// Load on the shop through the proxies of some nodes.
fn load(lab: &Lab, nodes: &[usize]) -> Load {
    let config = LoadConfig::of(SHOP, nodes.iter().map(|node| proxy(lab, *node)));
    Load::start(LoadConfig {
        path: PATH.to_owned(),
        requests_per_second: REQUESTS_PER_SECOND,
        timeout: REQUEST_DEADLINE,
        ..config
    })
}

async fn finish(load: Load, during: &str) -> Report {
    let report = load.finish().await;
    println!("real swarm: load during {during}: {report}");
    if let Err(failures) = report.verdict() {
        panic!("during {during}: {failures}");
    }
    report
}
