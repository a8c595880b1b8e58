//! The whole system on this machine, with a stand-in for Docker: it tells its story,
//! breaks things, and checks each step.

mod screen;
mod story;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dovetail_jepsen::cluster::{Cluster, ClusterConfig};
use dovetail_jepsen::swarm::Swarm;
use tokio::signal::unix::{SignalKind, signal};

use crate::screen::Screen;

/// `dovetail demo`: three members, two proxies, small upstreams, and what may happen to them.
#[derive(Debug, Parser)]
#[command(name = "dovetail demo")]
struct Arguments {
    /// Ends after the story; exit code 0 only if every step held.
    #[arg(long)]
    once: bool,
    /// Leaves the folder with data and logs behind.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new();
    let told = tokio::select! {
        told = tell(&screen, &arguments) => told,
        // A demo that stays up is ended in no other way.
        () = interrupted() => Ok(!arguments.once && screen.all_held()),
    };
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen.line(&format!("✗ {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether every step held.
async fn tell(screen: &Screen, arguments: &Arguments) -> anyhow::Result<bool> {
    screen.line("Dovetail on this machine: 3 members, 2 proxies, and a stand-in for Docker.\n");
    let mut cluster = Cluster::prepare(ClusterConfig::default()).await?;
    if arguments.keep {
        cluster.place_mut().keep();
    }
    let swarm = Swarm::start(&cluster).await?;
    let held = story::tell(screen, &mut cluster, &swarm).await?;
    story::where_to_look(screen, &cluster);
    if !arguments.once {
        screen.line("\nIt stays up until Ctrl-C, and now and then an update rolls over shop.\n");
        loop {
            tokio::time::sleep(Duration::from_secs(20)).await;
            story::light_change(screen, &swarm).await?;
        }
    }
    Ok(held)
}

async fn interrupted() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
