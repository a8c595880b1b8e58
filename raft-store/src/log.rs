//! openraft's log storage on RocksDB: entries, vote, committed and purged markers.
//!
//! ```text
//! append ─► db.write (readable, not durable) ─► cache ─► flush thread ─► callback
//! save_vote, truncate_after ─► db.write ─► flush thread ─► return
//! ```
//!
//! Everything lies in one RocksDB behind one write-ahead log, so what is durable is
//! always a prefix of what was written: a durable vote means durable entries before it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};

use crate::cache::{EntryCache, entry_bytes};
use crate::codec;
use crate::disk::{Disk, Family, index_key, key};
use crate::ledger::Ledger;
use crate::owner::OwnerHandle;
use crate::state_machine::Parts;
use crate::types::{Entry, EntryPayload, LogId, TypeConfig, Vote};

/// Bytes of entries that are read for one append request; one entry may be larger.
const READ_BYTES_MAX: usize = 2 * 1_024 * 1_024;
/// Entries that are held while the ledger is completed from the log.
const COMPLETE_ENTRIES: u64 = 1_000;

/// The log as it is written, whether durable or not.
#[derive(Debug, Default)]
struct Tail {
    cache: EntryCache,
    /// The oldest entry's index, when there is an entry.
    first: Option<u64>,
    /// The newest entry, or what was purged.
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

/// The log on disk and in memory; shared by the writer and the readers.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<Disk>,
    tail: RwLock<Tail>,
}

fn corrupt(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl Log {
    /// Reads markers and ends, not the entries.
    pub(crate) fn open(disk: Arc<Disk>) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        if crate::sim::sabotaged(crate::sim::Sabotage::DropLastEntry) {
            drop_last(&disk)?;
        }
        let purged = disk
            .get(Family::Meta, key::PURGED)?
            .map(|bytes| codec::decode_log_id(&bytes[..]))
            .transpose()?;
        let vote = disk
            .get(Family::Meta, key::VOTE)?
            .map(|bytes| codec::decode_vote(&bytes[..]))
            .transpose()?;
        let start = purged.map_or(0, |id: LogId| id.index + 1);
        let (first, last) = disk.ends(Family::Log, start)?;
        let last = match last {
            Some((index, bytes)) => Some(decode_at(index, &bytes)?.log_id),
            None => purged,
        };
        let first = first.map(|(index, _)| index);
        let tail = Tail { cache: EntryCache::default(), first, last, purged, vote };
        Ok(Self { disk, tail: RwLock::new(tail) })
    }

    fn tail(&self) -> RwLockReadGuard<'_, Tail> {
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail_mut(&self) -> RwLockWriteGuard<'_, Tail> {
        self.tail.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.tail().vote
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.tail().last
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.tail().purged
    }

    /// Whether the log holds an entry.
    pub(crate) fn has_entries(&self) -> bool {
        self.tail().first.is_some()
    }

    /// The entries `from..end` that the log holds, stopping early after `bytes_max`.
    ///
    /// The lock is held meanwhile, so that a truncation cannot leave a mixture.
    pub(crate) fn read(&self, from: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let tail = self.tail();
        let (Some(first), Some(last)) = (tail.first, tail.last) else { return Ok(Vec::new()) };
        let (from, end) = (from.max(first), end.min(last.index + 1));
        let mut entries = Vec::new();
        if from >= end {
            return Ok(entries);
        }
        let mut bytes = 0;
        let cached = tail.cache.first().unwrap_or(u64::MAX);
        let mut next = from;
        if from < cached {
            self.disk.scan(Family::Log, from, end.min(cached), |index, value| {
                if index != next {
                    return Err(corrupt(format!("log entry {next} is missing, {index} follows")));
                }
                next += 1;
                let entry = decode_at(index, value)?;
                bytes += entry_bytes(&entry);
                entries.push(entry);
                Ok(bytes < bytes_max)
            })?;
        }
        for entry in tail.cache.range(next, end) {
            if next < cached || bytes >= bytes_max {
                break;
            }
            bytes += entry_bytes(entry);
            entries.push(entry.clone());
            next += 1;
        }
        if next < end && bytes < bytes_max {
            return Err(corrupt(format!("log entry {next} is missing")));
        }
        Ok(entries)
    }

    /// The log id at `index`, when the log holds it.
    pub(crate) fn id_at(&self, index: u64) -> io::Result<Option<LogId>> {
        let purged = self.purged();
        if purged.is_some_and(|id| id.index == index) {
            return Ok(purged);
        }
        Ok(self.read(index, index.saturating_add(1), usize::MAX)?.first().map(|entry| entry.log_id))
    }

    /// Gives the ledger the entries up to `upto` that it does not hold yet.
    pub(crate) fn complete_ledger(
        &self,
        ledger: &Ledger,
        cluster_id: &str,
        upto: u64,
    ) -> io::Result<()> {
        while ledger.next() <= upto {
            let from = ledger.next();
            let end = (from + COMPLETE_ENTRIES).min(upto + 1);
            let entries = self.read(from, end, READ_BYTES_MAX)?;
            if entries.first().is_none_or(|entry| entry.log_id.index != from) {
                return Ok(());
            }
            ledger.record(cluster_id, &entries)?;
        }
        Ok(())
    }
}

/// What a sabotaged store does when it is opened.
#[cfg(feature = "sim")]
fn drop_last(disk: &Disk) -> io::Result<()> {
    let (_, last) = disk.ends(Family::Log, 0)?;
    let mut batch = disk.batch()?;
    if let Some((index, _)) = last {
        batch.delete(Family::Log, index_key(index));
    }
    disk.write(batch)
}

fn decode_at(index: u64, bytes: &[u8]) -> io::Result<Entry> {
    let entry = codec::decode_entry(bytes)
        .map_err(|error| corrupt(format!("log entry {index}: {error}")))?;
    if entry.log_id.index == index {
        Ok(entry)
    } else {
        Err(corrupt(format!("log entry {index} says that it is {}", entry.log_id.index)))
    }
}

fn names(owner: &OwnerHandle, entry: &Entry) -> bool {
    match &entry.payload {
        EntryPayload::Membership(membership) => owner.is_named_in(membership),
        EntryPayload::Blank | EntryPayload::Normal(_) => false,
    }
}

/// Reads entries and the vote while another task writes.
#[derive(Clone, Debug)]
pub struct LogReader {
    log: Arc<Log>,
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.log.read(from, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.vote())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.log.read(start, end, READ_BYTES_MAX)
    }
}

/// The writer of the log; openraft holds the only one.
#[derive(Debug)]
pub struct LogStore {
    log: Arc<Log>,
    parts: Parts,
}

impl LogStore {
    pub(crate) fn new(log: Arc<Log>, parts: Parts) -> Self {
        Self { log, parts }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        LogReader { log: self.log.clone() }.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.vote())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.log.tail();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { log: self.log.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        #[cfg(feature = "sim")]
        let writes = !crate::sim::sabotaged(crate::sim::Sabotage::VoteAfterAppend);
        #[cfg(not(feature = "sim"))]
        let writes = true;
        if writes {
            let mut batch = self.parts.disk.batch()?;
            batch.put(Family::Meta, key::VOTE, codec::encode_vote(vote));
            self.parts.disk.write(batch)?;
        }
        self.log.tail_mut().vote = Some(*vote);
        self.parts.flusher.vote(*vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut batch = self.parts.disk.batch()?;
        match committed {
            Some(id) => batch.put(Family::Meta, key::COMMITTED, codec::encode_log_id(&id)),
            None => batch.delete(Family::Meta, key::COMMITTED),
        }
        // Not flushed: an older marker only means that less is applied at once.
        self.parts.disk.write(batch)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let Some(bytes) = self.parts.disk.get(Family::Meta, key::COMMITTED)? else {
            return Ok(None);
        };
        let committed = codec::decode_log_id(&bytes[..])?;
        // While a raft snapshot is installed the marker may be ahead of the log, and
        // the log may hold other entries up to there: then it says nothing of them.
        let known = self.log.purged().is_some_and(|purged| committed <= purged)
            || self.log.id_at(committed.index)? == Some(committed);
        Ok(known.then_some(committed))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let Some(last) = entries.last().map(|entry| entry.log_id) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let mut batch = self.parts.disk.batch()?;
        let mut named = false;
        let mut next = self.log.last().map(|id| id.index + 1);
        for entry in &entries {
            let index = entry.log_id.index;
            if next.is_some_and(|next| next != index) {
                return Err(corrupt(format!("entry {index} would leave a hole in the log")));
            }
            next = Some(index + 1);
            batch.put(Family::Log, index_key(index), codec::encode_entry(entry));
            named |= names(&self.parts.owner, entry);
        }
        if named {
            batch.put(Family::Meta, key::NAMED, []);
        }
        self.parts.disk.write(batch)?;
        if named {
            self.parts.presence.named.store(true, Ordering::Release);
        }
        self.parts.presence.data.store(true, Ordering::Release);
        let mut tail = self.log.tail_mut();
        tail.first = tail.first.or(entries.first().map(|entry| entry.log_id.index));
        tail.last = Some(last);
        for entry in entries {
            tail.cache.push(entry);
        }
        drop(tail);
        self.parts.flusher.append(last.index, callback);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let end = last_log_id.map_or(0, |id| id.index + 1);
        self.parts.flusher.truncate(last_log_id.map(|id| id.index)).await?;
        {
            let mut tail = self.log.tail_mut();
            let Some(last) = tail.last.filter(|last| last.index >= end) else { return Ok(()) };
            let mut batch = self.parts.disk.batch()?;
            batch.delete_range(Family::Log, end, last.index + 1);
            self.parts.disk.write(batch)?;
            tail.cache.truncate(end);
            if tail.first.is_some_and(|first| first >= end) {
                tail.first = None;
            }
            tail.last = if tail.first.is_some() { last_log_id } else { tail.purged };
            let data = tail.first.is_some() || !self.parts.snapshots.is_empty();
            self.parts.presence.data.store(data, Ordering::Release);
        }
        self.parts.flusher.sync().await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let end = log_id.index + 1;
        // The ledger keeps the story, so it must hold it durably first.
        #[cfg(feature = "sim")]
        let completes = !crate::sim::sabotaged(crate::sim::Sabotage::PurgeBeforeLedger);
        #[cfg(not(feature = "sim"))]
        let completes = true;
        if completes {
            let cluster_id = self.parts.owner.cluster_id();
            self.log.complete_ledger(&self.parts.ledger, &cluster_id, log_id.index)?;
        }
        self.parts.flusher.sync().await?;
        {
            let mut tail = self.log.tail_mut();
            if tail.purged.is_some_and(|purged| purged.index >= log_id.index) {
                return Ok(());
            }
            let mut batch = self.parts.disk.batch()?;
            batch.put(Family::Meta, key::PURGED, codec::encode_log_id(&log_id));
            if let Some(first) = tail.first.filter(|first| *first < end) {
                batch.delete_range(Family::Log, first, end);
            }
            self.parts.disk.write(batch)?;
            tail.cache.purge(end);
            tail.purged = Some(log_id);
            if tail.last.is_none_or(|last| last.index <= log_id.index) {
                tail.last = Some(log_id);
                tail.first = None;
            } else {
                tail.first = tail.first.map(|first| first.max(end));
            }
        }
        // Files go at once and for good, so the marker must be durable before.
        self.parts.flusher.sync().await?;
        self.parts.disk.drop_files(Family::Log, end);
        Ok(())
    }
}
