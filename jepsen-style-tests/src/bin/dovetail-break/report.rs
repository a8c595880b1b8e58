//! The report of a run, in Markdown: what was inflicted, what was done, what was found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use dovetail_jepsen::checks::Verdict;
use dovetail_jepsen::history::{Answer, End, History, Nemesis, Op, Seen, What};

use crate::Run;

/// Writes the report of a run.
pub(crate) fn write(
    path: &Path,
    run: &Run,
    seed: u64,
    history: &History,
    verdicts: &[Verdict],
) -> anyhow::Result<()> {
    let text = tell(run, seed, history, verdicts).context("tell the report")?;
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn tell(
    run: &Run,
    seed: u64,
    history: &History,
    verdicts: &[Verdict],
) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let end = history.events.last().map_or(0, |event| event.at);
    let held = verdicts.iter().all(Verdict::holds);
    writeln!(text, "# {}\n", if held { "Nothing was violated" } else { "VIOLATED" })?;
    let (members, proxies) = (run.members, run.proxies);
    writeln!(text, "{members} members, {proxies} proxies, seed {seed}, {} s.\n", seconds(end))?;
    writeln!(text, "## Properties\n")?;
    for verdict in verdicts {
        writeln!(text, "* {verdict}")?;
    }
    writeln!(text, "\n## Operations\n\n| operation | answered | refused | unknown |")?;
    writeln!(text, "|---|---|---|---|")?;
    let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for operation in history.operations() {
        let counted = counts.entry(name_of(operation.op)).or_default();
        let column = match operation.end {
            End::Ok(..) => &mut counted[0],
            End::Fail => &mut counted[1],
            End::Unknown => &mut counted[2],
        };
        *column += 1;
    }
    for (name, [answered, refused, unknown]) in counts {
        writeln!(text, "| {name} | {answered} | {refused} | {unknown} |")?;
    }
    let requests: u64 = history
        .seen()
        .map(
            |(_, _, _, seen)| {
                if let Seen::Answered { requests, .. } = seen { *requests } else { 0 }
            },
        )
        .sum();
    let (longest, from) = longest_gap(history);
    writeln!(text, "\n{requests} requests were answered through proxies. ")?;
    writeln!(
        text,
        "Without an acknowledged order for {} s at most, from {} s on.",
        seconds(longest),
        seconds(from)
    )?;
    writeln!(text, "\n## Faults\n\n| from s | to s | fault | on | |\n|---|---|---|---|---|")?;
    let mut begun = 0;
    for event in &history.events {
        match &event.what {
            What::FaultBegun { .. } => begun = event.at,
            What::FaultEnded { name, on, nemesis } => {
                let known = match nemesis {
                    Nemesis::Installed => "took effect".to_owned(),
                    Nemesis::Skipped { why } => format!("skipped: {why}"),
                    Nemesis::Indeterminate { why } => format!("indeterminate: {why}"),
                };
                let (from, to) = (seconds(begun), seconds(event.at));
                writeln!(text, "| {from} | {to} | {name} | {on} | {known} |")?;
            }
            _ => {}
        }
    }
    writeln!(text, "\n## Notes\n")?;
    for (_, at, by, seen) in history.seen() {
        if let Seen::Note { text: note } = seen {
            writeln!(text, "* {} s, {by}: {note}", seconds(at))?;
        }
    }
    Ok(text)
}

fn name_of(op: &Op) -> &'static str {
    match op {
        Op::Read { .. } => "read a register",
        Op::Write { .. } => "write a register",
        Op::Cas { .. } => "compare and set a register",
        Op::Annotate { .. } => "write a remark",
        Op::ReadRemarks { .. } => "read remarks",
        Op::ReadSteps { .. } => "read steps",
    }
}

/// The longest time between two acknowledged orders, and when it began.
fn longest_gap(history: &History) -> (u64, u64) {
    let (mut last, mut longest) = (None, (0, 0));
    for event in &history.events {
        if let What::Ok { answer: Answer::Done { .. }, .. } = &event.what {
            if let Some(last) = last {
                longest = longest.max((event.at - last, last));
            }
            last = Some(event.at);
        }
    }
    longest
}

fn seconds(micros: u64) -> String {
    format!("{}.{}", micros / 1_000_000, micros / 100_000 % 10)
}
