//! The signals that end a process.

use tokio::signal::unix::{SignalKind, signal};

/// Returns once the process is told to end, with the signal's name.
///
/// When the signals cannot be watched, it returns at once with the reason: a process
/// that cannot be ended in order must not run on unnoticed.
pub async fn shutdown() -> &'static str {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return "signals cannot be watched";
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
