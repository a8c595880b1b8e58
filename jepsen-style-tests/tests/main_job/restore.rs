//! All members are lost, and a backup or a single disk is left: a new quorum goes on, and
//! the proxies, which served all the time, follow it without going back.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dovetail_jepsen::eventually;
use dovetail_jepsen::supervisor::run_to_end;
use dovetail_jepsen::swarm::ServiceConfig;
use serde_json::Value;

use crate::fixture::{DEADLINE, System, unharmed};

/// `dovetaild VERB… --id 1 …` on the folder of member 1.
async fn offline(system: &System, verb: &[&str]) -> Value {
    let mut command = Command::new(&system.cluster.executables().dovetaild);
    command.args(verb).args(["-o", "json", "--id", "1"]);
    command.args(["--advertise", &system.cluster.member_addr(1).to_string()]);
    command.arg("--data-dir").arg(system.cluster.member_data_dir(1));
    let done = run_to_end(command, DEADLINE).await.unwrap();
    assert_eq!(done.code, Some(0), "{verb:?}: {done:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

/// Member 1 leads alone, and every proxy follows it.
async fn goes_on(system: &System, made: &Value) {
    let begun = Instant::now();
    let index = made["index"].as_u64().unwrap();
    eventually(DEADLINE, || async {
        let status = system.cluster.status().await?;
        if made["cluster_id"] != status.cluster_id {
            return Err(format!("it is quorum {}", status.cluster_id));
        }
        let behind = status.proxies.iter().filter(|one| !one.connected || one.revision < index);
        match (status.proxies.len(), behind.count()) {
            (2, 0) => Ok(()),
            (_, behind) => Err(format!("{behind} of {} proxies behind", status.proxies.len())),
        }
    })
    .await;
    println!("the new quorum and both proxies after {:?}", begun.elapsed());
}

/// Two more members with new disks make it three.
async fn grow(system: &mut System) {
    for slot in [2, 3] {
        system.cluster.start_member(slot).unwrap();
        let member = format!("{slot}={}", system.cluster.member_addr(slot));
        eventually(DEADLINE, || async {
            let done = system.cluster.dovetail(&["member", "add", &member]).await.unwrap();
            if done.code == Some(0) { Ok(()) } else { Err(done.stderr) }
        })
        .await;
    }
    let done = system.cluster.dovetail(&["member", "promote", "2", "3"]).await.unwrap();
    assert_eq!(done.code, Some(0), "{done:?}");
    system.same_digest_everywhere().await;
}

/// The past begins where the new quorum does: from there on it is told, before it refused.
async fn past_begins(system: &System, made: &Value) {
    let begin = made["index"].as_u64().unwrap();
    let at = |index: u64| {
        let index = index.to_string();
        async move { system.cluster.dovetail(&["-o", "json", "routes", "--at", &index]).await.unwrap() }
    };
    let then = at(begin).await;
    assert!(then.code == Some(0) && then.stdout.contains("shop.example"), "{then:?}");
    let before = at(begin - 1).await;
    assert_eq!(before.code, Some(3), "{before:?}");
    assert!(before.stderr.contains("is older than what this member keeps"), "{before:?}");
    let history = system.cluster.dovetail(&["history", "--host", "news.example"]).await.unwrap();
    assert!(history.code == Some(0) && history.stdout.contains("published"), "{history:?}");
    let diff = ["-o", "json", "diff", &begin.to_string()];
    let diff = system.cluster.dovetail(&diff).await.unwrap();
    assert!(diff.code == Some(0) && diff.stdout.contains("news.example"), "{diff:?}");

    // An auditor replays what the new quorum wrote from the state that it began with.
    let file = system.cluster.place().path("after.log");
    let file = file.to_str().unwrap();
    let exported = system.cluster.dovetail(&["log", "export", file]).await.unwrap();
    assert_eq!(exported.code, Some(0), "{exported:?}");
    let replayed = system.cluster.dovetail(&["-o", "json", "replay", file]).await.unwrap();
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    let replayed: Value = serde_json::from_str(&replayed.stdout).unwrap();
    let routes = system.cluster.routes().await.unwrap();
    assert_eq!(replayed["service_clusters"][0]["digest"].as_str(), Some(routes.digest.as_str()));
}

async fn lose_all(system: &mut System, spared: Option<u8>) {
    for slot in system.cluster.slots() {
        system.cluster.kill_member(slot);
    }
    for slot in system.cluster.slots().filter(|slot| Some(*slot) != spared) {
        system.cluster.wipe_member(slot).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_becomes_a_quorum_and_proxies_never_go_back() {
    let mut system = System::start_with_shop(2).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("today.backup");
    let path = file.to_str().unwrap().to_owned();
    let share = ["canary", "set", "--host", "shop.example", "--service", "shop=10000"];
    let done = system.cluster.dovetail(&share).await.unwrap();
    assert_eq!(done.code, Some(0), "{done:?}");
    let done = system.cluster.dovetail(&["backup", &path]).await.unwrap();
    assert_eq!(done.code, Some(0), "{done:?}");
    // What comes after the backup is lost to the core, and no proxy goes back for it.
    system.publish("news", "news.example", 1).await;
    let load = system.load("shop.example");
    lose_all(&mut system, None).await;

    let made = offline(&system, &["restore", &path, "--new-cluster"]).await;
    system.cluster.start_member(1).unwrap();
    goes_on(&system, &made).await;
    // Docker still shows what the backup did not hold.
    system.cluster.routed("news.example", DEADLINE).await.unwrap();
    past_begins(&system, &made).await;
    let canary = ["-o", "json", "canary", "show", "--host", "shop.example"];
    let shown = system.cluster.dovetail(&canary).await.unwrap();
    assert!(shown.code == Some(0) && shown.stdout.contains("10000"), "{shown:?}");
    grow(&mut system).await;
    unharmed(load, "a quorum lost and restored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_disk_becomes_a_quorum() {
    let mut system = System::start_with_shop(2).await;
    let load = system.load("shop.example");
    lose_all(&mut system, Some(1)).await;
    let made = offline(&system, &["recover", "--force-new-cluster"]).await;
    let aside = made["aside"].as_str().unwrap().to_owned();
    assert!(Path::new(&aside).join("db").is_dir(), "{aside}");
    system.cluster.start_member(1).unwrap();
    goes_on(&system, &made).await;
    system.swarm.create(ServiceConfig::published("news", "news.example", 1)).await.unwrap();
    system.cluster.routed("news.example", Duration::from_secs(10)).await.unwrap();
    past_begins(&system, &made).await;
    grow(&mut system).await;
    unharmed(load, "a majority lost and recovered").await;
}
