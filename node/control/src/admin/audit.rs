//! Following the ledger, and comparing those of all members.

use std::sync::Arc;
use std::time::Duration;

use dovetail_process::drain::DrainWatch;
use dovetail_proto::v1 as pb;
use dovetail_routing::LogIndex;
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tonic::Status;

use super::{Admin, log};
use crate::observe::Observe;
use crate::ports::{Peers, Quorum, QuorumView};

/// Callers that follow the ledger at the same time.
pub const FOLLOWERS_MAX: usize = 64;
/// Rows that are read at once.
const PAGE: usize = 256;
/// The longest wait for a member that only looks.
const PLACE: Duration = Duration::from_secs(1);
/// The longest wait for a member that recomputes every hash.
const RECOMPUTE: Duration = Duration::from_secs(600);

/// Entries from `from` on as they are applied, until the drain begins.
pub(super) fn follow<Q: Quorum>(
    quorum: Arc<Q>,
    from: u64,
    drain: DrainWatch,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<pb::LogEntry, Status>> + Send {
    let from = match from {
        0 => quorum.view().borrow().applied.saturating_add(1),
        from => from,
    };
    // Rows are written before the state that they come to is shown.
    let state = quorum.state();
    let pages = stream::unfold((from, state, permit), move |(from, mut state, permit)| {
        let (quorum, drain) = (Arc::clone(&quorum), drain.clone());
        async move {
            loop {
                state.mark_unchanged();
                let rows = match quorum.ledger(LogIndex(from), PAGE).await {
                    Ok(rows) => rows,
                    Err(reason) => {
                        let status = Status::internal(format!("read the ledger: {reason}"));
                        return Some((vec![Err(status)], (u64::MAX, state, permit)));
                    }
                };
                if let Some(last) = rows.last().map(|row| row.index) {
                    let entries = rows.into_iter().map(|row| Ok(log::entry_of(row))).collect();
                    return Some((entries, (last.saturating_add(1), state, permit)));
                }
                tokio::select! {
                    biased;
                    () = drain.begun() => return None,
                    changed = state.changed() => changed.ok()?,
                }
            }
        }
    });
    pages.flat_map(stream::iter)
}

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// Every member's ledger, compared where the request says, or where all have come to.
    pub(super) async fn compare_ledgers(
        &self,
        request: &pb::VerifyLogRequest,
    ) -> Result<pb::VerifyLogResponse, Status> {
        let view = self.view();
        let index = match request.index {
            Some(index) => index,
            None => {
                let places = self.ledgers(&view, None, false).await;
                let reachable = places.iter().filter(|place| place.reachable);
                reachable.map(|place| place.last).min().unwrap_or_default()
            }
        };
        let members = self.ledgers(&view, Some(index), request.recompute).await;
        Ok(pb::VerifyLogResponse { cluster_id: view.cluster_id, index, members })
    }

    async fn ledgers(
        &self,
        view: &QuorumView,
        index: Option<u64>,
        recompute: bool,
    ) -> Vec<pb::MemberLedger> {
        let patience = if recompute { RECOMPUTE } else { PLACE };
        let asked = view.members.iter().map(|member| async move {
            let answer = if member.slot == view.this {
                self.core.quorum.ledger_check(index, recompute).await
            } else {
                let asked = self.core.peers.ledger_check(member.slot, index, recompute);
                match timeout(patience, asked).await {
                    Ok(answer) => answer,
                    Err(_) => Err("no answer in time".to_owned()),
                }
            };
            match answer {
                Ok(ledger) => pb::MemberLedger { id: member.slot, reachable: true, ..ledger },
                Err(_) => pb::MemberLedger { id: member.slot, ..pb::MemberLedger::default() },
            }
        });
        join_all(asked).await
    }
}
