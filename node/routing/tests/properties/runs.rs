//! Laws of canaries that run.

use std::cell::RefCell;
use std::collections::BTreeSet;

use dovetail_routing::canary::{Evidence, Plan, ProxyFigures, Verdict, judge};
use dovetail_routing::fact::{
    Change, DesiredState, EndpointMode, LabelValue, Observed, Scale, Service, SwarmVersion, Task,
    TaskState,
};
use dovetail_routing::latency::Latencies;
use dovetail_routing::names::{ContextRoot, ServiceCluster};
use dovetail_routing::snapshot::RouteKey;
use dovetail_routing::state::{Canary, Run, RunState, State};
use dovetail_routing::{Command, Entry, LogIndex, Payload};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::orders::{route, service, shares};
use crate::seeds::holds;
use crate::{entry, resumed, whole};

fn plan() -> impl Strategy<Value = Plan> {
    const STEPS: &[&[u16]] = &[&[500, 10_000], &[1, 2, 3], &[3_000], &[], &[9, 8]];
    let steps = select(STEPS);
    (steps, select(&[1_000_u64, 1_000, 2_000, 0][..]), any::<bool>()).prop_map(
        |(steps, interval_ms, strict)| Plan {
            steps: steps.to_vec(),
            interval_ms,
            max_error_rate: strict.then_some(100),
            max_p99_ms: None,
            min_requests: Some(10),
        },
    )
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let figures = (0..40_u64, select(&[0_u64, 0, 0, 20][..]), prop::bool::weighted(0.1));
    let figures = figures.prop_map(|(requests, errors, missing)| ProxyFigures {
        proxy: "edge".into(),
        requests,
        errors,
        latencies: Latencies::new([(80, requests)]),
        missing,
    });
    (0..40_u64, 1..4_u32, vec(figures, 0..3)).prop_map(|(run, step, proxies)| Evidence {
        run: LogIndex(run),
        step,
        window_ms: 2_000,
        proxies,
    })
}

pub(crate) fn run() -> impl Strategy<Value = Command> {
    let start = (route(), service(), service(), plan());
    prop_oneof![
        4 => start
            .prop_map(|(route, from, to, plan)| Command::StartCanary { route, from, to, plan }),
        1 => route().prop_map(|route| Command::PauseCanary { route }),
        1 => route().prop_map(|route| Command::ResumeCanary { route }),
        2 => (route(), 2..4_u32, evidence()).prop_map(|(route, step, evidence)| {
            Command::AdvanceCanary { route, step, evidence }
        }),
        2 => (route(), prop::option::of(evidence()))
            .prop_map(|(route, evidence)| Command::AbortCanary { route, evidence }),
    ]
}

/// Where the canaries of these laws run.
fn key() -> RouteKey {
    RouteKey {
        service_cluster: ServiceCluster::default(),
        host: "a.example".parse().expect("a host"),
        path: ContextRoot::root(),
    }
}

/// Two services on one route, each with a task.
fn published() -> Vec<Change> {
    let label = |(key, value): (&str, &str)| {
        (format!("com.docker.lb.{key}").into(), LabelValue::Text(value.into()))
    };
    let objects = |number: u8| {
        let service = Service {
            id: format!("s{number}").as_str().into(),
            version: SwarmVersion(1),
            name: format!("service-s{number}").into(),
            created_at: "".into(),
            labels: [("hosts", "a.example"), ("port", "80")].map(label).into(),
            networks: vec!["n1".into()],
            vips: Vec::new(),
            endpoint_mode: EndpointMode::Vip,
            host_ports: Vec::new(),
            scale: Scale::Replicated(1),
            update_state: "".into(),
        };
        let task = Task {
            id: format!("t{number}").as_str().into(),
            version: SwarmVersion(1),
            service: service.id.clone(),
            slot: 1,
            node: "m1".into(),
            desired: DesiredState::Running,
            state: TaskState::Running,
            addresses: vec![("n1".into(), [10, 0, 0, number].into())],
            host_ports: Vec::new(),
        };
        [Change::Service(service), Change::Task(task)]
    };
    [1, 2].into_iter().flat_map(objects).collect()
}

/// An order on that route, and how many milliseconds after the last one. What it says of
/// a run is mostly of the one that is there.
fn order_on_the_route() -> impl Strategy<Value = (Command, u64, bool)> {
    let order = prop_oneof![
        4 => run(),
        1 => shares().prop_map(|shares| Command::SetCanary { route: key(), shares, expected: None }),
        1 => Just(Command::ClearCanary { route: key() }),
        1 => Just(Command::PromoteCanary { route: key(), service: None }),
    ];
    (order, select(&[0_u64, 999, 1_000, 5_000][..]), prop::bool::weighted(0.9))
}

fn on_the_route(order: Command, state: &State, fits: bool) -> Command {
    let run = state.canary(&key()).and_then(|canary| canary.run.clone());
    let of_run = |evidence: Evidence| match &run {
        Some(run) if fits => Evidence { run: run.index, step: run.step, ..evidence },
        _ => evidence,
    };
    let route = key();
    match order {
        Command::StartCanary { plan, .. } => {
            Command::StartCanary { route, from: "service-s1".into(), to: "service-s2".into(), plan }
        }
        Command::PauseCanary { .. } => Command::PauseCanary { route },
        Command::ResumeCanary { .. } => Command::ResumeCanary { route },
        Command::AdvanceCanary { step, evidence, .. } => {
            let step = run.as_ref().filter(|_| fits).map_or(step, |run| run.step + 1);
            Command::AdvanceCanary { route, step, evidence: of_run(evidence) }
        }
        Command::AbortCanary { evidence, .. } => {
            Command::AbortCanary { route, evidence: evidence.map(of_run) }
        }
        other => other,
    }
}

/// The state after the orders, and every state on the way.
fn carried_out(orders: Vec<(Command, u64, bool)>) -> (State, Vec<State>) {
    let observed = Observed { swarm: "a".into(), changes: published(), events: Vec::new() };
    let mut state = resumed(State::default(), &[entry(Payload::Observed(observed))]);
    let mut states = vec![state.clone()];
    for (order, pause, fits) in orders {
        let leader_time_ms = state.leader_time_ms() + pause;
        let payload = Payload::Command(on_the_route(order, &state, fits));
        state = resumed(state, &[Entry { leader_time_ms, ..entry(payload) }]);
        states.push(state.clone());
    }
    (state, states)
}

fn of_route(state: &State) -> Canary {
    state.canary(&key()).cloned().unwrap_or_default()
}

#[test]
fn a_run_moves_as_its_plan_allows_and_is_restored_exactly() {
    let met = RefCell::new(BTreeSet::new());
    holds("runs", vec(order_on_the_route(), 0..24), |orders| {
        let (_, states) = carried_out(orders);
        for (before, after) in states.iter().zip(&states[1..]) {
            let restored = State::decode(&after.encode())
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(whole(&restored), whole(after));
            let (old, new) = (of_route(before), of_route(after));
            let Some(run) = new.run.clone() else { continue };
            met.borrow_mut().insert(run.state);
            prop_assert!((1..=run.plan.len()).contains(&run.step));
            match old.run.filter(|old| old.index == run.index) {
                None => {
                    prop_assert_eq!((run.step, run.state), (1, RunState::Running));
                    // An abort returns to what was in force before the start.
                    prop_assert_eq!(new.set.map(|set| set.shares), shares_of(before));
                }
                Some(old) if old.step != run.step => {
                    prop_assert_eq!(run.step, old.step + 1);
                    prop_assert_eq!((old.state, run.state), (RunState::Running, RunState::Running));
                    prop_assert!(run.since_ms >= old.since_ms + old.plan.interval_ms);
                    met.borrow_mut().insert(RunState::Running);
                }
                Some(old) if run.state == RunState::Finished && old.state != run.state => {
                    prop_assert_eq!(old.step, old.plan.len());
                }
                Some(_) => {}
            }
        }
        Ok(())
    });
    let all = [RunState::Running, RunState::Paused, RunState::Finished, RunState::Aborted];
    assert_eq!(met.into_inner(), all.into(), "states that random orders met");
}

fn shares_of(state: &State) -> Option<Vec<dovetail_routing::command::Share>> {
    state.canary(&key()).and_then(|canary| canary.shares().map(<[_]>::to_vec))
}

/// What a leader would propose for a run now, with figures that say how it goes.
fn next_step(state: &State, key: &RouteKey, run: &Run, errors: u64) -> Command {
    let figures = ProxyFigures {
        proxy: "edge".into(),
        requests: 1_000,
        errors,
        latencies: Latencies::new([(80, 1_000)]),
        missing: false,
    };
    let evidence = Evidence {
        run: run.index,
        step: run.step,
        window_ms: run.plan.interval_ms,
        proxies: vec![figures],
    };
    assert!(state.canary(key).is_some());
    match judge(&run.plan, &evidence) {
        Verdict::Abort(_) => Command::AbortCanary { route: key.clone(), evidence: Some(evidence) },
        _ => Command::AdvanceCanary { route: key.clone(), step: run.step + 1, evidence },
    }
}

#[test]
fn a_run_takes_each_step_once_and_ends() {
    let given = (vec(order_on_the_route(), 0..12), select(&[0_u64, 0, 500][..]));
    holds("steps", given, |(orders, errors)| {
        let mut state = carried_out(orders).0;
        let runs: Vec<_> = state
            .canaries()
            .filter_map(|(key, canary)| Some((key.clone(), canary.run.clone()?)))
            .filter(|(_, run)| run.state == RunState::Running)
            .collect();
        for (key, first) in runs {
            let beneath = state.canary(&key).and_then(|canary| canary.set.clone());
            let mut run = first;
            while run.state == RunState::Running {
                let proposed = next_step(&state, &key, &run, errors);
                let early = Entry {
                    leader_time_ms: run.since_ms + run.plan.interval_ms - 1,
                    ..entry(Payload::Command(proposed.clone()))
                };
                let in_time = Entry { leader_time_ms: early.leader_time_ms + 1, ..early.clone() };
                let is_advance = matches!(proposed, Command::AdvanceCanary { .. });
                if is_advance && state.leader_time_ms() <= early.leader_time_ms {
                    let bytes = |state: &State| state.canary(&key).cloned();
                    let unmoved = resumed(state.clone(), &[early]);
                    prop_assert_eq!(bytes(&unmoved), bytes(&state), "before its time");
                }
                // Twice, as two leaders might propose it: one step is taken.
                state = resumed(state, &[in_time.clone(), in_time]);
                let canary = state.canary(&key).cloned().unwrap_or_default();
                let Some(next) = canary.run.clone() else { return Ok(()) };
                match next.state {
                    RunState::Running => prop_assert_eq!(next.step, run.step + 1),
                    RunState::Finished => {
                        prop_assert_eq!(next.step, next.plan.len());
                        let whole = canary.shares().and_then(|shares| shares.last()).cloned();
                        prop_assert_eq!(
                            whole.map(|one| one.weight),
                            next.plan.steps.last().copied()
                        );
                    }
                    _ => {
                        prop_assert_eq!(canary.shares(), beneath.as_ref().map(|set| &*set.shares));
                    }
                }
                run = next;
            }
        }
        Ok(())
    });
}
