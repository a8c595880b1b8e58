//! `replay`: what an exported log comes to, and whether it is what the members had.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use dovetail_ledger::explain::{Asked, links};
use dovetail_ledger::{Until, verify};
use dovetail_proto::v1 as pb;
use dovetail_routing::state::State;

use super::{explain, routes};
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, printable, short};

/// The rule sets that this build knows.
const RULES: &[u32] = &[1];

pub(crate) async fn run(
    out: &Out,
    path: &Path,
    until: Until,
    rules: Option<u32>,
    request: Option<&[String; 2]>,
) -> Result<ExitCode, Failure> {
    if let Some(rules) = rules.filter(|rules| !RULES.contains(rules)) {
        return Err(Failure::Refused(format!(
            "--rules {rules}: this build knows no such rule set; it knows {RULES:?}"
        )));
    }
    let asked = request.map(asked).transpose()?;
    let file = File::open(path)
        .map_err(|error| Failure::Usage(format!("read {}: {error}", path.display())))?;
    // Seconds for a million entries: not on a thread that has to answer others.
    let replayed = tokio::task::spawn_blocking(move || verify(BufReader::new(file), until))
        .await
        .map_err(|error| Failure::Refused(error.to_string()))?;
    let verified = match replayed {
        Ok(verified) => verified,
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
    let explained = asked.map(|asked| explained(state, &asked));
    let report = json::Replayed::new(&verified.replay, state, explained.clone());
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

/// Where the request goes by the replayed state. Its entries are named by their indexes.
fn explained(state: &State, asked: &Asked) -> pb::ExplainResponse {
    let (answer, explanation) = dovetail_ledger::explain::explain(state, asked);
    let chain = links(&explanation).into_iter().rev();
    let chain = chain.map(|(index, what)| pb::ChainLink {
        index,
        what: what.join("; "),
        ..pb::ChainLink::default()
    });
    pb::ExplainResponse { chain: chain.collect(), ..answer }
}
