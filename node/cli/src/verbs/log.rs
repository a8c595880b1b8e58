//! `log show`: what happened, entry by entry.

use std::process::ExitCode;
use std::time::Duration;

use dovetail_proto::v1 as pb;

use super::actor;
use crate::core::Core;
use crate::failure::{Failure, Meaning};
use crate::json;
use crate::out::{Out, Tone};
use crate::when::shown;

/// Rows of one table: a longer log is printed as several, so that it begins at once.
const ROWS_AT_ONCE: usize = 1_000;

pub(crate) async fn show(
    core: &Core,
    out: &Out,
    from: u64,
    limit: u64,
    timeout: Duration,
) -> Result<ExitCode, Failure> {
    let request = pb::LogRequest { from, limit };
    let mut entries = core.ask(|mut client| async move { client.log(request).await }).await?;
    let mut rows = Vec::new();
    let mut printed = false;
    let mut first = None;
    loop {
        let entry = tokio::time::timeout(timeout, entries.message()).await.map_err(|_| {
            Failure::Unreachable(format!("the log broke off: nothing within {timeout:?}"))
        })?;
        if let Ok(Some(entry)) = &entry
            && first.is_none()
        {
            first = Some(entry.index);
            kept_since(entry, from);
        }
        match entry {
            Ok(Some(entry)) if out.is_json() => {
                out.json(&json::LogEntry::from(entry))?;
            }
            Ok(Some(entry)) => {
                rows.push(entry);
                if rows.len() >= ROWS_AT_ONCE {
                    print(out, std::mem::take(&mut rows))?;
                    printed = true;
                }
            }
            Ok(None) => break,
            Err(status) => {
                let reason = dovetail_process::grpc::describe(&status);
                return Err(match Meaning::of(&status) {
                    Meaning::Refused => Failure::Refused(reason),
                    _ => Failure::Unreachable(format!("the log broke off: {reason}")),
                });
            }
        }
    }
    if !out.is_json() && (!rows.is_empty() || !printed) {
        print(out, rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says so when older entries than those that are shown were asked for, and are not kept.
fn kept_since(shown_first: &pb::LogEntry, from: u64) {
    let pb::LogEntry { index, leader_time_ms, .. } = *shown_first;
    if index > from {
        let of = match leader_time_ms {
            0 => String::new(),
            ms => format!(" (of {})", shown(ms)),
        };
        dovetail_process::exit::say(&format!("no entry from {from} on is kept before {index}{of}"));
    }
}

fn print(out: &Out, entries: Vec<pb::LogEntry>) -> Result<ExitCode, Failure> {
    let mut table = out.table(&["INDEX", "TERM", "TIME", "KIND", "ACTOR", "SUMMARY", "CAUSE"]);
    for entry in entries {
        table.add_row([
            out.cell(entry.index.to_string(), Tone::Plain),
            out.cell(entry.term.to_string(), Tone::Plain),
            out.cell(shown(entry.leader_time_ms), Tone::Plain),
            out.cell(entry.kind, Tone::Plain),
            out.cell(actor(&entry.actor), Tone::Plain),
            out.cell(entry.summary, Tone::Plain),
            out.cell(entry.cause, Tone::Plain),
        ]);
    }
    out.print(&table, "no entries")
}

/// An entry on a line of its own.
pub(super) fn line(entry: &pb::LogEntry) -> String {
    let cause = if entry.cause.is_empty() { "" } else { "  because " };
    format!(
        "{}  {}  {}  {}  {}{cause}{}",
        entry.index,
        shown(entry.leader_time_ms),
        entry.kind,
        actor(&entry.actor),
        entry.summary,
        entry.cause
    )
}
