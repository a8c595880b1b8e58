//! The ledger: an append-only, hash-chained copy of every applied entry.
//!
//! What a row's hash is, `dovetail-ledger` says. Every index has a row, blank and
//! membership entries too. Rows share the log's write-ahead log: they are written as
//! entries are applied, and are durable before the log is purged. Where a raft
//! snapshot jumped over entries, the ledger has a gap and a new segment.
//!
//! * [`past`]: the state before the first row, so that what follows can be replayed;
//! * [`trim`]: the oldest rows go, and that state moves on;
//! * [`refill`]: what a raft snapshot jumped over, from another member and checked.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use dovetail_ledger::chain::{Broken, LedgerHash, row_hash};
use dovetail_proto::v1 as wire;
use prost::Message as _;

use crate::base::Bases;
use crate::codec::{self, messages as pb};
use crate::disk::{Batch, Disk, Family, index_key, key};
use crate::types::{Entry, EntryPayload};

mod past;
mod refill;
mod trim;

pub use past::Start;
pub use refill::{Lack, Piece, Unproven};
pub use trim::Retention;

/// Rows given at once at most.
pub const LEDGER_ROWS_MAX: usize = 10_000;
/// Bytes of rows given at once, give or take one row.
const ROWS_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Gaps kept; with more, the oldest segment goes.
const SEGMENTS_MAX: usize = 64;

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("read the ledger")]
    Disk(#[from] io::Error),
    #[error("ledger row {index} is damaged")]
    Damaged {
        index: u64,
        #[source]
        error: prost::DecodeError,
    },
    #[error("ledger row {index} is missing")]
    Missing { index: u64 },
    #[error("ledger row {index} is not here yet")]
    NotYet { index: u64 },
    #[error("entry {index} of the ledger cannot be read by this build")]
    Entry {
        index: u64,
        #[source]
        error: dovetail_proto::convert::InvalidEntry,
    },
}

/// The ledger holds together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The oldest row; `None` for an empty ledger.
    pub first: Option<u64>,
    pub last: Option<u64>,
    pub rows: u64,
    /// The hash of the newest row.
    pub hash: LedgerHash,
    /// Indexes after which rows are missing, since a raft snapshot jumped over them.
    pub gaps: Vec<u64>,
}

/// Everything up to `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    index: u64,
    hash: LedgerHash,
    /// Bytes of all rows ever written up to here.
    bytes: u64,
}

/// Rows without a gap, after `base` and up to `head`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Segment {
    /// What the first row follows on; `None` where the log begins.
    base: Option<Mark>,
    head: Option<Mark>,
    /// A raft snapshot jumped over what was before, and another member may still have it.
    jumped: bool,
}

impl Segment {
    fn end(&self) -> Option<Mark> {
        self.head.or(self.base)
    }

    fn first(&self) -> u64 {
        self.base.map_or(0, |base| base.index + 1)
    }

    fn next(&self) -> u64 {
        self.end().map_or(0, |end| end.index + 1)
    }
}

#[derive(Debug)]
struct Inner {
    disk: Arc<Disk>,
    bases: Bases,
    /// Oldest first, never empty; all but the newest are closed.
    segments: Mutex<Vec<Segment>>,
    /// One more than the newest raft snapshot's index; rows from here on are kept.
    covered: AtomicU64,
}

/// The ledger of this member. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

impl Ledger {
    pub(crate) fn open(disk: Arc<Disk>) -> io::Result<Self> {
        let segments = match disk.get(Family::Meta, key::LEDGER)? {
            None => vec![Segment::default()],
            Some(bytes) => decode_segments(&bytes)?,
        };
        let (bases, covered) = (Bases::open(disk.dir())?, AtomicU64::new(0));
        Ok(Self(Arc::new(Inner { disk, bases, segments: Mutex::new(segments), covered })))
    }

    fn segments(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.0.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> Segment {
        self.segments().last().copied().unwrap_or_default()
    }

    /// The newest row's index and hash; `(0, zeros)` while nothing was applied.
    pub fn head(&self) -> (u64, LedgerHash) {
        self.newest().end().map_or((0, [0; 32]), |end| (end.index, end.hash))
    }

    /// The oldest row's index; that of the next row while there is none.
    pub fn first(&self) -> u64 {
        let segments = self.segments();
        let oldest = segments.iter().find(|segment| segment.head.is_some());
        oldest.or(segments.last()).map_or(0, Segment::first)
    }

    /// The first row of the newest run without a gap, and the hash that it follows on.
    pub fn newest_run(&self) -> (u64, LedgerHash) {
        let newest = self.newest();
        (newest.first(), newest.base.map_or([0; 32], |base| base.hash))
    }

    /// The index that the next row will have.
    pub(crate) fn next(&self) -> u64 {
        self.newest().next()
    }

    /// The hash at `index`, when a row or a base is there.
    pub fn hash_at(&self, index: u64) -> Result<Option<LedgerHash>, LedgerError> {
        let known = self
            .segments()
            .iter()
            .flat_map(|segment| [segment.base, segment.head])
            .flatten()
            .find(|mark| mark.index == index);
        if let Some(mark) = known {
            return Ok(Some(mark.hash));
        }
        Ok(self.rows(index, 1)?.first().filter(|row| row.index == index).map(hash_of))
    }

    /// Rows from `from` on, at most `limit`, oldest first. Gaps are skipped.
    pub fn rows(&self, from: u64, limit: usize) -> Result<Vec<wire::LedgerRow>, LedgerError> {
        let limit = limit.min(LEDGER_ROWS_MAX);
        let (from, end) = (from.max(self.first()), self.next());
        let mut rows = Vec::new();
        let mut bytes = 0;
        if from >= end || limit == 0 {
            return Ok(rows);
        }
        let mut damaged = None;
        self.0.disk.scan(Family::Ledger, from, end, |index, value| {
            match wire::LedgerRow::decode(value) {
                Ok(row) => rows.push(row),
                Err(error) => damaged = Some(LedgerError::Damaged { index, error }),
            }
            bytes += value.len();
            Ok(damaged.is_none() && rows.len() < limit && bytes < ROWS_BYTES_MAX)
        })?;
        damaged.map_or(Ok(rows), Err)
    }

    /// Recomputes every hash; `cluster_id` is the quorum's that wrote the rows.
    pub fn verify(&self, cluster_id: &str) -> Result<Verified, Broken> {
        let broken = |index, reason: String| Broken { index, reason };
        let segments = self.segments().clone();
        let mut verified = Verified::default();
        let mut previous_end = None;
        for segment in segments {
            if let Some(end) = previous_end {
                verified.gaps.push(end);
            }
            let Some(head) = segment.head else { continue };
            let mut hash = segment.base.map_or([0; 32], |base| base.hash);
            let mut next = segment.first();
            verified.first.get_or_insert(next);
            while next <= head.index {
                let rows = self
                    .rows(next, LEDGER_ROWS_MAX)
                    .map_err(|error| broken(next, chain_of(&error)))?;
                if rows.is_empty() {
                    return Err(broken(next, "the row is missing".to_owned()));
                }
                for row in rows.iter().take_while(|row| row.index <= head.index) {
                    if row.index != next {
                        return Err(broken(next, "the row is missing".to_owned()));
                    }
                    hash = row_hash(&hash, cluster_id, row);
                    if row.hash != hash {
                        return Err(broken(next, "the hash does not fit the row".to_owned()));
                    }
                    verified.rows += 1;
                    next += 1;
                }
                if rows.last().is_some_and(|row| row.index > head.index) && next <= head.index {
                    return Err(broken(next, "the row is missing".to_owned()));
                }
            }
            if hash != head.hash {
                return Err(broken(head.index, "the hash is not the ledger's head".to_owned()));
            }
            verified.last = Some(head.index);
            verified.hash = hash;
            previous_end = Some(head.index);
        }
        Ok(verified)
    }

    /// Writes the rows of entries that were applied, skipping those that are there.
    pub(crate) fn record(&self, cluster_id: &str, entries: &[Entry]) -> io::Result<()> {
        let mut segments = self.segments();
        let mut newest = segments.last().copied().unwrap_or_default();
        let mut closed = Vec::new();
        let mut batch = self.0.disk.batch()?;
        for entry in entries {
            let id = entry.log_id;
            if id.index < newest.next() {
                continue;
            }
            if cluster_id.is_empty() {
                return Err(io::Error::other(
                    "the ledger needs the cluster id before the first entry",
                ));
            }
            if id.index > newest.next() {
                tracing::error!(from = newest.next(), to = id.index, "ledger jumped over entries");
                if newest.head.is_some() {
                    closed.push(newest);
                }
                let hash = newest.end().map_or([0; 32], |end| end.hash);
                let bytes = newest.end().map_or(0, |end| end.bytes);
                let base = Some(Mark { index: id.index - 1, hash, bytes });
                newest = Segment { base, head: None, jumped: false };
            }
            let (mut row, end) = (row_of(entry), newest.end());
            let hash = row_hash(&end.map_or([0; 32], |end| end.hash), cluster_id, &row);
            row.hash = hash.to_vec();
            let value = row.encode_to_vec();
            batch.put(Family::Ledger, index_key(id.index), &value);
            let bytes = end.map_or(0, |end| end.bytes) + value.len() as u64;
            newest.head = Some(Mark { index: id.index, hash, bytes });
        }
        if segments.last() == Some(&newest) && closed.is_empty() {
            return Ok(());
        }
        let mut changed = segments.clone();
        changed.pop();
        changed.extend(closed);
        changed.push(newest);
        self.store(&mut segments, changed, batch)
    }

    /// Continues after a raft snapshot at `index`, whose ledger head was `hash` and whose
    /// file is `bytes`: its state is the base of the rows to come.
    pub(crate) fn jump(&self, index: u64, hash: LedgerHash, bytes: &[u8]) -> io::Result<()> {
        if self.next() > index {
            return Ok(());
        }
        self.0.bases.store(index, bytes)?;
        let mut segments = self.segments();
        let newest = segments.last().copied().unwrap_or_default();
        if newest.next() > index {
            return Ok(());
        }
        let bytes = newest.end().map_or(0, |end| end.bytes);
        let mut changed = segments.clone();
        if newest.head.is_none() {
            changed.pop();
        }
        let base = Some(Mark { index, hash, bytes });
        changed.push(Segment { base, head: None, jumped: true });
        self.store(&mut segments, changed, self.0.disk.batch()?)
    }

    /// An error when a row at `index` has another hash than a raft snapshot says.
    pub(crate) fn agrees(&self, index: u64, hash: &LedgerHash) -> io::Result<()> {
        match self.hash_at(index).map_err(|error| io::Error::other(chain_of(&error)))? {
            Some(held) if held != *hash => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the ledger and the raft snapshot disagree at index {index}"),
            )),
            _ => Ok(()),
        }
    }

    /// Remembers that raft snapshots cover everything up to `index`.
    pub(crate) fn cover(&self, index: u64) {
        self.0.covered.fetch_max(index.saturating_add(1), Ordering::AcqRel);
    }

    /// Writes rows and segments in one batch, then shows them.
    fn store(
        &self,
        segments: &mut Vec<Segment>,
        mut changed: Vec<Segment>,
        mut batch: Batch<'_>,
    ) -> io::Result<()> {
        while changed.len() > SEGMENTS_MAX {
            let oldest = changed.remove(0);
            batch.delete_range(Family::Ledger, oldest.first(), oldest.next());
        }
        batch.put(Family::Meta, key::LEDGER, encode_segments(&changed));
        self.0.disk.write(batch)?;
        *segments = changed;
        Ok(())
    }
}

/// The row of an entry, still without its hash.
fn row_of(entry: &Entry) -> wire::LedgerRow {
    let (kind, bytes) = match &entry.payload {
        EntryPayload::Normal(data) => (wire::LedgerRowKind::Entry, data.0.clone()),
        EntryPayload::Blank => (wire::LedgerRowKind::Blank, bytes::Bytes::new()),
        EntryPayload::Membership(_) => (wire::LedgerRowKind::Membership, bytes::Bytes::new()),
    };
    wire::LedgerRow {
        index: entry.log_id.index,
        term: entry.log_id.leader_id.term,
        entry: bytes,
        kind: kind.into(),
        hash: Vec::new(),
    }
}

fn hash_of(row: &wire::LedgerRow) -> LedgerHash {
    // A row of another length fails its check wherever it is verified.
    row.hash.as_slice().try_into().unwrap_or([0; 32])
}

fn chain_of(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn encode_segments(segments: &[Segment]) -> Vec<u8> {
    let mark = |mark: Mark| pb::LedgerMark {
        index: mark.index,
        hash: mark.hash.to_vec(),
        bytes: mark.bytes,
    };
    let segments = segments
        .iter()
        .map(|segment| pb::LedgerSegment {
            base: segment.base.map(mark),
            head: segment.head.map(mark),
            jumped: segment.jumped,
        })
        .collect();
    pb::LedgerSegments { segments }.encode_to_vec()
}

fn decode_segments(bytes: &[u8]) -> io::Result<Vec<Segment>> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let mark = |mark: pb::LedgerMark| match mark.hash.as_slice().try_into() {
        Ok(hash) => Ok(Mark { index: mark.index, hash, bytes: mark.bytes }),
        Err(_) => Err(invalid("ledger: a hash that is not 32 bytes")),
    };
    let segments: pb::LedgerSegments = codec::decode("ledger", bytes)?;
    let segments = segments
        .segments
        .into_iter()
        .map(|segment| {
            Ok(Segment {
                base: segment.base.map(mark).transpose()?,
                head: segment.head.map(mark).transpose()?,
                jumped: segment.jumped,
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    if segments.is_empty() {
        return Err(invalid("ledger: no segment"));
    }
    Ok(segments)
}
