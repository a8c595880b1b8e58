//! Proxies follow the Swarm.

use std::time::{Duration, Instant};

use dovetail_jepsen::swarm::{ServiceConfig, UpdateOrder, event_to_proxy_times, median};

use crate::fixture::{DEADLINE, System, unharmed};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_service_is_reachable_through_both_proxies() {
    let system = System::start().await;
    let times = event_to_proxy_times(&system.cluster, &system.swarm, 20).await.unwrap();
    let worst = times.iter().max().copied().unwrap_or_default();
    println!("event to both proxies: median {:?} of 20, worst {worst:?}", median(&times));
    assert!(worst < Duration::from_secs(2), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_swarm_decided_to_stop_gets_no_new_request_after_500_ms() {
    let system = System::start_with_shop(3).await;
    let load = system.load("shop.example");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stopped = system.swarm.tasks("shop").pop().unwrap();
    let marked = Instant::now();
    system.swarm.scale("shop", 2).await.unwrap();
    let report = unharmed(load, "scale down").await;
    let before = report.by_upstream().get(stopped.name.as_str());
    assert!(before.is_some_and(|answers| *answers > 0), "the task never served: {report}");
    let late = report.answered_since(marked + Duration::from_millis(500), &stopped.name);
    let last = report.last_sent_to(&stopped.name).unwrap().saturating_duration_since(marked);
    println!("last request to the marked task: {last:?} after the event");
    assert_eq!(late, 0, "the last one {last:?} after the mark");
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_updates_fail_no_request() {
    let system = System::start_with_shop(4).await;
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let load = system.load("shop.example");
        let before = system.swarm.tasks("shop");
        system.swarm.update("shop", order).await.unwrap();
        let after = system.swarm.tasks("shop");
        assert!(before.iter().all(|task| !after.contains(task)), "{before:?} {after:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let report = unharmed(load, &format!("{order:?}")).await;
        let new = |task: &&_| {
            let task: &dovetail_jepsen::swarm::TaskView = task;
            report.by_upstream().contains_key(task.name.as_str())
        };
        assert_eq!(after.iter().filter(new).count(), 4, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blue_green_by_scale_fails_no_request() {
    let system = System::start().await;
    let host = "blog.example";
    system.publish("blog-v1", host, 4).await;
    let load = system.load(host);
    system.swarm.create(ServiceConfig::published("blog-v2", host, 1)).await.unwrap();
    system.swarm.scale("blog-v2", 4).await.unwrap();
    system.swarm.scale("blog-v1", 0).await.unwrap();
    system.swarm.scale("blog-v1", 4).await.unwrap();
    system.swarm.scale("blog-v2", 0).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = unharmed(load, "blue-green").await;
    let of = |service: &str| {
        report.by_upstream().iter().filter(|(name, _)| name.starts_with(service)).count()
    };
    assert_eq!((of("blog-v1"), of("blog-v2")), (8, 4), "{:?}", report.by_upstream());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_service_is_unknown_again() {
    let system = System::start_with_shop(1).await;
    system.swarm.remove("shop").await.unwrap();
    for proxy in system.cluster.proxy_addrs() {
        dovetail_jepsen::eventually(DEADLINE, || async {
            let answer = dovetail_jepsen::http::get(proxy, "shop.example", "/", DEADLINE).await?;
            let routes = system.cluster.routes().await?;
            match (answer.status().as_u16(), routes.find("shop.example", "/")) {
                (503, None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}
