//! Watches an engine and prints what is seen, with times: for looking at a real
//! Swarm by hand. `cargo run -p dovetail-docker --example watch -- unix:///var/run/docker.sock`

#![expect(clippy::print_stdout, reason = "a tool for the eye")]

use std::time::{Duration, Instant};

use dovetail_docker::{Docker, DockerConfig, WatchConfig};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url =
        std::env::args().nth(1).unwrap_or("unix:///var/run/docker.sock".to_owned()).parse()?;
    let config = DockerConfig { url, tls: None, timeout: Duration::from_secs(5) };
    let (watcher, handle) = WatchConfig::usual(None).build(Docker::connect(config).await?);
    let (mut seen, mut health) = (handle.seen(), handle.health());
    let started = Instant::now();
    let print = async {
        let mut last = None;
        loop {
            tokio::select! {
                changed = seen.changed() => changed?,
                changed = health.changed() => {
                    changed?;
                    let health = health.borrow_and_update().clone();
                    if health.error.is_some() {
                        println!("{:8.3}  {health:?}", started.elapsed().as_secs_f64());
                    }
                    continue;
                }
            }
            let Some(seen) = seen.borrow_and_update().clone() else { continue };
            let at = started.elapsed().as_secs_f64();
            let took = seen.taken_at.elapsed();
            let kind = if seen.full { "full " } else { "tasks" };
            println!("{at:8.3}  #{} {kind} took {took:?}", seen.sequence);
            for event in &seen.events {
                println!("          hint {} {} {}", event.kind, event.action, event.object);
            }
            for task in seen.listing.tasks.values() {
                let known = last.as_ref().and_then(|l: &std::sync::Arc<_>| {
                    let l: &dovetail_routing::fact::Listing = l;
                    l.tasks.get(&task.id)
                });
                if known != Some(task) {
                    let name = seen.listing.services.get(&task.service).map(|s| &*s.name);
                    let (name, address) = (name.unwrap_or("?"), task.addresses.last());
                    let address = address.map(|(_, ip)| ip.to_string()).unwrap_or_default();
                    println!(
                        "          {name} {} {:?}/{:?} {address}",
                        task.id, task.desired, task.state
                    );
                }
            }
            last = Some(seen.listing);
        }
        #[expect(unreachable_code, reason = "gives the block its type")]
        Ok::<(), tokio::sync::watch::error::RecvError>(())
    };
    tokio::select! {
        () = watcher.run(std::future::pending()) => {}
        result = print => result?,
    }
    Ok(())
}
