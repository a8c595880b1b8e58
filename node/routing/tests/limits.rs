//! Nothing grows without bound: past a limit there is a clear refusal, or a count.

use dovetail_routing::canary::{EVIDENCE_PROXIES_MAX, Evidence, Plan, ProxyFigures};
use dovetail_routing::command::DrainTarget;
use dovetail_routing::entry::{ClusterConfig, ProxyOptions};
use dovetail_routing::fact::{
    Change, EndpointMode, LabelValue, Observed, Scale, Service, SwarmVersion,
};
use dovetail_routing::intent::Scope;
use dovetail_routing::names::{ContextRoot, ServiceCluster, ServiceId};
use dovetail_routing::problem::{PROBLEMS_MAX, PROBLEMS_PER_SERVICE_MAX};
use dovetail_routing::snapshot::RouteKey;
use dovetail_routing::state::{
    ANSWERS_MAX, CANARIES_PER_CLUSTER_MAX, DRAINS_MAX, INTENT_CHANGE_ROUTES_MAX,
    INTENT_CHANGES_MAX, ROUTES_PER_CLUSTER_MAX, SERVICE_CLUSTERS_MAX, SERVICES_PER_ROUTE_MAX,
    State,
};
use dovetail_routing::{Applied, Command, Digest, Entry, LogIndex, Payload, Rejection};

fn apply(state: &mut State, request_id: &str, payload: Payload) -> Applied {
    let index = LogIndex(state.applied_index().0 + 1);
    let entry = Entry {
        schema_version: 1,
        leader_time_ms: index.0,
        actor: "dovetail://operator/anna".into(),
        request_id: request_id.into(),
        cause: "".into(),
        payload,
    };
    state.apply(index, &entry)
}

fn observe(state: &mut State, services: impl IntoIterator<Item = Service>) -> Applied {
    let changes = services.into_iter().map(Change::Service).collect();
    let observed = Observed { swarm: "swarm".into(), changes, events: Vec::new() };
    apply(state, "", Payload::Observed(observed))
}

fn service(number: usize, labels: &[(&str, String)]) -> Service {
    let label = |(key, value): &(&str, String)| {
        (format!("com.docker.lb.{key}").into(), LabelValue::Text(value.as_str().into()))
    };
    Service {
        id: ServiceId::from(format!("service-{number:05}").as_str()),
        version: SwarmVersion(1),
        name: format!("s{number:05}").into(),
        created_at: "".into(),
        labels: labels.iter().map(label).collect(),
        networks: vec!["front".into()],
        vips: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
        host_ports: Vec::new(),
        scale: Scale::Replicated(1),
        update_state: "".into(),
    }
}

fn publishing(number: usize, hosts: String) -> Service {
    service(number, &[("hosts", hosts), ("port", "80".into())])
}

#[test]
fn routes_of_a_service_cluster_are_limited() {
    let mut state = State::default();
    let hosts = |number| (0..1_000).map(|host| format!("h{host}.s{number}")).collect::<Vec<_>>();
    let full = ROUTES_PER_CLUSTER_MAX / 1_000;
    observe(&mut state, (0..=full).map(|number| publishing(number, hosts(number).join(","))));
    let snapshot = state.snapshot(&ServiceCluster::default());
    assert_eq!(snapshot.routes.len(), ROUTES_PER_CLUSTER_MAX);
    let problems = state.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(&*problems[0].service, "s00020");
    assert_eq!(
        &*problems[0].reason,
        "service cluster \"\" would have 21000 routes, above the limit of 20000"
    );
}

#[test]
fn services_of_a_route_are_limited() {
    let mut state = State::default();
    let shared = |number| publishing(number, "shared.example".into());
    observe(&mut state, (0..=SERVICES_PER_ROUTE_MAX).map(shared));
    let snapshot = state.snapshot(&ServiceCluster::default());
    assert_eq!(snapshot.routes[0].services.len(), SERVICES_PER_ROUTE_MAX);
    assert_eq!(&*state.problems()[0].reason, "shared.example/ has 100 services, the limit");
    // Whoever is on the route already may be read again.
    let again = Service { version: SwarmVersion(2), ..shared(0) };
    assert_eq!(observe(&mut state, [again]), Applied::Unchanged);
    assert_eq!(state.problems().len(), 1);
}

#[test]
fn redirects_of_a_service_are_limited() {
    let mut state = State::default();
    let hosts: Vec<_> = (0..1_000).map(|host| format!("h{host}")).collect();
    let pairs: Vec<_> = hosts.iter().map(|host| format!("{host},x")).collect();
    let full =
        [("hosts", hosts.join(",")), ("port", "80".to_owned()), ("redirects", pairs.join(";"))];
    observe(&mut state, [service(1, &full)]);
    let snapshot = state.snapshot(&ServiceCluster::default());
    assert!(snapshot.routes.iter().all(|route| route.options.redirect.is_some()));
    assert_eq!((snapshot.routes.len(), state.problems()), (1_000, Vec::new()));

    let above = [full[0].clone(), full[1].clone(), ("redirects", pairs.join(";") + ";h1,x")];
    let above = Service { version: SwarmVersion(2), ..service(1, &above) };
    assert_eq!(observe(&mut state, [above]), Applied::Unchanged);
    assert_eq!(&*state.problems()[0].reason, "has 1001 pairs, above the limit of 1000");

    // What a redirect adds below a wildcard counts as a host.
    let hosts = (0..999).map(|host| format!("h{host}")).chain(["*.w".to_owned()]);
    let more = [
        ("hosts", hosts.collect::<Vec<_>>().join(",")),
        ("port", "80".to_owned()),
        ("redirects", "a.w,x".to_owned()),
    ];
    observe(&mut state, [service(2, &more)]);
    let problems = state.problems();
    let reason = problems.iter().find(|problem| &*problem.service == "s00002");
    assert_eq!(
        reason.map(|problem| &*problem.reason),
        Some("makes 1001 hosts of the service, above the limit of 1000")
    );
}

#[test]
fn service_clusters_are_limited() {
    let mut state = State::default();
    let own = |number: usize| {
        let labels = [
            ("hosts", "app.example".to_owned()),
            ("port", "80".to_owned()),
            ("service_cluster", format!("c{number}")),
        ];
        service(number, &labels)
    };
    observe(&mut state, (0..=SERVICE_CLUSTERS_MAX).map(own));
    assert_eq!(state.problems().len(), 1);
    assert_eq!(&*state.problems()[0].reason, "1000 service clusters is the limit");

    let config = ClusterConfig {
        source: Digest([1; 32]),
        poll_interval: None,
        proxies: vec![("one-more".parse().expect("a name"), ProxyOptions::default())],
    };
    let command = Command::ApplyConfig(config);
    let answer = apply(&mut state, "config", Payload::Command(command));
    assert!(
        matches!(answer, Applied::Rejected(Rejection::AboveLimit { given: 1_001, .. })),
        "{answer:?}"
    );
    let restored = State::decode(&state.encode()).expect("what was encoded");
    let first = restored.first_answer("dovetail://operator/anna", "config");
    assert_eq!(first, Some((LogIndex(2), answer)));
}

#[test]
fn canaries_of_a_service_cluster_are_limited() {
    let mut state = State::default();
    let host = |number: usize| format!("h{number}.example");
    observe(&mut state, (0..=CANARIES_PER_CLUSTER_MAX).map(|one| publishing(one, host(one))));
    let promote = |number: usize| {
        let route = RouteKey {
            service_cluster: ServiceCluster::default(),
            host: host(number).parse().expect("a host"),
            path: ContextRoot::root(),
        };
        let service = Some(format!("s{number:05}").into());
        Payload::Command(Command::PromoteCanary { route, service })
    };
    for number in 0..CANARIES_PER_CLUSTER_MAX {
        assert_eq!(apply(&mut state, "", promote(number)), Applied::Unchanged, "{number}");
    }
    let last = apply(&mut state, "last", promote(CANARIES_PER_CLUSTER_MAX));
    assert!(
        matches!(last, Applied::Rejected(Rejection::AboveLimit { given: 1_001, .. })),
        "{last:?}"
    );
    // Who has one may have another.
    assert_eq!(apply(&mut state, "", promote(0)), Applied::Unchanged);
    let restored = State::decode(&state.encode()).expect("what was encoded");
    assert_eq!(restored.canaries().count(), CANARIES_PER_CLUSTER_MAX);
}

#[test]
fn earlier_intents_are_kept_for_a_thousand_changes() {
    let mut state = State::default();
    let default = ServiceCluster::default();
    // Each entry is another intent: the host moves.
    for number in 0..=INTENT_CHANGES_MAX {
        let version = SwarmVersion(number as u64 + 1);
        observe(&mut state, [Service { version, ..publishing(1, format!("h{number}.example")) }]);
        // What changes no intent uses none up.
        apply(&mut state, "", Payload::Tick);
    }
    let kept = LogIndex(1);
    assert_eq!(state.intents_kept_from(&default), kept);
    assert_eq!(state.intent_at(&default, kept).map(|intents| intents.len()), Ok(1));
    let older = state.intent_at(&default, LogIndex(0)).map_err(|error| error.to_string());
    let sentence = "index 0 is older than what is kept: intents are known from index 1 on";
    assert_eq!(older, Err(sentence.to_owned()));
    let last = state.applied_index();
    let future = state.intent_at(&default, LogIndex(last.0 + 1)).map_err(|error| error.to_string());
    assert_eq!(
        future,
        Err(format!("index {} is in the future: the last entry is {last}", last.0 + 1))
    );
    let restored = State::decode(&state.encode()).expect("what was encoded");
    for index in 1..=last.0 {
        let index = LogIndex(index);
        assert_eq!(restored.intent_at(&default, index), state.intent_at(&default, index));
    }
    // A rollback to what is no longer kept is refused.
    let order = Command::RollbackRoutes {
        service_cluster: default,
        to: LogIndex(0),
        scope: Scope::default(),
        for_ms: None,
    };
    let answer = apply(&mut state, "late", Payload::Command(order));
    assert_eq!(answer, Applied::Rejected(Rejection::Refused { reason: sentence.into() }));
}

#[test]
fn earlier_intents_of_very_many_routes_are_kept_less_long() {
    let mut state = State::default();
    let default = ServiceCluster::default();
    let hosts: Vec<_> = (0..1_000).map(|host| format!("h{host}.example")).collect();
    let whole = INTENT_CHANGE_ROUTES_MAX / 1_000;
    for number in 0..=whole {
        let ssl_only = if number % 2 == 0 { "true" } else { "false" };
        let labels = [
            ("hosts", hosts.join(",")),
            ("port", "80".to_owned()),
            ("ssl_only", ssl_only.to_owned()),
        ];
        let version = SwarmVersion(number as u64 + 1);
        observe(&mut state, [Service { version, ..service(1, &labels) }]);
    }
    assert_eq!(state.intents_kept_from(&default), LogIndex(1));
    assert!(state.intent_at(&default, LogIndex(2)).is_ok());
    let restored = State::decode(&state.encode()).expect("what was encoded");
    assert_eq!(restored.digest(), state.digest());
}

#[test]
fn proxies_in_the_evidence_of_a_canary_are_limited() {
    let mut state = State::default();
    observe(&mut state, [1, 2].map(|one| publishing(one, "app.example".into())));
    let route = RouteKey {
        service_cluster: ServiceCluster::default(),
        host: "app.example".parse().expect("a host"),
        path: ContextRoot::root(),
    };
    let plan = Plan { steps: vec![1_000], interval_ms: 1_000, ..Plan::default() };
    let start = Command::StartCanary {
        route: route.clone(),
        from: "s00001".into(),
        to: "s00002".into(),
        plan,
    };
    assert!(matches!(apply(&mut state, "", Payload::Command(start)), Applied::Changed(_)));
    let abort = |proxies| {
        let figures = ProxyFigures { requests: 1, ..ProxyFigures::default() };
        let evidence =
            Evidence { run: LogIndex(2), step: 1, window_ms: 0, proxies: vec![figures; proxies] };
        let route = route.clone();
        Payload::Command(Command::AbortCanary { route, evidence: Some(evidence) })
    };
    let answer = apply(&mut state, "above", abort(EVIDENCE_PROXIES_MAX + 1));
    assert!(
        matches!(answer, Applied::Rejected(Rejection::AboveLimit { given: 1_001, .. })),
        "{answer:?}"
    );
    let answer = apply(&mut state, "", abort(EVIDENCE_PROXIES_MAX));
    assert!(matches!(answer, Applied::Rejected(Rejection::Refused { .. })), "{answer:?}");
    let restored = State::decode(&state.encode()).expect("what was encoded");
    assert!(restored.first_answer("dovetail://operator/anna", "above").is_some());
}

#[test]
fn drains_are_limited() {
    let mut state = State::default();
    let host = |number: usize| format!("h{number}.example");
    observe(&mut state, (0..=DRAINS_MAX).map(|one| publishing(one, host(one))));
    let drain = |number: usize| {
        let target = DrainTarget::Service(format!("s{number:05}").into());
        Payload::Command(Command::DrainUpstream { target, for_ms: None, force: false })
    };
    for number in 0..DRAINS_MAX {
        assert_eq!(apply(&mut state, "", drain(number)), Applied::Unchanged, "{number}");
    }
    let last = apply(&mut state, "last", drain(DRAINS_MAX));
    assert!(
        matches!(last, Applied::Rejected(Rejection::AboveLimit { given: 1_001, .. })),
        "{last:?}"
    );
    // Who is drained may be given another time.
    assert_eq!(apply(&mut state, "", drain(0)), Applied::Unchanged);
    let restored = State::decode(&state.encode()).expect("what was encoded");
    assert_eq!(restored.drains().count(), DRAINS_MAX);
    assert_eq!(
        restored.first_answer("dovetail://operator/anna", "last").map(|it| it.1),
        Some(last)
    );
}

#[test]
fn problems_of_a_service_are_counted_above_the_limit() {
    let mut state = State::default();
    let hosts: Vec<_> = (0..100).map(|host| format!("-bad{host}")).collect();
    observe(&mut state, [publishing(1, hosts.join(","))]);
    let problems = state.problems();
    assert_eq!(problems.len(), PROBLEMS_PER_SERVICE_MAX);
    let summary = "69 more problems of this service are not shown";
    let found = problems.iter().filter(|problem| &*problem.reason == summary).count();
    assert_eq!(found, 1, "{problems:?}");
}

#[test]
fn problems_in_all_are_counted_above_the_limit() {
    let mut state = State::default();
    let hosts: Vec<_> = (0..40).map(|host| format!("-bad{host}")).collect();
    observe(&mut state, (0..400).map(|number| publishing(number, hosts.join(","))));
    let problems = state.problems();
    assert_eq!(problems.len(), PROBLEMS_MAX);
    let last = problems.last().expect("ten thousand");
    assert_eq!(&*last.reason, "2801 more problems are not shown");
}

#[test]
fn the_oldest_request_id_is_forgotten_first() {
    let mut state = State::default();
    let annotate = || Payload::Command(Command::Annotate { text: "CHG-1".into() });
    for number in 0..=ANSWERS_MAX {
        apply(&mut state, &number.to_string(), annotate());
    }
    let first = |id: &str| state.first_answer("dovetail://operator/anna", id);
    assert_eq!(first("0"), None);
    assert_eq!(first("1"), Some((LogIndex(2), Applied::Unchanged)));
    assert_eq!(first("1").is_some(), first(&ANSWERS_MAX.to_string()).is_some());
}
