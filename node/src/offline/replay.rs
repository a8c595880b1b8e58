//! `dovetaild replay --data-dir`: what the ledger of a data folder comes to.

use std::process::ExitCode;

use anyhow::Context as _;
use dovetail_ledger::Until;
use dovetail_ledger::explain::{Asked, explain_by, read};
use dovetail_proto::v1 as pb;
use dovetail_raft_store::{Offline, Rows, Start};
use dovetail_routing::RuleSet;
use dovetail_routing::snapshot::RouteKey;
use dovetail_routing::state::State;
use dovetail_routing::tell::differences;
use serde_json::{Value, json};

use super::{DataDir, broken, print, replay_of, replayed};

#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    #[command(flatten)]
    folder: DataDir,
    /// After this index, or before the first entry later than this time (UTC)
    #[arg(long, value_name = "REVISION|TIME")]
    until: Option<Until>,
    /// Also as if this rule set had been in force, and the routes that would differ
    #[arg(long, value_name = "N")]
    rules: Option<u32>,
    /// Also where a request goes, and which entries made it so
    #[arg(long, num_args = 2, value_names = ["METHOD", "URL"])]
    explain: Option<Vec<String>>,
}

/// The request that is asked about.
fn asked(given: &[String]) -> anyhow::Result<Asked> {
    let [method, url] = given else { anyhow::bail!("--explain: give a method and a URL") };
    let request = pb::ExplainRequest {
        method: method.clone(),
        url: url.clone(),
        ..pb::ExplainRequest::default()
    };
    read(&request).map_err(|reason| anyhow::anyhow!("--explain: {reason}"))
}

/// The routes that another rule set would have made others, and how.
struct WhatIf {
    rules: RuleSet,
    differences: Vec<(RouteKey, Vec<String>)>,
}

impl WhatIf {
    fn new(
        offline: &Offline,
        start: &Start,
        until: Until,
        rules: RuleSet,
        state: &State,
    ) -> anyhow::Result<Self> {
        let mut assumed = replay_of(start, Vec::new()).under(rules);
        assumed.run(&mut Rows::after(offline, start.first, start.previous), until)?;
        let assumed = assumed.state().context("no state")?;
        Ok(Self { rules, differences: differences(state, assumed).into_iter().collect() })
    }

    fn in_json(&self) -> Value {
        let differences = self.differences.iter().map(|(route, changes)| {
            json!({
                "service_cluster": route.service_cluster.to_string(),
                "host": route.host.to_string(),
                "path": route.path.to_string(),
                "changes": changes,
            })
        });
        json!({"rules": self.rules.number(), "differences": differences.collect::<Vec<_>>()})
    }

    fn in_words(&self) -> Vec<String> {
        let rules = self.rules.number();
        if self.differences.is_empty() {
            return vec![format!("under rule set {rules} every route would be the same")];
        }
        let told = |(route, changes): &(RouteKey, Vec<String>)| {
            format!("under rule set {rules}, {route}: {}", changes.join("; "))
        };
        self.differences.iter().map(told).collect()
    }
}

fn in_json(answer: &pb::ExplainResponse) -> Value {
    let chain = answer.chain.iter().map(|link| {
        json!({
            "index": link.index,
            "leader_time_ms": link.leader_time_ms,
            "actor": link.actor,
            "cause": link.cause,
            "what": link.what,
        })
    });
    json!({
        "index": answer.index,
        "revision": answer.revision,
        "host": answer.host,
        "path": answer.path,
        "rule": answer.rule,
        "steps": answer.steps,
        "chain": chain.collect::<Vec<_>>(),
    })
}

fn in_words(answer: &pb::ExplainResponse) -> Vec<String> {
    let chain =
        answer.chain.iter().map(|link| format!("{} {}: {}", link.index, link.actor, link.what));
    answer.steps.iter().cloned().chain(chain).collect()
}

/// Replays what the folder holds.
pub(super) fn replay(args: &Replay, json: bool) -> anyhow::Result<ExitCode> {
    let Replay { folder, until, rules, explain } = args;
    let until = until.unwrap_or_default();
    let rules = rules.map(RuleSet::try_from).transpose().context("--rules")?;
    let asked = explain.as_deref().map(asked).transpose()?;
    let offline = folder.open()?;
    let start = offline.start()?;
    let oldest = start.first.saturating_sub(1);
    if let Until::Index(index) = until {
        anyhow::ensure!(
            index >= oldest,
            "--until {index}: the oldest state that is kept is that after index {oldest}"
        );
    }
    if let (Until::Time(time), Some(state)) = (until, &start.state) {
        anyhow::ensure!(
            state.leader_time_ms() <= time,
            "--until: the oldest state that is kept, that after index {oldest}, is of a later time"
        );
    }
    let replay = match replayed(&offline, &start, until) {
        Ok(replay) => replay,
        Err(error) => {
            return Ok(broken(json, error.index(), &dovetail_process::chain(&error)));
        }
    };
    let Some(state) = replay.state() else {
        anyhow::bail!(
            "the ledger begins at {}, and the state before it is not kept: it can be verified, \
             not replayed{}",
            start.first,
            start.damaged.iter().map(|reason| format!("; {reason}")).collect::<String>()
        );
    };
    let clusters: Vec<_> = state
        .service_clusters()
        .iter()
        .map(|name| {
            let published = state.published(name);
            json!({
                "name": name.to_string(),
                "revision": published.snapshot.revision.0,
                "digest": published.digest.to_string(),
            })
        })
        .collect();
    let mut explained = None;
    if let Some(asked) = &asked {
        let mut rows = Rows::after(&offline, start.first, start.previous);
        explained = Some(explain_by(state, asked, &mut rows)?);
    }
    let what_if =
        rules.map(|rules| WhatIf::new(&offline, &start, until, rules, state)).transpose()?;
    let divergence = replay.divergence().map(|divergence| {
        json!({
            "index": divergence.index,
            "checkpoint": divergence.checkpoint,
            "what": divergence.what,
            "expected": divergence.expected,
            "found": divergence.found,
        })
    });
    let diverged = divergence.is_some();
    if json {
        let mut report = json!({
            "index": replay.index(),
            "service_clusters": clusters,
            "checkpoints": replay.checkpoints(),
            "unchecked": replay.unchecked(),
            "entries": replay.entries(),
            "state": state.digest().to_string(),
            "divergence": divergence,
        });
        if let Some(explained) = &explained {
            report["explain"] = in_json(explained);
        }
        if let Some(what_if) = &what_if {
            report["what_if"] = what_if.in_json();
        }
        print(report);
    } else {
        explained.iter().flat_map(in_words).for_each(print);
        clusters.iter().for_each(print);
        print(format_args!(
            "{} entries, up to index {}; {} checkpoints agree",
            replay.entries(),
            replay.index(),
            replay.checkpoints()
        ));
        what_if.iter().flat_map(WhatIf::in_words).for_each(print);
        if let Some(divergence) = divergence {
            print(format_args!("first difference: {divergence}"));
        }
    }
    Ok(ExitCode::from(u8::from(diverged)))
}
