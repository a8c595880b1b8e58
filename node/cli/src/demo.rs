//! `dovetail demo`: hands over to `dovetail-demo`, which lies beside this executable.
//!
//! The demo starts real members and proxies, load and faults; that is the harness of
//! the tests, so it is built there and this command line stays small.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use dovetail_process::exit;

/// The executable that tells the story.
const EXECUTABLE: &str = "dovetail-demo";

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("{} is not there: build it with `cargo build --workspace --bins`", .0.display())]
    Missing(PathBuf),
    #[error("cannot run {}", path.display())]
    Run {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// Becomes the demo, which with `once` tells its story, checks it, and ends; returns
/// only when there is none.
pub(crate) async fn run(once: bool) -> ExitCode {
    let path = std::env::current_exe().unwrap_or_default().with_file_name(EXECUTABLE);
    if !path.is_file() {
        return exit::fail_with(&DemoError::Missing(path), 2);
    }
    let error = Command::new(&path).args(once.then_some("--once")).exec();
    exit::fail_with(&DemoError::Run { path, error }, 2)
}
