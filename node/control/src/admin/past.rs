//! The state as it was: the ledger's entries applied again, to the oldest state that is
//! kept, or to one that was rebuilt a moment ago.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
/// Rebuilt states that are kept, so that the next page goes on from the last one.
const KEPT_MAX: usize = 2;
/// Rows that are read, and applied, at once.
const PAGE: usize = 1_024;
/// Rows among which an entry with a time is looked for: others are of leaders and members.
const TIMED_AMONG: usize = 64;

/// Who is shown each entry while the past is rebuilt.
pub(super) trait Watch: Send + 'static {
    /// Sees the entry at `index`, with the states around it; `false` ends the replay before
    /// that entry.
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

/// States that were rebuilt lately, the oldest first: the same for whoever asks.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<VecDeque<State>>);

impl Kept {
    fn states(&self) -> MutexGuard<'_, VecDeque<State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest state up to `index`.
    fn up_to(&self, index: LogIndex) -> Option<State> {
        let states = self.states();
        let early = states.iter().filter(|state| state.applied_index() <= index);
        early.max_by_key(|state| state.applied_index()).cloned()
    }

    fn keep(&self, state: &State) {
        let mut states = self.states();
        states.retain(|kept| kept.applied_index() != state.applied_index());
        states.push_back(state.clone());
        if states.len() > KEPT_MAX {
            states.pop_front();
        }
    }
}

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// The state after the entry at `index`; 0 is now.
    pub(super) async fn state_at(&self, index: u64) -> Result<Arc<State>, Status> {
        let current = self.current_for(index).await?;
        if index == 0 || index == current.applied_index().0 {
            return Ok(current);
        }
        let index = LogIndex(index);
        let ((), state) = self.replay(index, index, ()).await?;
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

    /// Applies the ledger's entries up to `until` again, and shows them to `watch`: at least
    /// all after `seen`, or all that there are when it is 0.
    pub(super) async fn replay<W: Watch>(
        &self,
        seen: LogIndex,
        until: LogIndex,
        watch: W,
    ) -> Result<(W, State), Status> {
        let Ok(_permit) = self.pasts.try_acquire() else {
            return Err(Status::resource_exhausted(format!(
                "{PASTS_MAX} earlier states are being rebuilt, which is the limit: try again"
            )));
        };
        let (state, mut due, mut rows) = self.beginning(seen).await?;
        let mut so_far = (watch, state);
        while let Some(last) = rows.last().map(|row| row.index) {
            if rows.first().is_some_and(|row| row.index != due) {
                return Err(Status::data_loss(format!("ledger row {due} is missing")));
            }
            // Thousands of entries: not on a thread that answers others.
            let page = tokio::task::spawn_blocking(move || apply(so_far, &rows, until));
            let (applied, goes_on) =
                page.await.map_err(|error| Status::internal(error.to_string()))??;
            so_far = applied;
            if !goes_on || last >= until.0 {
                break;
            }
            due = last.saturating_add(1);
            rows = self.rows(LogIndex(due), PAGE).await?;
        }
        self.past_states.keep(&so_far.1);
        Ok(so_far)
    }

    /// A state that holds nothing after `seen`, the oldest that there is when it is 0; the
    /// index that follows on it, and the first rows from there on.
    async fn beginning(&self, seen: LogIndex) -> Result<(State, u64, Vec<pb::LedgerRow>), Status> {
        if let Some(state) = self.past_states.up_to(seen) {
            let next = state.applied_index().0.saturating_add(1);
            let rows = self.rows(LogIndex(next), PAGE).await?;
            // They may have been trimmed meanwhile.
            if rows.first().is_some_and(|row| row.index == next) {
                return Ok((state, next, rows));
            }
        }
        let start = self.core.quorum.ledger_from(LogIndex(0)).await;
        let start =
            start.map_err(|reason| Status::internal(format!("read the ledger: {reason}")))?;
        let first = start.first.0;
        let state = match start.base {
            Some((bytes, _)) => tokio::task::spawn_blocking(move || State::decode(&bytes))
                .await
                .map_err(|error| Status::internal(error.to_string()))?
                .map_err(|error| Status::data_loss(format!("the ledger's base: {error}")))?,
            None if first == 0 => State::default(),
            None => {
                return Err(Status::failed_precondition(format!(
                    "the ledger of this member begins at index {first}, and it keeps no state \
                     from before: what was cannot be rebuilt from it; ask another member (--core)"
                )));
            }
        };
        let oldest = first.saturating_sub(1);
        if seen.0 > 0 && seen.0 < oldest {
            return Err(Status::failed_precondition(format!(
                "index {seen} is older than what this member keeps: the oldest state is that \
                 after index {oldest}; ask another member (--core)"
            )));
        }
        Ok((state, first, self.rows(LogIndex(first), PAGE).await?))
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
            return Ok(((watch, before), false));
        }
    }
    Ok(((watch, state), true))
}
