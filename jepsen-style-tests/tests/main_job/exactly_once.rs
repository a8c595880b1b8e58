//! A command that is repeated under its request id is done once, and gets the first answer:
//! after a time-out, a change of leader, and a restart of everything.

use std::time::Duration;

use dovetail_jepsen::supervisor::Finished;
use serde_json::Value;

use crate::fixture::{DEADLINE, System};

/// `dovetail -o json VERB…`, which ends with 0 and prints one value.
async fn ask(system: &System, verb: &[&str]) -> Value {
    let done = run(system, verb).await;
    assert_eq!(done.code, Some(0), "{verb:?}: {done:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

async fn run(system: &System, verb: &[&str]) -> Finished {
    let json = [&["-o", "json"], verb].concat();
    system.cluster.dovetail(&json).await.unwrap()
}

/// All of `shop.example` to the service `shop`.
async fn order(system: &System, request_id: &str) -> Value {
    let to = ["--service", "shop=10000", "--request-id", request_id];
    ask(system, &[&["canary", "set", "--host", "shop.example"], &to[..]].concat()).await
}

/// The same answer as the first, marked as such.
fn assert_repeats(again: &Value, first: &Value) {
    assert_eq!(again["first_answer"], true, "{again}");
    for field in ["index", "revision", "applied"] {
        assert_eq!(again[field], first[field], "{field}: {again} after {first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_gets_the_first_answer() {
    let mut system = System::start_with_shop(1).await;
    let first = order(&system, "deploy-42").await;
    assert_eq!(first["first_answer"], false, "{first}");
    assert_repeats(&order(&system, "deploy-42").await, &first);

    let killed = system.cluster.leader(DEADLINE).await.unwrap();
    system.cluster.kill_member(killed);
    assert_repeats(&order(&system, "deploy-42").await, &first);
    println!("repeated after the leader was killed");

    for slot in system.cluster.slots() {
        system.cluster.kill_member(slot);
    }
    for slot in system.cluster.slots() {
        system.cluster.start_member(slot).unwrap();
    }
    system.cluster.agreement(DEADLINE).await.unwrap();
    assert_repeats(&order(&system, "deploy-42").await, &first);
    println!("repeated after all members were started again");

    // It was ordered once, whatever came again.
    let shown = ask(&system, &["canary", "show", "--host", "shop.example"]).await;
    assert_eq!(shown["index"], first["index"], "{shown}");
    assert_eq!(shown["actor"], "dovetail://operator/operator", "{shown}");

    let other = ["canary", "clear", "--host", "shop.example", "--request-id", "deploy-42"];
    let refused = run(&system, &other).await;
    println!("{}", refused.stderr.trim());
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.stderr.contains("was used for another command"), "{refused:?}");
    let shown = ask(&system, &["canary", "show", "--host", "shop.example"]).await;
    assert_eq!(shown["index"], first["index"], "nothing was cleared: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_learnt_by_the_same_command() {
    let mut system = System::start_with_shop(1).await;
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    let others: Vec<_> = system.cluster.slots().filter(|slot| *slot != leader).collect();
    for slot in &others {
        system.cluster.member(*slot).unwrap().pause();
    }
    // The leader writes and has nobody to agree with: what it wrote may count later.
    let addr = system.cluster.member_addr(leader).to_string();
    let verb = ["--timeout", "4s", "annotate", "--request-id", "lost-1", "deploy"];
    let lost = system.cluster.dovetail_at(&addr, &verb).await.unwrap();
    println!("{}", lost.stderr.trim());
    assert_eq!(lost.code, Some(5), "{lost:?}");
    assert!(lost.stderr.contains("--request-id lost-1"), "{lost:?}");
    for slot in &others {
        system.cluster.member(*slot).unwrap().resume();
    }
    system.cluster.agreement(DEADLINE).await.unwrap();
    let told = ask(&system, &["annotate", "--request-id", "lost-1", "deploy"]).await;
    let again = ask(&system, &["annotate", "--request-id", "lost-1", "deploy"]).await;
    assert_repeats(
        &again,
        &serde_json::json!({
            "index": told["index"], "revision": told["revision"], "applied": told["applied"],
        }),
    );
    // Whatever was written under that id, the answer names the first of it.
    let log = run(&system, &["log", "show", "--limit", "1000"]).await;
    let rows: Vec<Value> =
        log.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = rows.iter().find(|row| row["request_id"] == "lost-1").unwrap();
    assert_eq!(first["index"], told["index"], "{first}");
    tokio::time::timeout(Duration::from_secs(60), system.same_digest_everywhere()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_refuses_as_the_command_would() {
    let system = System::start_with_shop(1).await;
    let before = system.cluster.routes().await.unwrap();
    let set = ["canary", "set", "--host", "shop.example", "--dry-run"];
    let all = ["--service", "shop=10000"];
    let told = ask(&system, &[&set, &all[..]].concat()).await;
    assert_eq!(told["dry_run"], true, "{told}");
    assert!(told["index"].as_u64().is_some_and(|index| index > before.revision), "{told}");
    for (shares, said) in [
        (&["--service", "shop=9000"][..], "they must sum to 10000"),
        (&["--service", "shop=9000", "--service", "blog=1000"], "is not on"),
    ] {
        for verb in [&set[..], &set[..4]] {
            let refused = run(&system, &[verb, shares].concat()).await;
            assert_eq!(refused.code, Some(3), "{refused:?}");
            assert!(refused.stderr.contains(said), "{refused:?}");
        }
    }
    let none = run(&system, &["canary", "show", "--host", "shop.example"]).await;
    assert_eq!(none.code, Some(3), "{none:?}");
    assert_eq!(system.cluster.routes().await.unwrap().revision, before.revision);
}
