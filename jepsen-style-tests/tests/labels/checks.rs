//! Values that would break a proxy's file, and failing replicas (A39, A44).

use std::collections::BTreeSet;

use crate::curl::counts;
use crate::lab::Lab;

/// A39. There is no file to break here; such values are problems all the same.
pub(crate) async fn a39_a_value_that_would_break_a_file_touches_no_other_route(lab: &Lab) {
    let good = lab.publish("a39-good", 1, &[("hosts", "a39-good.example")]).await;
    let load = lab.load("a39-good.example");
    for (number, (key, value)) in [
        ("hosts", "a39.example; } server { listen 80"),
        ("hosts", "a39.example\nserver_name evil.example"),
        ("context_root", "/app { return 200; }"),
        ("sticky_session_cookie", "session; proxy_pass http://evil"),
        ("redirects", "http://a39.example"),
        ("ssl_cert", "../../etc/shadow"),
        ("backend_mode", "${evil}"),
        ("fail_timeout", "10s; deny all"),
    ]
    .into_iter()
    .enumerate()
    {
        let (name, host) = (format!("a39-{number}"), format!("a39-{number}.example"));
        let bad = lab.publish(&name, 1, &[("hosts", &host), (key, value)]).await;
        let problems = lab.problems(&bad).await;
        let label = format!("com.docker.lb.{key}");
        let named = problems.iter().any(|problem| problem.label == label);
        assert!(named, "{key}={value:?}: {problems:?}");
        let answer = lab.curl(1).get(&format!("http://{host}/")).await;
        assert_eq!(answer.status, 503, "{key}={value:?}: {answer:?}");
    }
    crate::lab::unharmed(load, "values that would break a file").await;
    assert_eq!(lab.problems(&good).await, []);
}

/// A44. Interlock counts 5xx answers against a replica unless told otherwise, and so takes
/// all replicas out for one bad request; ours does not unless asked, see the next case.
pub(crate) async fn a44_a_replica_that_answers_5xx_is_not_taken_out(lab: &Lab) {
    let service = lab.publish("a44", 2, &[("hosts", "a44.example"), ("max_fails", "0")]).await;
    let broken = service.tasks().pop().expect("two tasks");
    lab.swarm.set_status(&broken, Some(503));
    let answers = lab.curl(1).all("http://a44.example/ping?[1-20]").await;
    let failed = answers.iter().filter(|answer| answer.status == 503).count();
    assert_eq!(failed, 10, "it keeps its turn");
    // One that takes no connection is passed over, and with max_fails=0 asked again.
    lab.swarm.set_status(&broken, None);
    lab.swarm.crash(&broken).await;
    let answers = lab.curl(1).all("http://a44.example/ping?[1-20]").await;
    assert_eq!(counts(&answers).len(), 1, "all by the other one");
}

/// A44, further: with `dovetail.fail_on=5xx` such a replica is out for `fail_timeout`.
pub(crate) async fn a44_a_replica_that_answers_5xx_is_taken_out_where_asked(lab: &Lab) {
    let labels = [("hosts", "a44-out.example"), ("max_fails", "2"), ("fail_timeout", "60s")];
    let mut config = crate::lab::demo("a44-out", 2, &labels);
    config.labels.insert("dovetail.fail_on".to_owned(), "5xx".to_owned());
    let service = lab.create(config).await;
    let broken = service.tasks().pop().expect("two tasks");
    lab.swarm.set_status(&broken, Some(503));
    let curl = lab.curl(1);
    let answers = curl.all("http://a44-out.example/ping?[1-20]").await;
    let failed = answers.iter().filter(|answer| answer.status == 503).count();
    assert_eq!(failed, 2, "out after as many as max_fails says");
    let seen: BTreeSet<&str> =
        answers.iter().skip(10).map(|answer| answer.header("x-answered-by")).collect();
    assert_eq!(seen.len(), 1, "{seen:?}");
    // The other proxy has its own view.
    let answers = lab.curl(2).all("http://a44-out.example/ping?[1-4]").await;
    assert!(answers.iter().any(|answer| answer.status == 503), "{answers:?}");
}
