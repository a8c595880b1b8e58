//! The one thread that makes writes durable, and says so in order.
//!
//! Whatever waits is flushed by one `fsync`; then callbacks are completed in the
//! order in which their writes were made. After one failed flush every later one
//! fails, and the process must end: a second `fsync` may succeed and have lost the
//! pages of the first.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::disk::Disk;
use crate::guard::{Acknowledged, Guard};
use crate::types::{TypeConfig, Vote};

/// How far the guard's index may lag.
const GUARD_LAG_MAX: Duration = Duration::from_secs(1);

/// A callback that is answered also when somebody forgets it: openraft would
/// otherwise wait for this disk for ever, and say nothing.
struct Callback(Option<IOFlushed<TypeConfig>>);

impl Callback {
    fn complete(mut self, result: io::Result<()>) {
        if let Some(callback) = self.0.take() {
            callback.io_completed(result);
        }
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            callback.io_completed(Err(io::Error::other("the flush of this write was dropped")));
        }
    }
}

type Done = oneshot::Sender<io::Result<()>>;

enum Job {
    /// Entries up to `last` were written.
    Append { last: u64, callback: Callback },
    /// A vote was written.
    Vote { vote: Vote, done: Done },
    /// Entries after `last` are about to be truncated.
    Truncate { last: Option<u64>, done: Done },
    /// Something was written.
    Sync { done: Done },
}

/// The handle of the flush thread; dropping it flushes what waits, and ends the thread.
#[derive(Debug)]
pub(crate) struct Flusher {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Of a simulated disk, which has a task in the thread's place.
    #[cfg(feature = "sim")]
    simulated: Option<tokio::sync::mpsc::UnboundedSender<Job>>,
}

impl Flusher {
    pub(crate) fn start(disk: Arc<Disk>, guard: Guard) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let acknowledged = guard.written();
        let work = Work { disk, guard, acknowledged, guard_written: Instant::now(), dead: None };
        #[cfg(feature = "sim")]
        if work.disk.mount().is_some() {
            let simulated = Some(simulated::start(work));
            return Ok(Self { jobs: None, thread: None, simulated });
        }
        let thread =
            std::thread::Builder::new().name("raft-flush".to_owned()).spawn(|| work.run(queue))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            #[cfg(feature = "sim")]
            simulated: None,
        })
    }

    fn push(&self, job: Job) {
        #[cfg(feature = "sim")]
        if let Some(jobs) = &self.simulated {
            let _ = jobs.send(job);
            return;
        }
        if let Some(jobs) = &self.jobs {
            // A job that cannot be sent is dropped, which answers it with an error.
            let _ = jobs.send(job);
        }
    }

    /// Completes `callback` once everything written so far is durable.
    pub(crate) fn append(&self, last: u64, callback: IOFlushed<TypeConfig>) {
        self.push(Job::Append { last, callback: Callback(Some(callback)) });
    }

    /// Returns once the vote that was written is durable, in the guard too.
    pub(crate) async fn vote(&self, vote: Vote) -> io::Result<()> {
        self.wait(|done| Job::Vote { vote, done }).await
    }

    /// Returns once the guard expects no entry after `last`.
    pub(crate) async fn truncate(&self, last: Option<u64>) -> io::Result<()> {
        self.wait(|done| Job::Truncate { last, done }).await
    }

    /// Returns once everything written so far is durable.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        self.wait(|done| Job::Sync { done }).await
    }

    async fn wait(&self, job: impl FnOnce(Done) -> Job) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.push(job(done));
        answer.await.unwrap_or_else(|_| Err(io::Error::other("the flush thread has ended")))
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was reported by `Alarm`.
            let _ = thread.join();
        }
    }
}

/// Says so when the flush thread panics.
struct Alarm(Arc<Disk>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the flush thread panicked");
        }
    }
}

struct Work {
    disk: Arc<Disk>,
    guard: Guard,
    acknowledged: Acknowledged,
    guard_written: Instant,
    /// Why nothing is acknowledged any more. Never reset.
    dead: Option<String>,
}

impl Work {
    fn run(mut self, queue: mpsc::Receiver<Job>) {
        let _alarm = Alarm(self.disk.clone());
        loop {
            let first = if self.acknowledged == self.guard.written() || self.dead.is_some() {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(GUARD_LAG_MAX.saturating_sub(self.guard_written.elapsed()))
            };
            match first {
                Ok(first) => {
                    // Taken before the flush: it covers what was written before they were sent.
                    let jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).collect();
                    self.flush();
                    for job in jobs {
                        self.complete(job);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.guard_written.elapsed() >= GUARD_LAG_MAX {
                self.write_guard();
            }
        }
        self.write_guard();
    }

    fn die(&mut self, error: &io::Error) {
        self.disk.fail(error);
        self.dead.get_or_insert_with(|| error.to_string());
    }

    fn flush(&mut self) {
        if self.dead.is_some() {
            return;
        }
        let start = Instant::now();
        match self.disk.flush() {
            Ok(()) => {
                metrics::histogram!("dovetail_raft_flush_seconds").record(start.elapsed());
            }
            Err(error) => self.die(&error),
        }
    }

    fn outcome(&self) -> io::Result<()> {
        match &self.dead {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(reason.clone())),
        }
    }

    fn complete(&mut self, job: Job) {
        match job {
            Job::Append { last, callback } => {
                if self.dead.is_none() {
                    self.acknowledged.flushed = self.acknowledged.flushed.max(Some(last));
                    metrics::gauge!("dovetail_raft_flushed_index").set(last as f64);
                }
                callback.complete(self.outcome());
            }
            Job::Vote { vote, done } => {
                self.acknowledged.vote = Some(vote);
                self.write_guard();
                let _ = done.send(self.outcome());
            }
            Job::Truncate { last, done } => {
                self.acknowledged.flushed = self.acknowledged.flushed.min(last);
                // The guard must not expect what is about to go.
                if self.guard.written().flushed > last {
                    self.write_guard();
                }
                let _ = done.send(self.outcome());
            }
            Job::Sync { done } => {
                let _ = done.send(self.outcome());
            }
        }
    }

    fn write_guard(&mut self) {
        if self.dead.is_some() || self.acknowledged == self.guard.written() {
            return;
        }
        if let Err(error) = self.guard.write(self.acknowledged) {
            self.die(&io::Error::other(format!("write the guard file: {error}")));
        }
        self.guard_written = Instant::now();
    }
}

#[cfg(feature = "sim")]
mod simulated;

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::type_config::TypeConfigExt as _;

    async fn append(flusher: &Flusher, last: u64) -> io::Result<()> {
        let (done, flushed) = TypeConfig::oneshot();
        flusher.append(last, IOFlushed::signal(done));
        flushed.await.expect("an answer")
    }

    fn disk(dir: &std::path::Path) -> Arc<Disk> {
        let lock = crate::files::Lock::take(&dir.join("lock")).expect("lock").expect("free");
        Arc::new(Disk::open(dir, lock).expect("disk"))
    }

    #[tokio::test]
    async fn after_one_failed_write_nothing_is_acknowledged() {
        let dir = tempfile::tempdir().expect("folder");
        let path = crate::guard::path(dir.path());
        drop(Guard::make(&path).expect("guard"));
        let disk = disk(dir.path());
        let guard = Guard::open_read_only(&path);
        let flusher = Flusher::start(disk.clone(), guard).expect("flusher");
        append(&flusher, 1).await.expect("the log is well");
        let fatal = disk.fatal();
        assert!(fatal.borrow().is_none());
        flusher.vote(Vote::new(1, 1)).await.expect_err("the guard cannot be written");
        assert!(fatal.borrow().as_ref().is_some_and(|reason| reason.contains("guard")));
        append(&flusher, 2).await.expect_err("the disk is dead");
        flusher.sync().await.expect_err("the disk is dead");
    }

    #[tokio::test]
    async fn a_callback_that_is_dropped_reports_an_error() {
        let (done, flushed) = TypeConfig::oneshot();
        drop(Callback(Some(IOFlushed::signal(done))));
        flushed.await.expect("an answer").expect_err("dropped");
    }
}
