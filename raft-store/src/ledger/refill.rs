//! Refilling: what a raft snapshot jumped over comes from another member, and is checked.
//!
//! ```text
//! before:   rows … E          base at J ‖ rows J+1 …      (E+1 … J were jumped over)
//! a piece:            rows A … J, and the hash at A-1      from any member
//! after:    rows … E     base at A-1 ‖ rows A … J, J+1 …
//! ```
//!
//! Pieces come backwards. The hash at J is held already, and no other rows and no other hash
//! before them lead to it: nobody has to be believed. At E the two runs become one. A state from
//! before is followed to the oldest checkpoint, and taken there: its digest is in the rows.

use dovetail_ledger::chain::{BEGINNING, Broken, Chain};
use dovetail_proto::v1 as wire;
use dovetail_routing::Digest;
use prost::Message as _;

use super::{
    LEDGER_ROWS_MAX, Ledger, LedgerError, LedgerHash, Mark, Retention, Segment, past, trim,
};
use crate::disk::{Family, index_key};
use crate::raft_snapshot;

/// Among so many rows one that says its time is looked for.
const TIMED_WITHIN: usize = 1_000;
/// Rows of a piece at most.
const PIECE_ROWS_MAX: u64 = 2_000;

/// The rows that a member may still have from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The oldest one that is of use.
    pub first: u64,
    pub last: u64,
}

/// Rows without a gap, and the hash that they follow on; zeros where the log begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub previous: LedgerHash,
    pub rows: Vec<wire::LedgerRow>,
}

/// Why what another member sent was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    #[error(transparent)]
    Rows(#[from] Broken),
    #[error("the state before the rows after {index}: {reason}")]
    State { index: u64, reason: String },
    #[error("the rows that this member holds up to {index} are not those of its quorum")]
    Own { index: u64 },
    #[error(transparent)]
    Disk(#[from] LedgerError),
}

impl From<std::io::Error> for Unproven {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(error.into())
    }
}

impl Ledger {
    /// What was jumped over and not yet given up; `None` when nothing is lacking.
    pub fn lacks(&self) -> Option<Lack> {
        let segments = self.segments();
        let newest = segments.last().filter(|newest| newest.jumped)?;
        let before = segments.iter().rev().nth(1).and_then(Segment::end);
        Some(Lack { first: before.map_or(0, |end| end.index + 1), last: newest.base?.index })
    }

    /// Whether `retention` keeps rows from before the newest run; `now_ms` is the leader's time.
    pub(crate) fn keeps_older(
        &self,
        retention: &Retention,
        now_ms: u64,
    ) -> Result<bool, LedgerError> {
        let run = self.newest();
        let (Some(base), Some(end)) = (run.base, run.end()) else { return Ok(false) };
        if end.index - base.index >= retention.rows_max
            || end.bytes.saturating_sub(base.bytes) >= retention.bytes_max
        {
            return Ok(false);
        }
        let Some(age_max) = retention.age_max_ms() else { return Ok(true) };
        // What is older than the oldest row that says its time is as old at least.
        let rows = self.rows(base.index + 1, TIMED_WITHIN)?;
        let oldest = rows.iter().find_map(trim::leader_time_ms);
        Ok(oldest.is_none_or(|time| time.saturating_add(age_max) >= now_ms))
    }

    /// For another member: rows up to `last` and not before `first`, as many as fit into one
    /// message; empty when this one will not have `last` any more, an error when it may yet.
    pub fn piece(&self, first: u64, last: u64) -> Result<Piece, LedgerError> {
        let nothing = Piece { previous: BEGINNING, rows: Vec::new() };
        if first > last {
            return Ok(nothing);
        }
        if last >= self.next() {
            return Err(LedgerError::NotYet { index: last });
        }
        let holds = |segment: &&Segment| {
            segment.first() <= last && segment.head.is_some_and(|head| last <= head.index)
        };
        let Some(segment) = self.segments().iter().find(holds).copied() else {
            return Ok(nothing);
        };
        let mut count = PIECE_ROWS_MAX.min(last - segment.first() + 1);
        loop {
            let from = first.max(last + 1 - count);
            let mut rows = self.rows(from, usize::try_from(count).unwrap_or(usize::MAX))?;
            rows.retain(|row| row.index <= last);
            if rows.last().is_some_and(|row| row.index == last) {
                let previous = match from.checked_sub(1) {
                    None => BEGINNING,
                    Some(index) => self.hash_at(index)?.ok_or(LedgerError::Missing { index })?,
                };
                return Ok(Piece { previous, rows });
            }
            if count == 1 {
                return Err(LedgerError::Missing { index: last });
            }
            // Together they are more than is given at once.
            count /= 2;
        }
    }

    /// For another member: the oldest state that is kept, as the bytes of its file; the error
    /// says what is wrong with it.
    pub fn oldest_base(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(index) = self.replays_from().filter(|_| self.newest().base.is_some()) else {
            return Ok(None);
        };
        self.0.bases.read(index)?;
        self.0.bases.bytes(index).map(Some)
    }

    /// Puts a piece before the newest run, once it is proven to belong there.
    ///
    /// A piece that is not asked for any more changes nothing.
    pub(crate) fn prepend(&self, cluster_id: &str, piece: &Piece) -> Result<(), Unproven> {
        let jumped = self.newest();
        let (Some(lack), Some(base)) = (self.lacks(), jumped.base) else { return Ok(()) };
        let first = prove(cluster_id, piece, lack, &base)?;
        let mut batch = self.0.disk.batch()?;
        let mut bytes = 0;
        for row in &piece.rows {
            let value = row.encode_to_vec();
            batch.put(Family::Ledger, index_key(row.index), &value);
            bytes += value.len() as u64;
        }

        let mut segments = self.segments();
        if segments.last().and_then(|newest| newest.base) != Some(base) {
            return Ok(());
        }
        let mut changed = segments.clone();
        let newest = changed.pop().unwrap_or_default();
        let mut head = newest.head.unwrap_or(base);
        head.bytes += bytes;
        let hash = piece.previous;
        let before = first.checked_sub(1).map(|index| Mark { index, hash, bytes: base.bytes });
        let mut run = Segment { base: before, head: Some(head), jumped: before.is_some() };
        let older = changed.last().copied();
        if let Some((older, end)) = older.and_then(|older| Some((older, older.end()?)))
            && end.index + 1 == first
        {
            if end.hash != hash {
                return Err(Unproven::Own { index: end.index });
            }
            changed.pop();
            // Whose state was given up meanwhile has to ask for it, too.
            let without_state =
                |base: Mark| self.0.bases.within(base.index..=base.index).is_empty();
            let jumped = older.jumped || older.base.is_some_and(without_state);
            run = Segment { base: older.base, head: Some(head), jumped };
        }
        changed.push(run);
        Ok(self.store(&mut segments, changed, batch)?)
    }

    /// Whether an older state would be of use.
    pub fn lacks_state(&self) -> bool {
        let base = self.newest().base.map(|base| base.index);
        base.is_some() && self.replays_from() != base
    }

    /// Takes another member's base to the oldest checkpoint after it, and keeps the state there
    /// if it is the quorum's. False when that would be no older than what is kept.
    pub(crate) fn take_base(&self, cluster_id: &str, bytes: &[u8]) -> Result<bool, Unproven> {
        let refused = |index, reason: String| Unproven::State { index, reason };
        let content =
            raft_snapshot::decode(bytes).map_err(|error| refused(0, error.to_string()))?;
        let index = content.meta.last_log_id.map_or(0, |id| id.index);
        let Some(held) = self.hash_at(index)? else { return Ok(false) };
        let content =
            past::fits(content, cluster_id, Some(held)).map_err(|reason| refused(index, reason))?;
        let known = self.start(cluster_id)?;
        let end = known.state.map_or(self.head().0, |_| known.first.saturating_sub(1));
        let Some((at, digest)) = self.checkpoint_after(index, end)? else { return Ok(false) };
        let (state, term) = self.follow(content.state, index + 1, at)?;
        if state.digest() != digest {
            let reason = format!("it does not lead to the state that the quorum had at {at}");
            return Err(refused(index, reason));
        }
        let hash = self.hash_at(at)?.ok_or(LedgerError::Missing { index: at })?;
        self.keep(cluster_id, state, term, Mark { index: at, hash, bytes: 0 })?;
        Ok(true)
    }

    /// The oldest index from `from` on and before `end` of which a row says the state's digest.
    fn checkpoint_after(&self, from: u64, end: u64) -> Result<Option<(u64, Digest)>, LedgerError> {
        let mut next = from + 1;
        loop {
            let rows = self.rows(next, LEDGER_ROWS_MAX)?;
            for row in &rows {
                if let Some((at, digest)) = past::checkpoint(row)?
                    && at >= from
                {
                    return Ok((at < end).then_some((at, digest)));
                }
            }
            let Some(last) = rows.last() else { return Ok(None) };
            next = last.index + 1;
        }
    }

    /// Sets damaged bases aside and asks anew for what they were; says what is wrong with them.
    pub(crate) fn mend_bases(&self, cluster_id: &str) -> Result<Vec<String>, LedgerError> {
        let start = self.start(cluster_id)?;
        if start.damaged.is_empty() {
            return Ok(start.damaged);
        }
        let run = self.newest();
        let (Some(base), Some(end)) = (run.base, run.end()) else { return Ok(start.damaged) };
        for index in self.0.bases.within(base.index..=end.index) {
            let held = self.hash_at(index)?;
            let damaged = self
                .0
                .bases
                .is_damaged(index, |content| past::fits(content, cluster_id, held).is_ok())?;
            if damaged {
                self.0.bases.set_aside(index)?;
            }
        }
        let mut segments = self.segments();
        let mut changed = segments.clone();
        if let Some(newest) = changed.last_mut() {
            newest.jumped = true;
        }
        self.store(&mut segments, changed, self.0.disk.batch()?)?;
        Ok(start.damaged)
    }

    /// Gives up what is lacking: nobody has it, or it is past what is kept.
    pub(crate) fn settle(&self) -> Result<(), LedgerError> {
        let mut segments = self.segments();
        let mut changed = segments.clone();
        let Some(newest) = changed.last_mut().filter(|newest| newest.jumped) else {
            return Ok(());
        };
        newest.jumped = false;
        Ok(self.store(&mut segments, changed, self.0.disk.batch()?)?)
    }
}

/// Checks that a piece ends where something is lacking; returns its first index.
fn prove(cluster_id: &str, piece: &Piece, lack: Lack, base: &Mark) -> Result<u64, Broken> {
    let broken = |index, reason: &str| Err(Broken { index, reason: reason.to_owned() });
    let Some(first) = piece.rows.first().map(|row| row.index) else {
        return broken(lack.last, "the row is missing");
    };
    if first < lack.first {
        return broken(first, "a row that was not asked for");
    }
    let mut chain = Chain::new(cluster_id, first, piece.previous);
    for row in &piece.rows {
        chain.follow(row)?;
    }
    if chain.next() <= base.index {
        return broken(chain.next(), "the row is missing");
    }
    if chain.next() > base.index + 1 {
        return broken(base.index + 1, "a row that was not asked for");
    }
    if chain.head() != base.hash || (first == 0 && piece.previous != BEGINNING) {
        return broken(base.index, "the rows do not lead to the hash that this member holds");
    }
    Ok(first)
}
