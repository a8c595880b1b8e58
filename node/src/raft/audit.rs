//! This member's ledger, for whoever exports or checks it.

use dovetail_control::ports::LedgerStart;
use dovetail_proto::v1 as pb;
use dovetail_raft_store::Ledger;
use dovetail_routing::{Digest, LogIndex};

use super::hub::Hub;

/// Runs `work` where reading a disk disturbs nobody.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// Where rows without a gap begin: at `from`; at the oldest that can be replayed when it is 0.
pub(crate) fn start(hub: &Hub, ledger: &Ledger, from: u64) -> Result<LedgerStart, String> {
    let dovetail_raft_store::Owner { cluster_id, ancestors, .. } = hub.owner();
    if from == 0 {
        let start = ledger.start(&cluster_id).map_err(|error| dovetail_process::chain(&error))?;
        for reason in &start.damaged {
            tracing::error!(reason, "a base of the ledger is refused");
        }
        let first = start.first;
        let state = start.state.filter(|_| first > 0);
        return Ok(LedgerStart {
            first: LogIndex(first),
            previous: start.previous,
            base: state.map(|state| (state.encode().into(), state.digest())),
            ancestors,
        });
    }
    let (first, _) = ledger.newest_run();
    if from < first {
        return Err(format!("from: this member's ledger begins at {first}"));
    }
    let previous = ledger
        .hash_at(from - 1)
        .map_err(|error| dovetail_process::chain(&error))?
        .ok_or_else(|| format!("from: this member has no ledger row {}", from - 1))?;
    Ok(LedgerStart { first: LogIndex(from), previous, base: None, ancestors })
}

/// What the ledger holds, and whether it holds together.
pub(crate) fn check(
    hub: &Hub,
    ledger: &Ledger,
    index: Option<u64>,
    recompute: bool,
) -> Result<pb::MemberLedger, String> {
    let (last, _) = ledger.head();
    let mut answer = pb::MemberLedger {
        id: hub.slot,
        reachable: true,
        first: ledger.first(),
        last,
        first_time_ms: ledger.since_ms().map_err(|error| dovetail_process::chain(&error))?,
        fetching: ledger.lacks().is_some(),
        ..pb::MemberLedger::default()
    };
    if let Some(index) = index {
        let hash = ledger.hash_at(index).map_err(|error| dovetail_process::chain(&error))?;
        answer.hash = hash.map(|hash| Digest(hash).to_string()).unwrap_or_default();
    }
    if recompute {
        match ledger.verify(&hub.owner().cluster_id) {
            Ok(verified) => {
                answer.recomputed = verified.rows;
                answer.gaps = verified.gaps;
            }
            Err(broken) => {
                answer.broken = broken.reason;
                answer.broken_index = broken.index;
            }
        }
    }
    Ok(answer)
}

/// What this member held at an index.
pub(crate) fn held(hub: &Hub, index: u64) -> Result<pb::HeldResponse, String> {
    let held = hub.store.checkpoints().held(index).map_err(|error| error.to_string())?;
    Ok(pb::HeldResponse { state: held.state.0.to_vec(), ledger: held.ledger.to_vec() })
}
