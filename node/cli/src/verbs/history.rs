//! `history` and `diff`: who changed which routes, and what differs between two entries.

use std::process::ExitCode;

use dovetail_proto::v1 as pb;

use super::{actor, plan};
use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone, printable};
use crate::when::{When, shown};

/// Entries that are asked for at once.
const PAGE: u64 = 500;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  dovetail history --host shop.example --since 1h\n  \
    dovetail -o json history --service shop_web | jq -r .cause")]
pub(crate) struct History {
    /// Only changes of routes of this host; * is the default backend
    #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true)]
    host: String,
    /// Only changes of routes that this service is or was on
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// From an index or a time on, or how long ago, such as 1h
    #[arg(long, value_name = "REVISION|TIME")]
    since: Option<When>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
}

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  dovetail diff 1200 1234\n  dovetail diff 10m\n  \
    dovetail -o json diff 1200 1234 | jq '.routes[].change'")]
pub(crate) struct Diff {
    /// An index, a time, or how long ago
    from: When,
    /// The same; now, unless given
    to: Option<When>,
}

pub(crate) async fn history(core: &Core, out: &Out, verb: History) -> Result<ExitCode, Failure> {
    let mut from = match verb.since {
        Some(since @ When::Time(_)) => since.index(core).await?.saturating_add(1),
        Some(When::Index(index)) => index,
        None => 0,
    };
    let mut left = verb.limit;
    let mut nothing = true;
    while left > 0 {
        let request = pb::HistoryRequest {
            host: verb.host.clone(),
            service: verb.service.clone(),
            from,
            limit: left.min(PAGE),
        };
        let answer = core
            .ask(|mut client| {
                let request = request.clone();
                async move { client.history(request).await }
            })
            .await?;
        left = left.saturating_sub(answer.entries.len() as u64);
        for entry in answer.entries {
            nothing = false;
            if out.is_json() {
                out.json(&json::HistoryEntry::from(entry))?;
            } else {
                print(out, &entry)?;
            }
        }
        from = answer.next;
        if from == 0 {
            break;
        }
    }
    if from > 0 && !out.is_json() {
        return out.line(&format!("more: --since {from}"));
    }
    if nothing && !out.is_json() {
        return out.line("no changes");
    }
    Ok(ExitCode::SUCCESS)
}

/// An entry, and below it what it did.
fn print(out: &Out, entry: &pb::HistoryEntry) -> Result<ExitCode, Failure> {
    let mut line = format!(
        "{}  {}  {}  {}",
        entry.index,
        shown(entry.leader_time_ms),
        actor(&entry.actor),
        entry.summary
    );
    if !entry.cause.is_empty() {
        line.push_str(&format!("  ({})", entry.cause));
    }
    out.line(&printable(&line))?;
    if !entry.objects.is_empty() {
        out.line(&printable(&format!("    by {}", entry.objects.join(", "))))?;
    }
    for changed in &entry.routes {
        let route = changed.route.clone().unwrap_or_default();
        let changes = changed.changes.join("; ");
        out.line(&printable(&format!("    {}: {changes}", place(&route))))?;
    }
    let more = entry.routes_changed.saturating_sub(entry.routes.len() as u64);
    if more > 0 {
        out.line(&format!("    {more} more routes"))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn place(route: &pb::RouteRef) -> String {
    match route.service_cluster.as_str() {
        "" => format!("{}{}", route.host, route.path),
        name => format!("{}{} of service cluster {name}", route.host, route.path),
    }
}

pub(crate) async fn diff(core: &Core, out: &Out, verb: Diff) -> Result<ExitCode, Failure> {
    let from = verb.from.index(core).await?;
    let to = match verb.to {
        Some(to) => to.index(core).await?,
        None => 0,
    };
    let request = pb::DiffRequest { from, to };
    let answer = core.ask(|mut client| async move { client.diff(request).await }).await?;
    if out.is_json() {
        return out.json(&json::Diff::from(answer));
    }
    out.line(&format!(
        "index {} ({}) to index {} ({})",
        answer.from,
        shown(answer.from_time_ms),
        answer.to,
        shown(answer.to_time_ms)
    ))?;
    let mut table = out.table(&["CHANGE", "ROUTE", "BEFORE", "AFTER"]);
    for change in &answer.routes {
        let Some(route) = change.after.as_ref().or(change.before.as_ref()) else { continue };
        let route = pb::RouteRef {
            service_cluster: change.service_cluster.clone(),
            host: route.host.clone(),
            path: route.path.clone(),
        };
        let tone = match change.change.as_str() {
            "added" => Tone::Good,
            "removed" => Tone::Bad,
            _ => Tone::Warn,
        };
        table.add_row([
            out.cell(&change.change, tone),
            out.cell(place(&route), Tone::Plain),
            out.cell(form(change.before.as_ref()), Tone::Plain),
            out.cell(form(change.after.as_ref()), Tone::Plain),
        ]);
    }
    out.print(&table, "no route differs")
}

/// A route in a cell: who serves it, and what it is.
fn form(route: Option<&pb::Route>) -> String {
    let Some(route) = route else { return "-".to_owned() };
    let mut words = vec![plan::served(Some(route))];
    if route.tls != "none" {
        words.push(super::routes::tls(route));
    }
    if let Some(options) = &route.options {
        for (set, word) in [(options.rewrite, "rewrite"), (options.ssl_only, "ssl_only")] {
            if set {
                words.push(word.to_owned());
            }
        }
        if !options.redirect.is_empty() {
            words.push(format!("redirect {}", options.redirect));
        }
        if !options.sticky.is_empty() {
            words.push(format!("sticky by {}", options.sticky));
        }
    }
    words.join(", ")
}
