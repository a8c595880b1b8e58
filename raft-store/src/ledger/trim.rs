//! Retention: how much of the ledger is kept, and how the oldest rows go.
//!
//! ```text
//! base at B ‖ rows B+1 … J ‖ rows J+1 …
//!    1. state at B, rows applied ─► base at J, synced       (two bases: either fits)
//!    2. rows up to J and the segment's begin, one batch     (B has no rows: J is used)
//!    3. once that is durable, the base at B is removed
//! ```

use std::sync::atomic::Ordering;
use std::time::Duration;

use dovetail_proto::v1 as wire;
use prost::Message as _;

use super::{Ledger, LedgerError, Mark, Segment, hash_of};
use crate::disk::Family;

/// Rows that go at once at most.
const TRIM_ROWS_MAX: u64 = 100_000;
/// What is kept may be more by this part, so that not every row moves the base.
const SLACK: u64 = 64;

/// How much of the ledger is kept. What the newest raft snapshot does not cover always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub rows_max: u64,
    pub bytes_max: u64,
    /// By the leader's time in the entries.
    pub age_max: Option<Duration>,
}

impl Default for Retention {
    /// 10,000,000 rows and 4 GiB, whatever their age.
    fn default() -> Self {
        Self { rows_max: 10_000_000, bytes_max: 4 * 1_024 * 1_024 * 1_024, age_max: None }
    }
}

impl Retention {
    /// The same and a little more: what is kept before a trim begins.
    fn with_slack(&self) -> Self {
        let more = |limit: u64| limit.saturating_add(limit / SLACK);
        Self {
            rows_max: more(self.rows_max),
            bytes_max: more(self.bytes_max),
            age_max: self.age_max.map(|age| age + age / 64),
        }
    }

    pub(super) fn age_max_ms(&self) -> Option<u64> {
        self.age_max.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Ledger {
    /// Whether so much is past `retention` that it is worth a trim; `now_ms` is the
    /// leader's time.
    pub fn is_trim_due(&self, retention: &Retention, now_ms: u64) -> Result<bool, LedgerError> {
        Ok(self.past(&retention.with_slack(), now_ms)?.is_some())
    }

    /// Removes the oldest rows past `retention`; `now_ms` is the leader's time.
    ///
    /// The state at the last of them is kept, if one before it was. Returns the oldest row
    /// that is left. At most 100,000 rows go at once: call again until it stays.
    pub fn trim(
        &self,
        cluster_id: &str,
        retention: &Retention,
        now_ms: u64,
    ) -> Result<u64, LedgerError> {
        let Some((oldest, last)) = self.past(retention, now_ms)? else {
            return Ok(self.first());
        };
        // States are kept of the newest run alone: in others, rows are only verified.
        if self.newest().base == oldest.base {
            self.advance(cluster_id, last)?;
        }
        self.cut(&oldest, last)?;
        Ok(self.first())
    }

    /// When the oldest row was ordered, in milliseconds since 1970; 0 when none of the oldest
    /// thousand says so.
    pub fn since_ms(&self) -> Result<u64, LedgerError> {
        let rows = self.rows(self.first(), 1_000)?;
        Ok(rows.iter().find_map(leader_time_ms).unwrap_or_default())
    }

    /// The oldest segment, and the last of its rows that are past `retention`, if any is.
    fn past(
        &self,
        retention: &Retention,
        now_ms: u64,
    ) -> Result<Option<(Segment, Mark)>, LedgerError> {
        let segments = self.segments().clone();
        let oldest = segments.iter().find(|segment| segment.head.is_some()).copied();
        let end = segments.last().and_then(Segment::end);
        let Some((oldest, head, end)) =
            oldest.and_then(|oldest| Some((oldest, oldest.head?, end?)))
        else {
            return Ok(None);
        };
        let covered = self.0.covered.load(Ordering::Acquire);
        let age_max = retention.age_max_ms();
        let last = head.index.min(oldest.first().saturating_add(TRIM_ROWS_MAX));
        let mut found: Option<Mark> = None;
        let mut gone = oldest.base.map_or(0, |base| base.bytes);
        let mut damaged = None;
        self.0.disk.scan(Family::Ledger, oldest.first(), last + 1, |index, value| {
            let row = match wire::LedgerRow::decode(value) {
                Ok(row) => row,
                Err(error) => {
                    damaged = Some(LedgerError::Damaged { index, error });
                    return Ok(false);
                }
            };
            let time = age_max.and(leader_time_ms(&row));
            let old =
                time.zip(age_max).is_some_and(|(time, age)| time.saturating_add(age) < now_ms);
            let covered = index < covered;
            let goes = covered
                && (end.index - index >= retention.rows_max
                    || end.bytes.saturating_sub(gone) > retention.bytes_max
                    || old);
            gone += value.len() as u64;
            if goes {
                found = Some(Mark { index, hash: hash_of(&row), bytes: gone });
            }
            // A row without a time (blank, membership) goes with the next one that has one.
            Ok(goes || (covered && age_max.is_some() && time.is_none()))
        })?;
        match damaged {
            Some(error) => Err(error),
            None => Ok(found.map(|last| (oldest, last))),
        }
    }

    /// Removes the rows of `oldest` up to `last`, unless the segments changed meanwhile.
    fn cut(&self, oldest: &Segment, last: Mark) -> Result<(), LedgerError> {
        let mut segments = self.segments();
        let mut changed = segments.clone();
        changed.retain(|segment| segment.head.is_some() || Some(segment) == segments.last());
        let Some(now) = changed.first_mut().filter(|now| now.base == oldest.base) else {
            return Ok(());
        };
        let mut batch = self.0.disk.batch()?;
        batch.delete_range(Family::Ledger, now.first(), last.index + 1);
        let head = now.head.filter(|head| head.index > last.index);
        // What could be fetched before it is past the retention, too.
        *now = Segment { base: Some(last), head, jumped: false };
        if head.is_none() && changed.len() > 1 {
            changed.remove(0);
        }
        Ok(self.store(&mut segments, changed, batch)?)
    }
}

/// Reads only the time of an entry: whatever else it holds may be newer than this build.
pub(super) fn leader_time_ms(row: &wire::LedgerRow) -> Option<u64> {
    let entry = wire::Entry::decode(row.entry.clone()).ok()?;
    (entry.leader_time_ms > 0).then_some(entry.leader_time_ms)
}
