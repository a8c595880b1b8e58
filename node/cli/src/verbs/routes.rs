//! `routes`: who serves what.

use std::process::ExitCode;

use dovetail_proto::v1 as pb;

use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone, printable, service_cluster, share, short};

pub(crate) async fn run(
    core: &Core,
    out: &Out,
    name: String,
    stale: bool,
) -> Result<ExitCode, Failure> {
    let request = pb::RoutesRequest { service_cluster: name, stale };
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
                let (address, state, tone) = match upstream.state.as_str() {
                    "" => ("-", "no running task", Tone::Bad),
                    "active" => (upstream.address.as_str(), "active", Tone::Good),
                    state => (upstream.address.as_str(), state, Tone::Warn),
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

/// What happens to TLS, and with which certificate.
fn tls(route: &pb::Route) -> String {
    match &route.certificate {
        Some(certificate) => format!("{} {}", route.tls, certificate.cert),
        None => route.tls.clone(),
    }
}
