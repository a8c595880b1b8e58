//! Replaying: what the rows come to, compared with what the quorum said it came to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use dovetail_proto::convert;
use dovetail_proto::v1 as wire;
use dovetail_routing::snapshot::Digest;
use dovetail_routing::state::{Digester, State};
use dovetail_routing::{Command, Entry, LogIndex, Payload, RuleSet};

use crate::chain::LedgerHash;
use crate::export::{Base, ExportError, ExportReader};
use crate::verify::Named;

/// Rows of one ledger in their order, each checked to follow on the one before.
pub trait RowsOf {
    /// The next row; `None` after the last.
    fn next_row(&mut self) -> Result<Option<wire::LedgerRow>, ExportError>;
}

impl<R: Read> RowsOf for ExportReader<R> {
    fn next_row(&mut self) -> Result<Option<wire::LedgerRow>, ExportError> {
        ExportReader::next_row(self)
    }
}

/// Where a replay ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// With the last row.
    #[default]
    End,
    /// After the row of this index.
    Index(u64),
    /// Before the first entry that is later, in milliseconds since 1970 by leaders' clocks.
    Time(u64),
}

impl FromStr for Until {
    type Err = String;

    /// An index, or a time such as 2026-11-23T10:00:00Z.
    fn from_str(given: &str) -> Result<Self, String> {
        if let Ok(index) = given.parse() {
            return Ok(Self::Index(index));
        }
        let time = humantime::parse_rfc3339_weak(given)
            .map_err(|error| format!("{error}; give an index or a time as 2026-11-23T10:00:00Z"))?;
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self::Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The first place at which a replay came to something else than the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The index that the checkpoint is about.
    pub index: u64,
    /// The index of the checkpoint's own entry.
    pub checkpoint: u64,
    /// `state` or `ledger`.
    pub what: &'static str,
    /// What the quorum agreed on, in hex.
    pub expected: String,
    /// What the replay came to, in hex.
    pub found: String,
}

/// Rows applied one after the other.
#[derive(Debug)]
pub struct Replay {
    state: Option<State>,
    digester: Digester,
    /// The last row, or the one before the first.
    index: u64,
    entries: u64,
    checkpoints: u64,
    unchecked: u64,
    /// What is still to be compared, by the index that it is about.
    wanted: BTreeMap<u64, Vec<Named>>,
    divergence: Option<Divergence>,
    /// In force whatever the log says.
    assumed: Option<RuleSet>,
}

impl Replay {
    /// Before the row `first`, which follows on `previous`; without a `base` only the chain
    /// is compared.
    pub fn new(
        base: Option<Base>,
        first: u64,
        previous: LedgerHash,
        named: impl IntoIterator<Item = Named>,
    ) -> Self {
        let mut replay = Self {
            state: base.map(|base| base.state),
            digester: Digester::default(),
            index: first.saturating_sub(1),
            entries: 0,
            checkpoints: 0,
            unchecked: 0,
            wanted: BTreeMap::new(),
            divergence: None,
            assumed: None,
        };
        for one in named {
            if one.index >= one.at {
                replay.diverge(&one, "index", format!("below {}", one.at), one.index.to_string());
            } else if one.index.saturating_add(1) < first {
                replay.unchecked += 1;
            } else {
                replay.wanted.entry(one.index).or_default().push(one);
            }
        }
        if first > 0 {
            replay.compare(&previous);
        }
        replay
    }

    /// Asks what would have become of the log under another rule set from its beginning on;
    /// entries that activate one change nothing. What members agreed on cannot be compared.
    #[must_use]
    pub fn under(mut self, rules: RuleSet) -> Self {
        self.wanted.clear();
        self.assumed = Some(rules);
        if let Some(state) = &mut self.state {
            state.assume(rules);
        }
        self
    }

    /// Applies rows until their end, or until `until`.
    pub fn run(&mut self, rows: &mut impl RowsOf, until: Until) -> Result<(), ExportError> {
        while let Some(row) = rows.next_row()? {
            if !self.step(&row, until)? {
                break;
            }
        }
        self.unchecked += self.wanted.values().map(|named| named.len() as u64).sum::<u64>();
        self.wanted.clear();
        Ok(())
    }

    /// Applies one row; `false` when it lies behind `until`.
    pub fn step(&mut self, row: &wire::LedgerRow, until: Until) -> Result<bool, ExportError> {
        if matches!(until, Until::Index(last) if row.index > last) {
            return Ok(false);
        }
        if let Some(state) = &mut self.state
            && let Some(mut entry) = entry_of(row)?
        {
            if let (Some(assumed), Payload::Command(Command::ActivateRules { rules })) =
                (self.assumed, &mut entry.payload)
            {
                *rules = assumed;
            }
            if matches!(until, Until::Time(time) if entry.leader_time_ms > time) {
                return Ok(false);
            }
            state.apply(LogIndex(row.index), &entry);
            self.entries += 1;
        }
        self.index = row.index;
        if self.wanted.contains_key(&row.index)
            && let Ok(hash) = row.hash.as_slice().try_into()
        {
            self.compare(&hash);
        }
        Ok(true)
    }

    /// Compares what was said of the last row with what is.
    fn compare(&mut self, ledger: &LedgerHash) {
        let Some(named) = self.wanted.remove(&self.index) else { return };
        let state = self.state.as_ref().map(|state| self.digester.digest(state));
        for one in named {
            if one.ledger != *ledger {
                self.diverge(&one, "ledger", hex(&one.ledger), hex(ledger));
                continue;
            }
            match state {
                None => self.unchecked += 1,
                Some(state) if state == one.state => self.checkpoints += 1,
                Some(state) => {
                    self.diverge(&one, "state", one.state.to_string(), state.to_string());
                }
            }
        }
    }

    fn diverge(&mut self, named: &Named, what: &'static str, expected: String, found: String) {
        let (index, checkpoint) = (named.index, named.at);
        if self.divergence.is_none() {
            self.divergence = Some(Divergence { index, checkpoint, what, expected, found });
        }
    }

    /// What the rows come to; `None` when it is not known what they began with.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The last row that was applied; the one before the first while there is none.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many entries were applied.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many checkpoints were compared and agree.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    /// How many could not be compared, since what they are about lies outside.
    pub fn unchecked(&self) -> u64 {
        self.unchecked
    }

    /// The first difference.
    pub fn divergence(&self) -> Option<&Divergence> {
        self.divergence.as_ref()
    }
}

/// The entries of these rows, as far as there are such.
pub fn entries_at(
    rows: &mut impl RowsOf,
    indexes: &BTreeSet<u64>,
) -> Result<BTreeMap<u64, Entry>, ExportError> {
    let mut found = BTreeMap::new();
    let Some(last) = indexes.last() else { return Ok(found) };
    while let Some(row) = rows.next_row()?.filter(|row| row.index <= *last) {
        if indexes.contains(&row.index)
            && let Some(entry) = entry_of(&row)?
        {
            found.insert(row.index, entry);
        }
    }
    Ok(found)
}

/// What a row's entry says; `None` for rows that hold none.
fn entry_of(row: &wire::LedgerRow) -> Result<Option<Entry>, ExportError> {
    if row.kind() != wire::LedgerRowKind::Entry {
        return Ok(None);
    }
    convert::decode_entry(&row.entry)
        .map(Some)
        .map_err(|error| ExportError::Entry { index: row.index, error })
}

fn hex(hash: &LedgerHash) -> String {
    Digest(*hash).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_ends_at_an_index_or_a_time() {
        let until = |given: &str| given.parse::<Until>();
        assert_eq!(until("42"), Ok(Until::Index(42)));
        assert_eq!(until("1970-01-01T00:00:02Z"), Ok(Until::Time(2_000)));
        assert_eq!(until("1970-01-01 00:00:02"), Ok(Until::Time(2_000)));
        assert!(until("yesterday").is_err());
    }
}
