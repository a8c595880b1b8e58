//! A member whose disk was replaced asks others, some of which lie or do not answer.

use std::path::Path;
use std::sync::Mutex;

use dovetail_proto::convert;
use dovetail_raft_store::{Entry, EntryBytes, EntryPayload, LeaderId, LogId, Store, StoreConfig};
use dovetail_routing::entry::SCHEMA_VERSION;
use dovetail_routing::{Command, Payload};
use openraft::storage::{RaftLogStorageExt as _, RaftSnapshotBuilder as _, RaftStateMachine as _};

use super::*;

const CLUSTER: &str = "c0ffee";

/// A member's store with `end` remarks and a raft snapshot of them.
async fn member(dir: &Path, end: u64) -> Store {
    let mut store = dovetail_raft_store::open(dir, 1, StoreConfig::default()).expect("a store");
    store.owner.found(CLUSTER).expect("an owner");
    if end == 0 {
        return store;
    }
    let entries: Vec<Entry> = (0..end).map(remark).collect();
    store.log.blocking_append(entries.clone()).await.expect("appended");
    let items = entries.into_iter().map(|entry| Ok((entry, None)));
    store.machine.apply(futures_util::stream::iter(items)).await.expect("applied");
    let mut builder = store.machine.try_create_snapshot_builder(true).await.expect("a builder");
    builder.build_snapshot().await.expect("a raft snapshot");
    store
}

fn remark(index: u64) -> Entry {
    let entry = dovetail_routing::Entry {
        schema_version: SCHEMA_VERSION,
        leader_time_ms: 1_000,
        actor: "dovetail://operator/anna".into(),
        request_id: "".into(),
        cause: "test".into(),
        payload: Payload::Command(Command::Annotate { text: format!("remark {index}").into() }),
    };
    let data = EntryBytes(convert::encode_entry(&entry).into());
    let log_id = LogId::new(LeaderId { term: 1, node_id: 1 }, index);
    Entry { log_id, payload: EntryPayload::Normal(data) }
}

/// What a member answers.
enum Answer {
    Honest,
    /// Rows of which one was altered.
    Altered,
    Silent,
    Nothing,
}

/// Members that answer from the ledger of one.
struct Others {
    ledger: Ledger,
    answers: BTreeMap<Slot, Answer>,
    asked: Mutex<Vec<Slot>>,
}

impl Source for Others {
    async fn rows(&self, slot: Slot, lack: Lack) -> Result<Piece, String> {
        self.asked.lock().expect("no panic").push(slot);
        let mut piece = self.ledger.piece(lack.first, lack.last).map_err(|error| chain(&error))?;
        match self.answers[&slot] {
            Answer::Honest => {}
            Answer::Altered => piece.rows[7].term += 1,
            Answer::Silent => return Err("no answer in time".to_owned()),
            Answer::Nothing => piece.rows.clear(),
        }
        Ok(piece)
    }

    async fn base(&self, slot: Slot) -> Result<Option<Bytes>, String> {
        match self.answers[&slot] {
            Answer::Honest => Ok(self.ledger.oldest_base()?.map(Bytes::from)),
            Answer::Altered => Ok(Some(Bytes::from_static(b"whatever it is"))),
            Answer::Silent => Err("no answer in time".to_owned()),
            Answer::Nothing => Ok(None),
        }
    }
}

/// A member that a raft snapshot took to index 59, and others with the rows up to there, of
/// which the oldest twenty are trimmed if told so.
struct Lab {
    _dirs: [tempfile::TempDir; 2],
    store: Store,
    soft: SoftProblems,
    others: Others,
}

impl Lab {
    async fn new(trimmed: bool, answers: impl IntoIterator<Item = (Slot, Answer)>) -> Self {
        let dirs = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        let mut other = member(dirs[0].path(), 60).await;
        if trimmed {
            let keep = Retention { rows_max: 40, ..Retention::default() };
            other.handle.trim_ledger(keep, 0).await.expect("trimmed");
        }
        let mut store = member(dirs[1].path(), 0).await;
        let sent = other.machine.get_current_snapshot().await.expect("read").expect("one");
        store.machine.install_snapshot(&sent.meta, sent.snapshot).await.expect("installed");
        let answers = answers.into_iter().collect();
        let others = Others { ledger: other.ledger.clone(), answers, asked: Mutex::default() };
        Self { _dirs: dirs, store, soft: SoftProblems::new(), others }
    }

    async fn fetch(&self) -> bool {
        let mut asked_state = None;
        let mut fetch = Fetch {
            store: &self.store.handle,
            ledger: &self.store.ledger,
            source: &self.others,
            soft: &self.soft,
            retention: Retention::default(),
            others: self.others.answers.keys().copied().collect(),
            reasons: BTreeMap::new(),
            asked_state: &mut asked_state,
        };
        fetch.run(|| 0).await
    }

    fn reasons(&self) -> Vec<String> {
        self.soft.list().into_iter().map(|problem| problem.reason).collect()
    }

    fn replays_from(&self) -> Option<u64> {
        let start = self.store.ledger.start(CLUSTER).expect("a start");
        start.state.map(|_| start.first)
    }
}

#[tokio::test]
async fn a_member_that_lies_is_named_with_the_index_and_another_is_asked() {
    let lab = Lab::new(false, [(2, Answer::Altered), (3, Answer::Honest)]).await;
    assert!(lab.fetch().await);
    let problems = lab.soft.list();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!((problems[0].value.as_str(), problems[0].since_index), ("7", 7));
    assert!(problems[0].reason.contains("member 2 sent"), "{problems:?}");
    assert_eq!(lab.store.ledger.verify(CLUSTER).expect("whole").rows, 60);
    assert_eq!((lab.replays_from(), lab.store.ledger.lacks()), (Some(0), None));
    assert_eq!(*lab.others.asked.lock().expect("no panic"), [2, 3]);
}

#[tokio::test]
async fn while_nobody_can_give_the_rows_a_problem_says_why() {
    let mut lab = Lab::new(true, [(2, Answer::Silent), (3, Answer::Nothing)]).await;
    assert!(!lab.fetch().await, "member 2 may have them");
    let said = lab.reasons().concat();
    assert!(said.contains("lacks rows up to here: member 2: no answer in time"), "{said}");
    assert!(lab.store.ledger.lacks().is_some());

    lab.others.answers.insert(2, Answer::Altered);
    assert!(!lab.fetch().await);
    assert_eq!(lab.reasons().len(), 2, "{:?}", lab.reasons());
    lab.others.answers.insert(2, Answer::Honest);
    assert!(lab.fetch().await);
    assert!(!lab.reasons().concat().contains("lacks rows"), "{:?}", lab.reasons());
    assert_eq!((lab.replays_from(), lab.store.ledger.first()), (Some(60), 20));
}

#[tokio::test]
async fn what_nobody_has_is_given_up() {
    let lab = Lab::new(false, [(2, Answer::Nothing), (3, Answer::Nothing)]).await;
    assert!(lab.fetch().await && lab.fetch().await);
    assert_eq!((lab.store.ledger.lacks(), lab.replays_from()), (None, Some(60)));
    assert!(lab.reasons().is_empty());
    let alone = Lab::new(false, []).await;
    assert!(alone.fetch().await, "a member without others lacks nothing that it could have");
}
