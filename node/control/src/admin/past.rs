//! The state as it was: the ledger's entries applied again, from the first one on.

use std::sync::Arc;

use dovetail_proto::convert::decode_entry;
use dovetail_proto::v1 as pb;
use dovetail_routing::state::State;
use dovetail_routing::{Applied, Entry, LogIndex};
use tonic::Status;

use super::Admin;
use crate::observe::Observe;
use crate::ports::{Peers, Quorum};

/// States that are rebuilt at the same time: each is a thread's work for seconds.
pub const PASTS_MAX: usize = 2;
/// Rows that are read, and applied, at once.
const PAGE: usize = 1_024;
/// Rows among which an entry with a time is looked for: others are of leaders and members.
const TIMED_AMONG: usize = 64;

/// Who is shown each entry while the past is rebuilt.
pub(super) trait Watch: Send + 'static {
    /// Sees the entry at `index`, with the states around it; `false` ends the replay.
    fn entry(
        &mut self,
        around: (&State, &State),
        index: LogIndex,
        seen: (&Entry, &Applied),
    ) -> bool;
}

/// Only the state itself is wanted.
impl Watch for () {
    fn entry(&mut self, _: (&State, &State), _: LogIndex, _: (&Entry, &Applied)) -> bool {
        true
    }
}

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// The state after the entry at `index`; 0 is now.
    pub(super) async fn state_at(&self, index: u64) -> Result<Arc<State>, Status> {
        let current = self.current_for(index).await?;
        if index == 0 || index == current.applied_index().0 {
            return Ok(current);
        }
        let ((), state) = self.replay(LogIndex(index), ()).await?;
        Ok(Arc::new(state))
    }

    /// The current state, which holds the entry at `index`.
    pub(super) async fn current_for(&self, index: u64) -> Result<Arc<State>, Status> {
        let mut current = Arc::clone(&self.core.quorum.state().borrow());
        // The past is the same on every member; what may be newer is proven first.
        if index == 0 || index > current.applied_index().0 {
            self.barrier().await?;
            current = Arc::clone(&self.core.quorum.state().borrow());
        }
        let applied = current.applied_index();
        if index > applied.0 {
            return Err(Status::failed_precondition(format!(
                "index {index} is in the future: the last entry is {applied}"
            )));
        }
        Ok(current)
    }

    /// Applies the ledger's entries up to `until` again, and shows them to `watch`.
    pub(super) async fn replay<W: Watch>(
        &self,
        until: LogIndex,
        watch: W,
    ) -> Result<(W, State), Status> {
        let Ok(_permit) = self.pasts.try_acquire() else {
            return Err(Status::resource_exhausted(format!(
                "{PASTS_MAX} earlier states are being rebuilt, which is the limit: try again"
            )));
        };
        let mut so_far = (watch, State::default());
        let mut from = LogIndex(0);
        loop {
            let rows = self.rows(from, PAGE).await?;
            if let Some(first) = rows.first().filter(|row| from.0 == 0 && row.index > 1) {
                return Err(Status::failed_precondition(format!(
                    "the ledger of this member begins at index {}: what was before cannot be \
                     rebuilt from it; ask another member (--core)",
                    first.index
                )));
            }
            let Some(last) = rows.last().map(|row| row.index) else { break };
            // Thousands of entries: not on a thread that answers others.
            let page = tokio::task::spawn_blocking(move || apply(so_far, &rows, until));
            let (applied, goes_on) =
                page.await.map_err(|error| Status::internal(error.to_string()))??;
            so_far = applied;
            if !goes_on || last >= until.0 {
                break;
            }
            from = LogIndex(last.saturating_add(1));
        }
        Ok(so_far)
    }

    pub(super) async fn rows(
        &self,
        from: LogIndex,
        limit: usize,
    ) -> Result<Vec<pb::LedgerRow>, Status> {
        let rows = self.core.quorum.ledger(from, limit).await;
        rows.map_err(|reason| Status::internal(format!("read the ledger: {reason}")))
    }

    /// The last entry at a time, by leaders' clocks, and its own time.
    pub(super) async fn last_at(&self, time_ms: u64) -> Result<(u64, u64), Status> {
        let last = self.current_for(0).await?.applied_index().0;
        let oldest = self.rows(LogIndex(0), 1).await?;
        let mut below = oldest.first().map_or(1, |row| row.index);
        let mut above = last;
        let mut found = (0, 0);
        while below <= above {
            let middle = below + (above - below) / 2;
            match self.timed(middle).await? {
                Some((index, time)) if time <= time_ms && index <= last => {
                    found = (index, time);
                    below = index.saturating_add(1);
                }
                _ => match middle.checked_sub(1) {
                    Some(next) => above = next,
                    None => break,
                },
            }
        }
        Ok(found)
    }

    /// The first entry with a time from `from` on.
    async fn timed(&self, from: u64) -> Result<Option<(u64, u64)>, Status> {
        let rows = self.rows(LogIndex(from), TIMED_AMONG).await?;
        let timed = |row: &pb::LedgerRow| {
            let is_entry = row.kind() == pb::LedgerRowKind::Entry;
            let entry = is_entry.then(|| decode_entry(&row.entry).ok()).flatten()?;
            Some((row.index, entry.leader_time_ms))
        };
        Ok(rows.iter().find_map(timed))
    }
}

/// Applies one page of rows; tells whether there is more to be seen.
fn apply<W: Watch>(
    (mut watch, mut state): (W, State),
    rows: &[pb::LedgerRow],
    until: LogIndex,
) -> Result<((W, State), bool), Status> {
    for row in rows {
        if row.index > until.0 {
            return Ok(((watch, state), false));
        }
        if row.kind() != pb::LedgerRowKind::Entry {
            continue;
        }
        let entry = decode_entry(&row.entry).map_err(|error| {
            Status::internal(format!("entry {} of the ledger: {error}", row.index))
        })?;
        let before = state.clone();
        let index = LogIndex(row.index);
        let applied = state.apply(index, &entry);
        if !watch.entry((&before, &state), index, (&entry, &applied)) {
            return Ok(((watch, state), false));
        }
    }
    Ok(((watch, state), true))
}
