//! A lone member with openraft itself on top: what it answered is there after a restart.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod store_support;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dovetail_raft_store::offline::{self, Founder};
use dovetail_raft_store::{
    Answer, MemberNode, Raft, RaftSnapshot, StoreConfig, StoreHandle, TypeConfig, Vote,
};
use dovetail_routing::state::State;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{Config, OptionalSend, SnapshotPolicy};
use store_support::{CLUSTER, remark};
use tokio::sync::watch;

/// There is nobody else.
struct Alone;

fn unreachable<T>() -> Result<T, RPCError<TypeConfig>> {
    let error = std::io::Error::other("there is nobody else");
    Err(RPCError::Unreachable(Unreachable::new(&error)))
}

impl RaftNetworkFactory<TypeConfig> for Alone {
    type Network = Self;

    async fn new_client(&mut self, _id: u64, _node: &MemberNode) -> Self {
        Self
    }
}

impl RaftNetworkV2<TypeConfig> for Alone {
    type SnapshotData = bytes::Bytes;

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        unreachable()
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        unreachable()
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: RaftSnapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let error = std::io::Error::other("there is nobody else");
        Err(StreamingError::Unreachable(Unreachable::new(&error)))
    }
}

struct Member {
    raft: Raft,
    state: watch::Receiver<Arc<State>>,
    handle: StoreHandle,
    ledger: dovetail_raft_store::Ledger,
    owner: dovetail_raft_store::OwnerHandle,
    dir: PathBuf,
}

async fn start(dir: &Path) -> Member {
    let config = StoreConfig { snapshot_entries: 50, ..StoreConfig::default() };
    let store = dovetail_raft_store::open(dir, 1, config).unwrap();
    if !store.has_data() {
        store.owner.found(CLUSTER).unwrap();
    }
    let config = Config {
        heartbeat_interval: 30,
        election_timeout_min: 100,
        election_timeout_max: 150,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 10,
        ..Config::default()
    };
    let config = Arc::new(config.validate().unwrap());
    let raft = Raft::new(1, config, Alone, store.log, store.machine).await.unwrap();
    Member {
        raft,
        state: store.state,
        handle: store.handle,
        ledger: store.ledger,
        owner: store.owner,
        dir: dir.to_owned(),
    }
}

impl Member {
    async fn leads(&self) {
        let wait = self.raft.wait(Some(Duration::from_secs(20)));
        wait.current_leader(1, "the lone member leads").await.unwrap();
    }

    /// Ends it; returns the last state. Its folder is free afterwards.
    async fn end(self) -> Arc<State> {
        let state = Arc::clone(&self.state.borrow());
        self.raft.shutdown().await.unwrap();
        let lock = self.dir.join("lock");
        drop(self);
        // Raft's own tasks may hold parts of the store for a moment longer.
        let freed = tokio::time::timeout(Duration::from_secs(20), async {
            while std::fs::File::open(&lock).unwrap().try_lock().is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        freed.await.expect("the folder is free");
        state
    }

    async fn write(&self, text: &str, request_id: &str) -> Answer {
        self.raft.client_write(remark(text, request_id)).await.unwrap().data
    }
}

/// A quorum of one that wrote so many remarks, and has ended.
async fn story(dir: &Path, remarks: u64) -> Arc<State> {
    let member = start(dir).await;
    let node = MemberNode { slot: 1, ..MemberNode::default() };
    member.raft.initialize(BTreeMap::from([(1, node)])).await.unwrap();
    member.leads().await;
    for number in 0..remarks {
        member.write(&format!("remark {number}"), &format!("r-{number}")).await;
    }
    member.end().await
}

const FOUNDER: Founder<'_> = Founder { slot: 1, address: "core-1:8080" };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_without_its_quorum_goes_on_as_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let before = story(dir.path(), 20).await;
    let made = offline::recover(dir.path(), FOUNDER).await.unwrap();
    assert_eq!(made.parent, CLUSTER);
    assert!(made.parent_index >= before.applied_index().0);
    let aside = made.aside.unwrap();
    assert!(aside.starts_with(dir.path()) && aside.join("db").is_dir(), "{}", aside.display());

    let member = start(dir.path()).await;
    member.leads().await;
    assert_eq!(member.owner.get().cluster_id, made.cluster_id);
    assert_eq!(member.state.borrow().ancestors(), [CLUSTER.into()]);
    let again = member.write("remark 7", "r-7").await;
    assert!(again.first_answer, "request ids are remembered: {again:?}");
    let next = member.write("after the recovery", "").await;
    assert!(next.index > made.index && made.index > 1_000_000_000);
    let verified = member.ledger.verify(&made.cluster_id).unwrap();
    assert_eq!(verified.last, Some(next.index));
    member.end().await;
    let member = start(dir.path()).await;
    member.leads().await;
    assert!(member.write("after a restart", "").await.index > next.index);
    member.end().await;

    let old = dovetail_raft_store::open(&aside, 1, StoreConfig::default()).unwrap();
    assert!(old.ledger.verify(CLUSTER).unwrap().rows > 20, "the old story is still to be read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_goes_on_as_another_quorum() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    std::fs::create_dir(&old).unwrap();
    story(&old, 5).await;
    let member = start(&old).await;
    member.leads().await;
    member.raft.trigger().snapshot().await.unwrap();
    let wait = member.raft.wait(Some(Duration::from_secs(20)));
    wait.metrics(|metrics| metrics.snapshot.is_some(), "a raft snapshot").await.unwrap();
    let backup = dir.path().join("backup");
    std::fs::write(&backup, member.handle.newest_snapshot().unwrap().unwrap()).unwrap();
    let written = member.write("after the backup", "").await.index;
    member.end().await;

    let made = offline::restore(&backup, &new, FOUNDER).await.unwrap();
    assert!(made.parent_index < written && made.index > written);
    let refused = offline::restore(&backup, &new, FOUNDER).await.unwrap_err().to_string();
    assert!(refused.contains(&made.cluster_id), "{refused}");
    let member = start(&new).await;
    member.leads().await;
    assert!(member.write("remark 3", "r-3").await.first_answer);
    assert!(!member.write("after the backup", "").await.first_answer);
    member.end().await;

    let mut bytes = std::fs::read(&backup).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&backup, bytes).unwrap();
    let other = dir.path().join("other");
    let refused = offline::restore(&backup, &other, FOUNDER).await.unwrap_err();
    let refused = format!("{refused}: {}", std::error::Error::source(&refused).unwrap());
    assert!(refused.contains("does not match its hash"), "{refused}");
    assert!(!other.exists(), "nothing was made");
    let nothing = offline::recover(&other, FOUNDER).await.unwrap_err().to_string();
    assert!(nothing.contains("nothing to recover"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_member_keeps_what_it_answered() {
    let dir = tempfile::tempdir().unwrap();
    let member = start(dir.path()).await;
    let node = MemberNode { slot: 1, ..MemberNode::default() };
    member.raft.initialize(BTreeMap::from([(1, node)])).await.unwrap();
    member.leads().await;
    let first = member.write("one", "r-1").await;
    assert!(!first.first_answer);
    assert_eq!(member.state.borrow().applied_index().0, first.index, "shown before the answer");
    let again = member.write("one", "r-1").await;
    assert!(again.first_answer, "{again:?}");
    assert_eq!((again.index, again.applied), (first.index, first.applied));
    assert!(!member.handle.should_snapshot());
    let mut last = 0;
    for number in 0..60 {
        last = member.write(&format!("remark {number}"), "").await.index;
    }
    assert!(member.handle.should_snapshot());
    let digest = member.state.borrow().digest();
    member.raft.trigger().snapshot().await.unwrap();
    let wait = member.raft.wait(Some(Duration::from_secs(20)));
    wait.metrics(|metrics| metrics.purged.is_some(), "purged").await.unwrap();
    assert!(!member.handle.should_snapshot());
    member.end().await;

    let member = start(dir.path()).await;
    member.leads().await;
    assert_eq!(member.state.borrow().digest(), digest);
    let next = member.write("after the restart", "").await;
    assert!(next.index > last);
    let verified = member.ledger.verify(CLUSTER).unwrap();
    assert_eq!((verified.first, verified.last), (Some(0), Some(next.index)));
    assert_eq!(verified.rows, next.index + 1);
    member.raft.shutdown().await.unwrap();
}
