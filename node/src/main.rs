//! `dovetaild`: a member of the core.
//!
//! Watches Docker, keeps the replicated log, serves the feed and the admin API. With a verb
//! instead of flags, it reads the data folder of a member that does not run.

mod args;
mod docker;
mod offline;
mod raft;
mod restore;
mod shutdown;
mod upkeep;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    if offline::is_asked() {
        return offline::run().unwrap_or_else(|error| dovetail_process::exit::fail(&*error));
    }
    let given = dovetail_process::config::args_with_config::<args::Args>(args::CLUSTER_KEYS);
    match wire::run(given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => dovetail_process::exit::fail(&*error),
    }
}
