//! Breaks a whole system of real processes on one machine, and checks what became of it.
//!
//! Members and proxies live each in a network namespace of its own, members on disks of
//! their own; clients order, read and ask, faults come and go by a seed, and a history of
//! it all is checked. Without root all live on loopback with relays between them, and some
//! faults cannot be had. Exit 1 when something was violated or a demanded fault never took
//! effect, 2 when the run broke.

mod clients;
mod clocks;
mod disks;
mod faults;
mod finish;
mod registers;
mod remarks;
mod report;
mod requests;
mod run;
mod schedule;
mod steps;
mod watchers;
mod wires;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dovetail_jepsen::{checks, history::History, namespaces};

use crate::faults::Fault;

/// Breaks a system and checks its history.
#[derive(Debug, Parser)]
enum Arguments {
    /// Starts a system, breaks it for some minutes, heals it, and checks all properties
    Run(Run),
    /// Checks a history that was kept
    Check {
        /// What `run` wrote: history.jsonl
        history: PathBuf,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct Run {
    /// How long faults come and go; it takes a minute more to start, heal and check
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Of the quorum
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=5))]
    members: u8,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    proxies: u8,
    /// Faults, each of which has to take effect
    #[arg(long, value_delimiter = ',', value_enum, default_value = "all")]
    nemesis: Vec<Fault>,
    /// A folder with dovetaild and dovetail-proxy of another build, for the fault `upgrade`
    #[arg(long)]
    upgrade_to: Option<PathBuf>,
    /// What happens when; chosen and printed when absent
    #[arg(long)]
    seed: Option<u64>,
    /// Where history, logs and report are written; a folder that is not there yet
    #[arg(long)]
    keep: Option<PathBuf>,
    /// As without root: no namespaces and disks of its own, but relays on loopback
    #[arg(long)]
    relays: bool,
    /// Set by itself, in its own namespaces
    #[arg(long, hide = true)]
    inside: bool,
}

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "what it finds is its output")]
fn main() -> ExitCode {
    match Arguments::parse() {
        Arguments::Check { history } => match History::load(&history) {
            Ok(history) => verdict(&checks::all(&history)),
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::from(2)
            }
        },
        Arguments::Run(run) if run.inside => inside(run),
        Arguments::Run(run) => match namespaces::missing() {
            Some(reason) => {
                println!("by relays on loopback, with fewer faults: {reason}");
                inside(run)
            }
            None if run.relays => inside(run),
            None => outside().unwrap_or_else(|error| {
                eprintln!("{error:#}");
                ExitCode::from(2)
            }),
        },
    }
}

/// Runs this program once more, where it sees nothing but what it makes.
fn outside() -> anyhow::Result<ExitCode> {
    let mut command = namespaces::private(&std::env::current_exe()?);
    let status = command.args(std::env::args_os().skip(1)).arg("--inside").status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(2)))
}

/// Runs it here: within its own namespaces, or without any.
#[expect(clippy::print_stdout, reason = "what it finds is its output")]
fn inside(run: Run) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let verdicts =
        runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run::run(run)));
    match verdicts {
        Ok(verdicts) => verdict(&verdicts),
        Err(error) => {
            println!("the run broke, and proves nothing: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the verdict is its output")]
fn verdict(verdicts: &[checks::Verdict]) -> ExitCode {
    for verdict in verdicts {
        println!("{verdict}");
    }
    ExitCode::from(u8::from(!verdicts.iter().all(checks::Verdict::holds)))
}
