//! Who the members are: a wiped disk is replaced, two are added, two are taken out again,
//! and another one leads, all under load.

use std::time::Instant;

use dovetail_jepsen::cluster::ClusterConfig;
use dovetail_jepsen::eventually;
use dovetail_jepsen::supervisor::Finished;
use serde_json::Value;

use crate::fixture::{DEADLINE, System, unharmed};

async fn member(system: &System, verb: &[&str]) -> Finished {
    system.cluster.dovetail(&[&["-o", "json", "member"], verb].concat()).await.unwrap()
}

/// A change that is carried out.
pub(crate) async fn changed(system: &System, verb: &[&str]) {
    let begun = Instant::now();
    let done = member(system, verb).await;
    assert_eq!(done.code, Some(0), "{verb:?}: {done:?}");
    println!("member {}: {:?}", verb.join(" "), begun.elapsed());
    let answer: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(answer["applied"], "changed", "{verb:?}: {answer}");
}

/// A change that is refused, with the reason.
async fn refused(system: &System, verb: &[&str], said: &str) {
    let done = member(system, verb).await;
    println!("member {}: {}", verb.join(" "), done.stderr.trim());
    assert_eq!(done.code, Some(3), "{verb:?}: {done:?}");
    assert!(done.stderr.contains(said), "{verb:?}: {}", done.stderr);
}

/// Role and incarnation of each member.
async fn list(system: &System) -> Vec<(u64, String, String)> {
    let done = member(system, &["list"]).await;
    let members: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    members
        .iter()
        .map(|one| (one["id"].as_u64().unwrap(), text(one, "role"), text(one, "incarnation")))
        .collect()
}

async fn roles(system: &System) -> Vec<(u64, String)> {
    list(system).await.into_iter().map(|(id, role, _)| (id, role)).collect()
}

/// A command that changes no route is acknowledged by a quorum.
async fn writes(system: &System) {
    eventually(DEADLINE, || async {
        let done = system.cluster.dovetail(&["annotate", "it writes"]).await.unwrap();
        if done.code == Some(0) { Ok(()) } else { Err(done.stderr) }
    })
    .await;
}

pub(crate) async fn says(system: &mut System, slot: u8, what: &str) {
    eventually(DEADLINE, || {
        let said = system.cluster.member_mut(slot).map(|member| member.log_tail());
        async move {
            let said = said.map_err(|error| error.to_string())?;
            if said.contains(what) { Ok(()) } else { Err(said) }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_is_replaced_by_its_new_disk() {
    let mut system = System::start_with_shop(2).await;
    let load = system.load("shop.example");
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    let wiped = system.cluster.slots().find(|slot| *slot != leader).unwrap();
    let third = system.cluster.slots().find(|slot| ![leader, wiped].contains(slot)).unwrap();
    let before = list(&system).await;
    refused(&system, &["replace", &wiped.to_string()], "there is nothing to replace").await;
    system.cluster.wipe_member(wiped).unwrap();
    refused(&system, &["replace", &wiped.to_string()], "Start it there with").await;
    system.cluster.start_member(wiped).unwrap();
    says(&mut system, wiped, &format!("dovetail member replace {wiped}")).await;

    let dry = member(&system, &["replace", &wiped.to_string(), "--dry-run"]).await;
    assert!(dry.code == Some(0) && dry.stdout.contains("\"dry_run\":true"), "{dry:?}");
    changed(&system, &["replace", &wiped.to_string()]).await;
    system.same_digest_everywhere().await;
    let after = list(&system).await;
    assert_eq!(after.len(), 3, "{after:?}");
    for ((id, _, old), (same, role, new)) in before.iter().zip(&after) {
        assert_eq!(id, same);
        assert_eq!(old != new, *id == u64::from(wiped), "member {id} is another disk");
        assert_ne!(role, "learner", "member {id}");
    }
    // The new disk votes: with the third one gone, it is half of the quorum.
    system.cluster.kill_member(third);
    writes(&system).await;
    system.cluster.start_member(third).unwrap();
    // And it is the same member after a restart.
    system.cluster.kill_member(wiped);
    system.cluster.start_member(wiped).unwrap();
    system.same_digest_everywhere().await;
    unharmed(load, "a member replaced").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_become_five_and_three_again() {
    let config = ClusterConfig { members: 5, founders: 3, ..ClusterConfig::default() };
    let mut system = System::prepare_with(config).await;
    for slot in 1..=3 {
        system.cluster.start_member(slot).unwrap();
    }
    system.cluster.start_proxy(1).unwrap();
    system.cluster.start_proxy(2).unwrap();
    system.cluster.leader(DEADLINE).await.unwrap();
    system.publish("shop", "shop.example", 2).await;
    let load = system.load("shop.example");
    let at = |system: &System, slot| format!("{slot}={}", system.cluster.member_addr(slot));
    let (four, five) = (at(&system, 4), at(&system, 5));
    refused(&system, &["add", &four], "Start it there with --id 4").await;
    for slot in [4, 5] {
        system.cluster.start_member(slot).unwrap();
        says(&mut system, slot, "dovetail member add").await;
    }
    refused(&system, &["promote", "4"], "member 4 is none").await;
    changed(&system, &["add", &four]).await;
    changed(&system, &["add", &five]).await;
    let roles_of_added = |roles: Vec<(u64, String)>| {
        roles.into_iter().filter(|(id, _)| *id > 3).map(|(_, role)| role).collect::<Vec<_>>()
    };
    assert_eq!(roles_of_added(roles(&system).await), ["learner", "learner"]);
    refused(&system, &["transfer-leader", "4"], "is a learner").await;
    changed(&system, &["promote", "4", "5"]).await;
    assert_eq!(roles_of_added(roles(&system).await), ["follower", "follower"]);
    system.same_digest_everywhere().await;

    // Five survive two.
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    let (other, third) = match leader {
        1 => (2, 3),
        2 => (1, 3),
        _ => (1, 2),
    };
    system.cluster.kill_member(4);
    system.cluster.kill_member(other);
    writes(&system).await;
    let (leads, other_id) = (leader.to_string(), other.to_string());
    refused(&system, &["remove", "5"], "the quorum would be lost").await;
    refused(&system, &["remove", &leads], "transfer-leader").await;
    refused(&system, &["transfer-leader", &other_id], "does not answer").await;
    system.cluster.start_member(other).unwrap();
    eventually(DEADLINE, || async {
        let status = system.cluster.status().await?;
        let back = status.members.iter().find(|one| one.id == u64::from(other));
        if back.is_some_and(|one| one.reachable) { Ok(()) } else { Err("not back".to_owned()) }
    })
    .await;

    changed(&system, &["remove", "4", "5"]).await;
    assert_eq!(list(&system).await.len(), 3);
    writes(&system).await;
    // One runs and hears that it is out, the other hears it when it starts.
    let ended = system.cluster.member_mut(5).unwrap().end(DEADLINE).await;
    assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
    says(&mut system, 5, "was removed from the quorum").await;
    system.cluster.start_member(4).unwrap();
    let ended = system.cluster.member_mut(4).unwrap().end(DEADLINE).await;
    assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
    says(&mut system, 4, "was removed from the quorum").await;

    let begun = Instant::now();
    changed(&system, &["transfer-leader", &third.to_string()]).await;
    writes(&system).await;
    println!("leadership transferred and the next command acknowledged: {:?}", begun.elapsed());
    assert_eq!(system.cluster.leader(DEADLINE).await.unwrap(), third);
    unharmed(load, "three members, five, three").await;
    // What operators did is in the log, with the author.
    let log = system.cluster.dovetail(&["-o", "json", "log", "show", "--limit", "10000"]).await;
    let told: Vec<Value> =
        log.unwrap().stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |what: &str| {
        told.iter()
            .any(|row| row["summary"] == what && row["actor"] == "dovetail://operator/operator")
    };
    assert!(told("promote to voter member 4, 5") && told("remove member 4, 5"));
}
