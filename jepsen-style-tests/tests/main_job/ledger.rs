//! The ledger of real members: exported, checked and replayed by whoever holds the file.

use std::process::Command;
use std::time::Duration;

use dovetail_jepsen::eventually;
use dovetail_jepsen::supervisor::{Finished, run_to_end};
use dovetail_jepsen::swarm::{ServiceConfig, lb_labels};
use serde_json::Value;

use crate::fixture::{DEADLINE, System};

const SECRET: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC-not-for-the-log";

fn json(done: &Finished) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error} in {done:?}"))
}

impl System {
    /// `dovetail` without a core.
    async fn auditor(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(&self.cluster.executables().dovetail);
        command.args(arguments);
        run_to_end(command, DEADLINE).await.unwrap()
    }

    /// `dovetaild VERB … --data-dir` of a member.
    pub(crate) async fn offline(&self, slot: u8, verb: &[&str]) -> Finished {
        let mut command = Command::new(&self.cluster.executables().dovetaild);
        command.args(verb).arg("--data-dir").arg(self.cluster.member_data_dir(slot));
        run_to_end(command, DEADLINE).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_log_comes_to_the_digests_that_members_had() {
    let mut system = System::start_with_shop(2).await;
    system.publish("blog", "blog.example", 3).await;
    std::fs::write(system.cluster.secrets_dir().join("shop.key"), SECRET).unwrap();
    system.swarm.stand_in().add_secret("shop.key");
    let mut labelled = ServiceConfig::published("bank", "bank.example", 1);
    labelled.labels.extend(lb_labels(&[("ssl_key", "shop.key"), ("ssl_cert", "shop.cert")]));
    system.swarm.create(labelled).await.unwrap();
    system
        .problems(|all| match all.iter().find(|one| one.value == "shop.cert") {
            Some(_) => Ok(()),
            None => Err(format!("{all:?}")),
        })
        .await;
    let noted = system.cluster.dovetail(&["annotate", "the auditor comes"]).await.unwrap();
    assert_eq!(noted.code, Some(0), "{noted:?}");
    let agreed = system.cluster.agreement(DEADLINE).await.unwrap();

    let path = system.cluster.place().path("shop.log");
    let file = path.to_str().unwrap();
    let exported = system.cluster.dovetail(&["-o", "json", "log", "export", file]).await.unwrap();
    assert_eq!(exported.code, Some(0), "{exported:?}");
    println!("{}", exported.stdout.trim());

    // Whoever has the file and the authority needs nobody.
    let ca = system.cluster.tls_dir().join("ca/ca.pem");
    let ca = ca.to_str().unwrap();
    let verified = system.auditor(&["-o", "json", "log", "verify", "--ca", ca, file]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert_eq!(json(&verified)["ok"], true);
    let replayed = json(&system.auditor(&["-o", "json", "replay", file]).await);
    assert_eq!(replayed["divergence"], Value::Null);
    let clusters = replayed["service_clusters"].as_array().unwrap();
    assert_eq!(clusters.len(), agreed.service_clusters.len());
    for cluster in clusters {
        let (revision, digest) = &agreed.service_clusters[cluster["name"].as_str().unwrap()];
        assert_eq!(cluster["revision"].as_u64(), Some(*revision));
        assert_eq!(cluster["digest"].as_str(), Some(digest.as_str()));
    }

    let asked = ["-o", "json", "replay", file, "--explain", "GET", "http://shop.example/"];
    let explained = json(&system.auditor(&asked).await);
    let chain = explained["explain"]["chain"].as_array().unwrap();
    let first = chain.last().expect("who published it");
    assert!(first["actor"].as_str().unwrap().starts_with("dovetail://member/"), "{explained}");
    assert!(first["leader_time_ms"].as_u64().unwrap() > 0, "{explained}");

    // With the core, its rows are compared, and so are the members'.
    let compared = system.cluster.dovetail(&["-o", "json", "log", "verify", file]).await.unwrap();
    let origin = json(&compared)["origin"].as_str().unwrap().to_owned();
    assert!(origin.starts_with("as 3 of 3 members have it"), "{origin}");
    let members = system.cluster.dovetail(&["-o", "json", "log", "verify"]).await.unwrap();
    assert_eq!(members.code, Some(0), "{members:?}");
    assert_eq!(json(&members)["members"].as_array().unwrap().len(), 3);

    // Names of secrets are in it, and nothing of what they hold.
    let shown = system.cluster.dovetail(&["log", "show", "--limit", "1000"]).await.unwrap();
    assert!(shown.stdout.contains("secret shop.key"), "{}", shown.stdout);
    let offline = system.offline(1, &["log", "verify"]).await;
    assert_ne!(offline.code, Some(0));
    assert!(offline.stderr.contains("another process uses it"), "{offline:?}");

    // The same from the folder of a member that has ended.
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    system.cluster.member(leader).unwrap().terminate();
    ended(&mut system, leader).await;
    let offline = json(&system.offline(leader, &["replay", "-o", "json"]).await);
    assert_eq!(offline["divergence"], Value::Null);
    assert_eq!(offline["service_clusters"], replayed["service_clusters"]);
    let offline = system.offline(leader, &["log", "verify"]).await;
    assert_eq!(offline.code, Some(0), "{offline:?}");
    nothing_secret(&system, leader, &path).await;
}

pub(crate) async fn ended(system: &mut System, slot: u8) {
    let deadline = std::time::Instant::now() + DEADLINE;
    while system.cluster.member_mut(slot).unwrap().exit_status().is_none() {
        assert!(std::time::Instant::now() < deadline, "member {slot} does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The content of a secret is neither in the exported rows nor in a member's folder.
async fn nothing_secret(system: &System, slot: u8, export: &std::path::Path) {
    let holds = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    assert!(holds(format!("x{SECRET}y").as_bytes()), "the check must catch one");
    assert!(!holds(&std::fs::read(export).unwrap()));
    // An export is compressed; the ledger in RocksDB is not.
    let folder = system.cluster.member_data_dir(slot).join("db");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        assert!(!holds(&std::fs::read(&path).unwrap()), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_set_is_tried_on_the_log_and_then_switched_on() {
    let mut system = System::start().await;
    let redirecting = |name: &str, to: &str| {
        let (host, to) = (format!("{name}.example"), format!("http://{to}.example"));
        let mut service = ServiceConfig::published(name, &host, 1);
        service.labels.extend(lb_labels(&[("redirects", &format!("{host},{to}"))]));
        service
    };
    for (name, to) in [("old", "new"), ("new", "old")] {
        system.swarm.create(redirecting(name, to)).await.unwrap();
        let host = format!("{name}.example");
        eventually(DEADLINE, || async {
            let routes = system.cluster.routes().await?;
            routes.find(&host, "/").map(|_| ()).ok_or_else(|| format!("no {host}: {routes:?}"))
        })
        .await;
    }
    let path = system.cluster.place().path("circle.log");
    let file = path.to_str().unwrap();
    let exported = system.cluster.dovetail(&["log", "export", file]).await.unwrap();
    assert_eq!(exported.code, Some(0), "{exported:?}");
    let tried = json(&system.auditor(&["-o", "json", "replay", file, "--rules", "2"]).await);
    let differences = tried["what_if"]["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1, "{tried}");
    assert_eq!(differences[0]["host"], "new.example", "the younger one");

    // A member that is down might not be able to follow.
    system.cluster.kill_member(3);
    let refused = system.cluster.dovetail(&["rules", "activate", "2"]).await.unwrap();
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.stderr.contains("member 3 does not answer"), "{refused:?}");
    system.cluster.start_member(3).unwrap();
    system.cluster.agreement(DEADLINE).await.unwrap();

    let activate = ["-o", "json", "rules", "activate", "2", "--request-id", "rules-2"];
    let activated = json(&system.cluster.dovetail(&activate).await.unwrap());
    assert_eq!(activated["applied"], "changed", "{activated}");
    system
        .problems(|all| match all.iter().find(|one| one.reason.contains("in a circle")) {
            Some(one) if one.service == "new" => Ok(()),
            _ => Err(format!("{all:?}")),
        })
        .await;
    // It is in force on every member, and after a restart of all.
    for slot in 1..=3 {
        system.cluster.kill_member(slot);
    }
    for slot in 1..=3 {
        system.cluster.start_member(slot).unwrap();
    }
    system.cluster.agreement(DEADLINE).await.unwrap();
    let shown = system.cluster.dovetail(&["-o", "json", "rules", "show"]).await.unwrap();
    assert_eq!(json(&shown)["in_force"], 2, "{shown:?}");
}
