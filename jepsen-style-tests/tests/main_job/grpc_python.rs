//! The admin API as a stranger's program speaks it: Python's grpcio, with what reflection
//! tells and nothing of ours. Skipped, with the reason, where Python lacks a module
//! (`pip install grpcio grpcio-reflection`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dovetail_jepsen::supervisor::run_to_end;

use crate::fixture::System;

/// For a Python that starts on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn python(arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_orders_a_canary_and_a_rollback_with_what_reflection_tells() {
    let probe = run_to_end(python(&["-c", "import grpc, grpc_reflection"]), DEADLINE).await;
    if !probe.is_ok_and(|probe| probe.code == Some(0)) {
        println!("skipped: python3 lacks a module (pip install grpcio grpcio-reflection)");
        return;
    }
    let system = System::start_with_shop(1).await;
    system.publish("next", "shop.example", 1).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/main_job/operator.py");
    let (script, folder) = (script.to_string_lossy(), system.cluster.operator_dir());
    // A follower passes on what only the leader may do.
    let leader = system.cluster.leader(DEADLINE).await.unwrap();
    let follower = system.cluster.slots().find(|slot| *slot != leader).unwrap();
    let member = system.cluster.member_addr(follower).to_string();
    let arguments = [&*script, &*folder.to_string_lossy(), &member, "shop.example", "shop", "next"];
    let done = run_to_end(python(&arguments), DEADLINE).await.unwrap();
    print!("{}", done.stdout);
    assert_eq!(done.code, Some(0), "{done:?}");
    let held = done.stdout.lines().filter(|line| line.starts_with("held ")).count();
    assert_eq!(held, 12, "{}", done.stdout);
}
