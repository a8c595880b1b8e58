//! `completion`: what a shell needs to complete verbs and options.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Args;
use crate::failure::Failure;
use crate::out::Out;

pub(crate) fn run(out: &Out, shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "dovetail", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())
}
