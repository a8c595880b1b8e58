//! Writes the copy on disk without making anybody wait for the disk.
//!
//! Only the newest snapshot matters: what was not written yet is replaced. So a copy
//! may be a moment older than what is in force, and never newer.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tracing::warn;

use crate::disk::DiskCopy;
use crate::subscription::Position;

#[derive(Debug, Default)]
struct Slot {
    newest: Option<(Position, Bytes)>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Desk {
    slot: Mutex<Slot>,
    changed: Condvar,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that writes the newest snapshot.
#[derive(Debug)]
pub(crate) struct Keeper {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread. Without one, nothing is kept, which is said once.
    pub(crate) fn start(copy: DiskCopy) -> Self {
        let desk = Arc::new(Desk::default());
        let written = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("snapshot-copy".into())
            .spawn(move || write(&copy, &written))
            .inspect_err(|error| warn!(%error, "snapshot copy not kept"))
            .ok();
        Self { desk, thread }
    }

    /// Leaves a snapshot to be written.
    pub(crate) fn keep(&self, position: Position, canonical: Bytes) {
        self.desk.lock().newest = Some((position, canonical));
        self.desk.changed.notify_one();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.desk.lock().closed = true;
        self.desk.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It ends after the newest is written; a panic there has been printed.
            let _ = thread.join();
        }
    }
}

fn write(copy: &DiskCopy, desk: &Desk) {
    loop {
        let mut slot = desk.lock();
        let (position, canonical) = loop {
            if let Some(newest) = slot.newest.take() {
                break newest;
            }
            if slot.closed {
                return;
            }
            slot = desk.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        };
        drop(slot);
        if let Err(error) = copy.store(&position, &canonical) {
            metrics::counter!("dovetail_feed_copy_errors_total").increment(1);
            let revision = position.revision.0;
            warn!(%error, revision, path = %copy.path().display(), "snapshot copy not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_routing::names::ServiceCluster;
    use dovetail_routing::{Revision, Snapshot};

    #[test]
    fn the_newest_snapshot_is_on_disk_in_the_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let copy = DiskCopy::open(dir.path()).expect("a folder");
        let keeper = Keeper::start(copy.clone());
        for revision in 1..=50 {
            let snapshot = Snapshot { revision: Revision(revision), ..Snapshot::default() };
            let canonical = Bytes::from(snapshot.encode());
            let digest = Snapshot::digest_of(&canonical);
            let position =
                Position { cluster_id: "a".into(), revision: Revision(revision), digest };
            keeper.keep(position, canonical);
        }
        drop(keeper);
        let loaded = copy.load(&ServiceCluster::default()).expect("whole").expect("there");
        assert_eq!(loaded.position.revision, Revision(50));
    }
}
