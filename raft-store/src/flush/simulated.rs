//! The flush thread's work as a task, for a disk that lies in memory.
//!
//! A flush takes a while of virtual time and covers what was written before it began, so
//! a crash can fall between any write, its flush and its answer.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use super::{GUARD_LAG_MAX, Job, Work};
use crate::sim::{Mount, Sabotage, sabotaged};

/// Starts the task; it ends when the sender is dropped.
pub(super) fn start(work: Work) -> UnboundedSender<Job> {
    let (jobs, queue) = unbounded_channel();
    if let Some(mount) = work.disk.mount().cloned() {
        tokio::spawn(run(work, mount, queue));
    }
    jobs
}

async fn run(mut work: Work, mount: Mount, mut queue: UnboundedReceiver<Job>) {
    loop {
        let is_settled = work.acknowledged == work.guard.written() || work.dead.is_some();
        let wait = GUARD_LAG_MAX.saturating_sub(work.guard_written.elapsed());
        let first = match is_settled {
            true => Ok(queue.recv().await),
            false => timeout(wait, queue.recv()).await,
        };
        match first {
            Ok(Some(first)) => {
                let mut jobs = vec![first];
                while let Ok(job) = queue.try_recv() {
                    jobs.push(job);
                }
                jobs = before_the_flush(&mut work, jobs);
                if jobs.is_empty() {
                    // Everybody was answered too early: nobody waits for this flush.
                    continue;
                }
                mount.begin_flush();
                sleep(mount.sync_delay()).await;
                work.flush();
                sleep(mount.gap()).await;
                for job in jobs {
                    work.complete(job);
                }
            }
            Ok(None) => break,
            Err(_) => {}
        }
        if work.guard_written.elapsed() >= GUARD_LAG_MAX {
            work.write_guard();
        }
    }
    work.write_guard();
}

/// Completes what a sabotaged store answers too early; returns the rest.
fn before_the_flush(work: &mut Work, jobs: Vec<Job>) -> Vec<Job> {
    let mut rest = Vec::new();
    for job in jobs {
        match job {
            Job::Append { .. } if sabotaged(Sabotage::AckBeforeSync) => work.complete(job),
            Job::Vote { done, .. } if sabotaged(Sabotage::VoteUnsynced) => {
                let _ = done.send(Ok(()));
            }
            job => rest.push(job),
        }
    }
    rest
}
