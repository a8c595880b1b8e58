//! The `Observe` port of `control`, over `dovetail-docker`.

use std::sync::Arc;
use std::time::Duration;

use dovetail_control::observe::{Observation, Observe};
use dovetail_docker::{Docker, DockerConfig, DockerTls, Seen, WatchConfig, WatchHandle};
use dovetail_process::drain::DrainWatch;
use dovetail_routing::fact::Change;
use tokio::sync::watch;

use crate::args::Args;

/// The longest that one call to the engine may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The Swarm as this member's engine shows it.
#[derive(Debug)]
pub(crate) struct SwarmView {
    docker: Docker,
    watcher: WatchHandle,
    observations: watch::Receiver<Option<Arc<Observation>>>,
}

impl SwarmView {
    /// Begins to watch; an engine that is away is not an error.
    pub(crate) async fn start(
        args: &Args,
        poll_interval: Option<Duration>,
        drain: DrainWatch,
    ) -> anyhow::Result<Self> {
        let tls = DockerTls {
            ca: args.docker_ca.clone(),
            cert: args.docker_cert.clone(),
            key: args.docker_key.clone(),
            allow_insecure: args.docker_insecure,
        };
        let config = DockerConfig {
            url: args.docker.parse()?,
            tls: (tls != DockerTls::default()).then_some(tls),
            timeout: CALL_TIMEOUT,
        };
        let docker = Docker::connect(config).await?;
        let (watcher, handle) = WatchConfig::usual(poll_interval).build(docker.clone());
        let end = drain.clone();
        drain.spawn(async move { watcher.run(async move { end.begun().await }).await });
        let (sender, observations) = watch::channel(None);
        drain.spawn(translate(handle.seen(), sender, drain.clone()));
        Ok(Self { docker, watcher: handle, observations })
    }
}

/// What the watcher saw, in the words of the reconciler.
async fn translate(
    mut seen: watch::Receiver<Option<Seen>>,
    sender: watch::Sender<Option<Arc<Observation>>>,
    drain: DrainWatch,
) {
    loop {
        let observation = seen.borrow_and_update().as_ref().map(|seen| {
            Arc::new(Observation {
                listing: Arc::clone(&seen.listing),
                full: seen.full,
                sequence: seen.sequence,
                began: seen.taken_at,
                events: seen.events.clone(),
            })
        });
        if observation.is_some() {
            sender.send_replace(observation);
        }
        tokio::select! {
            biased;
            () = drain.begun() => return,
            changed = seen.changed() => if changed.is_err() { return },
        }
    }
}

impl Observe for SwarmView {
    fn observations(&self) -> watch::Receiver<Option<Arc<Observation>>> {
        self.observations.clone()
    }

    async fn exists(&self, removed: &Change) -> Result<bool, String> {
        self.docker.exists(removed).await.map_err(|error| dovetail_process::chain(&error))
    }

    fn look(&self) {
        self.watcher.look();
    }

    fn set_active(&self, active: bool) {
        self.watcher.set_active(active);
    }

    fn age(&self) -> Option<Duration> {
        Some(self.watcher.health().borrow().last_success?.elapsed())
    }

    fn error(&self) -> Option<String> {
        self.watcher.health().borrow().error.clone()
    }
}
