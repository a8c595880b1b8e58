//! Shares by scale, and virtual addresses (A15 to A20).

use dovetail_jepsen::swarm::{ServiceConfig, UpdateOrder};
use dovetail_jepsen::upstream::UpstreamConfig;

use crate::curl::Answer;
use crate::lab::{EAST, Lab, demo, unharmed};

fn version(name: &str, number: u8, replicas: u8, labels: &[(&str, &str)]) -> ServiceConfig {
    let metadata = Some(format!("demo-version-{number}"));
    ServiceConfig {
        upstream: UpstreamConfig { metadata, ..UpstreamConfig::default() },
        ..demo(&format!("{name}-v{number}"), replicas, labels)
    }
}

/// A multiple of every number of tasks here, so that rotation leaves no remainder.
const REQUESTS: usize = 120;

/// The second version answers exactly so many of [`REQUESTS`] through each proxy.
async fn v2_answers(lab: &Lab, host: &str, percent: usize) {
    for proxy in [1, 2] {
        let answers = lab.curl(proxy).all(&format!("http://{host}/ping?[1-{REQUESTS}]")).await;
        assert_eq!(answers.len(), REQUESTS);
        let v2 = |answer: &&Answer| {
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()["metadata"] == "demo-version-2"
        };
        let seen = answers.iter().filter(v2).count();
        println!("{host} through proxy {proxy}: {seen} of {REQUESTS} by version 2");
        assert_eq!(seen, REQUESTS * percent / 100);
    }
}

/// A15, A16, A17, as one story under load.
///
/// The load goes to another host of the same services than the requests that are counted:
/// each route has a rotation of its own, so that the counts are exact.
pub(crate) async fn a15_a16_a17_the_share_follows_the_scale_and_nothing_fails(lab: &Lab) {
    let (host, labels) = ("a15.example", [("hosts", "a15.example,a15-load.example")]);
    let v1 = lab.create(version("a15", 1, 4, &labels)).await;
    let load = lab.load("a15-load.example");
    let v2 = lab.create(version("a15", 2, 1, &labels)).await;
    v2_answers(lab, host, 20).await;
    v2.scale(4).await;
    v2_answers(lab, host, 50).await;
    v1.scale(0).await;
    v2_answers(lab, host, 100).await;
    v1.scale(4).await;
    v2.scale(0).await;
    v2_answers(lab, host, 0).await;
    unharmed(load, "canary by scale, and back").await;
    assert_eq!(lab.problems(&v1).await, []);
    assert_eq!(lab.problems(&v2).await, []);
}

/// A18: one virtual address for each service, so half of the requests, however they scale.
pub(crate) async fn a18_two_virtual_addresses_share_evenly(lab: &Lab) {
    let host = "a18.example";
    let labels = [("hosts", host), ("backend_mode", "vip")];
    let _v1 = lab.create(version("a18", 1, 4, &labels)).await;
    let _v2 = lab.create(version("a18", 2, 1, &labels)).await;
    v2_answers(lab, host, 50).await;
}

/// A19, in a service cluster of its own, so that a new route would be seen.
pub(crate) async fn a19_a_virtual_address_needs_no_new_route_for_its_tasks(lab: &Lab) {
    let _alone = lab.alone_in_east().await;
    let labels = [("hosts", "a19.example"), ("backend_mode", "vip"), ("service_cluster", "east")];
    let service = lab.create(demo("a19", 4, &labels)).await;
    let model = lab.swarm.stand_in().model();
    let vip = model.service("a19").and_then(|service| service.spec.vip).expect("an address");
    let before = lab.revisions().await.expect("the member answers");
    let answered_by_vip = async || {
        let answer = lab.curl(EAST).get("http://a19.example/ping").await;
        assert!(answer.by().starts_with("a19."), "{answer:?}");
        assert_eq!(answer.header("x-upstream-addr"), format!("{vip}:8080"));
    };
    answered_by_vip().await;
    service.scale(8).await;
    answered_by_vip().await;
    let crashed = service.tasks().pop().expect("eight tasks");
    lab.swarm.crash(&crashed).await;
    lab.swarm.stand_in().fail_task(&crashed.id).expect("it is there");
    lab.swarm.converged("a19").await.expect("another takes its slot");
    lab.swarm.update("a19", UpdateOrder::StartFirst).await.expect("a new image");
    lab.settled().await;
    answered_by_vip().await;
    let after = lab.revisions().await.expect("the member answers");
    assert_eq!(before.get("east"), after.get("east"));
}

/// A20.
pub(crate) async fn a20_a_virtual_address_moves_with_its_network(lab: &Lab) {
    let _alone = lab.alone_in_east().await;
    let labels = [("hosts", "a20.example"), ("backend_mode", "vip"), ("service_cluster", "east")];
    let service = lab.create(demo("a20", 2, &labels)).await;
    let upstreams = async || {
        let routes = lab.routes("east").await;
        let route = routes.iter().find(|route| route.host == "a20.example").expect("a route");
        let all = route.services.iter().flat_map(|service| &service.upstreams);
        all.map(|upstream| upstream.address.clone()).collect::<Vec<_>>()
    };
    let before = upstreams().await;
    let stand_in = lab.swarm.stand_in();
    stand_in.add_network("a20").expect("a second network");
    let join = stand_in.update_service("a20", |spec| spec.networks.push("a20".to_owned()));
    join.expect("the service is there");
    service.label(&[("network", "a20")]).await;
    let moved = upstreams().await;
    assert!(before.len() == 1 && moved.len() == 1 && before != moved, "{before:?} {moved:?}");
    // Back on one network, which then needs no label.
    let leave = stand_in.update_service("a20", |spec| spec.networks.retain(|one| one != "a20"));
    leave.expect("the service is there");
    service.unlabel("network").await;
    assert_eq!(upstreams().await, before);
    lab.curl(EAST).get("http://a20.example/ping").await.by();
}
