//! A short run of `dovetail-break`: real processes, real disks, real faults, all checks.
//!
//! `DOVETAIL_BREAK_MINUTES` says for how long (CI: 5), with all faults that can be had here;
//! without it, a few of them come for 1.5 minutes. `DOVETAIL_BREAK_SEED` repeats an order of them.

use std::process::Command;

use dovetail_jepsen::namespaces;

/// What a short run is for. Each fault takes effect at least once, or the run fails.
const FAULTS: &str = "kill,pause,isolate-leader,halves,power-cut,disk-full,replace,kill-proxy";
/// What of it can be had without root.
const FAULTS_WITHOUT_ROOT: &str = "kill,pause,isolate-leader,halves,replace,kill-proxy";

#[test]
fn processes_under_faults_keep_their_promises() {
    let (minutes, faults) = match std::env::var("DOVETAIL_BREAK_MINUTES") {
        Ok(minutes) => (minutes, "all"),
        Err(_) if namespaces::missing().is_some() => ("1.5".to_owned(), FAULTS_WITHOUT_ROOT),
        Err(_) => ("1.5".to_owned(), FAULTS),
    };
    let seed = std::env::var("DOVETAIL_BREAK_SEED");
    let seed = seed.unwrap_or_else(|_| fastrand::u32(..).to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_dovetail-break"))
        .args(["run", "--minutes", &minutes, "--seed", &seed, "--nemesis", faults])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{told}{errors}");
    assert_eq!(output.status.code(), Some(0), "seed {seed}");
}

#[test]
fn a_history_that_was_kept_is_checked_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.jsonl");
    let line = |at: u32, rest: &str| format!("{{\"at\":{at},{rest}}}\n");
    let read = |id: u32, value: &str| {
        let op = "\"op\":{\"f\":\"read\",\"key\":\"r\"},\"client\":\"one\"";
        let answer = format!("\"answer\":{{\"a\":\"value\",\"value\":{value}}}");
        line(id, &format!("\"type\":\"invoke\",\"id\":{id},{op}"))
            + &line(id, &format!("\"type\":\"ok\",\"id\":{id},{answer}"))
    };
    // Nobody wrote it.
    std::fs::write(&path, read(1, "null") + &read(2, "7")).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_dovetail-break"))
        .arg("check")
        .arg(&path)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.status.code(), Some(1), "{told}");
    assert!(told.contains("linearizable registers: VIOLATED"), "{told}");
    assert!(told.contains("read 7 (begun at line 3"), "{told}");
    assert!(told.contains("set of remarks: NOT EXERCISED"), "{told}");

    std::fs::write(&path, "what\n").unwrap();
    let broken =
        Command::new(env!("CARGO_BIN_EXE_dovetail-break")).arg("check").arg(&path).output();
    let broken = broken.unwrap();
    assert_eq!(broken.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("line 1: what"), "{broken:?}");
}
