//! From where states can be rebuilt, and how that place moves on when rows go.

use std::io;

use dovetail_proto::convert;
use dovetail_proto::v1 as wire;
use dovetail_routing::state::State;
use dovetail_routing::{Digest, LogIndex, Payload};

use super::{LEDGER_ROWS_MAX, Ledger, LedgerError, LedgerHash, Mark, Segment};
use crate::raft_snapshot::{self, Content};
use crate::types::{LeaderId, LogId, RaftSnapshotMeta, StoredMembership};

/// From where on the ledger can be replayed.
#[derive(Clone, Debug)]
pub struct Start {
    /// The first row to be applied.
    pub first: u64,
    /// The hash that it follows on; zeros where the log begins.
    pub previous: LedgerHash,
    /// The state that it is applied to; `None` when none is kept, so that rows can be
    /// verified and not replayed.
    pub state: Option<State>,
    /// Why an older state cannot be read; empty when nothing is wrong.
    pub damaged: Vec<String>,
}

impl Ledger {
    /// The oldest state that is kept of the newest run without a gap, and what follows on it.
    ///
    /// `cluster_id` is the quorum's that wrote the rows. Reads and decodes a whole state.
    pub fn start(&self, cluster_id: &str) -> Result<Start, LedgerError> {
        let run = self.newest();
        let (Some(base), Some(end)) = (run.base, run.end()) else {
            let (state, damaged) = (Some(State::default()), Vec::new());
            return Ok(Start { first: 0, previous: [0; 32], state, damaged });
        };
        let mut damaged = Vec::new();
        for index in self.0.bases.within(base.index..=end.index) {
            let held = self.hash_at(index)?;
            match self.0.bases.read(index).and_then(|content| fits(content, cluster_id, held)) {
                Ok(content) => {
                    let (previous, state) = (content.ledger_hash, Some(content.state));
                    return Ok(Start { first: index + 1, previous, state, damaged });
                }
                Err(reason) => damaged.push(reason),
            }
        }
        Ok(Start { first: base.index + 1, previous: base.hash, state: None, damaged })
    }

    /// The oldest index after which the state can be rebuilt, as far as is known without
    /// reading it; `None` when no state is kept.
    pub fn replays_from(&self) -> Option<u64> {
        let run = self.newest();
        match (run.base, run.end()) {
            (Some(base), Some(end)) => self.0.bases.within(base.index..=end.index).first().copied(),
            _ => Some(0),
        }
    }

    /// Keeps the state of a raft snapshot at `index` as the base of the rows after it.
    pub(crate) fn adopt(&self, index: u64, bytes: &[u8]) -> io::Result<()> {
        let run = self.newest();
        let fits = run.base.is_some_and(|base| base.index <= index)
            && run.end().is_some_and(|end| index <= end.index);
        if fits { self.0.bases.store(index, bytes) } else { Ok(()) }
    }

    /// Writes the state at `to` as a base, so that the rows up to there can go. Does
    /// nothing when no older state is at hand.
    pub(super) fn advance(&self, cluster_id: &str, to: Mark) -> Result<(), LedgerError> {
        let start = self.start(cluster_id)?;
        for reason in &start.damaged {
            tracing::error!(reason, "states before the next base cannot be rebuilt");
        }
        let Some(state) = start.state.filter(|_| start.first <= to.index) else {
            return Ok(());
        };
        let (state, term) = self.follow(state, start.first, to.index)?;
        self.keep(cluster_id, state, term, to)
    }

    /// What the rows `from..=last` make of a state, and the term of the last one.
    pub(super) fn follow(
        &self,
        mut state: State,
        from: u64,
        last: u64,
    ) -> Result<(State, u64), LedgerError> {
        let mut term = 0;
        self.each(from, last, |row| {
            term = row.term;
            apply(&mut state, row)
        })?;
        Ok((state, term))
    }

    /// Writes a state as a base.
    pub(super) fn keep(
        &self,
        cluster_id: &str,
        state: State,
        term: u64,
        at: Mark,
    ) -> Result<(), LedgerError> {
        let leader_id = LeaderId { term, node_id: 0 };
        let content = Content {
            meta: RaftSnapshotMeta {
                last_log_id: Some(LogId::new(leader_id, at.index)),
                last_membership: StoredMembership::default(),
            },
            cluster_id: cluster_id.to_owned(),
            ledger_hash: at.hash,
            state,
        };
        let bytes = raft_snapshot::encode(&content)?;
        Ok(self.0.bases.store(at.index, &bytes)?)
    }

    /// Shows the rows `from..=last` in order; none may be missing.
    pub(super) fn each(
        &self,
        from: u64,
        last: u64,
        mut visit: impl FnMut(&wire::LedgerRow) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let mut next = from;
        while next <= last {
            let rows = self.rows(next, LEDGER_ROWS_MAX)?;
            if rows.first().is_none_or(|row| row.index != next) {
                return Err(LedgerError::Missing { index: next });
            }
            for row in rows.iter().take_while(|row| row.index <= last) {
                if row.index != next {
                    return Err(LedgerError::Missing { index: next });
                }
                visit(row)?;
                next += 1;
            }
        }
        Ok(())
    }

    /// Removes the bases that were never finished, when a member starts.
    pub(crate) fn sweep_bases(&self) -> io::Result<()> {
        self.0.bases.sweep()
    }

    /// Removes the bases that no row needs. What made them needless must be durable.
    pub(crate) fn forget_bases(&self) {
        let segments = self.segments().clone();
        // One beyond the end is of a raft snapshot that is just being installed.
        let end = segments.last().and_then(Segment::end).map_or(0, |end| end.index);
        let mut needed = Vec::new();
        for run in segments.iter().rev() {
            if let (Some(base), Some(end)) = (run.base, run.end()) {
                // The second stands in for the first, should that be damaged.
                needed.extend(self.0.bases.within(base.index..=end.index).into_iter().take(2));
            }
            // What was before is needed again once the rows between were fetched.
            if !run.jumped {
                break;
            }
        }
        self.0.bases.retire(|index| index > end || needed.contains(&index));
    }
}

/// Applies a row's entry, if it holds one.
fn apply(state: &mut State, row: &wire::LedgerRow) -> Result<(), LedgerError> {
    if let Some(entry) = entry_of(row)? {
        state.apply(LogIndex(row.index), &entry);
    }
    Ok(())
}

/// Where a row says the digest of the state, and which.
pub(super) fn checkpoint(row: &wire::LedgerRow) -> Result<Option<(u64, Digest)>, LedgerError> {
    Ok(entry_of(row)?.and_then(|entry| match entry.payload {
        Payload::Checkpoint { index, state, .. } => Some((index.0, state)),
        _ => None,
    }))
}

fn entry_of(row: &wire::LedgerRow) -> Result<Option<dovetail_routing::Entry>, LedgerError> {
    if row.kind() != wire::LedgerRowKind::Entry {
        return Ok(None);
    }
    convert::decode_entry(&row.entry)
        .map(Some)
        .map_err(|error| LedgerError::Entry { index: row.index, error })
}

/// A base that is whole, and of this very place of this very ledger.
pub(super) fn fits(
    content: Content,
    cluster_id: &str,
    held: Option<LedgerHash>,
) -> Result<Content, String> {
    let index = content.meta.last_log_id.map_or(0, |id| id.index);
    if content.cluster_id != cluster_id {
        return Err(format!("the ledger's base at {index} is of quorum {}", content.cluster_id));
    }
    if held != Some(content.ledger_hash) {
        return Err(format!("the ledger's base at {index} does not fit the row of that index"));
    }
    Ok(content)
}
