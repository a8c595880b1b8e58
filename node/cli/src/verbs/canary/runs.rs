//! `canary start|pause|resume|abort`: a share that grows step by step.

use std::process::ExitCode;
use std::time::Duration;

use dovetail_proto::v1 as pb;

use super::RouteArgs;
use crate::core::Core;
use crate::failure::Failure;
use crate::out::{Out, share};
use crate::verbs::change::{self, ChangeArgs};

pub(super) const START: &str = "\
The first share is given at once. After each interval the leader judges what all proxies
measured of the target: then the next step is taken, or the canary is aborted, and the route
returns to the weights before the start. Too few requests, or a proxy that does not report,
hold the step.

Examples:
  dovetail canary start --host shop.example --from shop_v1 --to shop_v2 \\
      --steps 500,2500,5000,10000 --interval 30s --max-error-rate 1%
  dovetail canary start --host shop.example --path /app --from shop_v1 --to shop_v2 \\
      --steps 1000,10000 --interval 5m --max-p99 250ms --min-requests 1000 --dry-run";

/// What is started.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    #[command(flatten)]
    route: RouteArgs,
    /// The service that gives
    #[arg(long, value_name = "NAME")]
    from: String,
    /// The service that is to take over
    #[arg(long, value_name = "NAME")]
    to: String,
    /// Its shares in basis points, rising
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',', required = true)]
    steps: Vec<u32>,
    /// How long each step is measured at least
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// The greatest part of its requests that may fail, such as 1%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_error_rate: Option<u32>,
    /// The time within which 99 % of its answers must come
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_p99: Option<Duration>,
    /// Requests without which a step is not judged [default: 100]
    #[arg(long, value_name = "N")]
    min_requests: Option<u64>,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(super) async fn start(core: &Core, out: &Out, start: Start) -> Result<ExitCode, Failure> {
    let command = pb::StartCanary {
        route: Some(start.route.into()),
        from: start.from,
        to: start.to,
        steps: start.steps,
        interval_ms: millis(start.interval),
        max_error_rate: start.max_error_rate,
        max_p99_ms: start.max_p99.map(millis),
        min_requests: start.min_requests,
    };
    change::send(core, out, &start.change, |mut client, request_id, dry_run| {
        let request =
            pb::StartCanaryRequest { request_id, dry_run, command: Some(command.clone()) };
        async move { client.start_canary(request).await }
    })
    .await
}

pub(super) async fn pause(
    core: &Core,
    out: &Out,
    route: RouteArgs,
    change: &ChangeArgs,
) -> Result<ExitCode, Failure> {
    let command = pb::PauseCanary { route: Some(route.into()) };
    change::send(core, out, change, |mut client, request_id, dry_run| {
        let request =
            pb::PauseCanaryRequest { request_id, dry_run, command: Some(command.clone()) };
        async move { client.pause_canary(request).await }
    })
    .await
}

pub(super) async fn resume(
    core: &Core,
    out: &Out,
    route: RouteArgs,
    change: &ChangeArgs,
) -> Result<ExitCode, Failure> {
    let command = pb::ResumeCanary { route: Some(route.into()) };
    change::send(core, out, change, |mut client, request_id, dry_run| {
        let request =
            pb::ResumeCanaryRequest { request_id, dry_run, command: Some(command.clone()) };
        async move { client.resume_canary(request).await }
    })
    .await
}

pub(super) async fn abort(
    core: &Core,
    out: &Out,
    route: RouteArgs,
    change: &ChangeArgs,
) -> Result<ExitCode, Failure> {
    let command = pb::AbortCanary { route: Some(route.into()), evidence: None };
    change::send(core, out, change, |mut client, request_id, dry_run| {
        let request =
            pb::AbortCanaryRequest { request_id, dry_run, command: Some(command.clone()) };
        async move { client.abort_canary(request).await }
    })
    .await
}

/// A run in a few words: `running 2/4 to shop_v2 at 25%`.
pub(super) fn in_words(canary: &pb::Canary) -> String {
    let Some(run) = &canary.run else { return String::new() };
    let position = usize::try_from(run.step).unwrap_or_default().saturating_sub(1);
    let step = run.steps.get(position).copied().unwrap_or_default();
    let words =
        format!("{} {}/{} to {} at {}", run.state, run.step, run.steps.len(), run.to, share(step));
    if run.reason.is_empty() { words } else { format!("{words}: {}", run.reason) }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Basis points of `1%` or `0.25%`.
fn percent(given: &str) -> Result<u32, String> {
    let advice = "write it as 1% or 0.25%";
    let number = given.strip_suffix('%').ok_or(advice)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 2 {
        return Err(format!("{given:?} is no percentage of at most two decimals: {advice}"));
    }
    let points = format!("{whole}{part:0<2}").parse::<u32>().map_err(|_| advice)?;
    if points > 10_000 { Err(format!("{given} is more than all: {advice}")) } else { Ok(points) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_basis_points() {
        for (given, points) in
            [("1%", 100), ("0.25%", 25), ("0.5%", 50), ("100%", 10_000), ("0%", 0)]
        {
            assert_eq!(percent(given), Ok(points), "{given}");
        }
        for bad in ["1", "%", ".5%", "1.234%", "-1%", "101%", "1e2%", "99999999999%"] {
            let error = percent(bad).expect_err(bad);
            assert!(error.contains("write it as"), "{error}");
        }
    }

    #[test]
    fn a_run_is_told_in_a_few_words() {
        let mut run = pb::CanaryRun {
            to: "shop_v2".to_owned(),
            steps: vec![500, 2_500, 10_000],
            step: 2,
            state: "running".to_owned(),
            ..pb::CanaryRun::default()
        };
        let told = |run: &pb::CanaryRun| {
            in_words(&pb::Canary { run: Some(run.clone()), ..pb::Canary::default() })
        };
        assert_eq!(told(&run), "running 2/3 to shop_v2 at 25%");
        run.state = "aborted".to_owned();
        run.reason = "too slow".to_owned();
        assert_eq!(told(&run), "aborted 2/3 to shop_v2 at 25%: too slow");
        assert_eq!(in_words(&pb::Canary::default()), "");
    }
}
