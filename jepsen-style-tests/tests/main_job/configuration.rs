//! The configuration: a file seeds it, an operator replaces it, and it survives its leader.

use dovetail_jepsen::cluster::ClusterConfig;
use dovetail_jepsen::eventually;
use dovetail_jepsen::supervisor::Finished;
use serde_json::Value;

use crate::fixture::{DEADLINE, System};

const SEED: &str = "[Extensions.front.Config]\nHideInfoHeaders = true\n";

async fn config(system: &System, verb: &[&str]) -> Finished {
    system.cluster.dovetail(&[&["-o", "json", "config"], verb].concat()).await.unwrap()
}

async fn in_force(system: &System) -> Result<Value, String> {
    let done = config(system, &["show"]).await;
    if done.code != Some(0) {
        return Err(done.stderr);
    }
    serde_json::from_str(&done.stdout).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_applies_outlives_the_leader_and_the_file() {
    let seeded = ClusterConfig { config: Some(SEED.to_owned()), ..ClusterConfig::default() };
    let mut system = System::prepare_with(seeded).await;
    system.cluster.start_all().unwrap();
    system.cluster.agreement(DEADLINE).await.unwrap();
    eventually(DEADLINE, || async {
        let file = in_force(&system).await?["file"].as_str().unwrap_or_default().to_owned();
        if file.contains("HideInfoHeaders = true") { Ok(()) } else { Err(file) }
    })
    .await;

    let file = system.cluster.place().path("applied.toml");
    let path = file.to_string_lossy().into_owned();
    for (text, said) in [
        ("PollInterval = \"3s\"\n[Extensions.a.Config]\nIPHash = 7\n", "line 3, column 10"),
        ("PollInterval = \n", "line 1"),
        ("[Extensions.a.Config]\nAdminPass = \"hunter2\"\n", "secret:"),
        ("DockerURL = \"unix:///var/run/docker.sock\"\n", "has no cluster key"),
    ] {
        std::fs::write(&file, text).unwrap();
        let refused = config(&system, &["apply", &path]).await;
        println!("{}", refused.stderr.trim());
        assert_eq!(refused.code, Some(3), "{text}: {refused:?}");
        assert!(refused.stderr.contains(said), "{text}: {}", refused.stderr);
        assert!(!refused.stderr.contains("hunter2"), "a secret is not said again");
    }
    std::fs::write(&file, "[Extensions.front.Config]\nConnectTimeout = \"2s\"\n").unwrap();
    let dry = config(&system, &["apply", &path, "--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(!in_force(&system).await.unwrap().to_string().contains("ConnectTimeout"));
    let done = config(&system, &["apply", &path, "--request-id", "c1"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let applied = in_force(&system).await.unwrap();
    let text = applied["file"].as_str().unwrap();
    assert!(text.contains("ConnectTimeout = \"2s\"") && !text.contains("Hide"), "{text}");
    assert_eq!(applied["actor"], "dovetail://operator/operator");

    // Another leader, with the same file; then all of them started again.
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    system.cluster.kill_member(leader);
    system.cluster.start_member(leader).unwrap();
    system.same_digest_everywhere().await;
    assert_eq!(in_force(&system).await.unwrap(), applied);
    for slot in system.cluster.slots() {
        system.cluster.kill_member(slot);
    }
    system.cluster.start_all().unwrap();
    system.same_digest_everywhere().await;
    assert_eq!(in_force(&system).await.unwrap(), applied);
    assert_eq!(system.cluster.problems().await.unwrap(), []);

    let history = config(&system, &["history"]).await;
    let history: Vec<Value> = serde_json::from_str(&history.stdout).unwrap();
    let actors: Vec<_> = history.iter().map(|one| one["actor"].as_str().unwrap()).collect();
    assert_eq!(actors.len(), 2, "{actors:?}");
    assert!(actors[0].starts_with("dovetail://member/"), "{actors:?}");
    let first = history[0]["index"].to_string();
    let shown = config(&system, &["show", "--at", &first]).await;
    assert!(shown.stdout.contains("HideInfoHeaders"), "{shown:?}");
}
