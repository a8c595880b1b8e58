//! Whole runs of the core in one process and virtual time, each decided by a seed.
//!
//! Real: openraft, `routing`, the store's logic, the reconciler, the schedule, checkpoints,
//! the subscriber's decisions, the codec. Simulated: network, disks, Docker, clocks, proxies.
//!
//! ```text
//! cargo test --workspace --test simulation              the slice for CI
//! cargo sim --seeds 0..1000                             many runs, on all processors
//! cargo sim --seed 17 --trace                           one run, with its trace
//! cargo sim --seeds 0..50 --sabotage ack-before-fsync   must go red
//! ```
//!
//! * [`run`]: the story of one run; [`plan`]: what a seed means; [`fleet`]: many runs;
//! * [`member`], [`network`], [`quorum`], [`docker`], [`proxies`], [`clients`], [`orders`]: the parts;
//! * [`nemesis`]: faults; [`world`]: what is shared and checked; [`audit`]: the end;
//! * [`random`]: why the same seed twice is the same run; [`believed`]: a mistake by itself.

mod args;
mod audit;
mod believed;
mod clients;
mod docker;
mod fleet;
mod member;
mod nemesis;
mod network;
mod orders;
mod plan;
mod proxies;
mod quorum;
mod random;
mod run;
mod slice;
mod trace;
mod world;

use std::process::ExitCode;

/// Prints a line for whoever runs this.
#[expect(clippy::print_stdout, reason = "a command's output")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match args::asked(&arguments) {
        Some(Ok(args::Asked::One(plan, print))) => fleet::one(plan, print),
        Some(Ok(args::Asked::Many(many))) => fleet::many(&many),
        Some(Err(reason)) => {
            say(&format!("simulation: {reason}"));
            ExitCode::from(2)
        }
        None => slice::run(),
    }
}
