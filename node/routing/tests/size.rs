//! Many services, tasks and paths: right in every one. No time is taken.

use dovetail_routing::fact::{
    Change, DesiredState, EndpointMode, LabelValue, Network, Observed, Scale, Service,
    SwarmVersion, Task, TaskState,
};
use dovetail_routing::names::{ServiceCluster, ServiceId, TaskId};
use dovetail_routing::state::State;
use dovetail_routing::{Applied, Entry, LogIndex, Payload, Revision};

const SERVICES: u32 = 1_000;
const TASKS_EACH: u32 = 10;

fn observe(state: &mut State, changes: Vec<Change>) -> Applied {
    let index = LogIndex(state.applied_index().0 + 1);
    let entry = Entry {
        schema_version: 1,
        leader_time_ms: index.0,
        actor: "dovetail://member/1".into(),
        request_id: "".into(),
        cause: "a listing".into(),
        payload: Payload::Observed(Observed { swarm: "swarm".into(), changes, events: Vec::new() }),
    };
    state.apply(index, &entry)
}

fn service(number: u32) -> Change {
    let label = |key: &str, value: String| {
        (format!("com.docker.lb.{key}").into(), LabelValue::Text(value.into()))
    };
    let hosts = format!("s{number}.example,www.s{number}.example");
    Change::Service(Service {
        id: ServiceId::from(format!("service-{number}").as_str()),
        version: SwarmVersion(1),
        name: format!("s{number}").into(),
        created_at: "".into(),
        labels: [label("hosts", hosts), label("port", "8080".into())].into(),
        networks: vec!["front".into()],
        vips: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
        host_ports: Vec::new(),
        scale: Scale::Replicated(TASKS_EACH.into()),
        update_state: "".into(),
    })
}

fn task(service: u32, number: u32, version: u64, desired: DesiredState) -> Change {
    let [_, _, high, low] = service.to_be_bytes();
    let last = number.to_le_bytes()[0];
    Change::Task(Task {
        id: TaskId::from(format!("task-{service}-{number}").as_str()),
        version: SwarmVersion(version),
        service: ServiceId::from(format!("service-{service}").as_str()),
        slot: number.into(),
        node: format!("node-{}", number % 5).as_str().into(),
        desired,
        state: TaskState::Running,
        addresses: vec![("front".into(), [10, high, low, last].into())],
        host_ports: Vec::new(),
    })
}

#[test]
fn a_thousand_services_are_routed_and_one_change_touches_one_service() {
    let mut state = State::default();
    let front = Network { id: "front".into(), name: "front".into(), ingress: false };
    let mut first = vec![Change::Network(front)];
    first.extend((0..SERVICES).map(service));
    assert_eq!(observe(&mut state, first), Applied::Changed(Revision(1)));
    // The tasks in one entry per service, as a rollout would bring them.
    for number in 0..SERVICES {
        let tasks =
            (1..=TASKS_EACH).map(|task_number| task(number, task_number, 1, DesiredState::Running));
        observe(&mut state, tasks.collect());
    }
    let default = ServiceCluster::default();
    let before = state.snapshot(&default);
    assert_eq!(before.routes.len(), 2_000);
    assert!(before.routes.iter().all(|route| route.services[0].upstreams.len() == 10));
    assert_eq!(state.problems(), []);

    let draining = task(500, 3, 2, DesiredState::Shutdown);
    let Applied::Changed(revision) = observe(&mut state, vec![draining]) else {
        panic!("a draining task changes two routes");
    };
    let after = state.snapshot(&default);
    assert_eq!(after.revision, revision);
    let differ = before.routes.iter().zip(&after.routes).filter(|(old, new)| old != new);
    let hosts: Vec<_> = differ.map(|(old, _)| old.host.to_string()).collect();
    assert_eq!(hosts, ["s500.example", "www.s500.example"]);

    let restored = State::decode(&state.encode()).expect("what was encoded");
    assert_eq!(restored.digest(), state.digest());
    assert_eq!(restored.snapshot(&default), after);
}

const PATHS: u32 = 2_000;

fn at_path(number: u32, more: &[(&str, &str)]) -> Change {
    let Change::Service(mut service) = service(number) else { unreachable!("made above") };
    let context_root = format!("/p{number}");
    for (key, value) in
        [("hosts", "one.example"), ("context_root", &context_root)].iter().chain(more)
    {
        let value = LabelValue::Text((*value).into());
        service.labels.insert(format!("com.docker.lb.{key}").into(), value);
    }
    service.version = SwarmVersion(if more.is_empty() { 1 } else { 2 });
    Change::Service(service)
}

#[test]
fn two_thousand_services_share_a_host_and_a_change_stays_with_its_path() {
    let mut state = State::default();
    // One after the other, as deployments come.
    for number in 0..PATHS {
        observe(&mut state, vec![at_path(number, &[]), task(number, 1, 1, DesiredState::Running)]);
    }
    let default = ServiceCluster::default();
    let before = state.snapshot(&default);
    assert_eq!(before.routes.len(), 2_000);
    for number in 0..PATHS {
        let draining = task(number, 1, 2, DesiredState::Shutdown);
        assert!(matches!(observe(&mut state, vec![draining]), Applied::Changed(_)));
    }

    // A certificate comes with one of them: no other route is another for it.
    let before = state.snapshot(&default);
    observe(&mut state, vec![at_path(7, &[("ssl_cert", "one.cert")])]);
    let after = state.snapshot(&default);
    let differ = before.routes.iter().zip(&after.routes).filter(|(old, new)| old != new);
    let paths: Vec<_> = differ.map(|(old, _)| old.path.to_string()).collect();
    assert_eq!(paths, ["/p7"]);
    let restored = State::decode(&state.encode()).expect("what was encoded");
    assert_eq!(restored.digest(), state.digest());
}
