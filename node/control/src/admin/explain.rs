//! `explain`: where a request goes, in steps, and the entries that made it so.

use std::collections::BTreeMap;

use dovetail_ledger::explain::{Asked, explain, links};
use dovetail_proto::convert::decode_entry;
use dovetail_proto::v1 as pb;
use dovetail_routing::explain::Explanation;
use dovetail_routing::fact::Change;
use dovetail_routing::snapshot::Route;
use dovetail_routing::state::State;
use dovetail_routing::{LogIndex, Payload};
use tonic::Status;

use super::{Admin, log};
use crate::observe::Observe;
use crate::ports::{Peers, Quorum};

/// Rows before the explained index in which objects of the route are looked for.
const LOOKED_BACK: u64 = 4_096;
/// Links of the chain.
const LINKS_MAX: usize = 50;

impl<Q: Quorum, P: Peers, D: Observe> Admin<Q, P, D> {
    /// Explains a request by the state after `at`; 0 is now.
    pub(super) async fn explained(
        &self,
        asked: &Asked,
        at: u64,
    ) -> Result<pb::ExplainResponse, Status> {
        let state = self.state_at(at).await?;
        let (answer, explanation) = explain(&state, asked);
        let chain = self.chain(&state, &explanation).await?;
        Ok(pb::ExplainResponse { chain, ..answer })
    }

    /// The entries that made a route what it is, newest first.
    async fn chain(
        &self,
        state: &State,
        explanation: &Explanation,
    ) -> Result<Vec<pb::ChainLink>, Status> {
        let Some((_, route)) = &explanation.route else { return Ok(Vec::new()) };
        let mut links = links(explanation);
        for (index, what) in self.last_shown(state.applied_index(), route).await? {
            links.entry(index.0).or_default().push(what);
        }
        let mut chain = Vec::new();
        for (index, what) in links.into_iter().rev().take(LINKS_MAX) {
            let mut link = pb::ChainLink { index, what: what.join("; "), ..Default::default() };
            let rows = self.rows(LogIndex(index), 1).await?;
            let row = rows.into_iter().find(|row| row.index == index);
            if let Some(entry) = row.and_then(|row| decode_entry(&row.entry).ok()) {
                link.leader_time_ms = entry.leader_time_ms;
                link.actor = entry.actor.to_string();
                link.cause = entry.cause.to_string();
                let (_, summary) = log::summary(&entry);
                link.what = format!("{}: {summary}", link.what);
            }
            chain.push(link);
        }
        Ok(chain)
    }

    /// Where services and tasks of a route were last shown, of the newest rows.
    async fn last_shown(
        &self,
        applied: LogIndex,
        route: &Route,
    ) -> Result<Vec<(LogIndex, String)>, Status> {
        let mut last: BTreeMap<String, LogIndex> = BTreeMap::new();
        let mut from = applied.0.saturating_sub(LOOKED_BACK);
        loop {
            let rows = self.rows(LogIndex(from), 1_024).await?;
            let Some(newest) = rows.last().map(|row| row.index) else { break };
            for row in rows.iter().filter(|row| row.index <= applied.0) {
                let is_entry = row.kind() == pb::LedgerRowKind::Entry;
                let entry = is_entry.then(|| decode_entry(&row.entry).ok()).flatten();
                let Some(Payload::Observed(observed)) = entry.map(|entry| entry.payload) else {
                    continue;
                };
                for change in &observed.changes {
                    if let Some(what) = concerns(route, change) {
                        last.insert(what, LogIndex(row.index));
                    }
                }
            }
            if newest >= applied.0 {
                break;
            }
            from = newest.saturating_add(1);
        }
        Ok(last.into_iter().map(|(what, index)| (index, what)).collect())
    }
}

/// What a change shows of a route's services and tasks.
fn concerns(route: &Route, change: &Change) -> Option<String> {
    match change {
        Change::Service(service) => {
            let is_on = route.services.iter().any(|one| one.id == service.id);
            is_on.then(|| format!("service {} was last shown", service.name))
        }
        Change::Task(task) => {
            let mut upstreams = route.services.iter().flat_map(|service| &service.upstreams);
            let is_on = upstreams.any(|one| one.task.as_ref() == Some(&task.id));
            is_on.then(|| format!("task {} was last shown", task.id))
        }
        _ => None,
    }
}
