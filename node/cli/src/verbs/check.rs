//! `check`: what files would come to, without a core.

use std::process::ExitCode;

use dovetail_config::planned;
use dovetail_proto::v1 as pb;
use dovetail_routing::Payload;
use dovetail_routing::entry::{Applied, Command, Entry, LogIndex, SCHEMA_VERSION};
use dovetail_routing::state::{Problem, State};

use crate::args::FileArgs;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone, printable, share};
use crate::stack::{Files, Finding, Severity};

pub(crate) fn run(out: &Out, args: &FileArgs, strict: bool) -> Result<ExitCode, Failure> {
    let mut files = Files::read(&args.files, &args.stack, &|name| std::env::var(name).ok())?;
    let state = outcome(&mut files);
    let mut routes = Vec::new();
    for cluster in state.service_clusters() {
        for route in &state.snapshot(&cluster).routes {
            routes.push((cluster.to_string(), pb::Route::from(route)));
        }
    }
    let Files { mut findings, plan, .. } = files;
    findings.sort();
    findings.dedup();
    let failed = findings.iter().any(|one| strict || one.severity == Severity::Problem);
    if out.is_json() {
        out.json(&json::Check::new(routes, findings))?;
    } else {
        if !plan.services.is_empty() {
            print(out, &routes)?;
        }
        print_findings(out, &findings)?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// The state in which Swarm shows what the files say; what is wrong with it is added to
/// their findings.
fn outcome(files: &mut Files) -> State {
    let mut state = State::default();
    if let Some(config) = &files.config {
        let config = Command::ApplyConfig(config.clone());
        if let Applied::Rejected(rejection) = apply(&mut state, config) {
            files.add(Severity::Problem, "", ("", ""), rejection.to_string());
        }
    }
    let configured = state.clone();
    planned::apply(&mut state, &files.plan);
    // A secret that no file names may well be there: Docker is not asked. So whatever is
    // missing is taken as there, and what then is no problem any more is only told.
    let mut with_secrets = files.plan.clone();
    let missed = state.problems();
    with_secrets.secrets.extend(missed.iter().map(|problem| problem.value.to_string()));
    let mut again = configured;
    planned::apply(&mut again, &with_secrets);
    let problems = again.problems();
    let is = |a: &Problem, b: &Problem| {
        (&a.service, &a.label, &a.value) == (&b.service, &b.label, &b.value)
    };
    for problem in &problems {
        let label = (&*problem.label, &*problem.value);
        files.add(Severity::Problem, &problem.service, label, problem.reason.to_string());
    }
    for problem in missed.iter().filter(|one| !problems.iter().any(|other| is(one, other))) {
        let reason = "is a secret that no file names: it is taken as there".to_owned();
        let label = (&*problem.label, &*problem.value);
        files.add(Severity::Warning, &problem.service, label, reason);
    }
    again
}

fn apply(state: &mut State, command: Command) -> Applied {
    let entry = Entry {
        schema_version: SCHEMA_VERSION,
        leader_time_ms: 0,
        actor: "".into(),
        request_id: "".into(),
        cause: "".into(),
        payload: Payload::Command(command),
    };
    state.apply(LogIndex(1), &entry)
}

fn print(out: &Out, routes: &[(String, pb::Route)]) -> Result<ExitCode, Failure> {
    let mut table =
        out.table(&["SERVICE CLUSTER", "HOST", "PATH", "TLS", "SERVICE", "SHARE", "TASKS"]);
    for (cluster, route) in routes {
        for (position, service) in route.services.iter().enumerate() {
            // What a row repeats from the one above is left out.
            let of_route = |text: &str| if position > 0 { String::new() } else { text.to_owned() };
            table.add_row([
                out.cell(of_route(crate::out::service_cluster(cluster)), Tone::Plain),
                out.cell(of_route(&route.host), Tone::Plain),
                out.cell(of_route(&route.path), Tone::Plain),
                out.cell(of_route(&route.tls), Tone::Plain),
                out.cell(&service.name, Tone::Plain),
                out.cell(share(service.weight), Tone::Plain),
                out.cell(service.upstreams.len().to_string(), Tone::Plain),
            ]);
        }
    }
    out.print(&table, "no routes")
}

/// Each finding on a line of its own, as compilers print them.
pub(crate) fn print_findings(out: &Out, findings: &[Finding]) -> Result<ExitCode, Failure> {
    if !findings.is_empty() {
        out.line("")?;
    }
    for finding in findings {
        out.line(&printable(&described(finding)))?;
    }
    let problems = findings.iter().filter(|one| one.severity == Severity::Problem).count();
    let count = |number, one: &str, many: &str| match number {
        0 => format!("no {many}"),
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    };
    let warnings = findings.len() - problems;
    out.line("")?;
    out.line(&format!(
        "{}, {}",
        count(problems, "problem", "problems"),
        count(warnings, "warning", "warnings")
    ))
}

fn described(finding: &Finding) -> String {
    let mut line = match &finding.place {
        Some(place) => format!("{place}: "),
        None => String::new(),
    };
    if finding.severity == Severity::Warning {
        line.push_str("warning: ");
    }
    if !finding.service.is_empty() {
        line.push_str(&format!("{}: ", finding.service));
    }
    match (finding.label.as_str(), finding.value.as_str()) {
        ("", "") => {}
        (label, "") => line.push_str(&format!("{label}: ")),
        ("", value) => line.push_str(&format!("{value:?}: ")),
        (label, value) => line.push_str(&format!("{label} {value:?}: ")),
    }
    line + &finding.reason
}
