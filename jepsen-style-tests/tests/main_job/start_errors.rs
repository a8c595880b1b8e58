//! What cannot start says why in one clear line, and ends with a code.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dovetail_jepsen::cluster::{Cluster, ClusterConfig};
use dovetail_jepsen::eventually;
use dovetail_jepsen::supervisor::{Finished, ProcessConfig, run_to_end};

use crate::fixture::{DEADLINE, System};

/// How long a process may take to see that it cannot start.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(10);

async fn prepared() -> Cluster {
    Cluster::prepare(ClusterConfig::default()).await.unwrap()
}

/// Runs what must refuse to run.
async fn run(config: &ProcessConfig) -> Finished {
    let mut command = Command::new(&config.executable);
    command.args(&config.arguments);
    run_to_end(command, REFUSAL_DEADLINE).await.unwrap()
}

/// The same command with another value behind `flag`.
fn with(config: &ProcessConfig, flag: &str, value: &str) -> ProcessConfig {
    let mut config = config.clone();
    let at = config.arguments.iter().position(|argument| argument == flag).unwrap();
    config.arguments[at + 1] = OsString::from(value);
    config
}

/// One clear line that says all of `words`, and a code that is not 0.
fn assert_refused(finished: &Finished, words: &[&str]) {
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let line = said.lines().rev().find(|line| words.iter().all(|word| line.contains(word)));
    let line = line.unwrap_or_else(|| panic!("no line with {words:?} in:\n{said}"));
    println!("{line}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(said.lines().count() <= 12, "more than a clear line:\n{said}");
}

#[tokio::test]
async fn wrong_members_are_refused() {
    let cluster = prepared().await;
    let good = cluster.member_config(1);
    for (members, word) in [
        ("", "members"),
        ("1=", "1="),
        ("one=127.0.0.1:1", "one"),
        ("1=127.0.0.1", "127.0.0.1"),
        ("1=127.0.0.1:99999", "99999"),
        ("2=127.0.0.1:1,3=127.0.0.1:2,4=127.0.0.1:3", "1"),
        ("1=127.0.0.1:1,1=127.0.0.1:2,2=127.0.0.1:3", "1"),
        ("1=127.0.0.1:1,2=127.0.0.1:2", "2"),
    ] {
        println!("--members {members:?}");
        assert_refused(&run(&with(&good, "--members", members)).await, &[word]);
    }
}

#[tokio::test]
async fn an_unreadable_key_is_named() {
    let cluster = prepared().await;
    for (config, role) in
        [(cluster.member_config(1), "member-1"), (cluster.proxy_config(1), "proxy")]
    {
        let key = cluster.tls_dir().join(role).join("key.pem");
        std::fs::write(&key, "not a key").unwrap();
        assert_refused(&run(&config).await, &[&key.to_string_lossy()]);
        std::fs::remove_file(&key).unwrap();
        assert_refused(&run(&config).await, &[&key.to_string_lossy()]);
    }
}

#[tokio::test]
async fn a_certificate_of_another_role_or_slot_is_named() {
    let cluster = prepared().await;
    let folder = |role: &str| cluster.tls_dir().join(role).to_string_lossy().into_owned();
    let member = cluster.member_config(1);
    assert_refused(&run(&with(&member, "--tls-dir", &folder("member-2"))).await, &["member/2"]);
    assert_refused(&run(&with(&member, "--tls-dir", &folder("proxy"))).await, &["proxy"]);
    let proxy = cluster.proxy_config(1);
    assert_refused(&run(&with(&proxy, "--tls-dir", &folder("member-1"))).await, &["member/1"]);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let cluster = prepared().await;
    for (addr, config) in [
        (cluster.member_addr(1), cluster.member_config(1)),
        (cluster.member_admin_addr(1), cluster.member_config(1)),
        (cluster.proxy_addr(1), cluster.proxy_config(1)),
        (cluster.proxy_admin_addr(1), cluster.proxy_config(1)),
    ] {
        let taken = TcpListener::bind(addr).unwrap();
        assert_refused(&run(&config).await, &[&addr.to_string()]);
        drop(taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_of_another_slot_or_cluster_is_refused() {
    let mut system = System::start_with_shop(1).await;
    for slot in system.cluster.slots() {
        system.cluster.kill_member(slot);
    }
    // Member 1 with the disk of member 2.
    let of_2 = system.cluster.member_data_dir(2);
    let other_slot = with(&system.cluster.member_config(1), "--data-dir", &of_2.to_string_lossy());
    assert_refused(&run(&other_slot).await, &[&of_2.to_string_lossy(), "2"]);

    // A member of another cluster among these: the others refuse it, and it says so.
    let stranger = system.cluster.place().path("stranger");
    copy_folder(&system.cluster.member_data_dir(3), &stranger);
    for slot in system.cluster.slots() {
        std::fs::remove_dir_all(system.cluster.member_data_dir(slot)).unwrap();
    }
    for slot in system.cluster.slots() {
        system.cluster.start_member(slot).unwrap();
    }
    // The proxies stay with the cluster that they know: another one is none of theirs.
    eventually(DEADLINE, || async { system.cluster.status().await?.agreement(3, 0) }).await;
    system.cluster.kill_member(3);
    let other_cluster =
        with(&system.cluster.member_config(3), "--data-dir", &stranger.to_string_lossy());
    assert_refused(&run(&other_cluster).await, &[&stranger.to_string_lossy(), "quorum"]);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
