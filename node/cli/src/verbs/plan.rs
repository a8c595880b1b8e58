//! `plan`: what files would change in the running core.

use std::process::ExitCode;

use dovetail_config::planned::Planned;
use dovetail_proto::v1 as pb;
use dovetail_routing::fact::{EndpointMode, Scale};

use super::check::print_findings;
use crate::args::FileArgs;
use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone, printable, service_cluster, share};
use crate::stack::{Files, Severity};

pub(crate) async fn run(
    core: &Core,
    out: &Out,
    args: &FileArgs,
    prune: bool,
) -> Result<ExitCode, Failure> {
    let mut files = Files::read(&args.files, &args.stack, &|name| std::env::var(name).ok())?;
    if files.configured() {
        let reason = "a configuration file cannot be planned: dovetail check reads it";
        return Err(Failure::Usage(reason.to_owned()));
    }
    if prune && args.stack.len() != 1 {
        let reason = "--prune removes what is no longer in one stack: name it with --stack NAME";
        return Err(Failure::Usage(reason.to_owned()));
    }
    let request = pb::PlanRequest {
        services: files.plan.services.iter().map(service).collect(),
        secrets: files.plan.secrets.iter().cloned().collect(),
        prune: args.stack.first().filter(|_| prune).cloned().unwrap_or_default(),
    };
    let answer = core
        .ask(|mut client| {
            let request = request.clone();
            async move { client.plan(request).await }
        })
        .await?;
    for problem in &answer.problems {
        let label = (problem.label.as_str(), problem.value.as_str());
        files.add(Severity::Problem, &problem.service, label, problem.reason.clone());
    }
    let Files { mut findings, .. } = files;
    findings.sort();
    let failed = !answer.conflicts.is_empty()
        || findings.iter().any(|finding| finding.severity == Severity::Problem);
    if out.is_json() {
        out.json(&json::Plan::new(answer, findings))?;
    } else {
        print(out, &answer)?;
        print_findings(out, &findings)?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn service(planned: &Planned) -> pb::PlannedService {
    use pb::planned_service::Scale as Wire;
    let label = |(key, value): (&String, &String)| pb::Label {
        key: key.clone(),
        value: Some(pb::label::Value::Text(value.clone())),
    };
    let recorded = |(key, _): &(&String, &String)| dovetail_config::planned::is_recorded(key);
    let host_port = |port: &dovetail_routing::fact::HostPort| pb::HostPort {
        target: port.target.into(),
        published: port.published.into(),
    };
    pb::PlannedService {
        name: planned.name.clone(),
        labels: planned.labels.iter().filter(recorded).map(label).collect(),
        networks: planned.networks.iter().cloned().collect(),
        endpoint_mode: match planned.endpoint_mode {
            EndpointMode::Vip => pb::EndpointMode::Vip,
            EndpointMode::Dnsrr => pb::EndpointMode::Dnsrr,
        }
        .into(),
        host_ports: planned.host_ports.iter().map(host_port).collect(),
        scale: Some(match planned.scale {
            Scale::Replicated(replicas) => Wire::Replicated(replicas),
            Scale::Global => Wire::Global(pb::Global {}),
            Scale::Job => Wire::Job(pb::Job {}),
        }),
    }
}

/// Prints routes that would differ.
pub(super) fn print_changes(out: &Out, changes: &[pb::RouteChange]) -> Result<ExitCode, Failure> {
    let mut table =
        out.table(&["CHANGE", "SERVICE CLUSTER", "HOST", "PATH", "TLS", "BEFORE", "AFTER"]);
    for change in changes {
        let Some(route) = change.after.as_ref().or(change.before.as_ref()) else { continue };
        let tone = match change.change.as_str() {
            "added" => Tone::Good,
            "removed" => Tone::Bad,
            _ => Tone::Warn,
        };
        let tls = |route: &Option<pb::Route>| route.as_ref().map(|route| route.tls.clone());
        let tls = match (tls(&change.before), tls(&change.after)) {
            (Some(before), Some(after)) if before != after => format!("{before} -> {after}"),
            (before, after) => after.or(before).unwrap_or_default(),
        };
        table.add_row([
            out.cell(&change.change, tone),
            out.cell(service_cluster(&change.service_cluster), Tone::Plain),
            out.cell(&route.host, Tone::Plain),
            out.cell(&route.path, Tone::Plain),
            out.cell(tls, Tone::Plain),
            out.cell(served(change.before.as_ref()), Tone::Plain),
            out.cell(served(change.after.as_ref()), Tone::Plain),
        ]);
    }
    out.print(&table, "no route would change")
}

fn print(out: &Out, answer: &pb::PlanResponse) -> Result<ExitCode, Failure> {
    print_changes(out, &answer.routes)?;
    for conflict in &answer.conflicts {
        out.line(&printable(&format!(
            "conflict: {}{} belongs to {}: {} would not serve it",
            conflict.host, conflict.path, conflict.owner, conflict.service
        )))?;
    }
    for problem in &answer.solved {
        out.line(&printable(&format!("solved: {}: {}", problem.service, problem.reason)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Who serves a route, and with how many upstreams.
pub(super) fn served(route: Option<&pb::Route>) -> String {
    let Some(route) = route else { return "-".to_owned() };
    let service = |service: &pb::RouteService| {
        let new = service.upstreams.iter().filter(|upstream| upstream.address == "new").count();
        let kept = service.upstreams.len() - new;
        let tasks = match (kept, new) {
            (0, 0) => "no task".to_owned(),
            (kept, 0) => format!("{kept}"),
            (0, new) => format!("{new} new"),
            (kept, new) => format!("{kept} + {new} new"),
        };
        format!("{} {} ({tasks})", service.name, share(service.weight))
    };
    route.services.iter().map(service).collect::<Vec<_>>().join(", ")
}
