//! `rollback` and `release`: routes as they were, until they are what Swarm says again.

use std::process::ExitCode;
use std::time::Duration;

use dovetail_proto::v1 as pb;

use super::change::{self, ChangeArgs};
use crate::core::Core;
use crate::failure::Failure;
use crate::out::Out;
use crate::when::When;

const ROLLBACK: &str = "\
Hosts, paths, options, shares and the names of certificates become what they were after that
entry; upstreams stay live ones. What Swarm says meanwhile is recorded and counted, and in
force again after a release. Routes that came later stay. All or nothing: a service that is
gone refuses it.

Examples:
  dovetail rollback --to 1234 --dry-run
  dovetail rollback --to 1234 --host shop.example --for 1h
  dovetail rollback --to '2026-11-23 18:00' --service shop_web --request-id CHG-42";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = ROLLBACK)]
pub(crate) struct Rollback {
    /// An index, a time, or how long ago, such as 10m
    #[arg(long, value_name = "REVISION|TIME")]
    to: When,
    #[command(flatten)]
    scope: ScopeArgs,
    /// It ends by itself after this time, such as 1h
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  dovetail release\n  \
    dovetail release --host shop.example --dry-run")]
pub(crate) struct Release {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Which routes; all unless it is said.
#[derive(Clone, Debug, clap::Args)]
struct ScopeArgs {
    /// Only routes of this host; * is the default backend
    #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true)]
    host: String,
    /// Only routes that this service was on
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// Another than the default service cluster
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service_cluster: String,
}

pub(crate) async fn rollback(core: &Core, out: &Out, verb: Rollback) -> Result<ExitCode, Failure> {
    let Rollback { to, scope, duration, change } = verb;
    let command = pb::RollbackRoutes {
        to: to.index(core).await?,
        host: scope.host,
        service: scope.service,
        for_ms: duration.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        service_cluster: scope.service_cluster,
    };
    change::send(core, out, &change, |mut client, request_id, dry_run| {
        let command = Some(command.clone());
        let request = pb::RollbackRequest { request_id, dry_run, command };
        async move { client.rollback(request).await }
    })
    .await
}

pub(crate) async fn release(core: &Core, out: &Out, verb: Release) -> Result<ExitCode, Failure> {
    let Release { scope, change } = verb;
    let command = pb::ReleaseRollback {
        service_cluster: scope.service_cluster,
        host: scope.host,
        service: scope.service,
    };
    change::send(core, out, &change, |mut client, request_id, dry_run| {
        let command = Some(command.clone());
        let request = pb::ReleaseRequest { request_id, dry_run, command };
        async move { client.release(request).await }
    })
    .await
}
