//! The main job, end to end, with real processes on the Docker stand-in.
//!
//! One binary, and one whole system at a time: the times that are measured here mean
//! something only when nothing else runs.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print what was measured"
)]

mod bad_input;
mod checkpoints;
mod configuration;
mod docker_faults;
mod exactly_once;
mod fixture;
mod follow;
mod formation;
mod grpc_python;
mod leader;
mod ledger;
mod members;
mod operator;
mod outage;
mod refill;
mod restore;
mod roles;
mod soak;
mod start_errors;
