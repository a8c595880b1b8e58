//! `drain`, `undrain`, `drains`: upstreams that nobody is sent to.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgGroup;
use dovetail_proto::v1 as pb;
use pb::drain_target::Target;

use super::canary::millis;
use super::change::{self, ChangeArgs};
use crate::core::Core;
use crate::failure::Failure;
use crate::json;
use crate::out::{Out, Tone};

pub(crate) const DRAIN: &str = "\
New requests go elsewhere, sticky users too; requests in flight finish. An address means the
task that is reached there now, and the drain ends with it. What would leave a route without
an active upstream is refused.

Examples:
  dovetail drain 10.0.1.3:8080 --for 10m
  dovetail drain --swarm-node worker-2 --dry-run
  dovetail drain --service shop_v1 --force";

/// What is drained: one of the three.
#[derive(Clone, Debug, clap::Args)]
#[command(group = ArgGroup::new("target").required(true).args(["address", "service", "swarm_node"]))]
pub(crate) struct TargetArgs {
    /// An upstream, as dovetail routes prints it
    #[arg(value_name = "ADDRESS")]
    address: Option<SocketAddr>,
    /// All upstreams of a service, by name
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// All tasks on a swarm node, by name or id
    #[arg(long, value_name = "NAME")]
    swarm_node: Option<String>,
}

impl From<TargetArgs> for pb::DrainTarget {
    fn from(args: TargetArgs) -> Self {
        let address = args.address.map(|address| Target::Address(address.to_string()));
        let service = args.service.map(Target::Service);
        Self { target: address.or(service).or(args.swarm_node.map(Target::SwarmNode)) }
    }
}

/// What `drain` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// It ends by itself after so long
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Even if it leaves a route without an active upstream
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

/// What `undrain` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct UndrainArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(super) async fn drain(core: &Core, out: &Out, args: DrainArgs) -> Result<ExitCode, Failure> {
    let command = pb::DrainUpstream {
        target: Some(args.target.into()),
        for_ms: args.duration.map(millis),
        force: args.force,
    };
    change::send(core, out, &args.change, |mut client, request_id, dry_run| {
        let command = Some(command.clone());
        let request = pb::DrainUpstreamRequest { request_id, dry_run, command };
        async move { client.drain_upstream(request).await }
    })
    .await
}

pub(super) async fn undrain(
    core: &Core,
    out: &Out,
    args: UndrainArgs,
) -> Result<ExitCode, Failure> {
    let command = pb::UndrainUpstream { target: Some(args.target.into()) };
    change::send(core, out, &args.change, |mut client, request_id, dry_run| {
        let command = Some(command.clone());
        let request = pb::UndrainUpstreamRequest { request_id, dry_run, command };
        async move { client.undrain_upstream(request).await }
    })
    .await
}

pub(super) async fn list(core: &Core, out: &Out, stale: bool) -> Result<ExitCode, Failure> {
    let answer = core
        .ask(|mut client| async move { client.drains(pb::DrainsRequest { stale }).await })
        .await?;
    if stale {
        out.age(answer.freshness.as_ref())?;
    }
    if out.is_json() {
        let drains: Vec<_> = answer.drains.into_iter().map(json::Drain::from).collect();
        return out.json(&drains);
    }
    let mut table = out.table(&["DRAINED", "ID", "UPSTREAMS", "UNTIL", "BY", "INDEX"]);
    for drain in &answer.drains {
        let upstreams: Vec<_> = drain.upstreams.iter().map(|one| one.address.as_str()).collect();
        table.add_row([
            out.cell(named(drain.target.as_ref()), Tone::Plain),
            out.cell(&drain.id, Tone::Plain),
            out.cell(upstreams.join(", "), Tone::Warn),
            out.cell(drain.until_ms.map(crate::out::time).unwrap_or_default(), Tone::Plain),
            out.cell(super::actor(&drain.actor), Tone::Plain),
            out.cell(drain.index.to_string(), Tone::Plain),
        ]);
    }
    out.print(&table, "no drains")
}

fn named(target: Option<&pb::DrainTarget>) -> String {
    match target.and_then(|target| target.target.as_ref()) {
        Some(Target::Address(address)) => address.clone(),
        Some(Target::Service(name)) => format!("service {name}"),
        Some(Target::SwarmNode(name)) => format!("swarm node {name}"),
        None => String::new(),
    }
}
