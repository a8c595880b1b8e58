//! `problems`: what an operator should see.

use std::process::ExitCode;

use dovetail_proto::v1 as pb;

use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone};

pub(crate) async fn run(core: &Core, out: &Out, stale: bool) -> Result<ExitCode, Failure> {
    let request = pb::ProblemsRequest { stale };
    let answer = core.ask(|mut client| async move { client.problems(request).await }).await?;
    if stale {
        out.age(answer.freshness.as_ref())?;
    }
    if out.is_json() {
        let problems: Vec<json::Problem> = answer.problems.into_iter().map(Into::into).collect();
        return out.json(&problems);
    }
    let mut table = out.table(&["SERVICE", "LABEL", "VALUE", "REASON", "SINCE"]);
    for problem in answer.problems {
        table.add_row([
            out.cell(problem.service, Tone::Plain),
            out.cell(problem.label, Tone::Plain),
            out.cell(problem.value, Tone::Plain),
            out.cell(problem.reason, Tone::Warn),
            out.cell(problem.since_index.to_string(), Tone::Plain),
        ]);
    }
    out.print(&table, "no problems")
}
