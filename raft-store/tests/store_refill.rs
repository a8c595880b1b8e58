//! What a raft snapshot jumped over comes from another member, whoever that is: taken when it is
//! proven, refused with its index when it is not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod store_support;

use std::path::Path;
use std::time::Duration;

use dovetail_ledger::chain::row_hash;
use dovetail_proto::convert::decode_entry;
use dovetail_raft_store::{Lack, Ledger, Piece, Retention, Store, Unproven};
use dovetail_routing::{Digest, LogIndex};
use openraft::storage::RaftStateMachine as _;
use store_support::{
    CLUSTER, append, apply, checkpoint, commit, damage, entry, log_id, open, remark, replays,
    snapshot,
};

async fn trim(store: &Store, rows_max: u64) {
    let keep = Retention { rows_max, ..Retention::default() };
    store.handle.trim_ledger(keep, 0).await.unwrap();
}

/// A member that has `end` entries and a raft snapshot of all of them.
async fn member(dir: &Path, end: u64) -> Store {
    let mut store = open(dir);
    commit(&mut store, 0, end).await;
    snapshot(&mut store).await;
    store
}

/// The same with 100 entries, of which that at 55 tells the state at 50.
async fn checked_member(dir: &Path) -> Store {
    let mut store = open(dir);
    commit(&mut store, 0, 51).await;
    let state = store.state.borrow().digest();
    let ledger = Digest(store.ledger.head().1);
    commit(&mut store, 51, 55).await;
    let told = checkpoint(55, LogIndex(50), state, ledger);
    append(&mut store.log, vec![told.clone()]).await;
    apply(&mut store.machine, vec![told]).await.unwrap();
    commit(&mut store, 56, 100).await;
    snapshot(&mut store).await;
    store
}

/// From where states can be rebuilt; that they are what `other` has.
fn replays_as(store: &Store, other: &Store) -> u64 {
    let at = |ledger: &Ledger, last: u64| {
        let start = ledger.start(CLUSTER).unwrap();
        let mut state = start.state.unwrap();
        for row in ledger.rows(start.first, 10_000).unwrap() {
            if row.index <= last {
                state.apply(LogIndex(row.index), &decode_entry(&row.entry).unwrap());
            }
        }
        state.digest()
    };
    let first = store.ledger.start(CLUSTER).unwrap().first;
    for last in first - 1..100 {
        assert_eq!(at(&store.ledger, last), at(&other.ledger, last), "the state at {last}");
    }
    store.ledger.verify(CLUSTER).unwrap();
    first
}

/// Gives `to` the newest raft snapshot of `from`.
async fn jump(from: &mut Store, to: &mut Store) {
    let sent = from.machine.get_current_snapshot().await.unwrap().unwrap();
    to.machine.install_snapshot(&sent.meta, sent.snapshot).await.unwrap();
}

/// Fetches all rows that there are, and the state before them; returns how many pieces it took.
async fn refill(store: &Store, from: &Ledger) -> usize {
    refill_within(Retention::default(), store, from).await
}

async fn refill_within(retention: Retention, store: &Store, from: &Ledger) -> usize {
    let mut pieces = 0;
    while let Some(Lack { first, last }) = store.ledger.lacks() {
        if !store.handle.keeps_older_rows(retention, 0).await.unwrap() {
            break;
        }
        let piece = from.piece(first, last).unwrap();
        if piece.rows.is_empty() {
            break;
        }
        store.handle.prepend_to_ledger(piece).await.unwrap();
        pieces += 1;
    }
    if store.ledger.lacks_state()
        && let Some(base) = from.oldest_base().unwrap()
    {
        store.handle.take_ledger_base(base.into()).await.unwrap();
    }
    store.handle.settle_ledger().await.unwrap();
    assert_eq!(store.ledger.lacks(), None);
    pieces
}

#[tokio::test]
async fn a_new_disk_gets_the_ledger_from_its_beginning() {
    let (other_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut other = member(other_dir.path(), 5_000).await;
    {
        let mut store = open(dir.path());
        assert_eq!(store.ledger.lacks(), None, "an empty ledger lacks nothing");
        jump(&mut other, &mut store).await;
        assert_eq!(store.ledger.lacks(), Some(Lack { first: 0, last: 4_999 }));
        commit(&mut store, 5_000, 5_010).await;
        assert_eq!(replays(&store.ledger), 5_000);
        assert_eq!(refill(&store, &other.ledger).await, 3);
        assert_eq!(replays(&store.ledger), 0);
    }
    let mut store = open(dir.path());
    assert_eq!((store.ledger.lacks(), replays(&store.ledger)), (None, 0));
    commit(&mut store, 5_010, 5_020).await;
    let verified = store.ledger.verify(CLUSTER).unwrap();
    assert_eq!((verified.rows, verified.gaps), (5_020, vec![]));
}

#[tokio::test]
async fn a_gap_is_closed_piece_by_piece_whenever_the_process_ends() {
    let (other_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut other = member(other_dir.path(), 100).await;
    {
        let mut store = member(dir.path(), 60).await;
        trim(&store, 40).await;
        assert_eq!(replays(&store.ledger), 20);
        jump(&mut other, &mut store).await;
        assert_eq!(store.ledger.verify(CLUSTER).unwrap().gaps, [59]);
        // What no run needs goes now; the state before the older rows is still needed.
        store.handle.trim_ledger(Retention::default(), 0).await.unwrap();
    }
    for last in [99, 89, 79, 69] {
        let store = open(dir.path());
        assert_eq!(store.ledger.lacks(), Some(Lack { first: 60, last }));
        let piece = other.ledger.piece(last - 9, last).unwrap();
        assert_eq!(piece.rows.len(), 10);
        store.handle.prepend_to_ledger(piece.clone()).await.unwrap();
        // The same once more, as after a lost answer, changes nothing.
        let again = store.handle.prepend_to_ledger(piece).await;
        assert_eq!(again.is_ok(), last == 69, "nothing is asked for any more: {again:?}");
    }
    let store = open(dir.path());
    assert_eq!((store.ledger.lacks(), replays(&store.ledger)), (None, 20));
    assert_eq!(store.ledger.verify(CLUSTER).unwrap().gaps, [0; 0]);
}

#[tokio::test]
async fn what_the_others_trimmed_is_given_up_and_the_state_before_the_rest_taken() {
    let (other_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut other = member(other_dir.path(), 100).await;
    trim(&other, 60).await;
    let mut store = open(dir.path());
    jump(&mut other, &mut store).await;
    assert_eq!(refill(&store, &other.ledger).await, 1);
    // No checkpoint proves what an older state was.
    assert_eq!((store.ledger.first(), replays(&store.ledger)), (40, 100));
    // What this member trims is not fetched again.
    commit(&mut store, 100, 150).await;
    snapshot(&mut store).await;
    trim(&store, 60).await;
    assert_eq!((store.ledger.lacks(), store.ledger.first()), (None, 90));
    assert_eq!(replays(&store.ledger), 100);
}

#[tokio::test]
async fn rows_within_the_retention_are_fetched_whatever_older_ones_are_past_it() {
    let (other_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut other = member(other_dir.path(), 200).await;
    let mut store = member(dir.path(), 50).await;
    jump(&mut other, &mut store).await;
    let keep = |rows_max| Retention { rows_max, ..Retention::default() };
    // The rows up to 49 are past it, those from 100 on are not.
    assert!(store.handle.keeps_older_rows(keep(100), 0).await.unwrap());
    trim(&store, 100).await;
    assert_eq!(store.ledger.lacks(), Some(Lack { first: 0, last: 199 }), "the old ones are gone");
    let piece = other.ledger.piece(150, 199).unwrap();
    store.handle.prepend_to_ledger(piece).await.unwrap();
    assert!(store.handle.keeps_older_rows(keep(100), 0).await.unwrap());
    let piece = other.ledger.piece(100, 149).unwrap();
    store.handle.prepend_to_ledger(piece).await.unwrap();
    assert!(!store.handle.keeps_older_rows(keep(100), 0).await.unwrap());
    assert_eq!(refill_within(keep(100), &store, &other.ledger).await, 0);
    assert_eq!((store.ledger.first(), store.ledger.verify(CLUSTER).unwrap().rows), (100, 100));

    // By age: these rows are of the first second.
    let aged = Retention { age_max: Some(Duration::from_secs(60)), ..Retention::default() };
    assert!(store.handle.keeps_older_rows(aged, 61_000).await.unwrap());
    assert!(!store.handle.keeps_older_rows(aged, 61_001).await.unwrap());
}

#[tokio::test]
async fn a_member_that_is_behind_says_so_and_not_that_there_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = member(dir.path(), 50).await;
    assert!(store.ledger.piece(0, 60).unwrap_err().to_string().contains("60 is not here yet"));
    assert!(store.ledger.piece(40, 30).unwrap().rows.is_empty());
    trim(&store, 10).await;
    assert!(store.ledger.piece(0, 30).unwrap().rows.is_empty(), "it is trimmed");
}

/// What somebody could do to rows on their way, each with the index that is named.
fn forgeries(honest: &Piece) -> Vec<(&'static str, u64, Piece)> {
    let changed = |change: &dyn Fn(&mut Piece)| {
        let mut piece = honest.clone();
        change(&mut piece);
        piece
    };
    let rehash = |piece: &mut Piece| {
        let mut hash = piece.previous;
        for row in &mut piece.rows {
            hash = row_hash(&hash, CLUSTER, row);
            row.hash = hash.to_vec();
        }
    };
    let other = remark("what nobody said", "").0;
    vec![
        ("a byte changed", 45, changed(&|piece| piece.rows[5].entry = other.clone())),
        (
            "an entry changed and all hashes with it",
            59,
            changed(&|piece| {
                piece.rows[5].entry = other.clone();
                rehash(piece);
            }),
        ),
        ("a row dropped", 45, changed(&|piece| drop(piece.rows.remove(5)))),
        ("two rows swapped", 45, changed(&|piece| piece.rows.swap(5, 6))),
        ("a row twice", 45, changed(&|piece| piece.rows.insert(6, piece.rows[5].clone()))),
        (
            "a row inserted, the others moved",
            60,
            changed(&|piece| {
                piece.rows.insert(5, piece.rows[5].clone());
                for (index, row) in (40..).zip(&mut piece.rows) {
                    row.index = index;
                }
                rehash(piece);
            }),
        ),
        ("the last one cut off", 59, changed(&|piece| drop(piece.rows.pop()))),
        ("another hash before them", 40, changed(&|piece| piece.previous[0] ^= 1)),
        (
            "another hash before them, and all hashes with it",
            59,
            changed(&|piece| {
                piece.previous[0] ^= 1;
                rehash(piece);
            }),
        ),
        ("no rows", 59, changed(&|piece| piece.rows.clear())),
    ]
}

#[tokio::test]
async fn rows_that_are_not_the_quorums_are_refused_by_index() {
    let (other_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut other = member(other_dir.path(), 60).await;
    let mut store = open(dir.path());
    jump(&mut other, &mut store).await;
    let honest = other.ledger.piece(40, 59).unwrap();
    for (what, index, piece) in forgeries(&honest) {
        let refused = store.handle.prepend_to_ledger(piece).await.unwrap_err();
        let Unproven::Rows(broken) = &refused else { panic!("{what}: {refused}") };
        assert_eq!(broken.index, index, "{what}: {refused}");
        assert_eq!(store.ledger.lacks(), Some(Lack { first: 0, last: 59 }), "{what}");
        assert_eq!(replays(&store.ledger), 60, "{what}");
    }
    store.handle.prepend_to_ledger(honest).await.unwrap();
    assert_eq!(refill(&store, &other.ledger).await, 1);
    assert_eq!(replays(&store.ledger), 0);
}

#[tokio::test]
async fn a_state_from_which_the_rows_do_not_lead_here_is_refused() {
    let (other_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut other = checked_member(other_dir.path()).await;
    trim(&other, 60).await;
    let mut store = open(dir.path());
    jump(&mut other, &mut store).await;
    let Lack { first, last } = store.ledger.lacks().unwrap();
    store.handle.prepend_to_ledger(other.ledger.piece(first, last).unwrap()).await.unwrap();
    let honest = other.ledger.oldest_base().unwrap().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let checked = checked_member(elsewhere.path()).await;
    // Every byte of the state changed in turn, sealed as if it had been so from the start.
    let header = u32::from_le_bytes(honest[12..16].try_into().unwrap());
    let mut wrong_states = 0;
    for at in 16 + usize::try_from(header).unwrap()..honest.len() - 32 {
        let mut forged = honest.clone();
        forged[at] ^= 1;
        let sealed = forged.len() - 32;
        let seal = *blake3::hash(&forged[..sealed]).as_bytes();
        forged[sealed..].copy_from_slice(&seal);
        match store.handle.take_ledger_base(forged.into()).await {
            Err(Unproven::State { reason, .. }) => {
                wrong_states += u32::from(reason.contains("the quorum had at 50"));
            }
            // What was changed is overwritten by the entries up to the checkpoint.
            Ok(true) => {
                assert_eq!(replays_as(&store, &checked), 51, "byte {at}");
                std::fs::remove_file(dir.path().join("ledger-bases/50.base")).unwrap();
                assert_eq!(store.handle.mend_ledger_bases().await.unwrap().len(), 1);
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(wrong_states > 0, "some of them were states");
    // So is a whole one that belongs elsewhere.
    trim(&checked, 61).await;
    let base = checked.ledger.oldest_base().unwrap().unwrap();
    let of_use = store.handle.take_ledger_base(base.into()).await.unwrap();
    assert!(!of_use, "this member has no row of that index, so nobody is to blame");
    assert_eq!(store.ledger.replays_from(), Some(99), "nothing was taken");
    assert!(store.handle.take_ledger_base(honest.clone().into()).await.unwrap());
    assert_eq!(replays_as(&store, &checked), 51);
    assert!(!store.handle.take_ledger_base(honest.into()).await.unwrap(), "it has that");
}

#[tokio::test]
async fn a_damaged_state_is_set_aside_and_fetched_anew() {
    let (other_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = checked_member(other_dir.path()).await;
    trim(&other, 60).await;
    {
        let store = checked_member(dir.path()).await;
        trim(&store, 60).await;
        assert!(store.handle.mend_ledger_bases().await.unwrap().is_empty(), "it is whole");
    }
    damage(&dir.path().join("ledger-bases/39.base"), |bytes| bytes[40] ^= 1);
    let store = open(dir.path());
    let told = store.handle.mend_ledger_bases().await.unwrap();
    assert!(told[0].contains("base at 39"), "{told:?}");
    assert!(dir.path().join("ledger-bases/39.damaged").exists());
    assert_eq!(refill(&store, &other.ledger).await, 0, "rows are all here");
    assert_eq!(replays_as(&store, &other), 51);
    assert!(store.handle.mend_ledger_bases().await.unwrap().is_empty());
}

#[tokio::test]
async fn rows_that_are_too_many_bytes_for_a_message_come_in_several() {
    let (other_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut other = open(other_dir.path());
    let large: Vec<_> = (0..200)
        .map(|index| {
            let payload =
                dovetail_raft_store::EntryPayload::Normal(remark(&"x".repeat(200_000), ""));
            dovetail_raft_store::Entry { log_id: log_id(1, index), payload }
        })
        .chain([entry(1, 200)])
        .collect();
    append(&mut other.log, large.clone()).await;
    apply(&mut other.machine, large).await.unwrap();
    snapshot(&mut other).await;
    let mut store = open(dir.path());
    jump(&mut other, &mut store).await;
    assert!(refill(&store, &other.ledger).await > 2);
    assert_eq!(store.ledger.verify(CLUSTER).unwrap().rows, 201);
}
