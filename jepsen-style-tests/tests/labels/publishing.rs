//! A service becomes reachable: hosts, ports, networks, the default backend (A2 to A9).

use std::collections::BTreeSet;

use dovetail_jepsen::swarm::ServiceConfig;

use crate::curl::counts;
use crate::lab::{EAST, Lab, WEST, demo};

/// What Interlock adds to every answer of an application.
const INFO_HEADERS: [&str; 5] =
    ["x-request-id", "x-proxy-id", "x-server-info", "x-upstream-addr", "x-upstream-response-time"];

/// A2. Interlock's page is HTML in a file of its image; ours is a line of plain text, and
/// a header says the reason.
pub(crate) async fn a02_an_unrouted_request_is_answered_503_by_every_proxy(lab: &Lab) {
    for proxy in 1..=WEST {
        if proxy == EAST {
            // It has a default backend now and then: A8.
            continue;
        }
        let answer = lab.curl(proxy).get("http://a02.example/").await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("x-dovetail-error"), "no_route");
        assert!(!answer.body.trim().is_empty());
        for name in INFO_HEADERS {
            assert_eq!(answer.header(name), "", "{name} of {answer:?}");
        }
    }
}

/// A3.
pub(crate) async fn a03_a_published_service_answers_with_info_headers(lab: &Lab) {
    let service = lab.publish("a03", 1, &[("hosts", "a03.example")]).await;
    let task = service.tasks().pop().expect("one task");
    for proxy in [1, 2] {
        let answer = lab.curl(proxy).get("http://a03.example/ping").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let app = answer.json();
        assert_eq!(app["instance"], task.name.as_str());
        assert_eq!(app["request_id"], answer.header("x-request-id"));
        assert_eq!(answer.header("x-request-id").len(), 32);
        assert_eq!(answer.header("x-proxy-id"), format!("proxy-{proxy}"));
        assert!(answer.header("x-server-info").starts_with("dovetail/v"), "{answer:?}");
        assert_eq!(answer.header("x-upstream-addr"), task.addr.to_string());
        let seconds: f64 = answer.header("x-upstream-response-time").parse().expect("seconds");
        assert!((0.0..10.0).contains(&seconds), "{seconds}");
    }
    // Host names know no case, and a port in Host is passed on but not looked at.
    let answer = lab.curl(1).with(&["--header", "Host: A03.Example:8080"]);
    let answer = answer.get("http://a03.example/headers").await;
    assert_eq!(answer.json()["headers"]["host"][0], "A03.Example:8080");
}

/// A4.
pub(crate) async fn a04_four_tasks_take_turns(lab: &Lab) {
    let service = lab.publish("a04", 1, &[("hosts", "a04.example")]).await;
    service.scale(4).await;
    for proxy in [1, 2] {
        let answers = lab.curl(proxy).all("http://a04.example/ping?[1-100]").await;
        let counts = counts(&answers);
        assert_eq!(counts.len(), 4, "{counts:?}");
        assert!(counts.values().all(|count| *count == 25), "{counts:?}");
    }
}

/// A service of the stack `demo`, on the stack's own network, reached by `label`.
async fn in_a_stack(lab: &Lab, name: &str, network: &str, label: &str) {
    let host = format!("{name}.example");
    lab.swarm.stand_in().add_network(network).expect("a network of its own");
    let mut config = demo(name, 1, &[("hosts", &host), ("network", label)]);
    config.labels.insert("com.docker.stack.namespace".to_owned(), name.to_owned());
    config.networks = vec![network.to_owned()];
    let service = lab.create(config).await;
    let answer = lab.curl(1).get(&format!("http://{host}/ping")).await;
    assert_eq!(answer.by(), service.tasks().pop().expect("one task").name);
    assert_eq!(lab.problems(&service).await, []);
}

/// A5.
pub(crate) async fn a05_a_stack_service_names_its_network_in_full(lab: &Lab) {
    in_a_stack(lab, "a05", "a05_demo-network", "a05_demo-network").await;
}

/// A6.
pub(crate) async fn a06_a_stack_service_names_its_network_without_the_stack(lab: &Lab) {
    in_a_stack(lab, "a06", "a06_demo-network", "demo-network").await;
}

/// A7. Interlock logs an error; ours is a problem, and a route that was good stays.
pub(crate) async fn a07_a_network_that_does_not_exist_is_a_problem_and_no_outage(lab: &Lab) {
    let wrong = [("hosts", "a07.example"), ("network", "nope")];
    let new = lab.publish("a07", 1, &wrong).await;
    let good = lab.publish("a07-good", 1, &[("hosts", "a07-good.example")]).await;
    good.label(&[("network", "nope")]).await;
    for service in [&new, &good] {
        let problems = lab.problems(service).await;
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert_eq!(problem.label, "com.docker.lb.network");
        assert_eq!(problem.value, "nope");
        assert!(problem.reason.contains("is none of the service's networks"), "{problem:?}");
    }
    assert_eq!(lab.curl(1).get("http://a07.example/ping").await.status, 503);
    let answer = lab.curl(1).get("http://a07-good.example/ping").await;
    assert!(answer.by().starts_with("a07-good."), "{answer:?}");
}

fn in_east(name: &str, replicas: u8, labels: &[(&str, &str)]) -> ServiceConfig {
    demo(name, replicas, &[labels, &[("service_cluster", "east")]].concat())
}

/// A8.
pub(crate) async fn a08_the_default_backend_answers_for_every_other_host(lab: &Lab) {
    let _alone = lab.alone_in_east().await;
    let named = lab.create(in_east("a08-named", 1, &[("hosts", "a08.example")])).await;
    let default = lab.create(in_east("a08-default", 1, &[("default_backend", "true")])).await;
    let curl = lab.curl(EAST);
    for host in ["nothing.example.org", "127.0.0.1"] {
        let answer = curl.get(&format!("http://{host}/ping")).await;
        assert_eq!(answer.by(), default.tasks()[0].name, "{host}");
    }
    let answer = curl.get("http://a08.example/ping").await;
    assert_eq!(answer.by(), named.tasks()[0].name);
}

/// A9.
pub(crate) async fn a09_colours_answer_in_turn_beside_the_default_backend(lab: &Lab) {
    let _alone = lab.alone_in_east().await;
    let _default = lab.create(in_east("a09-default", 1, &[("default_backend", "true")])).await;
    let colours = lab.create(in_east("a09-colours", 3, &[("hosts", "colors.lab.local")])).await;
    let curl = lab.curl(EAST);
    let unnamed = curl.clone().with(&["--header", "Host:", "--http1.0"]);
    for curl in [unnamed, curl.clone()] {
        let answer = curl.get("http://a09.example/ping").await;
        assert!(answer.by().starts_with("a09-default."), "{answer:?}");
    }
    let answers = curl.all("http://colors.lab.local/ping?[1-3]").await;
    let seen: BTreeSet<&str> = answers.iter().map(|answer| answer.by()).collect();
    let tasks = colours.tasks();
    assert_eq!(seen, tasks.iter().map(|task| task.name.as_str()).collect());
}
