//! What an operator orders, on real processes, under load and with the leader killed in the
//! middle: a share is that share, a canary that fails is taken back by itself, and the
//! routes of before come back.

use std::time::{Duration, Instant};

use dovetail_jepsen::eventually;
use dovetail_jepsen::load::{Load, LoadConfig, Report};
use dovetail_jepsen::supervisor::Finished;
use dovetail_jepsen::swarm::ServiceConfig;
use serde_json::Value;

use crate::fixture::{DEADLINE, System, unharmed};

const HOST: &str = "shop.example";
/// How long 20,000 requests may take.
const LOAD_DEADLINE: Duration = Duration::from_secs(120);
/// How often the plan of a canary looks.
const INTERVAL: Duration = Duration::from_secs(2);

async fn run(system: &System, verb: &[&str]) -> Finished {
    let json = [&["-o", "json"], verb].concat();
    system.cluster.dovetail(&json).await.unwrap()
}

/// `dovetail -o json VERB…`, which ends with 0 and prints one value.
async fn ask(system: &System, verb: &[&str]) -> Value {
    let done = run(system, verb).await;
    assert_eq!(done.code, Some(0), "{verb:?}: {done:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

/// Two versions with two tasks each on one host.
async fn start() -> System {
    let system = System::start().await;
    for name in ["shop_v1", "shop_v2"] {
        system.swarm.create(ServiceConfig::published(name, HOST, 2)).await.unwrap();
    }
    weights(&system, [5_000, 5_000]).await;
    system
}

/// Waits until the two versions have these shares, and every proxy has them in force.
async fn weights(system: &System, wanted: [u64; 2]) {
    eventually(DEADLINE, || async {
        let routes = system.cluster.routes().await?;
        let status = system.cluster.status().await?;
        let route = routes.routes.iter().find(|route| route.host == HOST).ok_or("no route")?;
        let named = |name: &str| route.services.iter().find(|service| service.name == name);
        let weight = |name| named(name).map_or(0, |service| u64::from(service.weight));
        let seen = [weight("shop_v1"), weight("shop_v2")];
        let behind = status.proxies.iter().filter(|proxy| proxy.revision != routes.revision);
        match (seen == wanted, behind.count()) {
            (true, 0) => Ok(()),
            (true, behind) => Err(format!("{behind} proxies are behind")),
            _ => Err(format!("{seen:?}, not {wanted:?}")),
        }
    })
    .await;
}

/// How many answers came from tasks of a service.
fn answers_of(system: &System, report: &Report, service: &str) -> u64 {
    let tasks = system.swarm.tasks(service);
    let by_upstream = report.by_upstream();
    tasks.iter().filter_map(|task| by_upstream.get(task.name.as_str())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenth_of_the_requests_is_a_tenth() {
    let mut system = start().await;
    let shares = ["--service", "shop_v1=9000", "--service", "shop_v2=1000"];
    ask(&system, &[&["canary", "set", "--host", HOST], &shares[..]].concat()).await;
    weights(&system, [9_000, 1_000]).await;
    let proxies = system.cluster.proxy_addrs();
    let load =
        Load::start(LoadConfig { requests_per_second: 1_000, ..LoadConfig::of(HOST, proxies) });
    load.until_sent(8_000, LOAD_DEADLINE).await.unwrap();
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    system.cluster.kill_member(leader);
    load.until_sent(20_000, LOAD_DEADLINE).await.unwrap();
    let report = unharmed(load, "a canary of 10 %, the leader killed").await;
    let [v1, v2] = ["shop_v1", "shop_v2"].map(|name| answers_of(&system, &report, name));
    println!("{v2} of {} requests by the canary", v1 + v2);
    assert_eq!(v1 + v2, report.sent());
    // One percentage point to either side.
    assert!((v2 * 100).abs_diff((v1 + v2) * 10) <= v1 + v2, "{v2} of {}", v1 + v2);
    system.cluster.start_member(leader).unwrap();
    system.same_digest_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_is_taken_back_and_the_log_says_why() {
    let mut system = start().await;
    let all = ["--service", "shop_v1=10000", "--service", "shop_v2=0"];
    ask(&system, &[&["canary", "set", "--host", HOST], &all[..]].concat()).await;
    weights(&system, [10_000, 0]).await;
    let load = system.load(HOST);
    let interval = format!("{}s", INTERVAL.as_secs());
    let plan = [
        ["--from", "shop_v1"],
        ["--to", "shop_v2"],
        ["--steps", "1000,4000,10000"],
        ["--interval", &interval],
        ["--max-error-rate", "5%"],
        ["--min-requests", "20"],
    ];
    ask(&system, &[&["canary", "start", "--host", HOST], plan.as_flattened()].concat()).await;
    weights(&system, [9_000, 1_000]).await;
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    system.cluster.kill_member(leader);
    println!("the leader was killed in the first step");
    weights(&system, [6_000, 4_000]).await;
    let before = load.so_far();
    assert_eq!(before.failed(), 0, "{before}");

    for task in system.swarm.tasks("shop_v2") {
        system.swarm.set_status(&task, Some(500));
    }
    let broken = Instant::now();
    weights(&system, [10_000, 0]).await;
    let after = broken.elapsed();
    println!("errors were injected, and the canary was aborted after {after:?}");
    // The figures are told every second, and one look more may be under way.
    assert!(after < INTERVAL + Duration::from_secs(2), "{after:?}");
    load.finish().await;
    let shown = ask(&system, &["canary", "show", "--host", HOST]).await;
    assert_eq!(shown["run"]["state"], "aborted", "{shown}");

    let log = run(&system, &["log", "show", "--limit", "100000"]).await;
    let entries = log.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<_> = entries.filter(|entry| entry["kind"] == "command").collect();
    let aborted = told.last().unwrap()["summary"].as_str().unwrap().to_owned();
    println!("{aborted}");
    for figure in ["abort", "shop.example", "requests failed", "proxy-1", "proxy-2"] {
        assert!(aborted.contains(figure), "{figure:?} in {aborted:?}");
    }
    system.cluster.start_member(leader).unwrap();
    system.same_digest_everywhere().await;
}

/// The digest of the routes' intent, and their index.
async fn intent(system: &System) -> (String, u64) {
    let shown = ask(system, &["routes", "--intent"]).await;
    let index = system.cluster.status().await.unwrap().index;
    (shown["digest"].as_str().unwrap().to_owned(), index)
}

/// Waits until the intent has this digest, or another one.
async fn intent_is(system: &System, digest: &str, wanted: bool) {
    eventually(DEADLINE, || async {
        let shown = run(system, &["routes", "--intent"]).await;
        let shown: Value = serde_json::from_str(&shown.stdout).map_err(|_| shown.stderr)?;
        let same = shown["digest"] == digest;
        if same == wanted { Ok(()) } else { Err(format!("{shown}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_brings_the_routes_of_before_and_a_release_those_of_swarm() {
    let mut system = System::start_with_shop(2).await;
    let load = system.load(HOST);
    let (before, at) = intent(&system).await;
    let mut labels = ServiceConfig::published("shop", HOST, 2).labels;
    labels.insert("com.docker.lb.sticky_session_cookie".to_owned(), "session".to_owned());
    labels.insert("com.docker.lb.hosts".to_owned(), format!("{HOST},new.example"));
    system.swarm.relabel("shop", labels).await.unwrap();
    system.cluster.routed("new.example", DEADLINE).await.unwrap();
    intent_is(&system, &before, false).await;
    let (swarms, _) = intent(&system).await;

    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    let to = at.to_string();
    let back = ["rollback", "--to", &to, "--host", HOST, "--for", "1h"];
    let done = ask(&system, &back).await;
    assert_eq!(done["applied"], "changed", "{done}");
    system.cluster.kill_member(leader);
    // The host that came later stays, so it is looked at this one alone.
    let route = |shown: &Value| {
        let routes = shown["routes"].as_array().unwrap();
        routes.iter().find(|route| route["host"] == HOST).unwrap().clone()
    };
    let then = ask(&system, &["routes", "--intent", "--at", &to]).await;
    let now = ask(&system, &["routes", "--intent"]).await;
    assert_eq!(route(&then)["options"], route(&now)["options"], "{then} {now}");
    system.cluster.routed("new.example", DEADLINE).await.unwrap();
    ask(&system, &["release"]).await;
    intent_is(&system, &swarms, true).await;

    // Of everything: then later routes are all that differs, and here there is none.
    system.swarm.relabel("shop", ServiceConfig::published("shop", HOST, 2).labels).await.unwrap();
    intent_is(&system, &before, true).await;
    unharmed(load, "rolled back and released, the leader killed").await;
    system.cluster.start_member(leader).unwrap();
    system.same_digest_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_makes_no_sense_is_refused_and_says_what_to_do() {
    let system = start().await;
    let status = system.cluster.status().await.unwrap();
    let routes = system.cluster.routes().await.unwrap();
    let set = |shares: [&'static str; 2]| {
        let shares = shares.into_iter().flat_map(|share| ["--service", share]);
        ["canary", "set", "--host", HOST].into_iter().chain(shares).collect::<Vec<_>>()
    };
    let steps = |steps: &'static str| {
        let plan = ["--from", "shop_v1", "--to", "shop_v2", "--interval", "1m", "--steps", steps];
        ["canary", "start", "--host", HOST].into_iter().chain(plan).collect::<Vec<_>>()
    };
    let long = "x".repeat(5_000);
    let future = (status.index + 1_000).to_string();
    for (verb, said) in [
        (set(["shop_v1=9000", "shop_v2=2000"]), "they must sum to 10000"),
        (set(["shop_v1=9000", "shop_v3=1000"]), "on it are shop_v1, shop_v2"),
        (vec!["canary", "promote", "--host", "no.example", "--service", "shop_v1"], "no route"),
        (steps("500,500,10000"), "the steps must rise"),
        (vec!["canary", "pause", "--host", HOST], "no canary was started"),
        (vec!["canary", "clear", "--host", HOST], "nothing to clear"),
        (vec!["rollback", "--to", &future], "is in the future"),
        (vec!["drain", "192.0.2.1:80"], "192.0.2.1:80"),
        (vec!["undrain", "--service", "shop_v1"], "shop_v1"),
        (vec!["release"], "nothing to release"),
        (vec!["annotate", &long], "at most 4096"),
        (vec!["member", "promote", "9"], "9"),
    ] {
        let done = run(&system, &verb).await;
        println!("{}: {}", verb[0], done.stderr.trim());
        assert_eq!(done.code, Some(3), "{verb:?}: {done:?}");
        assert!(done.stderr.contains(said), "{said:?} in {:?}", done.stderr);
    }
    // One of a route's services, and then the other: that would leave it without an upstream.
    ask(&system, &["drain", "--service", "shop_v1"]).await;
    let last = run(&system, &["drain", "--service", "shop_v2"]).await;
    assert_eq!(last.code, Some(3), "{last:?}");
    assert!(
        last.stderr.contains("shop.example") && last.stderr.contains("or force it"),
        "{last:?}"
    );
    ask(&system, &["undrain", "--service", "shop_v1"]).await;
    let after = system.cluster.routes().await.unwrap();
    assert_eq!(after.routes, routes.routes, "nothing of this changed a route");
}
