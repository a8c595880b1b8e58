//! What a member held at marked indexes, after it was started again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod store_support;

use std::path::Path;

use dovetail_raft_store::{Held, Store, StoreConfig};
use openraft::storage::{RaftSnapshotBuilder as _, RaftStateMachine as _};
use store_support::{CLUSTER, append, apply, entries};

fn open(dir: &Path) -> Store {
    let config = StoreConfig { checkpoint_entries: 10, ..StoreConfig::default() };
    let store = dovetail_raft_store::open(dir, 1, config).unwrap();
    store.owner.found(CLUSTER).unwrap();
    store
}

fn held(store: &Store) -> Vec<Held> {
    let checkpoints = store.handle.checkpoints();
    [20, 30, 35].into_iter().map(|index| checkpoints.held(index).unwrap()).collect()
}

/// Found by `cargo sim --seed 1`: the ledger is durable to its end, the state begins again at
/// a raft snapshot, and marks between the two had the hash of the ledger's end. A member
/// compared them with the next checkpoint in its own log, and served nobody.
#[tokio::test]
async fn a_start_marks_what_the_ledger_held_there_and_not_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    append(&mut store.log, entries(1, 0..36)).await;
    apply(&mut store.machine, entries(1, 0..13)).await.unwrap();
    let mut builder = store.machine.try_create_snapshot_builder(true).await.unwrap();
    builder.build_snapshot().await.unwrap();
    drop(builder);
    apply(&mut store.machine, entries(1, 13..36)).await.unwrap();
    let before = held(&store);
    drop(store);

    let mut store = open(dir.path());
    assert_eq!(store.ledger.head().0, 35, "the ledger is ahead of the state");
    // openraft applies what was committed, not always to the end at once.
    apply(&mut store.machine, entries(1, 13..25)).await.unwrap();
    let newest = store.handle.checkpoints().held(24).unwrap();
    assert_ne!(newest.ledger, before[2].ledger, "another place, another hash");
    apply(&mut store.machine, entries(1, 25..36)).await.unwrap();
    assert_eq!(held(&store), before);
}
