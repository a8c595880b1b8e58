//! What the tests of the store share: entries, a data folder, and access behind the store's back.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};

use dovetail_proto::convert;
use dovetail_raft_store::{
    Entry, EntryBytes, EntryPayload, LeaderId, Ledger, LogId, LogStore, MemberNode, Membership,
    OpenError, StateMachine, Store, StoreConfig, Vote,
};
use dovetail_routing::entry::SCHEMA_VERSION;
use dovetail_routing::state::State;
use dovetail_routing::{Command, Digest, LogIndex, Payload};
use openraft::storage::{
    RaftLogStorage as _, RaftLogStorageExt as _, RaftSnapshotBuilder as _, RaftStateMachine as _,
};

pub(crate) const CLUSTER: &str = "c0ffee";

/// Opens `dir` as member 1, a founder of [`CLUSTER`].
pub(crate) fn open(dir: &Path) -> Store {
    let store = try_open(dir).unwrap_or_else(|error| panic!("{error}"));
    store.owner.found(CLUSTER).expect("the owner marker");
    store
}

pub(crate) fn try_open(dir: &Path) -> Result<Store, OpenError> {
    dovetail_raft_store::open(dir, 1, StoreConfig::default())
}

/// Why `dir` does not open: one line for people.
pub(crate) fn refusal(dir: &Path) -> String {
    let text = match try_open(dir) {
        Ok(_) => panic!("{} was opened", dir.display()),
        Err(error) => error.to_string(),
    };
    assert!(!text.contains('\n'), "one line: {text:?}");
    assert!(text.contains(&dir.display().to_string()), "names the folder: {text}");
    text
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

pub(crate) fn vote(term: u64) -> Vote {
    Vote::new(term, 1)
}

/// A remark, as the log holds it.
pub(crate) fn remark(text: &str, request_id: &str) -> EntryBytes {
    bytes_of(request_id, Payload::Command(Command::Annotate { text: text.into() }))
}

/// What the state and the ledger were after `about`.
pub(crate) fn checkpoint(index: u64, about: LogIndex, state: Digest, ledger: Digest) -> Entry {
    let data = bytes_of("", Payload::Checkpoint { index: about, state, ledger });
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(data) }
}

fn bytes_of(request_id: &str, payload: Payload) -> EntryBytes {
    let entry = dovetail_routing::Entry {
        schema_version: SCHEMA_VERSION,
        leader_time_ms: 1_000,
        actor: "dovetail://operator/anna".into(),
        request_id: request_id.into(),
        cause: "test".into(),
        payload,
    };
    EntryBytes(convert::encode_entry(&entry).into())
}

pub(crate) fn entry(term: u64, index: u64) -> Entry {
    let data = remark(&format!("entry {index} of term {term}"), "");
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(data) }
}

pub(crate) fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index)).collect()
}

pub(crate) fn membership(ids: &[(u64, MemberNode)]) -> Membership {
    let voters = ids.iter().map(|(id, _)| *id).collect();
    let nodes: std::collections::BTreeMap<u64, MemberNode> = ids.iter().cloned().collect();
    Membership::new(vec![voters], nodes).expect("a membership")
}

pub(crate) async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    log.blocking_append(entries).await.expect("acknowledged");
}

pub(crate) async fn apply(
    machine: &mut StateMachine,
    entries: Vec<Entry>,
) -> Result<(), std::io::Error> {
    let items = entries.into_iter().map(|entry| Ok((entry, None)));
    machine.apply(futures_util::stream::iter(items)).await
}

/// Appends and applies `from..end`.
pub(crate) async fn commit(store: &mut Store, from: u64, end: u64) {
    append(&mut store.log, entries(1, from..end)).await;
    apply(&mut store.machine, entries(1, from..end)).await.expect("done");
    store.log.save_committed(Some(log_id(1, end - 1))).await.expect("done");
}

pub(crate) async fn snapshot(store: &mut Store) {
    let mut builder = store.machine.try_create_snapshot_builder(true).await.expect("done");
    builder.build_snapshot().await.expect("done");
}

/// Every index and term that the log holds.
pub(crate) async fn held(log: &mut LogStore) -> Vec<(u64, u64)> {
    use openraft::storage::RaftLogReader as _;
    let mut reader = log.get_log_reader().await;
    let entries = reader.try_get_log_entries(..).await.expect("entries");
    entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
}

/// RocksDB's write-ahead log with the most in it.
pub(crate) fn write_ahead_log(dir: &Path) -> PathBuf {
    std::fs::read_dir(dir.join("db"))
        .expect("db")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max_by_key(|path| path.metadata().expect("metadata").len())
        .expect("a write-ahead log")
}

/// Changes a file's bytes.
pub(crate) fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("the file");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("the file");
}

/// Opens RocksDB behind the closed store's back.
pub(crate) fn database(dir: &Path) -> rocksdb::DB {
    let families = ["default", "log", "meta", "ledger"];
    rocksdb::DB::open_cf(&rocksdb::Options::default(), dir.join("db"), families).expect("RocksDB")
}

/// What the entries of [`commit`] come to.
fn expected(last: u64) -> State {
    let mut state = State::default();
    for index in 0..=last {
        let EntryPayload::Normal(data) = entry(1, index).payload else { unreachable!() };
        state.apply(LogIndex(index), &convert::decode_entry(&data.0).expect("an entry"));
    }
    state
}

/// The state that is kept is that of its index, and the rows after it lead to the head.
pub(crate) fn replays(ledger: &Ledger) -> u64 {
    let start = ledger.start(CLUSTER).expect("a start");
    let mut state = start.state.unwrap_or_else(|| panic!("no state: {:?}", start.damaged));
    if let Some(index) = start.first.checked_sub(1) {
        assert_eq!(state.digest(), expected(index).digest(), "the base at {index}");
        assert_eq!(ledger.hash_at(index).expect("a hash"), Some(start.previous));
    }
    let (last, _) = ledger.head();
    for row in ledger.rows(start.first, 10_000).expect("rows") {
        state.apply(LogIndex(row.index), &convert::decode_entry(&row.entry).expect("an entry"));
    }
    assert_eq!(state.digest(), expected(last).digest(), "replayed from {} to {last}", start.first);
    ledger.verify(CLUSTER).expect("a whole ledger");
    start.first
}
