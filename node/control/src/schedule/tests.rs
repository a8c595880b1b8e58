//! The leader's clock against a vector for a log and proxies that count as they are told.

use std::sync::atomic::{AtomicU64, Ordering};

use dovetail_process::drain::Drain;
use dovetail_proto::v1 as pb;
use dovetail_routing::canary::Plan;
use dovetail_routing::command::DrainTarget;
use dovetail_routing::entry::Entry;
use dovetail_routing::fact::LabelValue;
use dovetail_routing::latency::bucket_of;
use dovetail_routing::names::{ContextRoot, ServiceCluster};
use dovetail_routing::{Digest, Revision};

use super::*;
use crate::fakes::{FENCE, FakeDocker, FakePeers, FakeQuorum, Fate, listing, proposal};
use crate::fleet::Fleet;
use crate::soft::SoftProblems;

const INTERVAL_MS: u64 = 5_000;

struct World {
    quorum: Arc<FakeQuorum>,
    core: Core<FakeQuorum, FakePeers, FakeDocker>,
    /// Failed requests of each hundred to the target, at every proxy.
    failing: Arc<AtomicU64>,
    drain: Drain,
}

fn route() -> RouteKey {
    RouteKey {
        service_cluster: ServiceCluster::default(),
        host: "app.example".parse().expect("a host"),
        path: ContextRoot::root(),
    }
}

/// Member 1, whose quorum knows two services on one route.
fn world() -> World {
    let quorum = FakeQuorum::leader();
    let mut both = listing(&[("v1", 1), ("v2", 1)]);
    for service in both.services.values_mut() {
        let host = LabelValue::Text("app.example".into());
        service.labels.insert("com.docker.lb.hosts".into(), host);
    }
    quorum.know(&both);
    let drain = Drain::new();
    let core = Core {
        quorum: Arc::clone(&quorum),
        peers: Arc::new(FakePeers::default()),
        docker: FakeDocker::new(),
        fleet: Fleet::new(),
        soft: SoftProblems::new(),
        drain: drain.watch(),
    };
    tokio::spawn(Schedule::new(core.clone(), 1).run(drain.watch()));
    World { quorum, core, failing: Arc::default(), drain }
}

impl World {
    fn order(&self, command: Command) {
        self.quorum.write(proposal(Payload::Command(command)));
    }

    fn start(&self) {
        let plan = Plan {
            steps: vec![500, 2_500, 10_000],
            interval_ms: INTERVAL_MS,
            max_error_rate: Some(100),
            max_p99_ms: Some(250),
            min_requests: Some(100),
        };
        self.order(Command::StartCanary {
            route: route(),
            from: "v1".into(),
            to: "v2".into(),
            plan,
        });
    }

    /// A proxy that counts two hundred requests a second, and tells them `until` it is silent.
    fn proxy(&self, name: &'static str, silent: Arc<std::sync::atomic::AtomicBool>) {
        let (fleet, failing) = (self.core.fleet.clone(), Arc::clone(&self.failing));
        tokio::spawn(async move {
            let in_force = (Revision::default(), Digest::default());
            let place = fleet.connect(name, "", &ServiceCluster::default(), None, in_force);
            let place = place.expect("room");
            // They have counted for a while.
            let (mut requests, mut errors) = (1_000_000, 500_000);
            loop {
                sleep(Duration::from_secs(1)).await;
                requests += 200;
                errors += 2 * failing.load(Ordering::Relaxed);
                if silent.load(Ordering::Relaxed) {
                    continue;
                }
                let latencies =
                    vec![pb::LatencyCount { bucket: bucket_of(3_000).into(), count: requests }];
                let counted = pb::ServiceTraffic {
                    host: "app.example".to_owned(),
                    path: "/".to_owned(),
                    service: "v2".to_owned(),
                    start: 1,
                    requests,
                    errors,
                    latencies,
                };
                place.counted(pb::Traffic { services: vec![counted], complete: true });
            }
        });
    }

    fn proxies(&self) {
        self.proxy("edge-1", Arc::default());
        self.proxy("edge-2", Arc::default());
    }

    fn run(&self) -> Run {
        let canary = self.quorum.current().canary(&route()).cloned().expect("a canary");
        canary.run.expect("a run")
    }

    /// Waits for a level, at most so many virtual seconds.
    async fn within(&self, seconds: u64, what: &str, reached: impl Fn(&Self) -> bool) {
        let wait = async {
            while !reached(self) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        let waited = timeout(Duration::from_secs(seconds), wait).await;
        waited.unwrap_or_else(|_| panic!("never: {what}; {:?}", self.run()));
    }

    fn entries(&self, wanted: impl Fn(&Payload) -> bool) -> Vec<Entry> {
        self.quorum.log().into_iter().filter(|entry| wanted(&entry.payload)).collect()
    }

    /// The steps that were proposed.
    fn steps(&self) -> Vec<u32> {
        let step = |entry: Entry| match entry.payload {
            Payload::Command(Command::AdvanceCanary { step, .. }) => Some(step),
            _ => None,
        };
        self.quorum.log().into_iter().filter_map(step).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_gets_one_tick() {
    let world = world();
    let target = DrainTarget::Service("v1".into());
    world.order(Command::DrainUpstream { target, for_ms: Some(10_000), force: false });
    let ticks = || world.entries(|payload| *payload == Payload::Tick).len();
    sleep(Duration::from_millis(9_900)).await;
    assert_eq!((ticks(), world.quorum.current().drains().count()), (0, 1));
    sleep(Duration::from_secs(2)).await;
    assert_eq!((ticks(), world.quorum.current().drains().count()), (1, 0));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ticks(), 1, "time alone is no entry");
    world.drain.finish(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_canary_takes_its_steps_and_finishes() {
    let world = world();
    world.proxies();
    world.start();
    world.within(60, "finished", |world| world.run().state == RunState::Finished).await;
    assert_eq!(world.steps(), [2, 3, 4]);
    let advances =
        world.entries(|one| matches!(one, Payload::Command(Command::AdvanceCanary { .. })));
    let times: Vec<u64> = advances.iter().map(|entry| entry.leader_time_ms).collect();
    assert!(times.windows(2).all(|two| two[1] - two[0] >= INTERVAL_MS), "{times:?}");
    for entry in advances {
        assert_eq!(&*entry.actor, "dovetail://member/1");
        let Payload::Command(Command::AdvanceCanary { evidence, .. }) = entry.payload else {
            continue;
        };
        let names: Vec<_> = evidence.proxies.iter().map(|one| &*one.proxy).collect();
        assert_eq!(names, ["edge-1", "edge-2"]);
        assert!(evidence.window_ms >= INTERVAL_MS, "{evidence:?}");
        // What was counted before the step is no part of it.
        assert!(evidence.proxies.iter().all(|one| (400..2_000).contains(&one.requests)));
        assert_eq!(evidence.sum().errors, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn failing_requests_abort_within_an_interval() {
    let world = world();
    world.proxies();
    world.start();
    world.within(30, "step 2", |world| world.run().step == 2).await;
    sleep(Duration::from_secs(2)).await;
    world.failing.store(20, Ordering::Relaxed);
    world
        .within(INTERVAL_MS / 1_000, "aborted", |world| world.run().state == RunState::Aborted)
        .await;
    let state = world.quorum.current();
    assert_eq!(state.canary(&route()).and_then(|canary| canary.shares()), None);
    assert!(world.run().reason.contains("more than 1 % may fail"), "{:?}", world.run());
    sleep(Duration::from_secs(60)).await;
    let aborts = world.entries(|one| matches!(one, Payload::Command(Command::AbortCanary { .. })));
    assert_eq!((aborts.len(), world.steps()), (1, vec![2]));
}

#[tokio::test(start_paused = true)]
async fn a_long_calm_excuses_no_storm() {
    let world = world();
    world.proxy("edge-1", Arc::default());
    // One proxy never tells: the step is held for an hour.
    world.proxy("edge-2", Arc::new(true.into()));
    world.start();
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!((world.run().step, world.run().state), (1, RunState::Running));
    let problems = world.core.soft.list();
    assert!(problems[0].reason.contains("\"edge-2\" did not report"), "{problems:?}");
    world.failing.store(5, Ordering::Relaxed);
    world
        .within(2 * INTERVAL_MS / 1_000, "aborted", |one| one.run().state == RunState::Aborted)
        .await;
    world.within(1, "told no more", |world| world.core.soft.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_falls_silent_holds_the_step_until_it_speaks() {
    let world = world();
    let silent = Arc::<std::sync::atomic::AtomicBool>::default();
    world.proxy("edge-1", Arc::default());
    world.proxy("edge-2", Arc::clone(&silent));
    world.start();
    world.within(30, "step 2", |world| world.run().step == 2).await;
    silent.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    assert!(world.run().step < 4 && world.run().state == RunState::Running, "{:?}", world.run());
    let held_at = world.run().step;
    silent.store(false, Ordering::Relaxed);
    world.within(30, "finished", |world| world.run().state == RunState::Finished).await;
    assert_eq!(world.steps(), [2, 3, 4], "held at {held_at}");
}

#[tokio::test(start_paused = true)]
async fn another_leader_measures_anew_and_repeats_no_step() {
    let world = world();
    world.proxies();
    world.start();
    world.within(30, "step 2", |world| world.run().step == 2).await;
    sleep(Duration::from_secs(4)).await;
    world.quorum.lead(None);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.steps(), [2], "nobody leads");
    world.quorum.lead(Some(Fence { term: 2, ..FENCE }));
    let gained = world.quorum.leader_time_ms();
    world.within(60, "finished", |world| world.run().state == RunState::Finished).await;
    assert_eq!(world.steps(), [2, 3, 4]);
    let advances =
        world.entries(|one| matches!(one, Payload::Command(Command::AdvanceCanary { .. })));
    assert!(advances[1].leader_time_ms >= gained + INTERVAL_MS);
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_outcome_is_unknown_is_taken_once() {
    let world = world();
    world.proxies();
    world.start();
    world.quorum.next(Fate::WrittenUnknown);
    world.within(60, "finished", |world| world.run().state == RunState::Finished).await;
    assert_eq!(world.steps(), [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_paused_canary_is_left_alone_and_measured_anew() {
    let world = world();
    world.proxies();
    world.start();
    sleep(Duration::from_secs(3)).await;
    world.order(Command::PauseCanary { route: route() });
    world.failing.store(50, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((world.run().step, world.run().state), (1, RunState::Paused));
    world.failing.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    world.order(Command::ResumeCanary { route: route() });
    world.within(60, "finished", |world| world.run().state == RunState::Finished).await;
    assert_eq!(world.steps(), [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_proxies_beyond_a_thousand_counted_stands_in_one_row() {
    use dovetail_routing::canary::EVIDENCE_PROXIES_MAX;

    use crate::traffic::{Counted, ProxyTraffic};

    let world = world();
    world.start();
    let state = world.quorum.current();
    let run = state.canaries().find_map(|(_, canary)| canary.run.clone()).expect("a run");
    let all = EVIDENCE_PROXIES_MAX + 500;
    // All count the same; what the last one counted is not known.
    let told = |requests: u64| -> Vec<ProxyTraffic> {
        let key = ("app.example".to_owned(), "/".to_owned(), "v2".to_owned());
        let counted = Counted { start: 1, requests, errors: requests / 10, ..Counted::default() };
        let proxy = |number: usize| ProxyTraffic {
            proxy: format!("proxy-{number:04}"),
            service_cluster: String::new(),
            age: (number + 1 < all).then_some(Duration::ZERO),
            services: [(key.clone(), counted.clone())].into(),
        };
        (0..all).map(proxy).collect()
    };
    let mut measured = Measured::new(&run, Instant::now());
    measured.add(&route(), &run, &told(100));
    measured.add(&route(), &run, &told(120));
    let evidence = measured.since_start(Instant::now());
    assert_eq!(evidence.proxies.len(), EVIDENCE_PROXIES_MAX);
    let requests: u64 = evidence.proxies.iter().map(|one| one.requests).sum();
    let errors: u64 = evidence.proxies.iter().map(|one| one.errors).sum();
    assert_eq!((requests, errors), (20 * (all as u64 - 1), 2 * (all as u64 - 1)));
    let rest = evidence.proxies.last().expect("the others");
    assert_eq!((&*rest.proxy, rest.requests), ("others", 20 * 500));
    assert!(rest.missing, "one of them is not known, so nothing goes on");
    assert!(evidence.proxies.iter().rev().skip(1).all(|one| !one.missing));
}
