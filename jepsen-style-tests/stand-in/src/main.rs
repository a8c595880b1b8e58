//! `dovetail-stand-in`: the stand-in as a process, driven over HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use dovetail_stand_in::{Options, StandIn, control};

/// A stand-in for a Docker engine that manages a Swarm.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where the Engine API listens; port 0 is a free one
    #[arg(long, value_name = "IP:PORT", required_unless_present = "unix")]
    listen: Option<SocketAddr>,
    /// A socket for the Engine API
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// A listener of its own for the control API, there even while the engine is away
    #[arg(long, value_name = "IP:PORT")]
    control: Option<SocketAddr>,
    /// The newest API version that it claims to speak
    #[arg(long, value_name = "MAJOR.MINOR", default_value = "1.41", value_parser = version)]
    api: (u32, u32),
    /// How many swarm nodes there are at the start
    #[arg(long, default_value_t = 1)]
    nodes: u8,
}

fn version(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once('.');
    parts
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| format!("{text:?} is no version such as 1.41"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let options = Options {
        tcp: args.listen,
        unix: args.unix,
        api: args.api,
        nodes: args.nodes,
        ..Options::default()
    };
    let stand_in = StandIn::start(options).await.context("listen")?;
    print(&stand_in.url().await);
    if let Some(address) = args.control {
        let bound = control::serve(&stand_in, address).await.context("listen for control")?;
        print(&format!("control http://{bound}{}", control::ROOT));
    }
    let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = ended.recv() => {}
    }
    stand_in.stop().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the address is this program's output")]
fn print(line: &str) {
    println!("{line}");
}
