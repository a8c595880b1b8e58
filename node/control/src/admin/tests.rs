//! The admin API over connections in memory.

use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::Code;
use tonic::metadata::MetadataValue;

use dovetail_process::drain::Drain;
use dovetail_routing::Payload;
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::{Digest, Revision};
use pb::admin_client::AdminClient as Client;
use tonic::transport::Channel;

use super::*;
use crate::fakes::{Dial, FENCE, FakeDocker, FakePeers, FakeQuorum, Fate, listing, serve};
use crate::fleet::Fleet;
use crate::ports::ProposeError;
use crate::services::services;
use crate::soft::SoftProblems;

mod commands;
mod ledger;
mod moves;
mod past;
mod roles;

const VIEWER: &str = "dovetail://operator/vera?role=viewer";
const ANNA: &str = "dovetail://operator/anna?role=operator";

struct Stage {
    quorum: Arc<FakeQuorum>,
    peers: Arc<FakePeers>,
    docker: Arc<FakeDocker>,
    fleet: Fleet,
    soft: SoftProblems,
    dial: Dial,
    _drain: Drain,
}

fn stage(quorum: Arc<FakeQuorum>) -> Stage {
    let drain = Drain::new();
    let core = Core {
        quorum: Arc::clone(&quorum),
        peers: Arc::new(FakePeers::default()),
        docker: FakeDocker::new(),
        fleet: Fleet::new(),
        soft: SoftProblems::new(),
        drain: drain.watch(),
    };
    let dial = serve(services(&core).expect("descriptors"));
    let Core { peers, docker, fleet, soft, .. } = core;
    Stage { quorum, peers, docker, fleet, soft, dial, _drain: drain }
}

impl Stage {
    fn as_(&self, identity: &str) -> Client<Channel> {
        Client::new(self.dial.channel(identity))
    }

    /// Member 2, which leads, and to which this one forwards.
    fn with_leader(&self, leader: &Stage) {
        leader.quorum.view.send_modify(|view| {
            view.this = 2;
            view.leader = Some(2);
        });
        let channel = leader.dial.channel("dovetail://member/1");
        self.peers.admins.lock().expect("not poisoned").insert(2, channel);
    }
}

fn remark(request_id: &str, text: &str) -> pb::AnnotateRequest {
    let (request_id, text) = (request_id.to_owned(), text.to_owned());
    pb::AnnotateRequest { request_id, text, dry_run: false }
}

fn behalf(message: pb::AnnotateRequest, identity: &'static str) -> Request<pb::AnnotateRequest> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(ON_BEHALF_OF, MetadataValue::from_static(identity));
    request
}

#[tokio::test(start_paused = true)]
async fn the_leader_tells_of_all_members_and_proxies() {
    let stage = stage(FakeQuorum::leader());
    stage.quorum.know(&listing(&[("web", 2)]));
    stage.docker.show(listing(&[("web", 2)]));
    let cluster = ServiceCluster::default();
    let here = (Revision(1), Digest([1; 32]));
    let place = stage.fleet.connect("edge-1", "10.0.0.7:80", &cluster, None, here).expect("room");
    drop(place);
    let moved = pb::LocalSubscriber {
        name: "edge-1".to_owned(),
        address: "10.0.0.7:80".to_owned(),
        revision: 1,
        digest: vec![1; 32],
        connected: true,
        ..pb::LocalSubscriber::default()
    };
    let local =
        pb::LocalResponse { applied: 1, subscribers: vec![moved], ..pb::LocalResponse::default() };
    stage.peers.locals.lock().expect("not poisoned").insert(2, local);
    stage.peers.silent.lock().expect("not poisoned").push(3);

    let at = tokio::time::Instant::now();
    let status = stage.as_(VIEWER).status(pb::StatusRequest::default()).await.expect("answered");
    assert!(at.elapsed() < crate::local::ANSWER * 2, "a silent member does not hold up the answer");
    let status = status.into_inner();
    assert_eq!((status.leader, status.index, status.view.as_str()), (1, 1, "leader"));
    let members: Vec<_> = status
        .members
        .iter()
        .map(|member| (member.id, member.role.as_str(), member.applied, member.reachable))
        .collect();
    assert_eq!(
        members,
        [(1, "leader", 1, true), (2, "follower", 1, true), (3, "follower", 0, false)]
    );
    assert_eq!(status.proxies.len(), 1, "it moved on to another member");
    assert_eq!((status.proxies[0].member, status.proxies[0].connected), (2, true));
    assert_eq!(status.proxies[0].digest, "01".repeat(32));
    assert_eq!(status.service_clusters[0].revision, 1);
    assert_eq!(status.docker_age_seconds.map(|age| age < 1.0), Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_follower_answers_with_the_leaders_view_or_with_its_own() {
    let follower = stage(FakeQuorum::follower());
    let mut anna = follower.as_(VIEWER);
    let alone = anna.status(pb::StatusRequest::default()).await.err();
    assert_eq!(alone.map(|status| status.code()), None, "it has its own view");

    let leader = stage(FakeQuorum::leader());
    follower.with_leader(&leader);
    let status = anna.status(pb::StatusRequest::default()).await.expect("answered").into_inner();
    assert_eq!((status.leader, status.view.as_str()), (2, "leader"));
    let local = pb::StatusRequest { local: true };
    let status = anna.status(local).await.expect("answered").into_inner();
    assert_eq!((status.leader, status.view.as_str()), (2, "local"));

    follower.quorum.view.send_modify(|view| view.leader = None);
    let status = anna.status(pb::StatusRequest::default()).await.expect("answered").into_inner();
    assert_eq!((status.leader, status.view.as_str()), (0, "local"));
    assert_eq!(status.members.iter().filter(|member| member.reachable).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_member_forwarded_is_not_forwarded_again() {
    let follower = stage(FakeQuorum::follower());
    follower.with_leader(&stage(FakeQuorum::leader()));
    let mut member = follower.as_("dovetail://member/3");
    let status = member.status(pb::StatusRequest::default()).await.expect_err("no leader here");
    assert_eq!(status.code(), Code::Unavailable);
    let hint = status.metadata().get(LEADER).expect("a hint");
    assert_eq!(hint.to_str().expect("text"), "10.0.0.2:8080");
    let status = member.annotate(behalf(remark("r1", "hi"), ANNA)).await.expect_err("no leader");
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn routes_are_linearizable_unless_asked_for_stale() {
    let follower = stage(FakeQuorum::follower());
    follower.quorum.know(&listing(&[("web", 2)]));
    let mut vera = follower.as_(VIEWER);
    let routes = vera.routes(pb::RoutesRequest::default()).await.expect("answered").into_inner();
    assert_eq!(routes.routes[0].host, "web.example");
    assert_eq!(routes.routes[0].services[0].upstreams.len(), 2);

    follower.quorum.cut_off.store(true, Ordering::Relaxed);
    let status = vera.routes(pb::RoutesRequest::default()).await.expect_err("no quorum");
    assert_eq!(status.code(), Code::Unavailable);
    // A leader that answers is as good.
    let leader = stage(FakeQuorum::leader());
    leader.quorum.know(&listing(&[("api", 1)]));
    follower.with_leader(&leader);
    let routes = vera.routes(pb::RoutesRequest::default()).await.expect("answered").into_inner();
    assert_eq!(routes.routes[0].host, "api.example");
    assert_eq!(routes.freshness, Some(pb::Freshness { index: 1, age_ms: 0 }));
    follower.quorum.silent_ms.store(4_321, Ordering::Relaxed);
    let stale = pb::RoutesRequest { stale: true, ..pb::RoutesRequest::default() };
    let old = vera.routes(stale).await.expect("answered").into_inner();
    assert_eq!((old.routes.len(), old.routes[0].host.as_str()), (1, "web.example"));
    assert_eq!(old.freshness, Some(pb::Freshness { index: 1, age_ms: 4_321 }), "it says how old");
    let stale = pb::CanariesRequest { stale: true, route: None };
    let old = vera.canaries(stale).await.expect("answered").into_inner();
    assert_eq!(old.freshness.map(|freshness| freshness.age_ms), Some(4_321));
    let bad =
        pb::RoutesRequest { service_cluster: "a b".to_owned(), stale: true, ..Default::default() };
    assert_eq!(vera.routes(bad).await.expect_err("no name").code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn problems_are_those_of_the_state_of_members_and_of_proxies() {
    let leader = stage(FakeQuorum::leader());
    let mut known = listing(&[("web", 1)]);
    for service in known.services.values_mut() {
        service.labels.remove("com.docker.lb.port");
    }
    leader.quorum.know(&known);
    let problem = |reason: &str| pb::ProxyProblem {
        host: "web.example".to_owned(),
        reason: reason.to_owned(),
        ..pb::ProxyProblem::default()
    };
    let elsewhere = pb::LocalResponse {
        applied: 1,
        subscribers: vec![pb::LocalSubscriber {
            name: "edge-1".to_owned(),
            connected: true,
            revision: 1,
            problem_count: 1,
            problems: vec![problem("it expired")],
            ..pb::LocalSubscriber::default()
        }],
        soft_count: 1,
        soft: vec![pb::Problem { reason: "another file".to_owned(), ..pb::Problem::default() }],
        ..pb::LocalResponse::default()
    };
    leader.peers.locals.lock().expect("not poisoned").insert(3, elsewhere);
    leader.soft.raise(
        "docker: mass removal",
        "5",
        "held".to_owned(),
        dovetail_routing::LogIndex(1),
    );
    let follower = stage(FakeQuorum::follower());
    follower.with_leader(&leader);
    let mut vera = follower.as_(VIEWER);
    let answer = vera.problems(pb::ProblemsRequest::default()).await.expect("answered");
    let problems = answer.into_inner().problems;
    assert_eq!(problems.len(), 4, "{problems:?}");
    let status = vera.status(pb::StatusRequest::default()).await.expect("answered").into_inner();
    assert_eq!(status.problems, 4, "status counts what problems shows");
    assert_eq!(problems[0].service, "web");
    assert_eq!(problems[2].reason, "member 3: another file");
    assert_eq!(problems[3].reason, "proxy edge-1: web.example: it expired");
    let soft = &problems[1];
    assert_eq!(
        (soft.service.as_str(), soft.label.as_str(), soft.reason.as_str()),
        ("-", "-", "held")
    );
    let stale = pb::ProblemsRequest { stale: true };
    let old = vera.problems(stale).await.expect("answered").into_inner();
    assert!(old.problems.is_empty());
    assert!(old.freshness.is_some(), "a stale answer says how old it is");
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_made_by_the_leader_for_any_operator() {
    let leader = stage(FakeQuorum::leader());
    leader.quorum.know(&listing(&[("web", 1)]));
    let follower = stage(FakeQuorum::follower());
    follower.with_leader(&leader);
    let label = |label: &str, value: &str| pb::Label {
        key: format!("com.docker.lb.{label}"),
        value: Some(pb::label::Value::Text(value.to_owned())),
    };
    let service = pb::PlannedService {
        name: "shop_web".to_owned(),
        labels: vec![label("hosts", "shop.example"), label("port", "80")],
        networks: vec!["front".to_owned()],
        scale: Some(pb::planned_service::Scale::Replicated(1)),
        ..pb::PlannedService::default()
    };
    let request = pb::PlanRequest { services: vec![service], ..pb::PlanRequest::default() };
    let before = leader.quorum.current().digest();
    let mut vera = follower.as_(VIEWER);
    let plan = vera.plan(request.clone()).await.expect("answered").into_inner();
    assert_eq!(plan.index, 1, "the leader's state, not the follower's empty one");
    let added: Vec<_> = plan.routes.iter().filter_map(|one| one.after.as_ref()).collect();
    assert_eq!((added.len(), added[0].host.as_str()), (1, "shop.example"));
    assert_eq!(leader.quorum.current().digest(), before, "nothing was written");
    assert_eq!(leader.quorum.log().len(), 1);

    let twice = pb::PlanRequest {
        services: [request.services.clone(), request.services.clone()].concat(),
        ..pb::PlanRequest::default()
    };
    assert_eq!(vera.plan(twice).await.expect_err("twice").code(), Code::InvalidArgument);
    let mut proxy = follower.as_("dovetail://proxy/edge-1");
    assert_eq!(proxy.plan(request).await.expect_err("no operator").code(), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn a_remark_is_the_operators_whatever_member_took_it() {
    let leader = stage(FakeQuorum::leader());
    let follower = stage(FakeQuorum::follower());
    follower.with_leader(&leader);
    let mut anna = follower.as_(ANNA);
    let answer = anna.annotate(remark("r1", "ticket 7")).await.expect("written").into_inner();
    assert_eq!(
        (answer.index, answer.applied.as_str(), answer.first_answer),
        (1, "unchanged", false)
    );
    let log = leader.quorum.log();
    assert_eq!(&*log[0].actor, "dovetail://operator/anna");
    assert!(matches!(&log[0].payload, Payload::Command(_)));

    let again = anna.annotate(remark("r1", "ticket 7")).await.expect("answered").into_inner();
    assert_eq!((again.index, again.first_answer), (1, true));
    let other = anna.annotate(remark("r1", "ticket 8")).await.expect_err("used");
    assert_eq!(other.code(), Code::FailedPrecondition);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_is_told_why() {
    let stage = stage(FakeQuorum::leader());
    let denied = Code::PermissionDenied;
    for (identity, request, code) in [
        (VIEWER, Request::new(remark("r1", "hi")), denied),
        ("dovetail://proxy", Request::new(remark("r1", "hi")), denied),
        ("dovetail://member/2", Request::new(remark("r1", "hi")), denied),
        ("dovetail://member/2", behalf(remark("r1", "hi"), VIEWER), denied),
        ("dovetail://member/2", behalf(remark("r1", "hi"), "dovetail://member/1"), denied),
        ("dovetail://member/2", behalf(remark("r1", "hi"), "anna"), Code::InvalidArgument),
        (ANNA, behalf(remark("r1", "hi"), "dovetail://operator/bob?role=admin"), denied),
        (ANNA, Request::new(remark("", "hi")), Code::InvalidArgument),
        (ANNA, Request::new(remark("a b", "hi")), Code::InvalidArgument),
        (ANNA, Request::new(remark("r1", " \n")), Code::InvalidArgument),
        (ANNA, Request::new(remark("r1", &"x".repeat(4_097))), Code::InvalidArgument),
    ] {
        let status = stage.as_(identity).annotate(request).await.expect_err(identity);
        assert_eq!(status.code(), code, "{identity}: {}", status.message());
    }
    assert!(stage.quorum.log().is_empty());
    let ask = pb::StatusRequest::default();
    assert_eq!(stage.as_("dovetail://proxy").status(ask).await.expect_err("denied").code(), denied);
    let ask = pb::LogRequest::default();
    assert_eq!(stage.as_(VIEWER).log(ask).await.expect_err("denied").code(), denied);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_not_known_is_told_apart_from_a_refusal() {
    let stage = stage(FakeQuorum::leader());
    let mut anna = stage.as_(ANNA);
    for (error, code) in [
        (ProposeError::Unknown { reason: "cut off".to_owned() }, Code::DeadlineExceeded),
        (ProposeError::NotLeader { leader: Some(3) }, Code::Unavailable),
        (ProposeError::Refused { reason: "too large".to_owned() }, Code::FailedPrecondition),
    ] {
        stage.quorum.next(Fate::Fails(error));
        let status = anna.annotate(remark("r1", "hi")).await.expect_err("failed");
        assert_eq!(status.code(), code);
    }
    stage.quorum.lead(None);
    let status = anna.annotate(remark("r1", "hi")).await.expect_err("no leader");
    assert_eq!(status.code(), Code::Unavailable);
    stage.quorum.lead(Some(FENCE));
    assert!(anna.annotate(remark("r1", "hi")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_ledger_is_told_in_words_and_in_order() {
    let stage = stage(FakeQuorum::leader());
    stage.quorum.know(&listing(&[("web", 1)]));
    let mut anna = stage.as_(ANNA);
    for number in 0..300 {
        anna.annotate(remark(&format!("r{number}"), "hi")).await.expect("written");
    }
    let read = async |from, limit| {
        let request = pb::LogRequest { from, limit };
        let mut entries = stage.as_(ANNA).log(request).await.expect("answered").into_inner();
        let mut read = Vec::new();
        while let Some(entry) = entries.message().await.expect("no error") {
            read.push(entry);
        }
        read
    };
    assert_eq!(read(0, 0).await.len(), 100, "the default limit");
    let all = read(0, 1_000).await;
    assert_eq!(all.len(), 301);
    assert!(all.windows(2).all(|pair| pair[0].index + 1 == pair[1].index));
    assert_eq!((all[0].kind.as_str(), all[1].summary.as_str()), ("observed", "remark: hi"));
    assert_eq!(all[1].actor, "dovetail://operator/anna");
    let some = read(300, 1).await;
    assert_eq!((some.len(), some[0].index), (1, 300));
    // The story is told without a quorum too.
    stage.quorum.cut_off.store(true, Ordering::Relaxed);
    assert_eq!(read(301, 5).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn health_and_reflection_stand_on_the_same_port() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let stage = stage(FakeQuorum::leader());
    let channel = stage.dial.channel(VIEWER);
    let check = tonic_health::pb::HealthCheckRequest { service: "dovetail.v1.Admin".to_owned() };
    let health = HealthClient::new(channel.clone()).check(check).await.expect("answered");
    assert_eq!(health.into_inner().status, 1);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter([list]))
        .await
        .expect("answered")
        .into_inner();
    let answer = answers.message().await.expect("no error").expect("an answer");
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("no list");
    };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"dovetail.v1.Feed".to_owned()), "{names:?}");
}
