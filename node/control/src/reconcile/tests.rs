//! Stories of the reconciler, told with a vector for a log and a paused clock.

use std::sync::atomic::Ordering;

use dovetail_process::drain::Drain;
use dovetail_routing::Command;
use dovetail_routing::entry::Payload;
use dovetail_routing::fact::{Change, Listing, SwarmVersion};
use dovetail_routing::names::{ServiceId, SwarmId, TaskId};
use tokio::time::{Instant, advance};

use super::*;
use crate::fakes::{FENCE, FakeDocker, FakeQuorum, Fate, eventually, listing, proposal};
use crate::ports::ProposeError;

struct Stage {
    quorum: Arc<FakeQuorum>,
    docker: Arc<FakeDocker>,
    soft: SoftProblems,
    drain: Drain,
}

/// A reconciler on a quorum that knows `listing`.
fn stage(known: &Listing) -> Stage {
    let stage = Stage {
        quorum: FakeQuorum::leader(),
        docker: FakeDocker::new(),
        soft: SoftProblems::new(),
        drain: Drain::new(),
    };
    if !known.services.is_empty() {
        stage.quorum.know(known);
    }
    let reconciler = Config::of_member(1).build(
        Arc::clone(&stage.quorum),
        Arc::clone(&stage.docker),
        stage.soft.clone(),
    );
    let watch = stage.drain.watch();
    watch.spawn(reconciler.run(watch.clone()));
    stage
}

impl Stage {
    /// Lets everything happen that can happen now.
    async fn settle(&self) {
        sleep(Duration::from_millis(20)).await;
    }

    /// Shows a full listing whose look began now.
    async fn show(&self, listing: Listing) {
        self.docker.show(listing);
        self.settle().await;
    }

    fn removed(&self) -> Vec<Change> {
        let mut changes = self.quorum.changes();
        changes.retain(|change| {
            matches!(change, Change::ServiceGone(_) | Change::TaskGone(_) | Change::NetworkGone(_))
        });
        changes
    }

    fn problems(&self) -> Vec<String> {
        self.soft.list().into_iter().map(|problem| problem.reason).collect()
    }
}

fn task_gone(id: &str) -> Change {
    Change::TaskGone(TaskId::from(id))
}

fn service_gone(id: &str) -> Change {
    Change::ServiceGone(ServiceId::from(id))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_withdrawn_before_the_first_observation() {
    let stage = stage(&listing(&[("web", 2), ("api", 2)]));
    stage.docker.all_gone.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.quorum.log().len(), 1, "only what was known before");
    assert!(stage.docker.looks.load(Ordering::Relaxed) > 0, "a look was asked for");
    assert!(stage.docker.active.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_observations_costs_one_entry() {
    let stage = stage(&Listing::default());
    stage.settle().await;
    for _ in 0..100 {
        stage.docker.show(listing(&[("web", 2)]));
    }
    eventually("the service is known", || stage.quorum.observed() == 1).await;
    stage.docker.show(listing(&[("web", 2)]));
    stage.settle().await;
    assert_eq!(stage.quorum.observed(), 1, "an equal observation is no entry");
    let log = stage.quorum.log();
    assert!(matches!(log[1].payload, Payload::Resynced(_)), "the listing by the clock differed");
    assert_eq!(log.len(), 2);
    assert_eq!(&*log[0].actor, "dovetail://member/1");
    assert_eq!(
        stage.drain.finish(Duration::from_secs(1)).await,
        dovetail_process::drain::Drained::AllFinished
    );
    assert!(!stage.docker.active.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_large_swarm_is_written_once_in_as_few_entries_as_it_needs() {
    const SERVICES: usize = 2_000;
    let names: Vec<_> = (0..SERVICES).map(|number| format!("s{number:04}")).collect();
    let services: Vec<_> = names.iter().map(|name| (name.as_str(), 10)).collect();
    let large = listing(&services);
    let objects = large.networks.len() + large.swarm_nodes.len() + SERVICES + large.tasks.len();
    let stage = stage(&Listing::default());
    stage.docker.show(large.clone());
    let known = || stage.quorum.current().facts().tasks == SERVICES * 10;
    eventually("all of it is known", known).await;
    // Looks come while it is written, and are full of what is not known yet.
    for _ in 0..3 {
        stage.show(large.clone()).await;
    }
    assert_eq!(stage.quorum.observed(), objects.div_ceil(OBJECTS_MAX));
    assert_eq!(stage.quorum.changes().len(), objects);
}

#[tokio::test(start_paused = true)]
async fn a_404_by_id_is_proof_of_a_removal() {
    let stage = stage(&listing(&[("web", 3), ("api", 3)]));
    stage.settle().await;
    stage.docker.answer("web.3", false);
    stage.show(listing(&[("web", 2), ("api", 3)])).await;
    assert_eq!(stage.removed(), [task_gone("web.3")]);
}

#[tokio::test(start_paused = true)]
async fn two_listings_two_seconds_apart_are_proof_of_a_removal() {
    let stage = stage(&listing(&[("web", 3), ("api", 3)]));
    stage.settle().await;
    let looks = stage.docker.looks.load(Ordering::Relaxed);
    let fewer = || listing(&[("web", 2), ("api", 3)]);
    stage.show(fewer()).await;
    advance(Duration::from_secs(1)).await;
    stage.show(fewer()).await;
    assert!(stage.removed().is_empty(), "one second is too short");
    eventually("a further look is asked for", || {
        stage.docker.looks.load(Ordering::Relaxed) > looks
    })
    .await;
    stage.docker.show_as(fewer(), false, Instant::now());
    stage.settle().await;
    assert!(stage.removed().is_empty(), "a partial listing shows no absence");
    stage.show(fewer()).await;
    assert_eq!(stage.removed(), [task_gone("web.3")]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_in_between_was_never_gone() {
    let stage = stage(&listing(&[("web", 3), ("api", 3)]));
    stage.settle().await;
    let fewer = || listing(&[("web", 2), ("api", 3)]);
    stage.show(fewer()).await;
    advance(APART).await;
    stage.show(listing(&[("web", 3), ("api", 3)])).await;
    advance(APART).await;
    stage.show(fewer()).await;
    assert!(stage.removed().is_empty());
    advance(APART).await;
    stage.show(fewer()).await;
    assert_eq!(stage.removed(), [task_gone("web.3")]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_there_by_id_is_not_removed() {
    let stage = stage(&listing(&[("web", 3), ("api", 3)]));
    stage.docker.answer("web.3", true);
    for _ in 0..5 {
        stage.show(listing(&[("web", 2), ("api", 3)])).await;
        advance(APART).await;
    }
    assert!(stage.removed().is_empty(), "its id outweighs every listing");
    stage.docker.answer("web.3", false);
    stage.show(listing(&[("web", 2), ("api", 3)])).await;
    assert_eq!(stage.removed(), [task_gone("web.3")]);
}

#[tokio::test(start_paused = true)]
async fn a_mass_removal_is_held_until_a_second_listing_agrees() {
    let all = [("api", 2), ("db", 2), ("ops", 2), ("shop", 2), ("web", 2)];
    let stage = stage(&listing(&all));
    stage.settle().await;
    let one = || listing(&all[4..]);
    stage.show(one()).await;
    assert!(stage.removed().is_empty());
    assert!(stage.problems()[0].contains("8 of 10 upstreams"), "{:?}", stage.problems());

    // One of them comes back: that listing does not agree.
    advance(APART).await;
    stage.show(listing(&all[3..])).await;
    assert!(stage.removed().is_empty());
    advance(Duration::from_secs(1)).await;
    stage.show(one()).await;
    assert!(stage.removed().is_empty(), "too early");
    advance(APART).await;
    stage.show(one()).await;
    let removed = stage.removed();
    assert!(removed.contains(&service_gone("shop")) && removed.contains(&task_gone("api.2")));
    assert_eq!(removed.len(), 12);
    assert!(stage.problems().is_empty(), "{:?}", stage.problems());
}

#[tokio::test(start_paused = true)]
async fn a_mass_removal_is_released_by_404_on_each() {
    let stage = stage(&listing(&[("web", 2), ("api", 2), ("db", 2)]));
    stage.settle().await;
    for id in ["web", "web.1", "web.2", "api", "api.1"] {
        stage.docker.answer(id, false);
    }
    stage.show(listing(&[("db", 2)])).await;
    assert!(stage.removed().is_empty(), "one of them did not answer");
    stage.docker.answer("api.2", false);
    advance(APART).await;
    stage.docker.show_as(listing(&[("db", 2)]), false, Instant::now());
    stage.settle().await;
    assert_eq!(stage.removed().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn more_than_twenty_routes_at_once_are_a_mass() {
    let names: Vec<_> = (0..60).map(|number| format!("s{number:02}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let stage = stage(&listing(&all));
    stage.settle().await;
    stage.show(listing(&all[..39])).await;
    advance(Duration::from_secs(1)).await;
    stage.show(listing(&all[..39])).await;
    assert_eq!(stage.problems().len(), 1);
    stage.docker.all_gone.store(true, Ordering::Relaxed);
    advance(APART).await;
    stage.show(listing(&all[..39])).await;
    assert_eq!(stage.removed().len(), 42);
}

#[tokio::test(start_paused = true)]
async fn one_service_is_never_held() {
    let stage = stage(&listing(&[("web", 30), ("api", 1)]));
    stage.docker.all_gone.store(true, Ordering::Relaxed);
    stage.settle().await;
    let mut scaled = listing(&[("web", 0), ("api", 1)]);
    stage.show(scaled.clone()).await;
    assert_eq!(stage.removed().len(), 30, "scaled to zero");
    scaled.services.remove(&ServiceId::from("web"));
    stage.show(scaled).await;
    assert_eq!(stage.removed().len(), 31, "and removed");
    assert!(stage.problems().is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_swarm_waits_for_an_operator() {
    let stage = stage(&listing(&[("web", 2)]));
    stage.docker.all_gone.store(true, Ordering::Relaxed);
    stage.settle().await;
    let mut other = listing(&[("shop", 1)]);
    other.swarm = SwarmId::from("swarm-2");
    for _ in 0..3 {
        stage.show(other.clone()).await;
        advance(APART).await;
    }
    assert_eq!(stage.quorum.log().len(), 1, "nothing is taken from it");
    assert!(stage.problems()[0].contains("dovetail swarm accept swarm-2"));

    let accept = Command::AcceptSwarm { swarm: SwarmId::from("swarm-2") };
    stage.quorum.write(proposal(Payload::Command(accept)));
    eventually("the new swarm's service is known", || {
        stage.quorum.current().service(&ServiceId::from("shop")).is_some()
    })
    .await;
    stage.settle().await;
    assert!(stage.problems().is_empty(), "{:?}", stage.problems());
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_proposes_nothing_and_a_new_one_looks_afresh() {
    let stage = stage(&listing(&[("web", 2), ("api", 2)]));
    stage.settle().await;
    stage.show(listing(&[("web", 1), ("api", 2)])).await;
    stage.quorum.lead(None);
    stage.settle().await;
    let entries = stage.quorum.log().len();
    assert!(!stage.docker.active.load(Ordering::Relaxed));
    stage.docker.all_gone.store(true, Ordering::Relaxed);
    advance(APART).await;
    stage.show(listing(&[("web", 1), ("api", 1), ("new", 1)])).await;
    assert_eq!(stage.quorum.log().len(), entries, "a follower proposes nothing");

    let looks = stage.docker.looks.load(Ordering::Relaxed);
    stage.quorum.lead(Some(Fence { term: 3, ..FENCE }));
    stage.settle().await;
    assert_eq!(stage.docker.looks.load(Ordering::Relaxed), looks + 1);
    assert_eq!(stage.quorum.log().len(), entries, "the old listing is not taken");
    stage.show(listing(&[("web", 2), ("api", 2)])).await;
    assert!(stage.removed().is_empty(), "both tasks are there after all");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_never_sent_again() {
    let stage = stage(&Listing::default());
    stage.settle().await;
    stage.quorum.next(Fate::WrittenUnknown);
    stage.show(listing(&[("web", 2)])).await;
    advance(Duration::from_secs(1)).await;
    stage.settle().await;
    assert_eq!(stage.quorum.observed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_proposal_is_planned_anew() {
    let stage = stage(&Listing::default());
    stage.settle().await;
    let lost = || Fate::Fails(ProposeError::Unknown { reason: "lost".to_owned() });
    stage.quorum.next(lost());
    stage.quorum.next(lost());
    stage.docker.show(listing(&[("web", 2)]));
    eventually("it is written", || stage.quorum.observed() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_large_observation_is_several_entries_in_order() {
    let names: Vec<_> = (0..60).map(|number| format!("s{number:02}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), 10)).collect();
    let stage = stage(&Listing::default());
    stage.settle().await;
    let listing = listing(&all);
    let upserts = stage.quorum.current().difference(&listing).upserts;
    stage.docker.show(listing);
    eventually("all of it is written", || stage.quorum.changes().len() == 661).await;
    assert_eq!(stage.quorum.changes(), upserts);
    assert_eq!(stage.quorum.observed(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_removes_nothing() {
    let mut known = listing(&[("web", 2), ("api", 2)]);
    for service in known.services.values_mut() {
        service.version = SwarmVersion(20);
    }
    let stage = stage(&known);
    stage.docker.all_gone.store(true, Ordering::Relaxed);
    stage.settle().await;
    for _ in 0..3 {
        stage.show(listing(&[("web", 1), ("api", 2)])).await;
        advance(APART).await;
    }
    assert!(stage.removed().is_empty());
    assert!(stage.problems()[0].contains("older state"), "{:?}", stage.problems());
}

#[tokio::test(start_paused = true)]
async fn a_refused_object_does_not_hold_back_the_others() {
    let stage = stage(&Listing::default());
    stage.settle().await;
    *stage.quorum.poison.lock().expect("not poisoned") = Some("bad.example".to_owned());
    stage.show(listing(&[("api", 1), ("bad", 1), ("web", 1)])).await;
    let known = |name| stage.quorum.current().service(&ServiceId::from(name)).is_some();
    assert!(known("api") && known("web") && !known("bad"));
    assert!(stage.problems()[0].contains("service bad was refused"), "{:?}", stage.problems());
    let entries = stage.quorum.observed();
    for _ in 0..5 {
        stage.show(listing(&[("api", 1), ("bad", 1), ("web", 1)])).await;
    }
    assert_eq!(stage.quorum.observed(), entries, "it is not proposed again");
}

#[tokio::test(start_paused = true)]
async fn an_equal_listing_is_logged_once_an_hour() {
    let stage = stage(&listing(&[("web", 1)]));
    stage.settle().await;
    for _ in 0..180 {
        stage.show(listing(&[("web", 1)])).await;
        advance(Duration::from_secs(60)).await;
    }
    let log = stage.quorum.log();
    let resynced = log.iter().filter(|entry| matches!(entry.payload, Payload::Resynced(_)));
    assert!((2..=3).contains(&resynced.count()));
}
