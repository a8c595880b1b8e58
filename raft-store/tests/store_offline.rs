//! A data folder without a member: read, checked, and left as it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod store_support;

use std::path::Path;

use dovetail_ledger::{RowsOf as _, chain::BEGINNING};
use dovetail_proto::convert;
use dovetail_raft_store::{Entry, EntryBytes, EntryPayload, OpenError, Rows, open_offline};
use dovetail_routing::entry::SCHEMA_VERSION;
use dovetail_routing::{Digest, LogIndex, Payload};
use openraft::storage::{RaftLogStorage as _, RaftStateMachine as _};
use store_support::{CLUSTER, append, apply, database, entries, log_id, open};

async fn member_that_wrote(dir: &Path, count: u64) {
    let mut store = open(dir);
    append(&mut store.log, entries(1, 0..count)).await;
    apply(&mut store.machine, entries(1, 0..count)).await.unwrap();
    store.log.save_committed(Some(log_id(1, count - 1))).await.unwrap();
}

#[tokio::test]
async fn the_ledger_of_a_member_that_has_ended_is_read_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    member_that_wrote(dir.path(), 25_000).await;
    {
        let offline = open_offline(dir.path()).unwrap();
        assert_eq!(offline.owner.cluster_id, CLUSTER);
        assert_eq!(offline.ledger.newest_run(), (0, BEGINNING));
        let mut rows = Rows::of(&offline);
        while rows.next_row().unwrap().is_some() {}
        assert_eq!((rows.chain().rows(), rows.chain().next()), (25_000, 25_000));
        assert_eq!(rows.chain().head(), offline.ledger.head().1);
    }
    let mut store = open(dir.path());
    assert_eq!(store.ledger.verify(CLUSTER).unwrap().rows, 25_000);
    let (applied, _) = store.machine.applied_state().await.unwrap();
    assert_eq!(applied, None, "the member starts as it would have");
}

#[tokio::test]
async fn a_folder_that_a_member_uses_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = open_offline(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    drop(store);
    assert!(open_offline(dir.path()).is_ok());
    let nothing = tempfile::tempdir().unwrap();
    let refused = open_offline(&nothing.path().join("none")).unwrap_err();
    assert!(refused.to_string().contains("open it"), "{refused}");
}

#[tokio::test]
async fn a_row_that_was_changed_or_taken_away_is_found_with_its_index() {
    let dir = tempfile::tempdir().unwrap();
    member_that_wrote(dir.path(), 40).await;
    let broken = |change: &dyn Fn(&rocksdb::DB)| {
        let db = database(dir.path());
        change(&db);
        db.flush_wal(true).unwrap();
        drop(db);
        let offline = open_offline(dir.path()).unwrap();
        let mut rows = Rows::of(&offline);
        loop {
            match rows.next_row() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("nothing was found"),
                Err(error) => return error,
            }
        }
    };
    let key = |index: u64| index.to_be_bytes();
    let changed = broken(&|db| {
        let family = db.cf_handle("ledger").unwrap();
        let mut row = db.get_cf(family, key(30)).unwrap().unwrap();
        // Inside the entry, which stands behind index and term.
        row[20] ^= 1;
        db.put_cf(family, key(30), row).unwrap();
    });
    assert_eq!(changed.index(), Some(30), "{changed}");
    let gone = broken(&|db| db.delete_cf(db.cf_handle("ledger").unwrap(), key(12)).unwrap());
    assert_eq!(gone.index(), Some(12), "{gone}");
}

#[tokio::test]
async fn a_committed_checkpoint_is_compared_with_what_was_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let checkpoints = store.handle.checkpoints().clone();
    let said = |about: u64, state| {
        let ledger = checkpoints.held(about).unwrap().ledger;
        checkpoint(about, state, ledger)
    };
    // The default interval: 1,000 is marked, and so is whatever is newest.
    apply(&mut store.machine, entries(1, 0..1_500)).await.unwrap();
    assert_eq!(checkpoints.newest_mark(), Some(1_000));
    let right = said(1_000, checkpoints.held(1_000).unwrap().state);
    apply(&mut store.machine, vec![right.at(1_500)]).await.unwrap();
    assert_eq!(*checkpoints.diverged().borrow(), None);
    assert_eq!(checkpoints.last().unwrap().at, 1_500);

    // In one batch with what it is about: compared with the state right before it.
    let mut batch = entries(1, 1_501..1_510);
    batch.push(checkpoint(1_509, Digest([3; 32]), [3; 32]).at(1_510));
    apply(&mut store.machine, batch).await.unwrap();
    let diverged = checkpoints.diverged().borrow().unwrap();
    assert_eq!((diverged.own.index, diverged.committed.at), (1_509, 1_510));
    let (applied, _) = store.machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(log_id(1, 1_510)), "it goes on applying");
}

struct Said(Payload);

fn checkpoint(about: u64, state: Digest, ledger: [u8; 32]) -> Said {
    Said(Payload::Checkpoint { index: LogIndex(about), state, ledger: Digest(ledger) })
}

impl Said {
    fn at(self, index: u64) -> Entry {
        let entry = dovetail_routing::Entry {
            schema_version: SCHEMA_VERSION,
            leader_time_ms: 1_000,
            actor: "dovetail://member/1".into(),
            request_id: "".into(),
            cause: "".into(),
            payload: self.0,
        };
        let bytes = EntryBytes(convert::encode_entry(&entry).into());
        Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(bytes) }
    }
}
