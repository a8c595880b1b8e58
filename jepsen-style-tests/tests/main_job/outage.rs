//! The core is gone, and comes back.

use std::time::{Duration, Instant};

use dovetail_jepsen::eventually;
use dovetail_jepsen::http::who_answers;
use dovetail_jepsen::load::{Load, LoadConfig};

use crate::fixture::{DEADLINE, System, unharmed};

#[tokio::test(flavor = "multi_thread")]
async fn proxies_serve_on_without_any_member_and_start_from_their_disk() {
    let mut system = System::start_with_shop(2).await;
    let before = system.cluster.agreement(DEADLINE).await.unwrap();
    // Proxy 2 is restarted, so only proxy 1 can be held to "no failed request".
    let config = LoadConfig::of("shop.example", [system.cluster.proxy_addr(1)]);
    let load = Load::start(config);
    for slot in system.cluster.slots() {
        system.cluster.kill_member(slot);
    }
    system.cluster.kill_proxy(2);
    let restarted = Instant::now();
    system.cluster.start_proxy(2).unwrap();
    let proxy = system.cluster.proxy_addr(2);
    eventually(DEADLINE, || who_answers(proxy, "shop.example", "/")).await;
    println!("a proxy without a core serves {:?} after its start", restarted.elapsed());
    tokio::time::sleep(Duration::from_secs(3)).await;
    who_answers(proxy, "shop.example", "/").await.unwrap();

    let back = Instant::now();
    system.cluster.start_all().unwrap();
    system.same_digest_everywhere().await;
    println!("all members back and agreed after {:?}", back.elapsed());
    let after = system.cluster.agreement(DEADLINE).await.unwrap();
    assert_eq!(after.service_clusters, before.service_clusters, "nothing had changed");
    unharmed(load, "no core").await;

    // And it goes on from there.
    system.publish("news", "news.example", 1).await;
    system.same_digest_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_told_to_end_finishes_what_it_has() {
    let mut system = System::start_with_shop(1).await;
    let proxy = system.cluster.proxy_addr(1);
    let slow = tokio::spawn(async move {
        dovetail_jepsen::http::get(proxy, "shop.example", "/delay/1000", DEADLINE).await
    });
    let task = system.swarm.tasks("shop").pop().unwrap();
    let before = system.swarm.requests(&task).unwrap();
    eventually(DEADLINE, || async {
        match system.swarm.requests(&task) {
            Some(requests) if requests > before => Ok(()),
            _ if slow.is_finished() => Ok(()),
            other => Err(format!("{other:?} requests")),
        }
    })
    .await;
    system.cluster.proxy_mut(1).unwrap().terminate();
    assert_eq!(slow.await.unwrap().unwrap().status().as_u16(), 200);
    let ended = system.cluster.proxy_mut(1).unwrap().end(DEADLINE).await;
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_follower_disturbs_nothing() {
    let mut system = System::start_with_shop(2).await;
    let load = system.load("shop.example");
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    let follower = system.cluster.slots().find(|slot| *slot != leader).unwrap();
    system.cluster.kill_member(follower);
    system.publish("news", "news.example", 1).await;
    system.cluster.start_member(follower).unwrap();
    system.same_digest_everywhere().await;
    unharmed(load, "follower killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_of_three_says_that_there_is_no_quorum() {
    let mut system = System::start_with_shop(1).await;
    let left = 2;
    for slot in system.cluster.slots().filter(|slot| *slot != left) {
        system.cluster.kill_member(slot);
    }
    let status = eventually(DEADLINE, || async {
        let status = system.cluster.status().await?;
        match status.leader() {
            None => Ok(status),
            Some(leader) => Err(format!("member {leader} is said to lead")),
        }
    })
    .await;
    assert_eq!(status.cluster_id.len(), 32, "{status:?}");
    for verb in [&["routes"][..], &["problems"], &["annotate", "no"]] {
        let done = system.cluster.dovetail(verb).await.unwrap();
        println!("dovetail {}: {}", verb.join(" "), done.stderr.trim());
        assert!(matches!(done.code, Some(4 | 5)), "{verb:?}: {done:?}");
        assert_eq!(done.stderr.lines().count(), 1, "{verb:?}: {done:?}");
    }
    let stale = system.cluster.dovetail(&["routes", "--stale"]).await.unwrap();
    assert!(stale.stdout.contains("shop.example"), "{stale:?}");
    system.cluster.routed("shop.example", DEADLINE).await.unwrap();
}
