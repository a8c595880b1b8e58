//! An operator's orders as a script writes and shows them.

use std::fmt::Write;

use dovetail_routing::Command;
use dovetail_routing::canary::{Evidence, Plan, ProxyFigures};
use dovetail_routing::command::{DrainTarget, Share};
use dovetail_routing::latency::{Latencies, bucket_of};
use dovetail_routing::names::ServiceCluster;
use dovetail_routing::snapshot::{RouteHost, RouteKey};
use dovetail_routing::state::State;

/// `HOST/PATH`, of the default service cluster; `*` is the default backend.
pub(crate) fn route(text: &str) -> RouteKey {
    let (host, path) = text.split_once('/').expect("HOST/PATH");
    let host = match host {
        "*" => RouteHost::Default,
        name => name.parse().expect("a host"),
    };
    let path = format!("/{path}").parse().expect("a path");
    RouteKey { service_cluster: ServiceCluster::default(), host, path }
}

/// `SERVICE=SHARE …`.
pub(crate) fn shares(words: &[(String, Option<String>)]) -> Vec<Share> {
    let share = |(service, weight): &(String, Option<String>)| Share {
        service: service.as_str().into(),
        weight: weight.as_ref().and_then(|weight| weight.parse().ok()).expect("SERVICE=SHARE"),
    };
    words.iter().map(share).collect()
}

pub(crate) fn canaries(state: &State) -> String {
    let mut out = String::new();
    for (route, canary) in state.canaries() {
        let _ = write!(out, "{route}");
        if let Some(set) = &canary.set {
            for share in &set.shares {
                let _ = write!(out, " {}={}", share.service, share.weight);
            }
            let _ = write!(out, " by {} at {}", set.actor, set.index);
        }
        if let Some(run) = &canary.run {
            let _ = write!(out, " {} to {} {}", run.from, run.to, run.state.as_str());
            let _ = write!(out, " at step {} of {}", run.step, run.plan.len());
            let _ =
                write!(out, " since {} by {} at {}", run.since_ms / 1_000, run.actor, run.index);
            if let Some(next) = run.next_step_ms() {
                let _ = write!(out, ", next at {}", next / 1_000);
            }
            if let Some(figures) = run.evidence {
                let _ = write!(out, "\n  {figures}");
            }
        }
        out.push('\n');
    }
    if out.is_empty() { "no canary\n".into() } else { out }
}

/// `IP:PORT`, `service=NAME` or `node=NAME`.
pub(crate) fn target(words: &[(String, Option<String>)]) -> DrainTarget {
    match words {
        [(key, Some(name)), ..] if key == "service" => DrainTarget::Service(name.as_str().into()),
        [(key, Some(name)), ..] if key == "node" => DrainTarget::SwarmNode(name.as_str().into()),
        [(address, None), ..] => DrainTarget::Address(address.parse().expect("IP:PORT")),
        other => panic!("{other:?} cannot be drained"),
    }
}

/// `TARGET [for=SECONDS] [force]`.
pub(crate) fn drain(words: &[(String, Option<String>)]) -> Command {
    let mut command = Command::DrainUpstream { target: target(words), for_ms: None, force: false };
    let Command::DrainUpstream { for_ms, force, .. } = &mut command else { return command };
    for (key, value) in &words[1..] {
        match (key.as_str(), value) {
            ("for", Some(seconds)) => {
                *for_ms = Some(seconds.parse::<u64>().expect("a number") * 1_000);
            }
            ("force", None) => *force = true,
            other => panic!("a drain has no {other:?}"),
        }
    }
    command
}

/// What is drained, until when, and what that leaves out of the routes.
pub(crate) fn drains(state: &State) -> String {
    let mut out = String::new();
    for (drained, drain) in state.drains() {
        let _ = write!(out, "{} ({drained:?}) by {} at {}", drain.target, drain.actor, drain.index);
        if let Some(until) = drain.until_ms {
            let _ = write!(out, " until {}", until / 1_000);
        }
        out.push('\n');
    }
    for service in state.services() {
        for upstream in state.drained_upstreams(&service.id) {
            let _ = writeln!(out, "  {} {}", service.name, upstream.address);
        }
    }
    if let Some(deadline) = state.next_deadline() {
        let _ = writeln!(out, "next at {}", deadline / 1_000);
    }
    if out.is_empty() { "no drain\n".into() } else { out }
}

/// `FROM TO STEP,STEP [interval=SECONDS] [error_rate=N] [p99=MS] [min=N]`.
pub(crate) fn start(route: RouteKey, words: &[(String, Option<String>)]) -> Command {
    let [(from, _), (to, _), (steps, _), more @ ..] = words else { panic!("FROM TO STEPS") };
    let steps = steps.split(',').filter(|step| !step.is_empty());
    let mut plan = Plan {
        steps: steps.map(|step| step.parse().expect("a step")).collect(),
        interval_ms: 5_000,
        ..Plan::default()
    };
    for (key, value) in more {
        let given: u64 = value.as_ref().and_then(|one| one.parse().ok()).expect("KEY=NUMBER");
        match key.as_str() {
            "interval" => plan.interval_ms = given * 1_000,
            "error_rate" => plan.max_error_rate = u16::try_from(given).ok(),
            "p99" => plan.max_p99_ms = Some(given),
            "min" => plan.min_requests = Some(given),
            other => panic!("a plan has no {other:?}"),
        }
    }
    Command::StartCanary { route, from: from.as_str().into(), to: to.as_str().into(), plan }
}

/// `[of=RUN] [step=N] [window=SECONDS] PROXY=REQUESTS:ERRORS:MS … PROXY=missing`; of what
/// is not given, what the route's run has.
pub(crate) fn evidence(
    state: &State,
    route: &RouteKey,
    words: &[(String, Option<String>)],
) -> Evidence {
    let run = state.canary(route).and_then(|canary| canary.run.as_ref());
    let mut evidence = Evidence {
        run: run.map(|run| run.index).unwrap_or_default(),
        step: run.map(|run| run.step).unwrap_or_default(),
        window_ms: 5_000,
        proxies: Vec::new(),
    };
    for (key, value) in words {
        let value = value.as_deref().expect("KEY=VALUE");
        let number = || value.parse::<u64>().expect("a number");
        match key.as_str() {
            "of" => evidence.run = dovetail_routing::LogIndex(number()),
            "step" => evidence.step = u32::try_from(number()).expect("a step"),
            "window" => evidence.window_ms = number() * 1_000,
            proxy => {
                let figures = ProxyFigures { proxy: proxy.into(), ..ProxyFigures::default() };
                evidence.proxies.push(match value {
                    "missing" => ProxyFigures { missing: true, ..figures },
                    _ => {
                        let parts: Vec<u64> =
                            value.split(':').map(|part| part.parse().expect("a number")).collect();
                        let [requests, errors, ms] = parts[..] else {
                            panic!("REQUESTS:ERRORS:MS")
                        };
                        let latencies = Latencies::new([(bucket_of(ms * 1_000), requests)]);
                        ProxyFigures { requests, errors, latencies, ..figures }
                    }
                });
            }
        }
    }
    evidence
}
