//! A bad change takes down no good route, and is named.

use std::collections::BTreeMap;

use dovetail_jepsen::status::{Problem, Route};
use dovetail_jepsen::swarm::{ServiceConfig, lb_labels};

use crate::fixture::{DEADLINE, System};

/// A service with something wrong, and what its problem must name.
struct Bad {
    name: &'static str,
    labels: BTreeMap<String, String>,
    label: &'static str,
    /// A part of the value as shown.
    value: &'static str,
}

fn table() -> Vec<Bad> {
    let bad = |name, labels: &[(&str, &str)], label, value| Bad {
        name,
        labels: lb_labels(labels),
        label,
        value,
    };
    let hosts: Vec<String> = (0..1_001).map(|host| format!("h{host}.example")).collect();
    vec![
        bad("without-port", &[("hosts", "a.example")], "com.docker.lb.port", ""),
        bad("port-0", &[("hosts", "b.example"), ("port", "0")], "com.docker.lb.port", "0"),
        bad(
            "port-99999",
            &[("hosts", "c.example"), ("port", "99999")],
            "com.docker.lb.port",
            "99999",
        ),
        bad(
            "unusable-host",
            &[("hosts", "not a host!"), ("port", "8080")],
            "com.docker.lb.hosts",
            "not a host!",
        ),
        bad(
            "label-of-100-kb",
            &[("hosts", &"x".repeat(100_000)), ("port", "8080")],
            "com.docker.lb.hosts",
            "",
        ),
        bad(
            "1001-hosts",
            &[("hosts", &hosts.join(",")), ("port", "8080")],
            "com.docker.lb.hosts",
            "",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_service_is_a_problem_and_all_other_routes_stay() {
    let system = System::start_with_shop(2).await;
    system.publish("blog", "blog.example", 1).await;
    let good: Vec<Route> = system.cluster.routes().await.unwrap().routes;
    for bad in table() {
        let config =
            ServiceConfig { labels: bad.labels, ..ServiceConfig::published(bad.name, "", 1) };
        system.swarm.create(config).await.unwrap();
        let problem = system
            .problems(|problems| {
                let found = problems.iter().find(|problem| problem.service == bad.name);
                found.cloned().ok_or_else(|| format!("no problem of {} in {problems:?}", bad.name))
            })
            .await;
        println!("{}", line(&problem));
        assert_eq!(problem.label, bad.label, "{problem:?}");
        assert!(problem.value.contains(bad.value), "{problem:?}");
        assert!(problem.value.len() <= 1_024, "{} bytes of value", problem.value.len());
        assert!(!problem.reason.is_empty() && problem.since_index > 0, "{problem:?}");
        assert_eq!(system.cluster.routes().await.unwrap().routes, good, "{}", bad.name);
        system.cluster.routed("shop.example", DEADLINE).await.unwrap();
    }
    system.same_digest_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_turns_bad_keeps_its_route() {
    let system = System::start_with_shop(2).await;
    let good: Vec<Route> = system.cluster.routes().await.unwrap().routes;
    for (labels, value) in [
        (lb_labels(&[("hosts", "shop.example"), ("port", "99999")]), "99999"),
        (lb_labels(&[("hosts", "shop example"), ("port", "8080")]), "shop example"),
    ] {
        system.swarm.relabel("shop", labels).await.unwrap();
        system
            .problems(|problems| {
                let found = problems.iter().any(|problem| problem.value.contains(value));
                if found { Ok(()) } else { Err(format!("{problems:?}")) }
            })
            .await;
        assert_eq!(system.cluster.routes().await.unwrap().routes, good, "{value}");
        system.cluster.routed("shop.example", DEADLINE).await.unwrap();
    }
    let good = ServiceConfig::published("shop", "shop.example", 2).labels;
    system.swarm.relabel("shop", good).await.unwrap();
    system
        .problems(
            |problems| {
                if problems.is_empty() { Ok(()) } else { Err(format!("{problems:?}")) }
            },
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_services_with_one_host_the_incumbents_options_are_in_force() {
    let system = System::start_with_shop(1).await;
    let labels = [("hosts", "shop.example"), ("port", "8080"), ("network", "demo")];
    let rival = [&labels[..], &[("context_root", "/"), ("sticky_session_cookie", "session")]];
    let rival = ServiceConfig::labelled("rival", 1, &rival.concat());
    system.swarm.create(rival).await.unwrap();
    let problem = system
        .problems(|problems| {
            let found = problems.iter().find(|problem| problem.service == "rival");
            found.cloned().ok_or_else(|| format!("{problems:?}"))
        })
        .await;
    println!("{}", line(&problem));
    let routes = system.cluster.routes().await.unwrap();
    let route = routes.find("shop.example", "/").unwrap();
    let names: Vec<&str> = route.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names.first(), Some(&"shop"), "the incumbent comes first: {route:?}");
    system.cluster.routed("shop.example", DEADLINE).await.unwrap();
}

fn line(problem: &Problem) -> String {
    let Problem { service, label, value, reason, since_index } = problem;
    let value: String = value.chars().take(60).collect();
    format!("{service}: {label} {value:?}: {reason} (since {since_index})")
}
