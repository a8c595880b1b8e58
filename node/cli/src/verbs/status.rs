//! `status`, `members`, `proxies`: how the core is.

use std::process::ExitCode;
use std::time::Duration;

use comfy_table::Table;
use dovetail_proto::v1 as pb;

use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone, printable, service_cluster, short};

/// Between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn status(core: &Core, out: &Out, local: bool) -> Result<ExitCode, Failure> {
    print(out, ask(core, local).await?)
}

/// Asks again and again. A failure is printed, and does not end it.
pub(crate) async fn watch(core: &Core, out: &Out, local: bool) -> Result<ExitCode, Failure> {
    let mut next = tokio::time::interval(WATCH_INTERVAL);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        next.tick().await;
        match ask(core, local).await {
            Ok(answer) => {
                out.begin_frame()?;
                print(out, answer)?;
            }
            Err(failure @ (Failure::Usage(_) | Failure::Refused(_))) => return Err(failure),
            Err(failure) => {
                out.begin_frame()?;
                dovetail_process::exit::say(&failure.to_string());
            }
        }
        out.end_frame()?;
    }
}

pub(crate) async fn members(core: &Core, out: &Out) -> Result<ExitCode, Failure> {
    let answer = ask(core, false).await?;
    if out.is_json() {
        let members: Vec<json::Member> = answer.members.into_iter().map(Into::into).collect();
        return out.json(&members);
    }
    out.print(&members_table(out, &answer.members), "no members")
}

pub(crate) async fn proxies(core: &Core, out: &Out) -> Result<ExitCode, Failure> {
    let answer = ask(core, false).await?;
    if out.is_json() {
        let proxies: Vec<json::Proxy> = answer.proxies.into_iter().map(Into::into).collect();
        return out.json(&proxies);
    }
    out.print(&proxies_table(out, &answer), "no proxies")
}

pub(super) async fn ask(core: &Core, local: bool) -> Result<pb::StatusResponse, Failure> {
    if !local {
        return core.status().await;
    }
    let request = pb::StatusRequest { local };
    core.ask(|mut client| async move { client.status(request).await }).await
}

fn print(out: &Out, answer: pb::StatusResponse) -> Result<ExitCode, Failure> {
    if out.is_json() {
        return out.json(&json::Status::from(answer));
    }
    let leader = match answer.leader {
        0 => "none".to_owned(),
        slot => format!("member {slot}"),
    };
    let view = if answer.view == "local" { "  (one member's own view)" } else { "" };
    out.line(&printable(&format!(
        "cluster {}  leader {leader}  term {}  index {}{view}",
        if answer.cluster_id.is_empty() { "not formed" } else { &answer.cluster_id },
        answer.term,
        answer.index
    )))?;
    let docker = match (answer.docker_error.as_str(), answer.docker_age_seconds) {
        ("", Some(age)) => format!("  Docker read {age:.1} s ago"),
        ("", None) => String::new(),
        (error, Some(age)) => format!("  Docker read {age:.1} s ago, now: {error}"),
        (error, None) => format!("  Docker: {error}"),
    };
    out.line(&printable(&format!("problems {}{docker}", answer.problems)))?;
    if answer.rolled_back > 0 {
        out.line(&format!(
            "{} routes differ from Swarm by rollback: dovetail routes",
            answer.rolled_back
        ))?;
    }
    let mut clusters = out.table(&["SERVICE CLUSTER", "REVISION", "DIGEST"]);
    for cluster in &answer.service_clusters {
        clusters.add_row([
            out.cell(service_cluster(&cluster.name), Tone::Plain),
            out.cell(cluster.revision.to_string(), Tone::Plain),
            out.cell(short(&cluster.digest), Tone::Plain),
        ]);
    }
    out.line("")?;
    out.print(&clusters, "no service clusters")?;
    out.line("")?;
    out.print(&members_table(out, &answer.members), "no members")?;
    out.line("")?;
    out.print(&proxies_table(out, &answer), "no proxies")
}

fn members_table(out: &Out, members: &[pb::Member]) -> Table {
    let mut table = out.table(&["MEMBER", "ADDRESS", "ROLE", "APPLIED", "REACHABLE"]);
    for member in members {
        let (reachable, tone) =
            if member.reachable { ("yes", Tone::Good) } else { ("no", Tone::Bad) };
        table.add_row([
            out.cell(member.id.to_string(), Tone::Plain),
            out.cell(&member.address, Tone::Plain),
            out.cell(&member.role, Tone::Plain),
            out.cell(member.applied.to_string(), Tone::Plain),
            out.cell(reachable, tone),
        ]);
    }
    table
}

fn proxies_table(out: &Out, answer: &pb::StatusResponse) -> Table {
    let mut table =
        out.table(&["PROXY", "ADDRESS", "SERVICE CLUSTER", "REVISION", "MEMBER", "STATE"]);
    for proxy in &answer.proxies {
        let newest = answer
            .service_clusters
            .iter()
            .find(|cluster| cluster.name == proxy.service_cluster)
            .map_or(0, |cluster| cluster.revision);
        let (state, tone) = match (proxy.connected, proxy.nack.as_str()) {
            (false, _) => ("gone".to_owned(), Tone::Bad),
            (true, "") if proxy.revision < newest => {
                (format!("behind revision {newest}"), Tone::Warn)
            }
            (true, "") => ("in force".to_owned(), Tone::Good),
            (true, nack) => (format!("refused: {nack}"), Tone::Bad),
        };
        let member = if proxy.member == 0 { "-".to_owned() } else { proxy.member.to_string() };
        table.add_row([
            out.cell(&proxy.name, Tone::Plain),
            out.cell(&proxy.address, Tone::Plain),
            out.cell(service_cluster(&proxy.service_cluster), Tone::Plain),
            out.cell(proxy.revision.to_string(), Tone::Plain),
            out.cell(member, Tone::Plain),
            out.cell(state, tone),
        ]);
    }
    table
}
