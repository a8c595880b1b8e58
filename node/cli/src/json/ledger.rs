//! What `log export`, `log verify` and `replay` print as JSON.

use dovetail_ledger::{Replay, Verified};
use dovetail_proto::v1 as pb;
use dovetail_routing::Digest;
use dovetail_routing::state::State;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Exported {
    pub(crate) file: String,
    pub(crate) cluster_id: String,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) rows: u64,
    pub(crate) head: String,
    pub(crate) exporter: String,
}

/// A file that was checked.
#[derive(Debug, Default, Serialize)]
pub(crate) struct LogVerified {
    pub(crate) ok: bool,
    pub(crate) cluster_id: String,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) rows: u64,
    pub(crate) head: String,
    /// Checkpoints that agree, and those about what the file does not hold.
    pub(crate) checkpoints: u64,
    pub(crate) unchecked: u64,
    pub(crate) exporter: String,
    /// Only when the signature was checked.
    pub(crate) signed_by: Option<String>,
    /// In words: what is known of where it comes from.
    pub(crate) origin: String,
    /// Where and why the check failed.
    pub(crate) broken_index: Option<u64>,
    pub(crate) reason: Option<String>,
}

impl LogVerified {
    /// A file that does not hold together.
    pub(crate) fn broken(index: Option<u64>, reason: String) -> Self {
        Self { broken_index: index, reason: Some(reason), ..Self::default() }
    }
}

impl From<&Verified> for LogVerified {
    fn from(verified: &Verified) -> Self {
        let statement = &verified.trailer.statement;
        Self {
            cluster_id: statement.cluster_id.clone(),
            first: statement.first,
            last: statement.last,
            rows: statement.rows,
            head: Digest(statement.head).to_string(),
            checkpoints: verified.replay.checkpoints(),
            unchecked: verified.replay.unchecked(),
            exporter: statement.exporter.clone(),
            ..Self::default()
        }
    }
}

/// The ledgers of all members.
#[derive(Debug, Serialize)]
pub(crate) struct LedgersCompared {
    pub(crate) ok: bool,
    cluster_id: String,
    /// Where the hashes were compared.
    index: u64,
    members: Vec<ComparedLedger>,
}

#[derive(Debug, Serialize)]
struct ComparedLedger {
    id: u64,
    reachable: bool,
    first: u64,
    /// When the oldest row was ordered, in milliseconds since 1970; 0 when unknown.
    first_time_ms: u64,
    last: u64,
    hash: String,
    recomputed: u64,
    gaps: Vec<u64>,
    /// Older rows are still asked for from other members.
    fetching: bool,
    broken_index: Option<u64>,
    /// In words; begins with `holds together` when nothing is wrong.
    verdict: String,
}

impl LedgersCompared {
    /// `common` is the hash that most members have.
    pub(crate) fn new(answer: &pb::VerifyLogResponse, common: Option<&str>) -> Self {
        let members: Vec<_> = answer
            .members
            .iter()
            .map(|member| ComparedLedger {
                id: member.id,
                reachable: member.reachable,
                first: member.first,
                first_time_ms: member.first_time_ms,
                last: member.last,
                hash: member.hash.clone(),
                recomputed: member.recomputed,
                gaps: member.gaps.clone(),
                fetching: member.fetching,
                broken_index: (!member.broken.is_empty()).then_some(member.broken_index),
                verdict: verdict(member, common, answer.index),
            })
            .collect();
        // A member that is down is no proof of anything.
        let well = |one: &&ComparedLedger| one.verdict.starts_with("holds together");
        let ok = members.iter().filter(|one| one.reachable).all(|one| well(&one));
        let (cluster_id, index) = (answer.cluster_id.clone(), answer.index);
        Self { ok: ok && members.iter().any(|one| one.reachable), cluster_id, index, members }
    }

    pub(crate) fn verdicts(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|one| one.verdict.as_str())
    }
}

fn verdict(member: &pb::MemberLedger, common: Option<&str>, index: u64) -> String {
    if !member.reachable {
        return "does not answer".to_owned();
    }
    if !member.broken.is_empty() {
        return format!("broken at index {}: {}", member.broken_index, member.broken);
    }
    if !member.hash.is_empty() && Some(member.hash.as_str()) != common {
        return format!("differs from the others at index {index}");
    }
    let mut verdict = "holds together".to_owned();
    if !member.gaps.is_empty() {
        let after: Vec<_> = member.gaps.iter().map(u64::to_string).collect();
        verdict += &format!(", with gaps after {}", after.join(", "));
    }
    if member.fetching {
        verdict += ", older rows are asked for";
    }
    verdict
}

#[derive(Debug, Serialize)]
pub(crate) struct Replayed {
    index: u64,
    service_clusters: Vec<super::ServiceCluster>,
    /// How many were compared and agree.
    checkpoints: u64,
    unchecked: u64,
    entries: u64,
    /// BLAKE3 of the whole state, as checkpoints name it.
    state: String,
    divergence: Option<Divergence>,
    /// If it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<super::Explain>,
    /// If another rule set was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    what_if: Option<WhatIf>,
}

/// What another rule set would have made of the log.
#[derive(Debug, Serialize)]
pub(crate) struct WhatIf {
    pub(crate) rules: u32,
    /// The routes that would not be the same.
    pub(crate) differences: Vec<RouteDifference>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RouteDifference {
    pub(crate) service_cluster: String,
    pub(crate) host: String,
    pub(crate) path: String,
    /// In words.
    pub(crate) changes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Divergence {
    index: u64,
    checkpoint: u64,
    /// `state` or `ledger`.
    what: &'static str,
    expected: String,
    found: String,
}

impl Replayed {
    pub(crate) fn new(
        replay: &Replay,
        state: &State,
        explained: Option<pb::ExplainResponse>,
        what_if: Option<WhatIf>,
    ) -> Self {
        let explain = explained.map(Into::into);
        let service_clusters = state.service_clusters();
        Self {
            index: replay.index(),
            service_clusters: service_clusters
                .iter()
                .map(|name| {
                    let published = state.published(name);
                    super::ServiceCluster {
                        name: name.to_string(),
                        revision: published.snapshot.revision.0,
                        digest: published.digest.to_string(),
                    }
                })
                .collect(),
            checkpoints: replay.checkpoints(),
            unchecked: replay.unchecked(),
            entries: replay.entries(),
            state: state.digest().to_string(),
            divergence: replay.divergence().map(|divergence| Divergence {
                index: divergence.index,
                checkpoint: divergence.checkpoint,
                what: divergence.what,
                expected: divergence.expected.clone(),
                found: divergence.found.clone(),
            }),
            explain,
            what_if,
        }
    }

    pub(crate) fn diverged(&self) -> bool {
        self.divergence.is_some()
    }
}
