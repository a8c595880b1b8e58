//! `dovetail demo`: the whole system on this machine.

use std::process::ExitCode;

/// Runs the demo; with `once`, tells its story, checks it, and ends.
pub(crate) async fn run(_once: bool) -> ExitCode {
    dovetail_process::exit::say("demo is not built into this dovetail");
    ExitCode::from(2)
}
