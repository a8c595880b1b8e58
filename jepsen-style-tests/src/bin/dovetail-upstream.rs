//! A small upstream as a process of its own, for containers and by hand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use dovetail_jepsen::upstream::{Pem, Upstream, UpstreamConfig};
use tokio::signal::unix::{SignalKind, signal};

/// Answers HTTP/1.1, HTTP/2 and WebSockets with its name, or as the path asks.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// What to answer; the host name when absent.
    #[arg(long, env = "NAME")]
    name: Option<String>,
    /// What /ping shows beside the name.
    #[arg(long, env = "METADATA")]
    metadata: Option<String>,
    /// Serves TLS with this certificate, and those that lead to its authority, in PEM.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's key, in PEM.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
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
    let read = |file: PathBuf| {
        std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    };
    let pair = arguments.cert.zip(arguments.key);
    let tls = pair.map(|(cert, key)| anyhow::Ok(Pem { cert: read(cert)?, key: read(key)? }));
    let config = UpstreamConfig { metadata: arguments.metadata, tls: tls.transpose()? };
    let upstream = Upstream::start_with(config, &name, arguments.listen).await?;
    tokio::select! {
        _ = terminated.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    upstream.stop(Duration::from_secs(arguments.grace)).await;
    Ok(())
}
