//! What drains and the steps of canaries say, in words.

use dovetail_proto::v1 as pb;
use dovetail_routing::canary::Evidence;

use super::log::{NAMED_MAX, percent, route, short};

pub(super) fn started(start: pb::StartCanary) -> String {
    let steps: Vec<_> =
        start.steps.iter().take(NAMED_MAX).map(|step| format!("{}%", percent(*step))).collect();
    let more = start.steps.len().saturating_sub(NAMED_MAX);
    let mut words = format!(
        "canary on {} from {} to {}: {}",
        route(start.route),
        short(&start.from),
        short(&start.to),
        steps.join(", ")
    );
    if more > 0 {
        words.push_str(&format!(" and {more} more steps"));
    }
    words.push_str(&format!(" every {}", time(start.interval_ms)));
    if let Some(rate) = start.max_error_rate {
        words.push_str(&format!(", at most {}% may fail", percent(rate)));
    }
    if let Some(most) = start.max_p99_ms {
        words.push_str(&format!(", 99% within {}", time(most)));
    }
    words
}

pub(super) fn advanced(advance: pb::AdvanceCanary) -> String {
    let figures = advance.evidence.map(figures).unwrap_or_default();
    format!("step {} of the canary on {}{figures}", advance.step, route(advance.route))
}

pub(super) fn aborted(abort: pb::AbortCanary) -> String {
    let figures = abort.evidence.map(figures).unwrap_or_default();
    format!("abort the canary on {}{figures}", route(abort.route))
}

/// What a step was judged by: all proxies together, then each.
fn figures(evidence: pb::Evidence) -> String {
    let Ok(evidence) = Evidence::try_from(evidence) else { return String::new() };
    let mut proxies: Vec<_> = evidence
        .proxies
        .iter()
        .take(NAMED_MAX)
        .map(|one| {
            let missing = if one.missing { ", silent" } else { "" };
            format!("{} {}/{}{missing}", short(&one.proxy), one.errors, one.requests)
        })
        .collect();
    let more = evidence.proxies.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        proxies.push(format!("{more} more"));
    }
    let window = time(evidence.window_ms);
    format!(
        ", within {window} of step {}: {} ({})",
        evidence.step,
        evidence.sum(),
        proxies.join(", ")
    )
}

pub(super) fn drained(drain: pb::DrainUpstream) -> String {
    let until = drain.for_ms.map(|ms| format!(" for {}", time(ms))).unwrap_or_default();
    let force = if drain.force { ", by force" } else { "" };
    format!("drain {}{until}{force}", target(drain.target))
}

pub(super) fn target(target: Option<pb::DrainTarget>) -> String {
    use pb::drain_target::Target;
    match target.and_then(|target| target.target) {
        Some(Target::Address(address)) => short(&address),
        Some(Target::Service(name)) => format!("service {}", short(&name)),
        Some(Target::SwarmNode(name)) => format!("swarm node {}", short(&name)),
        None => "nothing".to_owned(),
    }
}

/// Milliseconds as the largest unit that needs no fraction.
fn time(ms: u64) -> String {
    match ms {
        ms if ms == 0 || ms % 1_000 != 0 => format!("{ms} ms"),
        ms if ms % 60_000 != 0 => format!("{} s", ms / 1_000),
        ms => format!("{} min", ms / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Option<pb::RouteRef> {
        Some(pb::RouteRef { host: "shop.example".to_owned(), ..pb::RouteRef::default() })
    }

    #[test]
    fn a_run_is_told_with_its_plan_and_its_figures() {
        let start = pb::StartCanary {
            route: place(),
            from: "blue".to_owned(),
            to: "green".to_owned(),
            steps: vec![500, 2_550, 10_000],
            interval_ms: 30_000,
            max_error_rate: Some(100),
            max_p99_ms: Some(250),
            min_requests: None,
        };
        assert_eq!(
            started(start),
            "canary on shop.example/ from blue to green: 5%, 25.5%, 100% every 30 s, at most 1% \
             may fail, 99% within 250 ms"
        );
        let proxy = |proxy: &str, errors, missing| pb::ProxyFigures {
            proxy: proxy.to_owned(),
            requests: 200,
            errors,
            latencies: vec![pb::LatencyBucket { bucket: 80, count: 200 }],
            missing,
        };
        let evidence = pb::Evidence {
            run: 7,
            step: 1,
            window_ms: 4_500,
            proxies: vec![proxy("edge-1", 3, false), proxy("edge-2", 30, true)],
        };
        let abort = pb::AbortCanary { route: place(), evidence: Some(evidence) };
        assert_eq!(
            aborted(abort),
            "abort the canary on shop.example/, within 4500 ms of step 1: 33 of 400 requests \
             failed (8.25 %), 99 % took up to 4.6 ms on 2 proxies (edge-1 3/200, edge-2 30/200, \
             silent)"
        );
        let abort = pb::AbortCanary { route: place(), evidence: None };
        assert_eq!(aborted(abort), "abort the canary on shop.example/");
    }

    #[test]
    fn a_drain_is_told_with_its_target_and_its_time() {
        let service = pb::drain_target::Target::Service("shop\nweb".to_owned());
        let target = Some(pb::DrainTarget { target: Some(service) });
        let drain = pb::DrainUpstream { target, for_ms: Some(600_000), force: true };
        assert_eq!(drained(drain), "drain service shop web for 10 min, by force");
        assert_eq!(drained(pb::DrainUpstream::default()), "drain nothing");
    }
}
