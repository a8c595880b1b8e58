//! The past that a ledger keeps: trimmed, jumped over, killed meanwhile, damaged, it says from
//! where states can be rebuilt, and they are what they were.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod store_support;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dovetail_raft_store::{Entry, EntryPayload, MemberNode, Retention, Store, open_offline};
use openraft::storage::{RaftLogStorage as _, RaftStateMachine as _};
use store_support::{
    CLUSTER, append, apply, commit, damage, entries, log_id, membership, open, replays, snapshot,
};

/// Set for the child only.
const DIR: &str = "DOVETAIL_TEST_TRIM_DIR";
const ROUNDS: u64 = 12;

fn keep(rows_max: u64) -> Retention {
    Retention { rows_max, ..Retention::default() }
}

async fn trim(store: &Store, rows_max: u64) {
    store.handle.trim_ledger(keep(rows_max), 0).await.unwrap();
}

fn bases(dir: &Path) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(dir.join("ledger-bases")) else { return Vec::new() };
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn copied(from: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let path = file.unwrap().path();
            let target: PathBuf = to.join(path.file_name().unwrap());
            if path.is_dir() {
                copy(&path, &target);
            } else {
                std::fs::copy(&path, target).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy(from, dir.path());
    dir
}

#[tokio::test]
async fn trimming_keeps_a_base_and_what_no_raft_snapshot_covers() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut store = open(dir.path());
        commit(&mut store, 0, 50).await;
        assert_eq!(store.ledger.trim(CLUSTER, &keep(10), 0).unwrap(), 0, "no raft snapshot yet");
        snapshot(&mut store).await;
        commit(&mut store, 50, 100).await;
        assert_eq!(store.ledger.trim(CLUSTER, &keep(90), 0).unwrap(), 10);
        assert_eq!(store.ledger.trim(CLUSTER, &keep(10), 0).unwrap(), 50, "rows after it stay");
        assert_eq!(store.ledger.trim(CLUSTER, &keep(10), 0).unwrap(), 50);
        assert_eq!(replays(&store.ledger), 50);
    }
    let mut store = open(dir.path());
    let verified = store.ledger.verify(CLUSTER).unwrap();
    assert_eq!((verified.first, verified.last, verified.rows), (Some(50), Some(99), 50));
    assert_eq!(store.ledger.first(), 50);
    commit(&mut store, 100, 120).await;
    snapshot(&mut store).await;
    let aged = Retention { age_max: Some(Duration::from_secs(60)), ..Retention::default() };
    assert_eq!(store.ledger.trim(CLUSTER, &aged, 61_000).unwrap(), 50);
    assert_eq!(
        store.ledger.trim(CLUSTER, &aged, 61_001).unwrap(),
        120,
        "all are older than a minute"
    );
    commit(&mut store, 120, 121).await;
    assert_eq!(replays(&store.ledger), 120);
    assert_eq!(store.ledger.verify(CLUSTER).unwrap().rows, 1);
}

#[tokio::test]
async fn rows_without_a_time_do_not_keep_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let node = MemberNode { slot: 1, ..MemberNode::default() };
    let mut all = vec![
        Entry { log_id: log_id(1, 0), payload: EntryPayload::Membership(membership(&[(1, node)])) },
        Entry { log_id: log_id(1, 1), payload: EntryPayload::Blank },
    ];
    all.extend(entries(1, 2..10));
    append(&mut store.log, all.clone()).await;
    apply(&mut store.machine, all).await.unwrap();
    snapshot(&mut store).await;
    let aged = Retention { age_max: Some(Duration::from_secs(60)), ..Retention::default() };
    assert_eq!(store.ledger.trim(CLUSTER, &aged, 61_000).unwrap(), 0);
    assert_eq!(store.ledger.trim(CLUSTER, &aged, 61_001).unwrap(), 10);
}

#[tokio::test]
async fn the_state_before_the_oldest_row_moves_with_it_and_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    commit(&mut store, 0, 5).await;
    assert_eq!(replays(&store.ledger), 0);
    for end in [100, 200, 300] {
        let from = store.ledger.head().0 + 1;
        commit(&mut store, from, end).await;
        snapshot(&mut store).await;
        trim(&store, 64).await;
        assert_eq!(store.ledger.first(), end - 64);
        assert_eq!(replays(&store.ledger), end - 64);
        assert_eq!(bases(dir.path()), [format!("{}.base", end - 65)]);
    }
    // One more than is kept is not worth a new base.
    commit(&mut store, 300, 301).await;
    snapshot(&mut store).await;
    trim(&store, 64).await;
    assert_eq!(store.ledger.first(), 300 - 64);
    drop(store);
    let offline = open_offline(dir.path()).unwrap();
    assert_eq!(replays(&offline.ledger), 300 - 64);
    assert_eq!(offline.start().unwrap().first, 300 - 64);
}

#[tokio::test]
async fn whatever_step_of_a_trim_was_the_last_the_past_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut store = open(dir.path());
        commit(&mut store, 0, 100).await;
        snapshot(&mut store).await;
        trim(&store, 60).await;
        commit(&mut store, 100, 150).await;
        snapshot(&mut store).await;
    }
    let before = copied(dir.path());
    trim(&open(dir.path()), 60).await;
    let (old, new) = ("ledger-bases/39.base", "ledger-bases/89.base");
    assert!(!dir.path().join(old).exists() && dir.path().join(new).exists());

    // The new base is there, and the old rows are.
    std::fs::copy(dir.path().join(new), before.path().join(new)).unwrap();
    let store = open(before.path());
    assert_eq!(replays(&store.ledger), 40);
    trim(&store, 60).await;
    assert_eq!(replays(&store.ledger), 90);
    assert_eq!(bases(before.path()), ["89.base"]);

    // The old rows are gone, and the old base is there. So is one that was never finished.
    let after = copied(dir.path());
    std::fs::write(after.path().join(old), "whatever it was").unwrap();
    std::fs::write(after.path().join("ledger-bases/120.tmp"), "half of").unwrap();
    let mut store = open(after.path());
    assert_eq!(replays(&store.ledger), 90);
    commit(&mut store, 150, 200).await;
    snapshot(&mut store).await;
    trim(&store, 60).await;
    assert_eq!(replays(&store.ledger), 140);
    assert_eq!(bases(after.path()), ["139.base"]);
}

#[tokio::test]
async fn a_damaged_base_is_told_and_the_ledger_is_still_to_be_verified() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut store = open(dir.path());
        commit(&mut store, 0, 100).await;
        snapshot(&mut store).await;
        trim(&store, 60).await;
    }
    let base = dir.path().join("ledger-bases/39.base");
    damage(&base, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let mut store = open(dir.path());
    let start = store.ledger.start(CLUSTER).unwrap();
    assert!(start.state.is_none() && start.first == 40);
    assert!(start.damaged[0].contains("base at 39") && start.damaged[0].contains("hash"));
    let verified = store.ledger.verify(CLUSTER).unwrap();
    assert_eq!((verified.first, verified.rows), (Some(40), 60));
    // History begins anew at the newest raft snapshot, and moves on from there.
    commit(&mut store, 100, 140).await;
    trim(&store, 60).await;
    assert_eq!((store.ledger.first(), replays(&store.ledger)), (80, 100));
    commit(&mut store, 140, 200).await;
    snapshot(&mut store).await;
    trim(&store, 60).await;
    assert_eq!((store.ledger.first(), replays(&store.ledger)), (140, 140));
    assert_eq!(bases(dir.path()), ["139.base"]);

    // Whole, but of another place or another quorum.
    let other = tempfile::tempdir().unwrap();
    let mut store = open(other.path());
    commit(&mut store, 0, 100).await;
    snapshot(&mut store).await;
    trim(&store, 60).await;
    let refused = store.ledger.start("another").unwrap();
    assert!(refused.state.is_none() && refused.damaged[0].contains("of quorum c0ffee"));
    let foreign = dir.path().join("ledger-bases/139.base");
    std::fs::copy(foreign, other.path().join("ledger-bases/39.base")).unwrap();
    let refused = store.ledger.start(CLUSTER).unwrap();
    assert!(refused.state.is_none() && refused.damaged[0].contains("39"), "{refused:?}");
}

#[tokio::test]
async fn an_installed_raft_snapshot_is_the_base_of_what_follows() {
    let (leader_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut leader = open(leader_dir.path());
    commit(&mut leader, 0, 30).await;
    snapshot(&mut leader).await;
    let sent = leader.machine.get_current_snapshot().await.unwrap().unwrap();
    {
        let mut store = open(dir.path());
        store.machine.install_snapshot(&sent.meta, sent.snapshot.clone()).await.unwrap();
        assert_eq!(replays(&store.ledger), 30);
        store.log.purge(log_id(1, 29)).await.unwrap();
    }
    let bare = copied(dir.path());
    let mut store = open(dir.path());
    commit(&mut store, 30, 50).await;
    assert_eq!(replays(&store.ledger), 30);

    // Killed after the raft snapshot was written and before the ledger went on.
    std::fs::remove_dir_all(bare.path().join("ledger-bases")).unwrap();
    {
        let database = store_support::database(bare.path());
        database.delete_cf(database.cf_handle("meta").unwrap(), "ledger").unwrap();
    }
    let mut store = open(bare.path());
    assert_eq!(replays(&store.ledger), 30);
    commit(&mut store, 30, 31).await;
    assert_eq!(replays(&store.ledger), 30);
}

/// The child: writes and trims, and says how far it came.
#[tokio::test]
async fn child_trims_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut store = open(Path::new(&dir));
    let (applied, _) = store.machine.applied_state().await.unwrap();
    let end = store.log.get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index + 1);
    let mut next = applied.map_or(0, |id| id.index + 1);
    apply(&mut store.machine, entries(1, next..end)).await.unwrap();
    next = next.max(end);
    loop {
        commit(&mut store, next, next + 20).await;
        next += 20;
        snapshot(&mut store).await;
        trim(&store, 64).await;
        println!("\nfirst {}", store.ledger.first());
    }
}

#[tokio::test]
async fn a_trim_that_was_killed_leaves_a_past_that_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut firsts = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_trims_until_it_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut heard = lines.map_while(Result::ok).filter(|line| line.starts_with("first "));
        assert!(heard.nth(6).is_some(), "round {round}: the child never trimmed");
        let end = Instant::now() + Duration::from_millis(round * 13 % 60);
        while Instant::now() < end && heard.next().is_some() {}
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(dir.path());
        let first = replays(&store.ledger);
        assert_eq!(first, store.ledger.first(), "round {round}: all rows can be replayed");
        firsts.push(first);
    }
    assert!(firsts.is_sorted() && firsts[0] < firsts[11], "{firsts:?}");
}
