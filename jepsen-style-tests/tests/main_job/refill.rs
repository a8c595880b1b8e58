//! A new disk begins with a raft snapshot, and comes to hold the ledger from its first row on.

use dovetail_jepsen::cluster::ClusterConfig;
use dovetail_jepsen::eventually;
use serde_json::Value;

use crate::fixture::{DEADLINE, System, unharmed};
use crate::members::{changed, says};

/// What each member says of its own ledger.
async fn ledgers(system: &System) -> Result<Vec<Value>, String> {
    let done = system.cluster.dovetail(&["-o", "json", "log", "verify"]).await;
    let done = done.map_err(|error| error.to_string())?;
    let report: Value = serde_json::from_str(&done.stdout).map_err(|_| format!("{done:?}"))?;
    Ok(report["members"].as_array().cloned().unwrap_or_default())
}

/// Whether a member's newest raft snapshot holds what was up to `index`, at least.
fn snapshot_from(system: &System, slot: u8, index: u64) -> Result<(), String> {
    let folder = system.cluster.member_data_dir(slot).join("raft-snapshots");
    let files = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let indexes = names
        .filter_map(|name| name.strip_suffix(".snap")?.rsplit('-').next()?.parse::<u64>().ok());
    match indexes.max() {
        Some(newest) if newest >= index => Ok(()),
        newest => Err(format!("the newest raft snapshot is at {newest:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_member_fetches_the_ledger_that_it_lacks() {
    let arguments = ["--raft-snapshot-entries", "30", "--raft-log-kept", "10"];
    let mut system = System::prepare_with(ClusterConfig {
        member_arguments: arguments.map(str::to_owned).into(),
        ..ClusterConfig::default()
    })
    .await;
    system.cluster.start_all().unwrap();
    system.cluster.agreement(DEADLINE).await.unwrap();
    system.publish("shop", "shop.example", 2).await;
    let load = system.load("shop.example");
    let early = system.cluster.status().await.unwrap().index;
    system.remark(60).await;
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    eventually(DEADLINE, || async { snapshot_from(&system, leader, 30) }).await;
    system.remark(20).await;

    let wiped = system.cluster.slots().find(|slot| *slot != leader).unwrap();
    system.cluster.wipe_member(wiped).unwrap();
    system.cluster.start_member(wiped).unwrap();
    says(&mut system, wiped, &format!("dovetail member replace {wiped}")).await;
    changed(&system, &["replace", &wiped.to_string()]).await;
    says(&mut system, wiped, "rows of the ledger are lacking").await;
    let whole = eventually(DEADLINE, || async {
        let all = ledgers(&system).await?;
        let alike = |one: &Value| {
            one["first"] == 0 && one["fetching"] == false && one["verdict"] == "holds together"
        };
        if all.len() == 3 && all.iter().all(alike) { Ok(all) } else { Err(format!("{all:?}")) }
    })
    .await;
    println!("{whole:?}");

    // So it tells what was before its disk was there: running, by itself, and offline.
    let at = early.to_string();
    let own = system.cluster.member_addr(wiped).to_string();
    let then = system.cluster.dovetail_at(&own, &["routes", "--at", &at]).await.unwrap();
    assert!(then.code == Some(0) && then.stdout.contains("shop.example"), "{then:?}");
    system.cluster.kill_member(wiped);
    let until = format!("up to index {at};");
    let replayed = system.offline(wiped, &["replay", "--until", &at]).await;
    assert!(replayed.code == Some(0) && replayed.stdout.contains(&until), "{replayed:?}");
    let asked = ["replay", "--rules", "2", "--explain", "GET", "http://shop.example/"];
    let told = system.offline(wiped, &asked).await;
    for said in ["host shop.example is published", "every route would be the same"] {
        assert!(told.code == Some(0) && told.stdout.contains(said), "{told:?}");
    }
    unharmed(load, "a ledger fetched").await;
}
