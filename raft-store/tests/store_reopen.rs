//! What a store holds after it was closed: order, markers, raft snapshots, the ledger.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod store_support;

use std::path::Path;

use bytes::Bytes;
use dovetail_raft_store::{
    Entry, EntryBytes, EntryPayload, MemberNode, OpenError, StoredMembership, TypeConfig,
};
use openraft::storage::{
    IOFlushed, RaftLogReader as _, RaftLogStorage as _, RaftStateMachine as _,
};
use openraft::type_config::TypeConfigExt as _;
use store_support::{
    CLUSTER, append, apply, commit, damage, database, entries, entry, held, log_id, membership,
    open, refusal, snapshot, try_open, vote,
};

fn snapshot_file(dir: &Path, index: u64) -> std::path::PathBuf {
    dir.join("raft-snapshots").join(format!("1-1-{index}.snap"))
}

#[tokio::test]
async fn callbacks_come_in_the_order_of_the_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let (sender, order) = std::sync::mpsc::channel();
    let mut waiting = Vec::new();
    for index in 0..200 {
        let (done, flushed) = TypeConfig::oneshot();
        store.log.append([entry(1, index)], IOFlushed::signal(done)).await.unwrap();
        let sender = sender.clone();
        waiting.push(async move {
            flushed.await.unwrap().unwrap();
            sender.send(index).unwrap();
        });
    }
    // The newest answer first: all older ones must be there already.
    let newest = waiting.pop().unwrap();
    newest.await;
    for (index, waiting) in waiting.into_iter().enumerate() {
        futures_util::FutureExt::now_or_never(tokio::task::unconstrained(waiting))
            .unwrap_or_else(|| panic!("{index} was answered after 199"));
    }
    assert_eq!(order.try_iter().count(), 200);
}

#[tokio::test]
async fn entries_vote_and_markers_are_there_after_closing() {
    let dir = tempfile::tempdir().unwrap();
    let incarnation = {
        let mut store = open(dir.path());
        assert!(!store.has_data());
        store.log.save_vote(&vote(3)).await.unwrap();
        assert!(!store.has_data(), "a vote is no data");
        commit(&mut store, 0, 10).await;
        append(&mut store.log, entries(1, 10..20)).await;
        snapshot(&mut store).await;
        store.log.purge(log_id(1, 4)).await.unwrap();
        store.log.truncate_after(Some(log_id(1, 14))).await.unwrap();
        append(&mut store.log, entries(2, 15..17)).await;
        assert!(store.has_data());
        store.owner.get().incarnation
    };
    let mut store = open(dir.path());
    assert!(store.has_data());
    assert_eq!(store.owner.get().incarnation, incarnation);
    assert_eq!(store.log.read_vote().await.unwrap(), Some(vote(3)));
    assert_eq!(store.log.read_committed().await.unwrap(), Some(log_id(1, 9)));
    let state = store.log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 4)));
    assert_eq!(state.last_log_id, Some(log_id(2, 16)));
    let expected: Vec<(u64, u64)> =
        (5..15).map(|index| (1, index)).chain([(2, 15), (2, 16)]).collect();
    assert_eq!(held(&mut store.log).await, expected);
    let (applied, _) = store.machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(1, 9)), "from the raft snapshot");
    assert_eq!(store.state.borrow().applied_index().0, 9);
}

#[tokio::test]
async fn a_committed_marker_ahead_of_the_log_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store.log, entries(1, 0..10)).await;
    for (marker, believed) in [(log_id(1, 9), true), (log_id(2, 9), false), (log_id(1, 50), false)]
    {
        store.log.save_committed(Some(marker)).await.unwrap();
        let read = store.log.read_committed().await.unwrap();
        assert_eq!(read.is_some(), believed, "{marker}");
    }
}

#[tokio::test]
async fn an_entry_that_would_leave_a_hole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store.log, entries(1, 0..3)).await;
    let (done, _flushed) = TypeConfig::oneshot();
    let error = store.log.append([entry(1, 4)], IOFlushed::signal(done)).await.unwrap_err();
    assert!(error.to_string().contains("hole"), "{error}");
}

#[tokio::test]
async fn reads_from_disk_and_from_memory_agree() {
    let dir = tempfile::tempdir().unwrap();
    drop({
        let mut store = open(dir.path());
        append(&mut store.log, entries(1, 0..50)).await;
        store
    });
    let mut store = open(dir.path());
    append(&mut store.log, entries(1, 50..100)).await;
    for (from, end) in [(0, 100), (10, 60), (49, 51), (60, 80), (0, 50), (99, 200)] {
        let read = store.log.try_get_log_entries(from..end).await.unwrap();
        assert_eq!(read, entries(1, from..end.min(100)), "{from}..{end}");
    }
}

#[tokio::test]
async fn one_append_request_is_limited_by_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let big = |index| Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(EntryBytes(Bytes::from(vec![0; 1_024 * 1_024]))),
    };
    append(&mut store.log, (0..8).map(big).collect()).await;
    let mut reader = store.log.get_log_reader().await;
    let read = reader.limited_get_log_entries(0, 8).await.unwrap();
    assert_eq!(read.len(), 2);
    let all = reader.try_get_log_entries(0..8).await.unwrap();
    assert_eq!(all.len(), 8);
}

#[tokio::test]
async fn a_damaged_raft_snapshot_falls_back_to_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut store = open(dir.path());
        for end in [10, 20, 30] {
            commit(&mut store, end - 10, end).await;
            snapshot(&mut store).await;
        }
        assert_eq!(store.handle.snapshot_index(), Some(29));
    }
    assert!(!snapshot_file(dir.path(), 9).exists(), "two are kept");
    damage(&snapshot_file(dir.path(), 29), |bytes| bytes[40] ^= 1);
    let mut store = open(dir.path());
    let (applied, _) = store.machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(1, 19)));
    assert!(dir.path().join("raft-snapshots/1-1-29.damaged").exists());
    assert_eq!(store.ledger.verify(CLUSTER).unwrap().last, Some(29));
}

#[tokio::test]
async fn without_a_raft_snapshot_that_reaches_the_log_the_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut store = open(dir.path());
        for end in [10, 20] {
            commit(&mut store, end - 10, end).await;
            snapshot(&mut store).await;
        }
        store.log.purge(log_id(1, 15)).await.unwrap();
    }
    damage(&snapshot_file(dir.path(), 19), |bytes| bytes.truncate(50));
    assert!(matches!(try_open(dir.path()), Err(OpenError::Damaged { .. })));
    assert!(refusal(dir.path()).contains("purged up to 15"));
}

#[tokio::test]
async fn the_ledger_has_a_row_for_every_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    assert_eq!(store.ledger.head(), (0, [0; 32]));
    let node = MemberNode { slot: 1, ..MemberNode::default() };
    let all = vec![
        Entry { log_id: log_id(1, 0), payload: EntryPayload::Membership(membership(&[(1, node)])) },
        Entry { log_id: log_id(1, 1), payload: EntryPayload::Blank },
        entry(1, 2),
    ];
    append(&mut store.log, all.clone()).await;
    apply(&mut store.machine, all.clone()).await.unwrap();
    let rows = store.ledger.rows(0, 100).unwrap();
    let kinds: Vec<i32> = rows.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [2, 1, 0]);
    let EntryPayload::Normal(EntryBytes(bytes)) = &all[2].payload else { unreachable!() };
    assert_eq!(rows[2].entry, *bytes);
    let verified = store.ledger.verify(CLUSTER).unwrap();
    assert_eq!((verified.first, verified.last, verified.rows), (Some(0), Some(2), 3));
    assert_eq!(store.ledger.head(), (2, verified.hash));
    assert_eq!(store.ledger.verify("another").unwrap_err().index, 0);
    // Applying again, as after a restart, writes nothing twice.
    apply(&mut store.machine, all).await.unwrap();
    assert_eq!(store.ledger.verify(CLUSTER).unwrap(), verified);
}

#[tokio::test]
async fn verify_names_the_index_of_a_flipped_byte_and_of_a_missing_row() {
    for (row, flipped) in [(7_u64, true), (11, false), (0, false), (19, false)] {
        let dir = tempfile::tempdir().unwrap();
        commit(&mut open(dir.path()), 0, 20).await;
        {
            let database = database(dir.path());
            let ledger = database.cf_handle("ledger").unwrap();
            let key = row.to_be_bytes();
            if flipped {
                let mut value = database.get_cf(ledger, key).unwrap().unwrap();
                let middle = value.len() / 2;
                value[middle] ^= 1;
                database.put_cf(ledger, key, value).unwrap();
            } else {
                database.delete_cf(ledger, key).unwrap();
            }
        }
        let store = open(dir.path());
        assert_eq!(store.ledger.verify(CLUSTER).unwrap_err().index, row, "flipped: {flipped}");
    }
}

#[tokio::test]
async fn purged_entries_stay_in_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut store = open(dir.path());
        commit(&mut store, 0, 20).await;
        snapshot(&mut store).await;
        store.log.purge(log_id(1, 19)).await.unwrap();
    }
    let mut store = open(dir.path());
    assert_eq!(held(&mut store.log).await, []);
    assert_eq!(store.ledger.rows(0, 100).unwrap().len(), 20);
    commit(&mut store, 20, 25).await;
    assert_eq!(store.ledger.verify(CLUSTER).unwrap().rows, 25);
}

#[tokio::test]
async fn rows_that_a_power_cut_took_are_completed_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let head = {
        let mut store = open(dir.path());
        commit(&mut store, 0, 20).await;
        snapshot(&mut store).await;
        store.ledger.head()
    };
    {
        let database = database(dir.path());
        let (ledger, meta) =
            (database.cf_handle("ledger").unwrap(), database.cf_handle("meta").unwrap());
        database.delete_range_cf(ledger, 0_u64.to_be_bytes(), 20_u64.to_be_bytes()).unwrap();
        database.delete_cf(meta, "ledger").unwrap();
    }
    let store = open(dir.path());
    assert_eq!(store.ledger.head(), head);
    assert_eq!(store.ledger.verify(CLUSTER).unwrap().rows, 20);
}

#[tokio::test]
async fn an_installed_raft_snapshot_leaves_a_gap_in_the_ledger() {
    let (leader_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut leader = open(leader_dir.path());
    commit(&mut leader, 0, 30).await;
    snapshot(&mut leader).await;
    let sent = leader.machine.get_current_snapshot().await.unwrap().unwrap();
    {
        let mut store = open(dir.path());
        commit(&mut store, 0, 10).await;
        store.machine.install_snapshot(&sent.meta, sent.snapshot.clone()).await.unwrap();
        store.log.purge(log_id(1, 29)).await.unwrap();
        assert_eq!(store.ledger.head(), leader.ledger.head());
    }
    let mut store = open(dir.path());
    let (applied, stored) = store.machine.applied_state().await.unwrap();
    assert_eq!((applied, stored), (Some(log_id(1, 29)), StoredMembership::default()));
    commit(&mut store, 30, 40).await;
    commit(&mut leader, 30, 40).await;
    assert_eq!(store.ledger.head(), leader.ledger.head());
    let verified = store.ledger.verify(CLUSTER).unwrap();
    assert_eq!((verified.first, verified.last, verified.rows), (Some(0), Some(39), 20));
    assert_eq!(verified.gaps, [9]);
    assert_eq!(store.ledger.rows(0, 100).unwrap().len(), 20);
}

#[tokio::test]
async fn a_raft_snapshot_that_does_not_fit_is_refused() {
    let (leader_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut leader = open(leader_dir.path());
    commit(&mut leader, 0, 5).await;
    snapshot(&mut leader).await;
    let sent = leader.machine.get_current_snapshot().await.unwrap().unwrap();
    let mut store = open(dir.path());
    let mut flipped = sent.snapshot.to_vec();
    flipped[60] ^= 1;
    let error = store.machine.install_snapshot(&sent.meta, flipped.into()).await.unwrap_err();
    assert!(error.to_string().contains("hash"), "{error}");
    for length in 0..sent.snapshot.len() {
        let cut = sent.snapshot.slice(..length);
        store.machine.install_snapshot(&sent.meta, cut).await.unwrap_err();
    }
    store.owner.found("another").unwrap();
    let error = store.machine.install_snapshot(&sent.meta, sent.snapshot).await.unwrap_err();
    assert!(error.to_string().contains("quorum"), "{error}");
    assert!(!store.has_data());
}

#[tokio::test]
async fn a_member_votes_as_a_founder_or_when_the_log_names_it() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut store = try_open(dir.path()).unwrap();
        assert!(!store.may_vote(""));
        store.owner.adopt("q1", Vec::new(), 1_007).unwrap();
        assert_eq!(
            store.owner.adopt("q1", Vec::new(), 1_007).unwrap().node_id,
            1_007,
            "again is the same"
        );
        store.owner.adopt("q1", Vec::new(), 1_008).unwrap_err();
        assert!(!store.may_vote("q1"));
        let named = MemberNode {
            slot: 1,
            incarnation: store.owner.get().incarnation,
            address: "127.0.0.1:1".to_owned(),
        };
        let other = MemberNode { incarnation: "another disk".to_owned(), ..named.clone() };
        let set = |index, node| Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Membership(membership(&[(1, node)])),
        };
        append(&mut store.log, vec![set(0, other)]).await;
        assert!(!store.may_vote("q1"));
        append(&mut store.log, vec![set(1, named)]).await;
        assert!(store.may_vote("q1"));
        assert!(!store.may_vote("q2"));
        store.owner.adopt("q2", Vec::new(), 1_009).unwrap_err();
    }
    let store = try_open(dir.path()).unwrap();
    assert!(store.may_vote("q1"));
    assert_eq!(store.owner.get().node_id, 1_007, "it stays who it is");

    let dir = tempfile::tempdir().unwrap();
    let store = try_open(dir.path()).unwrap();
    store.owner.found("q1").unwrap();
    store.owner.found("q2").unwrap();
    assert!(store.may_vote("q2") && !store.may_vote("q1"), "an unfinished formation is void");
    drop(store);
    let store = try_open(dir.path()).unwrap();
    assert!(store.may_vote("q2") && store.owner.get().founder);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_ends_the_process_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let fatal = store.fatal();
    assert_eq!(*fatal.borrow(), None);
    let broken = Entry {
        log_id: log_id(1, 1),
        payload: EntryPayload::Normal(EntryBytes(Bytes::from_static(b"\xff\xff"))),
    };
    let all = vec![entry(1, 0), broken, entry(1, 2)];
    append(&mut store.log, all.clone()).await;
    apply(&mut store.machine, all).await.unwrap_err();
    let reason = fatal.borrow().clone().unwrap();
    assert!(reason.contains("entry 1 cannot be read by this build"), "{reason}");
    let (applied, _) = store.machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(1, 0)), "never skipped");
}
