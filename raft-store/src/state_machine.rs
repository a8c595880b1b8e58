//! openraft's state machine: decodes entries, applies them, publishes the state.
//!
//! The state lies in memory; raft snapshots and the log make it durable. An entry
//! that this build cannot decode ends the process: to skip it would be to disagree.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dovetail_proto::convert;
use dovetail_routing::entry::Answered;
use dovetail_routing::state::State;
use dovetail_routing::{Applied, LogIndex, Payload};
use futures_util::{Stream, StreamExt as _};
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::watch;

use crate::checkpoint::{Checkpoints, Committed, Held};
use crate::disk::{Disk, Family, key};
use crate::flush::Flusher;
use crate::ledger::{Ledger, LedgerHash};
use crate::owner::{OwnerHandle, Presence};
use crate::raft_snapshot::{self, Content, RaftSnapshots};
use crate::types::{
    Answer, Entry, EntryPayload, LogId, RaftSnapshot, RaftSnapshotData, RaftSnapshotMeta,
    StoredMembership, TypeConfig,
};

/// Entries after which their rows are written, the state is shown and answers are sent.
const CHUNK_ENTRIES: usize = 256;

/// How much was applied since the newest raft snapshot.
#[derive(Debug, Default)]
pub(crate) struct SinceSnapshot {
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl SinceSnapshot {
    fn reset(&self) {
        self.entries.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }
}

/// The parts of the store that the state machine works with.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) disk: Arc<Disk>,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) ledger: Ledger,
    pub(crate) snapshots: Arc<RaftSnapshots>,
    pub(crate) owner: OwnerHandle,
    pub(crate) presence: Arc<Presence>,
    pub(crate) since: Arc<SinceSnapshot>,
    pub(crate) checkpoints: Checkpoints,
}

/// What was applied, at one moment.
#[derive(Clone, Default)]
struct Point {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// The state machine; openraft holds the only one.
pub struct StateMachine {
    parts: Parts,
    point: Point,
    publish: watch::Sender<Arc<State>>,
    /// What was applied a few entries ago, for a sabotage.
    #[cfg(feature = "sim")]
    before: [Option<LogId>; 3],
}

impl fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine").field("applied", &self.point.applied).finish_non_exhaustive()
    }
}

/// Entries that were applied, and whom to tell.
#[derive(Default)]
struct Chunk {
    entries: Vec<Entry>,
    answers: Vec<(ApplyResponder<TypeConfig>, Answer)>,
}

impl StateMachine {
    /// Starts at `restored`, else at the beginning.
    pub(crate) fn new(parts: Parts, restored: Option<Content>) -> Self {
        let point = restored.map(Point::from).unwrap_or_default();
        let publish = watch::Sender::new(Arc::new(point.state.clone()));
        Self {
            parts,
            point,
            publish,
            #[cfg(feature = "sim")]
            before: [None; 3],
        }
    }

    /// The state after each applied batch.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.publish.subscribe()
    }

    fn apply_entry(&mut self, entry: &Entry, chunk: &mut Chunk) -> io::Result<Answer> {
        let id = entry.log_id;
        let index = id.index;
        let mut answer = Answer { index, applied: Applied::Unchanged, first_answer: false };
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.point.membership = StoredMembership::new(Some(id), membership.clone());
            }
            EntryPayload::Normal(data) => {
                let decoded = convert::decode_entry(&data.0);
                #[cfg(feature = "sim")]
                let decoded = decoded.map(crate::sim::sabotaged_entry);
                let command = decoded.map_err(|error| {
                    let reason = format!(
                        "entry {index} cannot be read by this build, so a member of a newer build \
                         wrote it: update this member: {}",
                        chain(&error)
                    );
                    self.parts.disk.fail(&reason);
                    io::Error::other(reason)
                })?;
                if let Payload::Checkpoint { index: about, state, ledger } = &command.payload {
                    // What is compared is what was before this entry.
                    self.finish(chunk)?;
                    let held = Held { index: about.0, state: *state, ledger: ledger.0 };
                    self.parts.checkpoints.committed(Committed { at: index, held });
                }
                let Answered { index, applied, first_answer } =
                    self.point.state.answer(LogIndex(index), &command);
                answer = Answer { index: index.0, applied, first_answer };
                self.parts.since.bytes.fetch_add(data.0.len() as u64, Ordering::Relaxed);
            }
        }
        self.parts.since.entries.fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "sim")]
        {
            self.before = [self.before[1], self.before[2], self.point.applied];
        }
        self.point.applied = Some(id);
        Ok(answer)
    }

    /// Writes rows, shows the state, then answers: who was answered sees the change.
    fn finish(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        if chunk.entries.is_empty() {
            return Ok(());
        }
        #[cfg(feature = "sim")]
        if crate::sim::sabotaged(crate::sim::Sabotage::PurgeBeforeLedger) {
            chunk.entries.retain(|entry| entry.log_id.index % 16 != 7);
        }
        self.parts.ledger.record(&self.parts.owner.cluster_id(), &chunk.entries)?;
        chunk.entries.clear();
        if let Some(applied) = self.point.applied {
            let ledger = self.ledger_at(applied.index)?;
            self.parts.checkpoints.applied(applied.index, &self.point.state, ledger);
        }
        self.publish.send_replace(Arc::new(self.point.state.clone()));
        for (responder, answer) in chunk.answers.drain(..) {
            responder.send(answer);
        }
        if let Some(applied) = self.point.applied {
            metrics::gauge!("dovetail_raft_applied_index").set(applied.index as f64);
        }
        Ok(())
    }

    /// The ledger's hash at what was applied last. After a start the ledger may be ahead of
    /// the state, which is built from an older raft snapshot: its head is not of this place.
    fn ledger_at(&self, index: u64) -> io::Result<LedgerHash> {
        let (head, hash) = self.parts.ledger.head();
        if head == index {
            return Ok(hash);
        }
        let found = self.parts.ledger.hash_at(index);
        found
            .map_err(|error| io::Error::other(chain(&error)))?
            .ok_or_else(|| io::Error::other(format!("the ledger has no row {index}")))
    }

    fn builder(&self) -> Builder {
        #[cfg_attr(not(feature = "sim"), expect(unused_mut, reason = "only a sabotage changes it"))]
        let mut point = self.point.clone();
        #[cfg(feature = "sim")]
        if crate::sim::sabotaged(crate::sim::Sabotage::SnapshotWithoutMembers) {
            point.membership = StoredMembership::default();
        }
        #[cfg(feature = "sim")]
        if let Some(before) =
            self.before[0].filter(|_| crate::sim::sabotaged(crate::sim::Sabotage::AppliedLags))
            && let Ok(state) = crate::sim::forgetful(&point.state, before.index)
        {
            (point.applied, point.state) = (Some(before), state);
        }
        Builder { parts: self.parts.clone(), point }
    }
}

impl From<Content> for Point {
    fn from(content: Content) -> Self {
        Self {
            state: content.state,
            applied: content.meta.last_log_id,
            membership: content.meta.last_membership,
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = RaftSnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.point.applied, self.point.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunk = Chunk::default();
        let mut result = Ok(());
        while let Some(next) = entries.next().await {
            let applied = next.and_then(|(entry, responder)| {
                let answer = self.apply_entry(&entry, &mut chunk)?;
                chunk.answers.extend(responder.map(|responder| (responder, answer)));
                chunk.entries.push(entry);
                Ok(())
            });
            if applied.is_err() {
                result = applied;
                break;
            }
            let last = self.point.applied.map_or(0, |id| id.index);
            if chunk.entries.len() >= CHUNK_ENTRIES || self.parts.checkpoints.is_due(last) {
                self.finish(&mut chunk)?;
            }
        }
        self.finish(&mut chunk)?;
        result
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &RaftSnapshotMeta,
        snapshot: RaftSnapshotData,
    ) -> Result<(), io::Error> {
        let parts = self.parts.clone();
        let meta = meta.clone();
        let content = run_blocking(move || install(&parts, &meta, &snapshot)).await?;
        // The ledger's new base is durable before openraft purges the log below it.
        self.parts.flusher.sync().await?;
        self.parts.since.reset();
        self.point = content.into();
        self.publish.send_replace(Arc::new(self.point.state.clone()));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        let snapshots = self.parts.snapshots.clone();
        let current = run_blocking(move || snapshots.current()).await?;
        Ok(current.map(|(meta, snapshot)| RaftSnapshot { meta, snapshot }))
    }
}

/// Checks a raft snapshot, writes it durably, and lets the ledger continue after it.
fn install(parts: &Parts, meta: &RaftSnapshotMeta, bytes: &[u8]) -> io::Result<Content> {
    let content = raft_snapshot::decode(bytes)?;
    if content.meta != *meta {
        return Err(io::Error::other(format!(
            "the raft snapshot is of {}, not of {meta}",
            content.meta
        )));
    }
    let cluster_id = parts.owner.cluster_id();
    if content.cluster_id != cluster_id {
        return Err(io::Error::other(format!(
            "the raft snapshot is of quorum {}, this member belongs to {cluster_id}",
            content.cluster_id
        )));
    }
    if let Some(id) = meta.last_log_id {
        parts.ledger.agrees(id.index, &content.ledger_hash)?;
        if !parts.snapshots.holds(id) {
            parts.snapshots.store(id, bytes)?;
        }
        if parts.owner.is_named_in(meta.last_membership.membership()) {
            let mut batch = parts.disk.batch()?;
            batch.put(Family::Meta, key::NAMED, []);
            parts.disk.write(batch)?;
            parts.presence.named.store(true, Ordering::Release);
        }
        parts.presence.data.store(true, Ordering::Release);
        parts.ledger.jump(id.index, content.ledger_hash, bytes)?;
        parts.ledger.cover(id.index);
    }
    Ok(content)
}

/// Builds a raft snapshot of the moment at which it was made.
pub struct Builder {
    parts: Parts,
    point: Point,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("applied", &self.point.applied).finish_non_exhaustive()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = RaftSnapshotData;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        // A raft snapshot must not outlive the rows that it stands on.
        self.parts.flusher.sync().await?;
        let (parts, point) = (self.parts.clone(), self.point.clone());
        let snapshot = run_blocking(move || build(&parts, point)).await?;
        self.parts.since.reset();
        Ok(snapshot)
    }
}

fn build(parts: &Parts, point: Point) -> io::Result<RaftSnapshot> {
    let ledger_hash = match point.applied {
        None => [0; 32],
        Some(id) => parts
            .ledger
            .hash_at(id.index)
            .map_err(|error| io::Error::other(chain(&error)))?
            .ok_or_else(|| io::Error::other(format!("the ledger has no row {}", id.index)))?,
    };
    let content = Content {
        meta: RaftSnapshotMeta { last_log_id: point.applied, last_membership: point.membership },
        cluster_id: parts.owner.cluster_id(),
        ledger_hash,
        state: point.state,
    };
    let bytes = raft_snapshot::encode(&content)?;
    if let Some(id) = point.applied {
        parts.snapshots.store(id, &bytes)?;
        parts.ledger.cover(id.index);
        metrics::gauge!("dovetail_raft_snapshot_index").set(id.index as f64);
        metrics::gauge!("dovetail_raft_snapshot_bytes").set(bytes.len() as f64);
    }
    Ok(RaftSnapshot { meta: content.meta, snapshot: bytes })
}

/// Keeps files and hashing off the threads that carry heartbeats.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    #[cfg(feature = "sim")]
    if crate::sim::is_active() {
        return crate::sim::run_blocking(work).await;
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
