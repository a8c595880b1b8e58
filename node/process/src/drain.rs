//! One drain: who spawns through a [`DrainWatch`] is waited for at the end.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a drain ended; the process's exit code depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything ended by itself.
    AllFinished,
    /// The grace period was over with this many jobs still at work.
    CutOff {
        /// How many.
        jobs: usize,
    },
}

/// The owner of the end: begins the drain and waits for the work.
#[derive(Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    jobs: TaskTracker,
}

/// A cheap handle that tells of the drain and whose jobs the drain waits for.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    begun: CancellationToken,
    jobs: TaskTracker,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle for whoever does work.
    pub fn watch(&self) -> DrainWatch {
        DrainWatch { begun: self.begun.clone(), jobs: self.jobs.clone() }
    }

    /// Begins the drain and waits for the work to end, at most `grace`.
    pub async fn finish(self, grace: Duration) -> Drained {
        self.begun.cancel();
        self.jobs.close();
        match tokio::time::timeout(grace, self.jobs.wait()).await {
            Ok(()) => Drained::AllFinished,
            Err(_) => Drained::CutOff { jobs: self.jobs.len() },
        }
    }
}

impl DrainWatch {
    /// Returns once the drain has begun, at once if it already has. Cancel-safe.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Runs `work` as a job that the drain waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.jobs.track_future(work));
    }

    /// A watch whose drain nobody begins: for a tool that ends by itself, and for tests.
    pub fn never() -> Self {
        Drain::new().watch()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_drain_waits_for_what_was_spawned() {
        let drain = Drain::new();
        let watch = drain.watch();
        watch.spawn({
            let watch = watch.clone();
            async move {
                watch.begun().await;
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        });
        assert!(!watch.has_begun());
        assert_eq!(drain.finish(Duration::from_secs(10)).await, Drained::AllFinished);
        assert!(watch.has_begun());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_counted_and_cut_off() {
        let drain = Drain::new();
        drain.watch().spawn(std::future::pending());
        drain.watch().spawn(async {});
        let drained = drain.finish(Duration::from_secs(1)).await;
        assert_eq!(drained, Drained::CutOff { jobs: 1 });
    }
}
