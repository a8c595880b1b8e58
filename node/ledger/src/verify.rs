//! A file checked from end to end: chain, gaps, order, trailer, and what checkpoints say.

use std::io::{Read, Seek};

use dovetail_proto::convert;
use dovetail_proto::v1 as wire;
use dovetail_routing::snapshot::Digest;
use dovetail_routing::state::State;
use dovetail_routing::{LogIndex, Payload, RuleSet};
use prost::Message as _;

use crate::chain::LedgerHash;
use crate::export::{ExportError, ExportReader, Header, Trailer};
use crate::replay::{Replay, RowsOf, Until};

/// Checkpoints of one log at most: one for each thousand of a billion entries.
const CHECKPOINTS_MAX: usize = 1_000_000;

/// What a checkpoint's entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The index of the entry that says it.
    pub at: u64,
    /// The index that it is about.
    pub index: u64,
    pub state: Digest,
    pub ledger: LedgerHash,
}

/// A file that holds together.
#[derive(Debug)]
pub struct Verified {
    pub header: Header,
    pub trailer: Trailer,
    /// What its rows come to; the state only if the file begins with one.
    pub replay: Replay,
}

/// Reads a file twice: once for its chain and its checkpoints, once to replay it.
///
/// An error is a file that does not hold together. A [`Replay::divergence`] is a whole
/// file whose replay comes to something else than the quorum did.
pub fn verify<R: Read + Seek>(mut input: R, until: Until) -> Result<Verified, ExportError> {
    let mut first = ExportReader::open(&mut input)?;
    let mut named = Vec::new();
    collect(&mut first, &mut named)?;
    let header = first.header().clone();
    let Some(trailer) = first.trailer().cloned() else {
        return Err(ExportError::file("the file ends without a trailer"));
    };
    input.rewind().map_err(ExportError::Read)?;
    let mut second = ExportReader::open(&mut input)?;
    if *second.header() != header {
        return Err(ExportError::file("the file was changed while it was read"));
    }
    let base = second.base()?;
    let mut replay = Replay::new(base, header.first, header.previous, named);
    replay.run(&mut second, until)?;
    Ok(Verified { header, trailer, replay })
}

/// What a file that was verified would have come to under another rule set; `None` when it
/// does not say what it begins with.
pub fn what_if<R: Read>(
    input: R,
    until: Until,
    rules: RuleSet,
) -> Result<Option<State>, ExportError> {
    let mut reader = ExportReader::open(input)?;
    let (first, previous) = (reader.header().first, reader.header().previous);
    let base = reader.base()?;
    let mut replay = Replay::new(base, first, previous, []).under(rules);
    replay.run(&mut reader, until)?;
    Ok(replay.state().cloned())
}

/// Reads `rows` to their end, and keeps what checkpoints say.
pub fn collect(rows: &mut impl RowsOf, named: &mut Vec<Named>) -> Result<(), ExportError> {
    while let Some(row) = rows.next_row()? {
        named.extend(named_by(&row)?);
        if named.len() > CHECKPOINTS_MAX {
            return Err(ExportError::at(row.index, "there are too many checkpoints"));
        }
    }
    Ok(())
}

/// Only what says whether an entry is a checkpoint: the rest is passed over.
#[derive(Clone, PartialEq, prost::Message)]
struct Kind {
    #[prost(message, optional, tag = "14")]
    checkpoint: Option<wire::Checkpoint>,
}

/// What a row's checkpoint says, if it is one.
pub fn named_by(row: &wire::LedgerRow) -> Result<Option<Named>, ExportError> {
    if row.kind() != wire::LedgerRowKind::Entry {
        return Ok(None);
    }
    // Most rows are none, and are read in full only when they are applied.
    let is_one = Kind::decode(row.entry.as_ref()).is_ok_and(|kind| kind.checkpoint.is_some());
    if !is_one {
        return Ok(None);
    }
    let at = row.index;
    let entry = convert::decode_entry(&row.entry)
        .map_err(|error| ExportError::Entry { index: at, error })?;
    Ok(match entry.payload {
        Payload::Checkpoint { index: LogIndex(index), state, ledger } => {
            Some(Named { at, index, state, ledger: ledger.0 })
        }
        _ => None,
    })
}
