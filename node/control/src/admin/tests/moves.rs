//! Drains and canaries that run, as operators order and see them.

use dovetail_routing::fact::LabelValue;

use super::*;

fn drain(target: pb::drain_target::Target, force: bool) -> pb::DrainUpstreamRequest {
    let target = Some(pb::DrainTarget { target: Some(target) });
    pb::DrainUpstreamRequest {
        request_id: format!("drain-{target:?}-{force}").replace(' ', ""),
        dry_run: false,
        command: Some(pb::DrainUpstream { target, for_ms: Some(600_000), force }),
    }
}

fn service(name: &str) -> pb::drain_target::Target {
    pb::drain_target::Target::Service(name.to_owned())
}

#[tokio::test]
async fn what_an_operator_drained_is_told_beside_the_routes() {
    let leader = stage(FakeQuorum::leader());
    leader.quorum.know(&listing(&[("web", 2)]));
    let follower = stage(FakeQuorum::follower());
    follower.with_leader(&leader);
    let mut anna = follower.as_(ANNA);
    let refused = anna.drain_upstream(drain(service("web"), false)).await.expect_err("the last");
    assert!(refused.message().contains("would leave web.example/ without"), "{refused}");
    let address = pb::drain_target::Target::Address("10.0.0.1:8080".to_owned());
    anna.drain_upstream(drain(address, false)).await.expect("another is left");
    let none = pb::drain_target::Target::Address("10.0.0.1".to_owned());
    let refused = anna.drain_upstream(drain(none, false)).await.expect_err("no port");
    assert!(refused.message().contains("must be IP:PORT"), "{refused}");

    let mut vera = follower.as_(VIEWER);
    let drains = vera.drains(pb::DrainsRequest::default()).await.expect("told").into_inner().drains;
    assert_eq!((drains.len(), drains[0].id.as_str(), drains[0].index), (1, "web.1", 3));
    assert_eq!(drains[0].actor, "dovetail://operator/anna");
    assert_eq!(drains[0].upstreams[0].address, "10.0.0.1:8080");
    let routes = vera.routes(pb::RoutesRequest::default()).await.expect("told").into_inner();
    let state = leader.quorum.current();
    let published = state.published(&ServiceCluster::default());
    assert_eq!(routes.digest, published.digest.to_string());
    assert_eq!(published.snapshot.routes[0].services[0].upstreams.len(), 1, "proxies have one");
    let told: Vec<_> = routes.routes[0].services[0]
        .upstreams
        .iter()
        .map(|one| (one.address.as_str(), one.state.as_str(), one.reason.as_str()))
        .collect();
    let expected = [("10.0.0.2:8080", "active", ""), ("10.0.0.1:8080", "draining", "operator")];
    assert_eq!(told, expected);

    let undrain = pb::UndrainUpstreamRequest {
        request_id: "undrain".to_owned(),
        dry_run: false,
        command: Some(pb::UndrainUpstream { target: drains[0].target.clone() }),
    };
    anna.undrain_upstream(undrain).await.expect("lifted");
    assert_eq!(leader.quorum.current().drains().count(), 0);
}

#[tokio::test]
async fn a_run_is_started_paused_shown_and_aborted() {
    let leader = stage(FakeQuorum::leader());
    let mut both = listing(&[("blue", 1), ("green", 1)]);
    for service in both.services.values_mut() {
        let host = LabelValue::Text("app.example".into());
        service.labels.insert("com.docker.lb.hosts".into(), host);
    }
    leader.quorum.know(&both);
    let mut anna = leader.as_(ANNA);
    let route = || Some(pb::RouteRef { host: "app.example".to_owned(), ..pb::RouteRef::default() });
    let start = |request_id: &str, steps: &[u32]| pb::StartCanaryRequest {
        request_id: request_id.to_owned(),
        dry_run: false,
        command: Some(pb::StartCanary {
            route: route(),
            from: "blue".to_owned(),
            to: "green".to_owned(),
            steps: steps.to_vec(),
            interval_ms: 30_000,
            ..pb::StartCanary::default()
        }),
    };
    let refused = anna.start_canary(start("r1", &[500, 400])).await.expect_err("falls");
    assert!(refused.message().contains("the steps must rise"), "{refused}");
    anna.start_canary(start("r2", &[500, 10_000])).await.expect("started");
    let command = Some(pb::PauseCanary { route: route() });
    let pause = pb::PauseCanaryRequest { request_id: "r3".to_owned(), dry_run: false, command };
    anna.pause_canary(pause).await.expect("paused");

    let shown = anna.canaries(pb::CanariesRequest::default()).await.expect("told").into_inner();
    let canary = &shown.canaries[0];
    let weights: Vec<_> = canary.in_force.iter().map(|share| share.weight).collect();
    assert_eq!(weights, [9_500, 500]);
    let run = canary.run.clone().expect("it was started");
    assert_eq!((run.step, run.state.as_str(), run.next_step_ms), (1, "paused", None));
    assert_eq!((run.steps, run.min_requests), (vec![500, 10_000], 100));

    let command = Some(pb::ResumeCanary { route: route() });
    let resume = pb::ResumeCanaryRequest { request_id: "r4".to_owned(), dry_run: false, command };
    anna.resume_canary(resume).await.expect("resumed");
    let command = Some(pb::AbortCanary { route: route(), evidence: None });
    let abort = pb::AbortCanaryRequest { request_id: "r5".to_owned(), dry_run: false, command };
    anna.abort_canary(abort).await.expect("aborted");
    let shown = anna.canaries(pb::CanariesRequest::default()).await.expect("told").into_inner();
    let run = shown.canaries[0].run.clone().expect("told until it is cleared");
    assert_eq!((run.state.as_str(), shown.canaries[0].shares.len()), ("aborted", 0));
    let weights: Vec<_> = shown.canaries[0].in_force.iter().map(|share| share.weight).collect();
    assert_eq!(weights, [5_000, 5_000]);
}

#[tokio::test]
async fn evidence_is_the_leaders_alone() {
    let leader = stage(FakeQuorum::leader());
    let mut anna = leader.as_(ANNA);
    let route = Some(pb::RouteRef { host: "app.example".to_owned(), ..pb::RouteRef::default() });
    let command = pb::AbortCanary { route, evidence: Some(pb::Evidence::default()) };
    let abort = pb::AbortCanaryRequest {
        request_id: "r1".to_owned(),
        dry_run: false,
        command: Some(command),
    };
    let refused = anna.abort_canary(abort).await.expect_err("forged");
    assert!(refused.message().contains("leave it out"), "{refused}");
}
