//! `dovetail`, the operator's command line.
//!
//! ```text
//!  args ─► core (which member answers, follow the leader) ─► verbs ─► out (tables, JSON)
//!                       stack files, configuration files ─┘   demo
//! ```
//!
//! Exit codes: 0 done, 1 a check was made and failed, 2 usage, 3 refused,
//! 4 unreachable or no quorum, 5 outcome unknown.

mod args;
mod core;
mod demo;
mod failure;
mod json;
mod out;
mod stack;
mod verbs;
mod when;

use std::process::ExitCode;

use clap::Parser as _;
use dovetail_process::{exit, log};

use crate::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    // A tool is silent, unless its user wants to see what happens.
    if std::env::var_os("DOVETAIL_LOG").is_some()
        && let Err(error) = log::init(log::Format::Text)
    {
        return exit::fail_with(&error, 2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::fail(&error),
    };
    let code = runtime.block_on(async {
        match verbs::run(args).await {
            Ok(code) => code,
            Err(failure) => {
                exit::say(&failure.to_string());
                ExitCode::from(failure.code())
            }
        }
    });
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    code
}
