//! `replay`: what an exported log comes to, and whether it is what the members had.

use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::path::Path;
use std::process::ExitCode;

use dovetail_ledger::explain::{Asked, explain_by};
use dovetail_ledger::{ExportError, ExportReader, Until, Verified, verify, what_if};
use dovetail_proto::v1 as pb;
use dovetail_routing::RuleSet;
use dovetail_routing::state::State;
use dovetail_routing::tell::differences;

use super::{explain, routes};
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, printable, short};

pub(crate) async fn run(
    out: &Out,
    path: &Path,
    until: Until,
    rules: Option<u32>,
    request: Option<&[String; 2]>,
) -> Result<ExitCode, Failure> {
    let rules = rules.map(RuleSet::try_from).transpose();
    let rules = rules.map_err(|error| Failure::Refused(format!("--rules: {error}")))?;
    let asked = request.map(asked).transpose()?;
    let file = File::open(path)
        .map_err(|error| Failure::Usage(format!("read {}: {error}", path.display())))?;
    // Seconds for a million entries: not on a thread that has to answer others.
    let replayed =
        tokio::task::spawn_blocking(move || replayed(file, until, rules, asked.as_ref()))
            .await
            .map_err(|error| Failure::Refused(error.to_string()))?;
    let Replayed { verified, assumed, explained } = match replayed {
        Ok(replayed) => replayed,
        Err(error) => {
            let reason = dovetail_process::chain(&error);
            out.line(&printable(&format!("{}: {reason}", path.display())))?;
            return Ok(ExitCode::from(1));
        }
    };
    let Some(state) = verified.replay.state() else {
        return Err(Failure::Refused(format!(
            "{}: begins at {} without the state before it, so that it can be verified and not \
             replayed: export it without --from",
            path.display(),
            verified.header.first
        )));
    };
    let oldest = verified.header.first.saturating_sub(1);
    if let Until::Index(index) = until
        && index < oldest
    {
        return Err(Failure::Refused(format!(
            "--until {index}: the file begins with the state after index {oldest}"
        )));
    }
    if let Until::Time(time) = until
        && state.leader_time_ms() > time
    {
        return Err(Failure::Refused(format!(
            "--until: the file begins with the state after index {oldest}, which is of a later time"
        )));
    }
    let what_if = rules.zip(assumed).map(|(rules, assumed)| compared(rules, state, &assumed));
    let told = what_if.as_ref().map(in_words);
    let report = json::Replayed::new(&verified.replay, state, explained.clone(), what_if);
    let diverged = report.diverged();
    if out.is_json() {
        out.json(&report)?;
        return Ok(ExitCode::from(u8::from(diverged)));
    }
    if let (Some(answer), Some([method, url])) = (explained, request) {
        explain::print(out, method, url, &answer)?;
        out.line("")?;
    }
    for name in state.service_clusters() {
        let published = pb::RoutesResponse::from(&*state.published(&name));
        routes::print(out, &published)?;
        out.line("")?;
    }
    for line in told.into_iter().flatten() {
        out.line(&printable(&line))?;
    }
    out.line(&format!(
        "{} entries, up to index {}; {} checkpoints agree",
        verified.replay.entries(),
        verified.replay.index(),
        verified.replay.checkpoints()
    ))?;
    if let Some(divergence) = verified.replay.divergence() {
        out.line(&format!(
            "first difference: the {} at {} is {}, the members had {} (checkpoint {})",
            divergence.what,
            divergence.index,
            short(&divergence.found),
            short(&divergence.expected),
            divergence.checkpoint
        ))?;
    }
    Ok(ExitCode::from(u8::from(diverged)))
}

/// What a file comes to.
struct Replayed {
    verified: Verified,
    /// What it would come to under another rule set.
    assumed: Option<State>,
    /// Where the request goes that was asked about.
    explained: Option<pb::ExplainResponse>,
}

fn replayed(
    mut file: File,
    until: Until,
    rules: Option<RuleSet>,
    asked: Option<&Asked>,
) -> Result<Replayed, ExportError> {
    let verified = verify(BufReader::new(&mut file), until)?;
    let mut explained = None;
    if let (Some(asked), Some(state)) = (asked, verified.replay.state()) {
        file.rewind().map_err(ExportError::Read)?;
        let mut rows = ExportReader::open(BufReader::new(&mut file))?;
        explained = Some(explain_by(state, asked, &mut rows)?);
    }
    let mut assumed = None;
    if let Some(rules) = rules {
        file.rewind().map_err(ExportError::Read)?;
        assumed = what_if(BufReader::new(file), until, rules)?;
    }
    Ok(Replayed { verified, assumed, explained })
}

/// The routes that another rule set would have made others.
fn compared(rules: RuleSet, state: &State, assumed: &State) -> json::WhatIf {
    let differences = differences(state, assumed).into_iter();
    let differences = differences.map(|(route, changes)| json::RouteDifference {
        service_cluster: route.service_cluster.to_string(),
        host: route.host.to_string(),
        path: route.path.to_string(),
        changes,
    });
    json::WhatIf { rules: rules.number(), differences: differences.collect() }
}

fn in_words(what_if: &json::WhatIf) -> Vec<String> {
    let rules = what_if.rules;
    if what_if.differences.is_empty() {
        return vec![format!("under rule set {rules} every route would be the same")];
    }
    let count = what_if.differences.len();
    let mut lines = vec![format!("under rule set {rules} {count} routes would differ:")];
    lines.extend(what_if.differences.iter().map(|route| {
        let (host, path) = (&route.host, &route.path);
        format!("  {host}{path}: {}", route.changes.join("; "))
    }));
    lines
}

/// The request that is asked about.
fn asked([method, url]: &[String; 2]) -> Result<Asked, Failure> {
    let request = pb::ExplainRequest {
        method: method.clone(),
        url: url.clone(),
        ..pb::ExplainRequest::default()
    };
    dovetail_ledger::explain::read(&request)
        .map_err(|reason| Failure::Usage(format!("--explain: {reason}")))
}
