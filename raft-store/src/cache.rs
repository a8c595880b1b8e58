//! The newest entries in memory, so that replication and apply need no disk.

use std::collections::VecDeque;

use crate::types::{Entry, EntryPayload};

/// Entries kept at most.
const ENTRIES_MAX: usize = 65_536;
/// Bytes of their payloads kept at most.
const BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// What an entry costs, roughly, in memory and on the wire.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(data) => data.0.len(),
        EntryPayload::Membership(membership) => 128 * membership.nodes().count(),
    };
    64 + payload
}

/// Entries without a gap; always a suffix of the log.
#[derive(Debug, Default)]
pub(crate) struct EntryCache {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl EntryCache {
    /// The index of the oldest entry held.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.log_id.index)
    }

    /// The entries `from..end` that are held; `from` must not lie below the oldest.
    pub(crate) fn range(&self, from: u64, end: u64) -> impl Iterator<Item = &Entry> {
        let first = self.first().unwrap_or(end);
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let take = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip).take(take)
    }

    /// Adds the newest entry, and forgets the oldest past the limits.
    pub(crate) fn push(&mut self, entry: Entry) {
        if self.entries.back().is_some_and(|last| last.log_id.index + 1 != entry.log_id.index) {
            self.clear();
        }
        self.bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= entry_bytes(&oldest);
        }
    }

    /// Forgets entries from `end` on.
    pub(crate) fn truncate(&mut self, end: u64) {
        while let Some(newest) = self.entries.pop_back_if(|entry| entry.log_id.index >= end) {
            self.bytes -= entry_bytes(&newest);
        }
    }

    /// Forgets entries below `first`.
    pub(crate) fn purge(&mut self, first: u64) {
        while let Some(oldest) = self.entries.pop_front_if(|entry| entry.log_id.index < first) {
            self.bytes -= entry_bytes(&oldest);
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}
