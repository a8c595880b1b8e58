//! The flush thread's work as a task, for a disk that lies in memory.
//!
//! A flush takes a while of virtual time and covers what was written before it began, so
//! a crash can fall between any write, its flush and its answer.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use super::{GUARD_LAG_MAX, Job, Work};
use crate::codec;
use crate::disk::{Family, key};
use crate::sim::{Mount, Part, Sabotage, sabotaged};
use crate::types::Vote;

/// Starts the task; it ends when the sender is dropped.
pub(super) fn start(work: Work) -> UnboundedSender<Job> {
    let (jobs, queue) = unbounded_channel();
    if let Some(mount) = work.disk.mount().cloned() {
        tokio::spawn(run(work, mount, queue));
    }
    jobs
}

async fn run(mut work: Work, mount: Mount, mut queue: UnboundedReceiver<Job>) {
    let mut late = None;
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
                jobs = before_the_flush(&mut work, jobs, &mut late);
                if jobs.is_empty() {
                    // Everybody was answered too early: nobody waits for this flush.
                    continue;
                }
                let appends = jobs.iter().any(|job| matches!(job, Job::Append { .. }));
                for (part, jobs) in by_log(jobs) {
                    mount.begin_flush(part);
                    sleep(mount.sync_delay()).await;
                    work.flush();
                    sleep(mount.gap()).await;
                    for job in jobs {
                        work.complete(job);
                    }
                }
                if let Some(vote) = late.take_if(|_| appends) {
                    sleep(mount.gap()).await;
                    write_late(&mut work, &mount, vote).await;
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
fn before_the_flush(work: &mut Work, jobs: Vec<Job>, late: &mut Option<Vote>) -> Vec<Job> {
    let mut rest = Vec::new();
    for job in jobs {
        match job {
            Job::Append { .. } if sabotaged(Sabotage::AckBeforeSync) => work.complete(job),
            Job::Vote { done, .. } if sabotaged(Sabotage::VoteUnsynced) => {
                let _ = done.send(Ok(()));
            }
            Job::Vote { vote, done } if sabotaged(Sabotage::VoteAfterAppend) => {
                *late = Some(vote);
                let _ = done.send(Ok(()));
            }
            job => rest.push(job),
        }
    }
    rest
}

/// Whom a flush answers: all, unless a sabotaged store flushes votes by themselves.
fn by_log(jobs: Vec<Job>) -> Vec<(Part, Vec<Job>)> {
    if !sabotaged(Sabotage::TwoLogs) {
        return vec![(Part::All, jobs)];
    }
    let (all, jobs): (Vec<_>, Vec<_>) =
        jobs.into_iter().partition(|job| matches!(job, Job::Sync { .. }));
    let (votes, rows): (Vec<_>, _) =
        jobs.into_iter().partition(|job| matches!(job, Job::Vote { .. }));
    let parts = [(Part::Votes, votes), (Part::Log, rows), (Part::All, all)];
    parts.into_iter().filter(|(_, jobs)| !jobs.is_empty()).collect()
}

/// Writes a vote that was given before the entries that are now durable.
async fn write_late(work: &mut Work, mount: &Mount, vote: Vote) {
    let written = work.disk.batch().and_then(|mut batch| {
        batch.put(Family::Meta, key::VOTE, codec::encode_vote(&vote));
        work.disk.write(batch)
    });
    if let Err(error) = written {
        return work.die(&error);
    }
    mount.begin_flush(Part::All);
    sleep(mount.sync_delay()).await;
    work.flush();
    work.acknowledged.vote = Some(vote);
    work.write_guard();
}
