//! openraft's own suite for stores: necessary, not sufficient (it knows no crash).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod store_support;

use dovetail_raft_store::{LogStore, StateMachine, StoreConfig, TypeConfig};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

struct Folders;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Folders {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let store = dovetail_raft_store::open(dir.path(), 1, StoreConfig::default()).unwrap();
        store.owner.found(store_support::CLUSTER).unwrap();
        Ok((dir, store.log, store.machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_keeps_openrafts_contract() {
    Suite::test_all(Folders).await.unwrap();
}
