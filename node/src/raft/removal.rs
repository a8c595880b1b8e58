//! A removed member learns that it is out, and stops.
//!
//! Raft does not tell it: the others just fall silent. So a member that hears no leader asks
//! around, and believes only one that leads its quorum and has applied the removal.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::formation::ask_all;
use super::hub::Hub;

/// After so long without a leader it is asked whether this member is still one.
const SILENT_MS: u64 = 2_000;
/// Between two rounds of asking.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Returns, with the reason, once this member has been removed.
pub(crate) async fn removed(hub: Arc<Hub>) -> String {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let hears = hub.leads() || hub.leader_silent_ms() < SILENT_MS;
        if hub.raft().is_none() || !hub.has_data() || hears {
            continue;
        }
        if let Some(reason) = told(&hub).await {
            warn!(%reason, "removed");
            return reason;
        }
    }
}

/// Why this member is out, if one that leads says so.
pub(crate) async fn told(hub: &Arc<Hub>) -> Option<String> {
    let answers = ask_all(hub).await;
    let removed = |answer: &&Result<dovetail_proto::v1::MemberHello, String>| {
        answer.as_ref().is_ok_and(|hello| hello.removed_you)
    };
    let (slot, _) = answers.iter().find(|(_, answer)| removed(answer))?;
    Some(format!(
        "member {slot}, which leads, says that this member ({}, incarnation {}) was removed from \
         the quorum: to take it in again, empty --data-dir, start it and run dovetail member add",
        hub.slot,
        hub.owner().incarnation
    ))
}
