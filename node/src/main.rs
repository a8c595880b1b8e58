//! `dovetaild`: a member of the core.
//!
//! Watches Docker, keeps the replicated log, serves the feed and the admin API.

mod args;
mod docker;
mod raft;
mod shutdown;
mod upkeep;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let given = dovetail_process::config::args_with_config::<args::Args>(args::CLUSTER_KEYS);
    match wire::run(given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => dovetail_process::exit::fail(&*error),
    }
}
