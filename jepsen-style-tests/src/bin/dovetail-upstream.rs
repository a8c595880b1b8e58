//! A small upstream as a process of its own, for containers and by hand.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use dovetail_jepsen::upstream::Upstream;
use tokio::signal::unix::{SignalKind, signal};

/// Answers HTTP/1.1 and cleartext HTTP/2 with its name.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// What to answer; the host name when absent.
    #[arg(long, env = "NAME")]
    name: Option<String>,
    /// How long SIGTERM waits for requests in flight, in seconds.
    #[arg(long, default_value_t = 5)]
    grace: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let hostname = || std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name = arguments.name.unwrap_or_else(|| hostname().trim().to_owned());
    let mut terminated = signal(SignalKind::terminate())?;
    let upstream = Upstream::start(&name, arguments.listen).await?;
    tokio::select! {
        _ = terminated.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    upstream.stop(Duration::from_secs(arguments.grace)).await;
    Ok(())
}
