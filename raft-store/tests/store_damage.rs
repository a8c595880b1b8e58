//! A disk that lost or changed what it acknowledged is refused, with a reason and advice.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod store_support;

use std::fs;
use std::path::Path;

use dovetail_raft_store::{OpenError, StoreConfig};
use openraft::storage::RaftLogStorage as _;
use store_support::{
    append, damage, entries, held, open, refusal, try_open, vote, write_ahead_log,
};

/// A thousand entries, then a vote as the last record.
async fn filled(dir: &Path) {
    let mut store = open(dir);
    append(&mut store.log, entries(1, 0..1_000)).await;
    store.log.save_vote(&vote(7)).await.unwrap();
}

fn assert_damaged(dir: &Path) -> String {
    assert!(matches!(try_open(dir), Err(OpenError::Damaged { .. })), "{:?}", try_open(dir));
    let text = refusal(dir);
    assert!(text.contains("wipe the folder and rejoin as a new incarnation"), "{text}");
    text
}

fn assert_lost(dir: &Path, what: &str) {
    assert!(matches!(try_open(dir), Err(OpenError::Lost { .. })), "{:?}", try_open(dir));
    let text = refusal(dir);
    assert!(text.contains("lost acknowledged data") && text.contains(what), "{text}");
    assert!(text.contains("wipe the folder and rejoin as a new incarnation"), "{text}");
}

#[tokio::test]
async fn an_undamaged_folder_opens() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let mut store = try_open(dir.path()).unwrap();
    assert_eq!(held(&mut store.log).await.len(), 1_000);
}

#[tokio::test]
async fn a_flipped_bit_in_the_middle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    damage(&write_ahead_log(dir.path()), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    });
    assert_damaged(dir.path());
}

/// Without RocksDB's own refusal there is still the guard file.
#[cfg(feature = "sim")]
#[tokio::test]
async fn a_recovery_that_stops_at_the_damage_is_refused() {
    use dovetail_raft_store::sim::{Sabotage, sabotage};
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    damage(&write_ahead_log(dir.path()), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    });
    sabotage(Some(Sabotage::PointInTime));
    assert_lost(dir.path(), "entry 999 was acknowledged");
    sabotage(None);
}

#[tokio::test]
async fn a_lost_suffix_is_refused() {
    for cut in ["half", "last 8 KiB", "last 8 KiB zeroed"] {
        let dir = tempfile::tempdir().unwrap();
        {
            let mut store = open(dir.path());
            for batch in 0..50 {
                append(&mut store.log, entries(1, batch * 20..batch * 20 + 20)).await;
            }
        }
        damage(&write_ahead_log(dir.path()), |bytes| {
            let length = bytes.len();
            match cut {
                "half" => bytes.truncate(length / 2),
                "last 8 KiB" => bytes.truncate(length - 8_192),
                _ => bytes[length - 8_192..].fill(0),
            }
        });
        // Zeros inside a record are noticed by RocksDB, those between records are not.
        match try_open(dir.path()) {
            Err(OpenError::Damaged { .. }) if cut.ends_with("zeroed") => {}
            Err(OpenError::Lost { .. }) => assert_lost(dir.path(), "entry 999 was acknowledged"),
            other => panic!("{cut}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_lost_vote_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    damage(&write_ahead_log(dir.path()), |bytes| {
        let length = bytes.len();
        bytes.truncate(length - 5);
    });
    assert_lost(dir.path(), "the vote <T7-N1:-> was acknowledged");
}

#[tokio::test]
async fn a_lost_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    assert_lost(dir.path(), "the log is empty");
}

#[tokio::test]
async fn one_torn_slot_of_the_guard_is_survived_and_two_are_not() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let guard = dir.path().join("guard");
    let whole = fs::read(&guard).unwrap();
    for slot in [0, 4_096] {
        fs::write(&guard, &whole).unwrap();
        damage(&guard, |bytes| bytes[slot + 20] ^= 1);
        drop(try_open(dir.path()).unwrap());
    }
    damage(&guard, |bytes| bytes.fill(0));
    assert!(assert_damaged(dir.path()).contains("guard"));
    fs::remove_file(&guard).unwrap();
    assert!(assert_damaged(dir.path()).contains("guard"));
}

#[tokio::test]
async fn a_damaged_owner_marker_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    damage(&dir.path().join("owner"), |bytes| bytes[10] ^= 1);
    assert!(assert_damaged(dir.path()).contains("hash"));
    fs::remove_file(dir.path().join("owner")).unwrap();
    assert!(assert_damaged(dir.path()).contains("owner"));
}

#[tokio::test]
async fn the_folder_of_another_member_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let error = dovetail_raft_store::open(dir.path(), 2, StoreConfig::default()).unwrap_err();
    assert!(matches!(error, OpenError::OtherSlot { found: 1, given: 2, .. }), "{error}");
    assert!(error.to_string().contains("is of member 1, not of member 2"), "{error}");
}

#[tokio::test]
async fn the_folder_of_another_data_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    fs::write(dir.path().join("data-version"), "dovetail data 9\n").unwrap();
    assert!(refusal(dir.path()).contains("data version \"9\", this build reads 1"));
    fs::remove_file(dir.path().join("data-version")).unwrap();
    assert!(assert_damaged(dir.path()).contains("data-version is missing"));
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(refusal(dir.path()).contains("another process uses it"));
    drop(store);
    drop(open(dir.path()));
}

/// Found by `cargo sim --seed 2020`: the guard's index may lag by a second, and a process that
/// ended within its last one left it behind for as long as nothing new was appended.
#[tokio::test]
async fn what_a_start_found_is_not_lost_unseen_later() {
    let dir = tempfile::tempdir().unwrap();
    let guard = dir.path().join("guard");
    let mut store = open(dir.path());
    let behind = fs::read(&guard).unwrap();
    append(&mut store.log, entries(1, 0..10)).await;
    drop(store);
    // As a process leaves it that was killed at once.
    fs::write(&guard, behind).unwrap();
    drop(try_open(dir.path()).unwrap());

    let database = store_support::database(dir.path());
    let log = database.cf_handle("log").unwrap();
    database.delete_cf(log, 9_u64.to_be_bytes()).unwrap();
    drop(database);
    assert_lost(dir.path(), "entry 9 was acknowledged, the log ends at 8");
}
