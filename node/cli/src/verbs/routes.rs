//! `routes`: who serves what.

use std::process::ExitCode;

use dovetail_proto::v1 as pb;

use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone, printable, service_cluster, share, short};
use crate::when::{When, shown};

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  dovetail routes\n  \
    dovetail routes --at '2026-11-23 18:00'\n  \
    dovetail -o json routes --intent | jq -r .digest\n  \
    dovetail -o json routes --service-cluster blue | jq '.routes[].host'")]
pub(crate) struct Routes {
    /// Another than the default service cluster
    #[arg(long, value_name = "NAME", default_value = "")]
    service_cluster: String,
    /// Also without a quorum, however old
    #[arg(long, conflicts_with = "at")]
    stale: bool,
    /// As they were after this index, at this time, or so long ago
    #[arg(long, value_name = "REVISION|TIME")]
    at: Option<When>,
    /// Without upstreams: what a rollback restores, and the digest of that
    #[arg(long)]
    intent: bool,
}

pub(crate) async fn run(core: &Core, out: &Out, verb: Routes) -> Result<ExitCode, Failure> {
    let at = match verb.at {
        Some(at) => at.index(core).await?,
        None => 0,
    };
    let Routes { service_cluster: name, stale, intent, .. } = verb;
    let request = pb::RoutesRequest { service_cluster: name, stale, at, intent };
    let answer = core
        .ask(|mut client| {
            let request = request.clone();
            async move { client.routes(request).await }
        })
        .await?;
    if out.is_json() {
        return out.json(&json::Routes::from(answer));
    }
    if stale {
        out.age(answer.freshness.as_ref())?;
    }
    if intent {
        out.line(&printable(&format!("intents {}", answer.digest)))?;
        return intents(out, &answer.routes);
    }
    print(out, &answer)
}

/// The routes of one service cluster as a table.
pub(crate) fn print(out: &Out, answer: &pb::RoutesResponse) -> Result<ExitCode, Failure> {
    out.line(&printable(&format!(
        "service cluster {}  revision {}  digest {}",
        service_cluster(&answer.service_cluster),
        answer.revision,
        short(&answer.digest)
    )))?;
    for route in &answer.routes {
        let Some(held) = &route.rollback else { continue };
        out.line(&printable(&rolled_back(route, held)))?;
    }
    let mut table = out.table(&["HOST", "PATH", "TLS", "SERVICE", "SHARE", "UPSTREAM", "STATE"]);
    for route in &answer.routes {
        // What a row repeats from the one above is left out.
        let mut repeated = false;
        for service in &route.services {
            let none = [pb::Upstream::default()];
            let upstreams =
                if service.upstreams.is_empty() { &none } else { &service.upstreams[..] };
            for (position, upstream) in upstreams.iter().enumerate() {
                let of_route = |text: &str| if repeated { String::new() } else { text.to_owned() };
                let of_service = |text: String| if position > 0 { String::new() } else { text };
                let address = upstream.address.as_str();
                let (address, state, tone) = match (upstream.state.as_str(), &*upstream.reason) {
                    ("", _) => ("-", "no running task".to_owned(), Tone::Bad),
                    ("active", _) => (address, "active".to_owned(), Tone::Good),
                    (state, "") => (address, state.to_owned(), Tone::Warn),
                    (state, reason) => (address, format!("{state} ({reason})"), Tone::Warn),
                };
                table.add_row([
                    out.cell(of_route(&route.host), Tone::Plain),
                    out.cell(of_route(&route.path), Tone::Plain),
                    out.cell(of_route(&tls(route)), Tone::Plain),
                    out.cell(of_service(service.name.clone()), Tone::Plain),
                    out.cell(of_service(share(service.weight)), Tone::Plain),
                    out.cell(address, Tone::Plain),
                    out.cell(state, tone),
                ]);
                repeated = true;
            }
        }
    }
    out.print(&table, "no routes")
}

/// That a route is not what Swarm says.
fn rolled_back(route: &pb::Route, held: &pb::HeldRoute) -> String {
    let mut line = format!(
        "{}{} differs from Swarm by rollback at index {} (to {}, by {})",
        route.host,
        route.path,
        held.index,
        held.to,
        super::actor(&held.actor)
    );
    if let Some(until) = held.until_ms {
        line.push_str(&format!(", until {}", shown(until)));
    }
    match held.changes {
        0 => line,
        1 => line + "; 1 change of Swarm's is not in force",
        changes => format!("{line}; {changes} changes of Swarm's are not in force"),
    }
}

/// Routes without upstreams.
fn intents(out: &Out, routes: &[pb::Route]) -> Result<ExitCode, Failure> {
    let mut table = out.table(&["HOST", "PATH", "TLS", "SERVICES", "SHARES"]);
    for route in routes {
        let names: Vec<_> = route.services.iter().map(|service| service.name.as_str()).collect();
        let equal = route.services.iter().all(|service| service.weight == 0);
        let weights = route.services.iter().map(|service| share(service.weight));
        let shares =
            if equal { "equal".to_owned() } else { weights.collect::<Vec<_>>().join(", ") };
        table.add_row([
            out.cell(&route.host, Tone::Plain),
            out.cell(&route.path, Tone::Plain),
            out.cell(tls(route), Tone::Plain),
            out.cell(names.join(", "), Tone::Plain),
            out.cell(shares, Tone::Plain),
        ]);
    }
    out.print(&table, "no routes")
}

/// What happens to TLS, and with which certificate.
pub(super) fn tls(route: &pb::Route) -> String {
    match &route.certificate {
        Some(certificate) => format!("{} {}", route.tls, certificate.cert),
        None => route.tls.clone(),
    }
}
