//! `explain`: where a request goes, and why.

use std::process::ExitCode;

use dovetail_proto::v1 as pb;

use super::actor;
use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone, printable, share};
use crate::when::{When, shown};

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  dovetail explain GET https://shop.example/app\n  \
    dovetail explain GET http://10.0.0.7/ --header 'Host: shop.example' --client 203.0.113.9\n  \
    dovetail explain GET https://shop.example/ --at '2026-11-23 18:00'\n  \
    dovetail -o json explain GET https://shop.example/ | jq '.route.services'")]
pub(crate) struct Explain {
    /// The method, such as GET
    method: String,
    /// http:// or https://, a host, and a path
    url: String,
    /// A header of the request; Host counts before the URL's host
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The client's address
    #[arg(long, value_name = "IP", default_value = "", hide_default_value = true)]
    client: String,
    /// As it was after this index, at this time, or so long ago
    #[arg(long, value_name = "REVISION|TIME")]
    at: Option<When>,
    /// Another than the default service cluster
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service_cluster: String,
}

pub(crate) async fn run(core: &Core, out: &Out, verb: Explain) -> Result<ExitCode, Failure> {
    let at = match verb.at {
        Some(at) => at.index(core).await?,
        None => 0,
    };
    let request = pb::ExplainRequest {
        method: verb.method.clone(),
        url: verb.url.clone(),
        headers: verb.header,
        client: verb.client,
        at,
        service_cluster: verb.service_cluster,
    };
    let answer = core
        .ask(|mut client| {
            let request = request.clone();
            async move { client.explain(request).await }
        })
        .await?;
    if out.is_json() {
        return out.json(&json::Explain::from(answer));
    }
    print(out, &verb.method, &verb.url, &answer)
}

/// The answer for people.
pub(super) fn print(
    out: &Out,
    method: &str,
    url: &str,
    answer: &pb::ExplainResponse,
) -> Result<ExitCode, Failure> {
    out.line(&printable(&format!(
        "{method} {url}  as of index {} ({}), revision {}",
        answer.index,
        shown(answer.leader_time_ms),
        answer.revision
    )))?;
    for (position, step) in answer.steps.iter().enumerate() {
        out.line(&printable(&format!("{:>3}. {step}", position + 1)))?;
    }
    if let Some(route) = &answer.route {
        services(out, route, &answer.claims)?;
    }
    for problem in &answer.problems {
        let of = format!("problem: {} {}: {}", problem.service, problem.label, problem.reason);
        out.line(&printable(&of))?;
    }
    chain(out, &answer.chain)
}

fn services(out: &Out, route: &pb::Route, claims: &[pb::RouteClaim]) -> Result<(), Failure> {
    let mut table = out.table(&["SERVICE", "SHARE", "CLAIM SINCE", "UPSTREAM", "STATE"]);
    for (position, service) in route.services.iter().enumerate() {
        let claim = claims.iter().find(|claim| claim.service == service.name);
        let since = claim.map(|claim| claim.since_index.to_string()).unwrap_or_default();
        let name = match position {
            0 => format!("{} (incumbent)", service.name),
            _ => service.name.clone(),
        };
        let mut first = Some((name, share(service.weight), since));
        let none = [pb::Upstream::default()];
        let upstreams = if service.upstreams.is_empty() { &none } else { &service.upstreams[..] };
        for upstream in upstreams {
            let (name, weight, since) = first.take().unwrap_or_default();
            let (address, state, tone) = match upstream.state.as_str() {
                "" => ("-", "no running task", Tone::Bad),
                "active" => (upstream.address.as_str(), "active", Tone::Good),
                state => (upstream.address.as_str(), state, Tone::Warn),
            };
            table.add_row([
                out.cell(name, Tone::Plain),
                out.cell(weight, Tone::Plain),
                out.cell(since, Tone::Plain),
                out.cell(address, Tone::Plain),
                out.cell(state, tone),
            ]);
        }
    }
    out.print(&table, "no service")?;
    for claim in claims.iter().filter(|claim| !claim.in_force) {
        let line = format!(
            "not in force: the claim of {} since index {}",
            claim.service, claim.since_index
        );
        out.line(&printable(&line))?;
    }
    Ok(())
}

fn chain(out: &Out, links: &[pb::ChainLink]) -> Result<ExitCode, Failure> {
    let mut table = out.table(&["INDEX", "TIME", "ACTOR", "WHAT"]);
    for link in links {
        // A replay names entries by their index alone.
        let known = (link.leader_time_ms > 0).then_some(link.leader_time_ms);
        let time = known.map(shown).unwrap_or_default();
        table.add_row([
            out.cell(link.index.to_string(), Tone::Plain),
            out.cell(time, Tone::Plain),
            out.cell(actor(&link.actor), Tone::Plain),
            out.cell(&link.what, Tone::Plain),
        ]);
    }
    out.print(&table, "no entry made it so")
}
