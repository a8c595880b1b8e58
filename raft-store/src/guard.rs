//! What was acknowledged, kept outside RocksDB.
//!
//! No recovery mode of the write-ahead log notices a zeroed or a lost suffix: it
//! looks like a clean end. So the last vote and the highest flushed index are kept
//! here too, in two checksummed slots that are written in turn. The vote is synced
//! before `save_vote` returns, since a forgotten vote could be given twice; the
//! index may lag by a second.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::{self, InPlace};
use crate::types::{LeaderId, Vote};

const MAGIC: &[u8; 8] = b"DVTLGRD1";
/// A slot fills a sector of its own, so that a torn write harms one slot only.
const SLOT_BYTES: usize = 4_096;
/// Magic, sequence, vote (flags, term, node), index (flag, value), hash.
const USED_BYTES: usize = 8 + 8 + (1 + 8 + 8) + (1 + 8) + 32;

/// What was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) vote: Option<Vote>,
    /// The highest index that was reported as flushed and not truncated since.
    pub(crate) flushed: Option<u64>,
}

/// The open guard file.
#[derive(Debug)]
pub(crate) struct Guard {
    file: InPlace,
    sequence: u64,
    written: Acknowledged,
}

impl Guard {
    /// Opens the guard; `None` when there is no such file.
    ///
    /// One damaged slot is a torn write, which nobody was told of; two are damage.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = files::read(path, 2 * SLOT_BYTES as u64)? else { return Ok(None) };
        let newest = [0, 1]
            .into_iter()
            .filter_map(|slot| decode(bytes.get(slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES)?))
            .max_by_key(|(sequence, _)| *sequence);
        let Some((sequence, written)) = newest else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "guard: no slot matches its hash",
            ));
        };
        let file = InPlace::open(path)?;
        Ok(Some(Self { file, sequence, written }))
    }

    /// Makes the guard of a new disk.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        let slot = encode(0, &Acknowledged::default());
        files::replace(path, &[&slot, &[0; SLOT_BYTES]])?;
        let file = InPlace::open(path)?;
        Ok(Self { file, sequence: 0, written: Acknowledged::default() })
    }

    /// What is durable in the file.
    pub(crate) fn written(&self) -> Acknowledged {
        self.written
    }

    /// Writes and syncs.
    pub(crate) fn write(&mut self, acknowledged: Acknowledged) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let offset = if sequence.is_multiple_of(2) { 0 } else { SLOT_BYTES as u64 };
        self.file.write(&encode(sequence, &acknowledged), offset)?;
        self.sequence = sequence;
        self.written = acknowledged;
        Ok(())
    }
}

/// Where the guard of a data folder lies.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("guard")
}

fn encode(sequence: u64, acknowledged: &Acknowledged) -> [u8; SLOT_BYTES] {
    let mut bytes = Vec::with_capacity(USED_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    let vote = acknowledged.vote.unwrap_or_else(|| Vote::new(0, 0));
    let flags = u8::from(acknowledged.vote.is_some()) | (u8::from(vote.committed) << 1);
    bytes.push(flags);
    bytes.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    bytes.extend_from_slice(&vote.leader_id.node_id.to_le_bytes());
    bytes.push(u8::from(acknowledged.flushed.is_some()));
    bytes.extend_from_slice(&acknowledged.flushed.unwrap_or(0).to_le_bytes());
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    let mut slot = [0; SLOT_BYTES];
    slot[..bytes.len()].copy_from_slice(&bytes);
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Acknowledged)> {
    let (content, seal) = slot.get(..USED_BYTES)?.split_at(USED_BYTES - 32);
    if blake3::hash(content).as_bytes()[..] != *seal {
        return None;
    }
    let rest = content.strip_prefix(MAGIC)?;
    let number = |at: usize| Some(u64::from_le_bytes(rest.get(at..at + 8)?.try_into().ok()?));
    let sequence = number(0)?;
    let flags = *rest.get(8)?;
    let leader_id = LeaderId { term: number(9)?, node_id: number(17)? };
    let vote = (flags & 1 == 1).then_some(Vote { leader_id, committed: flags & 2 == 2 });
    let flushed = if *rest.get(25)? == 1 { Some(number(26)?) } else { None };
    Some((sequence, Acknowledged { vote, flushed }))
}

#[cfg(test)]
impl Guard {
    /// A guard that cannot be written.
    pub(crate) fn open_read_only(path: &Path) -> Self {
        let file = InPlace::open_read_only(path);
        Self { file, sequence: 0, written: Acknowledged::default() }
    }
}
