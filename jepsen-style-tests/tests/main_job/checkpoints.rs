//! Members compare what they hold; one whose disk was altered is found, and serves nobody.

use std::path::PathBuf;
use std::time::Duration;

use dovetail_jepsen::cluster::ClusterConfig;
use dovetail_jepsen::operator::Operator;
use dovetail_jepsen::{eventually, http};
use dovetail_proto::v1 as pb;
use serde_json::Value;
use tonic::Code;

use crate::fixture::{DEADLINE, System, unharmed};
use crate::ledger::ended;

/// Request ids of the same length, so that one can stand where the other stood. Nothing that
/// Docker shows: a leader would list it anew, and so make its own state right again.
const WRITTEN: &str = "the-change-request";
const ALTERED: &str = "the-change-refused";

impl System {
    /// A system that compares after 20 entries, and `idle` seconds after the last one.
    async fn comparing(idle: &str) -> Self {
        let arguments = ["--checkpoint-entries", "20", "--checkpoint-idle", idle];
        let config = ClusterConfig {
            member_arguments: arguments.map(str::to_owned).into(),
            ..ClusterConfig::default()
        };
        let mut system = Self::prepare_with(config).await;
        system.cluster.start_all().unwrap();
        system.cluster.agreement(DEADLINE).await.unwrap();
        system.publish("shop", "shop.example", 2).await;
        let noted = ["annotate", "--request-id", WRITTEN, "as it was ordered"];
        assert_eq!(system.cluster.dovetail(&noted).await.unwrap().code, Some(0));
        system.remark(30).await;
        eventually(DEADLINE, || shown(&system, "state ")).await;
        system
    }

    /// Writes so many entries.
    pub(crate) async fn remark(&self, count: u8) {
        for number in 0..count {
            let noted = self.cluster.dovetail(&["annotate", &format!("remark {number}")]).await;
            assert_eq!(noted.unwrap().code, Some(0));
        }
    }

    /// The leader takes a raft snapshot, and ends; somebody alters it on its disk.
    async fn alter_the_leader(&mut self) -> u8 {
        let altered = self.cluster.leader(DEADLINE).await.unwrap();
        let backup = self.cluster.place().path("backup");
        let saved = self.cluster.dovetail(&["backup", backup.to_str().unwrap()]).await.unwrap();
        assert_eq!(saved.code, Some(0), "{saved:?}");
        self.cluster.member(altered).unwrap().terminate();
        ended(self, altered).await;
        let leader = self.cluster.leader(DEADLINE).await.unwrap();
        assert_ne!(leader, altered);
        alter(self, altered);
        self.cluster.start_member(altered).unwrap();
        altered
    }

    /// Waits until a member says of itself that it differs.
    async fn finds(&self, altered: u8) {
        self.problems(|all| {
            let own = format!("member {altered}: its state at index");
            let found = all.iter().find(|problem| problem.reason.starts_with(&own));
            found.map(|found| println!("{}", found.reason)).ok_or_else(|| format!("{all:?}"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_state_was_altered_leads_no_more() {
    // So long that nothing is compared before it leads.
    let mut system = System::comparing("600").await;
    let altered = system.alter_the_leader().await;
    eventually(DEADLINE, || async {
        let to = altered.to_string();
        let moved = system.cluster.dovetail(&["member", "transfer-leader", &to]).await;
        let moved = moved.map_err(|error| error.to_string())?;
        let leads = system.cluster.leader(DEADLINE).await.map_err(|error| error.to_string())?;
        if leads == altered { Ok(()) } else { Err(format!("{leads} leads: {moved:?}")) }
    })
    .await;
    let load = system.load("shop.example");
    load.until_sent(50, DEADLINE).await.unwrap();
    system.remark(25).await;
    eventually(DEADLINE, || async {
        let leader = system.cluster.leader(DEADLINE).await.map_err(|error| error.to_string())?;
        if leader == altered { Err(format!("member {leader} leads on")) } else { Ok(()) }
    })
    .await;
    system.finds(altered).await;
    unharmed(load, "a leader that differs steps down").await;
    let exported = system.cluster.place().path("after.log");
    let path = exported.to_str().unwrap();
    let exported = system.cluster.dovetail(&["log", "export", path]).await.unwrap();
    assert_eq!(exported.code, Some(0), "{exported:?}");
    // What it proposed while it led holds: an entry means the same to all who apply it.
    let replayed = system.cluster.dovetail(&["-o", "json", "replay", path]).await.unwrap();
    let replayed: Value = serde_json::from_str(&replayed.stdout).unwrap();
    assert_eq!(replayed["divergence"], Value::Null, "{replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_state_was_altered_serves_nobody() {
    let mut system = System::comparing("1").await;

    // The checkpoints of a log are what its replay comes to.
    let path = system.cluster.place().path("before.log");
    let path = path.to_str().unwrap();
    let exported = system.cluster.dovetail(&["log", "export", path]).await.unwrap();
    assert_eq!(exported.code, Some(0), "{exported:?}");
    let replayed = system.cluster.dovetail(&["-o", "json", "replay", path]).await.unwrap();
    let replayed: Value = serde_json::from_str(&replayed.stdout).unwrap();
    assert!(replayed["checkpoints"].as_u64().unwrap() > 0, "{replayed}");
    assert_eq!(replayed["divergence"], Value::Null, "{replayed}");

    let altered = system.alter_the_leader().await;
    system.finds(altered).await;
    // It is not ready, answers no operator, and has no proxies.
    let admin = system.cluster.member_admin_addr(altered);
    let ready = http::get(admin, "localhost", "/readyz", Duration::from_secs(2)).await.unwrap();
    assert_eq!(ready.status(), 503);
    let core = system.cluster.member_addr(altered).to_string();
    let operator = Operator::load(&system.cluster.operator_dir()).unwrap();
    let request = pb::RoutesRequest { stale: true, ..pb::RoutesRequest::default() };
    let refused = operator.admin(&core).unwrap().routes(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("differs from the majority's"), "{refused:?}");
    // Its refusal says who leads, so that whoever asks it is answered all the same.
    let led_on = system.cluster.dovetail_at(&core, &["routes"]).await.unwrap();
    assert_eq!(led_on.code, Some(0), "{led_on:?}");
    eventually(DEADLINE, || async {
        let status = system.cluster.dovetail(&["-o", "json", "status"]).await;
        let status = status.map_err(|error| error.to_string())?;
        let status: Value =
            serde_json::from_str(&status.stdout).map_err(|error| error.to_string())?;
        let connected = |proxy: &&Value| proxy["connected"] == true;
        let proxies: Vec<_> =
            status["proxies"].as_array().into_iter().flatten().filter(connected).collect();
        let elsewhere = proxies.iter().filter(|proxy| proxy["member"] != u64::from(altered));
        if elsewhere.count() == 2 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    // The others serve on.
    system.publish("blog", "blog.example", 1).await;
    system.cluster.routed("shop.example", DEADLINE).await.unwrap();
    assert_ne!(system.cluster.leader(DEADLINE).await.unwrap(), altered);

    // A restart makes nothing right: it says so before anything is compared again.
    system.cluster.kill_member(altered);
    assert!(system.cluster.member_data_dir(altered).join("diverged").exists());
    system.cluster.start_member(altered).unwrap();
    system.finds(altered).await;
}

async fn shown(system: &System, text: &str) -> Result<(), String> {
    let log = system.cluster.dovetail(&["log", "show", "--limit", "1000"]).await;
    let log = log.map_err(|error| error.to_string())?;
    if log.stdout.contains(text) { Ok(()) } else { Err(log.stdout) }
}

/// Another name in the newest raft snapshot, sealed as the store seals it.
fn alter(system: &System, slot: u8) {
    let folder = system.cluster.member_data_dir(slot).join("raft-snapshots");
    let index = |path: &PathBuf| -> Option<u64> {
        path.file_name()?.to_str()?.strip_suffix(".snap")?.rsplit('-').next()?.parse().ok()
    };
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let newest = files.max_by_key(index).unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes.truncate(bytes.len() - blake3::OUT_LEN);
    let place = bytes.windows(WRITTEN.len()).position(|part| part == WRITTEN.as_bytes()).unwrap();
    bytes[place..place + ALTERED.len()].copy_from_slice(ALTERED.as_bytes());
    let seal = blake3::hash(&bytes);
    bytes.extend_from_slice(seal.as_bytes());
    std::fs::write(newest, bytes).unwrap();
}
