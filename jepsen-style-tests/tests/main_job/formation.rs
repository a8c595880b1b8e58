//! A quorum is formed once, by empty disks only.

use std::time::Duration;

use dovetail_jepsen::eventually;
use dovetail_jepsen::operator::Operator;

use crate::fixture::{DEADLINE, System};

#[tokio::test(flavor = "multi_thread")]
async fn members_start_in_any_order() {
    let mut system = System::prepare().await;
    system.cluster.start_proxy(1).unwrap();
    system.cluster.start_proxy(2).unwrap();
    system.cluster.start_member(3).unwrap();
    // The third one alone, and the third with the second, form nothing.
    for next in [2, 1] {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let leader = system.cluster.status_at(3).await.ok().and_then(|status| status.leader());
        assert_eq!(leader, None);
        system.cluster.start_member(next).unwrap();
    }
    system.cluster.agreement(DEADLINE).await.unwrap();
    system.publish("shop", "shop.example", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_wiped_disks_do_not_form_a_new_cluster() {
    let mut system = System::start_with_shop(1).await;
    let before = system.cluster.status().await.unwrap();
    for slot in system.cluster.slots() {
        system.cluster.kill_member(slot);
    }
    system.cluster.wipe_member(1).unwrap();
    system.cluster.wipe_member(2).unwrap();
    for slot in [1, 2] {
        system.cluster.start_member(slot).unwrap();
    }
    hold(Duration::from_secs(4), &system, &before.cluster_id, &[1, 2]).await;
    system.cluster.start_member(3).unwrap();
    hold(Duration::from_secs(6), &system, &before.cluster_id, &[1, 2, 3]).await;
    // And the proxies do not care.
    system.cluster.routed("shop.example", DEADLINE).await.unwrap();
}

/// For `lasting`, none of `slots` finds a leader, is of another cluster, or writes.
async fn hold(lasting: Duration, system: &System, cluster_id: &str, slots: &[u8]) {
    let operator = Operator::load(&system.cluster.operator_dir()).unwrap();
    let patience = Duration::from_secs(2);
    let started = std::time::Instant::now();
    while started.elapsed() < lasting {
        for slot in slots {
            let addr = system.cluster.member_addr(*slot).to_string();
            let Ok(status) = operator.status(&addr, patience).await else { continue };
            assert!(
                status.cluster_id.is_empty() || status.cluster_id == cluster_id,
                "member {slot} is of {}, and the cluster was {cluster_id}",
                status.cluster_id
            );
            assert_eq!(status.leader, 0, "member {slot} finds a leader: {status:?}");
            let mut admin = operator.admin(&addr).unwrap();
            let wrote = operator.annotate(&mut admin, "no", patience).await;
            assert!(wrote.is_err(), "member {slot} acknowledged {wrote:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_does_not_vote_and_says_what_to_do() {
    let mut system = System::start_with_shop(1).await;
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    let wiped = system.cluster.slots().find(|slot| *slot != leader).unwrap();
    let third = system.cluster.slots().find(|slot| ![leader, wiped].contains(slot)).unwrap();
    system.cluster.wipe_member(wiped).unwrap();
    system.cluster.start_member(wiped).unwrap();
    eventually(DEADLINE, || {
        let said = system.cluster.member_mut(wiped).map(|member| member.log_tail());
        async move {
            let said = said.map_err(|error| error.to_string())?;
            let advice = format!("member replace {wiped}");
            if said.contains(&advice) { Ok(()) } else { Err(said) }
        }
    })
    .await;
    // With the leader gone, the two that are left are no majority of voters.
    system.cluster.kill_member(leader);
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        let operator = Operator::load(&system.cluster.operator_dir()).unwrap();
        let mut admin = operator.admin(&system.cluster.member_addr(third).to_string()).unwrap();
        let wrote = operator.annotate(&mut admin, "no", Duration::from_millis(500)).await;
        assert!(wrote.is_err(), "acknowledged at {wrote:?} by one voter of three");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    system.cluster.start_member(leader).unwrap();
    system.cluster.leader(DEADLINE).await.unwrap();
}
