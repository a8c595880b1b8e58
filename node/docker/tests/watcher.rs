//! The watcher against a scripted engine: what it sees, how soon, and what it
//! keeps when the engine fails.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dovetail_docker::{Docker, DockerConfig, DockerHealth, Seen, WatchConfig, WatchHandle};
use dovetail_routing::fact::{Change, DesiredState, TaskState};
use dovetail_routing::names::{ServiceId, TaskId};
use dovetail_stand_in::{Event, Fault, Options, ServiceSpec, StandIn, Timing};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Long enough for a busy machine; no test waits that long when it passes.
const SOON: Duration = Duration::from_secs(15);
/// Own time-out for calls, short, so that tests of hanging are.
const CALL: Duration = Duration::from_millis(400);

struct Watched {
    stand_in: StandIn,
    handle: WatchHandle,
    job: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.job.abort();
    }
}

fn by_hand() -> Timing {
    Timing { start: Some(Duration::ZERO), stop: None }
}

async fn docker(stand_in: &StandIn) -> Docker {
    let url = stand_in.url().await.parse().expect("a URL");
    let config = DockerConfig { url, tls: None, timeout: CALL };
    Docker::connect(config).await.expect("a client")
}

async fn watched_with(config: WatchConfig) -> Watched {
    let options = Options { timing: by_hand(), ..Options::default() };
    let stand_in = StandIn::start(options).await.expect("started");
    let docker = docker(&stand_in).await;
    let (watcher, handle) = config.build(docker);
    let job = tokio::spawn(watcher.run(std::future::pending()));
    let watched = Watched { stand_in, handle, job };
    watched.seen(|_| true).await;
    watched
}

async fn watched() -> Watched {
    watched_with(WatchConfig::usual(None)).await
}

/// Returns once the level is reached, or fails with what was there instead.
async fn soon<T>(what: &str, level: impl Future<Output = T>) -> T {
    timeout(SOON, level).await.unwrap_or_else(|_| panic!("not {what} within {SOON:?}"))
}

impl Watched {
    async fn seen(&self, mut so: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.handle.seen();
        let wanted = seen.wait_for(|seen| seen.as_ref().is_some_and(&mut so));
        let seen = soon("seen", wanted).await;
        seen.expect("the watcher lives").clone().expect("some")
    }

    async fn health(&self, so: impl FnMut(&DockerHealth) -> bool) -> DockerHealth {
        let mut health = self.handle.health();
        let health = soon("so in health", health.wait_for(so)).await;
        health.expect("the watcher lives").clone()
    }

    async fn error(&self, part: &str) -> String {
        let so = |h: &DockerHealth| h.error.as_ref().is_some_and(|error| error.contains(part));
        self.health(so).await.error.unwrap_or_default()
    }

    async fn regained(&self) {
        self.health(|health| health.error.is_none()).await;
    }
}

fn names(seen: &Seen) -> Vec<&str> {
    seen.listing.services.values().map(|service| &*service.name).collect()
}

fn loopback(range: std::ops::Range<u8>) -> impl Iterator<Item = IpAddr> {
    range.map(|n| IpAddr::from([127, 0, 0, n]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_followed_by_a_listing_at_once() {
    let watched = watched().await;
    let mut took = Vec::new();
    for round in 0..20 {
        let name = format!("web-{round}");
        let from = Instant::now();
        let spec = ServiceSpec::new(&name).label("com.docker.lb.hosts", "web.example");
        watched.stand_in.create_service(spec.addresses(loopback(2..3))).expect("created");
        let seen = watched.seen(|seen| names(seen).contains(&name.as_str())).await;
        took.push(from.elapsed());
        let (service, tasks) = (seen.listing.services.values(), &seen.listing.tasks);
        let service = service.into_iter().find(|s| *s.name == *name).expect("there");
        assert!(service.labels.contains_key("com.docker.lb.hosts"));
        assert!(tasks.values().any(|task| task.service == service.id));
        assert!(seen.full && !seen.events.is_empty());
    }
    took.sort();
    println!("event to listing: median {:?}, worst {:?}", took[10], took[19]);
    assert!(took[10] < Duration::from_millis(250), "median {:?}", took[10]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_swarm_stops_is_seen_while_it_still_runs() {
    let watched = watched().await;
    let spec = ServiceSpec::new("web").replicas(2).addresses(loopback(2..4));
    watched.stand_in.create_service(spec).expect("created");
    watched.seen(|seen| seen.listing.tasks.len() == 2).await;
    watched.stand_in.scale("web", 1).expect("scaled");
    let stopping = |desired, state| desired == DesiredState::Remove && state == TaskState::Running;
    let seen = watched
        .seen(|seen| seen.listing.tasks.values().any(|task| stopping(task.desired, task.state)))
        .await;
    assert_eq!(seen.listing.tasks.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_event_tells_is_found_by_looking() {
    let config = WatchConfig { resync: Duration::from_secs(600), ..WatchConfig::usual(None) };
    let watched = watched_with(config).await;
    let stand_in = &watched.stand_in;
    stand_in.fault("/events", Fault::DropEvents);
    // A new service shows by its tasks, of which the calm listing tells.
    stand_in.create_service(ServiceSpec::new("web")).expect("created");
    watched.seen(|seen| names(seen) == ["web"]).await;
    // A task says nothing in the best of times.
    let task = stand_in.tasks("web")[0].id.clone();
    stand_in.set_task_desired(&task, dovetail_stand_in::TaskState::Shutdown).expect("stopping");
    let task = TaskId::from(task.as_str());
    watched.seen(|seen| seen.listing.tasks[&task].desired == DesiredState::Shutdown).await;
    // A label shows by the look at services that needs no hint.
    stand_in.set_label("web", "dovetail.exclusive", "true").expect("labelled");
    let labelled = |seen: &Seen| {
        seen.listing.services.values().any(|s| s.labels.contains_key("dovetail.exclusive"))
    };
    assert!(watched.seen(labelled).await.full);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_is_four_list_calls_whatever_the_number_of_services() {
    let config = WatchConfig {
        // Nothing but the hint of this test leads to a look.
        calm: Duration::from_secs(600),
        converging: Duration::from_secs(600),
        look: Duration::from_secs(600),
        resync: Duration::from_secs(600),
        ..WatchConfig::usual(None)
    };
    let watched = watched_with(config).await;
    let stand_in = &watched.stand_in;
    stand_in.fault("/events", Fault::DropEvents);
    for n in 0..500 {
        let spec = ServiceSpec::new(&format!("service-{n}")).replicas(2);
        stand_in.create_service(spec).expect("created");
    }
    stand_in.heal();
    let lists = || {
        let paths = ["/services", "/tasks", "/nodes", "/networks", "/secrets", "/configs"];
        paths.map(|path| stand_in.requests(path))
    };
    let before = lists();
    let sequence = watched.seen(|_| true).await.sequence;
    stand_in.emit(Event::new("service", "update", "x", &[]));
    let seen = watched.seen(|seen| seen.sequence > sequence).await;
    assert_eq!((seen.listing.services.len(), seen.listing.tasks.len()), (500, 1_000));
    let after = lists();
    let calls: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(calls, [1, 1, 1, 1, 0, 0]);
    assert_eq!(stand_in.requests("/services/{id}") + stand_in.requests("/tasks/{id}"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_takes_longer_than_any_call_may_comes_in_the_end() {
    let watched = watched().await;
    let stand_in = &watched.stand_in;
    // As the tasks of a large swarm take.
    stand_in.fault("/tasks", Fault::Slow { delay_ms: 1_000 });
    stand_in.create_service(ServiceSpec::new("web").replicas(3)).expect("created");
    watched.error("no answer within").await;
    watched.seen(|seen| seen.listing.tasks.len() == 3).await;
    watched.regained().await;
    // And the next one comes at once.
    let before = stand_in.requests("/tasks");
    let sequence = watched.seen(|_| true).await.sequence;
    watched.seen(|seen| seen.sequence >= sequence + 2).await;
    assert!(stand_in.requests("/tasks") <= before + 3, "they are waited for now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_fails_leaves_the_last_listing_in_place() {
    let watched = watched().await;
    let stand_in = &watched.stand_in;
    stand_in.create_service(ServiceSpec::new("web").addresses(loopback(2..3))).expect("created");
    let known = watched.seen(|seen| names(seen) == ["web"]).await.listing;
    let faults = [
        (Fault::Hang, "no answer within"),
        (Fault::NoLeader, "does not have a leader"),
        (Fault::Garbage, "unreadable answer"),
        (Fault::Status { code: 500, message: "ill".to_owned() }, "answered 500: ill"),
    ];
    for (fault, said) in faults {
        stand_in.fault("", fault.clone());
        let error = watched.error(said).await;
        let seen = watched.handle.seen().borrow().clone().expect("some");
        assert_eq!(seen.listing, known, "{fault:?}: {error}");
        let since = watched.health(|_| true).await.last_success.expect("some");
        // Its age grows as long as that lasts.
        let older = |health: &DockerHealth| health.last_success == Some(since);
        assert!(older(&watched.health(|_| true).await), "{fault:?}");
        stand_in.heal();
        watched.regained().await;
        let later = |health: &DockerHealth| health.last_success > Some(since);
        watched.health(later).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_goes_away_is_found_again() {
    let watched = watched().await;
    let stand_in = &watched.stand_in;
    stand_in.create_service(ServiceSpec::new("web")).expect("created");
    let known = watched.seen(|seen| names(seen) == ["web"]).await.listing;
    stand_in.away().await;
    let error = watched.error("connect to tcp://").await;
    assert!(error.contains("refused"), "{error}");
    assert_eq!(watched.handle.seen().borrow().clone().expect("some").listing, known);
    // What happens meanwhile is seen afterwards, without any event.
    stand_in.create_service(ServiceSpec::new("api")).expect("created");
    stand_in.back().await.expect("back");
    watched.seen(|seen| seen.listing.services.len() == 2).await;
    watched.regained().await;
    // And hints come again.
    let subscribed = stand_in.requests("/events");
    assert!(subscribed >= 2, "{subscribed}");
    stand_in.create_service(ServiceSpec::new("late")).expect("created");
    watched.seen(|seen| names(seen).contains(&"late") && !seen.events.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_event_stream_is_opened_anew() {
    let config = WatchConfig { idle: Duration::from_millis(200), ..WatchConfig::usual(None) };
    let watched = watched_with(config).await;
    let anew = async {
        while watched.stand_in.requests("/events") < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("subscribed three times", anew).await;
    watched.regained().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_event_stream_lists_go_on_and_the_health_says_so() {
    let watched = watched().await;
    let refusal = Fault::Status { code: 500, message: "no events today".to_owned() };
    watched.stand_in.fault("/events", refusal);
    watched.stand_in.away().await;
    watched.stand_in.back().await.expect("back");
    watched.error("no events today").await;
    watched.stand_in.create_service(ServiceSpec::new("web")).expect("created");
    watched.seen(|seen| names(seen) == ["web"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_answer_is_a_listing_like_any_other() {
    let watched = watched().await;
    let stand_in = &watched.stand_in;
    for name in ["a", "b", "c"] {
        stand_in.create_service(ServiceSpec::new(name)).expect("created");
    }
    watched.seen(|seen| seen.listing.services.len() == 3).await;
    // A deposed leader: whoever compares versions must notice, since nothing else can.
    stand_in.fault("", Fault::Stale { changes: 2 });
    watched.handle.look();
    let seen = watched.seen(|seen| seen.listing.services.len() == 1).await;
    assert!(seen.full);
    stand_in.heal();
    watched.handle.look();
    watched.seen(|seen| seen.listing.services.len() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_swarm_is_told_from_the_one_before() {
    let watched = watched().await;
    let stand_in = &watched.stand_in;
    let first = watched.seen(|_| true).await.listing.swarm.clone();
    // Even unannounced: no machine of it was known.
    stand_in.fault("/events", Fault::DropEvents);
    stand_in.become_swarm("another0another0another0a");
    let seen = watched.seen(|seen| seen.listing.swarm != first).await;
    assert_eq!(seen.listing.swarm.as_str(), "another0another0another0a");
    // Never were its machines shown under the other's name: each listing names its own.
    assert_eq!(seen.listing.swarm_nodes.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_without_swarm_is_a_clear_error() {
    let watched = watched().await;
    watched.stand_in.fault("/info", Fault::NoLeader);
    watched.handle.look();
    let error = watched.error("no Swarm manager").await;
    assert!(error.contains("does not have a leader"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_too_old_is_refused() {
    let options = Options { api: (1, 39), ..Options::default() };
    let stand_in = StandIn::start(options).await.expect("started");
    let error = docker(&stand_in).await.list_all().await.expect_err("too old");
    assert_eq!(error.to_string(), "engine speaks API 1.39, but 1.40 or newer is needed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_engines_are_spoken_to_in_what_both_know() {
    let options = Options { api: (1, 99), api_min: (1, 44), ..Options::default() };
    let stand_in = StandIn::start(options).await.expect("started");
    let docker = docker(&stand_in).await;
    assert!(docker.list_all().await.expect("listed").unreadable.is_empty());
    assert_eq!(docker.api_version().as_deref(), Some("1.53"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_404_proves_that_an_object_is_gone() {
    let options = Options { timing: by_hand(), ..Options::default() };
    let stand_in = StandIn::start(options).await.expect("started");
    let docker = docker(&stand_in).await;
    let id = stand_in.create_service(ServiceSpec::new("web")).expect("created");
    let task = stand_in.tasks("web")[0].id.clone();
    let gone = Change::ServiceGone(ServiceId::from(id.as_str()));
    let task_gone = Change::TaskGone(TaskId::from(task.as_str()));
    assert!(docker.exists(&gone).await.expect("an answer"));
    assert!(docker.exists(&task_gone).await.expect("an answer"));
    stand_in.remove_service("web").expect("removed");
    assert!(!docker.exists(&gone).await.expect("an answer"));
    assert!(docker.exists(&task_gone).await.expect("an answer"));
    stand_in.fault("", Fault::NoLeader);
    assert!(docker.exists(&gone).await.is_err());
    stand_in.heal();
    stand_in.fault("", Fault::Hang);
    assert!(docker.exists(&gone).await.is_err());
    let strange = Change::ServiceGone(ServiceId::from("../info"));
    assert!(docker.exists(&strange).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inactive_watcher_rests_and_wakes_with_a_whole_look() {
    let watched = watched().await;
    let stand_in = &watched.stand_in;
    watched.handle.set_active(false);
    // A round may have begun before.
    let before = watched.seen(|_| true).await.sequence;
    stand_in.create_service(ServiceSpec::new("web")).expect("created");
    let resting = timeout(Duration::from_millis(1_500), watched.seen(|s| s.sequence > before + 1));
    assert!(resting.await.is_err(), "it looked while it was to rest");
    watched.handle.set_active(true);
    let seen = watched.seen(|seen| names(seen) == ["web"]).await;
    assert!(seen.full && !seen.events.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_listing_is_the_same_allocation() {
    let watched = watched().await;
    let first = watched.seen(|_| true).await;
    let second = watched.seen(|seen| seen.sequence > first.sequence + 1).await;
    assert!(Arc::ptr_eq(&first.listing, &second.listing));
    assert!(second.taken_at > first.taken_at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_ends_with_the_drain() {
    let stand_in = StandIn::start(Options::default()).await.expect("started");
    let (watcher, handle) = WatchConfig::usual(None).build(docker(&stand_in).await);
    let (drain, drained) = tokio::sync::oneshot::channel::<()>();
    let job = tokio::spawn(watcher.run(async { _ = drained.await }));
    let mut seen = handle.seen();
    _ = soon("seen", seen.wait_for(Option::is_some)).await;
    drop(drain);
    soon("ended", job).await.expect("no panic");
    stand_in.stop().await;
}
