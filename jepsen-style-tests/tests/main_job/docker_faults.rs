//! Docker lies, hangs and goes away: what is known stays in force, and what changed
//! meanwhile is followed afterwards.

use std::time::Duration;

use dovetail_jepsen::eventually;
use dovetail_stand_in::Fault;

use crate::fixture::{DEADLINE, System, unharmed};

/// Longer than a listing may take, and than a leader's patience with Docker.
const FAULT: Duration = Duration::from_secs(3);

/// Scales `shop` while `disturbed` goes on, and follows it after `healed`.
async fn survives(system: &System, what: &str, replicas: u8) {
    let load = system.load("shop.example");
    system.swarm.scale("shop", replicas).await.unwrap();
    tokio::time::sleep(FAULT).await;
    system.swarm.stand_in().heal();
    system.swarm.stand_in().back().await.unwrap();
    eventually(DEADLINE, || async {
        let routes = system.cluster.routes().await?;
        let active = routes.find("shop.example", "/").map_or(0, |r| r.upstreams("active").len());
        if active == usize::from(replicas) { Ok(()) } else { Err(format!("{what}: {active}")) }
    })
    .await;
    unharmed(load, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_stay_while_docker_fails_and_follow_when_it_is_well() {
    let system = System::start_with_shop(1).await;
    let faults = [
        ("hang", Fault::Hang),
        ("error", Fault::Status { code: 500, message: "broken".into() }),
        ("no JSON", Fault::Garbage),
        ("no Swarm leader", Fault::NoLeader),
        ("slow", Fault::Slow { delay_ms: 1_500 }),
        ("events lost", Fault::DropEvents),
    ];
    let mut replicas = 1;
    for (what, fault) in faults {
        replicas += 1;
        system.swarm.stand_in().fault("", fault);
        survives(&system, what, replicas).await;
    }
    system.swarm.stand_in().away().await;
    survives(&system, "away", replicas + 1).await;
    system.same_digest_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_takes_nothing_back() {
    let system = System::start_with_shop(4).await;
    let before = system.cluster.routes().await.unwrap().routes;
    let load = system.load("shop.example");
    // As it was before there was any service; and no answer about one object, which
    // would be proof that it is gone.
    let (stand_in, lasts) = (system.swarm.stand_in(), Duration::from_millis(1_500));
    let broken = Fault::Status { code: 500, message: "broken".into() };
    for object in ["/services/", "/tasks/", "/networks/", "/nodes/"] {
        stand_in.fault_for(object, broken.clone(), lasts);
    }
    stand_in.fault_for("", Fault::Stale { changes: 100 }, lasts);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(system.cluster.routes().await.unwrap().routes, before);
    unharmed(load, "stale answers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_swarm_behind_the_socket_changes_no_route() {
    let system = System::start_with_shop(2).await;
    let before = system.cluster.routes().await.unwrap().routes;
    let load = system.load("shop.example");
    system.swarm.stand_in().become_swarm("anotherswarm0000000000000");
    let problem = system
        .problems(|problems| problems.first().cloned().ok_or_else(|| "no problem".to_owned()))
        .await;
    println!("{}: {}", problem.value, problem.reason);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(system.cluster.routes().await.unwrap().routes, before);
    unharmed(load, "another swarm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_is_found_while_docker_is_away() {
    let mut system = System::start_with_shop(2).await;
    let load = system.load("shop.example");
    system.swarm.stand_in().away().await;
    let killed = system.cluster.leader(DEADLINE).await.unwrap();
    system.cluster.kill_member(killed);
    let leader = eventually(DEADLINE, || async {
        match system.cluster.status().await?.leader() {
            Some(leader) if leader != u64::from(killed) => Ok(leader),
            other => Err(format!("{other:?} leads")),
        }
    })
    .await;
    println!("member {leader} leads without Docker");
    system.swarm.stand_in().back().await.unwrap();
    system.publish("news", "news.example", 1).await;
    unharmed(load, "leader killed while Docker is away").await;
}
