//! The leader goes away, badly and well.

use std::time::{Duration, Instant};

use dovetail_jepsen::operator::Operator;
use dovetail_jepsen::swarm::ServiceConfig;

use crate::fixture::{DEADLINE, System, unharmed};

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_leader_under_load_fails_no_request() {
    let mut system = System::start_with_shop(2).await;
    let load = system.load("shop.example");
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let killed = system.cluster.leader(DEADLINE).await.unwrap();
    system.cluster.kill_member(killed);
    let created =
        system.swarm.create(ServiceConfig::published("news", "news.example", 1)).await.unwrap();
    system.cluster.routed("news.example", DEADLINE).await.unwrap();
    let routed = created.elapsed();
    println!("a service created right after the kill was routed after {routed:?}");
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    assert_ne!(leader, killed);
    tokio::time::sleep(Duration::from_secs(20).saturating_sub(started.elapsed())).await;
    let report = unharmed(load, "leader killed").await;
    assert!(report.sent() >= 3_900, "20 s at 200/s: {report}");
    assert!(routed < Duration::from_secs(2), "routed after {routed:?}");

    system.cluster.start_member(killed).unwrap();
    system.same_digest_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_leadership_over() {
    let mut system = System::start_with_shop(2).await;
    let load = system.load("shop.example");
    let operator = Operator::load(&system.cluster.operator_dir()).unwrap();
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    let others: Vec<String> = system
        .cluster
        .slots()
        .filter(|slot| *slot != leader)
        .map(|slot| system.cluster.member_addr(slot).to_string())
        .collect();

    system.cluster.member_mut(leader).unwrap().terminate();
    let told = Instant::now();
    let gap = loop {
        let mut acknowledged = false;
        for other in &others {
            let mut admin = operator.admin(other).unwrap();
            let wrote = operator.annotate(&mut admin, "gap", Duration::from_millis(300)).await;
            acknowledged |= wrote.is_ok();
        }
        if acknowledged {
            break told.elapsed();
        }
        assert!(told.elapsed() < DEADLINE, "nothing is acknowledged");
    };
    println!("SIGTERM of the leader to the next acknowledged command: {gap:?}");
    let ended = system.cluster.member_mut(leader).unwrap().end(DEADLINE).await;
    println!("it ended {:?} after SIGTERM with {ended:?}", told.elapsed());
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    let next = system.cluster.leader(DEADLINE).await.unwrap();
    assert_ne!(next, leader);
    unharmed(load, "SIGTERM of the leader").await;

    system.cluster.start_member(leader).unwrap();
    system.same_digest_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_replaced_and_steps_back_when_it_wakes() {
    let mut system = System::start_with_shop(2).await;
    let load = system.load("shop.example");
    let frozen = system.cluster.leader(DEADLINE).await.unwrap();
    system.cluster.member(frozen).unwrap().pause();
    system.publish("news", "news.example", 1).await;
    system.cluster.member(frozen).unwrap().resume();
    system.same_digest_everywhere().await;
    unharmed(load, "leader frozen").await;
}
