//! Everything at once, by a seed: members killed, frozen and told to end, proxies kept
//! busy, services scaled, updated, created and removed, Docker failing now and then.
//!
//! While a quorum of members runs, no request may fail. In the end everything heals, and
//! all must agree, on what the Swarm really is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dovetail_jepsen::eventually;
use dovetail_jepsen::swarm::{ServiceConfig, UpdateOrder};
use dovetail_stand_in::Fault;

use crate::fixture::{DEADLINE, System, unharmed};

/// As on a real Swarm; less than a failover takes would be unfair.
const STOP_DELAY: Duration = Duration::from_secs(3);
/// Steps of the long run (seven minutes), and of the one in every test run.
const STEPS_LONG: usize = 120;
const STEPS_SHORT: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_no_request_fails_and_all_agree_in_the_end() {
    // Set by `make test-long`.
    let long = std::env::var_os("DOVETAIL_LONG").is_some();
    soak(seed(), if long { STEPS_LONG } else { STEPS_SHORT }).await;
}

/// `SEED` of the environment, or a new one.
fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

async fn soak(seed: u64, steps: usize) {
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut system = System::start_with_shop(3).await;
    system.swarm.set_stop_delay(STOP_DELAY);
    let load = system.load("shop.example");
    let started = Instant::now();
    for step in 1..=steps {
        let what = one(&mut system, &mut random, step).await;
        let report = load.so_far();
        println!("{:6.1} s: {what}: {report}", started.elapsed().as_secs_f64());
        assert_eq!(report.failed(), 0, "{:?}", report.failures().first());
        // Everybody is back before the next one goes: never two at a time.
        system.cluster.agreement(DEADLINE).await.unwrap();
    }
    unharmed(load, "soak").await;
    system.swarm.stand_in().heal();
    system.same_digest_everywhere().await;
    shop_is_as_the_swarm_is(&system).await;
}

/// One thing that happens; says what it was.
async fn one(system: &mut System, random: &mut fastrand::Rng, step: usize) -> String {
    let slot = random.u8(1..=3);
    let pause = Duration::from_millis(random.u64(0..3_000));
    match random.u8(0..9) {
        0 | 1 => {
            let leader = system.cluster.leader(DEADLINE).await.unwrap();
            let slot = if random.bool() { leader } else { slot };
            system.cluster.kill_member(slot);
            let created = during(system, random, step).await;
            tokio::time::sleep(pause).await;
            system.cluster.start_member(slot).unwrap();
            format!("kill -9 of member {slot} (member {leader} led), then {created}")
        }
        2 | 3 => {
            system.cluster.member(slot).unwrap().pause();
            let created = during(system, random, step).await;
            tokio::time::sleep(pause).await;
            system.cluster.member(slot).unwrap().resume();
            format!("member {slot} frozen for {pause:?}, meanwhile {created}")
        }
        4 => {
            system.cluster.member(slot).unwrap().terminate();
            let ended = system.cluster.member_mut(slot).unwrap().end(DEADLINE).await;
            assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
            system.cluster.start_member(slot).unwrap();
            format!("member {slot} ended and started")
        }
        5 => {
            let order =
                if random.bool() { UpdateOrder::StopFirst } else { UpdateOrder::StartFirst };
            system.swarm.update("shop", order).await.unwrap();
            format!("update, {order:?}")
        }
        6 => {
            let faults = [
                Fault::Hang,
                Fault::Garbage,
                Fault::NoLeader,
                Fault::DropEvents,
                Fault::Status { code: 500, message: "soak".into() },
            ];
            let fault = random.choice(faults).unwrap();
            let lasts = pause / 3;
            system.swarm.stand_in().fault_for("", fault.clone(), lasts);
            let created = during(system, random, step).await;
            format!("{fault:?} for {lasts:?}, meanwhile {created}")
        }
        7 => {
            for slot in system.cluster.slots() {
                system.cluster.kill_member(slot);
            }
            tokio::time::sleep(pause).await;
            system.cluster.start_all().unwrap();
            "all members killed and started".to_owned()
        }
        _ => during(system, random, step).await,
    }
}

/// A change of the Swarm.
async fn during(system: &System, random: &mut fastrand::Rng, step: usize) -> String {
    if random.bool() {
        // Of one alone, an update that stops first leaves nobody for a while.
        let replicas = random.u8(2..=4);
        system.swarm.scale("shop", replicas).await.unwrap();
        return format!("shop scaled to {replicas}");
    }
    let (name, host) = (format!("soak-{step}"), format!("soak-{step}.example"));
    system.swarm.create(ServiceConfig::published(&name, &host, 1)).await.unwrap();
    if let Err(unmet) = system.cluster.routed(&host, DEADLINE).await {
        panic!("{host} is not routed: {unmet}");
    }
    system.swarm.remove(&name).await.unwrap();
    format!("{name} created and removed")
}

/// The route's upstreams are the tasks that run, no more and no less.
async fn shop_is_as_the_swarm_is(system: &System) {
    let tasks = system.swarm.tasks("shop");
    let run: BTreeSet<String> = tasks.iter().map(|task| task.addr.to_string()).collect();
    eventually(DEADLINE, || async {
        let routes = system.cluster.routes().await?;
        let route = routes.find("shop.example", "/").ok_or("no route")?;
        let active = route.upstreams("active").into_iter().map(str::to_owned).collect();
        if run == active { Ok(()) } else { Err(format!("{active:?}, and {run:?} run")) }
    })
    .await;
}
